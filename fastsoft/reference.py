"""Every operation in plain NumPy, and `OPS`, the list that tests, benchmarks and `fastsoft bench` walk.

`reference` is the formula in extended precision (80 bits on x86), with the dominant class
kept free of cancellation; `baseline` is what one writes in NumPy without fastsoft.
Nothing here is called by the package's own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _wide(x: Array, axis: int) -> Array:
    """`x` in extended precision with the classes on the last axis."""
    return np.moveaxis(np.asarray(x).astype(np.longdouble), axis, -1)


def _parts(x: Array) -> tuple[Array, Array, Array, Array]:
    """max, exp(x - max), the index of one dominant class, and the sum of all the others."""
    top = x.max(-1, keepdims=True)
    e = np.exp(x - top)
    first = x.argmax(-1)[..., None]
    others = e.copy()
    np.put_along_axis(others, first, 0, -1)
    return top, e, first, others.sum(-1, keepdims=True)


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x_i) / sum_j exp(x_j)"""
    _, e, _, rest = _parts(_wide(x, axis))
    return np.moveaxis(e / (1 + rest), -1, axis)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """x_i - log sum_j exp(x_j); of the dominant class -log1p(sum of the others)"""
    x = _wide(x, axis)
    top, _, first, rest = _parts(x)
    y = (x - top) - np.log1p(rest)
    np.put_along_axis(y, first, -np.log1p(rest), -1)
    return np.moveaxis(y, -1, axis)


def logsumexp(x: Array, axis: int = -1) -> Array:
    """log sum_j exp(x_j)"""
    top, _, _, rest = _parts(_wide(x, axis))
    return (top + np.log1p(rest))[..., 0]


def _numpy_softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _numpy_log_softmax(x: Array, axis: int = -1) -> Array:
    d = x - x.max(axis, keepdims=True)
    return d - np.log(np.exp(d).sum(axis, keepdims=True))


def _numpy_logsumexp(x: Array, axis: int = -1) -> Array:
    top = x.max(axis, keepdims=True)
    return (np.log(np.exp(x - top).sum(axis, keepdims=True)) + top).squeeze(axis)


@dataclass(frozen=True)
class Operation:
    """One public operation: how it is checked, and what it is compared with."""

    name: str  # of the function in `fastsoft`
    reference: Callable[..., Array]
    baseline: Callable[..., Array]
    bound: float  # ULP for float32 and float64, for every finite input
    bound16: float  # ULP for float16 and bfloat16
    floor: float  # errors are counted in ULP of max(|result|, floor)


OPS = (
    Operation("softmax", softmax, _numpy_softmax, 2.5, 0.51, 0.0),
    Operation("log_softmax", log_softmax, _numpy_log_softmax, 3.0, 0.51, 0.0),
    Operation("logsumexp", logsumexp, _numpy_logsumexp, 2.0, 0.51, 1.0),
)

PRECISION = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}


def ulp(x: Array, dtype: Any) -> Array:
    """The distance between neighbouring `dtype` numbers at `x`; below the normal numbers one subnormal step."""
    bits, smallest = PRECISION[np.dtype(dtype).name]
    x = np.abs(np.asarray(x, np.longdouble))
    _, exponent = np.frexp(x)
    exponent = np.where(x > 0, exponent - 1, smallest)
    return np.ldexp(np.longdouble(1), np.maximum(exponent, smallest) - (bits - 1))


def max_error(op: Operation, got: Array, x: Array, axis: int = -1) -> float:
    """The largest error of `got` = op(x) in ULP of the result; infinite where one side is not finite alone."""
    want = op.reference(x, axis)
    unit = ulp(np.maximum(np.abs(want), op.floor), got.dtype)
    got = got.astype(np.longdouble)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(got - want) / unit)
    return float(np.where(np.isnan(error), np.inf, error).max(initial=0))
