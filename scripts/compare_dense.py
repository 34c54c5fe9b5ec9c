#!/usr/bin/env python3
"""Perplexity of held-out prose: a model with experts like nano's, and a dense one with as many parameters for a token.

usage: python scripts/compare_dense.py PROSE.txt.zst [--puna target/release/puna] [--steps 400] [--out target/dense]

Both are trained from nothing on the same rows in the same order with the same settings; only the feed-forward layers
differ: a shared expert and one of eight, each 256 wide, or one 512 wide.  Prints a Markdown table.
"""
import argparse
import json
import math
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent

RECIPE = """
seed = 5

[model]
config = "config.json"
tokenizer = "{tokenizer}"

[data]
length = 512
held_out = 0.15

[[data.source]]
file = "{prose}"

[optimizer]
lr = 1e-3
muon_lr = 4e-3
betas = [0.9, 0.98]
weight_decay = 0.1
warm_up = 50
decay = 0.4

[run]
steps = {steps}
tokens = 4096
rows = 4096
precision = "bf16"
evaluate_every = {steps}
"""


def config(folder, moe_layers):
    """nano's text model, its feed-forward layers with experts in `moe_layers`."""
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in tokens}
    return {
        "architectures": ["Llama4ForCausalLM"], "model_type": "llama4_text", "vocab_size": 4096, "hidden_size": 256,
        "intermediate_size": 256, "intermediate_size_mlp": 512, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "num_local_experts": 8, "num_experts_per_tok": 1, "moe_layers": moe_layers, "use_qk_norm": True,
        "attn_temperature_tuning": True, "floor_scale": 2048, "attn_scale": 0.1, "attention_chunk_size": 1024,
        "no_rope_layer_interval": 4, "tie_word_embeddings": False, "attention_bias": False, "hidden_act": "silu",
        "bos_token_id": ids["<|begin_of_text|>"], "eos_token_id": ids["<|end_of_text|>"], "rope_theta": 10000.0,
        "torch_dtype": "float32",
    }


def train(args, name, moe_layers):
    """The held-out loss, in nats a token, and the parameters, in all and for a token."""
    folder = args.out / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = ROOT / "models/nano/tokenizer"
    (folder / "config.json").write_text(json.dumps(config(tokenizer, moe_layers)))
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(tokenizer=tokenizer, prose=args.prose.resolve(), steps=args.steps))
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    run = subprocess.run([args.puna, "train", recipe, "--out", out], check=True, capture_output=True, text=True)
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    held_out = [line["held_out"] for line in metrics if "held_out" in line]
    parameters = next(line for line in (run.stdout + run.stderr).splitlines() if " parameters" in line)
    return held_out[-1], parameters.split(";")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prose", type=pathlib.Path)
    parser.add_argument("--puna", default=str(ROOT / "target/release/puna"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "target/dense")
    args = parser.parse_args()
    print("| feed-forward layers | parameters | held-out loss, nats a token | perplexity |")
    print("|---|---|---|---|")
    for name, moe_layers in [("experts", list(range(6))), ("dense", [])]:
        loss, parameters = train(args, name, moe_layers)
        print(f"| {name} | {parameters} | {loss:.4f} | {math.exp(loss):.2f} |", flush=True)


if __name__ == "__main__":
    main()
