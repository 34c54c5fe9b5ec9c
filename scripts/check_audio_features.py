#!/usr/bin/env python3
"""Compares samples and log-mel features of real recordings with independent implementations.

usage: target/venv/bin/python scripts/check_audio_features.py FILE_OR_FOLDER... [--count 100] [--mels 128]
           [--program target/release/examples/log_mel]

needs: python3 -m venv target/venv && target/venv/bin/pip install numpy scipy soundfile transformers
       cargo build --release -p engine --example log_mel

Each recording is written as a 16-bit WAV at 8, 16, 22.05, 44.1 and 48 kHz, converted by scipy's polyphase resampler, and
once as FLAC at its own rate.  Of every file are compared
  samples    with the formulas of the windowed-sinc resampler in numpy f64, applied to the file's integers
  features   with transformers' WhisperFeatureExtractor on those samples
"""
import argparse
import fractions
import math
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
import scipy.signal
import soundfile
from transformers import WhisperFeatureExtractor

RATE = 16000
RATES = (8000, 16000, 22050, 44100, 48000)
# The specification's bounds: samples as f32, features against a library.
SAMPLES, FEATURES = 1e-5, 2e-4


def recordings(paths, folder):
    """Audio files among `paths`, archives unpacked into `folder`."""
    for path in paths:
        if path.is_dir():
            yield from recordings(sorted(path.iterdir()), folder)
        elif path.name.endswith((".tar", ".tar.gz")):
            into = folder / path.name
            tarfile.open(path).extractall(into, filter="data")
            yield from sorted(p for p in into.rglob("*") if p.suffix in (".wav", ".flac"))
        elif path.suffix in (".wav", ".flac"):
            yield path


def resample(x, rate):
    divisor = math.gcd(rate, RATE)
    orig, new = rate // divisor, RATE // divisor
    if orig == new:
        return x
    base = min(orig, new) * 0.99
    width = math.ceil(6 * orig / base)
    n_out = math.ceil(new * len(x) / orig)
    n_blocks = math.ceil(n_out / new)
    padded = np.concatenate([np.zeros(width), x, np.zeros(width + orig * 2)])
    taps = 2 * width + orig
    out = np.zeros((n_blocks, new))
    starts = np.lib.stride_tricks.sliding_window_view(padded, taps)[::orig][:n_blocks]
    for phase in range(new):
        t = np.clip(((np.arange(taps) - width) / orig - phase / new) * base, -6, 6)
        out[: len(starts), phase] = starts @ (np.sinc(t) * np.cos(np.pi * t / 12) ** 2 * base / orig)
    return out.reshape(-1)[:n_out]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", type=pathlib.Path, nargs="+")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--mels", type=int, default=128)
    parser.add_argument("--program", type=pathlib.Path, default=pathlib.Path("target/release/examples/log_mel"))
    options = parser.parse_args()
    extractor = WhisperFeatureExtractor(feature_size=options.mels)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        found = list(recordings(options.paths, folder))
        places = np.linspace(0, len(found) - 1, min(options.count, len(found)))
        chosen = [found[int(place)] for place in places]
        print(f"{len(chosen)} of {len(found)} recordings")
        files = []
        for i, path in enumerate(chosen):
            sound, own = soundfile.read(path, dtype="float64")
            for rate in RATES:
                ratio = fractions.Fraction(rate, own)
                x = sound if rate == own else scipy.signal.resample_poly(sound, ratio.numerator, ratio.denominator)
                name = folder / f"{i}_{rate}.wav"
                soundfile.write(name, np.clip(x, -1, 1), rate, subtype="PCM_16")
                files.append((f"WAV {rate}", name))
            name = folder / f"{i}_own.flac"
            soundfile.write(name, sound, own, subtype="PCM_16")
            files.append((f"FLAC {own}", name))
        out = folder / "out"
        out.mkdir()
        command = [options.program, out, str(options.mels), *(name for _, name in files)]
        lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
        worst = {}
        for (kind, name), line in zip(files, lines, strict=True):
            i, n, n_valid, n_frames, silence, decode_ms, mel_ms = (float(word) for word in line.split())
            stored, rate = soundfile.read(name, dtype="int16")
            want = resample(stored.astype(np.float64) / 32768, rate)
            got = np.fromfile(out / f"{int(i)}.samples", dtype="<f4")
            assert got.shape == want.shape == (int(n),), name
            mel = np.fromfile(out / f"{int(i)}.mel", dtype="<f4").reshape(options.mels, int(n_frames))
            library = extractor(want.astype(np.float32), sampling_rate=RATE, return_tensors="np")["input_features"][0]
            assert n <= 30 * RATE, f"{name} is longer than a chunk"
            whole = np.full_like(library, np.float32(silence))
            whole[:, : mel.shape[1]] = mel
            assert n_valid == math.ceil(n / 160), name
            row = worst.setdefault(kind, [0, 0.0, 0.0, 0.0, 0.0])
            row[0] += 1
            row[1] = max(row[1], float(np.abs(got - want).max()))
            row[2] = max(row[2], float(np.abs(whole - library).max()))
            row[3] += n / RATE
            row[4] += decode_ms + mel_ms
    failed = False
    print(f"{'file':12} {'count':>5} {'samples':>9} {'features':>9} {'seconds':>8} {'ms a second':>11}")
    for kind, (count, samples, features, seconds, ms) in sorted(worst.items()):
        print(f"{kind:12} {count:5} {samples:9.2e} {features:9.2e} {seconds:8.1f} {ms / seconds:11.3f}")
        failed |= samples > SAMPLES or features > FEATURES
    sys.exit("above the bounds" if failed else 0)


if __name__ == "__main__":
    main()
