"""Small GGUF files, and what other programs read in them, for tests/references/gguf.

    python3 -m venv v; v/bin/pip install gguf==0.19.0 safetensors numpy torch==2.11.0 transformers==5.23.0
    v/bin/python tests/peers/gguf_models.py quants OUT      # every type of tensor, dequantised by gguf
    v/bin/python tests/peers/gguf_models.py models OUT      # the models of tests/references/models as GGUF files
    v/bin/python tests/peers/gguf_models.py compare OUT     # logits of transformers for the originals, and for the GGUF files

`models` writes a file as llama.cpp's convert_hf_to_gguf.py does: the same keys, names and changes of values (rows of queries and
keys in pairs for Llama, joint projections reordered for GPT-NeoX, 1 added to Gemma's norms, GPT-2's matrices transposed).
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

TESTS = Path(__file__).resolve().parent.parent
ARCH = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "phi3": "phi3", "gpt2": "gpt2",
        "gemma2": "gemma2", "gemma3_text": "gemma3", "olmo2": "olmo2", "smollm3": "smollm3", "gpt_neox": "gptneox"}
COMMON = {"embed_tokens": "token_embd", "norm": "output_norm", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
          "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
          "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "self_attn.qkv_proj": "attn_qkv",
          "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
NORMS = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm",
         "pre_feedforward_layernorm": "ffn_norm"}
GPT2 = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm", "ln_2": "ffn_norm",
        "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
NEOX = {"embed_in": "token_embd", "final_layer_norm": "output_norm", "embed_out": "output", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output",
        "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down"}


def quants(out):
    """One row of each type: pseudo-random blocks with small scales, and their values by gguf's own dequantisers."""
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(out / "quants.gguf", "llama")
    values = {}
    types = [T.F32, T.F16, T.BF16, T.F64, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K]
    # Where the f16 scales of a block are; other bytes may be anything.
    scales = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
              T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
    for number, kind in enumerate(types):
        plain = rng.standard_normal((1, 256)).astype(np.float32)
        if kind in (T.F32, T.F64):
            data = plain.astype(np.float64 if kind == T.F64 else np.float32)
            known = data.astype(np.float64)
        elif kind in (T.F16, T.BF16):
            data = gguf.quants.quantize(plain, kind)
            known = gguf.quants.dequantize(data, kind).astype(np.float64)
        else:
            elements, size = gguf.GGML_QUANT_SIZES[kind]
            data = rng.integers(0, 256, (1, 256 // elements * size), dtype=np.uint8)
            blocks = data.reshape(-1, size)
            for at in scales[kind]:
                blocks[:, at:at + 2] = (rng.standard_normal(len(blocks)) * 0.1).astype(np.float16).view(np.uint8).reshape(-1, 2)
            known = gguf.quants.dequantize(data, kind).astype(np.float64)
        name = f"blk.{number}.ffn_up.weight"
        raw = kind if kind not in (T.F32, T.F64) else None
        writer.add_tensor(name, data, raw_dtype=raw)
        values[name] = {"type": kind.name, "values": [float(v) for v in known.reshape(-1)]}
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
    source = f"gguf {__import__('importlib.metadata').metadata.version('gguf')}"
    (out / "quants.json").write_text(json.dumps({"source": source, "tensors": values}) + "\n")


def pairs(w, heads):
    """Llama's order of rows in GGUF files."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def model(folder, path):
    from safetensors.numpy import load_file
    c = json.loads((folder / "config.json").read_text())
    kind, arch = c["model_type"], ARCH[c["model_type"]]
    w = gguf.GGUFWriter(path, arch)
    get = lambda *keys, default=None: next((c[k] for k in keys if c.get(k) is not None), default)
    rope = c.get("rope_parameters") or {}
    local, rope = rope.get("sliding_attention"), rope.get("full_attention", rope)
    dim, heads = get("hidden_size", "n_embd"), get("num_attention_heads", "n_head")
    head_dim = get("head_dim", default=dim // heads)
    w.add_block_count(get("num_hidden_layers", "n_layer"))
    w.add_context_length(get("max_position_embeddings", "n_positions"))
    w.add_embedding_length(dim)
    w.add_feed_forward_length(get("intermediate_size", "n_inner", default=4 * dim))
    w.add_head_count(heads)
    kv = get("num_key_value_heads", default=heads)
    if kind in ("gpt2", "gpt_neox"):
        w.add_layer_norm_eps(get("layer_norm_epsilon", "layer_norm_eps"))
    else:
        w.add_head_count_kv(kv)
        w.add_layer_norm_rms_eps(get("rms_norm_eps", default=1e-6))
        w.add_key_length(head_dim); w.add_value_length(head_dim)
    if kind != "gpt2":
        theta = rope.get("rope_theta", get("rope_theta", "rotary_emb_base", default=10000.0))
        w.add_rope_freq_base(theta)
        share = rope.get("partial_rotary_factor", get("partial_rotary_factor", "rotary_pct", default=1.0))
        w.add_rope_dimension_count(int(head_dim * share))
    if kind == "gpt_neox":
        w.add_parallel_residual(get("use_parallel_residual", default=True))
    if kind.startswith("gemma") or kind == "phi3":
        if c.get("sliding_window"):
            w.add_sliding_window(c["sliding_window"])
    if kind == "gemma2":
        w.add_attn_logit_softcapping(c["attn_logit_softcapping"]); w.add_final_logit_softcapping(c["final_logit_softcapping"])
    scaling = rope if rope.get("rope_type", "default") != "default" else (c.get("rope_scaling") or {})
    how = scaling.get("rope_type", "default")
    if how in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(how)); w.add_rope_scaling_factor(scaling["factor"])
        if "original_max_position_embeddings" in scaling:
            w.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    elif how == "llama3":
        base = theta ** (np.arange(0, head_dim, 2) / head_dim)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        periods = scaling["original_max_position_embeddings"] / (2 * np.pi * base)
        smooth = np.clip((periods - low) / (high - low), 0, 1)
        w.add_tensor("rope_freqs.weight", (1 / ((1 - smooth) / scaling["factor"] + smooth)).astype(np.float32))
    elif how != "default":
        raise ValueError(f"{how}: not written")
    vocab = c["vocab_size"]
    alphabet = [chr(b) for b in list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))]
    w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre("gpt-2")
    tokens = [f"{alphabet[i]}" if i < len(alphabet) else f"[PAD{i}]" for i in range(vocab)]
    tokens[3] = tokens[0] + tokens[1]
    w.add_token_list(tokens)
    w.add_token_types([1 if i < len(alphabet) else 5 for i in range(vocab)])
    w.add_token_merges([f"{tokens[0]} {tokens[1]}"]); w.add_eos_token_id(0)
    for name, t in load_file(folder / "model.safetensors").items():
        t = t.astype(np.float32)
        stem, end = name.rsplit(".", 1)
        stem = stem.removeprefix("model.").removeprefix("transformer.").removeprefix("gpt_neox.")
        layer, rest = (stem.split(".")[1], ".".join(stem.split(".")[2:])) if stem.split(".")[0] in ("layers", "h") else (None, stem)
        names = GPT2 if kind == "gpt2" else NEOX if kind == "gpt_neox" else COMMON
        if kind.startswith("gemma") or kind == "olmo2":
            names = names | NORMS
        own = "output" if rest == "lm_head" else names[rest]
        if arch in ("llama", "smollm3") and own in ("attn_q", "attn_k"):
            t = pairs(t, heads if own == "attn_q" else kv)
        if kind == "gpt2" and layer is not None and t.ndim == 2:
            t = t.T
        if kind == "gpt_neox" and own == "attn_qkv":
            t = t.reshape(heads, 3, -1).swapaxes(0, 1).reshape(t.shape)
        if kind.startswith("gemma") and own.endswith("norm"):
            t = t + 1
        w.add_tensor(f"blk.{layer}.{own}.{end}" if layer is not None else f"{own}.{end}", np.ascontiguousarray(t))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def models(out):
    for folder in sorted((TESTS / "references" / "models").iterdir()):
        if not (folder / "config.json").exists():
            continue
        try:
            model(folder, out / f"{folder.name}.gguf")
        except Exception as error:
            print(f"{folder.name}: skipped: {error!r}")


def compare(out):
    import torch
    from transformers import AutoModelForCausalLM
    for path in sorted(out.glob("*.gguf")):
        folder = TESTS / "references" / "models" / path.stem
        if not folder.exists():
            continue
        ids = torch.arange(1, 14)[None]
        with torch.no_grad():
            logits = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()(ids).logits
            found = {}
            converted = out / f"{path.stem}-converted"
            for name, load in [("gguf in transformers", lambda: AutoModelForCausalLM.from_pretrained(
                    out, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager")),
                    ("converted by telos", lambda: AutoModelForCausalLM.from_pretrained(
                        converted, dtype=torch.float32, attn_implementation="eager"))]:
                try:
                    found[name] = float((load().eval()(ids).logits - logits).abs().max())
                except Exception as error:
                    found[name] = f"{type(error).__name__}: {str(error)[:90]}"
        print(path.stem, found)


if __name__ == "__main__":
    task, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    {"quants": quants, "models": models, "compare": compare}[task](out)
