#!/usr/bin/env python3
"""Runs a command in a memory control group of its own, so that it can not have more than LIMIT bytes.

usage: limit_memory.py LIMIT COMMAND [ARGUMENT...]       (LIMIT such as 2500M or 2G)

Afterwards says on standard error what the group had at most (files in the cache included, which the kernel counts and
takes back) and what of it was the command's own; a command that needs more is killed by the kernel.  Needs the right to
make control groups, which root has where the memory controller is mounted; version 1 and 2 are found by their files.
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def group_root():
    """The memory controller's tree, with the names of its files: limit, members, highest use, statistics, own memory."""
    for root, files in [
        ("/sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "rss")),
        ("/sys/fs/cgroup", ("memory.max", "memory.peak", "anon")),
    ]:
        root = pathlib.Path(root)
        if (root / "cgroup.procs").exists() and (root / "memory.stat").exists():
            return root, files
    sys.exit("no memory controller is mounted at /sys/fs/cgroup")


def main():
    size = re.fullmatch(r"(\d+)([KMG]?)", sys.argv[1]) if len(sys.argv) > 2 else None
    if not size:
        sys.exit(__doc__)
    limit = int(size[1]) * UNITS[size[2]]
    root, (limit_file, peak_file, own_key) = group_root()
    group = root / f"limit-{os.getpid()}"
    group.mkdir()
    try:
        (group / limit_file).write_text(str(limit))
        command = subprocess.Popen(sys.argv[2:], preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        own = 0
        while command.poll() is None:
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            own = max(own, int(stat[own_key]))
            time.sleep(0.1)
        peak = int((group / peak_file).read_text())
        print(f"limit {limit}, at most {peak} with files, {own} of its own", file=sys.stderr)
        if command.returncode < 0:
            sys.exit(f"killed by {signal.Signals(-command.returncode).name}: it does not fit")
        return command.returncode
    finally:
        # The members leave the group a moment after they end.
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
