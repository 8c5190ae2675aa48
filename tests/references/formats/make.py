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

# The same rows in Arrow's formats: the file (Feather 2), and the stream that the library datasets writes as its cache, also
# with compressed buffers and with a dictionary; and Parquet with every codec that is read.
import pyarrow.ipc as ipc

types = pa.table(
    {
        "prompt": pa.array(["q1", "q2", "q3"], pa.large_string()),
        "completion": pa.array(["a1", "ä2", "a3"], pa.string_view()),
        "task": pa.array(["x", "y", "x"]).dictionary_encode(),
        "n": pa.array([1, None, 3], pa.int32()),
        "small": pa.array([0.1, 0.2, 0.3], pa.float32()),
        "ok": pa.array([True, False, None]),
        "list": pa.array([[1, 2], [], [3]], pa.list_(pa.int64())),
        "map": pa.array([[("a", 1)], [], [("b", 2)]], pa.map_(pa.string(), pa.int8())),
    }
)
for name, rows, options in (
    ("chats", table, None),
    ("types", types, ipc.IpcWriteOptions(compression="zstd")),
):
    with ipc.new_file(f"{name}.arrow", rows.schema, options=options) as file:
        file.write_table(rows, max_chunksize=2)
    with ipc.new_stream(f"{name}.stream.arrow", rows.schema, options=options) as stream:
        stream.write_table(rows, max_chunksize=2)
for codec in ("none", "gzip", "zstd", "lz4"):
    pq.write_table(table, f"chats.{codec}.parquet", compression=codec)

# Columns of types that JSON has not, and texts in columns of bytes, as writers leave them that do not say what the bytes are.
import datetime
import decimal

moment = datetime.datetime(2024, 2, 29, 12, 30, 15, 250000)
unusual = pa.table(
    {
        "prompt": pa.array([b"q1", "ä".encode()], pa.binary()),
        "completion": pa.array([b"a1", b"a2"], pa.large_binary()),
        "image": pa.array([b"\x89PNG", b"\xff\xfe"], pa.binary()),
        "day": pa.array([moment.date(), None], pa.date32()),
        "millis": pa.array([moment, None], pa.timestamp("ms")),
        "micros": pa.array([moment, None], pa.timestamp("us", "UTC")),
        "time": pa.array([moment.time(), None], pa.time64("us")),
        "price": pa.array([decimal.Decimal("-1.50"), None], pa.decimal128(9, 2)),
        "took": pa.array([datetime.timedelta(seconds=3), None], pa.duration("ms")),
        "bits": pa.array([b"ab", b"cd"], pa.binary(2)),
    }
)
pq.write_table(unusual, "unusual.parquet")
view = pa.array([[1, 2], None], pa.list_view(pa.int64()))
with ipc.new_file("unusual.arrow", unusual.schema) as file:
    file.write_table(unusual)
with ipc.new_file("views.arrow", pa.schema([("prompt", pa.binary_view()), ("completion", pa.string()), ("view", view.type)])) as file:
    file.write_table(pa.table([pa.array([b"q", b"r"], pa.binary_view()), ["a", "b"], view], names=["prompt", "completion", "view"]))

# Two columns of one name.
twice = pa.table([["q"], ["a"], ["b"]], names=["prompt", "completion", "completion"])
pq.write_table(twice, "twice.parquet")
with ipc.new_file("twice.arrow", twice.schema) as file:
    file.write_table(twice)
