#!/usr/bin/env python3
"""Checks the models that make_synthetic.py makes: tokens spread over the experts, and Puna and llama.cpp agree.

usage: check_synthetic.py FILE.gguf ... [--puna PROGRAM] [--routing-only]

Routing: 1,024 pseudo-random tokens go through `puna trace`; for each layer the share of the tokens of every expert is
printed, and how many different experts 16 neighbouring tokens choose.  With an even spread a share is 1/E, give or take
√(E/1024) of itself (6 to 13 %), and 16 tokens choose E·(1 − (1 − 1/E)^16) experts: 10.3 of 16, 7.1 of 8.  It fails
where a share is under half or over twice 1/E, or the experts of 16 tokens are off by a tenth.

Agreement: 48 pseudo-random tokens, the logits after each, from both engines.  Rounding a block of inputs to eight bits
moves what a map gives by 0.55 % of its size (blocks of 32: the largest of 32 normal values is 2.4 deviations, a step is
2.4/127 of one, and its error's deviation a √12th; 0.7 % for the blocks of 256 that llama.cpp has for K-quants).  The
engines round independent values as soon as anything before was rounded, each layer has five such maps in its way
(q k v, o, gate and up, down, attention's values), and adding to the residual stream averages them; so the median
position may differ by 0.007·√(2·(5·layers + 1)) of the logits' size.  A near tie in a router sends a token elsewhere, from
where on it differs altogether.  The gap between the two best of E normal scores is about exponential with the rate
√(2·ln E), so with a difference of δ between the engines' scores' (√2 of it between gaps, 0.4 of that its mean positive part) a
layer turns √(2·ln E)·√2·0.4·δ of the tokens; δ is taken to be the median difference of the logits.  Three deviations more than
that may be elsewhere; in models that do not compute the same, all are.  Needs xllamacpp from the package index.
"""
import argparse
import json
import math
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy

N_ROUTED, N_COMPARED, TOGETHER = 1024, 48, 16


class Failed(Exception):
    """A check that did not hold, or could not be made."""


def read_safetensors(path):
    """Name to array, for f32 and i64."""
    raw = path.read_bytes()
    begin = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:begin])
    header.pop("__metadata__", None)
    dtype = {"F32": "<f4", "I64": "<i8"}
    return {name: numpy.frombuffer(raw, dtype[entry["dtype"]], math.prod(entry["shape"]),
                                   begin + entry["data_offsets"][0]).reshape(entry["shape"])
            for name, entry in header.items()}


def trace(puna, model, ids, only):
    """Tensors of one forward pass of `puna trace`."""
    program = shutil.which(puna)
    if program is None:
        raise Failed(f"no program \"{puna}\"\nhint:  cargo build --release, or name it with --puna")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "ids").write_text(" ".join(map(str, ids)))
        command = [program, "trace", model, "--ids-file", scratch / "ids", "--only", only, "--out", scratch / "out"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise Failed(f"puna trace {model}: {result.stderr.strip()}")
        return read_safetensors(scratch / "out")


def n_vocab(model):
    """Read from the file's own entry, so that no id is out of range."""
    with open(model, "rb") as file:
        head = file.read(4096)
    at = head.find(b".vocab_size")
    if head[:4] != b"GGUF" or at < 0:
        raise Failed(f"{model} is not one of make_synthetic.py's files")
    return struct.unpack_from("<I", head, at + len(b".vocab_size") + 4)[0]


def random_ids(model, n):
    return numpy.random.default_rng(7).integers(0, n_vocab(model), n).tolist()


def check_routing(model, puna):
    """Prints the shares of the experts of every layer; [`Failed`] where they are lopsided."""
    routers = trace(puna, model, random_ids(model, N_ROUTED), "layer.")
    routers = {name: x for name, x in routers.items() if name.endswith(".router_logits")}
    if not routers:
        print(f"{model}: no routers")
        return
    lopsided = []
    for layer in sorted(routers, key=lambda name: int(name.split(".")[1])):
        scores = routers[layer]
        n_experts = scores.shape[1]
        chosen = scores.argmax(axis=1)
        share = numpy.bincount(chosen, minlength=n_experts) / len(chosen) * n_experts
        together = numpy.mean([len(set(group)) for group in chosen.reshape(-1, TOGETHER)])
        even = n_experts * (1 - (1 - 1 / n_experts) ** TOGETHER)
        print(f"{layer}: {' '.join(f'{s:.2f}' for s in share)} of 1/{n_experts}; "
              f"{together:.1f} experts in {TOGETHER} tokens, {even:.1f} if even")
        if not numpy.isfinite(scores).all() or share.min() < 0.5 or share.max() > 2 or together < 0.9 * even:
            lopsided.append(layer)
    if lopsided:
        raise Failed(f"{model}: tokens do not spread over the experts of {', '.join(lopsided)}\n"
                     "hint:  another --seed, or a gentler router in make_synthetic.py")


def check_agreement(model, puna):
    """Prints how far the engines are apart; [`Failed`] where that is more than rounding explains."""
    import llama_cpp_peer
    ids = random_ids(model, N_COMPARED)
    # One forward for the depth, too: each layer has one `out`.
    seen = trace(puna, model, ids, "layer.,logits")
    n_layers = sum(name.startswith("layer.") and name.endswith(".out") for name in seen)
    n_experts = [x.shape[1] for name, x in seen.items() if name.endswith(".router_logits")]
    ours = seen["logits"][0]
    peer = llama_cpp_peer.LlamaCpp(model)
    theirs = peer.logits(ids)
    peer.close()
    if not (numpy.isfinite(ours).all() and numpy.isfinite(theirs).all()):
        raise Failed(f"{model}: logits that are not finite")
    apart = numpy.linalg.norm(ours - theirs, axis=1) / numpy.linalg.norm(theirs, axis=1)
    bar = 0.007 * math.sqrt(2 * (5 * n_layers + 1))
    elsewhere = int((apart > 4 * bar).sum())
    turned = N_COMPARED * numpy.median(apart) * sum(math.sqrt(2 * math.log(n)) * math.sqrt(2) * 0.4 for n in n_experts)
    most = math.floor(turned + 3 * math.sqrt(turned))
    same = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    print(f"{model}: logits of deviation {theirs.std():.2f} differ by {numpy.median(apart):.2%} in the median, "
          f"{apart.max():.2%} at most (bar {bar:.2%}); {elsewhere} of {N_COMPARED} positions routed elsewhere (at most {most}); "
          f"the first choice is the same at {same}")
    if numpy.median(apart) > bar or elsewhere > most:
        raise Failed(f"{model}: Puna and llama.cpp do not compute the same")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=pathlib.Path, metavar="FILE.gguf")
    parser.add_argument("--puna", default="target/release/puna", help="(default: %(default)s)")
    parser.add_argument("--routing-only", action="store_true")
    arguments = parser.parse_args()
    try:
        for model in arguments.models:
            check_routing(model, arguments.puna)
            if not arguments.routing_only:
                check_agreement(model, arguments.puna)
    except Failed as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
