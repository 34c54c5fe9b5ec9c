#!/usr/bin/env python3
"""Chats with `puna serve` and with llama.cpp's server in alternation: tokens a second and times to the first token.

usage: python benches/serve.py MODEL.gguf [--puna target/release/puna] [--clients 16] [--prompts 64,256] [--tokens 64]
                               [--seconds 20] [--runs 5] [--threads N] [--ctx 1024] [--out FILE.json]

Both servers are up the whole time with the same file, threads and context a client; the one that is not asked waits.
llama.cpp's (the wheel xllamacpp, to be installed in this interpreter) has a slot for every client and its defaults
otherwise, and is started with weights repacked for the processor and without, whichever was faster in a run of its own.
The clients are `puna bench --load`, which take next to no time of the processor.  Prompts never begin alike, so no
prefix cache helps; answers are of the same length.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import all  # beside this file

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import serving
PEER = """
import sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_parallel, p.n_ctx, p.port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[5])
p.no_extra_bufts = sys.argv[6] == "plain"
p.hostnames = ["127.0.0.1"]
server = xllamacpp.Server(p)
print("address", server.listening_address, flush=True)
sys.stdin.read()
"""


def ours(args, folder):
    # As many threads as the other, and room for all clients' contexts.
    flags = ["--state", "none", "--threads", args.threads, "--parallel", args.clients, "--ctx", args.ctx]
    return serving.Server(args.puna, args.model, *flags, log=pathlib.Path(folder) / "server.log")


def theirs(args, setting):
    """llama.cpp's server, once it answers, and its address."""
    command = [sys.executable, "-c", PEER, args.model, args.clients, args.ctx * args.clients, 0, args.threads, setting]
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    head = []
    for line in process.stdout:
        head.append(line)
        if found := re.search(r"^address (\S+)", line):
            # What it writes further on must not fill the pipe.
            threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
            break
    else:
        sys.exit("llama.cpp's server did not start:\n" + "".join(head[-20:]))
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{found[1]}/health", timeout=5).close()
            return process, found[1]
        except OSError:
            time.sleep(0.1)
    sys.exit("llama.cpp's server is never ready")


def load(args, urls, runs, seconds):
    command = [args.puna, "bench", "--load", urls[0], "--batch", args.clients, "--prefill", args.prompts,
               "--tokens", args.tokens, "--seconds", seconds, "--runs", runs, "--json"]
    command += ["--against", urls[1]] if len(urls) > 1 else []
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--puna", type=pathlib.Path, default=ROOT / "target/release/puna")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--prompts", default="64,256")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ctx", type=int, default=1024, help="of one chat")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    if args.out and args.out.is_dir():
        parser.error(f"--out {args.out} is a folder; name a file in it")

    best, peer = 0, None
    for setting in ("repacked", "plain"):
        process, url = theirs(args, setting)
        speed = load(args, [url], 1, 10)[0]["tok_per_s"]
        print(f"llama.cpp, weights {setting}: {speed:g} tok/s", file=sys.stderr)
        if speed > best:
            if peer:
                peer[0].kill()
            best, peer, chosen = speed, (process, url), setting
        else:
            process.kill()
    with tempfile.TemporaryDirectory() as folder:
        mine = ours(args, folder)
        try:
            lines = load(args, [mine.url, peer[1]], args.runs, args.seconds)
        finally:
            mine.kill()
            peer[0].kill()
    mine, its = lines[0::2], lines[1::2]
    middle = lambda lines, of: statistics.median(of(line) for line in lines)
    measures = {"tok/s": lambda line: line["tok_per_s"], "first token p50, s": lambda line: line["first_token_s"]["p50"],
                "first token p99, s": lambda line: line["first_token_s"]["p99"], "gap p50, s": lambda line: line["gap_s"]["p50"],
                "gap p99, s": lambda line: line["gap_s"]["p99"]}
    print(f"{'':20} {'puna':>10} {'llama.cpp':>10} {'ratio':>8}")
    for name, of in measures.items():
        ratios = [of(a) / of(b) for a, b in zip(mine, its)]
        print(f"{name:20} {middle(mine, of):10.4g} {middle(its, of):10.4g} {statistics.median(ratios):8.2f}"
              f"  ({min(ratios):.2f}…{max(ratios):.2f})")
    failed = sum(line["failed"] for line in lines)
    print(f"{sum(line['answers'] for line in lines)} answers, {failed} failed; llama.cpp's weights {chosen}")
    if args.out:
        about = {"date": datetime.date.today().isoformat(), "commit": all.git("rev-parse", "HEAD"),
                 "changed": bool(all.git("status", "--porcelain")), "processor": all.processor(),
                 "threads": args.threads, "model": args.model.name, "setting": chosen}
        args.out.write_text(json.dumps({**about, "runs": lines}, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
