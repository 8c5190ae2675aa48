"""Writes tests/references/lora: adapters by PEFT over the models of tests/references/models, and what PEFT computes with them.

    python tests/peers/lora_references.py tests/references

Needs torch, transformers, peft and safetensors. Each folder holds an adapter as PEFT saves it, whose base is named by a path
relative to the folder, and expected.json: logits, loss, norm of the gradient of each factor, and five steps of AdamW.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

CASES = {
    # All linear maps, scale alpha / r.
    "llama_all": ("llama", dict(r=4, lora_alpha=8, target_modules="all-linear")),
    # Some of the maps that read one input; scale alpha / sqrt(r).
    "llama_qv_rslora": ("llama", dict(r=3, lora_alpha=5, target_modules=["q_proj", "v_proj", "up_proj"], use_rslora=True)),
    # A pattern that leaves out a layer.
    "qwen2_pattern": ("qwen2", dict(r=2, lora_alpha=6, target_modules=r".*layers\.1\..*\.(k_proj|o_proj|down_proj)")),
    # Matrices stored as (in, out).
    "gpt2": ("gpt2", dict(r=4, lora_alpha=4, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    # A joint projection whose rows files hold head by head; branches in parallel.
    "gpt_neox": ("gpt_neox", dict(r=4, lora_alpha=8, target_modules=["query_key_value", "dense_4h_to_h"])),
    # Norms after the branches, some maps without adapters.
    "gemma3": ("gemma3", dict(r=4, lora_alpha=8, target_modules=["q_proj", "gate_proj"])),
    # Joint projections.
    "phi3": ("phi3", dict(r=4, lora_alpha=16, target_modules=["qkv_proj", "gate_up_proj"])),
}
STEPS, LR, DECAY, CLIP, BETAS, EPS = 5, 1e-2, 0.1, 1.0, (0.9, 0.95), 1e-8


def batch(expected):
    return [[token for token, mask in zip(ids, masks) if mask] for ids, masks in zip(expected["input_ids"], expected["attention_mask"])]


def loss_of(model, sequences):
    """Mean over the predicted tokens of all sequences, computed one by one: no padding."""
    total, count, logits = 0.0, 0, []
    for ids in sequences:
        out = model(input_ids=torch.tensor([ids])).logits[0]
        logits.append(out.tolist())
        logp = torch.log_softmax(out[:-1], -1)
        total = total - logp[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].sum()
        count += len(ids) - 1
    return total / count, logits


def main(references):
    root = Path(references)
    for name, (base, settings) in CASES.items():
        folder = root / "lora" / name
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(1)
        place = root / "models" / base
        load = lambda: AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager", dtype=torch.float32)
        model = get_peft_model(load(), LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for key, value in model.named_parameters():
                if "lora_B" in key:
                    value.copy_(0.05 * torch.randn_like(value))
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = f"../../models/{base}"
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")

        sequences = batch(json.loads((place / "expected.json").read_text()))
        model = PeftModel.from_pretrained(load(), folder, is_trainable=True).eval()
        loss, logits = loss_of(model, sequences)
        loss.backward()
        short = lambda key: key.replace(".default.", ".")
        learned = [(short(key), value) for key, value in model.named_parameters() if value.requires_grad]
        gradients = {key: {"l2": value.grad.double().norm().item(), "sum": value.grad.double().sum().item()} for key, value in learned}

        optimizer = torch.optim.AdamW([value for _, value in learned], lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
        log = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            step_loss, _ = loss_of(model, sequences)
            step_loss.backward()
            norm = torch.nn.utils.clip_grad_norm_([value for _, value in learned], CLIP)
            log.append({"loss": step_loss.item(), "grad_norm": norm.item()})
            optimizer.step()
        final = {key: {"l2": value.detach().double().norm().item(), "sum": value.detach().double().sum().item()} for key, value in learned}
        expected = {
            "sequences": sequences, "logits": logits, "loss": loss.item(), "gradients": gradients,
            "hyper": {"lr": LR, "weight_decay": DECAY, "clip": CLIP, "betas": BETAS, "eps": EPS},
            "log": log, "final": final,
        }
        rounded = json.loads(json.dumps(expected), parse_float=lambda text: float(f"{float(text):.9g}"))
        (folder / "expected.json").write_text(json.dumps(rounded) + "\n")
        print(name, len(learned), "factors, loss", loss.item())


if __name__ == "__main__":
    main(sys.argv[1])
