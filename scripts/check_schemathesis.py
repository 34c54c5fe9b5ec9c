#!/usr/bin/env python3
"""Asks `puna serve` what its own OpenAPI document allows, and something beside; exit status 1 if an answer is not as it says.

usage: python scripts/check_schemathesis.py MODEL [--puna target/release/puna] [--examples 50] [--seed N] [--allow-missing]

Schemathesis comes from the Python index into target/schemathesis.  Every operation gets so many requests.  What is looked
for: statuses of 500 and more, statuses, content types and headers that the document does not name, and bodies that do not
follow their schema.
"""
import argparse
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

import serving

ROOT = pathlib.Path(__file__).resolve().parent.parent
FETCHED = ROOT / "target/schemathesis"
NEEDS = "schemathesis==4.32.5"
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance"]
# It answers 501, as the document says, until there is a model that judges texts: a status above 500 is no mistake there.
NOT_BUILT = "/v1/moderations"


def run(program, url, args, checks, *filters):
    """Whether all was well."""
    # What an earlier run has learned would make this one another.
    work = FETCHED / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    command = [program, "run", f"{url}/openapi.json", "--phases", "fuzzing", "-n", args.examples, "--seed", args.seed,
               "--checks", ",".join(checks), "--continue-on-failure", "--warnings", "off", *filters]
    ran = subprocess.run([str(part) for part in command], cwd=work, capture_output=True, text=True)
    tested = re.search(r"Tested: (\d+)", ran.stdout)
    cases = re.search(r"(\d+) generated[^\n]*", ran.stdout)
    if not tested or not cases or tested[1] == "0":
        sys.exit(f"nothing was tested:\n{ran.stdout[-3000:]}\n{ran.stderr[-2000:]}")
    print(f"{tested[1]} operations, {cases[0]}; checks {', '.join(checks)}; exit status {ran.returncode}")
    if ran.returncode:
        print(ran.stdout)
    return ran.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--puna", default=str(ROOT / "target/release/puna"))
    parser.add_argument("--examples", default=50, type=int)
    parser.add_argument("--seed", default=random.randrange(1 << 32), type=int)
    parser.add_argument("--allow-missing", action="store_true")
    args = parser.parse_args()
    program = serving.fetched(FETCHED, "st", NEEDS)
    if program is None:
        print("the Python index does not answer: NOTHING was tested")
        sys.exit(0 if args.allow_missing else 1)
    print(f"seed {args.seed}, {args.examples} examples an operation")
    server = serving.Server(args.puna, args.model, "--state", "none", "--ctx", 512, log=FETCHED / "server.log")
    began = time.monotonic()
    try:
        # Both are run, whatever the first finds.
        well = [run(program, server.url, args, CHECKS, "--exclude-path", NOT_BUILT),
                run(program, server.url, args, CHECKS[1:], "--include-path", NOT_BUILT)]
        if server.process.poll() is not None:
            sys.exit("the server has ended")
    finally:
        server.end()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(0 if all(well) else 1)


if __name__ == "__main__":
    main()
