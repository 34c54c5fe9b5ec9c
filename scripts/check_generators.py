#!/usr/bin/env python3
"""Checks the answers of our task generators with other programs: reasoning-gym, sympy, Python's own numbers and dates.

usage: python scripts/check_generators.py [--puna target/release/puna] [--n 1000]

Needs reasoning-gym and sympy from PyPI.  Questions are read by patterns of this script's own; those that none fits are
counted and passed over.  Exit status 1 if an answer is wrong, or if a task has fewer than a tenth of its questions read.
"""
import argparse
import calendar
import datetime
import pathlib
import re
import subprocess
import sys

import reasoning_gym
import sympy

ROOT = pathlib.Path(__file__).resolve().parent.parent
MONTHS = {name: i for i, name in enumerate(calendar.month_name) if name}
DAYS = list(calendar.day_name)


def samples(puna, task, n):
    """Question and answer of `n` samples."""
    out = subprocess.run([puna, "data", "show", f"generator:{task}", "-n", str(n)], check=True, capture_output=True, text=True)
    for block in re.split(r"^--- .*\n", out.stdout, flags=re.MULTILINE)[1:]:
        # Of several exchanges the last.
        block = block[block.rindex("[user] "):]
        question = re.search(r"^\[user\] (.*?)(?=^\[assistant)", block, re.MULTILINE | re.DOTALL)
        answer = re.search(r"^\[assistant\] (.*)\Z", block, re.MULTILINE | re.DOTALL)
        yield question.group(1).strip(), answer.group(1).strip()


def arithmetic(question, answer):
    text = question
    for word, sign in ((r"\bplus\b", "+"), (r"\bminus\b|−", "-"), (r"\btimes\b|×|·|(?<= )x(?= )|\bmultiplied by\b", "*"), (r"\bdivided by\b|÷|:(?= \d)", "/")):
        text = re.sub(word, sign, text)
    found = re.search(r"[(\d-][\d +*/()-]*[+*/-][\d +*/()-]*[\d)]+", text)
    if not found or found.group().count("(") != found.group().count(")") or re.search(r"remainder|and|,", text) or not re.fullmatch(r"-?\d+", answer):
        return None
    return sympy.sympify(found.group()) == int(answer)


def sorting(question, answer):
    found = re.search(r"(?:: |Sort |numbers |list |words )((?:\[?[\w-]+\]?, )+[\w-]+\]?)", question)
    if not found:
        return None
    things, got = [re.findall(r"-?\d+|[a-z]+", text) for text in (found.group(1), answer)]
    if all(re.fullmatch(r"-?\d+", thing) for thing in things):
        things, got = [int(x) for x in things], [int(x) for x in got]
    falls = re.search(r"largest to smallest|descending|high to low|biggest first|decreasing|greatest to the least", question)
    return got == sorted(things, reverse=bool(falls))


def countdown(question, answer):
    numbers = [int(x) for x in re.findall(r"\d+", question)]
    used = [int(x) for x in re.findall(r"\d+", answer)]
    target = sympy.sympify(answer)
    if target not in numbers:
        return False
    numbers.remove(int(target))
    rest = list(numbers)
    if any(rest.remove(x) if x in rest else True for x in used):
        return False
    dataset = reasoning_gym.create_dataset("countdown", size=1)
    score = dataset.score_answer(answer, {"metadata": {"target": int(target), "numbers": used}})
    return score == 1.0


def dates(question, answer):
    if found := re.search(r"days (?:are|does|has).* (\w+),? (\d{4})", question, re.I):
        month, year = found.groups()
        if month in MONTHS and re.search(r"[Hh]ow many days (are in|does|has) ", question):
            return calendar.monthrange(int(year), MONTHS[month])[1] == int(answer)
    if found := re.search(r"today is (\w+), what day (?:was it|is it|will it be) (\d+) days (\w+)", question, re.I):
        day, n, way = found.groups()
        n = -int(n) if way.lower() in ("before", "ago", "earlier") else int(n)
        return DAYS[(DAYS.index(day) + n) % 7] == answer.rstrip(".")
    if found := re.search(r"between (\w+) (\d+) and (\w+) (\d+) in (\d{4})", question):
        m1, d1, m2, d2, year = found.groups()
        one, other = (datetime.date(int(year), MONTHS[m], int(d)) for m, d in ((m1, d1), (m2, d2)))
        return str((other - one).days) == answer
    return None


def equations(question, answer):
    sides = re.findall(r"[-\dxyabmnpqtz(][-\dxyabmnpqtz +*/()]* = [-\dxyabmnpqtz(][-\dxyabmnpqtz +*/()]*", question)
    sides = [re.sub(r" and.*| for.*| t$", "", side).strip() for side in sides]
    values = re.findall(r"-?\d+(?:/\d+)?", answer)
    names = sorted(set(re.findall(r"(?<![a-z])[a-z](?![a-z])", " ".join(sides))))
    if len(sides) != len(names) or len(values) != len(names) or not names or re.search("[a-z]{2}", " ".join(sides)):
        return None
    read = lambda text: sympy.sympify(re.sub(r"(\d)\s*([a-z(])", r"\1*\2", text))
    try:
        system = [sympy.Eq(*(read(side) for side in equation.split(" = "))) for equation in sides]
    except (sympy.SympifyError, SyntaxError, TypeError):
        return None
    order = list(dict.fromkeys(re.findall(r"(?<![a-z])[a-z](?![a-z])", " ".join(sides))))
    solutions = sympy.solve(system, [sympy.Symbol(name) for name in order], dict=True)
    # Which unknown is said first is the question's choice.
    return any(sorted(solution.values()) == sorted(map(sympy.Rational, values)) for solution in solutions)


CHECKS = {"arithmetic": arithmetic, "sorting": sorting, "countdown": countdown, "calendar": dates, "equations": equations}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--puna", default=str(ROOT / "target/release/puna"))
    parser.add_argument("--n", type=int, default=1000)
    args = parser.parse_args()
    failed = False
    for task, check in CHECKS.items():
        n_right = n_wrong = n_unread = 0
        for question, answer in samples(args.puna, task, args.n):
            verdict = check(question, answer)
            n_right, n_wrong, n_unread = n_right + (verdict is True), n_wrong + (verdict is False), n_unread + (verdict is None)
            if verdict is False and n_wrong <= 3:
                print(f"  WRONG {task}: {question!r} {answer!r}")
        print(f"{task}: {n_right} right, {n_wrong} wrong, {n_unread} not read")
        failed |= n_wrong > 0 or 10 * n_right < args.n
    sys.exit(failed)


if __name__ == "__main__":
    main()
