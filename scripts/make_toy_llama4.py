#!/usr/bin/env python3
"""Builds the seeded toy checkpoints under tests/data/toy and their golden tensors, by transformers, in float32.

usage: python scripts/make_toy_llama4.py [--out tests/data/toy] [--cases scout,maverick,text,guard,llama]

Each case folder receives
  config.json                the layout that transformers 5 writes
  config.v4.json             the same model in the layout of the checkpoints published in 2025 (Llama 4 cases only)
  generation_config.json, model.safetensors (float32)
  golden.safetensors         groups of tensors, one group per prompt, keys "<prompt>/<what>":
    input_ids [1,T] i64, pixel_values [tiles,3,S,S] (image prompts)
    embeds [1,T,H]           embeddings after the image rows were written in
    layer.<i>.{attn,ffn,out} [1,T,H], layer.<i>.router_logits [T,E] (mixture layers), final_norm [1,T,H]
    vision.{patch,pre_ln,layer.<i>,post_ln,adapter,projected}
    logits [1,T,V]           greedy_ids [1,N] i64 and greedy_logits [N,V]: N greedy steps, each without a cache
To stay small a prompt stores what it is there for: see `Detail`.  Weights are drawn per tensor from (case seed, tensor
name), so they depend on no iteration order, and are large enough that every detail of the model moves the logits
(scripts/toy_mistakes.py measures by how much).  The case seeds were chosen so that no routing decision and no greedy
choice is a near tie; the margins are printed, and the script fails when one falls below MIN_MARGIN.

Needs torch, transformers 5 (written against 5.23.0), safetensors, numpy.  No network.
"""
import argparse
import enum
import json
import pathlib
import zlib
from dataclasses import dataclass
from typing import Any, Callable

import numpy
import torch
from safetensors.torch import save_file
from transformers import (Llama4Config, Llama4ForCausalLM, Llama4ForConditionalGeneration, Llama4TextConfig,
                          Llama4VisionConfig, LlamaConfig, LlamaForCausalLM)

VOCAB, PAD, BOS, EOS = 128, 0, 1, 2
# Stand-ins for the ids from 200080 on; every id from FIRST_CONTROL up has a zero output row.
FIRST_CONTROL, BOI, EOI, PATCH, IMAGE, X_SEP, Y_SEP = 120, 122, 123, 124, 125, 126, 127
GREEDY_STEPS = 16
# Float32 noise of another order of additions is about 1e-5 on these models: a hundred times that cannot flip a choice.
MIN_MARGIN = 1e-3


class Detail(enum.Enum):
    """What a prompt stores beside its ids, pixels, logits and greedy ids."""
    LOGITS = "nothing"
    VISION = "embeds and every vision stage"
    ALL = "every tensor"


@dataclass(frozen=True)
class Prompt:
    """`grids` holds (rows, columns) for each image; `n_words` ordinary tokens stand around the images."""
    name: str
    n_words: int
    detail: Detail
    grids: tuple = ()


@dataclass(frozen=True)
class Case:
    seed: int
    config: Callable[[], Any]
    prompts: tuple
    quiet_heads: int = 1
    # What config.v4.json says instead of what the conversion gives; published files differ from each other here.
    v4_text: tuple = ()


def llama3_rope(theta, factor, low, high, original):
    return dict(rope_type="llama3", rope_theta=theta, factor=factor, low_freq_factor=low, high_freq_factor=high,
                original_max_position_embeddings=original)


def text_config(**changes):
    """Scout in small.  Every K of a linear layer is a multiple of 32, so quantised copies can be made."""
    base = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=32, intermediate_size_mlp=64, num_hidden_layers=8,
                num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=4096,
                rms_norm_eps=1e-5, num_local_experts=4, num_experts_per_tok=1, interleave_moe_layer_step=1,
                use_qk_norm=True, attn_temperature_tuning=True, floor_scale=8, attn_scale=0.1, attention_chunk_size=16,
                no_rope_layer_interval=4, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
                rope_parameters=dict(rope_type="default", rope_theta=500000.0))
    return Llama4TextConfig(**(base | changes))


def image_text_config(n_vision_layers, **text_changes):
    """A tile of 24 pixels is 4×4 patches is 2×2 tokens.  The patch row (3·6·6 = 108) is, like the published 588, no multiple of 8."""
    vision = Llama4VisionConfig(hidden_size=32, num_hidden_layers=n_vision_layers, num_attention_heads=2,
                                intermediate_size=128, image_size=24, patch_size=6, pixel_shuffle_ratio=0.5,
                                projector_input_dim=64, projector_output_dim=64, vision_output_dim=64, norm_eps=1e-5,
                                rope_parameters=dict(rope_type="default", rope_theta=10000.0))
    return Llama4Config(text_config=text_config(**text_changes), vision_config=vision, boi_token_index=BOI,
                        eoi_token_index=EOI, image_token_index=PATCH)


CASES = {
    # Rotation with an empty blend band (low = high), as published; chunk 16 against prompts of 9 to 53 positions.
    "scout": Case(
        seed=0, config=lambda: image_text_config(2, rope_parameters=llama3_rope(10000.0, 8.0, 1.0, 1.0, 96)),
        prompts=(Prompt("short", 8, Detail.LOGITS), Prompt("long", 36, Detail.ALL),
                 Prompt("image_2x2", 9, Detail.VISION, ((2, 2),))),
        v4_text=(("no_rope_layers", []), ("attn_temperature_tuning", 4))),
    # Dense and mixture layers in turn, a dense width unlike the expert width, no q/k norm, plain rotation.
    "maverick": Case(
        seed=9, config=lambda: image_text_config(1, num_hidden_layers=4, num_local_experts=6,
                                                 interleave_moe_layer_step=2, use_qk_norm=False),
        prompts=(Prompt("short", 8, Detail.ALL), Prompt("long", 36, Detail.LOGITS),
                 Prompt("image_1tile", 7, Detail.LOGITS, ((1, 1),))),
        quiet_heads=0, v4_text=(("no_rope_layers", None), ("moe_layers", None))),
    # A flat text-only config in which every number differs from scout's: interval 3, chunk 12 (no power of two),
    # floor 5, scale 0.2, eps 3e-5, two experts a token, an explicit list of mixture layers, head_dim · heads = 64 ≠ 32,
    # a rotation with a real blend band.
    "text": Case(
        seed=7, config=lambda: text_config(num_hidden_layers=6, head_dim=16, num_experts_per_tok=2, moe_layers=[0, 1, 4],
                                           no_rope_layer_interval=3, attention_chunk_size=12, floor_scale=5,
                                           attn_scale=0.2, rms_norm_eps=3e-5,
                                           rope_parameters=llama3_rope(5000.0, 4.0, 1.0, 4.0, 48)),
        prompts=(Prompt("short", 8, Detail.LOGITS), Prompt("long", 36, Detail.ALL)),
        v4_text=(("attn_temperature_tuning", 1.0),)),
    # Llama Guard 4: dense, rotation everywhere, no chunks.  transformers fails on a null chunk size, so the goldens
    # use a chunk longer than any prompt, and the files say null.
    "guard": Case(
        seed=11, config=lambda: image_text_config(1, num_hidden_layers=3, moe_layers=[], interleave_moe_layer_step=0,
                                                 num_local_experts=0, no_rope_layers=[1] * 3, attention_chunk_size=8192,
                                                 rope_parameters=llama3_rope(10000.0, 4.0, 1.0, 1.0, 32)),
        prompts=(Prompt("short", 8, Detail.ALL), Prompt("long", 36, Detail.LOGITS),
                 Prompt("two_images", 9, Detail.VISION, ((1, 2), (1, 1))))),
    # A dense model of the Llama 3 kind: half-rotation, four query heads a key head, tied embeddings.
    "llama": Case(
        seed=3, config=lambda: LlamaConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
                                           num_attention_heads=8, num_key_value_heads=2, head_dim=8,
                                           max_position_embeddings=1024, rms_norm_eps=1e-6, tie_word_embeddings=True,
                                           pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
                                           rope_parameters=llama3_rope(10000.0, 8.0, 1.0, 4.0, 128)),
        prompts=(Prompt("short", 8, Detail.LOGITS), Prompt("long", 36, Detail.ALL)), quiet_heads=0),
}


def build(case):
    """The model of `case`, on the CPU, with plain (eager) attention."""
    config = case.config()
    kind = {Llama4Config: Llama4ForConditionalGeneration, Llama4TextConfig: Llama4ForCausalLM,
            LlamaConfig: LlamaForCausalLM}[type(config)]
    model = kind._from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    fill(model, case)
    return model


@torch.no_grad()
def fill(model, case):
    """Overwrites every parameter."""
    for name, parameter in model.named_parameters():
        rng = numpy.random.Generator(numpy.random.PCG64([case.seed, zlib.crc32(name.encode())]))
        x = torch.from_numpy(rng.standard_normal(tuple(parameter.shape), dtype=numpy.float32))
        if "norm" in name and name.endswith("weight"):
            x = 1 + 0.2 * x
        elif parameter.ndim == 1:
            x = 0.1 * x                                    # biases and the class row
        elif "positional_embedding" in name:
            x = 0.1 * x                                    # like the patches, small enough for the norm's epsilon to show
        elif "embed_tokens" in name:
            # A tied row that dominated the residual stream would make the model repeat its last token for ever.
            x = x * (0.3 if model.config.tie_word_embeddings else 1.0)
        else:
            # Fused experts are [E,in,out], linear layers [out,in]: the inner width is axis 1 of both.
            strength = 1.5 if "router" in name else 0.2 if "patch_embedding" in name else 1.0
            x = x * strength / parameter.shape[1] ** 0.5
        parameter.copy_(x)
        if name.endswith(("q_proj.weight", "k_proj.weight")) and "vision" not in name:
            # A head so quiet that the epsilon of the q/k norm shows.
            parameter[: case.quiet_heads * model.config.get_text_config().head_dim] *= 0.01
        if "lm_head" in name:
            parameter[:EOS + 1] = 0
            parameter[FIRST_CONTROL:] = 0


def image_tokens(rows, columns, tokens_per_tile=4):
    """The token block of one image: grid tiles row by row, then the global tile; a single tile has no grid."""
    tile = [PATCH] * tokens_per_tile
    block = [BOI]
    if rows * columns > 1:
        for _ in range(rows):
            for column in range(columns):
                block += tile if column == 0 else [X_SEP] + tile
            block.append(Y_SEP)
    return block + [IMAGE] + tile + [EOI]


def inputs(case, config, prompt):
    """Token ids `[1,T]` and pixels `[tiles,3,S,S]` or None."""
    rng = numpy.random.Generator(numpy.random.PCG64([case.seed, zlib.crc32(prompt.name.encode())]))
    words = rng.integers(EOS + 1, FIRST_CONTROL, prompt.n_words).tolist()
    if not prompt.grids:
        return torch.tensor([[BOS] + words]), None
    between = len(words) // (len(prompt.grids) + 1)
    ids, n_tiles = [BOS], 0
    for i, (rows, columns) in enumerate(prompt.grids):
        ids += words[i * between:(i + 1) * between] + image_tokens(rows, columns)
        n_tiles += 1 if rows * columns == 1 else rows * columns + 1
    ids += words[len(prompt.grids) * between:]
    side = config.vision_config.image_size
    pixels = rng.uniform(-1, 1, (n_tiles, 3, side, side)).astype(numpy.float32)
    return torch.tensor([ids]), torch.from_numpy(pixels)


@torch.no_grad()
def logits(model, ids, pixels):
    """`[1,T,V]`, without a cache."""
    images = {} if pixels is None else {"pixel_values": pixels}
    return model(input_ids=ids, use_cache=False, **images).logits


def record(model, ids, pixels):
    """Every tensor of one forward pass, by forward hooks."""
    seen, hooks = {}, []
    text = getattr(model, "language_model", model).model

    def keep(module, key, pick=lambda out: out[0] if isinstance(out, tuple) else out):
        hooks.append(module.register_forward_hook(lambda _m, _in, out: seen.update({key: pick(out).clone()})))

    hooks.append(text.layers[0].register_forward_pre_hook(
        lambda _m, args, named: seen.update(embeds=(args[0] if args else named["hidden_states"]).clone()),
        with_kwargs=True))
    for i, layer in enumerate(text.layers):
        ffn = layer.feed_forward if hasattr(layer, "feed_forward") else layer.mlp
        keep(layer.self_attn, f"layer.{i}.attn")
        keep(ffn, f"layer.{i}.ffn")
        keep(layer, f"layer.{i}.out")
        if hasattr(ffn, "router"):
            keep(ffn.router, f"layer.{i}.router_logits", lambda out: out[1])
    keep(text.norm, "final_norm")
    if pixels is not None:
        vision = model.vision_model
        stages = {"patch": vision.patch_embedding, "pre_ln": vision.layernorm_pre, "post_ln": vision.layernorm_post,
                  "adapter": vision.vision_adapter, "projected": model.multi_modal_projector}
        stages |= {f"layer.{i}": layer for i, layer in enumerate(vision.model.layers)}
        for key, module in stages.items():
            keep(module, f"vision.{key}")
    seen["logits"] = logits(model, ids, pixels)
    for hook in hooks:
        hook.remove()
    for key in seen:
        if key.endswith(".ffn"):
            seen[key] = seen[key].reshape(1, ids.shape[1], -1)
        if key == "vision.pre_ln":
            seen[key] = seen[key].squeeze(1)
    return seen


def greedy(model, ids, pixels):
    """Greedy ids `[1,N]` and the logits `[N,V]` they were chosen from, recomputed from the start at each step."""
    chosen_from, tokens = [], ids
    for _ in range(GREEDY_STEPS):
        chosen_from.append(logits(model, tokens, pixels)[0, -1])
        tokens = torch.cat([tokens, chosen_from[-1].argmax().reshape(1, 1)], dim=1)
    return tokens[:, ids.shape[1]:], torch.stack(chosen_from)


def margin(scores, k):
    """The smallest gap, over rows, between the k-th and the next score."""
    top = scores.topk(k + 1, dim=-1).values
    return (top[..., k - 1] - top[..., k]).min().item()


def goldens(case, model):
    """What golden.safetensors holds, and the smallest (router, greedy) margins met on the way."""
    out, config = {}, model.config
    top_k = getattr(config.get_text_config(), "num_experts_per_tok", 1)
    router_margin = greedy_margin = float("inf")
    for prompt in case.prompts:
        ids, pixels = inputs(case, config, prompt)
        greedy_ids, greedy_logits = greedy(model, ids, pixels)
        greedy_margin = min(greedy_margin, margin(greedy_logits, 1))
        # The margins count for the continued sequence too, since tests decode it.
        continued = record(model, torch.cat([ids, greedy_ids], dim=1), pixels)
        routed = [scores for key, scores in continued.items() if key.endswith("router_logits")]
        router_margin = min([router_margin] + [margin(scores, top_k) for scores in routed])
        seen = record(model, ids, pixels)
        kept = {"logits": seen["logits"], "input_ids": ids, "greedy_ids": greedy_ids}
        if prompt.detail is Detail.ALL:
            kept |= seen | {"greedy_logits": greedy_logits}
        elif prompt.detail is Detail.VISION:
            kept |= {key: x for key, x in seen.items() if key.startswith("vision.") or key == "embeds"}
        if pixels is not None:
            kept["pixel_values"] = pixels
        out |= {f"{prompt.name}/{key}": x.contiguous().clone() for key, x in kept.items()}
    return out, router_margin, greedy_margin


def v4_layout(node):
    """The keys and value types of the config.json files published with transformers 4.51."""
    if not isinstance(node, dict):
        return node
    out = {key: v4_layout(x) for key, x in node.items() if key not in ("dtype", "layer_types", "rope_parameters")}
    if "dtype" in node:
        out["torch_dtype"] = node["dtype"]
    rope = node.get("rope_parameters")
    if rope:
        out["rope_theta"] = rope["rope_theta"]
        if "vocab_size" in node:
            scaling = {key: x for key, x in rope.items() if key != "rope_theta"}
            out["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else scaling
    return out


def write_configs(folder, name, case):
    """Finishes config.json, which transformers wrote, and derives config.v4.json from it."""
    raw = json.loads((folder / "config.json").read_text())
    if name == "guard":
        raw["text_config"]["attention_chunk_size"] = None
    write_json(folder / "config.json", raw)
    if raw["model_type"] == "llama":
        return
    old = v4_layout(raw)
    text = old.get("text_config", old)
    for key, value in case.v4_text:
        if value is None:
            text.pop(key, None)                            # published files omit it: the default applies
        else:
            text[key] = value
    write_json(folder / "config.v4.json", old)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def check_v4(folder, model, case):
    """config.v4.json must describe the same model to transformers too (which wants a boolean for the temperature)."""
    path = folder / "config.v4.json"
    if not path.exists():
        return
    raw = json.loads(path.read_text())
    text = raw.get("text_config", raw)
    text["attn_temperature_tuning"] = bool(text["attn_temperature_tuning"])
    text["attention_chunk_size"] = text["attention_chunk_size"] or 8192
    again = type(model)._from_config(type(model.config).from_dict(raw), attn_implementation="eager",
                                     dtype=torch.float32).eval()
    again.load_state_dict(model.state_dict())
    ids, pixels = inputs(case, model.config, case.prompts[-1])
    if not torch.equal(logits(again, ids, pixels), logits(model, ids, pixels)):
        raise SystemExit(f"{path} describes another model")


def make(name, out):
    """Writes one case; returns whether its margins are wide enough."""
    case, folder = CASES[name], out / name
    folder.mkdir(parents=True, exist_ok=True)
    model = build(case)
    model.save_pretrained(folder)
    write_configs(folder, name, case)
    check_v4(folder, model, case)
    tensors, router_margin, greedy_margin = goldens(case, model)
    save_file(tensors, folder / "golden.safetensors")
    size_kib = sum(path.stat().st_size for path in folder.iterdir()) // 1024
    print(f"{name}: {model.num_parameters()} parameters, {len(tensors)} golden tensors, {size_kib} KiB, "
          f"router margin {router_margin:.1e}, greedy margin {greedy_margin:.1e}")
    return min(router_margin, greedy_margin) >= MIN_MARGIN


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default_out = pathlib.Path(__file__).resolve().parent.parent / "tests/data/toy"
    parser.add_argument("--out", type=pathlib.Path, default=default_out)
    parser.add_argument("--cases", default=",".join(CASES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    narrow = [name for name in args.cases.split(",") if not make(name, args.out)]
    if narrow:
        raise SystemExit(f"margins below {MIN_MARGIN}: {', '.join(narrow)}; choose another seed")


if __name__ == "__main__":
    main()
