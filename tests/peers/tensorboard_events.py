"""Reads the event files of runs with TensorBoard and compares them with the runs' own logs.

    python3 -m venv v; v/bin/pip install tensorboard==2.21.0
    telos run experiments/quickstart.toml --set 'track.tensorboard=true'
    v/bin/python tests/peers/tensorboard_events.py runs/quickstart

RUN is the folder of a run, or one that contains runs. Of each, the values that TensorBoard has after its own rules for a resumed
run are compared: every number of metrics.jsonl and timing.jsonl (to the precision of 32 bits), every histogram, and every text that
is shown. The program prints the tags and ends with an error if anything is missing, different or there twice.
"""

import argparse
import collections
import importlib.metadata
import json
import math
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as Tensors

# The most texts of one kind that are shown of a step.
TEXTS = 16


def lines(run, name):
    path = run / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def single(value):
    """The number that 32 bits hold; beyond their range infinity."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


def numbers(line, prefix=""):
    for name, value in line.items():
        if name in ("step", "kind") or isinstance(value, (bool, str)):
            continue
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{name}/")
        else:
            yield prefix + name, single(math.nan if value is None else value)


def expected_scalars(run):
    found = collections.defaultdict(list)
    logs = [(line, "") for line in lines(run, "metrics.jsonl")]
    logs += [(line, "timing/eval/" if line["kind"] == "eval" else "timing/") for line in lines(run, "timing.jsonl")
             if line["kind"] not in ("alert", "operations")]
    for line, prefix in logs:
        for tag, value in numbers(line, prefix):
            found[tag].append((line["step"], value))
    return found


def expected_histograms(run):
    found = collections.defaultdict(list)
    for line in lines(run, "histograms.jsonl"):
        if line["name"] != "calibration" and line["min"] is not None:
            tag = ("eval/" if line["kind"] == "eval" else "") + line["name"] + "/distribution"
            moments = [line[key] for key in ("min", "max", "count", "sum", "sum_squares")]
            found[tag].append((line["step"], moments, line["edges"][1:], line["counts"]))
    return found


def expected_texts(run):
    found = collections.defaultdict(dict)
    for line in lines(run, "samples.jsonl"):
        kind = line.get("kind") or ("rollout" if "reward" in line else "text")
        found[f"samples/{kind}"].setdefault(line["step"], []).append(line)
    return found


def shown(sample):
    """The lines of a sample as TensorBoard has them."""
    text = ""
    for name, value in sample.items():
        if name not in ("step", "kind"):
            value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            parts = f"{name}: {value}".replace("\r\n", "\n").removesuffix("\n").split("\n")
            text += "".join(f"    {part}\n" for part in parts)
    return text


def compare(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={kind: 0 for kind in ("scalars", "histograms", "tensors")})
    events.Reload()
    # The accumulator of TensorBoard's own pages, in which every value is a tensor. The other one keeps texts of steps that a
    # resumed run replaced.
    tensors = Tensors(str(run / "tensorboard"), size_guidance={"tensors": 0})
    tensors.Reload()
    tags, wrong = events.Tags(), []
    scalars, histograms, texts = expected_scalars(run), expected_histograms(run), expected_texts(run)
    for kind, expected in (("scalars", scalars), ("histograms", histograms), ("tensors", texts)):
        if set(tags[kind]) != set(expected):
            wrong.append(f"{kind}: only one has {sorted(set(tags[kind]) ^ set(expected))}")
    for tag in set(tags["scalars"]) & set(scalars):
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        if [step for step, _ in found] != [step for step, _ in scalars[tag]]:
            wrong.append(f"{tag}: steps {[step for step, _ in found]}, expected {[step for step, _ in scalars[tag]]}")
        elif not all(same(a, b) for (_, a), (_, b) in zip(found, scalars[tag])):
            wrong.append(f"{tag}: {found}, expected {scalars[tag]}")
    for tag in set(tags["histograms"]) & set(histograms):
        of = [(event.step, event.histogram_value) for event in events.Histograms(tag)]
        found = [(step, [h.min, h.max, h.num, h.sum, h.sum_squares], h.bucket_limit, h.bucket) for step, h in of]
        if found != histograms[tag]:
            wrong.append(f"{tag}: {found}, expected {histograms[tag]}")
    for tag in set(tags["tensors"]) & set(texts):
        found = {event.step: [text.decode() for text in event.tensor_proto.string_val] for event in tensors.Tensors(tag)}
        expected = {step: [shown(sample) for sample in samples[:TEXTS]] for step, samples in texts[tag].items()}
        if found != expected or len(tensors.Tensors(tag)) != len(expected):
            wrong.append(f"{tag}: {found}, expected {expected}")
    files = len(list((run / "tensorboard").iterdir()))
    values = sum(len(scalars[tag]) for tag in scalars)
    print(f"{run}: {files} event files, {values} scalars of {len(scalars)} tags, {sum(map(len, histograms.values()))} histograms, "
          f"{sum(map(len, texts.values()))} texts")
    for kind in ("scalars", "histograms", "tensors"):
        print(f"    {kind}: {', '.join(sorted(tags[kind])) or 'none'}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="+", type=pathlib.Path)
    runs = [folder.parent for run in parser.parse_args().run for folder in sorted(run.glob("**/tensorboard"))]
    if not runs:
        sys.exit("no run has event files: set track.tensorboard = true")
    print(f"tensorboard {importlib.metadata.version('tensorboard')}")
    wrong = [f"{run}: {why}" for run in runs for why in compare(run)]
    if wrong:
        sys.exit("\n".join(why if len(why) < 500 else why[:500] + " ..." for why in wrong))
    print("all values agree")


if __name__ == "__main__":
    main()
