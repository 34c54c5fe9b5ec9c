#!/usr/bin/env python3
"""Makes each known mistake on purpose, in transformers, and prints how far the toy models' logits move.

usage: python scripts/toy_mistakes.py [--cases scout,maverick,text,guard,llama]

A golden test can only catch what moves the goldens: a mistake that no case moves by more than MIN_EFFECT is an error
of the toy models, and the script then exits with status 1.  Two rows are expected to move nothing, and must not: the
re-written attention with no mistake in it, and the q/k norm before the rotation, which is the same function.
Tests are run against a tolerance of 2e-5.
"""
import argparse
import contextlib
import itertools
from unittest import mock

import torch
from torch.nn import functional
from transformers.models.llama import modeling_llama
from transformers.models.llama4 import modeling_llama4 as llama4

import make_toy_llama4 as toy

MIN_EFFECT = 2e-4          # ten times the tolerance of the golden tests
MAX_NOISE = 2e-5


def rotate_pairs(x, freqs):
    """Interleaved pairs, as Llama 4 has them.  x `[1,T,heads,D]`, freqs complex `[1,T,D/2]`."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * freqs[:, :, None, :]).flatten(3)


def rotate_halves(x, freqs):
    """The half-rotation of Llama in its Hugging Face layout."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.complex(first, second) * freqs[:, :, None, :]
    return torch.cat([turned.real, turned.imag], dim=-1)


def unit(x, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def attention(rotate=rotate_pairs, rotate_all=False, norm="head", norm_all=False, norm_first=False, eps=None,
              shift=1.0, temperature="q", tune_all=False, invert=False, scale_by_hidden=False):
    """A forward for Llama4TextAttention; the defaults are the published model, each argument one mistake."""
    def forward(self, hidden_states, position_embeddings, attention_mask, past_key_values=None, **_):
        n_tokens = hidden_states.shape[1]
        q, k, v = (proj(hidden_states).view(1, n_tokens, -1, self.head_dim)
                   for proj in (self.q_proj, self.k_proj, self.v_proj))
        rotated = bool(self.use_rope) != invert

        def normalise(x):
            width = x.shape[-2] * x.shape[-1] if norm == "layer" else x.shape[-1]
            parts = x.reshape(1, n_tokens, -1, width)
            return unit(parts, self.config.rms_norm_eps if eps is None else eps).reshape(x.shape)

        normed = self.config.use_qk_norm and (rotated or norm_all) and norm != "none"
        if normed and norm_first:
            q, k = normalise(q), normalise(k)
        if rotated or rotate_all:
            q, k = rotate(q, position_embeddings), rotate(k, position_embeddings)
        if normed and not norm_first:
            q, k = normalise(q), normalise(k)
        if self.attn_temperature_tuning and (not rotated or tune_all) and temperature != "none":
            step = torch.floor((torch.arange(n_tokens).float() + shift) / self.floor_scale)
            factor = (torch.log1p(step) * self.attn_scale + 1.0).view(1, -1, 1, 1)
            q, k = (q * factor, k) if temperature == "q" else (q, k * factor)
        scaling = self.config.hidden_size ** -0.5 if scale_by_hidden else self.scaling
        out, weights = llama4.eager_attention_forward(
            self, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attention_mask, scaling)
        return self.o_proj(out.reshape(1, n_tokens, -1)), weights
    return mock.patch.object(llama4.Llama4TextAttention, "forward", forward)


def moe(scores=torch.sigmoid, on="input", shared=1.0, top_k=None):
    """A forward for Llama4TextMoe with one mistake."""
    def forward(self, hidden_states):
        x = hidden_states.reshape(-1, self.hidden_dim)
        router_logits = functional.linear(x, self.router.weight)
        k = self.top_k if top_k is None else top_k
        top = router_logits.topk(k, dim=-1)
        chosen = torch.zeros_like(router_logits).scatter(1, top.indices, 1.0)
        # [E,T,1]; softmaxed and renormalised scores are formed over the chosen experts only.
        masked = router_logits.masked_fill(chosen == 0, float("-inf"))
        score = (scores(masked) * chosen).T.unsqueeze(-1)
        chosen = chosen.T.unsqueeze(-1)
        repeated = x.expand(self.num_experts, *x.shape)
        inside = repeated * (score if on == "input" else chosen)
        routed = self.experts(inside.reshape(-1, self.hidden_dim)).view(self.num_experts, *x.shape)
        routed = routed * (score if on == "output" else 1.0)
        return shared * self.shared_expert(x) + routed.sum(0), router_logits
    return mock.patch.object(llama4.Llama4TextMoe, "forward", forward)


def mask(sees):
    """Replaces the chunk mask; `sees(i, j, chunk)` for j ≤ i."""
    def build(config, inputs_embeds, **_):
        n = inputs_embeds.shape[1]
        i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
        allowed = (j <= i) & sees(i, j, config.attention_chunk_size)
        return torch.zeros(1, 1, n, n).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return mock.patch.object(llama4, "create_chunked_causal_mask", build)


@contextlib.contextmanager
def replaced(tensor, value):
    """Overwrites a parameter or buffer for a while."""
    before = tensor.detach().clone()
    with torch.no_grad():
        tensor.copy_(value)
        try:
            yield
        finally:
            tensor.copy_(before)


@contextlib.contextmanager
def together(contexts):
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def text_of(model):
    return getattr(model, "language_model", model).model


def frequencies(model, **changes):
    """Text rotation frequencies of a changed rope_parameters."""
    rotary = text_of(model).rotary_emb
    rope = dict(model.config.get_text_config().rope_parameters) | changes
    head_dim = model.config.get_text_config().head_dim
    f = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim)
    if rope["rope_type"] == "llama3":
        low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
        wave = 2 * torch.pi / f
        blend = (original / wave - low) / (high - low) if high > low else torch.zeros_like(wave)
        inside = f * ((1 - blend) / rope["factor"] + blend)
        f = torch.where(wave < original / high, f, torch.where(wave > original / low, f / rope["factor"], inside))
    return replaced(rotary.inv_freq, f)


def expert_columns(model, order):
    """Reorders the columns of every gate_up_proj; `order` maps the expert width to 2·width column numbers."""
    layers = [layer.feed_forward.experts for layer in text_of(model).layers if layer.is_moe_layer]
    return together([replaced(e.gate_up_proj, e.gate_up_proj[..., order(e.expert_dim)]) for e in layers])


def vision_angles(x=None, y=None, offset=1.0, width=None, class_row=False):
    """Replaces the 2-D rotation table; the defaults are the published one."""
    def context(model):
        config = model.config.vision_config
        side = config.image_size // config.patch_size
        half = config.hidden_size // config.num_attention_heads // 2
        index = torch.arange(side * side + 1).float()
        column, row = index % side, torch.div(index, side, rounding_mode="floor")
        at_x = column if x is None else x(column, row, index, side)
        at_y = row if y is None else y(column, row, index, side)
        f = 1.0 / 10000.0 ** (torch.arange(0, half, 2).float() / (half if width is None else width(half)))
        angles = torch.cat([(at_x + offset)[:, None] * f, (at_y + offset)[:, None] * f], dim=-1)
        if not class_row:
            angles[-1] = 0
        table = model.vision_model.rotary_embedding.freqs_ci
        return replaced(table, torch.polar(torch.ones_like(angles), angles).view(table.shape))
    return context


def vision_rotation(rotate):
    """`rotate(x, freqs)` in place of the interleaved pairs."""
    def apply(query, key, freqs_ci):
        freqs = freqs_ci.reshape(1, query.shape[1], -1)
        return rotate(query, freqs), rotate(key, freqs)
    return mock.patch.object(llama4, "vision_apply_rotary_emb", apply)


def shuffle(permutation):
    """Another order of the axes (tile, Y, dy, X, dx, channel) when patches are folded into tokens."""
    def fold(input_tensor, _ratio):
        tiles, patches, channels = input_tensor.shape
        half = int(patches ** 0.5) // 2
        return input_tensor.view(tiles, half, 2, half, 2, channels).permute(permutation).reshape(
            tiles, half * half, 4 * channels)
    return mock.patch.object(llama4, "pixel_shuffle", fold)


def vision_activation(name):
    return lambda model: together([mock.patch.object(layer.mlp, "activation_fn", torch.nn.GELU(approximate=name))
                                   for layer in model.vision_model.model.layers])


def adapter_activation(forward):
    return mock.patch.object(llama4.Llama4VisionMLP2, "forward", forward)


def layer_norms(model, eps):
    norms = [m for m in model.vision_model.modules() if isinstance(m, torch.nn.LayerNorm)]
    return together([mock.patch.object(norm, "eps", eps) for norm in norms])


def rms_norms(model, eps):
    kinds = (llama4.Llama4TextRMSNorm, modeling_llama.LlamaRMSNorm)
    field = "eps" if isinstance(text_of(model).norm, llama4.Llama4TextRMSNorm) else "variance_epsilon"
    return together([mock.patch.object(m, field, eps) for m in text_of(model).modules() if isinstance(m, kinds)])


def class_first(model):
    """The class row before the patches, with the position rows in file order."""
    table = model.vision_model.positional_embedding_vlm
    return replaced(table, table.roll(-1, dims=0))


def heads_in_turn(model):
    """Query head a on key head a mod K instead of a div (A/K)."""
    module = modeling_llama if model.config.model_type == "llama" else llama4
    return mock.patch.object(module, "repeat_kv", lambda x, n: x.repeat(1, n, 1, 1))


def interleaved_llama(_model):
    def apply(q, k, cos, sin, **_):
        half = cos.shape[-1] // 2
        freqs = torch.complex(cos[..., :half], sin[..., :half])
        return tuple(rotate_pairs(x.transpose(1, 2), freqs).transpose(1, 2) for x in (q, k))
    return mock.patch.object(modeling_llama, "apply_rotary_pos_emb", apply)


LLAMA4 = ("scout", "maverick", "text", "guard")
IMAGES = ("scout", "maverick", "guard")
ROUTED = ("scout", "maverick", "text")
SCALED = ("scout", "text", "guard", "llama")
UNROTATED = ROUTED            # cases that have layers without rotation, and therefore chunks
NOTHING = {"no mistake", "q/k norm before the rotation"}

MISTAKES = {
    "no mistake": (LLAMA4, lambda m: together([attention(), *([moe()] if any(
        layer.is_moe_layer for layer in text_of(m).layers) else [])])),
    "q/k norm before the rotation": (("scout", "text", "guard"), lambda m: attention(norm_first=True)),
    "half-rotation": (LLAMA4, lambda m: attention(rotate=rotate_halves)),
    "rotation on every layer": (UNROTATED, lambda m: attention(rotate_all=True)),
    "no_rope_layers upside down": (UNROTATED, lambda m: attention(invert=True)),
    "rope scaling ignored": (SCALED, lambda m: frequencies(m, rope_type="default")),
    "every frequency divided": (SCALED, lambda m: frequencies(m, low_freq_factor=1e9, high_freq_factor=1e9)),
    "blend band ignored": (("text", "llama"), lambda m: frequencies(m, high_freq_factor=1.0)),
    "rope factors 8/4 for 16/1": (("scout", "guard"), lambda m: frequencies(m, high_freq_factor=4.0)),
    "theta 10000": (("maverick", "text"), lambda m: frequencies(m, rope_theta=10000.0)),
    "score on expert output": (ROUTED, lambda m: moe(on="output")),
    "scores through softmax": (ROUTED, lambda m: moe(scores=lambda r: r.softmax(-1))),
    "no score": (ROUTED, lambda m: moe(scores=torch.ones_like)),
    "one expert only": (("text",), lambda m: moe(top_k=1)),
    "shared expert left out": (ROUTED, lambda m: moe(shared=0.0)),
    "gate/up columns interleaved": (ROUTED, lambda m: expert_columns(
        m, lambda n: list(itertools.chain(range(0, 2 * n, 2), range(1, 2 * n, 2))))),
    "gate and up exchanged": (ROUTED, lambda m: expert_columns(m, lambda n: [*range(n, 2 * n), *range(n)])),
    "no chunk mask": (UNROTATED, lambda m: mask(lambda i, j, c: i >= 0)),
    "sliding window for chunk": (UNROTATED, lambda m: mask(lambda i, j, c: i - j < c)),
    "chunk of C − 1": (UNROTATED, lambda m: mask(lambda i, j, c: i // (c - 1) == j // (c - 1))),
    "no temperature": (UNROTATED, lambda m: attention(temperature="none")),
    "temperature position off by one": (UNROTATED, lambda m: attention(shift=0.0)),
    "temperature on every layer": (UNROTATED, lambda m: attention(tune_all=True)),
    "temperature on k": (UNROTATED, lambda m: attention(temperature="k")),
    "no q/k norm": (("scout", "text", "guard"), lambda m: attention(norm="none")),
    "q/k norm eps 1e-6": (("scout", "text", "guard"), lambda m: attention(eps=1e-6)),
    "q/k norm over all heads": (("scout", "text", "guard"), lambda m: attention(norm="layer")),
    "q/k norm on every layer": (("scout", "text"), lambda m: attention(norm_all=True)),
    "attention scale from hidden size": (LLAMA4, lambda m: attention(scale_by_hidden=True)),
    "key heads in turn": ((*LLAMA4, "llama"), heads_in_turn),
    "RMS norm eps 1e-6": (LLAMA4, lambda m: rms_norms(m, 1e-6)),
    "RMS norm eps 1e-5": (("text", "llama"), lambda m: rms_norms(m, 1e-5)),
    "llama with interleaved pairs": (("llama",), interleaved_llama),
    "vision y not floored": (IMAGES, vision_angles(y=lambda x, y, i, side: i / side)),
    "vision x and y exchanged": (IMAGES, vision_angles(x=lambda x, y, *_: y, y=lambda x, y, *_: x)),
    "vision class row rotated": (IMAGES, vision_angles(class_row=True)),
    "vision positions from 0": (IMAGES, vision_angles(offset=0.0)),
    "vision frequencies over head_dim": (IMAGES, vision_angles(width=lambda half: 2 * half)),
    "vision half-rotation": (IMAGES, lambda m: vision_rotation(rotate_halves)),
    "vision without rotation": (IMAGES, lambda m: vision_rotation(lambda x, _: x)),
    "vision class row first": (IMAGES, class_first),
    "vision tanh GELU": (IMAGES, vision_activation("tanh")),
    "vision layer norm eps 1e-6": (IMAGES, lambda m: layer_norms(m, 1e-6)),
    "adapter tanh GELU": (IMAGES, lambda m: adapter_activation(lambda self, x: functional.gelu(
        self.fc2(functional.gelu(self.fc1(x), approximate="tanh")), approximate="tanh"))),
    "adapter without last GELU": (IMAGES, lambda m: adapter_activation(
        lambda self, x: self.fc2(functional.gelu(self.fc1(x))))),
    "pixel shuffle dx before dy": (IMAGES, lambda m: shuffle((0, 1, 3, 4, 2, 5))),
    "pixel shuffle columns first": (IMAGES, lambda m: shuffle((0, 3, 1, 2, 4, 5))),
}


def effect(model, case, context):
    """The largest change of a logit over the prompts of the case."""
    worst = 0.0
    for prompt in case.prompts:
        ids, pixels = toy.inputs(case, model.config, prompt)
        right = toy.logits(model, ids, pixels)
        with context(model):
            wrong = toy.logits(model, ids, pixels)
        worst = max(worst, (right - wrong).abs().max().item())
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(toy.CASES))
    names = parser.parse_args().cases.split(",")
    torch.set_num_threads(1)
    models = {name: toy.build(toy.CASES[name]) for name in names}
    unseen = []
    for mistake, (where, context) in MISTAKES.items():
        effects = {name: effect(models[name], toy.CASES[name], context) for name in where if name in models}
        if not effects:
            continue
        print(f"{mistake:34s}" + "  ".join(f"{name} {x:.1e}" for name, x in effects.items()))
        worst = max(effects.values())
        if (worst > MAX_NOISE) if mistake in NOTHING else (worst < MIN_EFFECT):
            unseen.append(mistake)
    if unseen:
        raise SystemExit(f"not as expected: {', '.join(unseen)}")
    print(f"{len(MISTAKES) - len(NOTHING)} mistakes, each seen by at least one case")


if __name__ == "__main__":
    main()
