#!/usr/bin/env python3
"""Compares the quantised files of `puna quantize` with llama.cpp, one line a format; exit status 1 if one fails.

usage: python scripts/check_quants.py [--puna target/release/puna] [--formats q4_0,q4_k_m] [--allow-offline]
       [--text FILE] [--windows N]

The model is that of check_peers.py, dequantised to f32; what is fetched is what check_peers.py fetches.  Of each format
there are two files: ours, and one of the same formats tensor by tensor whose blocks llama.cpp's encoder made of the same
f32 numbers.  Both are read by both engines, over the same windows of prose:
  engines       the perplexity of our file in puna and in llama.cpp differs by less than 0.5 %, and so does that of theirs
  encoders      the perplexity of our file is at most 0.5 % above that of theirs, in both engines
Rounding, of weights and of activations to eight bits, makes every token likelier or less likely by chance, which on a short
text moves the perplexity too: a difference within three of its standard errors (printed after ±) says nothing and holds.
"KL to f32" is the mean divergence of puna's next-token distributions from those of the f32 file: what quantising cost,
with much less noise than the perplexity of a short text has.  `--table` prints the rows for docs/performance.md.
"""
import argparse
import pathlib
import shutil
import sys
import tempfile

from check_peers import N_WINDOWS, ROOT, Failure, Puna, Report, fetch, windows

FORMATS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k", "q4_k_m", "bf16")
MAX_CHANGE = 5e-3
PEER_THREADS = 2


def log_softmax(logits):
    """Rows `[T,V]`, float64 where sums are long."""
    import numpy
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True, dtype=numpy.float64)).astype(numpy.float32)


class Quality:
    """What a model's distributions over the windows say: perplexity, and divergence from a reference's."""

    def __init__(self, text, logits, reference=None):
        import numpy
        surprises, divergences = [], []
        for i, ids in enumerate(text):
            rows = log_softmax(logits(ids))
            if not numpy.isfinite(rows).all():
                raise Failure("a model gives logits that are not finite")
            surprises.append(-rows[numpy.arange(len(ids) - 1), ids[1:]])
            if reference is not None:
                p = reference[i]
                divergences.append((numpy.exp(p) * (p - rows)).sum(axis=1, dtype=numpy.float64))
        self.surprises = numpy.concatenate(surprises).astype(numpy.float64)
        self.perplexity = float(numpy.exp(self.surprises.mean()))
        self.divergence = float(numpy.concatenate(divergences).mean()) if divergences else None


    def over(self, other):
        """By how much this perplexity is above another's, and the standard error of that: both of the same tokens."""
        difference = self.surprises - other.surprises
        return self.perplexity / other.perplexity - 1, float(difference.std() / len(difference) ** 0.5)


class Models:
    """The f32 model and its quantised files."""

    def __init__(self, puna, text, source, scratch):
        self._puna, self._text, self._scratch = puna, text, scratch
        self.f32 = scratch / "f32.gguf"
        puna.quantize(source, self.f32, "f32")
        self._reference = [log_softmax(puna.logits(self.f32, ids)) for ids in text]

    def quantised(self, name):
        """Paths of our file and of theirs."""
        ours, theirs = (self._scratch / f"{name}.{whose}.gguf" for whose in ("ours", "theirs"))
        self._puna.quantize(self.f32, ours, name)
        encode_again(self.f32, ours, theirs)
        return ours, theirs

    def in_puna(self, path):
        return Quality(self._text, lambda ids: self._puna.logits(path, ids), self._reference)

    def in_peer(self, path):
        from llama_cpp_peer import LlamaCpp
        peer = LlamaCpp(path)
        try:
            return Quality(self._text, lambda ids: peer.logits_at_once(ids, PEER_THREADS))
        finally:
            peer.close()


def encode_again(f32, ours, theirs):
    """Writes `theirs`: `ours` with the blocks that llama.cpp makes of the numbers of `f32`."""
    import gguf
    from llama_cpp_peer import quantise
    shutil.copyfile(ours, theirs)
    values = {tensor.name: tensor for tensor in gguf.GGUFReader(f32).tensors}
    n_encoded = 0
    with open(theirs, "r+b") as file:
        for tensor in gguf.GGUFReader(ours).tensors:
            if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
                continue
            rows = values[tensor.name].data
            file.seek(int(tensor.data_offset))
            file.write(quantise(rows.reshape(-1, rows.shape[-1]), int(tensor.tensor_type), int(tensor.n_bytes)).tobytes())
            n_encoded += 1
    if n_encoded == 0:
        raise Failure(f"{ours.name} has no tensor that is not f32")


def check(report, models, name):
    """Adds both checks of a format; returns its row of the table."""
    ours, theirs = models.quantised(name)
    size = ours.stat().st_size
    puna = [models.in_puna(path) for path in (ours, theirs)]
    peer = [models.in_peer(path) for path in (ours, theirs)]
    for path in (ours, theirs):
        path.unlink()
    engines = [p.over(q) for p, q in zip(puna, peer)]
    encoders = [ours.over(theirs) for ours, theirs in (puna, peer)]
    holds = (all(abs(change) < allowed(error) for change, error in engines)
             and all(change < allowed(error) for change, error in encoders))
    figure = (f"puna {puna[0].perplexity:.3f}, llama.cpp {peer[0].perplexity:.3f} ({percent(*engines[0])}); their file "
              f"{puna[1].perplexity:.3f}, {peer[1].perplexity:.3f} ({percent(*engines[1])}); ours over theirs "
              f"{percent(*encoders[0])}, {percent(*encoders[1])}; KL to f32 {puna[0].divergence:.2e}, "
              f"theirs {puna[1].divergence:.2e}")
    report.add(name, holds, figure)
    return [name.upper(), f"{size / 1e6:.1f}", f"{puna[0].perplexity:.3f}", f"{peer[0].perplexity:.3f}", percent(*engines[0]),
            f"{puna[1].perplexity:.3f}", percent(*encoders[0]), f"{puna[0].divergence:.2e}", f"{puna[1].divergence:.2e}"]


def allowed(error):
    return max(MAX_CHANGE, 3 * error)


def percent(change, error):
    return f"{100 * change:+.2f} ± {100 * error:.2f} %"


HEADER = ["format", "MB", "our file in puna", "our file in llama.cpp", "difference", "llama.cpp's file in puna",
          "ours over theirs", "KL to f32", "theirs"]


def run(args, source):
    from llama_cpp_peer import LlamaCpp
    report, rows = Report(), []
    with tempfile.TemporaryDirectory() as folder:
        puna = Puna(args.puna, pathlib.Path(folder))
        peer = LlamaCpp(source)
        text = windows(peer.tokenize(args.text.read_text(encoding="utf-8")), args.windows)
        peer.close()
        models = Models(puna, text, source, pathlib.Path(folder))
        for name in args.formats:
            try:
                rows.append(check(report, models, name))
            except Failure as failure:
                report.add(name, False, str(failure))
    if args.table:
        for row in (HEADER, ["---"] * len(HEADER), *rows):
            print(f"| {' | '.join(row)} |")
    print(f"{report.n_checks - report.n_failed} of {report.n_checks} formats hold")
    return 1 if report.n_failed or not rows else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--puna", type=pathlib.Path, default=ROOT / "target/release/puna")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "tests/data/prose.txt", help="prose to score")
    parser.add_argument("--windows", type=int, default=N_WINDOWS, help="windows of 1,024 tokens of it")
    parser.add_argument("--formats", type=lambda names: names.split(","), default=FORMATS, help="of `puna quantize --to`")
    parser.add_argument("--table", action="store_true", help="also print a table in Markdown")
    parser.add_argument("--allow-offline", action="store_true", help="do not fail where the registry does not answer")
    args = parser.parse_args()
    try:
        source = fetch(False)
    except Failure as failure:
        print(f"check of quantised files did NOT run: {failure}")
        return 0 if args.allow_offline else 1
    if not args.puna.exists():
        print(f"there is no '{args.puna}'; build it with `cargo build --release`, or name it with --puna")
        return 2
    return run(args, source)


if __name__ == "__main__":
    sys.exit(main())
