#!/usr/bin/env python3
"""Speed of one image tile: puna and `transformers` in alternation, in the shape of Llama 4's vision tower.

usage: python benches/vision.py FOLDER [--puna target/release/puna] [--threads 2] [--runs 5] [--dtype float32]
       [--weights stored|q8_0] [--precision f32|bf16] [--out FILE.json]

FOLDER gets a checkpoint of random bf16 weights (1.8 GB) if it has none: the published tower (34 layers of width 1408,
16 heads, feed-forward 5632, tiles of 336 pixels in patches of 14), its adapter and the projector to width 5120, and a
text model that is as small as the format allows.  A run is one tile through tower, adapter and projector; `puna bench
--image-tile` warms up with one tile before the one that counts, and so does the peer.  `transformers` gets its better
type: bf16 as stored, and float32, which processors without instructions for bf16 multiply faster; both are tried once,
unless `--dtype` says which is known to be the faster one (bf16 takes minutes a tile without such instructions).
What both give is compared, so that it is the same work: 2 % of its size, eight times the 2⁻⁹ by which bf16 rounds.

`--weights q8_0` has the tower's maps in eight bits, as `puna quantize --to q8_0` writes them; results are then within 5 %.
`--precision bf16` has stored maps multiply activations that are rounded to bf16, as the peer's do, instead of exact ones.

Needs torch, transformers 5, numpy, safetensors.
"""
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import tower  # beside this file

IMAGE_START, IMAGE_END, PATCH, N_VOCAB = 5, 6, 7, 4096
TOKENIZER = pathlib.Path(__file__).resolve().parent.parent / "models/nano/tokenizer/tokenizer.json"  # a GGUF file has one
SEED = 0


def make(folder):
    """Writes the checkpoint."""
    import torch
    from transformers import Llama4Config, Llama4ForConditionalGeneration, Llama4TextConfig, Llama4VisionConfig
    vision = Llama4VisionConfig(hidden_size=1408, num_hidden_layers=34, num_attention_heads=16, intermediate_size=5632,
                                image_size=336, patch_size=14, num_channels=3, pixel_shuffle_ratio=0.5,
                                projector_input_dim=4096, projector_output_dim=4096, vision_output_dim=4096,
                                norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=10000.0))
    text = Llama4TextConfig(vocab_size=N_VOCAB, hidden_size=5120, intermediate_size=64, intermediate_size_mlp=64,
                            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=32,
                            num_local_experts=2, num_experts_per_tok=1, max_position_embeddings=4096,
                            pad_token_id=0, bos_token_id=1, eos_token_id=2, attn_temperature_tuning=True,
                            rope_parameters=dict(rope_type="default", rope_theta=500000.0))
    config = Llama4Config(text_config=text, vision_config=vision, boi_token_index=IMAGE_START,
                          eoi_token_index=IMAGE_END, image_token_index=PATCH)
    torch.manual_seed(SEED)
    model = Llama4ForConditionalGeneration._from_config(config, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "norm" not in name:               # what comes out is as large as what goes in
                fan_in = parameter.shape[1]
                parameter.copy_(torch.randn(parameter.shape, dtype=torch.float32) / fan_in ** 0.5)
    model.save_pretrained(folder)
    shutil.copy(TOKENIZER, folder)


class Peer:
    """`transformers` with one tile."""

    def __init__(self, folder, threads, dtype):
        import torch
        from transformers import Llama4ForConditionalGeneration
        torch.set_num_threads(threads)
        self.torch = torch
        self.pixels = torch.rand((1, 3, 336, 336), generator=torch.Generator().manual_seed(SEED)) * 2 - 1
        load = Llama4ForConditionalGeneration.from_pretrained
        names = {dtype or "bfloat16", "float32"}                        # compared in float32
        self.models = {name: load(folder, dtype=getattr(torch, name)).eval() for name in names}
        tried = {}
        for name in [dtype] if dtype else self.models:
            self.dtype = name
            tried[name] = self.run()[0]                                 # a tile takes far longer than warming up
        self.dtype = min(tried, key=tried.get)

    def run(self):
        """Seconds of one tile, and its rows."""
        model = self.models[self.dtype]
        pixels = self.pixels.to(getattr(self.torch, self.dtype))
        with self.torch.inference_mode():
            begin = time.perf_counter()
            features = model.vision_model(pixels).last_hidden_state
            rows = model.multi_modal_projector(features.reshape(-1, features.shape[-1]))
            return time.perf_counter() - begin, rows

    def rows_in_f32(self):
        kept, self.dtype = self.dtype, "float32"
        rows = self.run()[1].numpy()
        self.dtype = kept
        return rows


def quantised(binary, folder):
    """The checkpoint with its maps in eight bits: the model's file and the tower's."""
    path = folder / "q8_0.gguf"
    if not path.exists():
        subprocess.run([binary, "quantize", folder, path, "--to", "q8_0"], check=True, stdout=subprocess.DEVNULL)
    return path, ["--mmproj", folder / f"mmproj-{path.name}"]


def compare(binary, model, flags, peer, most):
    """How far apart the two results are, relative to their size."""
    import numpy
    from safetensors.numpy import load_file, save_file
    with tempfile.TemporaryDirectory() as scratch:
        pixels, out = pathlib.Path(scratch, "pixels"), pathlib.Path(scratch, "out")
        save_file({"pixel_values": peer.pixels.numpy()}, pixels)
        ids = ",".join(map(str, [IMAGE_START] + [PATCH] * 144 + [IMAGE_END]))
        command = [binary, "trace", model, *flags, "--ids", ids, "--pixels", pixels, "--only", "vision.projected", "--out", out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ours = load_file(out)["vision.projected"].reshape(144, -1)
    theirs = peer.rows_in_f32().reshape(144, -1)
    apart = float(numpy.linalg.norm(ours - theirs) / numpy.linalg.norm(theirs))
    if not apart < most:
        sys.exit(f"puna and transformers do not compute the same: {apart:.1%} apart")
    return apart


def measure(arguments):
    """One row of results."""
    folder = arguments.folder
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
    tower.quiet(arguments.threads)
    peer = Peer(folder, arguments.threads, arguments.dtype)
    model, flags, most = folder, [], 0.02
    if arguments.weights == "q8_0":
        (model, flags), most = quantised(arguments.puna, folder), 0.05
    apart = compare(arguments.puna, model, [*flags, "--precision", arguments.precision], peer, most)
    import transformers
    engine = f"transformers {transformers.__version__}, {peer.dtype}"
    row = tower.alternated(arguments, model, ["--image-tile", *flags], lambda: peer.run()[0], engine)
    rate = lambda runs_s: round(144 / statistics.median(runs_s), 2)
    row["against"]["tok_per_s"] = rate(row["against"]["runs_s"])
    return {"test": "tile", "tokens": 144, "depth": 0, "batch": 1,
            "tok_per_s": rate(row["runs_s"]), **row,
            "relative_difference": apart}


if __name__ == "__main__":
    tower.main(__doc__, measure, None)
