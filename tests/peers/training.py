#!/usr/bin/env python3
"""Time and peak memory of training steps of a real model, by TRL and by Telos in turns, in f32 on the processor.

usage: training.py MODEL DATA TELOS [--threads 2] [--steps 3] [--rounds 2] [--only sft,dpo,lora-dpo]

MODEL: a Hugging Face folder with a chat template; DATA: a folder with sft/gsm8k_train.jsonl and
preference/gsm8k_model_solutions.jsonl; TELOS: the built program. Needs trl 1.16, transformers 5.23, peft, torch 2.11.
Each measurement runs in a process of its own. Printed per task: seconds of a step (median of all but the first one, without
evaluation and saving) and the largest resident memory of the process, by each program, and their ratios.
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile

LENGTH = {"sft": 512, "dpo": 384, "lora-dpo": 384}
ROWS = 4


def rows(data, task, count):
    """The first `count` rows of a task, in the form that both programs read."""
    file = "sft/gsm8k_train.jsonl" if task == "sft" else "preference/gsm8k_model_solutions.jsonl"
    keys = ["prompt", "completion"] if task == "sft" else ["prompt", "chosen", "rejected"]
    with open(pathlib.Path(data) / file) as lines:
        found = [json.loads(line) for line in lines]
    return [{key: row[key] for key in keys} for row in found[:count]]


def by_trl(model, task, file, steps):
    """Runs in a process of its own; prints the seconds of each step."""
    import time, torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    class Clock(TrainerCallback):
        times = []

        def on_step_begin(self, *_, **__):
            self.start = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.times.append(time.perf_counter() - self.start)

    tokenizer = AutoTokenizer.from_pretrained(model)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    data = Dataset.from_list([json.loads(line) for line in open(file)])
    common = dict(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=ROWS, learning_rate=1e-5, use_cpu=True,
        report_to=[], save_strategy="no", logging_steps=1, gradient_checkpointing=False, bf16=False, fp16=False,
        max_length=LENGTH[task], lr_scheduler_type="constant", weight_decay=0.0, disable_tqdm=True,
    )
    clock = Clock()
    adapter = None
    if task == "lora-dpo":
        from peft import LoraConfig
        adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    if task == "sft":
        from trl import SFTConfig, SFTTrainer
        made = SFTTrainer(model=policy, args=SFTConfig(**common), train_dataset=data, processing_class=tokenizer, callbacks=[clock])
    else:
        from trl import DPOConfig, DPOTrainer
        made = DPOTrainer(model=policy, args=DPOConfig(beta=0.1, **common), train_dataset=data, processing_class=tokenizer,
                          peft_config=adapter, callbacks=[clock])
    made.train()
    print(json.dumps(clock.times))


def by_telos(telos, model, task, file, steps, threads, folder):
    """Returns the command of a run, and the file with its times."""
    batch = "{ sequences = 4 }" if task == "sft" else "{ pairs = 4 }"
    text = [
        'name = "peer"', f'[model]\nfrom = "{model}"', f'[backend]\nthreads = {threads}',
        f'[data]\nsource = "jsonl"\npath = "{file}"\nmax_length = {LENGTH[task]}\nheld_out = 0.1',
        f'[objective]\nplugin = "{"sft" if task == "sft" else "dpo"}"',
        f'[train]\nsteps = {steps}\nbatch = {batch}\noptimizer = {{ lr = 1e-5, weight_decay = 0.0 }}', "[eval]\nevery = 0",
    ]
    if task == "lora-dpo":
        text.insert(2, '[model.lora]\nrank = 16\nalpha = 32\ntargets = "all-linear"\n[reference]\nadapter = "off"')
    experiment = folder / "peer.toml"
    experiment.write_text("\n".join(text) + "\n")
    return [telos, "run", str(experiment), "--set", f'runs_dir="{folder / "runs"}"'], folder / "runs/peer/timing.jsonl"


def measured(command, threads):
    """Runs a command; returns its output and its largest resident memory in bytes."""
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        out.seek(0)
        text = out.read()
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{text[-3000:]}")
    return text, usage.ru_maxrss * 1024


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["model", "data", "telos"]:
        args.add_argument(name)
    args.add_argument("--threads", type=int, default=2)
    args.add_argument("--steps", type=int, default=3)
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--only", default="sft,dpo,lora-dpo")
    args.add_argument("--trl", help=argparse.SUPPRESS)
    args = args.parse_args()
    model = str(pathlib.Path(args.model).resolve())
    if args.trl:
        return by_trl(model, args.trl, args.data, args.steps)
    for task in args.only.split(","):
        found = {"trl": ([], []), "telos": ([], [])}
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                file = folder / "rows.jsonl"
                # Telos holds out a tenth of them.
                file.write_text("".join(json.dumps(row) + "\n" for row in rows(args.data, task, 100)))
                command = [sys.executable, __file__, model, str(file), args.telos, "--trl", task, "--steps", str(args.steps)]
                text, peak = measured(command, args.threads)
                times = json.loads(next(line for line in reversed(text.splitlines()) if line.startswith("[")))
                found["trl"][0].extend(times[1:])
                found["trl"][1].append(peak)
                command, timing = by_telos(args.telos, model, task, file, args.steps, args.threads, folder)
                _, peak = measured(command, args.threads)
                steps = [json.loads(line) for line in timing.read_text().splitlines()]
                times = [sum(step["seconds"].values()) for step in steps if step["kind"] == "train"]
                found["telos"][0].extend(times[1:])
                found["telos"][1].append(peak)
        (trl, trl_peak), (own, own_peak) = ((statistics.median(s), max(p)) for s, p in found.values())
        print(f"{task:9} TRL {trl:7.2f} s a step, {trl_peak / 1e9:5.2f} GB; Telos {own:7.2f} s, {own_peak / 1e9:5.2f} GB; "
              f"TRL / Telos: time {trl / own:.2f}, memory {trl_peak / own_peak:.2f}", flush=True)


if __name__ == "__main__":
    main()
