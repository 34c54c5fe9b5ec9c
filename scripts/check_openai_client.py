#!/usr/bin/env python3
"""Runs the tests of OpenAI's own Python client against `puna serve`; exit status 1 if it is not as the lists say.

usage: python scripts/check_openai_client.py MODEL [--puna target/release/puna] [--seed target/debug/seed] [--update]
       [--allow-missing]

The client, its tests (from its source archive) and what they need come from the Python index into target/openai-client.
tests/data/openai-passes.txt lists the tests that pass.  It may only grow: --update adds those that are new.
tests/data/openai-failures.txt has the cause of every other.  openai_client_server.py runs the server, and says what the tests
find there; `cargo run -p it --bin toy FOLDER` writes a MODEL, `cargo build -p it --bin seed` builds what names objects.
"""
import argparse
import fnmatch
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import serving

ROOT = pathlib.Path(__file__).resolve().parent.parent
FETCHED = ROOT / "target/openai-client"
PASSES = ROOT / "tests/data/openai-passes.txt"
FAILURES = ROOT / "tests/data/openai-failures.txt"
# Another release is another judge, to be tried before it is trusted.
CLIENT = "openai==3.57.0"
NEEDS = ["pytest", "pytest-asyncio", "pytest-xdist", "respx", "inline-snapshot", "dirty-equals", "nest-asyncio", "rich"]
GROUPS = ["chat", "responses", "audio", "test_batches.py", "test_completions.py", "test_embeddings.py", "test_files.py",
          "test_models.py", "test_moderations.py", "test_responses.py"]


def fetch():
    """The interpreter that has the client, and the folder of its tests; None where the index does not answer."""
    python = serving.fetched(FETCHED, "python", CLIENT, *NEEDS)
    if python is None:
        return None
    try:
        archives = list(FETCHED.glob("openai-*.tar.gz"))
        if not archives:
            command = [python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "openai", CLIENT, "-d", FETCHED]
            subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
            archives = list(FETCHED.glob("openai-*.tar.gz"))
        folder = FETCHED / archives[0].name.removesuffix(".tar.gz")
        if not folder.exists():
            with tarfile.open(archives[0]) as archive:
                archive.extractall(FETCHED, filter="data")
        return python, folder
    except (subprocess.CalledProcessError, IndexError):
        return None


def test(python, folder, args):
    """The names of the tests that passed, and of all that ran."""
    settings = {"puna": os.path.abspath(args.puna), "seed": os.path.abspath(args.seed), "model": os.path.abspath(args.model),
                "folder": str(FETCHED / "state")}
    env = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "PUNA_CHECK": json.dumps(settings)}
    paths = [f"tests/api_resources/{group}" for group in GROUPS]
    command = [python, "-m", "pytest", *paths, "-p", "openai_client_server", "-n0", "-k", "not Async", "-q", "-rA", "--tb=line",
               "-p", "no:cacheprovider"]
    ran = subprocess.run([str(part) for part in command], cwd=folder, env=env, capture_output=True, text=True)
    names = lambda word: {line.split(" - ")[0].removeprefix(f"{word} ").strip()
                          for line in ran.stdout.splitlines() if line.startswith(f"{word} tests/")}
    passed, failed = names("PASSED"), names("FAILED") | names("ERROR")
    if not passed | failed:
        sys.exit(f"no test ran:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    return passed - failed, passed | failed


def explained(failed):
    """The failures that have no cause, and the causes without a failure.  A line is a pattern, a space and its cause."""
    lines = [line for line in FAILURES.read_text().splitlines() if line and not line.startswith("#")]
    patterns = [line.split(None, 1)[0] for line in lines]
    # What stands in brackets says how strictly the client reads.
    bare = {name: name.removeprefix("tests/api_resources/").split("[")[0] for name in failed}
    matches = lambda name, pattern: fnmatch.fnmatchcase(bare[name], pattern)
    without = [name for name in sorted(failed) if not any(matches(name, pattern) for pattern in patterns)]
    unused = [pattern for pattern in patterns if not any(matches(name, pattern) for name in failed)]
    return without, unused


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--puna", default=str(ROOT / "target/release/puna"))
    parser.add_argument("--seed", default=str(ROOT / "target/debug/seed"))
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--allow-missing", action="store_true")
    args = parser.parse_args()
    fetched = fetch()
    if fetched is None:
        print("the Python index does not answer: NOTHING was tested")
        sys.exit(0 if args.allow_missing else 1)
    passed, ran = test(*fetched, args)
    known = set(PASSES.read_text().split("\n")) - {""} if PASSES.exists() else set()
    if args.update:
        known |= passed
        PASSES.write_text("".join(f"{name}\n" for name in sorted(known)))
    lost, new = sorted(known - passed), sorted(passed - known)
    without, unused = explained(ran - passed)
    print(f"{len(passed)} of {len(ran)} tests pass; {len(known)} are known to, {len(new)} are new, {len(lost)} fail now; "
          f"{len(ran - passed)} fail, {len(without)} of them without a cause")
    for what, names in [("fails now", lost), ("passes and is not listed (--update)", new), ("fails without a cause", without),
                        ("a cause without a failure", unused)]:
        for name in names:
            print(f"  {what}: {name}")
    sys.exit(1 if lost or new or without or unused else 0)


if __name__ == "__main__":
    main()
