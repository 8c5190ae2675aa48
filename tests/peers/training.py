#!/usr/bin/env python3
"""Speed and peak memory of training steps of a real model, by TRL and by Telos in turns, in f32 on the processor.

usage: training.py MODEL DATA TELOS [--threads 2] [--steps 4] [--rounds 2] [--only sft,dpo,lora-dpo,grpo]

MODEL: a Hugging Face folder; DATA: a folder with sft/gsm8k_train.jsonl and preference/gsm8k_model_solutions.jsonl; TELOS: the
built program. Needs trl 1.16, transformers 5.23, peft, torch 2.11.

Every step of both programs reads the same rows: 4 texts of 512 tokens (sft), 4 pairs (dpo, lora-dpo), or 4 prompts with 4 answers
of at most 64 tokens each (grpo, rewarded for a length of 200 characters). Each measurement runs in a process of its own. Printed
per task: seconds of a step and tokens per second, of rows or of prompts and answers (medians of all but each run's first step), the
largest resident memory of the process, and the ratios. Telos' memory includes saving; its step does not. References are computed
before the first step by both programs, and TRL's gradient checkpointing is off. TRL computes all sequences of a step at once,
as its batch size says; Telos cuts them into micro-batches whose activations take at most 512 MiB, as it does by default.

SmolLM2-135M-Instruct on 2 cores of an Intel Xeon (Sapphire Rapids, AMX), 2026-11-28, commit dee7463, nothing else running, backend
candle in f32, one run of 3 steps:

| task | tokens of a step | TRL: s a step, tokens/s, peak GB | Telos: s a step, tokens/s, peak GB | TRL / Telos: time, memory |
|---|---|---|---|---|
| sft | 2,048 | 9.89, 207, 8.43 | 8.21, 249, 2.76 | 1.21, 3.06 |
| dpo | 1,421 | 9.41, 151, 8.79 | 5.58, 253, 2.85 | 1.69, 3.08 |
| lora-dpo, rank 16 | 1,421 | 8.31, 171, 9.05 | 4.54, 311, 1.30 | 1.83, 6.97 |
| grpo | about 1,810 | 17.75, 104, 8.81 | 14.69, 121, 2.89 | 1.21, 3.05 |
"""
import argparse, json, os, pathlib, statistics, subprocess, sys, tempfile

ROWS, SAMPLES, ANSWER, TARGET = 4, 4, 64, 200
LENGTH = {"sft": 512, "dpo": 384, "lora-dpo": 384, "grpo": 512}
LR = 1e-5


def rows(data, task):
    """The rows that every step reads, in the form that both programs accept."""
    file = "sft/gsm8k_train.jsonl" if task == "sft" else "preference/gsm8k_model_solutions.jsonl"
    with open(pathlib.Path(data) / file) as lines:
        found = [json.loads(line) for line in lines]
    if task == "sft":
        # Seven problems in a row are longer than 512 tokens: both programs truncate them.
        groups = [found[7 * row : 7 * row + 7] for row in range(ROWS)]
        join = lambda group: "\n\n".join([group[0]["completion"], *(f"{one['prompt']}\n{one['completion']}" for one in group[1:])])
        return [{"prompt": group[0]["prompt"] + "\n", "completion": join(group)} for group in groups]
    keys = ["prompt"] if task == "grpo" else ["prompt", "chosen", "rejected"]
    spread = found[:: len(found) // ROWS][:ROWS]
    return [{key: row[key] + "\n" * (key == "prompt") for key in keys} for row in spread]


def by_trl(model, task, file, steps):
    """Runs in a process of its own; prints seconds and tokens of each step."""
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
    data = [json.loads(line) for line in open(file)]
    clock = Clock()
    common = dict(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=ROWS, learning_rate=LR, use_cpu=True,
        report_to=[], save_strategy="no", logging_steps=1, gradient_checkpointing=False, bf16=False, fp16=False,
        lr_scheduler_type="constant", weight_decay=0.0, disable_tqdm=True,
    )
    made = dict(model=policy, train_dataset=Dataset.from_list(data), processing_class=tokenizer, callbacks=[clock])
    if task == "sft":
        from trl import SFTConfig, SFTTrainer
        trainer = SFTTrainer(args=SFTConfig(max_length=LENGTH[task], **common), **made)
    elif task == "grpo":
        from trl import GRPOConfig, GRPOTrainer
        common["per_device_train_batch_size"] = ROWS * SAMPLES
        args = GRPOConfig(num_generations=SAMPLES, max_completion_length=ANSWER, loss_type="grpo", **common)
        score = lambda completions, **_: [-abs(len(one) - TARGET) / TARGET for one in completions]
        trainer = GRPOTrainer(args=args, reward_funcs=score, **made)
    else:
        from peft import LoraConfig
        from trl import DPOConfig, DPOTrainer
        adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        args = DPOConfig(beta=0.1, max_length=LENGTH[task], precompute_ref_log_probs=True, **common)
        trainer = DPOTrainer(args=args, peft_config=adapter if task == "lora-dpo" else None, **made)
    trainer.train()
    read = [0, *(line["num_tokens"] for line in trainer.state.log_history if "num_tokens" in line)]
    tokens = [now - before for before, now in zip(read, read[1:])]
    print(json.dumps({"seconds": clock.times, "tokens": tokens}))


def by_telos(telos, model, task, file, steps, threads, folder):
    """Returns the command of a run, and the run's folder."""
    # The last token of a completion is predicted but not read, and not counted by max_length.
    length = LENGTH[task] - 1 if task == "sft" else LENGTH[task]
    batch = {"sft": "sequences", "grpo": "prompts"}.get(task, "pairs")
    text = [
        'name = "peer"', f'[model]\nfrom = "{model}"', f'[backend]\nthreads = {threads}',
        f'[data]\nsource = "jsonl"\npath = "{file}"\nmax_length = {length}\nheld_out = 0',
        f'[objective]\nplugin = "{task.removeprefix("lora-")}"',
        f'[train]\nsteps = {steps}\nbatch = {{ {batch} = {ROWS} }}\noptimizer = {{ lr = {LR}, weight_decay = 0.0 }}',
    ]
    if task == "lora-dpo":
        text.append('[model.lora]\nrank = 16\nalpha = 32\ntargets = "all-linear"\n[reference]\nadapter = "off"')
    if task == "grpo":
        text.append(f'[reward]\nplugin = "length"\ntarget = {TARGET}\nunit = "characters"')
        text.append(f'[rollout]\nprompts = {ROWS}\nsamples = {SAMPLES}\nmax_new_tokens = {ANSWER}')
    experiment = folder / "peer.toml"
    experiment.write_text("\n".join(text) + "\n")
    return [telos, "run", str(experiment), "--set", f'runs_dir="{folder / "runs"}"'], folder / "runs/peer"


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
    args.add_argument("--steps", type=int, default=4, help="at least 2: the first is not counted")
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--only", default=",".join(LENGTH))
    args.add_argument("--trl", help=argparse.SUPPRESS)
    args = args.parse_args()
    if args.steps < 2:
        sys.exit("--steps: at least 2, because the first is not counted")
    model = str(pathlib.Path(args.model).resolve())
    if args.trl:
        return by_trl(model, args.trl, args.data, args.steps)
    for task in args.only.split(","):
        seconds, speeds, peaks = ({"TRL": [], "Telos": []} for _ in range(3))
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                file = folder / "rows.jsonl"
                file.write_text("".join(json.dumps(row) + "\n" for row in rows(args.data, task)))
                command = [sys.executable, __file__, model, str(file), args.telos, "--trl", task, "--steps", str(args.steps)]
                text, peak = measured(command, args.threads)
                found = json.loads(next(line for line in reversed(text.splitlines()) if line.startswith("{")))
                seconds["TRL"] += found["seconds"][1:]
                speeds["TRL"] += [tokens / time for tokens, time in zip(found["tokens"], found["seconds"])][1:]
                peaks["TRL"].append(peak)
                command, run = by_telos(args.telos, model, task, file, args.steps, args.threads, folder)
                _, peak = measured(command, args.threads)
                steps = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
                seconds["Telos"] += [sum(step["seconds"].values()) for step in steps if step["kind"] == "train"][1:]
                speeds["Telos"] += [step["tokens_per_s"] for step in steps if step["kind"] == "train"][1:]
                peaks["Telos"].append(peak)
        time, speed = ({name: statistics.median(all) for name, all in each.items()} for each in (seconds, speeds))
        peak = {name: max(all) / 1e9 for name, all in peaks.items()}
        for name in time:
            print(f"{task:9} {name:6} {time[name]:7.2f} s a step, {speed[name]:6.1f} tokens/s, {peak[name]:5.2f} GB")
        print(f"{task:9} TRL / Telos: time {time['TRL'] / time['Telos']:.2f}, memory {peak['TRL'] / peak['Telos']:.2f}", flush=True)


if __name__ == "__main__":
    main()
