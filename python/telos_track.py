#!/usr/bin/env python3
"""Follows runs of telos and sends what their logs say to Weights & Biases, MLflow or trackio.

    python python/telos_track.py runs/NAME --to wandb|mlflow|trackio [--project P]

RUN is the folder of a run, or one that contains runs: a pipeline, whose stages are runs of their own, or any folder of runs. The
program reads metrics.jsonl, timing.jsonl, histograms.jsonl and samples.jsonl while they grow, and ends when the runs have ended and
everything is sent. It changes none of the run's files and takes no lock. What was sent is recorded in `.track-TRACKER.json` in the
run's folder: started again after a break, the program continues the same run of the tracker where it was.
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import re
import signal
import sys
import time
import tomllib

LOGS = ("metrics.jsonl", "timing.jsonl", "histograms.jsonl", "samples.jsonl")
# How many bytes before the place that was read are compared, to see whether a file was truncated and written again.
TAIL = 4096
# Lines that are sent before the place is saved.
BATCH = 200
# Samples of one kind and step that are sent.
SAMPLES = 16


class Log:
    """A file of lines that grows. A place is a step and the number of its lines so far."""

    def __init__(self, path, state):
        self.path = path
        self.bytes, self.tail = state.get("bytes", 0), state.get("tail", "")
        # The places of the last line that was read, and of the last one that was sent.
        self.place, self.sent = tuple(state.get("place", (-1, 0))), tuple(state.get("sent", (-1, 0)))

    def state(self):
        return {"bytes": self.bytes, "tail": self.tail, "place": self.place, "sent": self.sent}

    def read(self, most):
        """Returns the next lines that were not sent, at most `most` of them, with their places.

        A resumed run truncates its files and writes the same steps again: those that were sent are skipped.
        """
        if not self.path.exists():
            return []
        lines = []
        with self.path.open("rb") as file:
            if self.bytes > 0 and digest_before(file, self.bytes) != self.tail:
                print(f"{self.path} was written again: the run was resumed; its steps up to {self.sent[0]} are sent already")
                self.bytes, self.place = 0, (-1, 0)
            file.seek(self.bytes)
            while len(lines) < most:
                text = file.readline()
                # The rest of such a line is still to be written.
                if not text.endswith(b"\n"):
                    break
                self.bytes += len(text)
                line = parsed(text)
                # Notes may differ between a run and the same run resumed, so they are not counted.
                if line is None or line.get("kind") == "note":
                    continue
                step = line["step"]
                self.place = (step, self.place[1] + 1 if step == self.place[0] else 1)
                if self.place > self.sent:
                    self.sent = self.place
                    lines.append((self.place, line))
            self.tail = digest_before(file, self.bytes)
        return lines


def digest_before(file, place):
    start = max(0, place - TAIL)
    file.seek(start)
    return hashlib.sha256(file.read(place - start)).hexdigest()


def parsed(text):
    """A line's object; None for a damaged line, which `telos report` names too."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def numbers(line, prefix=""):
    """Every number of a line by name; null is a number that was not finite."""
    found = {}
    for name, value in line.items():
        if name in ("step", "kind") or isinstance(value, (bool, str, list)):
            continue
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = math.nan if value is None else value
    return found


def scalars(log, line):
    if log == "timing.jsonl" and line.get("kind") in ("alert", "operations"):
        # The value of an alert is that of its metric; the time of operations is for the report.
        return {}
    if log == "timing.jsonl":
        return numbers(line, "timing/eval/" if line.get("kind") == "eval" else "timing/")
    return numbers(line)


def name_of_histogram(line):
    name = ("eval/" if line.get("kind") == "eval" else "") + line["name"]
    return name if line["name"] == "calibration" else f"{name}/distribution"


def kind_of_sample(line):
    return line.get("kind") or ("rollout" if "reward" in line else "text")


def samples_by_kind(lines):
    """Samples of one step and kind, at most SAMPLES of them, with the place of the first."""
    found = {}
    for place, line in lines:
        found.setdefault((line["step"], kind_of_sample(line)), []).append((place, line))
    for (step, kind), own in found.items():
        yield step, kind, own[0][0], [line for _, line in own[:SAMPLES]]


class Wandb:
    """Weights & Biases: `WANDB_MODE=offline` keeps everything on this machine."""

    def __init__(self, project, name, group, config, remote):
        import wandb

        self.wandb = wandb
        # `reinit`: several runs are followed at a time.
        self.run = wandb.init(project=project, name=name, group=group, config=config, id=remote, resume="allow", reinit="create_new")
        self.remote = self.run.id
        # The files are read one after the other, so steps do not come in order.
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def send(self, log, lines):
        if log == "samples.jsonl":
            for step, kind, _, samples in samples_by_kind(lines):
                columns = list(dict.fromkeys(key for sample in samples for key in sample if key not in ("step", "kind")))
                rows = [[shown(sample.get(column)) for column in columns] for sample in samples]
                self.run.log({f"samples/{kind}": self.wandb.Table(columns=columns, data=rows), "step": step})
            return
        for _, line in lines:
            if log == "histograms.jsonl":
                values = self.distribution(line)
            else:
                values = scalars(log, line)
            if values:
                self.run.log(values | {"step": line["step"]})

    def distribution(self, line):
        name = name_of_histogram(line)
        if line["name"] == "calibration":
            columns = ["from", "to", "predicted", "observed", "pairs"]
            rows = zip(line["edges"], line["edges"][1:], line["predicted"], line["observed"], line["counts"])
            return {name: self.wandb.Table(columns=columns, data=[list(row) for row in rows])}
        if not line["counts"]:
            return {}
        return {name: self.wandb.Histogram(np_histogram=(line["counts"], line["edges"]))}

    def pause(self):
        self.run.finish()

    def end(self, ending):
        self.run.summary["ending"] = ending
        self.run.finish(exit_code=0 if ending in ("done", "early", "paused") else 1)


class Mlflow:
    """MLflow, at the place in MLFLOW_TRACKING_URI. It has no histograms: these are artifacts, as are samples."""

    def __init__(self, project, name, group, config, remote):
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.client, self.metric = MlflowClient(), Metric
        known = self.client.get_experiment_by_name(project)
        experiment = known.experiment_id if known else self.client.create_experiment(project)
        if remote:
            self.remote = remote
            self.client.update_run(remote, status="RUNNING")
            return
        tags = {"telos.group": group} if group else {}
        self.remote = self.client.create_run(experiment, run_name=name, tags=tags).info.run_id
        params = [Param(key, str(value)[:6000]) for key, value in flat(config)]
        for begin in range(0, len(params), 100):
            self.client.log_batch(self.remote, params=params[begin : begin + 100])

    def send(self, log, lines):
        if log == "samples.jsonl":
            for (step, number), line in lines:
                self.artifact(f"samples/{kind_of_sample(line)}", step, number, line)
        elif log == "histograms.jsonl":
            for (step, number), line in lines:
                self.artifact(name_of_histogram(line), step, number, line)
        else:
            now = int(time.time() * 1000)
            # Names of MLflow have letters, digits, `_`, `-`, `.`, space, `:` and `/`.
            found = [
                self.metric(re.sub(r"[^\w\-. :/]", "_", name), value, now, line["step"])
                for _, line in lines
                for name, value in scalars(log, line).items()
            ]
            for begin in range(0, len(found), 1000):
                self.client.log_batch(self.remote, metrics=found[begin : begin + 1000])

    def artifact(self, folder, step, number, line):
        # The same line has the same name: sent twice, it is there once.
        self.client.log_dict(self.remote, line, f"{folder}/step-{step:08}.{number}.json")

    def pause(self):
        pass

    def end(self, ending):
        status = {"done": "FINISHED", "early": "FINISHED", "paused": "FINISHED", "interrupted": "KILLED"}.get(ending, "FAILED")
        self.client.set_tag(self.remote, "telos.ending", ending)
        self.client.set_terminated(self.remote, status)


class Trackio:
    """trackio, in the folder TRACKIO_DIR, or in a Space of the Hugging Face hub (`TRACKIO_SPACE_ID`)."""

    def __init__(self, project, name, group, config, remote):
        import trackio

        self.trackio = trackio
        # Without a run to continue, one of the same name is another run's.
        resume = "allow" if remote else "never"
        machine = {"auto_log_gpu": False, "auto_log_cpu": False}
        self.run = trackio.init(project=project, name=remote or name, group=group, config=config, resume=resume, embed=False, **machine)
        self.remote = self.run.name

    def send(self, log, lines):
        if log == "samples.jsonl":
            for step, kind, _, samples in samples_by_kind(lines):
                text = "\n\n".join("\n".join(f"{key}: {shown(value)}" for key, value in sample.items()) for sample in samples)
                self.run.log({f"samples/{kind}": self.trackio.Markdown(f"```\n{text}\n```")}, step=step)
            return
        for _, line in lines:
            if log != "histograms.jsonl":
                values = scalars(log, line)
            elif line["name"] == "calibration" or not line["counts"]:
                values = {}
            else:
                values = {name_of_histogram(line): self.trackio.Histogram(np_histogram=(line["counts"], line["edges"]))}
            if values:
                self.run.log(values, step=line["step"])

    def pause(self):
        self.run.finish()

    def end(self, ending):
        self.run.finish()


TRACKERS = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


def shown(value):
    return value if value is None or isinstance(value, (str, int, float)) else json.dumps(value, ensure_ascii=False)


def flat(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            yield from flat({str(index): one for index, one in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield prefix + key, value


class Run:
    """A run that is followed. Its tracker is opened when there is something to send."""

    def __init__(self, folder, name, group, to, project):
        self.folder, self.name, self.group, self.to, self.project = folder, name, group, to, project
        self.state_file = folder / f".track-{to}.json"
        state = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        self.remote, self.ended = state.get("remote"), state.get("ended")
        self.project = state.get("project", project)
        self.logs = {log: Log(folder / log, state.get("logs", {}).get(log, {})) for log in LOGS}
        self.tracker = None

    def follow(self):
        """Sends what is new. Returns whether the run has ended and everything is sent."""
        # Read before the logs: they are complete when this file is written.
        ending = self.ending()
        any_new = False
        for log in LOGS:
            while lines := self.logs[log].read(BATCH):
                any_new = True
                self.opened().send(log, lines)
                self.save()
                if stop.requested:
                    return False
        if any_new or ending is None:
            return False
        if ending != self.ended or self.tracker:
            self.opened().end(ending)
            self.tracker, self.ended = None, ending
            self.save()
        return True

    def ending(self):
        try:
            end = json.loads((self.folder / "end.json").read_text())
            return f"{end['ending']}" if isinstance(end, dict) else None
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def opened(self):
        if self.tracker is None:
            config = tomllib.loads((self.folder / "experiment.toml").read_text())
            self.tracker = TRACKERS[self.to](self.project, self.name, self.group, config, self.remote)
            self.remote, self.ended = self.tracker.remote, None
            self.save()
        return self.tracker

    def save(self):
        """Replaces the state file in one step."""
        logs = {name: log.state() for name, log in self.logs.items()}
        state = {"remote": self.remote, "project": self.project, "ended": self.ended, "logs": logs}
        part = self.state_file.with_suffix(".part.json")
        with part.open("w") as file:
            file.write(json.dumps(state))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.state_file)

    def pause(self):
        if self.tracker:
            self.tracker.pause()


def is_run(folder):
    return (folder / "experiment.toml").is_file()


def found_runs(root):
    """The folders of runs, each with its name and the folder that groups it."""
    if is_run(root):
        # A stage's name is that of its pipeline and its own.
        above = root.parent
        is_stage = (above / "pipeline.toml").is_file()
        return [(root, f"{above.name}/{root.name}" if is_stage else root.name, above.name if is_stage else None)]
    folders = sorted(path.parent for path in root.glob("**/experiment.toml") if "checkpoints" not in path.parts)
    return [(folder, f"{root.name}/{folder.relative_to(root).as_posix()}", root.name) for folder in folders]


def missing_stages(root, runs):
    """Whether stages of a pipeline are still to come, none of which comes after one that did not succeed, or runs of a study."""
    if (root / "study.json").is_file():
        try:
            plan = json.loads((root / "study.json").read_text())
            names = {run["name"] for arm in plan["arms"] for run in arm["runs"]} | set(plan["stages"])
        except (ValueError, KeyError, TypeError):
            return False
        return bool(names - {run.folder.name for run in runs} - set(plan.get("failed", {})))
    file = root / "pipeline.toml"
    if not file.is_file() or any(run.ended not in (None, "done", "early") for run in runs):
        return False
    try:
        names = {stage["name"] for stage in tomllib.loads(file.read_text())["stage"]}
    except (ValueError, KeyError, TypeError):
        return False
    return bool(names - {run.folder.name for run in runs})


class Stop:
    """Ctrl-C and SIGTERM end the program after the lines that are being sent."""

    requested = False

    def __call__(self, *_):
        self.requested = True


stop = Stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, help="folder of a run, or of several")
    parser.add_argument("--to", required=True, choices=TRACKERS, help="the tracker, whose Python package must be installed")
    parser.add_argument("--project", default="telos", help="the tracker's project, MLflow's experiment (default: telos)")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="how often to look for new lines (default: 2)")
    parser.add_argument("--once", action="store_true", help="send what is there and end, also if a run is in progress")
    args = parser.parse_args()
    root = args.run.resolve()
    if not root.is_dir():
        sys.exit(f"{args.run} is not a folder: name a run's folder, such as runs/NAME")
    is_to_come = any((root / name).is_file() for name in ("pipeline.toml", "study.json"))
    if not found_runs(root) and (args.once or not is_to_come):
        sys.exit(f"{args.run} contains no run: no folder in it has an experiment.toml")
    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, stop)
    runs = {}
    while not stop.requested:
        for folder, name, group in found_runs(root):
            if folder not in runs:
                runs[folder] = Run(folder, name, group, args.to, args.project)
        try:
            done = [run.follow() for run in runs.values()]
        except ImportError as error:
            sys.exit(f"the Python package of {args.to} is missing ({error}): python -m pip install {args.to}")
        if args.once and not any(done) or all(done) and runs and not missing_stages(root, runs.values()):
            break
        if not stop.requested:
            time.sleep(args.every)
    for run in runs.values():
        run.pause()


if __name__ == "__main__":
    main()
