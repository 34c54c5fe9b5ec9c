#!/usr/bin/env python3
"""Builds what the audio tests of the engine compare with: features, and the same sound in every kind of file.

usage: python scripts/make_audio_goldens.py [--out crates/engine/tests/data/audio]

needs: python3 -m venv target/venv && target/venv/bin/pip install numpy transformers imageio-ffmpeg
       target/venv/bin/python scripts/make_audio_goldens.py

golden.safetensors
  wave/<name>                 samples, f32
  mel/<name>/<variant>        features [M, frames] by the formulas in f64, rounded to f32
  mel/a/chunk128/library      what transformers' WhisperFeatureExtractor gives
  filters/<M>                 the weights above 1e-12, in the order of [201, M]
  resample/<rate>/in, out     a windowed-sinc filter applied in f64
  decoded/<file>              every 16th sample of what ffmpeg decodes, averaged and resampled by the formulas
  lengths                     rows of samples, stack, mode (0 valid, 1 chunk), mel frames, encoder frames, tokens; as f64
tone_16k.*, tone_44k.*        half a second of sines in FLAC, MP3, Ogg Vorbis and AAC; the test has the formula
pulses.wav, alaw.wav, mulaw.wav, s24.wav, f64.wav, ext.wav, stream.wav   what ffmpeg writes

Every number is asserted to agree between the formulas here and the library before it is written.
"""
import argparse
import json
import math
import pathlib
import struct
import subprocess

import imageio_ffmpeg
import numpy as np
from transformers import WhisperFeatureExtractor

RATE, HOP, LEN = 16000, 160, 400


def noise(n, seed):
    """Uniform from -1 to 1, from a linear congruential generator of 32 bits."""
    out, x = np.empty(n), seed
    for i in range(n):
        x = (1664525 * x + 1013904223) % (1 << 32)
        out[i] = x / (1 << 31) - 1.0
    return out


def wave(n, seed):
    """A falling chirp, a hum, noise, and a part of pure silence."""
    t = np.arange(n) / RATE
    x = 0.4 * np.sin(2 * np.pi * (3500 * t - 4000 * t * t)) + 0.1 * np.sin(2 * np.pi * 120 * t) + 0.02 * noise(n, seed)
    x[n // 2 : n // 2 + 900] = 0.0
    return x.astype(np.float32)


def filters(n_mels):
    step = math.log(6.4) / 27
    hz = lambda mel: 1000 * math.exp((mel - 15) * step) if mel >= 15 else 200 * mel / 3
    top = 15 + math.log(8) / step
    edges = [hz(top * i / (n_mels + 1)) for i in range(n_mels + 2)]
    out = np.zeros((201, n_mels))
    for mel in range(n_mels):
        low, middle, high = edges[mel : mel + 3]
        for b in range(201):
            side = min((40.0 * b - low) / (middle - low), (high - 40.0 * b) / (high - middle))
            out[b, mel] = max(0.0, side) * 2 / (high - low)
    return out


def features(x, padded_len, n_mels, top=None):
    x = np.concatenate([x.astype(np.float64), np.zeros(padded_len - len(x))])
    at = lambda i: x[-i] if i < 0 else x[2 * (padded_len - 1) - i] if i >= padded_len else x[i]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(LEN) / LEN)
    logs = []
    for t in range(padded_len // HOP):
        frame = np.array([at(i) for i in range(HOP * t - 200, HOP * t + 200)]) * window
        power = np.abs(np.fft.rfft(frame)) ** 2
        logs.append(np.log10(np.maximum(power @ filters_of(n_mels), 1e-10)))
    logs = np.array(logs).T
    top = logs.max() if top is None else top
    return (np.maximum(logs, top - 8) + 4) / 4


def filters_of(n_mels, made={}):
    if n_mels not in made:
        made[n_mels] = filters(n_mels)
    return made[n_mels]


def resample(x, rate):
    divisor = math.gcd(rate, RATE)
    orig, new = rate // divisor, RATE // divisor
    base = min(orig, new) * 0.99
    width = math.ceil(6 * orig / base)
    padded = np.concatenate([np.zeros(width), x.astype(np.float64), np.zeros(width + orig)])
    out = []
    for o in range(math.ceil(new * len(x) / orig)):
        block, phase = divmod(o, new)
        t = ((np.arange(2 * width + orig) - width) / orig - phase / new) * base
        t = np.clip(t, -6, 6)
        taps = np.sinc(t) * np.cos(np.pi * t / 12) ** 2 * base / orig
        out.append(padded[block * orig : block * orig + len(taps)] @ taps[: len(padded) - block * orig])
    return np.array(out)


def lengths():
    rows = []
    for n in [1, 160, 161, 320, 321, 1280, 7999, 16000, 53921, 479999, 480000, 480001, 480161, 960000, 1234567]:
        for stack in (1, 4, 8):
            for mode in (0, 1):
                mel = math.ceil(n / HOP)
                parts = [min(3000, mel - begin) for begin in range(0, mel, 3000)]
                frames = [1500 if mode else (part - 1) // 2 + 1 for part in parts]
                rows.append([n, stack, mode, mel, sum(frames), sum(math.ceil(f / stack) for f in frames)])
    return np.array(rows, dtype=np.float64)


def save(path, tensors):
    header, body = {}, b""
    for name, x in tensors.items():
        kind = {"float32": "F32", "float64": "F64"}[str(x.dtype)]
        data = np.ascontiguousarray(x).tobytes()
        header[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def numbers():
    out = {}
    extractor = {m: WhisperFeatureExtractor(feature_size=m, chunk_length=1) for m in (80, 128)}
    clips = {"a": wave(6301, 1), "b": wave(16000, 2)[:3200], "c": wave(100, 3), "zero": np.zeros(700, np.float32)}
    for name, x in clips.items():
        out[f"wave/{name}"] = x
        for m in (80, 128) if name == "a" else (80,):
            want = features(x, RATE, m)
            got = extractor[m](x, sampling_rate=RATE, return_tensors="np")["input_features"][0]
            assert got.shape == want.shape == (m, 100)
            print(f"{name} chunk {m}: formulas and library differ by {np.abs(got - want).max():.2e}")
            assert np.abs(got - want).max() < 2e-4
            n = min(100, math.ceil(len(x) / HOP) + 3)
            out[f"mel/{name}/chunk{m}"] = want[:, :n].astype(np.float32)
            if m == 128:
                out[f"mel/{name}/chunk{m}/library"] = got[:, :n].astype(np.float32)
    x = clips["a"]
    padded = math.ceil(len(x) / HOP) * HOP
    got = extractor[80](x, sampling_rate=RATE, padding="longest", pad_to_multiple_of=HOP, truncation=False, return_tensors="np")
    want = features(x, padded, 80)
    assert np.abs(got["input_features"][0] - want).max() < 2e-4
    out["mel/a/hop80"] = want.astype(np.float32)
    out["mel/a/fixed80"] = features(x, padded, 80, top=1.5).astype(np.float32)
    # Whole frames, so that the last windows are mirrored at a sample.
    out["mel/b/hop80"] = features(clips["b"], len(clips["b"]), 80).astype(np.float32)
    for m in (1, 2, 13, 80, 128):
        weights = filters(m)
        if m in extractor:
            assert np.abs(weights - extractor[m].mel_filters).max() < 1e-12
        out[f"filters/{m}"] = weights[weights > 1e-12]
    for rate in (8000, 11025, 22050, 44100, 48000, 96000):
        x = wave(rate // 50 + 7, 5)
        out[f"resample/{rate}/in"], out[f"resample/{rate}/out"] = x, resample(x, rate).astype(np.float32)
    out["lengths"] = lengths()
    return out


def ffmpeg(*arguments, given=None):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-fflags", "+bitexact", *arguments]
    subprocess.run(command, input=given, check=True)


def files(out):
    decoded = {}
    for rate, n_channels, label in ((16000, 1, "16k"), (44100, 2, "44k")):
        t = np.arange(rate // 2) / rate
        left = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 1000 * t)
        right = 0.2 * np.sin(2 * np.pi * 660 * t)
        sound = np.stack([left, right][:n_channels], axis=1)
        given = np.round(sound * 32767).astype("<i2").tobytes()
        source = ["-f", "s16le", "-ar", str(rate), "-ac", str(n_channels), "-i", "-"]
        clean = ["-map_metadata", "-1", "-flags", "+bitexact", "-fflags", "+bitexact"]
        for kind, options in {
            "flac": [],
            "mp3": ["-c:a", "libmp3lame", "-b:a", "48k" if n_channels == 1 else "64k"],
            "ogg": ["-c:a", "libvorbis", "-q:a", "2"],
            "m4a": ["-c:a", "aac", "-b:a", "48k" if n_channels == 1 else "64k"],
        }.items():
            path = out / f"tone_{label}.{kind}"
            ffmpeg(*source, *options, *clean, str(path), given=given)
            command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "f32le", "-"]
            pcm = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, dtype="<f4")
            pcm = pcm.reshape(-1, n_channels).astype(np.float64).mean(axis=1)
            # Of Vorbis it loses some at one end or gives more; the test does not look at the ends.
            missing = np.zeros(max(0, rate // 2 - len(pcm)))
            fits = [np.concatenate(parts)[: rate // 2] for parts in ([pcm, missing], [missing, pcm])]
            pcm = min(fits, key=lambda fit: np.abs(fit - sound.mean(axis=1))[1000:-1000].max())
            decoded[f"decoded/{path.name}"] = (resample(pcm, rate) if rate != RATE else pcm)[::16].astype(np.float32)
    pulse = np.array([0, 1, -1, 100, -100, 12345, -12345, 32767, -32768, 5] * 8, dtype="<i2").tobytes()
    source = ["-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "-"]
    for name, options in {
        "pulses": ["-c:a", "pcm_s16le"],
        "alaw": ["-c:a", "pcm_alaw"],
        "mulaw": ["-c:a", "pcm_mulaw"],
        "s24": ["-c:a", "pcm_s24le"],
        "s32": ["-c:a", "pcm_s32le"],
        "u8": ["-c:a", "pcm_u8"],
        "f32": ["-c:a", "pcm_f32le"],
        "f64": ["-c:a", "pcm_f64le"],
        "rf64": ["-c:a", "pcm_s16le", "-rf64", "always"],
    }.items():
        ffmpeg(*source, *options, "-flags", "+bitexact", str(out / f"{name}.wav"), given=pulse)
        # What ffmpeg makes of it, for the companded forms.
        if name in ("alaw", "mulaw"):
            ffmpeg("-i", str(out / f"{name}.wav"), "-c:a", "pcm_s16le", "-flags", "+bitexact", str(out / f"{name}_expanded.wav"))
    # Three channels in an extensible header, and a stream whose sizes were never written.
    ffmpeg("-f", "s16le", "-ar", "16000", "-ac", "5", "-i", "-", "-c:a", "pcm_s24le", "-flags", "+bitexact", str(out / "ext.wav"), given=pulse)
    with open(out / "stream.wav", "wb") as to:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, "-f", "wav", "-flags", "+bitexact", "-"]
        subprocess.run(command, input=pulse, stdout=to, check=True)
    return decoded


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("crates/engine/tests/data/audio"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    save(out / "golden.safetensors", {**numbers(), **files(out)})
    for path in sorted(out.iterdir()):
        print(path.stat().st_size, path.name)


if __name__ == "__main__":
    main()
