"""Tokens per second of greedy answers: `telos generate --prompts` and transformers' `generate`, in turns on one machine.

    python3 -m venv v; v/bin/pip install torch==2.11.0 transformers==5.23.0
    v/bin/python tests/peers/generation.py MODEL --telos 'target/release/telos --plugins target/release'

Both compute in f32, draw the most probable token, stop at the model's ends, and answer the same prompts, which continue texts.
Prompts are included in the time; opening the model is not. Each number is the median of the rounds.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BEGINNINGS = ["The history of the steam engine", "In the garden there was", "A short list of rivers:", "The most important rule of"]


def telos(program, folder, prompts, threads, new_tokens):
    with tempfile.TemporaryDirectory() as lab:
        lab = pathlib.Path(lab)
        (lab / "in.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
        command = [*program.split(), "generate", folder, "--prompts", lab / "in.jsonl", "--out", lab / "out.jsonl", "--json"]
        command += ["--temperature", "0", "--max-tokens", str(new_tokens), "--batch", str(len(prompts)), "--threads", str(threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        answers = [json.loads(line)["completion"] for line in (lab / "out.jsonl").read_text().splitlines()]
        return json.loads(done.stdout)["tokens_per_s"], answers


def transformers(model, tokenizer, prompts, threads, new_tokens):
    torch.set_num_threads(threads)
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    start = time.perf_counter()
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
    seconds = time.perf_counter() - start
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    count, answers = 0, []
    for row in out[:, inputs.input_ids.shape[1] :].tolist():
        end = next((place for place, token in enumerate(row) if token in ends), len(row))
        count += min(end + 1, len(row))
        answers.append(tokenizer.decode(row[:end], skip_special_tokens=True))
    return count / seconds, answers


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--telos", required=True, help="the program, with its options before the command")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    print("threads  batch  telos tokens/s  transformers tokens/s  same answers")
    for threads in args.threads:
        for batch in args.batches:
            prompts = [f"{BEGINNINGS[n % len(BEGINNINGS)]}{' and' * (n // len(BEGINNINGS))}" for n in range(batch)]
            ours, theirs, same = [], [], 0
            for _ in range(args.rounds):
                speed, answers = telos(args.telos, args.model, prompts, threads, args.new_tokens)
                ours.append(speed)
                speed, others = transformers(model, tokenizer, prompts, threads, args.new_tokens)
                theirs.append(speed)
                same = sum(a == b for a, b in zip(answers, others))
            print(f"{threads:7}  {batch:5}  {statistics.median(ours):14.1f}  {statistics.median(theirs):21.1f}  {same} of {batch}", flush=True)


if __name__ == "__main__":
    main()
