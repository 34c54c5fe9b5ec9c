#!/usr/bin/env python3
"""Builds seeded LoRA adapters for toy checkpoints under tests/data/toy, and what the adapted models give.

usage: python scripts/make_lora_goldens.py [--toys tests/data/toy] [--out tests/data/lora] [--cases llama,text,scout]
       python scripts/make_lora_goldens.py --peft      (compares what is there with PEFT; needs torch, transformers, peft)

Each case folder receives
  adapter_config.json, adapter_model.safetensors   the layout of PEFT's save_pretrained
  golden.safetensors         "<prompt>/<what>": input_ids [1,T] i64, logits [1,T,V], for the short prompt also
                             layer.<i>.{attn,ffn} [1,T,H]
The model here is another than the one under test in every respect: plain Python in float64, one row at a time, the whole
sequence at once, and the adapter MERGED into the weights, W + scale · B · A.  Before it is believed it has to give the
logits that transformers gave for the toy alone (golden.safetensors of the toy).  Numbers of adapters are multiples of
1/64 with seven bits, so that they are the same in F32, F16 and BF16.

Needs the standard library only, but for --peft.  No network.
"""
import argparse
import json
import math
import pathlib
import random
import struct
from dataclasses import dataclass, field

# Float32 against float64, as the goldens of transformers are against this.
TOLERANCE = 2e-5
# No routing decision may be a near tie: as in make_toy_llama4.py.
MIN_MARGIN = 1e-3
PROMPTS = ("short", "long")
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
FFN = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Case:
    """`root` stands before the layers' modules; `targets` are ends of modules' names, `parameters` of routed experts' maps.
    The toy is called like the case unless `toy` says otherwise."""
    root: str
    rank: int
    alpha: float
    dtype: str
    targets: tuple
    more: dict = field(default_factory=dict)
    parameters: tuple = ()
    toy: str = ""

    def pattern(self, key, module, default):
        """PEFT's rule: the first entry that is the module's name or its end after a dot."""
        for end, value in self.more.get(key, {}).items():
            if module == end or module.endswith("." + end):
                return value
        return default

    def rank_of(self, module):
        return self.pattern("rank_pattern", module, self.rank)

    def scale_of(self, module):
        alpha, rank = self.pattern("alpha_pattern", module, self.alpha), self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.more.get("use_rslora") else rank)


CASES = {
    # Every map of a dense model, with exceptions by pattern of which the first counts.
    "llama": Case("model.", 4, 8, "F32", ATTENTION + FFN,
                  dict(rank_pattern={"layers.1.self_attn.q_proj": 2, "q_proj": 5}, alpha_pattern={"down_proj": 3})),
    # Dense layers and shared experts, an odd rank, divided by its root; no keys.
    "text": Case("model.", 3, 5, "BF16", ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj") + FFN,
                 dict(use_rslora=True)),
    # The names of a model with a vision tower; gate without up.
    "scout": Case("language_model.model.", 8, 12, "F16", ATTENTION + ("shared_expert.gate_proj",)),
    # Both maps of routed experts, beside a module.
    "experts": Case("language_model.model.", 3, 4, "F32", ("self_attn.q_proj",), toy="scout",
                    parameters=("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj")),
    # One of them, in layers of which some are dense, with another rank for one layer.
    "gate_up": Case("model.", 2, 3, "BF16", (), dict(rank_pattern={"layers.1.feed_forward.experts.gate_up_proj": 4}),
                    toy="text", parameters=("experts.gate_up_proj",)),
}


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def read(path):
    """name -> (shape, flat list) of a safetensors file of F32 and I64."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + length]), raw[8 + length:]
    out = {}
    for name, info in header.items():
        if name != "__metadata__":
            begin, end = info["data_offsets"]
            code, size = {"F32": ("f", 4), "I64": ("q", 8)}[info["dtype"]]
            out[name] = (info["shape"], list(struct.unpack(f"<{(end - begin) // size}{code}", data[begin:end])))
    return out


def encode(dtype, values):
    if dtype == "BF16":
        return b"".join(struct.pack("<f", x)[2:] for x in values)
    return struct.pack(f"<{len(values)}{dict(F32='f', F16='e', I64='q')[dtype]}", *values)


def write(path, tensors):
    """tensors: name -> (dtype, shape, flat list)."""
    header, data = {}, b""
    for name, (dtype, shape, values) in sorted(tensors.items()):
        raw = encode(dtype, values)
        header[name] = dict(dtype=dtype, shape=shape, data_offsets=[len(data), len(data) + len(raw)])
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def rows(flat, width):
    return [flat[i:i + width] for i in range(0, len(flat), width)]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b))


def apply(matrix, x):
    """`matrix` holds a list for each output."""
    return [dot(row, x) for row in matrix]


def plus(a, b):
    return [x + y for x, y in zip(a, b)]


def norm(x, eps, gain=None):
    factor = 1 / math.sqrt(dot(x, x) / len(x) + eps)
    return [v * factor * (1 if gain is None else gain[i]) for i, v in enumerate(x)]


def silu(x):
    return x / (1 + math.exp(-x))


def gated(gate, up, x):
    return [silu(g) * u for g, u in zip(apply(gate, x), apply(up, x))]


class Model:
    """A toy, with `merged` matrices in place of its own."""

    def __init__(self, folder, merged=()):
        config = json.loads((folder / "config.json").read_text())
        self.text = text = config.get("text_config", config)
        self.is_llama4 = text["model_type"] == "llama4_text"
        self.prefix = "language_model." if config["model_type"] == "llama4" else ""
        self.ffn = "feed_forward" if self.is_llama4 else "mlp"
        self.tensors = read(folder / "model.safetensors")
        self.merged = dict(merged)
        self.width, self.heads, self.kv_heads = (text[key] for key in ("hidden_size", "num_attention_heads",
                                                                      "num_key_value_heads"))
        self.head, self.eps = text["head_dim"], text["rms_norm_eps"]
        self.frequencies = self.rope_frequencies(text["rope_parameters"])
        self.margin = math.inf

    def vector(self, name):
        return self.tensors[self.prefix + name][1]

    def matrix(self, name):
        """By the name of its module: a list for each output."""
        name = self.prefix + name
        if name not in self.merged:
            shape, flat = self.tensors[name + ".weight"]
            self.merged[name] = rows(flat, shape[1])
        return self.merged[name]

    def rope_frequencies(self, rope):
        out = []
        for m in range(self.head // 2):
            f = rope["rope_theta"] ** (-2 * m / self.head)
            if rope["rope_type"] == "llama3":
                wave, original = 2 * math.pi / f, rope["original_max_position_embeddings"]
                low, high = rope["low_freq_factor"], rope["high_freq_factor"]
                if wave > original / low:
                    f /= rope["factor"]
                elif wave >= original / high:
                    kept = (original / wave - low) / (high - low)
                    f *= (1 - kept) / rope["factor"] + kept
            out.append(f32(f))
        return out

    def rotate(self, x, position):
        """All heads of a row: pairs are neighbours in Llama 4, and halves of a head in Llama."""
        out = list(x)
        for begin in range(0, len(x), self.head):
            for m, f in enumerate(self.frequencies):
                i, j = (2 * m, 2 * m + 1) if self.is_llama4 else (m, m + self.head // 2)
                a, b = x[begin + i], x[begin + j]
                angle = f32(position * f)
                out[begin + i] = a * math.cos(angle) - b * math.sin(angle)
                out[begin + j] = a * math.sin(angle) + b * math.cos(angle)
        return out

    def by_head(self, x):
        return [v for begin in range(0, len(x), self.head) for v in norm(x[begin:begin + self.head], self.eps)]

    def attention(self, layer, xs):
        text, name = self.text, f"model.layers.{layer}.self_attn."
        q, k, v = ([apply(self.matrix(name + part), x) for x in xs] for part in ("q_proj", "k_proj", "v_proj"))
        rotated = not self.is_llama4 or text["no_rope_layers"][layer] != 0
        chunk = text.get("attention_chunk_size") if rotated and self.is_llama4 else None
        for p in range(len(xs)):
            if rotated:
                q[p], k[p] = self.rotate(q[p], p), self.rotate(k[p], p)
                if self.is_llama4 and text["use_qk_norm"]:
                    q[p], k[p] = self.by_head(q[p]), self.by_head(k[p])
            elif text["attn_temperature_tuning"]:
                factor = 1 + text["attn_scale"] * math.log(1 + (p + 1) // text["floor_scale"])
                q[p] = [x * factor for x in q[p]]
        out = []
        for p in range(len(xs)):
            first, heads = (p - p % chunk if chunk else 0), []
            for h in range(self.heads):
                at = h // (self.heads // self.kv_heads) * self.head
                own = q[p][h * self.head:(h + 1) * self.head]
                scores = [dot(own, k[s][at:at + self.head]) / math.sqrt(self.head) for s in range(first, p + 1)]
                top = max(scores)
                weights = [math.exp(s - top) for s in scores]
                total = math.fsum(weights)
                heads += [math.fsum(w * v[first + i][at + c] for i, w in enumerate(weights)) / total
                          for c in range(self.head)]
            out.append(apply(self.matrix(name + "o_proj"), heads))
        return out

    def dense(self, name, x):
        gate, up, down = (self.matrix(name + part) for part in FFN)
        return apply(down, gated(gate, up, x))

    def feed_forward(self, layer, x):
        name = f"model.layers.{layer}.{self.ffn}."
        if not self.is_llama4 or layer not in self.text["moe_layers"]:
            return self.dense(name, x)
        top_k, out = self.text["num_experts_per_tok"], self.dense(name + "shared_expert.", x)
        logits = apply(self.matrix(name + "router"), x)
        order = sorted(range(len(logits)), key=lambda e: -logits[e])
        self.margin = min(self.margin, logits[order[top_k - 1]] - logits[order[top_k]])
        for e in order[:top_k]:
            out = plus(out, self.expert(name + "experts.", e, [v / (1 + math.exp(-logits[e])) for v in x]))
        return out

    def expert(self, name, e, x):
        """Experts are stored [E, in, out], gate and up side by side."""
        def map_of(part):
            (_, n_in, n_out), flat = self.tensors[self.prefix + name + part]
            flat = self.merged.get(self.prefix + name + part, flat)
            return list(zip(*rows(flat[e * n_in * n_out:(e + 1) * n_in * n_out], n_out)))
        gate_up = map_of("gate_up_proj")
        half = len(gate_up) // 2
        return apply(map_of("down_proj"), gated(gate_up[:half], gate_up[half:], x))

    def run(self, ids):
        """logits, and by layer what attention and feed-forward give: a list for each position."""
        table = rows(self.vector("model.embed_tokens.weight"), self.width)
        xs, seen = [table[i] for i in ids], {}
        for layer in range(self.text["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            gain = self.vector(name + "input_layernorm.weight")
            seen[f"layer.{layer}.attn"] = mixed = self.attention(layer, [norm(x, self.eps, gain) for x in xs])
            xs = [plus(x, m) for x, m in zip(xs, mixed)]
            gain = self.vector(name + "post_attention_layernorm.weight")
            seen[f"layer.{layer}.ffn"] = fed = [self.feed_forward(layer, norm(x, self.eps, gain)) for x in xs]
            xs = [plus(x, m) for x, m in zip(xs, fed)]
        gain = self.vector("model.norm.weight")
        output = table if self.prefix + "lm_head.weight" not in self.tensors else self.matrix("lm_head")
        seen["logits"] = [apply(output, norm(x, self.eps, gain)) for x in xs]
        return seen


def draw(seed, shape, amplitude):
    """Multiples of 1/64."""
    rng = random.Random(seed)
    return [round((2 * rng.random() - 1) * amplitude * 64) / 64 for _ in range(shape[0] * shape[1])]


def adapter(name, case, model):
    """The adapter's tensors, and the merged matrices by module."""
    tensors, merged = {}, {}
    for full in sorted(model.tensors):
        if full.startswith(case.root + "layers.") and any(full.endswith("." + end) for end in case.parameters):
            merged[full] = routed(name, case, model, full, tensors)
        if not full.startswith(case.root + "layers.") or not full.endswith(".weight"):
            continue
        module = full.removesuffix(".weight")
        if not any(module.endswith("." + end) for end in case.targets):
            continue
        (n_out, n_in), rank, scale = model.tensors[full][0], case.rank_of(module), case.scale_of(module)
        halves = {"A": [rank, n_in], "B": [n_out, rank]}
        for half, shape in halves.items():
            key = f"base_model.model.{module}.lora_{half}.weight"
            tensors[key] = (case.dtype, shape, draw(f"{name}/{key}", shape, 0.5 if half == "A" else 0.25))
        a, b = (rows(tensors[f"base_model.model.{module}.lora_{half}.weight"][2], halves[half][1]) for half in "AB")
        columns = list(zip(*a))
        base = model.matrix(module.removeprefix(model.prefix))
        merged[module] = [[w + scale * dot(b_row, column) for w, column in zip(row, columns)]
                          for row, b_row in zip(base, b)]
    return tensors, merged


def routed(name, case, model, full, tensors):
    """The adapter of a map of all routed experts, to `tensors`; the merged map.

    PEFT takes what stands where Llama 4 has inputs for outputs: A is [E * rank, outputs], expert after expert, and B
    [inputs, rank * E], in whose rows the expert changes fastest.  Where two parameters of a module are adapted, the
    first one's wrapper is the base layer of the second one's."""
    (n_experts, n_in, n_out), flat = model.tensors[full]
    rank, scale = case.rank_of(full), case.scale_of(full)
    module, parameter = full.rsplit(".", 1)
    both = all(any(end.endswith(part) for end in case.parameters) for part in ("gate_up_proj", "down_proj"))
    wrapper = module + (".base_layer" if both and parameter == "gate_up_proj" else "")
    shapes, halves = {"A": [n_experts * rank, n_out], "B": [n_in, rank * n_experts]}, {}
    for half, shape in shapes.items():
        key = f"base_model.model.{wrapper}.lora_{half}.weight"
        tensors[key] = (case.dtype, shape, draw(f"{name}/{key}", shape, 0.5 if half == "A" else 0.25))
        halves[half] = rows(tensors[key][2], shape[1])
    a, b = halves["A"], halves["B"]
    return [flat[(e * n_in + i) * n_out + o]
            + scale * math.fsum(b[i][r * n_experts + e] * a[e * rank + r][o] for r in range(rank))
            for e in range(n_experts) for i in range(n_in) for o in range(n_out)]


def settings(case):
    """What PEFT writes, less what says nothing here."""
    base = dict(peft_type="LORA", task_type="CAUSAL_LM", base_model_name_or_path="toy", inference_mode=True,
                r=case.rank, lora_alpha=case.alpha, lora_dropout=0.0, use_rslora=False, use_dora=False, bias="none",
                fan_in_fan_out=False, modules_to_save=None, layer_replication=None, init_lora_weights=True,
                target_modules=sorted({end.split(".")[-1] for end in case.targets}), rank_pattern={}, alpha_pattern={})
    parameters = dict(target_parameters=list(case.parameters)) if case.parameters else {}
    return base | case.more | parameters


def furthest(got, want):
    return max(abs(a - b) for row, other in zip(got, want) for a, b in zip(row, other))


def make(name, toys, out):
    case, folder = CASES[name], out / name
    toy = toys / (case.toy or name)
    base = Model(toy)
    tensors, merged = adapter(name, case, base)
    adapted = Model(toy, merged)
    known, golden, off, effect = read(toy / "golden.safetensors"), {}, 0.0, 0.0
    for prompt in PROMPTS:
        ids = known[f"{prompt}/input_ids"][1]
        alone, seen = base.run(ids)["logits"], adapted.run(ids)
        off = max(off, furthest(alone, rows(known[f"{prompt}/logits"][1], len(alone[0]))))
        effect = max(effect, furthest(alone, seen["logits"]))
        golden[f"{prompt}/input_ids"] = ("I64", [1, len(ids)], ids)
        for key, values in seen.items():
            if key == "logits" or prompt == "short":
                golden[f"{prompt}/{key}"] = ("F32", [1, len(ids), len(values[0])], [x for row in values for x in row])
    print(f"{name}: {len(tensors)} tensors, {off:.1e} from transformers without the adapter, which moves logits by "
          f"{effect:.2f}; router margin {adapted.margin:.1e}")
    if off > TOLERANCE or adapted.margin < MIN_MARGIN or effect < 0.1:
        raise SystemExit(f"{name}: another model, a near tie, or an adapter without effect")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings(case), indent=2, sort_keys=False) + "\n")
    write(folder / "adapter_model.safetensors", tensors)
    write(folder / "golden.safetensors", golden)


def check_peft(name, toys, out):
    """The logits of the goldens against those of PEFT."""
    import torch
    import transformers
    from peft import PeftModel
    case = CASES[name]
    folder = toys / (case.toy or name)
    config = json.loads((folder / "config.json").read_text())
    kind = dict(llama4="Llama4ForConditionalGeneration", llama4_text="Llama4ForCausalLM", llama="LlamaForCausalLM")
    model = getattr(transformers, kind[config["model_type"]]).from_pretrained(folder, attn_implementation="eager",
                                                                              dtype=torch.float32)
    # Newer libraries nest a model with towers under another name than its files have, which adapters go by.
    model = PeftModel.from_pretrained(model, out / name).eval()
    golden = read(out / name / "golden.safetensors")
    far = 0.0
    for prompt in PROMPTS:
        (_, ids), (shape, logits) = golden[f"{prompt}/input_ids"], golden[f"{prompt}/logits"]
        with torch.no_grad():
            # The whole model asks for what it saw of images, even where there are none.
            inner = model.base_model.model
            inner = getattr(inner, "language_model", inner)
            got = inner(input_ids=torch.tensor([ids]), use_cache=False).logits[0].tolist()
        far = max(far, furthest(got, rows(logits, shape[-1])))
    print(f"{name}: {far:.1e} from PEFT")
    if far > 2 * TOLERANCE:
        raise SystemExit(f"{name}: not what PEFT computes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = pathlib.Path(__file__).resolve().parent.parent / "tests/data"
    parser.add_argument("--toys", type=pathlib.Path, default=data / "toy")
    parser.add_argument("--out", type=pathlib.Path, default=data / "lora")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--peft", action="store_true")
    args = parser.parse_args()
    for name in args.cases.split(","):
        (check_peft if args.peft else make)(name, args.toys, args.out)


if __name__ == "__main__":
    main()
