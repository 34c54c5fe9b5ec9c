#!/usr/bin/env python3
"""Every row of docs/performance.md: puna and its peers in alternation, kept with commit, processor, threads and roofs.

usage: python benches/all.py MODELS NAME [--puna target/release/puna] [--threads N] [--runs 5] [--rows smollm2,scout4,…]
                             [--out benches/runs] [--kv f16|q8]

MODELS is the folder with the models of docs/performance.md, which says how they are made; what is not there is named
and left out.  Writes OUT/DATE-NAME.json after every row, so that a run that is stopped keeps what it has, and prints the
rows as lines of docs/performance.md's table.  Each test is the median of RUNS alternated runs; roofs are measured before
each test and once for the file.

Needs xllamacpp in this interpreter; for the image row torch and transformers (see vision.py).
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMOLLM2 = "SmolLM2-135M-Instruct"
MANY, ONE = ["--batch", "1,16"], ["--batch", "1"]
# Row: the file in MODELS, arguments of `puna bench`, and bars: (test, batch) to the least ratio and the least share.
ROWS = {
    "smollm2-q4_0": (f"{SMOLLM2}.Q4_0.gguf", MANY, {("prefill", 1): (2.4, .45), ("decode", 1): (1.7, .80), ("decode", 16): (4.5, None)}),
    "smollm2-q4_1": (f"{SMOLLM2}.Q4_1.gguf", ONE, {("prefill", 1): (3, .45), ("decode", 1): (1.8, .80)}),
    "smollm2-q8_0": (f"{SMOLLM2}.Q8_0.gguf", ONE, {("prefill", 1): (3, .45), ("decode", 1): (1.8, .88)}),
    "smollm2-q4_k_m": (f"{SMOLLM2}.Q4_K_M.gguf", ONE, {("prefill", 1): (3, None), ("decode", 1): (1.8, None)}),
    "scout4-q4_0": ("scout4.Q4_0.gguf", MANY, {("prefill", 1): (3, .66), ("decode", 1): (1, .98), ("decode", 16): (2.2, .90)}),
    "scout4-q4_k_m": ("scout4.Q4_K_M.gguf", ONE, {("prefill", 1): (None, .55), ("decode", 1): (None, .98)}),
    "nano-q4_0": ("nano.Q4_0.gguf", ONE, {("prefill", 1): (2.5, None), ("decode", 1): (2.2, None)}),
    "dense1b-q4_0": ("dense1b.Q4_0.gguf", ONE, {("prefill", 1): (None, .62), ("decode", 1): (None, .95)}),
}
# Rows that have to be faster on two threads than on one, and are measured on one as well.
THREADED = {"nano-q4_0"}
IMAGE, IMAGE_BAR = "image", (2, None)


def run(command):
    """Standard output of a command; its standard error is shown."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout


def bench(arguments, model, extra, threads, against):
    """Lines of one call of `puna bench`."""
    command = [arguments.puna, "bench", "-m", model, "--prefill", "512", "--depth", "0", *extra, "--json",
               "--runs", arguments.runs, "--threads", threads]
    command += ["--kv", arguments.kv] if arguments.kv else []
    command += ["--against", "xllamacpp", "--python", sys.executable] if against else []
    return [json.loads(line) for line in run(command).splitlines()]


def git(*words):
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()


def processor():
    """The processor's name, as the system says it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor()


def shown(row, line, bar):
    """A line of the table."""
    against = line.get("against")
    what = f"{row}, {line['test']} {line['tokens']}" + (f", {line['batch']} together" if line["batch"] > 1 else "")
    what += ", maps in eight bits" if line.get("weights") == "q8_0" else ""
    what += ", activations in bf16" if line.get("precision") == "bf16" else ""
    ratio, share = bar or (None, None)
    wanted = []
    if ratio is not None:
        wanted.append(f"{ratio} ×")
    if share is not None:
        wanted.append(f"{share:.0%} of the roof")
    theirs = "– | –"
    if against:
        theirs = f"{against['tok_per_s']:g} | {against['ratio']:.2f} × ({against['least']:.2f}…{against['most']:.2f})"
    return (f"| {what} | {line['tok_per_s']:g} | {theirs} | {line['roof_share']:.0%} of {line['roof']} "
            f"| {', '.join(wanted) or '–'} |")


def shown_threads(row, lines, threads):
    """A line of the table for each test that was measured on all threads and on one."""
    speed = {(line["test"], line["threads"]): line["tok_per_s"] for line in lines if line["test"] != "load"}
    for test in ("prefill", "decode"):
        both, one = speed[test, threads], speed[test, 1]
        yield f"| {row}, {test}, {threads} threads against one | {both:g} | {one:g} | {both / one:.2f} × | – | above 1 × |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("name", help="of this run, for the file's name")
    parser.add_argument("--puna", type=pathlib.Path, default=ROOT / "target/release/puna")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", help=f"beginnings of rows' names; all of {', '.join([*ROWS, IMAGE])} if absent")
    parser.add_argument("--kv", choices=["f16", "q8"], help="puna's keys and values (default: its own)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="transformers' (default: its faster one)")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benches/runs")
    arguments = parser.parse_args()
    wanted = tuple(arguments.rows.split(",")) if arguments.rows else ("",)
    rows = [row for row in [*ROWS, IMAGE] if row.startswith(wanted)]
    if not rows:
        parser.error(f"no row begins with \"{arguments.rows}\"; there are {', '.join([*ROWS, IMAGE])}")
    date = datetime.date.today().isoformat()
    roofs = json.loads(run([arguments.puna, "bench", "--roofs", "--json", "--threads", arguments.threads]))
    report = {"date": date, "commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain")),
              "processor": processor(), "threads": arguments.threads, "roofs": roofs, "rows": {}}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{date}-{arguments.name}.json"
    missing = []
    for row in rows:
        if row == IMAGE:
            import vision
            bars = {("tile", 1): IMAGE_BAR}
            folder = arguments.models / "vision-tower"
            own = vars(arguments) | {"folder": folder}
            ways = [("stored", "f32"), ("stored", "bf16"), ("q8_0", "f32")]
            lines = [vision.measure(argparse.Namespace(**own, weights=w, precision=p)) for w, p in ways]
        else:
            file, extra, bars = ROWS[row]
            model = arguments.models / file
            if not model.exists():
                missing.append(str(model))
                continue
            lines = bench(arguments, model, extra, arguments.threads, against=True)
            if row in THREADED and arguments.threads > 1:
                lines += bench(arguments, model, extra, 1, against=False)
        report["rows"][row] = lines
        path.write_text(json.dumps(report, indent=1) + "\n")
        for line in lines:
            if line["test"] != "load" and line["threads"] == arguments.threads:
                print(shown(row, line, bars.get((line["test"], line["batch"]))), flush=True)
        if any(line["threads"] == 1 for line in lines) and arguments.threads > 1:
            for text in shown_threads(row, lines, arguments.threads):
                print(text, flush=True)
    print(path)
    if missing:
        sys.exit(f"error: not there and left out: {', '.join(missing)}\nhint:  docs/performance.md says how they are made")


if __name__ == "__main__":
    main()
