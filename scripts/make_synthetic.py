#!/usr/bin/env python3
"""Makes models of random weights to measure speed on, as GGUF files that Puna and llama.cpp read.

usage: make_synthetic.py FOLDER [--model scout4,nano,dense1b] [--format q4_0|q4_k_m] [--layers N] [--seed N]
                         [--puna PROGRAM | --no-check]

  scout4   four layers of Llama 4 Scout as they are (hidden 5120, 40 query and 8 key heads of 128, 16 experts of 8192,
           one chosen, and a shared expert of 8192; the fourth layer is unrotated), vocabulary of 32,000: 5 GB
  nano     eight layers of width 512 with 8 experts of 1024, one chosen, and a shared one, vocabulary of 8,192.  Eight, so
           that a token reads 20 MB: too much for a core's own cache, little enough for a third-level cache, which
           is where a model of this size lives, and long enough for the cost of a layer to show, not that of a step
  dense1b  a dense Llama of 1.1 billion: 22 layers of 2048, feed-forward 5632, 32 query heads on 4 key heads of 64

Formats of tensors are llama.cpp's own choice for the file type: q4_0 has the output in Q6_K; q4_k_m has v and down in
Q6_K, too, in its more sensitive layers; norms and routers stay f32.  Files are named FOLDER/MODEL.FORMAT.gguf.

Speed does not depend on what the weights say, but for one thing: a router of random numbers can send every token to one
expert, which flatters every engine: what all tokens share grows with every layer until routers see nothing else.  So
each map keeps the size of what goes through it; no weight has a mean, which would add the same direction to every token;
attention, whose average over all tokens is what they share, is written back at a quarter; and the router's rows are
orthogonal, equally long and without a mean.  That it worked is measured by `check_synthetic.py`, which runs the model in
Puna and fails where tokens do not spread; a file that fails is not left behind.

Needs numpy; at most 300 MB of memory.  The bytes depend on the arguments alone.
"""
import argparse
import dataclasses
import itertools
import math
import pathlib
import string
import struct
import sys
import zlib

import numpy

import check_synthetic

ALIGNMENT = 32
PIECE_BYTES = 32 << 20
# Of attention's way back into the residual stream.  At 1, routers of the eighth layer give experts 0.2 to 1.7 of an even share.
ATTENTION_SCALE = 0.25
NORMAL, CONTROL = 1, 3                                                  # tokenizer.ggml.token_type
CONTROL_TOKENS = ["<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>",
                  "<|python_start|>", "<|python_end|>"]
# Llama 4 Scout's `rope_freqs.weight`: which of its 64 pairs turn 16 times slower.
SCOUT_DIVISORS = [1.0] * 35 + [16.0] * 29


@dataclasses.dataclass(frozen=True)
class Model:
    """A model's shape.  `n_experts` 0 is a dense model of the architecture `llama`."""
    n_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_len: int
    ffn: int
    n_experts: int
    n_vocab: int
    divisors: tuple = ()

    @property
    def architecture(self):
        return "llama4" if self.n_experts else "llama"


MODELS = {
    "scout4": Model(4, 5120, 40, 8, 128, 8192, 16, 32000, tuple(SCOUT_DIVISORS)),
    "nano": Model(8, 512, 8, 4, 64, 1024, 8, 8192),
    "dense1b": Model(22, 2048, 32, 4, 64, 5632, 0, 32000),
}


class Random:
    """A stream of random bytes and signs, the fastest that numpy has."""

    def __init__(self, seed, name):
        self.bits = numpy.random.SFC64([seed, zlib.crc32(name.encode())])
        self.floats = numpy.random.Generator(self.bits)

    def bytes(self, *shape):
        n = math.prod(shape)
        return self.bits.random_raw(-(-n // 8)).view(numpy.uint8)[:n].reshape(shape)

    def scales(self, *shape, signed=True):
        """Around 1, their mean square exactly 1 on average; half of them negative, so that nothing has a mean."""
        size = self.floats.random(shape, dtype=numpy.float32) + numpy.float32(0.5)
        size *= numpy.float32(1 / math.sqrt(13 / 12))                   # the mean square of 0.5 to 1.5
        return numpy.where(self.bytes(*shape) & 1, -size, size) if signed else size


def f16(values):
    """Little-endian bytes, one more dimension."""
    return values.astype("<f2")[..., None].view(numpy.uint8)


def q4_0(random, n_blocks, std):
    """d · (q − 8) with q from 0 to 15."""
    blocks = numpy.empty((n_blocks, 18), numpy.uint8)
    blocks[:, 2:] = random.bytes(n_blocks, 16)
    rms = math.sqrt(numpy.mean((numpy.arange(16) - 8.0) ** 2))
    blocks[:, :2] = f16(random.scales(n_blocks) * (std / rms))
    return blocks


def q4_k(random, n_blocks, std):
    """d · s · q − dmin · m over 8 blocks of 32; dmin · m is 7.5 · d · s, so that the mean is 0."""
    blocks = numpy.empty((n_blocks, 144), numpy.uint8)
    blocks[:, 16:] = random.bytes(n_blocks, 128)
    scale = 24 + (random.bytes(n_blocks, 8) & 31)                       # s and m alike, of 0 to 63
    rms = math.sqrt(numpy.mean((numpy.arange(16) - 7.5) ** 2) * numpy.mean((24.0 + numpy.arange(32)) ** 2))
    d = random.scales(n_blocks, signed=False) * (std / rms)
    blocks[:, 0:2], blocks[:, 2:4] = f16(d), f16(d * 7.5)
    low, high = scale[:, :4], scale[:, 4:]
    blocks[:, 4:8] = blocks[:, 8:12] = low | (high >> 4) << 6
    blocks[:, 12:16] = (high & 15) | (high & 15) << 4
    return blocks


def q6_k(random, n_blocks, std):
    """d · s · (q − 32) over 16 blocks of 16, with q from 0 to 63 and s a signed byte."""
    blocks = numpy.empty((n_blocks, 210), numpy.uint8)
    blocks[:, :192] = random.bytes(n_blocks, 192)
    bits = random.bytes(n_blocks, 16)
    size = 64 + (bits & 63)
    blocks[:, 192:208] = numpy.where(bits & 128, ~size + 1, size)       # two's complement
    rms = math.sqrt(numpy.mean((numpy.arange(64) - 32.0) ** 2) * numpy.mean((64.0 + numpy.arange(64)) ** 2))
    blocks[:, 208:] = f16(random.scales(n_blocks, signed=False) * (std / rms))
    return blocks


# name: (GGUF's number of the type, values and bytes of a block, who fills blocks)
FORMATS = {"f32": (0, 1, 4, None), "q4_0": (2, 32, 18, q4_0), "q4_k": (12, 256, 144, q4_k), "q6_k": (14, 256, 210, q6_k)}
# name: (general.file_type, what llama-quantize names it)
FILE_TYPES = {"q4_0": (2, "Q4_0"), "q4_k_m": (15, "Q4_K_M")}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor to write: its name, its shape with the outputs first, its format; `values` where it is not random."""
    name: str
    shape: tuple
    format: str
    scale: float = 1.0
    values: numpy.ndarray | None = None

    @property
    def n_bytes(self):
        _, block_len, block_bytes, _ = FORMATS[self.format]
        assert self.shape[-1] % block_len == 0, f"{self.name}: {self.shape[-1]} values are not whole blocks"
        return math.prod(self.shape) // block_len * block_bytes

    def pieces(self, seed):
        """Its bytes, a piece at a time.  The weights' deviation is 1/√K: what comes out is as large as what goes in."""
        if self.values is not None:
            yield self.values.astype("<f4").tobytes()
            return
        _, _, block_bytes, fill = FORMATS[self.format]
        random = Random(seed, self.name)
        std = 1.0 if self.name == "token_embd.weight" else self.scale / math.sqrt(self.shape[-1])
        left = self.n_bytes // block_bytes
        while left:
            n_blocks = min(left, PIECE_BYTES // block_bytes)
            yield fill(random, n_blocks, std).data
            left -= n_blocks


def router(model, seed, name):
    """Orthogonal rows of length 1 without a mean: scores of deviation 1, no direction that all experts share."""
    rows = Random(seed, name).floats.standard_normal((model.hidden, model.n_experts + 1))
    rows[:, 0] = 1.0                                                    # the direction of the mean, dropped below
    return numpy.linalg.qr(rows)[0].T[1:]


def tensors(model, file_type, seed):
    """All tensors in the order of the file."""
    format = {"q4_0": "q4_0", "q4_k_m": "q4_k"}[file_type]
    ones = numpy.ones(model.hidden)
    q, kv = model.n_heads * model.head_len, model.n_kv_heads * model.head_len
    yield Tensor("token_embd.weight", (model.n_vocab, model.hidden), format)
    yield Tensor("output_norm.weight", (model.hidden,), "f32", values=ones)
    yield Tensor("output.weight", (model.n_vocab, model.hidden), "q6_k")
    if model.divisors:
        yield Tensor("rope_freqs.weight", (len(model.divisors),), "f32",
                     values=numpy.array(model.divisors))
    for layer in range(model.n_layers):
        sensitive = "q6_k" if file_type == "q4_k_m" and more_bits(layer, model.n_layers) else format

        def tensor(name, *shape, format=format, **others):
            return Tensor(f"blk.{layer}.{name}.weight", shape, format, **others)

        yield tensor("attn_norm", model.hidden, format="f32", values=ones)
        yield tensor("attn_q", q, model.hidden)
        yield tensor("attn_k", kv, model.hidden)
        yield tensor("attn_v", kv, model.hidden, format=sensitive)
        yield tensor("attn_output", model.hidden, q, scale=ATTENTION_SCALE)
        yield tensor("ffn_norm", model.hidden, format="f32", values=ones)
        suffixes = [("_exps", (model.n_experts,)), ("_shexp", ())] if model.n_experts else [("", ())]
        if model.n_experts:
            name = f"blk.{layer}.ffn_gate_inp.weight"
            yield Tensor(name, (model.n_experts, model.hidden), "f32", values=router(model, seed, name))
        for suffix, experts in suffixes:
            yield tensor(f"ffn_gate{suffix}", *experts, model.ffn, model.hidden)
            yield tensor(f"ffn_up{suffix}", *experts, model.ffn, model.hidden)
            yield tensor(f"ffn_down{suffix}", *experts, model.hidden, model.ffn, format=sensitive)


def more_bits(layer, n_layers):
    """Which layers' v and down llama.cpp's file types with _M store finer: the outer eighths and every third."""
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def vocabulary(n_tokens):
    """Spellings, types and merges of a byte-level BPE: bytes, then letters joined into ever longer words."""
    # The characters that stand for bytes: printable ones for themselves, the others from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    chars = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    tokens = [chars[byte] for byte in range(256)]
    letters = string.ascii_lowercase
    pairs = [left + right for left, right in itertools.product(letters, letters)]
    longer = itertools.chain(itertools.product([chars[32]], letters), itertools.product(letters, letters),
                             itertools.product([chars[32]], pairs), itertools.product(pairs, letters),
                             itertools.product(pairs, pairs))
    joins = list(itertools.islice(longer, n_tokens - len(tokens) - len(CONTROL_TOKENS)))
    tokens += [left + right for left, right in joins] + CONTROL_TOKENS
    types = [NORMAL] * (n_tokens - len(CONTROL_TOKENS)) + [CONTROL] * len(CONTROL_TOKENS)
    return tokens, types, [f"{left} {right}" for left, right in joins]


def metadata(name, model, file_type):
    """The file's entries in order."""
    arch = model.architecture
    tokens, types, merges = vocabulary(model.n_vocab)
    entries = {
        "general.architecture": arch,
        "general.name": f"{name} (random weights)",
        "general.file_type": FILE_TYPES[file_type][0],
        "general.quantization_version": 2,
        f"{arch}.block_count": model.n_layers,
        f"{arch}.context_length": 131072,
        f"{arch}.embedding_length": model.hidden,
        f"{arch}.feed_forward_length": 2 * model.ffn if model.n_experts else model.ffn,
        f"{arch}.attention.head_count": model.n_heads,
        f"{arch}.attention.head_count_kv": model.n_kv_heads,
        f"{arch}.attention.key_length": model.head_len,
        f"{arch}.attention.value_length": model.head_len,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.rope.dimension_count": model.head_len,
        f"{arch}.rope.freq_base": 500000.0,
        f"{arch}.vocab_size": model.n_vocab,
    }
    if model.n_experts:
        entries |= {
            f"{arch}.expert_count": model.n_experts,
            f"{arch}.expert_used_count": 1,
            f"{arch}.expert_feed_forward_length": model.ffn,
            f"{arch}.interleave_moe_layer_step": 1,
        }
    return entries | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama4" if model.n_experts else "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokens.index("<|begin_of_text|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|end_of_text|>"),
        "tokenizer.ggml.eot_token_id": tokens.index("<|eot|>"),
        "tokenizer.ggml.eom_token_id": tokens.index("<|eom|>"),
        "tokenizer.ggml.add_bos_token": True,
    }


def string_bytes(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(value):
    """A metadata value: its type's number, then itself.  Integers are u32, in arrays i32; floats are f32."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + string_bytes(value)
    is_text = isinstance(value[0], str)
    items = b"".join(map(string_bytes, value)) if is_text else struct.pack(f"<{len(value)}i", *value)
    return struct.pack("<IIQ", 9, 8 if is_text else 5, len(value)) + items


def padding(n_bytes):
    return -n_bytes % ALIGNMENT


def write(path, entries, tensors, seed):
    """Writes a GGUF file of version 3."""
    header = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(entries))]
    header += [string_bytes(key) + value_bytes(value) for key, value in entries.items()]
    offset = 0
    for tensor in tensors:
        n_dims = len(tensor.shape)
        shape = struct.pack(f"<I{n_dims}Q", n_dims, *reversed(tensor.shape))        # GGUF names the rows' length first
        header.append(string_bytes(tensor.name) + shape + struct.pack("<IQ", FORMATS[tensor.format][0], offset))
        offset += tensor.n_bytes + padding(tensor.n_bytes)
    header = b"".join(header)
    with open(path, "wb") as file:
        file.write(header + bytes(padding(len(header))))
        for tensor in tensors:
            for piece in tensor.pieces(seed):
                file.write(piece)
            file.write(bytes(padding(tensor.n_bytes)))


def make(folder, name, arguments):
    """Writes and checks one model."""
    model = MODELS[name]
    if arguments.layers:
        model = dataclasses.replace(model, n_layers=arguments.layers)
    path = folder / f"{name}.{FILE_TYPES[arguments.format][1]}.gguf"
    part = path.with_suffix(".part")
    try:
        all_tensors = list(tensors(model, arguments.format, arguments.seed))
        write(part, metadata(name, model, arguments.format), all_tensors, arguments.seed)
        if model.n_experts and not arguments.no_check:
            # Named as it is, so that the check reads it as the kind of file that it will be.
            check = part.with_suffix(".check.gguf")
            part.rename(check)
            part = check
            check_synthetic.check_routing(check, arguments.puna)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB, {len(all_tensors)} tensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--model", default="scout4,nano,dense1b")
    parser.add_argument("--format", choices=FILE_TYPES, default="q4_0")
    parser.add_argument("--layers", type=int, help="another number of layers, for models of another size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--puna", default="target/release/puna", help="what checks the routing (default: %(default)s)")
    parser.add_argument("--no-check", action="store_true", help="leave the routing unchecked")
    arguments = parser.parse_args()
    names = arguments.model.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        parser.error(f"\"{unknown[0]}\" is no model; {', '.join(MODELS)} are")
    if arguments.layers is not None and not 1 <= arguments.layers <= 512:
        parser.error(f"--layers {arguments.layers} is not from 1 to 512")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in names:
            make(arguments.folder, name, arguments)
    except check_synthetic.Failed as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
