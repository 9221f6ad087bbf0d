"""Every row [x, 0] of float32, for all 2**32 x, and every row [x, c] of float16 and bfloat16, on every variant.

    python tests/exhaustive.py float32

It takes 22 minutes on two cores, and ends with status 1 where an error is larger than its bound. `--every 1000`
takes each 1000th row. The rows come in the order of their bits: subnormal numbers, infinities and all NaN are among
them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import Array, bits, dtype_of, use

import fastsoft
from fastsoft import _dispatch
from fastsoft.reference import OPS, PRECISION, distance

ALL = 1 << 32  # rows
BLOCK = 1 << 14  # of them, whose numbers stay in a cache
JOB = 64  # blocks


class Rows:
    """What is known of rows [x, c], in float64: far more digits than the three types have."""

    def __init__(self, x: Array, c: Array) -> None:
        self.rows = np.stack([x, c], -1)
        self.labels = np.zeros(len(x), np.intp)
        a, b = x.astype(np.float64), c.astype(np.float64)
        d = np.where((a == np.inf) | (b == np.inf), np.nan, a - b)
        e = np.exp(-np.abs(d))
        small, large, log = e / (1 + e), 1 / (1 + e), np.log1p(e)
        self.p = np.stack([np.where(d < 0, small, large), np.where(d < 0, large, small)], -1)
        self.log_p = np.stack([np.minimum(d, 0) - log, np.minimum(-d, 0) - log], -1)
        top = np.maximum(a, b)
        self.logsumexp = np.where(np.isinf(top), top, top + log)
        self.exp = np.exp(-np.abs(a))


def _exp(known: Rows) -> Array:
    """e^-|x|, as 0 - e^-|x| (0 - 1)"""
    g = np.broadcast_to(np.asarray([0, -1], known.rows.dtype), known.rows.shape)
    return fastsoft.log_softmax_vjp_from_output(-np.abs(known.rows), g)[:, 0]


@dataclass(frozen=True)
class Case:
    """A result, what it should be, and, if that is not what its errors are counted in ULP of, that."""

    name: str
    operation: str
    got: Callable[[Rows], Array]
    want: Callable[[Rows], Array]
    size: Callable[[Rows], Array] | None = None
    bound: float = 0  # where it is not the operation's

    def bound_of(self, dtype: np.dtype[Any]) -> float:
        op = next(op for op in OPS if op.name == self.operation)
        return op.bound16 if dtype.itemsize == 2 else self.bound or op.bound


UNIT = 1.02894855  # of the exponentials of float32 with FMA: simd/math.hpp
CASES = (
    Case("softmax", "softmax", lambda k: fastsoft.softmax(k.rows), lambda k: k.p),
    Case("log_softmax", "log_softmax", lambda k: fastsoft.log_softmax(k.rows), lambda k: k.log_p),
    Case(
        "logsumexp",
        "logsumexp",
        lambda k: fastsoft.logsumexp(k.rows),
        lambda k: k.logsumexp,
        lambda k: np.maximum(np.abs(k.logsumexp), 1),
    ),
    Case(
        "gradient of the loss",
        "softmax_cross_entropy_with_grad",
        lambda k: fastsoft.softmax_cross_entropy_with_grad(k.rows, k.labels)[1],
        lambda k: k.p[:, 1:] * np.array([-1.0, 1.0]),
    ),
    # In ulps of the exponential itself, in the unit of its table: 1, and half a one because the result, from which that
    # is taken, is rounded again; of subnormal results without FMA also the half is rounded that keeps z from overflow.
    Case(
        "exp",
        "log_softmax_vjp_from_output",
        _exp,
        lambda k: k.exp,
        lambda k: np.maximum(UNIT * k.exp, 2.0**-125),
        1.5,
    ),
)


class Found(NamedTuple):
    """The largest error of a case with a variant, and its row."""

    error: float
    row: list[float]


def unit(size: Array, dtype: np.dtype[Any]) -> Array:
    """As `fastsoft.reference.ulp` for numbers of float64, and fast."""
    digits, smallest = PRECISION[dtype.name]
    power = (size.view(np.uint64) & np.uint64(0x7FF << 52)).view(np.float64)
    return np.maximum(power, 2.0**smallest) * 2.0 ** (1 - digits)


def errors(got: Array, want: Array, size: Array) -> Array:
    """The largest error of each row in ULP of `size`."""
    of_size = unit(size, got.dtype)
    error = np.abs(got.astype(np.float64) - want)
    error /= of_size
    if not np.isfinite(error).all():
        error = distance(got, want, of_size)
    return np.maximum(error[:, 0], error[:, 1]) if error.ndim == 2 else error


def made(dtype: np.dtype[Any], numbers: Array) -> Rows:
    """The rows of these numbers below 2**32: of float32 x has those bits, and c is 0; else x and c have half each."""
    if dtype.itemsize == 4:
        x = numbers.astype(np.uint32).view(dtype)
        return Rows(x, np.zeros_like(x))
    half = numbers.astype(np.uint32).view(np.uint16).reshape(-1, 2)
    return Rows(*(np.ascontiguousarray(half[:, k]).view(dtype) for k in (0, 1)))


def worst(dtype: np.dtype[Any], blocks: list[range]) -> dict[tuple[str, str], Found]:
    """The largest error of each case and variant."""
    found: dict[tuple[str, str], Found] = {}
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        for block in blocks:
            known = made(dtype, np.arange(block.start, block.stop, block.step))
            results: dict[str, list[Array]] = {}
            for isa in _dispatch.available():
                use(isa, patch)
                results[isa] = [case.got(known) for case in CASES]
            for k, case in enumerate(CASES):
                want = case.want(known)
                size = case.size(known) if case.size else want
                last = error = np.zeros(0)
                for isa, results_ in results.items():
                    got = results_[k]
                    if len(last) == 0 or not np.array_equal(bits(got), bits(last)):
                        last, error = got, errors(got, want, size)
                    at = int(error.argmax())
                    if error[at] >= found.get((case.name, isa), Found(-1, [])).error:
                        found[case.name, isa] = Found(float(error[at]), known.rows[at].tolist())
    return found


def blocks_of(every: int, start: int = 0, count: int = ALL) -> list[range]:
    """Each so-manieth of the numbers from `start` on, below 2**32, in at most `count` blocks."""
    step = BLOCK * every
    return [range(at, min(ALL, at + step), every) for at in range(start, min(ALL, start + count * step), step)]


def _job(job: tuple[str, int, int]) -> dict[tuple[str, str], Found]:
    dtype, every, start = job
    fastsoft.set_num_threads(1)
    return worst(dtype_of(dtype), blocks_of(every, start, JOB))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dtype", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--every", type=int, default=1, help="take each row of that number")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    a = parser.parse_args()
    found: dict[tuple[str, str], Found] = {}
    jobs = [(a.dtype, a.every, start) for start in range(0, ALL, BLOCK * a.every * JOB)]
    with multiprocessing.get_context("spawn").Pool(a.processes) as pool:
        for done, some in enumerate(pool.imap_unordered(_job, jobs), 1):
            for key, value in some.items():
                found[key] = max(value, found.get(key, value))
            if sys.stderr.isatty():
                print(f"\r{100 * done // len(jobs)} %", end="", file=sys.stderr, flush=True)
    failed = 0
    for case in CASES:
        bound = case.bound_of(dtype_of(a.dtype))
        for isa in _dispatch.available():
            error, row = found[case.name, isa]
            failed += error > bound
            note = "  LARGER" if error > bound else ""
            print(f"{case.name:20} {isa:9} at most {error:.4f} ULP, at {row}; {bound} are allowed{note}")
    print(f"{len(range(0, ALL, a.every))} rows of {a.dtype}; {failed} errors larger than their bounds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
