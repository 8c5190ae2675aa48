#!/usr/bin/env python3
"""The training step of an experiment file, in PyTorch: the peer that Telos's own step is compared with.

The same model (llama or gpt2 shape), batch, loss, clipping and AdamW as the experiment describes, the way one writes them
in PyTorch: eager, or `--compile`; causal `scaled_dot_product_attention`; fused AdamW; bf16 by autocast over f32 weights.
Tokens are random ids over the whole vocabulary.

    python3 pytorch.py experiments/bench-medium.toml --dtype bf16     prints one JSON object
    python3 pytorch.py experiments/bench-medium.toml --serve          answers lines `go N`; see README.md

Needs Python 3.11 and torch 2.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import time
import tomllib

import torch
import torch.nn.functional as F
from torch import nn

WINDOWS = 4  # different batches that steps take in turn, as in Telos's own program


class Shape:
    """`[model]` and `[train]` of an experiment, with Telos's defaults."""

    def __init__(self, file, sequences):
        with open(file, "rb") as text:
            experiment = tomllib.load(text)
        model, train = experiment["model"], experiment["train"]
        self.gpt2 = model.get("arch", "llama") == "gpt2"
        self.layers, self.dim, self.heads = model["layers"], model["dim"], model["heads"]
        self.context = model["context"]
        self.hidden = model.get("hidden", 4 * self.dim if self.gpt2 else -(-8 * self.dim // 96) * 32)
        self.tied = model.get("tied", self.gpt2)
        self.norm_eps = model.get("norm_eps", 1e-5)
        self.rope_theta = model.get("rope_theta", 1e4)
        self.init_std = model.get("init_std", 0.02)
        if "vocab" not in model:
            raise SystemExit(f"{file}: no model.vocab; this program reads no tokenizer, so the file must set it")
        self.vocab = model["vocab"]
        if model.get("kv_heads", self.heads) != self.heads:
            raise SystemExit(f"{file}: model.kv_heads: grouped heads are not written here")
        batch = train["batch"]
        self.sequences = sequences or batch.get("sequences") or max(1, batch["tokens"] // self.context)
        cut = train.get("micro_batch_tokens", 16384)
        self.micro_sequences = self.sequences if sequences else max(1, cut // self.context)
        optimizer = train["optimizer"]
        self.lr, self.betas = optimizer["lr"], tuple(optimizer.get("betas", (0.9, 0.95)))
        self.weight_decay, self.clip = optimizer.get("weight_decay", 0.0), optimizer.get("clip", 1.0)


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads = s.heads
        self.qkv = nn.Linear(s.dim, 3 * s.dim, bias=s.gpt2)
        self.output = nn.Linear(s.dim, s.dim, bias=s.gpt2)

    def forward(self, x, rotation):
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(batch, length, dim))


def rotate(x, cos, sin):
    """Rotary embedding, halves paired: x [B, H, T, D], cos and sin [T, D / 2]."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Gated(nn.Module):
    """SwiGLU."""

    def __init__(self, s):
        super().__init__()
        self.gate = nn.Linear(s.dim, s.hidden, bias=False)
        self.up = nn.Linear(s.dim, s.hidden, bias=False)
        self.down = nn.Linear(s.hidden, s.dim, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Plain(nn.Module):
    """GELU, as GPT-2 approximates it."""

    def __init__(self, s):
        super().__init__()
        self.up = nn.Linear(s.dim, s.hidden)
        self.down = nn.Linear(s.hidden, s.dim)

    def forward(self, x):
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        norm = nn.LayerNorm if s.gpt2 else nn.RMSNorm
        self.norm1, self.norm2 = norm(s.dim, eps=s.norm_eps), norm(s.dim, eps=s.norm_eps)
        self.attention = Attention(s)
        self.mlp = Plain(s) if s.gpt2 else Gated(s)

    def forward(self, x, rotation):
        x = x + self.attention(self.norm1(x), rotation)
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.embedding = nn.Embedding(s.vocab, s.dim)
        self.positions = nn.Embedding(s.context, s.dim) if s.gpt2 else None
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.norm = (nn.LayerNorm if s.gpt2 else nn.RMSNorm)(s.dim, eps=s.norm_eps)
        self.head = nn.Linear(s.dim, s.vocab, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                residual = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(p, std=s.init_std / (2 * s.layers) ** 0.5 if residual else s.init_std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        if s.tied:
            self.head.weight = self.embedding.weight
        if not s.gpt2:
            half = s.dim // s.heads // 2
            angles = torch.outer(torch.arange(s.context), s.rope_theta ** (-torch.arange(half) / half))
            self.register_buffer("cos", angles.cos(), persistent=False)
            self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens, targets):
        """The sum of the cross-entropy over [B, T] tokens, in nats."""
        x = self.embedding(tokens)
        rotation = None
        if self.positions is None:
            rotation = (self.cos, self.sin)
        else:
            x = x + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, rotation)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")


class Training:
    """A model with its optimizer and batches, ready to be trained."""

    def __init__(self, s, device, dtype, compiled):
        torch.manual_seed(7)
        self.shape, self.device = s, torch.device(device)
        self.model = Decoder(s).to(self.device)
        matrices = [p for p in self.model.parameters() if p.dim() == 2]
        vectors = [p for p in self.model.parameters() if p.dim() != 2]
        groups = [{"params": matrices, "weight_decay": s.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=s.lr, betas=s.betas, eps=1e-8, fused=True)
        self.loss = torch.compile(self.model) if compiled else self.model
        self.bf16 = dtype == "bf16"
        tokens = torch.randint(s.vocab, (WINDOWS, s.sequences, s.context + 1)).to(self.device)
        self.windows = [w.split(s.micro_sequences) for w in tokens]
        self.steps = 0

    def step(self):
        """One step; its loss in nats per token, still on the device."""
        s, total = self.shape, 0.0
        window = self.windows[self.steps % WINDOWS]
        self.steps += 1
        self.optimizer.zero_grad(set_to_none=True)
        for tokens in window:
            bf16 = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
            with bf16:
                loss = self.loss(tokens[:, :-1], tokens[:, 1:]) / (s.sequences * s.context)
            loss.backward()
            total = total + loss.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), s.clip) if s.clip else None
        self.optimizer.step()
        return total, norm

    def sync(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def parameters(self):
        """All of them, and those that a token is multiplied with."""
        s, count = self.shape, sum(p.numel() for p in self.model.parameters())
        looked_up = (0 if s.tied else s.vocab * s.dim) + (s.context * s.dim if s.gpt2 else 0)
        return count, count - looked_up

    def flops_per_token(self):
        """6 for each parameter that a token is multiplied with, and causal attention, as Telos counts them."""
        s = self.shape
        return 6 * self.parameters()[1] + 6 * s.layers * s.dim * s.context

    def run(self, steps):
        """Times some steps."""
        self.sync()
        start = time.perf_counter()
        for _ in range(steps):
            loss, norm = self.step()
        self.sync()
        seconds = time.perf_counter() - start
        cuda = self.device.type == "cuda"
        return {
            "steps": steps,
            "seconds": seconds,
            "loss": float(loss),
            "grad_norm": None if norm is None else float(norm),
            "peak_buffers": torch.cuda.max_memory_allocated(self.device) if cuda else None,
            "peak_resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }

    def ready(self, args):
        """What is about to be timed. The first step is not: it makes the pools, or compiles."""
        loss, norm = self.step()
        self.sync()
        parameters, multiplied = self.parameters()
        return {
            "ready": True,
            "program": f"torch {torch.__version__}",
            "label": f"pytorch {'compiled' if args.compile else 'eager'}{'@bf16' if self.bf16 else ''}",
            "device": args.device,
            "device_name": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "",
            "dtype": args.dtype,
            "threads": torch.get_num_threads(),
            "parameters": parameters,
            "parameters_multiplied": multiplied,
            "flops_per_token": self.flops_per_token(),
            "tokens_per_step": self.shape.sequences * self.shape.context,
            "sequences": self.shape.sequences,
            "first_loss": float(loss),
            "first_grad_norm": None if norm is None else float(norm),
        }


def answer(value):
    print(json.dumps(value), flush=True)


def serve(training, args):
    answer(training.ready(args))
    for line in sys.stdin:
        word, _, count = line.strip().partition(" ")
        if word != "go" or not count.isdecimal() or int(count) == 0:
            raise SystemExit(f"`{line.strip()}` is not `go N`")
        answer(training.run(int(count)))


def report(training, args):
    result = training.ready(args)
    rounds = [training.run(args.steps) for _ in range(args.rounds)]
    rates = [r["steps"] * result["tokens_per_step"] / r["seconds"] for r in rounds]
    rate = statistics.median(rates)
    result |= {
        "tokens_per_second": rate,
        "tokens_per_second_range": [min(rates), max(rates)],
        "gflops": rate * result["flops_per_token"] / 1e9,
        "rounds": rounds,
        "peak_buffers": rounds[-1]["peak_buffers"],
        "peak_resident": rounds[-1]["peak_resident"],
    }
    answer(result)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="the experiment: model, batch, optimizer")
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0")
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="by torch.compile instead of eager")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--sequences", type=int, default=0, help="sequences a step, in one micro-batch, instead of the file's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps a round")
    parser.add_argument("--serve", action="store_true", help="answer lines `go N` instead")
    args = parser.parse_args()
    torch.set_num_threads(args.threads or len(os.sched_getaffinity(0)))
    try:
        training = Training(Shape(args.file, args.sequences), args.device, args.dtype, args.compile)
        (serve if args.serve else report)(training, args)
    except Exception as why:
        answer({"error": f"{type(why).__name__}: {why}"})
        raise


if __name__ == "__main__":
    main()
