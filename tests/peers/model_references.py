"""Small random models and what transformers computes with them, for tests/references/models.

    python3 -m venv v; v/bin/pip install torch==2.11.0 transformers==5.23.0 safetensors
    v/bin/python tests/peers/model_references.py [NAME ...]
    v/bin/python tests/peers/model_references.py --compare FOLDER NAME

Writes one folder for each model of MODELS: config.json, config_v4.json (the older layout of the same config, which must give the same
logits), model.safetensors and expected.json, as tests/references/models/README.md describes them. With --compare, loads a folder that
Telos saved and compares its logits with those of the reference NAME.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

OUT = Path(__file__).resolve().parent.parent / "references" / "models"
TOKENS = 12
SMALL = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0,
}

# By name: model_type, config, keys of the older layout.
MODELS = {
    "llama_linear": ("llama", {
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0},
    }, {}),
    "llama_dynamic": ("llama", {
        "num_key_value_heads": 2, "tie_word_embeddings": True, "head_dim": 8,
        "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 200.0},
    }, {}),
    "llama_yarn": ("llama", {
        "num_key_value_heads": 4, "head_dim": 8, "attention_bias": True, "mlp_bias": True,
        "rope_parameters": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 100.0, "beta_fast": 4.0,
        },
    }, {}),
    "qwen2_yarn": ("qwen2", {
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8, "rope_theta": 50.0, "beta_fast": 2.0,
            "beta_slow": 0.25, "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False,
        },
    }, {}),
    "phi3_partial": ("phi3", {
        "num_key_value_heads": 1, "num_attention_heads": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.625},
    }, {}),
    "phi3_longrope": ("phi3", {
        "num_key_value_heads": 4, "original_max_position_embeddings": 32, "sliding_window": 9, "head_dim": 8,
        "num_attention_heads": 4, "hidden_size": 32,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 300.0, "partial_rotary_factor": 0.75, "short_factor": [1.0, 1.25, 2.0],
            "long_factor": [1.5, 3.0, 9.0], "original_max_position_embeddings": 32,
        },
    }, {}),
    "gemma2_defaults": ("gemma2", {
        "hidden_size": 20, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6, "sliding_window": 4,
        "num_hidden_layers": 3, "query_pre_attn_scalar": 7, "tie_word_embeddings": False, "attention_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
    }, {}),
    "gemma3_linear": ("gemma3_text", {
        "hidden_size": 20, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 6, "sliding_window": 5,
        "num_hidden_layers": 3, "query_pre_attn_scalar": 9, "attn_logit_softcapping": None, "final_logit_softcapping": 5.0,
        "sliding_window_pattern": 3,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 400.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 60.0},
        },
    }, {}),
    "gpt_neox_sequential": ("gpt_neox", {
        "use_parallel_residual": False, "attention_bias": False, "hidden_act": "gelu_new", "num_attention_heads": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.375},
    }, {}),
    "gpt_neox_linear": ("gpt_neox", {
        "hidden_act": "gelu", "num_attention_heads": 2, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 200.0, "partial_rotary_factor": 1.0},
    }, {}),
    "olmo2": ("olmo2", {
        "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }, {}),
    "olmo2_bias": ("olmo2", {
        "num_key_value_heads": None, "attention_bias": True, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
    }, {}),
    "smollm3": ("smollm3", {
        "num_key_value_heads": 2, "num_hidden_layers": 3, "no_rope_layers": [1, 0, 1],
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }, {}),
    "smollm3_window": ("smollm3", {
        "num_key_value_heads": 4, "num_hidden_layers": 3, "no_rope_layer_interval": 2, "use_sliding_window": True,
        "sliding_window": 4, "tie_word_embeddings": False, "mlp_bias": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }, {}),
}


def older(config):
    """The layout of transformers 4."""
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    old["transformers_version"], old["torch_dtype"] = "4.51.0", config["dtype"]
    rope = json.loads(json.dumps(config["rope_parameters"]))
    kind = config["model_type"]
    if kind == "gemma3_text":
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    old["rotary_emb_base" if kind == "gpt_neox" else "rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        old["rotary_pct" if kind == "gpt_neox" else "partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    if rope["rope_type"] == "longrope":
        rope.pop("original_max_position_embeddings")
    if kind != "gemma3_text":
        rope["type"] = rope.pop("rope_type")
    old["rope_scaling"] = None if "default" in rope.values() else rope
    return old


def model_of(config, state=None):
    config = AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    if state is not None:
        model.load_state_dict(state)
    return model


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                # Scaled embeddings start smaller.
                scaled = "embed" in name and model.config.model_type.startswith("gemma")
                parameter.copy_((0.3 if scaled else 1.0) * noise * (0.5 if "embed" in name or "head" in name else parameter.shape[1] ** -0.5))
            elif "norm" in name and name.endswith("weight"):
                parameter.add_(0.3 * noise)
            else:
                parameter.add_(0.1 * noise)


def greedy(model, prompt):
    tokens, gap = list(prompt), float("inf")
    for _ in range(TOKENS):
        with torch.no_grad():
            two = model(torch.tensor([tokens])).logits[0, -1].topk(2)
        gap = min(gap, (two.values[0] - two.values[1]).item())
        tokens.append(two.indices[0].item())
    cached = model.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)[0].tolist()
    return tokens[len(prompt):], gap, cached == tokens


def logits_of(model, ids, mask):
    """Logits of each sequence alone, 0 at padding."""
    rows = [model(row[None, : length]).logits[0] for row, length in zip(ids, mask.sum(1).tolist())]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def loss_and_gradients(model, ids, mask, labels):
    model.zero_grad()
    logits = logits_of(model, ids, mask)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    loss.backward()
    return logits.detach(), loss.item(), {n: p.grad.double() for n, p in model.named_parameters()}


def short(values):
    """Decimals that give the same float32."""
    if isinstance(values, list):
        return [short(value) for value in values]
    return float(f"{values:.8g}")


def make(name, seed):
    kind, config, _ = MODELS[name]
    config = SMALL | config | {"model_type": kind}
    torch.manual_seed(seed)
    model = model_of(config)
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    draw = lambda *shape: torch.randint(2, config["vocab_size"], shape, generator=generator)
    ids, mask = draw(2, 13), torch.ones(2, 13, dtype=torch.long)
    ids[1, 8:], mask[1, 8:] = 0, 0
    labels = ids.masked_fill(mask == 0, -100)
    prompts = [draw(9).tolist(), draw(5).tolist()]
    answers = [greedy(model, prompt) for prompt in prompts]
    gap = min(answer[1] for answer in answers)
    if gap < 0.02 or not all(answer[2] for answer in answers):
        return False
    logits, loss, grads = loss_and_gradients(model, ids, mask, labels)
    wide = model_of(config).double()
    wide.load_state_dict(model.state_dict())
    logits64, loss64, grads64 = loss_and_gradients(wide.double(), ids, mask, labels)
    noise = (logits - logits64).abs().max().item()
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    written = json.loads((folder / "config.json").read_text())
    if name == "gemma2_defaults":
        # Absent keys have the class's values.
        for key in ["layer_types", "attn_logit_softcapping", "final_logit_softcapping", "hidden_activation"]:
            written.pop(key)
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    (folder / "config_v4.json").write_text(json.dumps(older(written), indent=1) + "\n")
    for file in ["config.json", "config_v4.json"]:
        again = model_of(json.loads((folder / file).read_text()), model.state_dict())
        with torch.no_grad():
            assert torch.equal(logits_of(again, ids, mask), logits), f"{name}: {file}"
    expected = {
        "source": {"package": "transformers", "version": transformers.__version__, "file": f"transformers/models/{kind}",
                   "function": type(model).__name__},
        "how": "eager attention, float32, each sequence alone; *_f64 is the same model in float64",
        "input_ids": ids.tolist(), "attention_mask": mask.tolist(), "labels": labels.tolist(),
        "logits": short(logits.tolist()), "logits_noise": noise, "loss": loss, "loss_f64": loss64,
        "greedy": {"prompts": prompts, "continuations": [answer[0] for answer in answers], "smallest_logit_gap": gap},
        "gradients": {n: {"l2": g.norm().item(), "sum": g.sum().item(), "l2_f64": grads64[n].norm().item(),
                          "sum_f64": grads64[n].sum().item()} for n, g in grads.items()},
    }
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
    size = (folder / "model.safetensors").stat().st_size + (folder / "expected.json").stat().st_size
    print(f"{name}: seed {seed}, gap {gap:.3f}, noise {noise:.1e}, loss {loss:.4f}, {size} bytes")
    return True


def compare(folder, name):
    """Loads what Telos saved without changes, and returns the largest difference of logits."""
    expected = json.loads((OUT / name / "expected.json").read_text())
    model, info = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", output_loading_info=True, dtype=torch.float32)
    wrong = {key: sorted(value) for key, value in info.items() if value}
    assert not wrong, f"{name}: {wrong}"
    ids, mask = torch.tensor(expected["input_ids"]), torch.tensor(expected["attention_mask"])
    with torch.no_grad():
        logits = logits_of(model, ids, mask)
    difference = ((logits - torch.tensor(expected["logits"])).abs() * mask[..., None]).max().item()
    assert difference < 1e-4, f"{name}: logits differ by {difference}"
    print(f"{name}: {type(model).__name__}, logits differ by at most {difference:.1e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--compare"]:
        compare(*sys.argv[2:4])
    else:
        for name in sys.argv[1:] or MODELS:
            assert any(make(name, seed) for seed in range(40)), f"{name}: no seed has a clear greedy continuation"
