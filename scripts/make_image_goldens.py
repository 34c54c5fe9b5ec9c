#!/usr/bin/env python3
"""Makes the images in crates/engine/tests/data/images and what the reference processor makes of them.

Needs: pip install torch torchvision transformers pillow numpy (made with transformers 5.23, torch 2.15, pillow 13.0, on
a machine with AVX2, where torch resizes 8-bit images in fixed point).

    scripts/make_image_goldens.py            writes the images and expected.tsv
    scripts/make_image_goldens.py FILE ...   prints the lines of expected.tsv for other files

A line of expected.tsv: file, height and width after turning, rows and columns of tiles, largest and mean difference
allowed, FNV-1a over all bytes, the bytes at 512 places in hexadecimal. The bytes are the reference's tiles before
rescaling, [tiles, 3, 336, 336]; place i is (i · 2654435761 + 12345) mod the number of bytes. Lossless files allow no
difference, so their hash must be equal too.
"""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from transformers.models.llama4.image_processing_llama4 import Llama4ImageProcessor

FOLDER = Path(__file__).resolve().parent.parent / "crates/engine/tests/data/images"
N_SAMPLES = 512
# Decoders of lossy formats may round differently. An inverse transform may be off by 1 in each component (IEEE 1180),
# chroma upsampling by 1 more, and blue takes 1.772 times the chroma: 1 + 1.772 · 2, rounded up. Averages stay below 1.
LOSSY = (5, 1.0)
# Where the last block of halved chroma is not full, libjpeg repeats its last visible sample and others take the hidden
# one behind it, with a weight of 1/4: up to 255 / 4 · 1.772 more in the last row and column, which the average bounds.
# All other lossy images are whole blocks of 16.
ODD_EDGES = (118, 1.0)
EXACT = (0, 0.0)


def picture(height, width, channels, seed, depth=8):
    """Smooth shades, a few hard-edged rectangles, a little noise: [height, width, channels]."""
    rng = np.random.default_rng(seed)
    top = 2**depth - 1
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / max(height - 1, 1), x / max(width - 1, 1)
    out = np.empty((height, width, channels))
    for channel in range(channels):
        a, b, c = rng.uniform(0.5, 4.0, 3)
        out[..., channel] = 0.5 + 0.25 * np.sin(a * 3 * x + c) + 0.25 * np.cos(b * 3 * y - c)
    for _ in range(6):
        y0, x0 = rng.integers(0, height), rng.integers(0, width)
        y1, x1 = y0 + rng.integers(1, height // 3 + 2), x0 + rng.integers(1, width // 3 + 2)
        out[y0:y1, x0:x1] = rng.uniform(0, 1, channels)
    out += rng.normal(0, 0.004, out.shape)
    return (out.clip(0, 1) * top).round().astype(np.uint16 if depth == 16 else np.uint8)


def png(array, color, depth=8, interlaced=False, before=(), after=()):
    """A PNG of [height, width, channels] as Pillow cannot write it: 16 bits, Adam7, chunks behind the pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def rows(part):
        part = part.astype(">u2") if depth == 16 else part
        return b"".join(b"\0" + row.tobytes() for row in part) if part.size else b""

    height, width = array.shape[:2]
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = passes if interlaced else [(0, 0, 1, 1)]
    pixels = b"".join(rows(array[y0::dy, x0::dx]) for y0, x0, dy, dx in passes)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header)]
        + [chunk(*c) for c in before]
        + [chunk(b"IDAT", zlib.compress(pixels, 9))]
        + [chunk(*c) for c in after]
        + [chunk(b"IEND", b"")]
    )


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def ycck(height, width, seed):
    """A CMYK JPEG whose Adobe mark says that its first three channels are YCbCr."""
    ycc = np.asarray(Image.fromarray(picture(height, width, 3, seed)).convert("YCbCr"))
    black = picture(height, width, 1, seed + 1) // 2 + 127
    # Pillow inverts what it writes.
    inverted = Image.fromarray(255 - np.concatenate([ycc, black], -1), "CMYK")
    data = bytearray(saved(inverted, "JPEG", quality=90))
    mark = data.index(b"Adobe") + 11
    assert data[mark] == 0
    data[mark] = 2
    return bytes(data)


def images():
    """File name and bytes of each image."""
    rgb = lambda h, w, seed: Image.fromarray(picture(h, w, 3, seed))
    yield "rgb.png", saved(rgb(375, 500, 1), "PNG", optimize=True)
    yield "rgba.png", saved(Image.fromarray(picture(90, 160, 4, 2)), "PNG", optimize=True)
    palette = rgb(90, 120, 3).quantize(16)
    yield "palette.png", saved(palette, "PNG")
    yield "palette_trns.png", saved(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    yield "gray.png", saved(Image.fromarray(picture(64, 80, 1, 4)[..., 0]), "PNG")
    yield "gray_trns.png", saved(Image.fromarray(picture(64, 80, 1, 4)[..., 0] // 32 * 32), "PNG", transparency=96)
    yield "gray_alpha.png", saved(Image.fromarray(picture(70, 50, 2, 5), "LA"), "PNG")
    yield "one_bit.png", saved(rgb(130, 77, 6).convert("1"), "PNG")
    yield "four_bit.png", saved(rgb(40, 41, 7).quantize(9), "PNG", bits=4)
    flat = rgb(40, 60, 8).quantize(8).convert("RGB")
    yield "rgb_trns.png", saved(flat, "PNG", transparency=flat.getpixel((5, 5)))
    yield "interlaced.png", png(picture(61, 83, 3, 9), 2, interlaced=True)
    yield "gray16.png", png(picture(40, 50, 1, 10, 16), 0, 16)
    yield "gray_alpha16.png", png(picture(40, 50, 2, 11, 16), 4, 16)
    yield "rgb16.png", png(picture(60, 50, 3, 12, 16), 2, 16)
    yield "rgba16_interlaced.png", png(picture(45, 50, 4, 13, 16), 6, 16, interlaced=True)
    for name, place in (("exif_before.png", "before"), ("exif_after.png", "after")):
        block = exif(6).removeprefix(b"Exif\0\0")
        yield name, png(picture(30, 40, 3, 14), 2, **{place: [(b"eXIf", block)]})
    yield "one_pixel.png", saved(rgb(1, 1, 15), "PNG")
    yield "wide.png", saved(rgb(14, 700, 16), "PNG")
    yield "tall.png", saved(rgb(701, 15, 17), "PNG")
    yield "baseline.jpg", saved(rgb(304, 400, 18), "JPEG", quality=85)
    yield "odd_edges.jpg", saved(rgb(61, 83, 38), "JPEG", quality=85)
    yield "full_chroma.jpg", saved(rgb(101, 99, 19), "JPEG", quality=95, subsampling="4:4:4")
    yield "half_chroma.jpg", saved(rgb(96, 208, 20), "JPEG", quality=90, subsampling="4:2:2")
    yield "restarts.jpg", saved(rgb(128, 96, 21), "JPEG", quality=80, restart_marker_rows=1)
    yield "progressive.jpg", saved(rgb(352, 256, 22), "JPEG", quality=80, progressive=True)
    yield "gray.jpg", saved(Image.fromarray(picture(99, 150, 1, 23)[..., 0]), "JPEG", quality=85)
    yield "cmyk.jpg", saved(Image.fromarray(picture(120, 100, 4, 24), "CMYK"), "JPEG", quality=90)
    yield "ycck.jpg", ycck(100, 130, 25)
    yield "large.jpg", saved(rgb(1504, 2000, 27), "JPEG", quality=60)
    for orientation in range(1, 9):
        yield f"exif_{orientation}.jpg", saved(rgb(32, 48, 28), "JPEG", quality=85, exif=exif(orientation))
    yield "lossy.webp", saved(rgb(352, 240, 29), "WEBP", quality=80)
    yield "lossless.webp", saved(rgb(90, 110, 30), "WEBP", lossless=True)
    yield "alpha.webp", saved(Image.fromarray(picture(80, 90, 4, 31)), "WEBP", quality=80)
    yield "lossless_alpha.webp", saved(Image.fromarray(picture(60, 50, 4, 32)), "WEBP", lossless=True, exact=True)
    yield "exif.webp", saved(rgb(40, 30, 33), "WEBP", lossless=True, exif=exif(8))
    frames = [rgb(50, 70, seed) for seed in (34, 35, 36)]
    yield "animated.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    frames = [frame.quantize(32) for frame in frames]
    yield "animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=3, disposal=2)
    yield "still.gif", saved(rgb(345, 120, 37).quantize(64), "GIF")


def opened(path):
    """The image as the reference would be given it: turned, and 16-bit grey cut to its upper bits, where Pillow's own
    conversion would clip at 255."""
    image = Image.open(path)
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return ImageOps.exif_transpose(image)


def line(path, processor):
    image = opened(path)
    out = processor(images=image, return_tensors="pt")
    tiles = out["pixel_values"].numpy()
    assert tiles.dtype == np.uint8 and tiles.shape[1:] == (3, 336, 336), (tiles.dtype, tiles.shape)
    flat = tiles.reshape(-1)
    digest = 0xCBF29CE484222325
    for byte in flat.tobytes():
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    samples = flat[(np.arange(N_SAMPLES, dtype=np.uint64) * 2654435761 + 12345) % flat.size]
    name = Path(path).name
    lossy = name.endswith((".jpg", ".jpeg")) or name in ("lossy.webp", "alpha.webp")
    largest, mean = ODD_EDGES if name == "odd_edges.jpg" else LOSSY if lossy else EXACT
    rows, cols = out["aspect_ratios"][0].tolist()
    fields = [name, image.height, image.width, rows, cols, largest, mean, f"{digest:016x}"]
    return "\t".join(map(str, fields + [samples.tobytes().hex()]))


def main():
    processor = Llama4ImageProcessor(do_rescale=False, do_normalize=False)
    if sys.argv[1:]:
        for path in sys.argv[1:]:
            print(line(path, processor))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = []
    for name, data in images():
        (FOLDER / name).write_bytes(data)
        names.append(name)
    lines = [line(FOLDER / name, processor) for name in names]
    (FOLDER / "expected.tsv").write_text("\n".join(lines) + "\n")
    total = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(f"{len(names)} images, {total} bytes in all")


if __name__ == "__main__":
    main()
