"""What everything else is measured with: the reference against 400 digits, and the measure of errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import FLOATS, Array, dtype_of, every_operation, logits

from fastsoft.reference import OPS, PRECISION, Operation, max_error, ulp

mpmath = pytest.importorskip("mpmath", reason="NOT TESTED: the reference is checked with mpmath")
extended = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63,
    reason="NOT TESTED: longdouble has no more digits than float64 here, so errors are larger than they look",
)


def exact(name: str, row: Array) -> list[object]:
    """The operation in 400 digits, by its definition."""
    with mpmath.workdps(400):
        x = [mpmath.mpf(float(a)) for a in row]
        top = max(x)
        total = mpmath.fsum(mpmath.exp(a - top) for a in x)
        if name == "softmax":
            return [mpmath.exp(a - top) / total for a in x]
        if name == "log_softmax":
            return [a - top - mpmath.log(total) for a in x]
        return [top + mpmath.log(total)]


@extended
@every_operation
def test_reference(op: Operation) -> None:
    """The reference is right within a small part of an ulp of float64, the dominant class included."""
    rows = [row for n in (1, 2, 7, 100) for row in logits((15, n), "float64", n, largest=100)]
    rows += [np.array([lead, 0.0, -1.0, 0.5]) for lead in (1, 5, 20, 40, 80, 300, 700)]
    rows += [np.array([m, m + 1, m - 30, m]) for m in (-1e5, 1e7, 3e12)] + [np.array([1e300, -1e300, 1e300])]
    for row in rows:
        want = exact(op.name, row)
        got = np.atleast_1d(op.reference(row))
        unit = ulp(np.maximum(np.abs(got), op.floor), "float64")
        with mpmath.workdps(400):
            for a, b, u in zip(got, want, unit, strict=True):
                high = float(a)
                difference = (mpmath.mpf(high) + mpmath.mpf(float(a - np.longdouble(high)))) - b
                assert abs(difference) <= mpmath.mpf(float(u)) / 10, f"{row}: {a} is not {mpmath.nstr(b, 25)}"


@every_operation
def test_axis_of_the_reference(op: Operation) -> None:
    """Reference and baseline take any axis, and agree roughly."""
    x = logits((3, 4, 5), "float64")
    for axis in range(-3, 3):
        want = np.apply_along_axis(op.reference, axis, x)
        assert np.allclose(op.reference(x, axis).astype(float), want.astype(float), rtol=1e-15, atol=0)
        assert np.allclose(op.baseline(x, axis), want.astype(float), rtol=1e-13, atol=1e-13)


def test_operations_have_different_names() -> None:
    assert len({op.name for op in OPS}) == len(OPS) >= 3


@pytest.mark.parametrize("dtype", FLOATS)
def test_ulp(dtype: str) -> None:
    """The distance to the next number of the dtype, and one subnormal step below the normal numbers."""
    number = dtype_of(dtype)
    digits, smallest = PRECISION[dtype]
    one = 2.0 ** (1 - digits)
    step = math.ldexp(1, smallest - digits + 1)
    cases = {1.0: one, -1.0: one, 1.5: one, 2.0: 2 * one, 0.75: one / 2, 0.0: step}
    assert [float(ulp(np.array(x), number)) for x in cases] == list(cases.values())
    for x in (math.ldexp(1, smallest), math.ldexp(1, smallest - 3), step):
        assert ulp(np.array(x), number) == step
    assert number.type(1) + number.type(one) > 1
    assert number.type(step) > 0
    assert number.type(step / 4) == 0


def test_max_error() -> None:
    """In ULP of the result; what is not finite on one side alone is an infinite error."""
    op = OPS[0]
    x = np.zeros((1, 2))
    right = np.array([[0.5, 0.5]])
    assert max_error(op, right, x) == 0
    assert max_error(op, right + np.array([[2**-52, 0]]), x) == 2
    assert max_error(op, right - np.array([[0, 2**-54]]), x) == 0.5
    for wrong in (math.nan, math.inf, -math.inf):
        assert max_error(op, np.array([[0.5, wrong]]), x) == math.inf
    empty = np.zeros((0, 2))
    assert max_error(op, empty, empty) == 0
    with np.errstate(invalid="ignore"):
        assert max_error(op, right, np.array([[0.0, math.nan]])) == math.inf
        assert max_error(op, np.full((1, 2), math.nan), np.array([[0.0, math.nan]])) == 0
