#!/usr/bin/env python3
"""Times Telos's training step and PyTorch's in one run, in turns: other work on the machine slows both.

    python3 side_by_side.py experiments/bench-medium.toml --ours candle,torch --peers eager,compile

Every program is started once and keeps running; in each round each program has one turn, in rotating order. A turn is as
many steps as fit into `--seconds`. Reported are the median over the rounds, and the median of the ratios within each round.
README.md describes what is compared. Needs Python 3.11; the peers need torch, of this Python or of `--python`.
"""

import argparse
import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys
import threading
import tomllib

HERE = pathlib.Path(__file__).resolve().parent


class Failed(Exception):
    """A program that did not answer; the text is what it printed."""


class Program:
    """A program that answers `go N` with the time N steps took."""

    def __init__(self, name, command, patience):
        self.name, self.patience, self.rounds = name, patience, []
        self.printed = []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        listener = threading.Thread(target=lambda: self.printed.extend(self.process.stderr), daemon=True)
        listener.start()
        self._listener = listener

    def _read(self):
        for line in self.process.stdout:
            # A library may print lines of its own.
            if line.startswith("{"):
                self.answers.put(json.loads(line))
        self.answers.put({"error": None})

    def _answer(self):
        try:
            answer = self.answers.get(timeout=self.patience)
        except queue.Empty:
            self.close()
            raise Failed(f"no answer within {self.patience:.0f} s") from None
        if "error" in answer:
            code = self.close()
            raise Failed(answer["error"] or f"ended with code {code}: {''.join(self.printed[-15:]).strip()}")
        return answer

    def start(self):
        """Waits until its first step is done."""
        self.info = self._answer()
        return self.info

    def go(self, steps):
        """Has `steps` steps timed."""
        try:
            self.process.stdin.write(f"go {steps}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self._answer()

    def turn(self, seconds):
        """One round of about `seconds`; its rate in tokens per second."""
        if not self.rounds:
            # Of two steps, the length of a turn is known; they are not counted.
            warm = self.go(2)
            self.steps = max(1, round(seconds / (warm["seconds"] / warm["steps"])))
        timed = self.go(self.steps)
        timed["tokens_per_second"] = timed["steps"] * self.info["tokens_per_step"] / timed["seconds"]
        self.rounds.append(timed)
        return timed["tokens_per_second"]

    def close(self):
        """Ends it; its exit code."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._listener.join(1)
        return code

    def result(self):
        """What its rounds say together."""
        rates = [r["tokens_per_second"] for r in self.rounds]
        if not rates:
            return {**getattr(self, "info", {}), "name": self.name}
        rate, last = statistics.median(rates), self.rounds[-1]
        return {
            **self.info,
            "name": self.name,
            "tokens_per_second": rate,
            "tokens_per_second_range": [min(rates), max(rates)],
            "gflops": rate * self.info["flops_per_token"] / 1e9,
            "step_seconds": self.info["tokens_per_step"] / rate,
            "loss": last["loss"],
            "peak_buffers": last["peak_buffers"],
            "peak_resident": last["peak_resident"],
            "rounds": self.rounds,
        }


def telos_step(args):
    """The program with Telos's step: next to `telos` in a distribution, else in cargo's target folder."""
    if args.telos_step:
        return args.telos_step
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))
    for path in (HERE.parents[1] / "telos-step", target / "release" / "telos-step"):
        if path.is_file():
            return str(path)
    raise SystemExit("there is no telos-step: run `cargo xtask build`, or name it with --telos-step")


def commands(args):
    """Name and command of every requested program, Telos's first."""
    file, found = args.file, []
    with open(file, "rb") as text:
        context = tomllib.load(text)["model"]["context"]
    for spec in filter(None, args.ours.split(",")):
        name, options = (spec.split("?") + [""])[:2]
        device = "" if ":" in name or args.device == "cpu" else f":{args.device}"
        dtype = "" if "@" in name or args.dtype == "f32" else f"@{args.dtype}"
        at = name.find("@") if "@" in name else len(name)
        spec = name[:at] + device + name[at:] + dtype + (f"?{options}" if options else "")
        command = [telos_step(args), file, "--backend", spec, "--set", f"backend.threads={args.threads}"]
        if args.sequences:
            command += ["--set", f"train.batch={{sequences={args.sequences}}}"]
            command += ["--set", f"train.micro_batch_tokens={args.sequences * context}"]
        found.append((f"telos {spec}", command))
    for peer in filter(None, args.peers.split(",")):
        if peer not in ("eager", "compile"):
            raise SystemExit(f"--peers {peer}: eager or compile")
        command = [args.python, str(HERE / "pytorch.py"), file, "--serve", "--device", args.device, "--dtype", args.dtype]
        command += ["--threads", str(args.threads), "--sequences", str(args.sequences)]
        found.append((f"pytorch {peer}", command + (["--compile"] if peer == "compile" else [])))
    return found


def measure(args):
    """Runs all programs in turns; everything that is known of each, failures included."""
    programs, failures = [], {}
    for name, command in commands(args):
        program = Program(name, command, args.patience)
        try:
            program.start()
            programs.append(program)
            print(f"{name}: ready", file=sys.stderr)
        except Failed as why:
            failures[name] = str(why)
            print(f"{name}: {why}", file=sys.stderr)
    check_equal(programs)
    order = list(programs)
    for index in range(args.rounds):
        for program in list(order):
            try:
                rate = program.turn(args.seconds)
                print(f"round {index + 1}: {program.name}: {rate:,.0f} tokens/s", file=sys.stderr)
            except Failed as why:
                failures[program.name] = str(why)
                order.remove(program)
                print(f"{program.name}: {why}", file=sys.stderr)
        order = order[1:] + order[:1]
    for program in order:
        program.close()
    results = [p.result() for p in programs]
    compare(programs, results)
    return {"experiment": os.path.basename(args.file), "programs": results, "failures": failures}


def check_equal(programs):
    """Refuses to compare models that are not the same, or that do not begin with a loss of ln V."""
    for key in ("parameters", "parameters_multiplied", "flops_per_token", "tokens_per_step"):
        values = {p.name: p.info[key] for p in programs}
        if len(set(values.values())) > 1:
            raise SystemExit(f"these do not train the same: {key} is {values}")
    losses = {p.name: p.info["first_loss"] for p in programs}
    if losses and max(losses.values()) - min(losses.values()) > 0.05:
        raise SystemExit(f"these do not begin alike: the first loss is {losses}")


def compare(programs, results):
    """Ratios within each round of every program of ours to every peer."""
    for program, result in zip(programs, results):
        others = [p for p in programs if p.name.startswith("pytorch") and not program.name.startswith("pytorch")]
        for other in others:
            both = zip(program.rounds, other.rounds)
            ratios = [a["tokens_per_second"] / b["tokens_per_second"] for a, b in both]
            if ratios:
                result.setdefault("ratio", {})[other.name] = {"median": statistics.median(ratios), "rounds": ratios}


def table(report):
    """The report for people."""
    lines = [f"{'':<32} {'tokens/s':>10} {'spread':>17} {'GFLOP/s':>9} {'memory':>10}  times as fast as"]
    for r in report["programs"]:
        if "tokens_per_second" not in r:
            continue
        low, high = r["tokens_per_second_range"]
        memory = (r["peak_buffers"] if r["device"] != "cpu" else r["peak_resident"]) or 0
        ratios = ", ".join(f"{name}: {ratio['median']:.2f}" for name, ratio in r.get("ratio", {}).items())
        spread = f"{low:,.0f}-{high:,.0f}"
        rate, gflops = r["tokens_per_second"], r["gflops"]
        lines.append(f"{r['name']:<32} {rate:>10,.0f} {spread:>17} {gflops:>9,.0f} {memory / 2**20:>6,.0f} MiB  {ratios}")
    return "\n".join(lines + [f"{name}: {why}" for name, why in report["failures"].items()])


def parser():
    """The arguments."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("file", help="the experiment: model, batch, optimizer")
    p.add_argument("--ours", default="candle", help="backends of Telos: ID[:DEVICE][@DTYPE][?OPTION=VALUE[&OPTION=VALUE]...],...")
    p.add_argument("--peers", default="eager", help="eager, compile; empty for none")
    p.add_argument("--device", default="cpu", help="of the peers, and of ours that name none")
    p.add_argument("--dtype", default="f32", choices=["f32", "bf16"], help="of the peers, and of ours that name none")
    p.add_argument("--threads", type=int, default=0, help="of every program; 0: all cores")
    p.add_argument("--sequences", type=int, default=0, help="a step's batch, in one micro-batch, instead of the file's")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    p.add_argument("--patience", type=float, default=300.0, help="seconds after which a program counts as hung")
    p.add_argument("--python", default=sys.executable, help="the Python that has torch")
    p.add_argument("--telos-step", default="", help="the program with Telos's step")
    p.add_argument("--json", action="store_true", help="print everything as JSON")
    return p


def main():
    args = parser().parse_args()
    report = measure(args)
    print(json.dumps(report, indent=1) if args.json else table(report))
    sys.exit(1 if report["failures"] else 0)


if __name__ == "__main__":
    main()
