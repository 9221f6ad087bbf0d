"""Instructions of one call on a (1, 10) array, counted by valgrind's callgrind, beside the stored counts."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastsoft import _dispatch
from fastsoft.__main__ import _progress

STORED = Path(__file__).with_name("call_cost.json")
OPERATIONS = (
    "softmax",
    "log_softmax",
    "logsumexp",
    "softmax_vjp",
    "softmax_cross_entropy_with_grad",
    "softmax temperature=2.0",  # with an option
    "softmax where=x==x",
    "softmax_cross_entropy_with_grad label_smoothing=0.1",
)
CALLS = 2000
MORE = 0.05  # this share of instructions more than stored is a failure
INSTALL = "valgrind is not installed: apt-get install valgrind, dnf install valgrind, or as your system has it"

# What is counted: a loop of argv[2] calls of the operation argv[1], which may have an option. The loop itself is some
# 30 instructions a call, an option as much again.
PROGRAM = """
import itertools, sys
import numpy as np
import fastsoft
from fastsoft.reference import OPS
name, _, option = sys.argv[1].partition(" ")
op = next(op for op in OPS if op.name == name)
x = np.arange(10, dtype=np.float32).reshape(1, 10)
arguments, options = op.arguments(x), eval(f"dict({option})")
function = getattr(fastsoft, op.name)
for _ in itertools.repeat(None, int(sys.argv[2])):
    function(*arguments, **options)
"""


def isa() -> str:
    """The fastest variant that runs in valgrind, which does not know AVX-512."""
    return next(name for name in _dispatch.available() if name != "avx512")


def environment() -> dict[str, str]:
    """One that makes two runs alike: the hash seed, and no threads of OpenMP or a BLAS."""
    alike = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "FASTSOFT_ISA": isa()}
    return {**os.environ, **alike}


def instructions(operation: str, calls: int) -> int:
    """All instructions of a process that calls an operation so many times."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, "-c", PROGRAM]
    done = subprocess.run([*command, operation, str(calls)], env=environment(), capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or collected is None:
        raise RuntimeError(f"{' '.join(command[:2])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return int(collected[1])


def of_a_call(once: int, twice: int, calls: int) -> float:
    """Instructions of one call, from runs with so many and twice as many: what else they do cancels."""
    return (twice - once) / calls


def measure() -> dict[str, float]:
    counts = [instructions(op, n) for op, n in _progress([(op, n) for op in OPERATIONS for n in (CALLS, 2 * CALLS)])]
    pairs = zip(OPERATIONS, counts[::2], counts[1::2], strict=True)
    return {op: round(of_a_call(once, twice, CALLS), 1) for op, once, twice in pairs}


def build() -> str:
    """What counts hold for. The compiler that built fastsoft has a part in them too, but leaves no trace."""
    return f"{platform.machine()}, {isa()}, Python {platform.python_version()}, NumPy {np.__version__}"


def dearer(now: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """The operations with more than MORE more instructions."""
    return [op for op, count in now.items() if count > before[op] * (1 + MORE)]


def table(now: Mapping[str, float], before: Mapping[str, float]) -> str:
    rows = [f"| {'operation':51} | instructions | stored | change |", f"| {'-' * 51} | {'-' * 11}: | -----: | -----: |"]
    for op, count in now.items():
        stored = f"{before[op]:6.0f} | {100 * (count / before[op] - 1):+4.1f} %" if op in before else "       |       "
        rows.append(f"| {op:51} | {count:12.0f} | {stored} |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Exit status: 0 as before, 1 more, 2 not compared.")
    parser.add_argument("--update", action="store_true", help="store the counts")
    parser.add_argument("--stored", type=Path, default=STORED, metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    if shutil.which("valgrind") is None:
        print(INSTALL, file=sys.stderr)
        return 2
    path: Path = arguments.stored
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    before = stored.get(build(), {})
    now = measure()
    print(f"{build()}\n\n{table(now, before)}")
    if arguments.update:
        path.write_text(json.dumps(stored | {build(): now}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    if not set(now) <= set(before):
        print(f"{path} has no counts for {build()}; --update stores them", file=sys.stderr)
        return 2
    found = dearer(now, before)
    print(*(f"MORE: {op}: {before[op]:.0f} instructions before, now {now[op]:.0f}" for op in found), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
