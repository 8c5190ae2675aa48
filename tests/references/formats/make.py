"""Writes chats.parquet, a file of the shape that published sets of conversations have: python make.py (pyarrow 26)."""

import pyarrow as pa
import pyarrow.parquet as pq

message = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(pa.string()))])
table = pa.table(
    {
        "messages": pa.array(
            [
                [
                    {"role": "user", "content": f"q{n}", "tool_calls": None},
                    {"role": "assistant", "content": answer, "tool_calls": None},
                ]
                for n, answer in ((1, "a1"), (2, "ä2"))
            ],
            pa.list_(message),
        ),
        "id": pa.array([9007199254740993, -9007199254740993], pa.int64()),
        "score": pa.array([0.5, float("nan")], pa.float64()),
    }
)
pq.write_table(table, "chats.parquet")
