#!/usr/bin/env python3
"""Scores of a model on tasks that were held out, as the Markdown table of a card.

usage: python scripts/score_nano.py [-m nano] [--puna target/release/puna] [--limit 200] [--digits FOLDER]

Every task with pictures or sounds is asked again with those of another sample; tasks of text are asked with and without
thinking.  FOLDER has real recordings of single digits, named DIGIT_SPEAKER_NUMBER.wav; a hundred of them are asked.
"""
import argparse
import json
import pathlib
import random
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def scores(args, *flags):
    """The lines of `puna eval`."""
    command = [args.puna, "eval", "-m", args.model, "--limit", str(args.limit), "--json", *flags]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def percent(share):
    return "" if share is None else f"{100 * share:.1f}"


def digits(args):
    """How many of a hundred recordings are answered with the digit that is said."""
    files = sorted(pathlib.Path(args.digits).rglob("*.wav"))
    files = random.Random(1).sample(files, min(100, len(files)))
    right = 0
    for file in files:
        command = [args.puna, "run", "-m", args.model, "--audio", str(file), "--temperature", "0", "--max-tokens", "16",
                   "Which digits are said?"]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        right += re.findall(r"\d", answer) == [file.name[0]]
    return right, len(files)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="nano")
    parser.add_argument("--puna", default=str(ROOT / "target/release/puna"))
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--digits")
    args = parser.parse_args()
    print("| task | right, % | 95 % interval | by chance | with another's picture or sound |")
    print("|---|---|---|---|---|")
    runs = [("", ["--suite", "pictures", "sounds", "speech", "--swap"]), (" with thinking", ["--suite", "tasks", "--think", "on"]),
            (" without", ["--suite", "tasks", "--think", "off"]), ("", ["--suite", "conversation"])]
    for suffix, flags in runs:
        for line in scores(args, *flags):
            low, high = line["interval"]
            words = line["word_error"]
            suffix_of_words = "" if words is None else f" (word errors {percent(words)} %)"
            print(f"| {line['task']}{suffix}{suffix_of_words} | {percent(line['share'])} | {percent(low)} to {percent(high)} | "
                  f"{percent(line['chance'])} | {percent(line['swapped'])} |", flush=True)
    if args.digits:
        right, n = digits(args)
        print(f"| real recordings of digits | {right} of {n} | | 10 | |")


if __name__ == "__main__":
    main()
