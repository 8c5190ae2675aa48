"""What transformers computes for `telos eval`, for tests/references/evaluate.json.

    python3 -m venv v; v/bin/pip install torch==2.11.0 transformers==5.23.0
    v/bin/python tests/peers/evaluate.py MODEL > tests/references/evaluate.json

MODEL is the folder of a Llama of 260,032 parameters that was trained on children's stories (stories260k). With `--telos PROGRAM`
the program evaluates the same model on the same questions and texts, and the largest differences are printed instead.

Questions: log-probabilities of the choices as in lm-evaluation-harness: prompt and choice are joined by a space and tokenised
together, and the tokens after the prompt's own tokens are the choice's. Texts: each begins with the token that the tokenizer puts
first, ends with the end-of-text token, and is cut into windows of the context length, each of which begins with that first token.
"""

import argparse
import importlib.metadata
import json
import pathlib
import subprocess
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = [
    {"prompt": "Once upon a time, there was a little girl named", "choices": ["Lily", "Paris", "the moon"], "answer": 0},
    {"prompt": "The sun is big and", "choices": ["yellow", "asleep in the kitchen", "cold"], "answer": "A"},
    {"prompt": "Tom was sad because he lost his", "choices": ["toy", "very", "happy was"], "answer": "toy"},
    {"prompt": "The dog wanted to", "choices": ["play with the ball", "play", "ball the with"], "answer": "1"},
    {"prompt": "Mom said, \"You must", "choices": ["share", "be careful", "seventeen"], "answer": 1},
]

TEXTS = [
    "Once upon a time, there was a big dog named Max. He liked to play in the park with his friends.",
    "The cat saw a bird. The bird was blue. \"Hello, bird!\" said the cat. The bird flew away, and the cat was sad.",
    " ".join(f"Lily had {n} red apples and gave one to her friend Tom. They were very happy and played all day." for n in range(40)),
]


def logps(model, ids):
    """The log-probability of each token but the first."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


def of_question(model, tokenizer, question):
    sums, tokens = [], []
    for choice in question["choices"]:
        prompt = tokenizer(question["prompt"]).input_ids
        whole = tokenizer(question["prompt"] + " " + choice).input_ids
        assert whole[: len(prompt)] == prompt, "a token spans prompt and choice"
        own = logps(model, whole)[len(prompt) - 1 :]
        sums.append(sum(own))
        tokens.append(len(own))
    return {"logprobs": sums, "tokens": tokens}


def of_text(model, tokenizer, text):
    ids = tokenizer(text).input_ids
    first = ids[:1] if ids[0] == tokenizer.bos_token_id else []
    ids = ids[len(first) :] + [tokenizer.eos_token_id]
    context = model.config.max_position_embeddings
    own = []
    if first:
        for begin in range(0, len(ids), context):
            own += logps(model, first + ids[begin : begin + context])
    else:
        for begin in range(1, len(ids), context):
            own += logps(model, ids[begin - 1 : begin + context])
    return {"nats": -sum(own), "nats_without_end": -sum(own[:-1]), "tokens": len(own)}


def compare(program, folder, found):
    with tempfile.TemporaryDirectory() as lab:
        lab = pathlib.Path(lab)
        rows = "".join(json.dumps(question) + "\n" for question in QUESTIONS)
        (lab / "questions.jsonl").write_text(rows)
        names = [lab / f"{number}.txt" for number in range(len(TEXTS))]
        for name, text in zip(names, TEXTS, strict=True):
            name.write_text(text)
        for kind, inputs in [("choices", [lab / "questions.jsonl"]), ("data", names)]:
            out = lab / f"{kind}.jsonl"
            subprocess.run([*program.split(), "eval", folder, f"--{kind}", *inputs, "--out", out], check=True)
        lines = [json.loads(line) for line in (lab / "choices.jsonl").read_text().splitlines()]
        worst = max(abs(a - b) for ours, theirs in zip(lines, found["questions"], strict=True) for a, b in zip(ours["logprobs"], theirs["logprobs"], strict=True))
        assert all(ours["tokens"] == theirs["tokens"] for ours, theirs in zip(lines, found["questions"], strict=True))
        print(f"log-probabilities of choices: largest difference {worst:.2e}")
        lines = [json.loads(line) for line in (lab / "data.jsonl").read_text().splitlines()]
        for key, value in [("loss", lambda one: one["nats"] / one["tokens"]), ("loss_without_end", lambda one: one["nats_without_end"] / (one["tokens"] - 1))]:
            worst = max(abs(ours[key] - value(theirs)) for ours, theirs in zip(lines, found["texts"], strict=True))
            print(f"{key} of documents: largest difference {worst:.2e}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--telos", help="the program, with its options before the command")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    found = {
        "source": {name: importlib.metadata.version(name) for name in ["torch", "transformers"]},
        "questions": [question | of_question(model, tokenizer, question) for question in QUESTIONS],
        "texts": [{"text": text} | of_text(model, tokenizer, text) for text in TEXTS],
    }
    if args.telos:
        compare(args.telos, args.model, found)
    else:
        print(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
