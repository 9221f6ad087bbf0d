"""Speed of every operation beside what one writes in NumPy; nothing is timed before its result is checked."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest

import fastsoft
from fastsoft.reference import OPS, Operation, max_error

pytest.importorskip("pytest_benchmark", reason="the benchmarks need pytest-benchmark")

CASES = (  # shape, axis: what it stands for
    ((1, 10), -1),  # the cost of a call
    ((64, 10), -1),  # a batch of a small classifier
    ((8192, 128), -1),  # rows of attention
    ((64, 1000), -1),  # ImageNet
    ((1000, 1000), -1),
    ((1000, 1000), 0),  # columns
    ((1, 131_072), -1),  # one row that is shared out among threads
    ((16, 50_257), -1),  # a vocabulary
)
DTYPES = ("float32", "float64")
ALL = [(shape, axis, dtype) for shape, axis in CASES for dtype in DTYPES] + [((64, 1000), -1, "float16")]


LARGEST = 1 << 22  # the most elements of a result: there are n times more in Jacobians
BENCHES = [
    (op, case) for op in OPS for case in ALL if op.classes < 2 or math.prod(case[0]) * case[0][case[1]] <= LARGEST
]


@functools.cache
def logits(shape: tuple[int, ...], dtype: str) -> Any:
    return np.random.default_rng(0).normal(0, 5, shape).astype(dtype)


def name(case: Any) -> str:
    shape, axis, dtype = case
    return "x".join(map(str, shape)) + (f" axis {axis}" if axis != -1 else "") + f" {dtype}"


@pytest.mark.parametrize("library", ["fastsoft", "NumPy"])
@pytest.mark.parametrize(("op", "case"), BENCHES, ids=lambda a: a.name if isinstance(a, Operation) else name(a))
@pytest.mark.benchmark(max_time=0.3, min_rounds=5)
def test_speed(benchmark: Any, op: Operation, case: Any, library: str) -> None:
    """One operation on one array, by fastsoft and by NumPy in one group."""
    shape, axis, dtype = case
    x = logits(shape, dtype)
    function = getattr(fastsoft, op.name) if library == "fastsoft" else op.baseline
    arguments = op.arguments(x, axis)
    error = max_error(op, function(*arguments, axis=axis), x, axis)
    if library == "fastsoft":
        assert error <= (op.bound16 if dtype == "float16" else op.bound)
    benchmark.group = f"{op.name} {name(case)}"
    benchmark.extra_info.update(error_in_ulp=error, threads=fastsoft.get_num_threads(), elements=x.size)
    benchmark(function, *arguments, axis=axis)
