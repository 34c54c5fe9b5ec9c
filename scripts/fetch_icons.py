#!/usr/bin/env python3
"""Fetches pictures that are called what they show, for `icons = "FOLDER"` in a recipe.

usage: python scripts/fetch_icons.py FOLDER

Noto's emoji (Apache 2.0) of the npm package emoji-datasource-google (its table of names: MIT), 64 pixels wide: one PNG for
each thing, named by it.  Needs npm.  Faces' skin tones and flags are left out.
"""
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "emoji-datasource-google@16.0.0"
LEFT_OUT = {"Flags", "Component", "Symbols"}


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = pathlib.Path(folder).glob("*.tgz")
        n = 0
        with tarfile.open(archive) as files:
            table = json.load(files.extractfile("package/emoji.json"))
            for emoji in table:
                name = (emoji["name"] or emoji["short_name"]).lower().replace(" ", "_").replace("/", "_")
                if emoji["category"] in LEFT_OUT or not emoji.get("has_img_google"):
                    continue
                picture = files.extractfile(f"package/img/google/64/{emoji['image']}").read()
                (out / f"{name}.png").write_bytes(picture)
                n += 1
    print(f"{n} pictures in {out}")


if __name__ == "__main__":
    main()
