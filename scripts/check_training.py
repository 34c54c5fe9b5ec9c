#!/usr/bin/env python3
"""Trains a small model with puna, and asks transformers for its logits.

usage: python scripts/check_training.py [--puna target/release/puna] [--text tests/data/prose.txt] [--steps 30]

Makes a tokenizer, trains a model of 3 M parameters for some steps, interrupts a second run of the same recipe by Ctrl-C,
lets it go on, and holds the two models' bytes against each other; then loads the model in transformers and compares its
logits with those of `puna trace` on 60 tokens: at most 2e-5 apart.

Needs torch, transformers 5, safetensors.  No network.
"""
import argparse
import pathlib
import signal
import subprocess
import tempfile
import time

RECIPE = """seed = 3
[model]
size = "{size}"
tokenizer = "tokenizer"
[data]
length = 64
[[data.source]]
file = "text.txt"
[optimizer]
lr = 2e-3
warm_up = 5
[run]
steps = {steps}
tokens = 256
save_every = 10
evaluate_every = {steps}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--puna", type=pathlib.Path, default=root / "target/release/puna")
    parser.add_argument("--text", type=pathlib.Path, default=root / "tests/data/prose.txt")
    parser.add_argument("--size", default="3M")
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    puna = args.puna.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "text.txt").write_bytes(args.text.read_bytes())
        (folder / "recipe.toml").write_text(RECIPE.format(size=args.size, steps=args.steps))

        def run(*words):
            return subprocess.run([puna, *words], cwd=folder, check=True, capture_output=True, text=True).stdout

        print(run("data", "tokenizer", "text.txt", "--tokens", "512", "-o", "tokenizer").strip())
        print(run("train", "recipe.toml", "--out", "straight").strip())
        interrupted(puna, folder)
        print(run("train", "recipe.toml", "--out", "stopped", "--resume").strip().splitlines()[-2])
        models = [(folder / out / "model/model.safetensors").read_bytes() for out in ("straight", "stopped")]
        assert models[0] == models[1], "the run that was interrupted gave other bytes"
        print(f"interrupted and resumed: the same {len(models[0]):,} bytes")
        ids = [3 + 7 * i % 250 for i in range(60)]
        run("trace", "straight/model", "--ids", ",".join(map(str, ids)), "--out", "trace.safetensors", "--only", "logits")
        compare(folder, ids)


def interrupted(puna, folder):
    """A run that gets Ctrl-C once its first steps are in the metrics."""
    process = subprocess.Popen([puna, "train", "recipe.toml", "--out", "stopped"], cwd=folder,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = folder / "stopped/metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0, "an interrupted run is no failure"


def compare(folder, ids):
    import torch
    from safetensors.torch import load_file
    from transformers import Llama4ForCausalLM

    model = Llama4ForCausalLM.from_pretrained(folder / "straight/model", dtype=torch.float32,
                                              attn_implementation="eager").eval()
    with torch.no_grad():
        want = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    got = load_file(folder / "trace.safetensors")["logits"].reshape(want.shape)
    difference = (got - want).abs().max().item()
    print(f"transformers: {want.numel()} logits up to {want.abs().max():.2f}, largest difference {difference:.1e}")
    assert difference <= 2e-5


if __name__ == "__main__":
    main()
