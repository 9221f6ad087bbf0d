"""What everything else is measured with: the reference against 400 digits, and the measure of errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import FAMILY, FLOATS, Array, dtype_of, every_operation, extended, logits, with_temperature

from fastsoft.reference import OPS, PRECISION, Operation, max_error, ulp

mpmath = pytest.importorskip("mpmath", reason="NOT TESTED: the reference is checked with mpmath")


def exact(name: str, row: Array, *more: Array) -> list[object]:
    """The operation in 400 digits, by its definition; a matrix row by row."""
    with mpmath.workdps(400):
        x = [mpmath.mpf(float(a)) for a in row]
        v = [mpmath.mpf(float(a)) for a in np.atleast_1d(*more)] if more else []
        top = max(x)
        total = mpmath.fsum(mpmath.exp(a - top) for a in x)
        p = [mpmath.exp(a - top) / total for a in x]
        label = int(more[0]) if more and more[0].ndim == 0 else 0
        if name == "softmax":
            return p
        if name == "log_softmax":
            return [a - top - mpmath.log(total) for a in x]
        if name == "logsumexp":
            return [top + mpmath.log(total)]
        if name == "softmax_jacobian":
            return [a * ((i == j) - b) for i, a in enumerate(p) for j, b in enumerate(p)]
        if name == "softmax_jacobian_diagonal":
            return [a * (1 - a) for a in p]
        if name == "cross_entropy":
            return [-mpmath.fsum(b * mpmath.log(a) for a, b in zip(x, v, strict=True))]
        if name == "softmax_cross_entropy":
            return [top + mpmath.log(total) - x[label]]
        if name == "softmax_cross_entropy_with_grad":
            return [a - (i == label) for i, a in enumerate(p)]
        if name.startswith("log_softmax_vjp"):
            y = [mpmath.exp(a) for a in x] if "output" in name else p
            return [b - a * mpmath.fsum(v) for a, b in zip(y, v, strict=True)]
        y = x if "output" in name else p
        return [a * (b - mpmath.fdot(y, v)) for a, b in zip(y, v, strict=True)]


@extended
@every_operation
def test_reference(op: Operation) -> None:
    """The reference is right within a small part of an ulp of float64, the dominant class included."""
    rows = [row for n in (1, 2, 7, 100) for row in logits((15, n), "float64", n, largest=100)]
    rows += [np.array([lead, 0.0, -1.0, 0.5]) for lead in (1, 5, 20, 40, 80, 300, 700)]
    rows += [np.array([m, m + 1, m - 30, m]) for m in (-1e5, 1e7, 3e12)] + [np.array([1e300, -1e300, 1e300])]
    for row in rows:
        arguments = op.arguments(row)
        if (len(row) > 7 and op.classes == 2) or (op.name == "cross_entropy" and not arguments[0].all()):
            continue
        want = exact(op.name, *arguments)
        got = op.reference(*arguments)
        unit = ulp(op.size(got, *arguments), "float64")
        with mpmath.workdps(400):
            for a, b, u in zip(got.ravel(), want, unit.ravel(), strict=True):
                high = float(a)
                difference = (mpmath.mpf(high) + mpmath.mpf(float(a - np.longdouble(high)))) - b
                assert abs(difference) <= mpmath.mpf(float(u)) / 10, f"{row}: {a} is not {mpmath.nstr(b, 25)}"


@every_operation
def test_axis_of_the_reference(op: Operation) -> None:
    """Arguments, reference and baseline take any axis, rows keep their arguments, and the two agree roughly."""
    x = logits((3, 4, 5), "float64")
    for axis in range(-3, 3):
        arguments = op.arguments(x, axis)
        rows = np.moveaxis(x, axis, -1)
        batch = rows.shape[:-1]
        want = np.stack([op.reference(*op.arguments(row)) for row in rows.reshape(-1, rows.shape[-1])])
        want = want.reshape(*batch, *want.shape[1:])
        want = np.moveaxis(want, -1, axis) if op.classes == 1 else want
        assert np.allclose(op.reference(*arguments, axis=axis).astype(float), want.astype(float), rtol=1e-15, atol=0)
        known = op.baseline(*arguments, axis=axis)
        known = known[1] if isinstance(known, tuple) else known
        assert np.allclose(known, want.astype(float), rtol=1e-13, atol=1e-13)


@with_temperature
def test_temperature_of_the_reference(op: Operation) -> None:
    """x / T in place of x; a derivative by x has the factor 1 / T besides."""
    x = 8 * np.rint(logits((5, 9), "float64"))
    arguments = op.arguments(x)
    for t in (0.25, 1.0, 4.0):
        want = op.reference(x / t, *arguments[1:])
        want = want if op.name in (*FAMILY, "softmax_cross_entropy") else want / t
        assert np.array_equal(op.reference(*arguments, temperature=t), want)


@pytest.mark.parametrize("dtype", FLOATS)
def test_arguments(dtype: str) -> None:
    """Of x's type, shape and memory order; ordinary numbers, the same for a row in any place; labels of all kinds."""
    x = logits((200, 30), dtype_of(dtype))
    for op in OPS:
        arguments = op.arguments(x)
        assert all(a.dtype == x.dtype and a.flags.c_contiguous for a in arguments if a.shape == x.shape)
        assert all(a.flags.f_contiguous for a in op.arguments(np.asfortranarray(x)))
        for a, b, c in zip(arguments, op.arguments(x[::-2]), op.arguments(x.T, 0), strict=True):
            assert np.array_equal(a[::-2], b)
            assert np.array_equal(a.T, c)
    v, t = (op.arguments(x)[1].astype(np.float64) for op in OPS if op.name in ("softmax_vjp", "softmax_cross_entropy"))
    assert abs(v.mean()) < 0.05
    assert abs(v.std() - 1) < 0.05
    assert 0.3 < (t == x.argmax(-1)).mean() < 0.8
    assert set(t) == set(range(30))


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
    assert max_error(op, right, np.array([[0.0, math.nan]])) == math.inf
    assert max_error(op, np.full((1, 2), math.nan), np.array([[0.0, math.nan]])) == 0


def test_max_error_beyond_the_largest_number() -> None:
    """What rounds to infinity may be infinite; what does not may not."""
    op = next(op for op in OPS if op.name == "softmax_vjp")
    x = np.zeros((1, 2), np.float32)
    z = op.reference(*op.arguments(x), temperature=1e-41)
    with np.errstate(over="ignore"):
        got = z.astype(np.float32)
    assert np.isinf(got).all()
    assert max_error(op, got, x, temperature=1e-41) == 0
    assert max_error(op, -got, x, temperature=1e-41) == math.inf
    assert max_error(op, got, x, temperature=1e-30) == math.inf
