#!/usr/bin/env python3
"""Runs the examples of the guides against `puna serve`: one line an example; exit status 1 if one fails.

usage: python scripts/check_guides.py MODEL [--puna target/release/puna] [--only GUIDE] [--allow-missing]

MODEL is any model that takes images, such as the toy that `cargo run -p it --bin toy FOLDER` writes.  Of each guide (docs/api.md
and docs/clients.md) the fenced bash blocks run each in a shell of its own in one folder, in which curl fails where the server
refuses, then the Python blocks one after the other in one program.  What can not run is named: a block that needs a package
that is not installed, or names that such a block would have made, and one after a comment `<!-- not run: why -->`.
For docs/api.md the server's own counters have to say that its bash and its Python examples each used every endpoint that
/openapi.json describes.
"""
import argparse
import ast
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import urllib.request

import serving

ROOT = pathlib.Path(__file__).resolve().parent.parent
GUIDES = [ROOT / "docs/api.md", ROOT / "docs/clients.md"]
ADDRESS = "127.0.0.1:8080"
# One example on a busy machine.
PATIENCE_S = 120
# What says that it is not built has nothing to show, and what speaks WebSocket curl can not be used for everywhere.
WITHOUT_EXAMPLE = {"bash": {("POST", "/v1/moderations"), ("GET", "/v1/realtime")}, "python": {("POST", "/v1/moderations")}}


class Block:
    """A fenced block: what it is written in, where it stands, what it says, why it is not run."""

    def __init__(self, language, line, text, why):
        self.language, self.line, self.text, self.why = language, line, text, why


def blocks(guide):
    """The bash and Python blocks of a guide."""
    found, fence, why = [], None, None
    for number, line in enumerate(guide.read_text().splitlines(), 1):
        if fence is not None:
            if line == "```":
                found.append(Block(fence[0], fence[1], "\n".join(fence[2]) + "\n", why))
                fence = why = None
            else:
                fence[2].append(line)
        elif line.startswith("```"):
            fence = (line[3:].strip(), number, [])
        elif line.strip():
            comment = re.fullmatch(r"<!-- not run: (.*) -->", line)
            why = comment[1] if comment else None
    if fence is not None:
        raise SystemExit(f"{guide}:{fence[1]}: the block has no end")
    return [block for block in found if block.language in ("bash", "python")]


def run_bash(block, folder):
    """What went wrong; None if nothing did."""
    (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    environment = {**os.environ, "HOME": str(folder), "CURL_HOME": str(folder)}
    try:
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=folder, env=environment, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return f"it took more than {PATIENCE_S} s"
    return None if done.returncode == 0 else f"exit status {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-1000:]}"


def names(text):
    """Packages that a block imports, names that it makes, and names that it uses."""
    packages, made, used = set(), set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
            made |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add(node.module.split(".")[0])
            made |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name):
            (made if isinstance(node.ctx, ast.Store) else used).add(node.id)
    return packages, made, used - made


def run_python(block, namespace, guide):
    """What went wrong; None if nothing did."""
    def late(_signal, _frame):
        raise TimeoutError(f"it took more than {PATIENCE_S} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE_S)
    said = io.StringIO()
    try:
        # Empty lines before it, so that a traceback names the guide's own line.
        code = compile("\n" * block.line + block.text, str(guide), "exec")
        with contextlib.redirect_stdout(said):
            exec(code, namespace)
        return None
    except Exception:                                                    # whatever an example raises, it does not run
        return traceback.format_exc()[-1500:]
    finally:
        signal.alarm(0)


class Checks:
    """What became of all examples."""

    def __init__(self):
        self.n_run = self.n_failed = self.n_marked = self.n_missing = 0

    def note(self, guide, block, wrong):
        self.n_run += 1
        self.n_failed += wrong is not None
        where = f"{guide.relative_to(ROOT) if guide.is_relative_to(ROOT) else guide}:{block.line}"
        print(f"ok   {where} {block.language}" if wrong is None else f"FAIL {where} {block.language}: {wrong}", flush=True)

    def skip(self, guide, block, why, is_missing):
        self.n_missing += is_missing
        self.n_marked += not is_missing
        print(f"{guide.name}:{block.line} {block.language} did NOT run: {why}", flush=True)

    def bash(self, guide, all_blocks, folder):
        for block in all_blocks:
            if block.why:
                self.skip(guide, block, block.why, False)
            elif shutil.which("curl") is None:
                self.skip(guide, block, "there is no curl", True)
            else:
                self.note(guide, block, run_bash(block, folder))

    def python(self, guide, all_blocks):
        namespace, unmade = {"__name__": "__main__"}, {}
        for block in all_blocks:
            packages, made, used = names(block.text)
            missing = sorted(name for name in packages if importlib.util.find_spec(name) is None)
            needs = sorted(used & unmade.keys())
            why = block.why or (f"there is no {', '.join(missing)}" if missing else None)
            why = why or (f"it needs {unmade[needs[0]]}" if needs else None)
            if why is None:
                self.note(guide, block, run_python(block, namespace, guide))
                unmade = {name: line for name, line in unmade.items() if name not in made}
            else:
                self.skip(guide, block, why, not block.why)
                unmade |= {name: f"{name} of line {block.line}" for name in made}


def fetch(url):
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return answer.read().decode()


def used(url):
    """How often each endpoint has answered well, by method and route."""
    counts = {}
    pattern = r'^puna_requests_total\{method="(\w+)",route="([^"]+)",status="(?:101|2\d\d)"\} (\d+)'
    for method, route, count in re.findall(pattern, fetch(f"{url}/metrics"), re.MULTILINE):
        counts[method, route] = counts.get((method, route), 0) + int(count)
    return counts


def unused(url, before, language):
    """Endpoints that no example in `language` has used since `before`, as the server describes them."""
    now = used(url)
    paths = json.loads(fetch(f"{url}/openapi.json"))["paths"]
    all_of_them = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    if not all_of_them & now.keys():
        raise SystemExit("the counters name none of the endpoints that are described")
    return sorted(one for one in all_of_them - WITHOUT_EXAMPLE[language] if now.get(one, 0) <= before.get(one, 0))


def check(guide, served, folder, checks):
    """Runs a guide's examples; endpoints that none of them uses."""
    found = blocks(guide)
    for block in found:
        block.text = block.text.replace(ADDRESS, f"{served.host}:{served.port}")
    if not found:
        raise SystemExit(f"{guide} has no examples")
    left = []
    # The counters are asked through an endpoint that counts itself.
    for language in ("bash", "python"):
        own = [block for block in found if block.language == language]
        before, n_missing = used(served.url), checks.n_missing
        checks.bash(guide, own, folder) if language == "bash" else checks.python(guide, own)
        if guide == GUIDES[0] and checks.n_missing == n_missing:
            after = unused(served.url, before, language)
            left += [f"{method} {path} has no {language} example" for method, path in after]
    return left


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path, help="a model that takes images")
    parser.add_argument("--only", action="append", type=lambda path: pathlib.Path(path).resolve(), help="this guide")
    parser.add_argument("--puna", type=pathlib.Path, default=ROOT / "target/release/puna")
    parser.add_argument("--allow-missing", action="store_true", help="do not fail where a package is not installed")
    args = parser.parse_args()
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")         # or it looks for prices on the network
    checks, left = Checks(), []
    puna, model, guides = args.puna.resolve(), args.model.resolve(), args.only or GUIDES
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        served = serving.Server(puna, model, "--state", folder / "state.redb", log=folder / "serve.log")
        try:
            os.chdir(folder)
            for guide in guides:
                left += check(guide, served, folder, checks)
        finally:
            os.chdir(ROOT)
            code = served.end()
    for line in left:
        print(f"FAIL {line}")
    if code != 0:
        print(f"FAIL puna serve ended with exit code {code}")
    print(f"{checks.n_run - checks.n_failed} of {checks.n_run} examples run, {checks.n_marked} are marked as not run, "
          f"{checks.n_missing} need what is not installed")
    is_missing = checks.n_missing and not args.allow_missing
    return 1 if checks.n_failed or left or code != 0 or is_missing or not checks.n_run else 0


if __name__ == "__main__":
    sys.exit(main())
