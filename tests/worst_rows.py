"""Search for the rows with the largest errors by hill-climbing. The worst of each operation is kept in
worst_rows.json, which `test_worst_rows.py` checks and the documentation shows.

    python tests/worst_rows.py --seconds 60 softmax

Each search starts at random rows of a length, keeps those with the largest errors, and changes them a little: by some
ulps, by ties, by an offset, by what other rows have. Where that has led nowhere for a while it starts again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from helpers import WORK, Array, given

from fastsoft.reference import OPS, Operation, errors

FILE = Path(__file__).with_name("worst_rows.json")
PARENTS, CHILDREN = 128, 4  # rows that stay in a search, and changed ones that each gives
PATIENCE = 60  # rounds without a larger error
LENGTHS = (2, 3, 4, 5, 8, 13, 16, 24, 33, 64)


@dataclass
class Rows:
    """Logits, and of operations with two arguments the second: (rows, n), or (rows,) labels."""

    x: Array
    second: Array | None

    def take(self, k: Array) -> Rows:
        return Rows(self.x[k], None if self.second is None else self.second[k])

    def join(self, other: Rows) -> Rows:
        second = None
        if self.second is not None and other.second is not None:
            second = np.concatenate([self.second, other.second])
        return Rows(np.concatenate([self.x, other.x]), second)


def arguments(op: Operation, rows: Rows) -> tuple[Array, ...]:
    first = op.arguments(rows.x)[0]  # of a function of kept outputs: those of logits
    return (first,) if rows.second is None else (first, rows.second)


def errors_of(op: Operation, rows: Rows) -> Array:
    """The largest error of each row."""
    given_ = arguments(op, rows)
    with np.errstate(all="ignore"):
        error = errors(op, given(op, *given_), given_)
    return error.reshape(len(rows.x), -1).max(-1).astype(np.float64)


def started(rng: np.random.Generator, op: Operation, n: int, dtype: str) -> Rows:
    """Flat and confident rows, ties, gaps, one class ahead, alternating ones, large offsets, and subnormal numbers."""
    count = PARENTS * CHILDREN
    x = rng.standard_normal((count, n)) * 10 ** rng.uniform(-2, 2, (count, 1))
    kind = rng.integers(0, 8, count)
    x[kind == 0] = np.rint(x[kind == 0])
    x[kind == 1] -= rng.uniform(0, 100 if dtype == "float32" else 740, (int((kind == 1).sum()), 1)) * (np.arange(n) > 0)
    x[kind == 2, 1::2] *= -1
    x[kind == 3] += 2 ** rng.uniform(0, 30, (int((kind == 3).sum()), 1))
    x[kind == 4] *= float(np.finfo(dtype).smallest_normal)
    x[kind == 5] = x[kind == 5] * 2.0**-20 + np.log(2) * np.rint(x[kind == 5])
    second = op.arguments(x.astype(dtype))[1:]
    return Rows(x.astype(dtype), second[0] if second else None)


def changed(rng: np.random.Generator, a: Array) -> Array:
    """Each row changed in some places, in one of several ways."""
    count, n = a.shape
    integer = np.dtype(f"i{a.dtype.itemsize}")
    kind = rng.integers(0, 6, (count, 1))
    places = rng.random(a.shape) < rng.choice([1 / n, 2 / n, 0.5, 1.0], (count, 1))
    most = 2 ** rng.integers(0, 24, (count, 1))
    ulps = (a.view(integer) + rng.integers(-most, most + 1, a.shape, dtype=np.int64).astype(integer)).view(a.dtype)
    with np.errstate(all="ignore"):
        noise = a + rng.standard_normal(a.shape) * 10 ** rng.uniform(-4, 1, (count, 1))
        offset = a + rng.standard_normal((count, 1)) * 10 ** rng.uniform(-3, 2, (count, 1))
        scale = a * rng.uniform(0.5, 2, (count, 1))
        other = np.take_along_axis(a, rng.integers(0, n, a.shape), 1)  # ties
        another = a[rng.permutation(count)]
        new = np.select([kind == k for k in range(5)], [ulps, noise, offset, scale, other], another)
        new = np.where(places | (kind == 2) | (kind == 3), new, a).astype(a.dtype)
    return np.where(np.isfinite(new), new, a)


def children(rng: np.random.Generator, op: Operation, rows: Rows) -> Rows:
    many = rows.take(np.repeat(np.arange(len(rows.x)), CHILDREN))
    which = rng.random(len(many.x)) < (1 if many.second is None else 0.5)
    x, second = np.where(which[:, None], changed(rng, many.x), many.x), many.second
    if second is not None and second.ndim == 1:
        second = np.where(which, second, rng.integers(0, x.shape[1], len(x)))
    elif second is not None:
        new = changed(rng, second)
        second = np.where(which[:, None], second, np.abs(new) if op.name == "cross_entropy" else new)
    return Rows(x, second)


def search(op: Operation, dtype: str, seconds: float, seed: int) -> tuple[float, Rows]:
    """The largest error that was found, and its row."""
    rng = np.random.default_rng(seed)
    best, worst = 0.0, started(rng, op, 2, dtype).take(np.arange(1))
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        n = int(rng.choice([n for n in LENGTHS if op.classes < 2 or n <= 8]))
        rows = started(rng, op, n, dtype)
        error, top, idle = errors_of(op, rows), 0.0, 0
        while idle < PATIENCE and time.monotonic() < stop:
            keep = np.argsort(-error, kind="stable")[:PARENTS]
            rows, error = rows.take(keep), error[keep]
            idle = 0 if error[0] > top else idle + 1
            top = float(error[0])
            new = children(rng, op, rows)
            rows, error = rows.join(new), np.concatenate([error, errors_of(op, new)])
        if top > best:
            best, worst = top, rows.take(np.array([error.argmax()]))
    return best, worst


# ---- what is kept ----


def encoded(a: Array) -> list[Any]:
    return a.tolist() if a.dtype.kind == "i" else [float(value).hex() for value in a]


def decoded(values: list[Any], dtype: str) -> Array:
    if isinstance(values[0], int):
        return np.array(values[0])  # a label
    return np.array([float.fromhex(value) for value in values]).astype(dtype)


def load() -> dict[tuple[str, str], dict[str, Any]]:
    """Of each operation and dtype its `error`, and the `arguments`, of one row."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else []
    return {(entry["operation"], entry["dtype"]): entry for entry in kept}


def save(kept: dict[tuple[str, str], dict[str, Any]]) -> None:
    entries = ",\n ".join(json.dumps(kept[key]) for key in sorted(kept))
    FILE.write_text(f"[\n {entries}\n]\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=", ".join(op.name for op in OPS))
    parser.add_argument("--seconds", type=float, default=60, help="for each operation and dtype")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    failed = False
    for op in OPS:
        for dtype in WORK if not a.operations or op.name in a.operations else ():
            error, rows = search(op, dtype, a.seconds, a.seed)
            kept = load()
            before = kept.get((op.name, dtype), {"error": 0.0})["error"]
            if error > before:
                of_row = [encoded(np.atleast_1d(b[0])) for b in arguments(op, rows)]
                entry = {"operation": op.name, "dtype": dtype, "error": round(error, 4), "arguments": of_row}
                kept[op.name, dtype] = entry
                save(kept)
            failed |= error > op.bound
            note = f"before {before:.4f}, allowed {op.bound}" + ("  LARGER" if error > op.bound else "")
            print(f"{op.name:32} {dtype:8} {error:.4f} ULP in {a.seconds:g} s; {note}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
