#!/usr/bin/env python3
"""Builds seeded audio encoders, projectors and small models that hear, and what they give, in tests/data/audio-tower.

usage: python scripts/make_audio_tower_goldens.py [--out tests/data/audio-tower] [--check FOLDER]

  encoder.safetensors       weight/*, in/mel, act/* and out/{full,masked,block_causal4}, sinusoids/*/rows
  projector.safetensors     {mlp4,ultravox_mid,ultravox_post}/{weight/*,out/{full,masked}}, in/{full,masked}
  voxtral_tiny/, llama4_audio_tiny/           checkpoints in the published layouts
  {voxtral_tiny,llama4_audio_tiny}_golden.safetensors     their prompts, rows, merged embeddings, logits, greedy tokens
  mixed_tiny/, mixed_tiny_golden.safetensors   a model that sees and hears: one prompt of a clip, two images and a clip of
                                               two chunks, from the clips' files (clip<n>.wav) and the images' tiles on

The model here is another than the one under test in every respect: the encoder is numpy in float64, with masks where
ours leaves frames out and with convolutions as sums over taps; the decoder is the plain Python of
make_lora_goldens.py, to which rows of audio are given as more rows of the embedding table.  With --check, the encoder
and projectors have to give what transformers gave for a folder of the same layout.

The model that sees is one of make_toy_llama4.py with this encoder: its image rows are transformers', in float32, and its
logits have to be those of transformers' decoder too.

Needs numpy; torch and transformers as make_toy_llama4.py for the model that sees (--parts leaves it out).  No network.
"""
import argparse
import json
import math
import pathlib
import random
import wave

import numpy as np

import make_lora_goldens as plain

ENCODER = dict(hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_mel_bins=8,
               max_source_positions=20)
HEADS, BLOCK, TEXT = 4, 4, 24
VALID = [40, 27]
# Rounding to f32 of inputs that float64 has exactly: what is left is the sums' own.
TOLERANCE = 1e-5
MIN_MARGIN = 1e-3


def draw(seed, *shape, scale=1.0, shift=0.0):
    rng = random.Random(seed)
    values = [shift + scale * rng.gauss(0, 1) for _ in range(math.prod(shape))]
    return np.array(values, np.float32).astype(np.float64).reshape(shape)


def sinusoids(length, width):
    rates = np.exp(-np.arange(width // 2) * math.log(10000.0) / (width // 2 - 1))
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


def weight(seed, name, shape):
    if name.endswith("embed_positions.weight"):
        return sinusoids(*shape).astype(np.float32).astype(np.float64)
    if len(shape) == 1:
        return draw(f"{seed}/{name}", *shape, scale=0.1, shift=1.0 if name.endswith("weight") else 0.0)
    return draw(f"{seed}/{name}", *shape, scale=0.7 / math.sqrt(math.prod(shape[1:])))


def encoder_weights(seed):
    d, m, inner = ENCODER["hidden_size"], ENCODER["num_mel_bins"], ENCODER["intermediate_size"]
    shapes = {"conv1.weight": (d, m, 3), "conv1.bias": (d,), "conv2.weight": (d, d, 3), "conv2.bias": (d,),
              "embed_positions.weight": (ENCODER["max_source_positions"], d)}
    for name in ["layer_norm"] + [f"layers.{i}.{norm}" for i in range(ENCODER["num_hidden_layers"])
                                  for norm in ("self_attn_layer_norm", "final_layer_norm")]:
        shapes |= {f"{name}.weight": (d,), f"{name}.bias": (d,)}
    for i in range(ENCODER["num_hidden_layers"]):
        for part in ("q", "k", "v", "out"):
            shapes[f"layers.{i}.self_attn.{part}_proj.weight"] = (d, d)
            if part != "k":
                shapes[f"layers.{i}.self_attn.{part}_proj.bias"] = (d,)
        shapes |= {f"layers.{i}.fc1.weight": (inner, d), f"layers.{i}.fc1.bias": (inner,),
                   f"layers.{i}.fc2.weight": (d, inner), f"layers.{i}.fc2.bias": (d,)}
    return {name: weight(seed, name, shape) for name, shape in shapes.items()}


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def convolve(x, kernel, bias, stride):
    padded = np.pad(x, ((0, 0), (1, 1)))
    n = (x.shape[1] - 1) // stride + 1
    taps = [kernel[:, :, tap] @ padded[:, tap:tap + stride * n:stride] for tap in range(3)]
    return sum(taps) + bias[:, None]


def norm(x, w, name):
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def attend(x, w, name, seen):
    def head(part, h):
        y = x @ w[f"{name}.{part}_proj.weight"].T
        y = y + w.get(f"{name}.{part}_proj.bias", 0)
        return y[:, h * size:(h + 1) * size]
    size, heads = x.shape[1] // HEADS, []
    for h in range(HEADS):
        scores = head("q", h) @ head("k", h).T / math.sqrt(size)
        scores = np.where(seen, scores, -np.inf)
        chances = np.exp(scores - scores.max(1, keepdims=True))
        heads.append(chances / chances.sum(1, keepdims=True) @ head("v", h))
    return np.concatenate(heads, 1) @ w[f"{name}.out_proj.weight"].T + w[f"{name}.out_proj.bias"]


def encode(mel, w, seen=None, acts=None):
    """Frames of a chunk [M, C]; `seen[a, b]` says whether frame a sees frame b."""
    acts = {} if acts is None else acts
    acts["conv1"] = gelu(convolve(mel, w["conv1.weight"], w["conv1.bias"], 1))
    acts["conv2"] = x = gelu(convolve(acts["conv1"], w["conv2.weight"], w["conv2.bias"], 2)).T
    acts["embed"] = x = x + w["embed_positions.weight"]
    seen = np.ones((len(x), len(x)), bool) if seen is None else seen
    for i in range(sum(name.endswith("fc1.weight") for name in w)):
        at = f"layers.{i}"
        x = x + attend(norm(x, w, f"{at}.self_attn_layer_norm"), w, f"{at}.self_attn", seen)
        y = gelu(norm(x, w, f"{at}.final_layer_norm") @ w[f"{at}.fc1.weight"].T + w[f"{at}.fc1.bias"])
        acts[f"layer{i}"] = x = x + y @ w[f"{at}.fc2.weight"].T + w[f"{at}.fc2.bias"]
    return norm(x, w, "layer_norm")


def kept(mel, w, valid):
    """The frames that `valid` columns reach; the others are masked, not left out."""
    n = (valid - 1) // 2 + 1
    seen = np.zeros((mel.shape[1] // 2,) * 2, bool)
    seen[:, :n] = True
    return encode(mel, w, seen)[:n]


def rms(x, gain):
    return gain * x / np.sqrt((x ** 2).mean(1, keepdims=True) + 1e-6)


def project(x, w, stack):
    x = np.pad(x, ((0, -len(x) % stack), (0, 0))).reshape(-1, stack * x.shape[1])
    if "ln_pre.weight" in w:
        x = rms(x, w["ln_pre.weight"])
    x = x @ w["linear_1.weight"].T
    if "ln_pre.weight" in w:  # of the three, those with a norm before have a gate
        value, gate = np.split(x, 2, 1)
        x = gate / (1 + np.exp(-gate)) * value
    else:
        x = gelu(x)
    if "ln_mid.weight" in w:
        x = rms(x, w["ln_mid.weight"])
    x = x @ w["linear_2.weight"].T
    return rms(x, w["ln_post.weight"]) if "ln_post.weight" in w else x


def projectors(d, text, hidden):
    def some(name, *shape, scale, shift=0.0):
        return draw(f"projector/{name}", *shape, scale=scale, shift=shift)
    gain = dict(scale=0.05, shift=0.4)
    return {
        "mlp4": (4, {"linear_1.weight": some("a", text, 4 * d, scale=0.12), "linear_2.weight": some("b", text, text, scale=0.2)}),
        "ultravox_mid": (8, {"ln_pre.weight": some("c", 8 * d, **gain), "linear_1.weight": some("d", hidden, 8 * d, scale=0.1),
                             "ln_mid.weight": some("e", hidden // 2, **gain), "linear_2.weight": some("f", text, hidden // 2, scale=0.25)}),
        "ultravox_post": (8, {"ln_pre.weight": some("g", 8 * d, **gain), "linear_1.weight": some("h", hidden, 8 * d, scale=0.1),
                              "linear_2.weight": some("i", text, hidden // 2, scale=0.25), "ln_post.weight": some("j", text, **gain)}),
    }


def mel():
    """Two chunks with the tone of speech: slow in time, tilted over bins; after VALID[1] columns the second is silent."""
    x = draw("mel", 2, ENCODER["num_mel_bins"], 40, scale=0.35)
    x[1, :, VALID[1] + 2:] = -0.5
    return x


def save(path, tensors):
    def entry(values):
        values = np.asarray(values)
        is_id = values.dtype.kind == "i"
        flat = values.reshape(-1)
        return ("I64" if is_id else "F32", list(values.shape), [int(v) if is_id else float(v) for v in flat])
    plain.write(path, {name: entry(values) for name, values in tensors.items()})


def block_mask(n, block):
    at = np.arange(n) // block
    return at[None, :] <= at[:, None]


def make_parts(out):
    w, x, acts = encoder_weights("encoder"), mel(), {}
    tensors = {f"weight/{name}": values for name, values in w.items()}
    full = np.stack([encode(x[0], w, acts=acts), encode(x[1], w)])
    tensors |= {f"act/{name}": values[None] for name, values in acts.items()}
    masked = kept(x[1], w, VALID[1])
    n = ENCODER["max_source_positions"]
    tensors |= {"in/mel": x, "out/full": full, "out/masked": masked[None],
                f"out/block_causal{BLOCK}": encode(x[0], w, block_mask(n, BLOCK))[None],
                "sinusoids/1500x1280/rows": sinusoids(1500, 1280)[[0, 1, 2, 777, 1499]]}
    save(out / "encoder.safetensors", tensors)
    tensors = {"in/full": full[0], "in/masked": masked}
    f32 = {name: values.astype(np.float32).astype(np.float64) for name, values in tensors.items()}
    for name, (stack, weights) in projectors(ENCODER["hidden_size"], TEXT, 32).items():
        tensors |= {f"{name}/weight/{part}": values for part, values in weights.items()}
        tensors |= {f"{name}/out/{of}": project(f32[f"in/{of}"], weights, stack) for of in ("full", "masked")}
    save(out / "projector.safetensors", tensors)


def text_tensors(seed, prefix, head, text, is_llama4):
    width, n = text["hidden_size"], text["head_dim"]
    q, kv = text["num_attention_heads"] * n, text["num_key_value_heads"] * n
    tensors = {}

    def put(name, *shape):
        tensors[name] = weight(seed, name, shape)

    def dense(name, inner):
        put(f"{name}gate_proj.weight", inner, width), put(f"{name}up_proj.weight", inner, width)
        put(f"{name}down_proj.weight", width, inner)
    tensors[f"{prefix}embed_tokens.weight"] = draw(f"{seed}/embed", text["vocab_size"], width, scale=0.5)
    for i in range(text["num_hidden_layers"]):
        at = f"{prefix}layers.{i}."
        put(at + "input_layernorm.weight", width), put(at + "post_attention_layernorm.weight", width)
        for part, shape in [("q", (q, width)), ("k", (kv, width)), ("v", (kv, width)), ("o", (width, q))]:
            put(f"{at}self_attn.{part}_proj.weight", *shape)
        if is_llama4 and i in text["moe_layers"]:
            at, inner, experts = at + "feed_forward.", text["intermediate_size"], text["num_local_experts"]
            tensors[at + "router.weight"] = draw(at, experts, width, scale=0.5)
            dense(at + "shared_expert.", inner)
            put(at + "experts.gate_up_proj", experts, width, 2 * inner), put(at + "experts.down_proj", experts, inner, width)
        else:
            dense(at + ("feed_forward." if is_llama4 else "mlp."), text["intermediate_size_mlp" if is_llama4 else "intermediate_size"])
    put(f"{prefix}norm.weight", width), put(f"{head}lm_head.weight", text["vocab_size"], width)
    return tensors


COMMON = dict(hidden_size=TEXT, num_attention_heads=4, num_key_value_heads=2, head_dim=6, max_position_embeddings=512,
              rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=10000.0), tie_word_embeddings=False,
              bos_token_id=1, eos_token_id=2)
VOXTRAL = COMMON | dict(model_type="llama", vocab_size=32, intermediate_size=32, num_hidden_layers=2)
LLAMA4 = COMMON | dict(
    model_type="llama4_text", vocab_size=64, intermediate_size=16, intermediate_size_mlp=24, num_hidden_layers=4,
    num_local_experts=4, num_experts_per_tok=1, moe_layers=[1, 3], interleave_moe_layer_step=2, no_rope_layers=[1, 1, 1, 0],
    no_rope_layer_interval=4, attention_chunk_size=16, attn_temperature_tuning=True, floor_scale=8, attn_scale=0.1,
    use_qk_norm=True)


class Heard(plain.Model):
    """A decoder in which the ids from `vocab_size` on are rows of audio, or of images and audio."""

    def __init__(self, folder, rows):
        super().__init__(folder)
        self.prefix = "language_model."
        shape, flat = self.tensors[self.prefix + "model.embed_tokens.weight"]
        self.tensors[self.prefix + "model.embed_tokens.weight"] = (shape, flat + [float(v) for v in rows.reshape(-1)])

    def logits(self, ids):
        return self.run(ids)["logits"]


def make_model(out, kind, config, tensors, ids, audio_id, valid):
    folder = out / kind
    folder.mkdir(parents=True, exist_ok=True)
    w = encoder_weights(kind)
    _, projector = projectors(ENCODER["hidden_size"], TEXT, 32)["mlp4"]
    place = "audio_projector." if kind == "llama4_audio_tiny" else "multi_modal_projector."
    tensors |= {f"audio_tower.{name}": values for name, values in w.items()}
    tensors |= {place + name: values for name, values in projector.items()}
    save(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    x = mel()
    rows = np.concatenate([project(kept(chunk, w, n), projector, 4) for chunk, n in zip(x, valid)])
    save(out / f"{kind}_golden.safetensors", answered(folder, ids, {audio_id: rows}) | {
        "input_features": x, "num_mel_frames": np.array(valid),
        "num_audio_tokens": np.array([-(-((n - 1) // 2 + 1) // 4) for n in valid]), "audio_embeds": rows})


def answered(folder, ids, rows_by_id):
    """What the decoder of `folder` makes of a prompt in which each of `rows_by_id` stands for the next of its rows."""
    rows = np.concatenate(list(rows_by_id.values()))
    model = Heard(folder, rows)
    first, places = model.text["vocab_size"], {}
    for stands, own in rows_by_id.items():
        places[stands] = iter(range(first, first + len(own)))
        first += len(own)
    heard = [next(places[i]) if i in places else i for i in ids]
    if any(next(left, None) is not None for left in places.values()):
        raise SystemExit(f"{folder}: fewer places than rows")
    table = model.tensors["language_model.model.embed_tokens.weight"][1]
    embeds = np.array(table).reshape(-1, model.width)[heard]
    logits, greedy, current = model.logits(heard), [], list(heard)
    for _ in range(8):
        last = sorted(enumerate(model.logits(current)[-1]), key=lambda pair: -pair[1])
        if last[0][1] - last[1][1] < MIN_MARGIN:
            raise SystemExit(f"{folder}: a near tie")
        greedy.append(last[0][0])
        current.append(last[0][0])
    if model.is_llama4 and model.margin < MIN_MARGIN:
        raise SystemExit(f"{folder}: a near tie of experts")
    return {"input_ids": np.array([ids]), "inputs_embeds": embeds[None], "logits": np.array([logits]),
            "greedy": np.array(greedy)}


def write_clip(path, seed, n):
    """A hum of two tones that swells, with noise: 16-bit samples at 16 kHz."""
    rng, t = random.Random(seed), np.arange(n) / 16000
    tones = 0.3 * np.sin(2 * np.pi * rng.uniform(150, 400) * t) + 0.2 * np.sin(2 * np.pi * rng.uniform(800, 3000) * t)
    x = tones * (0.3 + t / t[-1]) + 0.02 * np.array([rng.gauss(0, 1) for _ in range(n)])
    x = np.round(np.clip(x, -1, 1) * 32000).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, n, "NONE", ""))
        file.writeframes(x.tobytes())
    return x / 32768


def log_mel(samples, n_columns, filters):
    """Columns [M, n] of samples that zeros fill up to so many, held against their own maximum."""
    x = np.pad(np.pad(samples, (0, 160 * n_columns - len(samples))), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([x[160 * t:160 * t + 400] * window for t in range(n_columns)])
    logs = np.log10(np.maximum(np.abs(np.fft.rfft(frames)) ** 2 @ filters, 1e-10))
    return ((np.maximum(logs, logs.max() - 8) + 4) / 4).T


def make_mixed(out):
    import torch
    import make_toy_llama4 as toys
    from transformers.audio_utils import mel_filter_bank
    kind, text, boa, audio, eoa = "mixed_tiny", 32, 119, 120, 121
    folder = out / kind
    case = toys.Case(seed=5, prompts=(), config=lambda: toys.image_text_config(
        1, num_hidden_layers=4, num_local_experts=4, interleave_moe_layer_step=2, intermediate_size_mlp=32))
    model = toys.build(case)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    w, (_, projector) = encoder_weights(kind), projectors(ENCODER["hidden_size"], text, 32)["mlp4"]
    tensors = {name: np.array(flat).reshape(shape)
               for name, (shape, flat) in plain.read(folder / "model.safetensors").items()}
    tensors |= {f"audio_tower.{name}": values for name, values in w.items()}
    save(folder / "model.safetensors", tensors | {f"audio_projector.{name}": values for name, values in projector.items()})
    config = json.loads((folder / "config.json").read_text()) | dict(
        audio_config=ENCODER | dict(model_type="voxtral_encoder", attention_block=None),
        audio_projector_config=dict(stack_factor=4, hidden_act="gelu", bias=False),
        boa_token_index=boa, audio_token_index=audio, eoa_token_index=eoa)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    chunk, rows, n_rows = 2 * ENCODER["max_source_positions"], [], []
    filters = mel_filter_bank(201, ENCODER["num_mel_bins"], 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    for i, n_samples in enumerate([4300, 8801]):
        samples = write_clip(out / f"clip{i}.wav", f"clip{i}", n_samples)
        n_valid = -(-n_samples // 160)
        n_columns = -(-n_valid // chunk) * chunk
        mel = log_mel(samples, n_columns, filters)
        of_clip = [project(kept(mel[:, at:at + chunk], w, min(chunk, n_valid - at)), projector, 4)
                   for at in range(0, n_columns, chunk)]
        rows += of_clip
        n_rows.append(sum(map(len, of_clip)))
    rng = np.random.Generator(np.random.PCG64(17))
    grids, n_tiles, side = [(1, 2), (1, 1)], 4, model.config.vision_config.image_size
    pixels = rng.uniform(-1, 1, (n_tiles, 3, side, side)).astype(np.float32)
    words = iter(rng.integers(toys.EOS + 1, boa, 14).tolist())

    def say(n):
        return [next(words) for _ in range(n)]
    clips = [[boa] + [audio] * n + [eoa] for n in n_rows]
    images = [toys.image_tokens(*grid) for grid in grids]
    ids = [toys.BOS] + say(3) + clips[0] + say(2) + images[0] + images[1] + clips[1] + say(9)
    with torch.no_grad():
        seen = model.get_image_features(torch.from_numpy(pixels)).last_hidden_state
        seen = model.multi_modal_projector(seen.reshape(-1, seen.shape[-1])).numpy()
    rows_by_id = {toys.PATCH: seen.astype(np.float64), audio: np.concatenate(rows)}
    made = answered(folder, ids, rows_by_id)
    with torch.no_grad():
        embeds = torch.from_numpy(made["inputs_embeds"].astype(np.float32))
        other = model.language_model(inputs_embeds=embeds, use_cache=False).logits.numpy()
    apart = abs(other - made["logits"]).max()
    print(f"{kind}: {len(ids)} positions, logits up to {abs(other).max():.1f}, {apart:.1e} from transformers")
    if apart > TOLERANCE:
        raise SystemExit(f"{kind}: transformers gives other logits")
    save(out / f"{kind}_golden.safetensors", made | {
        "pixel_values": pixels, "grids": np.array(grids), "image_embeds": rows_by_id[toys.PATCH],
        "audio_embeds": rows_by_id[audio], "num_audio_tokens": np.array(n_rows)})


def check(folder):
    """What transformers gave for another encoder and its projectors."""
    def read(name):
        return {key: np.array(flat).reshape(shape) for key, (shape, flat) in plain.read(folder / name).items()}
    given, worst = read("encoder.safetensors"), {}
    w = {name.removeprefix("weight/"): values for name, values in given.items() if name.startswith("weight/")}
    x, acts = given["in/mel"], {}
    got = {"out/full": np.stack([encode(x[0], w, acts=acts), encode(x[1], w)]),
           "out/masked": kept(x[1], w, 2 * given["out/masked"].shape[1] - 1)[None],
           "out/block_causal20": encode(x[0], w, block_mask(x.shape[2] // 2, 20))[None]}
    got |= {f"act/{name}": values[None] for name, values in acts.items()}
    worst |= {name: abs(values - given[name]).max() for name, values in got.items()}
    given = read("projector.safetensors")
    for name, stack in [("mlp4", 4), ("ultravox_mid", 8), ("ultravox_post", 8)]:
        w = {key.split("weight/", 1)[1]: values for key, values in given.items() if key.startswith(f"{name}/weight/")}
        for of in ("full", "masked"):
            worst[f"{name}/{of}"] = abs(project(given[f"in/{of}"], w, stack) - given[f"{name}/out/{of}"]).max()
    for name, difference in worst.items():
        print(f"{name}: {difference:.1e} from transformers")
    if max(worst.values()) > TOLERANCE:
        raise SystemExit("another model")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/data/audio-tower"))
    parser.add_argument("--check", type=pathlib.Path)
    parser.add_argument("--parts", action="store_true", help="leave the model that sees out")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    make_parts(out)
    voxtral = dict(model_type="voxtral", audio_config=ENCODER | dict(model_type="voxtral_encoder"), text_config=VOXTRAL,
                   audio_token_id=24, projector_hidden_act="gelu")
    tensors = text_tensors("voxtral", "language_model.model.", "language_model.", VOXTRAL, False)
    make_model(out, "voxtral_tiny", voxtral, tensors, [1, 3, 25] + [24] * 10 + [20, 21, 22, 4], 24, [40, 40])
    llama4 = dict(model_type="llama4", text_config=LLAMA4, boi_token_index=50, eoi_token_index=51, image_token_index=52,
                  audio_config=ENCODER | dict(model_type="voxtral_encoder", attention_block=None),
                  audio_projector_config=dict(stack_factor=4, hidden_act="gelu", bias=False),
                  boa_token_index=54, audio_token_index=55, eoa_token_index=56)
    tensors = text_tensors("llama4", "language_model.model.", "language_model.", LLAMA4, True)
    make_model(out, "llama4_audio_tiny", llama4, tensors, [1, 10, 11, 54] + [55] * 9 + [56, 30, 31, 32, 33], 55, VALID)
    if not arguments.parts:
        make_mixed(out)


if __name__ == "__main__":
    main()
