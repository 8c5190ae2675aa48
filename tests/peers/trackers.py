"""Follows runs with python/telos_track.py and compares what arrived in Weights & Biases, MLflow and trackio with the runs' own logs.

    python3 -m venv v; v/bin/pip install wandb==0.31.0 mlflow==3.17.2 trackio==0.43.0
    v/bin/python tests/peers/trackers.py --telos PROGRAM --plugins FOLDER

All three keep their data in a temporary folder: W&B in offline mode, MLflow in SQLite. For each, a run is followed from its first
step; the tracker is ended by SIGTERM in the middle and started again; the run is killed and resumed, so that steps after its
last checkpoint are computed again, while it is followed and once more while it is not. Every number of metrics.jsonl and timing.jsonl must have arrived
once, at its step (of steps that were computed twice, either value of timing.jsonl), with every histogram and sample, and the program
must end by itself after the run.
"""

import argparse
import collections
import importlib.metadata
import json
import math
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "python"))
import telos_track

EXPERIMENT = """
seed = 7
backend = { plugin = "candle", threads = 1 }
model = { layers = 4, dim = 192, heads = 4, context = 48 }
data = { source = "jsonl", path = "rows.jsonl", held_out = 0.2 }
eval = { every = 40, generate = 4 }
checkpoint = { every = 60, keep = 1 }
sample = { every = 40, prompts = ["1? "], max_tokens = 8 }

[objective]
plugin = "ppo"

[[reward]]
plugin = "length"
unit = "characters"
target = 4

[rollout]
prompts = 8
epochs = 2
max_new_tokens = 8

[train]
steps = 600
batch = { prompts = 4 }
optimizer = { lr = 3e-3 }
"""


class Followed:
    """A run that is followed, in a folder of its own."""

    def __init__(self, folder, args, to):
        self.folder, self.args, self.to = folder, args, to
        self.run = folder / "runs/tiny"
        # Steps that were sent and then computed again.
        self.again = 0
        (folder / "tiny.toml").write_text(EXPERIMENT)
        rows = [{"prompt": f"{i}? ", "chosen": "yes", "rejected": "well, no"} for i in range(60)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.environment = os.environ | {
            "WANDB_MODE": "offline",
            "WANDB_SILENT": "true",
            "WANDB_DIR": str(folder),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "TRACKIO_DIR": str(folder / "trackio"),
            "HF_HUB_OFFLINE": "1",
        }

    def start(self, *more):
        command = [self.args.telos, "run", "tiny.toml", "--plugins", self.args.plugins, *more]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def follow(self):
        command = [sys.executable, ROOT / "python/telos_track.py", self.run, "--to", self.to, "--every", "0.05"]
        output = open(self.folder / "output.txt", "ab")
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=output, stderr=output)

    def saved(self):
        return int((self.run / "checkpoints/LATEST").read_text().strip().removeprefix("step-"))

    def lines(self, log):
        path = self.run / log
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def until(self, step, process, sent=False):
        """Waits for a step, or until the times of that step are sent; fails if the run ends before it."""
        while (self.last_sent() if sent else self.last_step()) < step:
            if process.poll() is not None:
                sys.exit(f"the run was over before step {step}: give it more steps")
            time.sleep(0.01)

    def last_step(self):
        path = self.run / "timing.jsonl"
        text = path.read_text() if path.exists() else ""
        steps = [json.loads(line)["step"] for line in text[: text.rfind("\n") + 1].splitlines()]
        return max(steps, default=0)

    def last_sent(self):
        path = self.run / f".track-{self.to}.json"
        return json.loads(path.read_text())["logs"]["timing.jsonl"]["sent"][0] if path.exists() else 0

    def whole_story(self):
        """Runs and follows as described above. Returns the numbers of timing.jsonl that later were written again."""
        replaced = []
        run = self.start()
        self.until(1, run)
        tracker = self.follow()
        self.until(70, run, sent=True)
        tracker.send_signal(signal.SIGTERM)
        tracker.wait()
        for followed, step in ((True, 170), (False, 290)):
            tracker = self.follow()
            # After the checkpoint of the step that is a multiple of 60, and before the next one.
            self.until(step, run, sent=True)
            if not followed:
                tracker.send_signal(signal.SIGTERM)
                tracker.wait()
            if run.poll() is not None:
                sys.exit("the run was over before it was killed: give it more steps")
            kill(run)
            replaced += [line for line in self.lines("timing.jsonl") if line["kind"] != "note"]
            self.again += self.last_sent() - self.saved()
            run = self.start("--resume")
            if followed:
                self.until(step + 40, run, sent=True)
                tracker.send_signal(signal.SIGTERM)
                tracker.wait()
        tracker = self.follow()
        if run.wait() != 0:
            sys.exit(f"the run failed in {self.folder}")
        if tracker.wait(timeout=300) != 0:
            sys.exit((self.folder / "output.txt").read_text())
        # Nothing is left to send.
        before = (self.run / f".track-{self.to}.json").read_text()
        again = self.follow()
        if again.wait(timeout=300) != 0 or (self.run / f".track-{self.to}.json").read_text() != before:
            sys.exit("a run that was sent is sent again")
        return replaced


def kill(run):
    """Kills telos and the process that trains."""
    children = pathlib.Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    run.kill()
    for child in children:
        try:
            os.kill(int(child), signal.SIGKILL)
        except ProcessLookupError:
            pass
    run.wait()


def from_mlflow(followed):
    os.environ["MLFLOW_TRACKING_URI"] = followed.environment["MLFLOW_TRACKING_URI"]
    import mlflow

    client = mlflow.MlflowClient(followed.environment["MLFLOW_TRACKING_URI"])
    state = json.loads((followed.run / ".track-mlflow.json").read_text())
    run = client.get_run(state["remote"])
    assert run.info.status == "FINISHED", run.info.status
    assert run.data.params["train.steps"] == "600", run.data.params
    scalars = {key: [(m.step, m.value) for m in client.get_metric_history(state["remote"], key)] for key in run.data.metrics}

    def files(path=None):
        found = client.list_artifacts(state["remote"], path)
        return sum((files(one.path) if one.is_dir else [one.path] for one in found), [])

    artifacts = files()
    return scalars, sum("distribution" in path for path in artifacts), sum(path.startswith("samples/") for path in artifacts)


def records(path):
    """The records of W&B's file: those of a LevelDB log after a header of 7 bytes."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def from_wandb(followed):
    from wandb.proto.wandb_internal_pb2 import Record

    scalars, histograms, samples = collections.defaultdict(list), 0, 0
    state = json.loads((followed.run / ".track-wandb.json").read_text())
    for path in sorted(followed.folder.glob("wandb/offline-run-*/*.wandb")):
        assert state["remote"] in path.name, (state, path)
        for data in records(path):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") != "history":
                continue
            # The parts of a value that is an object are items of their own.
            items = {tuple(item.nested_key) or (item.key,): json.loads(item.value_json) for item in record.history.item}
            step = items.pop(("step",))
            for (key, *part), value in items.items():
                if not part and not key.startswith("_"):
                    scalars[key].append((step, float(value)))
                histograms += part == ["_type"] and value == "histogram"
                samples += value if part == ["nrows"] and key.startswith("samples/") else 0
    return scalars, histograms, samples


def from_trackio(followed):
    os.environ["TRACKIO_DIR"] = followed.environment["TRACKIO_DIR"]
    from trackio.sqlite_storage import SQLiteStorage

    state = json.loads((followed.run / ".track-trackio.json").read_text())
    scalars, histograms, samples = collections.defaultdict(list), 0, 0
    assert SQLiteStorage.get_runs("telos") == [state["remote"]], SQLiteStorage.get_runs("telos")
    for line in SQLiteStorage.get_logs("telos", state["remote"]):
        for key, value in line.items():
            if key in ("step", "timestamp"):
                continue
            if isinstance(value, dict):
                histograms += "histogram" in value.get("_type", "")
                samples += value.get("_value", "").count("tokens: ") if key.startswith("samples/") else 0
            else:
                scalars[key].append((line["step"], float("nan") if value is None else float(value)))
    return scalars, histograms, samples


STORES = {"wandb": from_wandb, "mlflow": from_mlflow, "trackio": from_trackio}


def compare(followed, replaced):
    scalars, histograms, samples = STORES[followed.to](followed)
    expected, also = collections.defaultdict(list), collections.defaultdict(set)
    for log in ("metrics.jsonl", "timing.jsonl"):
        for line in followed.lines(log):
            for key, value in telos_track.scalars(log, line).items():
                expected[key].append((line["step"], value))
    for line in replaced:
        for key, value in telos_track.scalars("timing.jsonl", line).items():
            also[key].add((line["step"], value))
    wrong = [f"only one has {key}" for key in set(expected) ^ set(scalars)]
    for key in set(expected) & set(scalars):
        # trackio orders by the time of sending.
        found, wanted = sorted(scalars[key], key=lambda one: one[0]), expected[key]
        fits = lambda a, b: a[0] == b[0] and (math.isclose(a[1], b[1], rel_tol=1e-12) or a[1] != a[1] and b[1] != b[1] or a in also[key])
        if len(found) != len(wanted) or not all(map(fits, found, wanted)):
            extra = [one for one in found if one not in wanted][:5]
            wrong.append(f"{key}: {len(found)} values, expected {len(wanted)}; others: {extra}")
    lines = [line for line in followed.lines("histograms.jsonl") if line["name"] != "calibration"]
    if histograms != len(lines):
        wrong.append(f"{histograms} histograms, expected {len(lines)}")
    if samples != len(followed.lines("samples.jsonl")):
        wrong.append(f"{samples} samples, expected {len(followed.lines('samples.jsonl'))}")
    if followed.again == 0:
        wrong.append("no step was computed again, so nothing was tried")
    print(f"{followed.to} {importlib.metadata.version(followed.to)}: {sum(map(len, scalars.values()))} values of {len(scalars)} "
          f"metrics, {histograms} histograms, {samples} samples, {followed.again} steps computed again: {'; '.join(wrong) or 'all agree'}")
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--telos", required=True, type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--plugins", required=True, type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--only", choices=STORES, action="append")
    args = parser.parse_args()
    good = True
    for to in args.only or STORES:
        with tempfile.TemporaryDirectory() as folder:
            followed = Followed(pathlib.Path(folder), args, to)
            good &= compare(followed, followed.whole_story())
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
