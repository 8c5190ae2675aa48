#!/usr/bin/env python3
"""What gpu.sh runs: the parts one after the other, each with its own time limit, all results in one JSON file.

The file is written again after every part, so that a part that fails, hangs or is killed loses only its own results; its
output is in the file under its name.
"""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "peers"))
sys.dont_write_bytecode = True  # a distribution stays as its SHA256SUMS say

import side_by_side  # noqa: E402

TEXT = 4000  # characters kept of what a program printed


class Clock:
    """The time that is left of the whole run."""

    def __init__(self, minutes):
        self.end = time.monotonic() + 60 * minutes

    def left(self, most):
        return max(0.0, min(most, self.end - time.monotonic()))


class Report:
    """The JSON file."""

    def __init__(self, path):
        self.path, self.content = pathlib.Path(path), {"parts": {}}

    def write(self):
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(json.dumps(self.content, indent=1) + "\n")
        fresh.replace(self.path)

    def part(self, name, work):
        """Does one part; keeps its result or its failure."""
        start = time.monotonic()
        print(f"== {name}", file=sys.stderr, flush=True)
        try:
            result = work()
        except (Exception, SystemExit) as why:
            text = str(why) or traceback.format_exc()
            result = {"failed": f"{type(why).__name__}: {text}"[-TEXT:]}
        result["part_seconds"] = round(time.monotonic() - start, 1)
        self.content["parts"][name] = result
        self.write()
        print(f"   {result.get('failed', 'done')} ({result['part_seconds']} s)", file=sys.stderr, flush=True)


def from_json(text):
    """A list with the value of a JSON text; an empty one for any other text."""
    try:
        return [json.loads(text)]
    except ValueError:
        return []


def ask(command, limit, folder=None):
    """Runs a command, in a folder, to its end or the limit; its output, parsed where it is JSON."""
    shown = " ".join(map(str, command))
    if limit <= 0:
        return {"command": shown, "failed": "no time was left"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True, cwd=folder
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        # Its children too: it is the leader of its own group.
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        printed = {"stdout": out[-TEXT:], "stderr": err[-TEXT:]}
        return {"command": shown, "failed": f"not done within {limit:.0f} s", **printed}
    result = {"command": shown, "exit_code": process.returncode}
    # A run prints events, one a line; the last one is its result.
    parsed = [value for text in [out, *out.splitlines()[-1:]] for value in from_json(text)]
    result |= {"result": parsed[0]} if parsed else {"stdout": out[-TEXT:]}
    if process.returncode != 0:
        result["failed"] = f"exit code {process.returncode}: {err.strip()[-TEXT:]}"
    return result


def machine(args):
    """Where this runs, with which versions."""
    fields = ["name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.memory"]
    versions = "import torch as t, json; print(json.dumps([t.__version__, t.version.cuda, t.cuda.is_available()]))"
    torch = ask([sys.executable, "-c", versions], 120)
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.get("result", torch),
        "gpu": dict(zip(fields, nvidia(fields))),
        "telos": ask([find("telos"), "--version"], 60).get("stdout", "").strip(),
        "plugins": ask([find("telos"), "plugins", "list", "--json"], 60),
    }


def cpu_name():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def nvidia(fields):
    """The first GPU as nvidia-smi describes it; empty without one."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [field.strip() for field in done.stdout.splitlines()[0].split(",")]


def memory_used(args):
    """MiB in use on the GPU; None on the processor."""
    used = [] if args.device == "cpu" else nvidia(["memory.used"])
    return float(used[0]) if used else None


def find(program):
    """A program next to the plugins' folder."""
    path = ROOT / program
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / program
    return str(path if path.is_file() else target)


# The operations that have fused kernels, plugins/backend-torch/src/fused.
FUSED = ["norm", "norm_backward", "activation", "activation_backward", "glu", "glu_backward", "rotary", "head_stats"]
FUSED += ["head_backward", "head_fused", "global_norm", "adamw"]


def verify(args, dtype, limit, only=(), options=()):
    command = [find("telos"), "plugins", "verify", args.backend, "--device", args.device, "--dtype", dtype, "--json"]
    command += [word for name in only for word in ["--only", name]]
    command += [word for option in options for word in ["--option", option]]
    # An operation that hangs must leave time for the others.
    return ask([*command, "--limit", "150"], limit)


def compare(args, limit):
    own = f"{args.backend}:{args.device}"
    backends = [own, f"{own}@bf16"] if args.bf16 else [own]
    backends.append("candle?path=generic" if args.backend == "candle" else "candle")
    file = ROOT / "experiments" / ("bench-small.toml" if args.quick else "bench-medium.toml")
    command = [find("telos"), "compare", file, "--backends", ",".join(backends), "--steps", "4" if args.quick else "20"]
    plot = pathlib.Path(args.out).with_suffix(".svg")
    return ask([*command, "--json", "--plot", plot], limit)


def road(args, limit):
    """The quickstart on this device, each stage but a part as long: rollouts, reward model, PPO and DPO, and their figures."""
    steps = {"pretrain": 150, "sft": 30, "sft-more": 30, "reward": 100, "ppo": 15, "dpo": 25}
    sets = [f"backend.plugin={args.backend}", f"backend.device={args.device}"]
    steps = {stage: 4 if args.quick else most for stage, most in steps.items()}
    sets += [f"stage.{stage}.train.steps={count}" for stage, count in steps.items()]
    sets += [f"stage.{stage}.train.schedule.warmup={steps[stage] // 10}" for stage in ["pretrain", "reward", "ppo"]]
    # Answers of 600 prompts, twice in each of four stages, would be most of the time.
    sets += [f"stage.{stage}.eval.generate={20 if args.quick else 200}" for stage in ["sft", "sft-more", "ppo", "dpo"]]
    command = [find("telos"), "run", ROOT / "experiments" / "quickstart.toml", "--json"]
    with tempfile.TemporaryDirectory() as folder:
        return ask([*command, *(word for one in sets for word in ["--set", one])], limit, folder)


def arguments(args, ours, peers, sequences, patience):
    """The arguments of side_by_side.py."""
    file = ROOT / "experiments" / ("bench-small.toml" if args.quick else "gpt2-124m.toml")
    options = side_by_side.parser().parse_args([str(file), "--ours", ours, "--peers", peers])
    options.device, options.dtype, options.sequences = args.device, "bf16" if args.bf16 else "f32", sequences
    options.rounds, options.seconds, options.patience = (2, 0.5, patience) if args.quick else (5, 2.0, patience)
    options.telos_step = find("telos-step")
    return options


def one(args, ours, peers, sequences, patience):
    """One program alone at one batch size."""
    ((name, command),) = side_by_side.commands(arguments(args, ours, peers, sequences, patience))
    program = side_by_side.Program(name, command, patience)
    try:
        program.start()
        seconds = 0.5 if args.quick else 2.0
        for _ in range(2):
            program.turn(seconds)
        result = program.result() | {"gpu_memory_mib": memory_used(args)}
        result.pop("rounds")
        return result
    finally:
        program.close()


def largest(args, ours, peers, clock, limit):
    """Doubles the batch until memory runs out (halves it where not even the first fits); every size's figures."""
    end, sizes, problem = time.monotonic() + clock.left(limit), {}, None
    sequences, most = (4, 8) if args.quick else (16, 512)
    while 1 <= sequences <= most and sequences not in sizes:
        left = end - time.monotonic()
        if left < 15:
            problem = f"no time was left to try {sequences} sequences"
            break
        try:
            sizes[sequences] = one(args, ours, peers, sequences, left)
            sequences *= 2
        except side_by_side.Failed as why:
            sizes[sequences] = {"failed": str(why)[-TEXT:]}
            if "memory" not in str(why):
                problem = f"{sequences} sequences: {why}"[-TEXT:]
                break
            sequences //= 2
    done = {n: size for n, size in sizes.items() if "failed" not in size}
    fastest = max(done, key=lambda n: done[n]["tokens_per_second"], default=None)
    result = {"sizes": sizes, "largest": max(done, default=None), "fastest": fastest}
    if problem:
        result["ended" if done else "failed"] = problem
    return result


def profiled(args, alone, patience):
    """A short run of Telos's step at its fastest batch with every operation timed on the device; the times by operation."""
    if args.backend != "torch":
        return {"skipped": f"{args.backend} has no TELOS_TORCH_PROFILE"}
    sequences = alone.get("fastest")
    if sequences is None:
        return {"failed": "there is no batch size at which telos ran alone"}
    ((name, command),) = side_by_side.commands(arguments(args, args.backend, "", sequences, patience))
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "profile.json"
        os.environ["TELOS_TORCH_PROFILE"] = str(file)
        try:
            program = side_by_side.Program(name, command, patience)
        finally:
            del os.environ["TELOS_TORCH_PROFILE"]
        try:
            program.start()
            rate = program.turn(0.5 if args.quick else 1.0)
        finally:
            program.close()
        # The file is written when the program ends. The last session is the one that trained.
        profile = json.loads(file.read_text())["sessions"][-1]
    table = [f"{'operation':28}{'calls':>8}{'ms':>11}{'share':>8}{'host reads':>12}"]
    for one in profile["operations"]:
        table.append(f"{one['name']:28}{one['calls']:8}{one['ms']:11.2f}{one['share']:8.1%}{one['host_reads']:12}")
    return {"sequences": sequences, "tokens_per_second": rate, "table": table, "profile": profile}


def beside(args, alone, ours, peers, patience):
    """Telos and the peers in turns, at the largest batch at which all lie in memory together."""
    sizes = [set(n for n, size in part.get("sizes", {}).items() if "failed" not in size) for part in alone]
    common = sorted(set.intersection(*sizes), reverse=True)
    if not common:
        return {"failed": "there is no batch size at which both ran alone"}
    total = float((nvidia(["memory.total"]) or ["inf"])[0])

    def together(n):
        return sum(part["sizes"][n]["gpu_memory_mib"] or 0.0 for part in alone)

    # The smallest is tried in any case.
    sequences = next((n for n in common if together(n) < 0.95 * total), common[-1])
    report = side_by_side.measure(arguments(args, ours, peers, sequences, patience))
    if report["failures"]:
        report["failed"] = "; ".join(f"{name}: {why}" for name, why in report["failures"].items())[-TEXT:]
    return {"sequences": sequences, "table": side_by_side.table(report).splitlines(), **report}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="gpu-result.json", help="the JSON file to write")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--backend", default="torch", help="id of Telos's backend")
    parser.add_argument("--plugins", required=True, help="the folder of the plugins; gpu.sh gives it")
    parser.add_argument("--quick", action="store_true", help="a small model and short turns, to try this script")
    parser.add_argument("--f32", dest="bf16", action="store_false", help="no bf16, for a backend that lacks it")
    parser.add_argument("--fused", action=argparse.BooleanOptionalAction, help="the torch plugin's own kernels; default: on CUDA")
    parser.add_argument("--minutes", type=float, default=8.5, help="time for all of it")
    args = parser.parse_args()
    if args.fused is None:
        args.fused = args.backend == "torch" and args.device != "cpu"
    # For every program that is started from here.
    os.environ["TELOS_PLUGINS"] = args.plugins
    clock, report = Clock(args.minutes), Report(args.out)
    now = datetime.datetime.now(datetime.timezone.utc)
    report.content |= {"date": now.isoformat(timespec="seconds"), "arguments": vars(args)}
    parts = report.content["parts"]

    report.part("machine", lambda: machine(args))
    # First what failed before: attention in bf16 over views that start anywhere, its forward and backward.
    dtype = "bf16" if args.bf16 else "f32"
    attention = ["attention", "attention_backward"]
    report.part(f"verify attention {dtype}", lambda: verify(args, dtype, clock.left(60), attention))
    dtypes = ["f32", "bf16"] if args.bf16 else ["f32"]

    def verify_all(name, limit, only=(), options=()):
        """The types at once, a part each."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            verified = {one: pool.submit(verify, args, one, clock.left(limit), only, options) for one in dtypes}
            for one, work in verified.items():
                report.part(f"{name} {one}", work.result)

    fused = f"{args.backend}?fused=true"
    if args.fused:
        # Before they are timed: the time of a wrong result means nothing.
        verify_all("verify fused kernels", 80, FUSED, ["fused=true"])
    most = 60 if args.fused else 80
    report.part("step: telos alone", lambda: largest(args, args.backend, "", clock, most))
    if args.fused:
        report.part("step: telos fused alone", lambda: largest(args, fused, "", clock, most))
    report.part("step: pytorch alone", lambda: largest(args, "", "eager", clock, most))
    alone = [parts["step: telos alone"], parts["step: pytorch alone"]]
    report.part("step: telos by operation", lambda: profiled(args, alone[0], clock.left(40)))
    ours = args.backend
    if "failed" not in parts.get("step: telos fused alone", {"failed": ""}):
        alone.append(parts["step: telos fused alone"])
        ours += f",{fused}"
    report.part("step: side by side", lambda: beside(args, alone, ours, "eager", clock.left(60)))
    report.part("compare", lambda: compare(args, clock.left(60 if args.fused else 90)))
    report.part("road", lambda: road(args, clock.left(60 if args.fused else 90)))
    # Last, because it is timed by nothing: in all the time that is left.
    verify_all("verify", 400)

    failed = [name for name, part in parts.items() if "failed" in part]
    print("\n".join(parts["step: side by side"].get("table", [])))
    print(f"{args.out}: {len(parts) - len(failed)} parts done" + (f", failed: {', '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
