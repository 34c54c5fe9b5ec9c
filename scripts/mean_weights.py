#!/usr/bin/env python3
"""Writes the weighted mean of two models of one shape: often better than either, if one was trained further from the other.

usage: python scripts/mean_weights.py FIRST SECOND OUT [--share 0.5]

FIRST, SECOND and OUT are folders as `puna train` writes them; SHARE is the second's.  Needs torch, safetensors.
"""
import argparse
import pathlib
import shutil
import sys

from safetensors.torch import load_file, save_file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=pathlib.Path)
    parser.add_argument("second", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--share", type=float, default=0.5)
    args = parser.parse_args()
    shutil.copytree(args.first, args.out)
    for file in args.first.glob("*.safetensors"):
        first, second = load_file(file), load_file(args.second / file.name)
        if {name: x.shape for name, x in first.items()} != {name: x.shape for name, x in second.items()}:
            sys.exit(f"error: {file.name} has other tensors in {args.second} than in {args.first}")
        mean = {name: ((1 - args.share) * x.float() + args.share * second[name].float()).to(x.dtype) for name, x in first.items()}
        save_file(mean, args.out / file.name, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
