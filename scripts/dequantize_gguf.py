#!/usr/bin/env python3
"""Writes a dense GGUF model (architecture `llama`) as a Hugging Face folder of float32 or bfloat16 safetensors.

usage: python scripts/dequantize_gguf.py MODEL.gguf FOLDER [--dtype f32|bf16]

The folder holds config.json and model.safetensors; no tokenizer.  GGUF keeps the rows of q and k of this architecture in
the order of interleaved rotation pairs, Hugging Face in the order of the half-rotation: they are reordered here.
Needs gguf, safetensors, numpy.
"""
import argparse
import json
import pathlib

import gguf
import numpy

LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def value(reader, key, default=None):
    """A metadata value; `default`, if given, for a missing key."""
    field = reader.get_field(key)
    if field is not None:
        return field.contents()
    if default is None:
        raise SystemExit(f"the file has no '{key}'")
    return default


def config(reader, dtype):
    """The config.json of a LlamaForCausalLM."""
    n_heads = value(reader, "llama.attention.head_count")
    width = value(reader, "llama.embedding_length")
    names = {tensor.name for tensor in reader.tensors}
    embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": "output.weight" not in names,
        "vocab_size": int(embedding.shape[1]), "hidden_size": width,
        "intermediate_size": value(reader, "llama.feed_forward_length"),
        "num_hidden_layers": value(reader, "llama.block_count"), "num_attention_heads": n_heads,
        "num_key_value_heads": value(reader, "llama.attention.head_count_kv", n_heads),
        "head_dim": value(reader, "llama.attention.key_length", width // n_heads),
        "max_position_embeddings": value(reader, "llama.context_length"),
        "rms_norm_eps": value(reader, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": value(reader, "llama.rope.freq_base", 10000.0), "rope_scaling": None,
        "bos_token_id": value(reader, "tokenizer.ggml.bos_token_id", 1),
        "eos_token_id": value(reader, "tokenizer.ggml.eos_token_id", 2),
        "torch_dtype": {"f32": "float32", "bf16": "bfloat16"}[dtype],
    }


def half_rotation_order(rows, n_heads):
    """Rows `[heads·D, K]` from (pair, member) order inside each head to (member, pair) order."""
    return rows.reshape(n_heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def hugging_face_name(name):
    """`blk.3.attn_q.weight` to `model.layers.3.self_attn.q_proj.weight`."""
    parts = name.split(".")
    if parts[0] in OUTER_NAMES and parts[1:] == ["weight"]:
        return f"{OUTER_NAMES[parts[0]]}.weight"
    if parts[0] == "blk" and parts[2] in LAYER_NAMES and parts[3:] == ["weight"]:
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"
    raise SystemExit(f"tensor '{name}' has no place in a plain Llama folder")


def tensors(reader, about):
    """Name to float32 array, in Hugging Face's names, shapes and row order."""
    out = {}
    for tensor in reader.tensors:
        x = gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if ".attn_q." in tensor.name:
            x = half_rotation_order(x, about["num_attention_heads"])
        elif ".attn_k." in tensor.name:
            x = half_rotation_order(x, about["num_key_value_heads"])
        out[hugging_face_name(tensor.name)] = numpy.ascontiguousarray(x)
    return out


def bfloat16_bits(x):
    """The nearest bfloat16 of every finite float32, ties to even, as its 16 bits."""
    bits = x.view(numpy.uint32).astype(numpy.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def write_safetensors(path, arrays, dtype):
    """The safetensors layout, written out because numpy has no bfloat16: length, JSON header, then the bytes."""
    blobs = [(name, x if dtype == "f32" else bfloat16_bits(x)) for name, x in sorted(arrays.items())]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, x in blobs:
        begin, end = end, end + x.nbytes
        header[name] = {"dtype": dtype.upper(), "shape": list(x.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, x in blobs:
            file.write(x.tobytes())


def convert(gguf_path, folder, dtype):
    """Writes `folder`; fails on any architecture but a plain `llama`."""
    reader = gguf.GGUFReader(gguf_path)
    architecture = value(reader, "general.architecture")
    if architecture != "llama":
        raise SystemExit(f"architecture is '{architecture}'; only 'llama' is converted")
    about = config(reader, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")
    write_safetensors(folder / "model.safetensors", tensors(reader, about), dtype)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    args = parser.parse_args()
    convert(args.gguf, args.folder, args.dtype)


if __name__ == "__main__":
    main()
