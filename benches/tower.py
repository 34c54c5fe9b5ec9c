"""What the measurements of one tower share: `puna bench` in alternation with a peer, and the command line."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def quiet(threads):
    """Before a peer is made: its number of threads, which do not spin while they have nothing to do: they would take the
    processor from the other engine."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "passive"


def puna(binary, folder, flags, threads):
    """The JSON line of one counted run."""
    command = [binary, "bench", "-m", folder, *flags, "--runs", "1", "--threads", str(threads), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"puna bench: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[0])


def alternated(arguments, model, flags, seconds, engine):
    """What rows of results have in common: puna's runs of `model`, and those of a peer, `seconds` of which warm up before they
    count."""
    lines, theirs = [], []
    flags = [*flags, "--precision", arguments.precision]
    for _ in range(arguments.runs):
        lines.append(puna(arguments.puna, model, flags, arguments.threads))
        seconds()
        theirs.append(seconds())
    ours = [line["runs_s"][0] for line in lines]
    ratios = [other / mine for mine, other in zip(ours, theirs)]
    return {
        "weights": arguments.weights, "precision": arguments.precision, "threads": arguments.threads, "runs_s": ours,
        "roof": lines[0]["roof"],
        "roof_share": statistics.median(line["roof_share"] for line in lines),
        "others_cpu_s": round(sum(line["others_cpu_s"] or 0 for line in lines), 2), "roofs": lines[-1]["roofs"],
        "against": {"engine": engine, "ratio": round(statistics.median(ratios), 3), "least": round(min(ratios), 3),
                    "most": round(max(ratios), 3), "runs_s": theirs},
    }


def main(doc, measure, dtype):
    """Reads the command line of a program with this docstring, and prints and writes what it measures."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--puna", default=ROOT / "target/release/puna")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=dtype)
    parser.add_argument("--weights", choices=("stored", "q8_0"), default="stored")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    row = measure(arguments)
    print(json.dumps(row))
    if arguments.out:
        arguments.out.write_text(json.dumps(row, indent=1) + "\n")
