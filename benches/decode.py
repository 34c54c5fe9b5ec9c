#!/usr/bin/env python3
"""Speed of one conversation on SmolLM2-135M (Q4_1): puna and llama.cpp in alternation, on the same file and threads.

usage: python benches/decode.py [--puna target/release/puna] [--threads 2] [--runs 5] [--out benches/runs/NAME.json]

Needs `xllamacpp` (llama.cpp) in this interpreter, and the model by scripts/fetch_smollm2.py.  Both read a prompt of
about 250 tokens and choose 128 tokens greedily; a run's figure is tokens after the first over their time.  Printed and
written: every run, medians, and the median of the ratios of neighbouring runs with their spread.
"""
import argparse
import datetime
import json
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
MODEL = ROOT / "models/cache/SmolLM2-135M-Instruct.Q4_1.gguf"
N_TOKENS = 128


def puna(binary, threads, prompt):
    """Prompt and decode speed in tokens a second."""
    command = [binary, "run", "-m", MODEL, "--raw", "--stats", "--json", "--temp", "0", "--threads", str(threads),
               "--max-tokens", str(N_TOKENS), "--", prompt]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if json.loads(done.stdout)["usage"]["completion_tokens"] != N_TOKENS:
        sys.exit("the answer ended early: choose another prompt")
    return tuple(float(speed) for speed in re.findall(r"\(([0-9.]+)/s\)", done.stderr))


def llama_cpp(peer, threads, ids):
    """The same with llama.cpp."""
    times = peer.time_greedy(ids, N_TOKENS, threads)
    return len(ids) / times[0], (N_TOKENS - 1) / sum(times[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--puna", type=pathlib.Path, default=ROOT / "target/release/puna")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    from llama_cpp_peer import LlamaCpp
    peer = LlamaCpp(MODEL)
    prompt = (ROOT / "tests/data/prose.txt").read_text(encoding="utf-8")[:1100]
    ids = peer.tokenize(prompt)
    runs = []
    for _ in range(args.runs):
        began = time.time()
        ours, theirs = puna(args.puna, args.threads, prompt), llama_cpp(peer, args.threads, ids)
        runs.append({"puna": ours, "llama.cpp": theirs})
        print(f"puna {ours[0]:7.1f} {ours[1]:7.1f}   llama.cpp {theirs[0]:7.1f} {theirs[1]:7.1f}   "
              f"(prompt, decode in tokens/s; {time.time() - began:.1f} s)", flush=True)
    summary = {}
    for i, what in enumerate(("prompt", "decode")):
        ratios = [run["puna"][i] / run["llama.cpp"][i] for run in runs]
        summary[what] = {"puna": statistics.median(run["puna"][i] for run in runs),
                         "llama.cpp": statistics.median(run["llama.cpp"][i] for run in runs),
                         "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        print(what, {name: round(value, 2) for name, value in summary[what].items()})
    if args.out:
        record = {"date": datetime.date.today().isoformat(), "machine": platform.machine(), "threads": args.threads,
                  "prompt_tokens": len(ids), "tokens": N_TOKENS, "summary": summary, "runs": runs}
        args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
