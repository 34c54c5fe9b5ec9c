#!/usr/bin/env python3
"""Evaluates a toy with lm-evaluation-harness over `puna serve`, offline; exit status 1 if a number is not the engine's own.

usage: python scripts/check_lm_eval.py MODEL [--puna target/release/puna] [--score target/debug/score] [--allow-missing]

The harness comes from the Python index into target/lm-eval; the two tasks and their items lie in tests/data/lm-eval.  Every
log-likelihood, whether it was the likeliest, and every generated text is compared with what `score` says, which runs the engine
without a server (`cargo build -p it --bin score`).
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

import serving

ROOT = pathlib.Path(__file__).resolve().parent.parent
FETCHED = ROOT / "target/lm-eval"
TASKS = ROOT / "tests/data/lm-eval"
NEEDS = "lm-eval[api]==0.4.13"
# A token's log-probability comes as f32 in decimal digits, and its sum in f64 here: 4e-7 a token and rounding.
WITHIN = 1e-5


def evaluate(program, url):
    """The samples of both tasks."""
    work = FETCHED / "work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "tasks").mkdir(parents=True)
    for task in TASKS.glob("*.yaml"):
        (work / "tasks" / task.name).write_text(task.read_text().replace("DATA", str(TASKS)))
    settings = f"base_url={url}/v1/completions,model=puna,tokenizer_backend=auto,num_concurrent=4,max_length=512"
    command = [program, "run", "--model", "local-completions", "--model_args", settings, "--tasks", "puna_choices,puna_continuations",
               "--include_path", work / "tasks", "--log_samples", "--output_path", work / "out"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(work / "cache")}
    ran = subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, cwd=work)
    samples = {name: [json.loads(line) for path in (work / "out").rglob(f"samples_puna_{name}*.jsonl") for line in path.open()]
               for name in ["choices", "continuations"]}
    if ran.returncode or not all(samples.values()):
        sys.exit(f"the harness failed:\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}")
    print("\n".join(line for line in ran.stdout.splitlines() if line.startswith("|")))
    return samples


def score(args, requests):
    """What the engine alone says."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    ran = subprocess.run([args.score, args.model], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--puna", default=str(ROOT / "target/release/puna"))
    parser.add_argument("--score", default=str(ROOT / "target/debug/score"))
    parser.add_argument("--allow-missing", action="store_true")
    args = parser.parse_args()
    program = serving.fetched(FETCHED, "lm_eval", NEEDS)
    if program is None:
        print("the Python index does not answer: NOTHING was tested")
        sys.exit(0 if args.allow_missing else 1)
    # The engine alone stores keys and values as f32: then both have the same bits.
    server = serving.Server(args.puna, args.model, "--state", "none", "--ctx", 512, "--kv", "f32", log=FETCHED / "server.log")
    try:
        samples = evaluate(program, server.url)
    finally:
        server.end()
    requests, got = [], []
    for sample in samples["choices"]:
        for choice, response in zip(sample["doc"]["choices"], sample["filtered_resps"], strict=True):
            requests.append({"context": sample["doc"]["context"], "continuation": choice})
            got.append({"logprob": float(response[0]), "is_greedy": str(response[1]) == "True"})
    for sample in samples["continuations"]:
        requests.append({"context": sample["doc"]["context"], "max_tokens": 24, "stop": ["Q"]})
        got.append({"text": sample["resps"][0][0]})
    n_wrong = 0
    for request, got, want in zip(requests, got, score(args, requests), strict=True):
        is_same = got["text"] == want["text"] if "text" in want else (
            abs(got["logprob"] - want["logprob"]) <= WITHIN and got["is_greedy"] == want["is_greedy"])
        if not is_same:
            n_wrong += 1
            print(f"{request}: the server says {got}, the engine {want}")
    print(f"{len(requests)} answers compared, {n_wrong} differ")
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
