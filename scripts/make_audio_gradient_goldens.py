#!/usr/bin/env python3
"""Gradients of an audio encoder and its projector through a model that hears, by PyTorch's autograd: tests/data/train/hearing.safetensors.

usage: python scripts/make_audio_gradient_goldens.py [--out tests/data/train/hearing.safetensors]

The model is tests/data/audio-tower/mixed_tiny (make_audio_tower_goldens.py). Its encoder and projector are written here once
more, with torch's own convolutions, attention and norms; its decoder is transformers'. One prompt has a clip of two chunks, the
second of which the clip does not fill; the mean cross-entropy of the tokens behind it is differentiated.

  input_ids [1,T], labels [1,T] (-100 where nothing is learnt), input_features [2,M,C], num_mel_frames [2], loss [1],
  grad/<tensor>  of every tensor of the encoder and the projector

Needs numpy, torch, transformers 5, safetensors.  No network.
"""
import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import Llama4ForConditionalGeneration

import make_audio_tower_goldens as tower

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/data"
N_LEARNT = 6


def encode(mel, n_valid, w, config):
    """Rows of a chunk [M, C] that its first `n_valid` columns reach; later frames are seen by none."""
    x = F.gelu(F.conv1d(mel[None], w["conv1.weight"], w["conv1.bias"], padding=1))
    x = F.gelu(F.conv1d(x, w["conv2.weight"], w["conv2.bias"], stride=2, padding=1))[0].T
    x = x + w["embed_positions.weight"]
    n, heads = (n_valid - 1) // 2 + 1, config["num_attention_heads"]
    x = x[:n]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)
    for i in range(config["num_hidden_layers"]):
        at = f"layers.{i}."
        y = norm(x, at + "self_attn_layer_norm")
        q, k, v = (F.linear(y, w[f"{at}self_attn.{part}_proj.weight"], w.get(f"{at}self_attn.{part}_proj.bias"))
                   .reshape(n, heads, -1).transpose(0, 1) for part in "qkv")
        y = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(n, -1)
        x = x + F.linear(y, w[at + "self_attn.out_proj.weight"], w[at + "self_attn.out_proj.bias"])
        y = F.gelu(F.linear(norm(x, at + "final_layer_norm"), w[at + "fc1.weight"], w[at + "fc1.bias"]))
        x = x + F.linear(y, w[at + "fc2.weight"], w[at + "fc2.bias"])
    return norm(x, "layer_norm")


def project(x, w, stack):
    x = F.pad(x, (0, 0, 0, -len(x) % stack)).reshape(-1, stack * x.shape[1])
    return F.linear(F.gelu(F.linear(x, w["linear_1.weight"])), w["linear_2.weight"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER / "train/hearing.safetensors")
    args = parser.parse_args()
    folder = FOLDER / "audio-tower/mixed_tiny"
    config = json.loads((folder / "config.json").read_text())
    tensors = {name: values.clone().requires_grad_() for name, values in load_file(folder / "model.safetensors").items()}

    def part(prefix):
        return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
    own = {prefix: part(prefix) for prefix in ("audio_tower.", "audio_projector.")}
    model = Llama4ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")

    mel, valid = torch.tensor(tower.mel(), dtype=torch.float32), tower.VALID
    stack = config["audio_projector_config"]["stack_factor"]
    rows = torch.cat([project(encode(chunk, n, own["audio_tower."], config["audio_config"]), own["audio_projector."], stack)
                      for chunk, n in zip(mel, valid)])
    words = iter(np.random.Generator(np.random.PCG64(23)).integers(3, config["boa_token_index"], 13).tolist())

    def say(n):
        return [next(words) for _ in range(n)]
    audio = config["audio_token_index"]
    ids = [1] + say(3) + [config["boa_token_index"]] + [audio] * len(rows) + [config["eoa_token_index"]] + say(9)
    labels = [-100] * (len(ids) - N_LEARNT) + ids[-N_LEARNT:]
    ids, labels = torch.tensor([ids]), torch.tensor([labels])
    embeds = model.get_input_embeddings()(ids).detach()
    embeds = embeds.masked_scatter((ids == audio)[..., None], rows)
    logits = model.language_model(inputs_embeds=embeds, use_cache=False).logits
    loss = F.cross_entropy(logits[0, :-1], labels[0, 1:])
    loss.backward()
    made = {"input_ids": ids, "labels": labels, "input_features": mel, "num_mel_frames": torch.tensor(valid),
            "loss": loss.detach()[None]}
    made |= {f"grad/{prefix}{name}": values.grad for prefix, some in own.items() for name, values in some.items()}
    tower.save(args.out, {name: values.numpy() for name, values in made.items()})
    norms = [float(values.norm()) for name, values in made.items() if name.startswith("grad/")]
    print(f"loss {loss:.4f}, {len(norms)} gradients, norms {min(norms):.1e} to {max(norms):.1e}")


if __name__ == "__main__":
    main()
