"""Writes crates/tensor/tests/data/quant_goldens.bin: random blocks of every quantised format with their values.

The values come from `gguf.quants.dequantize` (PyPI: gguf; the stored file is from 0.19.0), an implementation that
shares nothing with ours.

    python scripts/make_quant_goldens.py crates/tensor/tests/data/quant_goldens.bin

Layout, little-endian, one record a format until the end of the file: length of the name (u8), the name, the number of
values (u32), the number of bytes (u32), the bytes, the values (f32).
"""

import struct
import sys

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

SEED = 20250405
N_BLOCKS = 12
# Where each format keeps its f16 numbers. Everything else in a block may be any byte.
F16_OFFSETS = {
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def random_blocks(rng: np.random.Generator, name: str, n_bytes: int) -> np.ndarray:
    """Random bytes whose f16 numbers are finite: normal, subnormal, zero and negative ones."""
    blocks = rng.integers(0, 256, (N_BLOCKS, n_bytes), dtype=np.uint8)
    for at in F16_OFFSETS[name]:
        scales = (rng.standard_normal(N_BLOCKS) * 10.0 ** rng.uniform(-5, 1, N_BLOCKS)).astype(np.float16)
        scales[0] = 0.0
        scales[1] = 6e-8
        scales[2] = -65504.0
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(N_BLOCKS, 2)
    return blocks


def main(path: str) -> None:
    rng = np.random.default_rng(SEED)
    with open(path, "wb") as file:
        for name in F16_OFFSETS:
            kind = GGMLQuantizationType[name]
            block_len, block_bytes = GGML_QUANT_SIZES[kind]
            blocks = random_blocks(rng, name, block_bytes)
            values = dequantize(blocks, kind).astype("<f4").ravel()
            assert values.size == N_BLOCKS * block_len and np.isfinite(values).all(), name
            file.write(struct.pack("<B", len(name)) + name.encode())
            file.write(struct.pack("<II", values.size, blocks.size))
            file.write(blocks.tobytes() + values.tobytes())


if __name__ == "__main__":
    main(sys.argv[1])
