"""What the tests share: input arrays, the ways they can lie in memory, and comparisons."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastsoft
from fastsoft.reference import OPS, Operation, max_error

Array = np.ndarray[Any, Any]

FLOATS = ("float16", "bfloat16", "float32", "float64")
WORK = ("float32", "float64")  # the types that are computed in
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
# Around a register's lanes (16 float32, 8 float64), several registers, and a block of a long row.
LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000, 8191, 8192, 8193)


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of that name; the test is skipped where only ml_dtypes would have it."""
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16)
    return np.dtype(name)


def function(op: Operation) -> Callable[..., Array]:
    """The public function of an operation."""
    return getattr(fastsoft, op.name)  # type: ignore[no-any-return]


def takes(op: Operation, argument: str) -> bool:
    """Whether the function of an operation has an argument of that name."""
    return argument in inspect.signature(function(op)).parameters


def reduces(op: Operation) -> bool:
    """Whether the result has lost the class axis; otherwise it has x's shape."""
    return takes(op, "keepdims")


def operations(ops: Iterable[Operation]) -> pytest.MarkDecorator:
    """For each of these operations."""
    return pytest.mark.parametrize("op", list(ops), ids=lambda op: op.name)


every_operation = operations(OPS)
elementwise = operations(op for op in OPS if not reduces(op))
with_temperature = operations(op for op in OPS if takes(op, "temperature"))
with_empty = operations(op for op in OPS if takes(op, "empty"))


def logits(shape: tuple[int, ...], dtype: Any, seed: int = 0, largest: float = 20) -> Array:
    """Normal numbers, whose deviation is from 0.2 to `largest` in a row: flat rows beside confident ones."""
    rng = np.random.default_rng([seed, *shape])
    deviation = 0.2 * (largest / 0.2) ** rng.random((*shape[:-1], 1))
    return (rng.standard_normal(shape) * deviation).astype(dtype)


def layouts(x: Array) -> Iterator[tuple[str, Array, int]]:
    """A (p, q, n) array in other memory: a name, the array and its class axis. All have x's rows in x's order."""
    n = x.shape[-1]
    columns = np.ascontiguousarray(x.reshape(-1, n).T)
    gaps = np.tile(x, (2, 2, 2))  # a wrong step would take the wrong number
    gaps[::2, ::2, ::2] = x
    yield "C order", x, -1
    yield "Fortran order", np.asfortranarray(x), -1
    yield "reversed", np.ascontiguousarray(x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1], -1
    yield "every second", gaps[::2, ::2, ::2], -1
    yield "first axis of two", columns, 0
    yield "first axis of two, reversed", np.ascontiguousarray(columns[::-1, ::-1])[::-1, ::-1], 0
    yield "two axes transposed", columns.T, -1
    yield "first axis of three", np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0
    yield "middle axis", np.ascontiguousarray(np.moveaxis(x, -1, 1)), 1
    yield "three axes transposed", np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1), -1
    yield "batch transposed", np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2), -1


def in_rows(result: Array, x: Array, axis: int) -> Array:
    """The result for x with a row for each row of x: (rows, n), or (rows,) where the operation reduces."""
    if result.ndim < x.ndim:
        return result.reshape(-1)
    return np.moveaxis(result, axis, -1).reshape(-1, x.shape[axis])


def bound_of(op: Operation, dtype: np.dtype[Any]) -> float:
    """The error in ULP that an operation allows itself."""
    return op.bound16 if dtype.itemsize == 2 else op.bound


def knowing(op: Operation, want: Array) -> Operation:
    """The operation with a result that is known, for several comparisons with it."""
    return replace(op, reference=lambda x, axis=-1: want)


def assert_accurate(op: Operation, got: Array, x: Array, axis: int = -1, *, bound: float | None = None) -> None:
    """`got` = op(x) within the bound of the operation."""
    bound = bound_of(op, got.dtype) if bound is None else bound
    error = max_error(op, got, x, axis)
    assert error <= bound, f"an error of {error:.4g} ULP, {bound} are allowed"


def bits(a: Array) -> Array:
    """The numbers' bits, in which 0 and -0 differ and NaN equals itself."""
    return np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}").reshape(a.shape)


def assert_same_bits(got: Array, want: Array) -> None:
    """The same dtype, shape and bits."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    differ = np.argwhere(bits(got) != bits(want))
    if len(differ):
        first = tuple(map(int, differ[0]))
        pytest.fail(f"{len(differ)} of {got.size} differ, first at {first}: {got[first]!r} and {want[first]!r}")


def python(code: str, *, timeout: float = 60, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter, which hangs no longer than `timeout` seconds. None unsets a variable."""
    merged = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in merged.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
