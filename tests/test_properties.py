"""Laws that hold for any input, over numbers and memory layouts that nobody would think of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from helpers import (
    FAMILY,
    SAMPLE,
    Array,
    assert_accurate,
    assert_same_bits,
    function,
    operations,
    reduces,
    softmax_family,
    some_operations,
)
from helpers import given as public
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastsoft
from fastsoft.reference import OPS, Operation, max_error, ulp

without_labels = operations(op for op in OPS if op.name in SAMPLE and "cross_entropy" not in op.name)
BOUND = {op.name: op.bound for op in OPS}
dtypes = st.sampled_from([np.dtype("float32"), np.dtype("float64")])
shapes = st.tuples(st.integers(1, 6), st.integers(1, 40))


@st.composite
def arrays(draw: st.DrawFn, limit: float | None = None, shape: st.SearchStrategy[tuple[int, ...]] = shapes) -> Array:
    """Finite logits up to `limit`: subnormal, tied, of any size."""
    dtype = draw(dtypes)
    largest = float(np.finfo(dtype).max) / 4 if limit is None else limit
    elements = hnp.from_dtype(dtype, min_value=-largest, max_value=largest, allow_nan=False, allow_infinity=False)
    usual = st.integers(-80, 80).map(float) | st.floats(-30, 30, width=32)
    return draw(hnp.arrays(dtype, shape, elements=elements | usual))


@st.composite
def views(draw: st.DrawFn) -> Array:
    """Any view of an array: steps, negative and zero strides, transposed, parts, no rows, no classes."""
    a = draw(arrays(100, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9)))
    a = a.transpose(draw(st.permutations(range(a.ndim))))
    step = st.integers(-3, 3).filter(bool)
    a = a[tuple(slice(None, None, draw(step)) for _ in a.shape)]
    if draw(st.booleans()):
        a = np.broadcast_to(a, (draw(st.integers(1, 5)), *a.shape))
    if draw(st.booleans()):
        a = np.broadcast_to(a[..., None], (*a.shape, draw(st.integers(1, 20))))
    return a


@operations(op for op in OPS if op.name in (*SAMPLE, "softmax_jacobian"))
@given(x=views(), data=st.data())
def test_views_are_as_good_as_copies(op: Operation, x: Array, data: st.DataObject) -> None:
    """The same bits from a view as from a copy, along any axes, into a new array and into a view."""
    axes: st.SearchStrategy[Any] = st.integers(-x.ndim, x.ndim - 1)
    if op.name in FAMILY:
        axes = axes | st.none() | st.just(tuple(range(0, x.ndim, 2)))
    axis = data.draw(axes)
    assume("softmax_cross_entropy" not in op.name or x.shape[axis])  # without classes no label is in range
    want = function(op)(x.copy(), axis)
    assert_same_bits(function(op)(x, axis), want)
    out = np.zeros([2 * n for n in want.shape], want.dtype)[tuple(slice(None, 2 * n, 2) for n in want.shape)]
    if want.ndim:
        function(op)(x, axis, out=out)
        assert_same_bits(out, want)


@some_operations
@given(x=arrays())
def test_bound(op: Operation, isa: str, x: Array) -> None:
    """The bound of the operation for finite numbers of all sizes, in rows and in columns."""
    assert_accurate(op, function(op)(x), x)
    assert_accurate(op, function(op)(x, 0), x, 0)


@softmax_family
@given(x=arrays(1e6), shift=st.integers(-(2**20), 2**20))
def test_shift(op: Operation, x: Array, shift: int) -> None:
    """A shift that is exact changes softmax and log_softmax within the bounds, and shifts logsumexp."""
    x = np.rint(x * 4) / 4 if x.dtype == np.float64 else np.clip(np.rint(x), -(2**20), 2**20).astype(x.dtype)
    moved = x + x.dtype.type(shift)
    assert np.array_equal(moved - x.dtype.type(shift), x)
    assert_accurate(op, function(op)(moved), moved)
    if not reduces(op):
        assert_accurate(op, function(op)(moved), x)


@without_labels
@given(x=arrays(), data=st.data())
def test_permutation(op: Operation, x: Array, data: st.DataObject) -> None:
    """Classes in another order give the same numbers in that order, within twice the bound."""
    order = data.draw(st.permutations(range(x.shape[-1])))
    arguments = [a[:, order] for a in op.arguments(x)]
    y, z = function(op)(x), public(op, *arguments)
    if op.classes:
        y = y[:, order] if op.classes == 1 else y[:, order][:, :, order]
    with np.errstate(all="ignore"):
        unit = ulp(op.size(z, *arguments), x.dtype)
        assert ((np.abs(y.astype(np.longdouble) - z) <= 2 * op.bound * unit) | (y == z)).all()
    rows = data.draw(st.permutations(range(len(x))))
    assert_same_bits(function(op)(x[rows]), function(op)(x)[rows])


@given(x=arrays())
def test_probabilities(x: Array) -> None:
    """From 0 to 1, of the sum 1, and in the order of x: all within the error."""
    y = fastsoft.softmax(x)
    eps = np.finfo(x.dtype).eps
    assert ((y >= 0) & (y <= 1 + eps)).all()
    for row in y:
        assert abs(math.fsum(row.tolist()) - 1) <= eps
    order = np.argsort(x, -1, kind="stable")
    steps = np.diff(np.take_along_axis(y, order, -1).astype(np.longdouble))
    unit = ulp(np.take_along_axis(y, order, -1)[:, 1:], x.dtype)
    assert (steps >= -2 * BOUND["softmax"] * unit).all()


@given(x=arrays())
def test_equal_logits_have_equal_probabilities(x: Array) -> None:
    """Bit for bit, wherever they stand in the row."""
    x = np.concatenate([x, x[:, ::-1], x[:, :1]], axis=1)
    for function_ in (fastsoft.softmax, fastsoft.log_softmax):
        y = function_(x)
        n = (x.shape[1] - 1) // 2
        assert_same_bits(y[:, :n], y[:, n : 2 * n][:, ::-1])
        assert_same_bits(y[:, 0], y[:, -1])


@given(x=arrays(1e3))
def test_log_softmax_is_the_logarithm(x: Array) -> None:
    """exp(log_softmax) is softmax, log(softmax) is log_softmax where it can be, and none is above 0."""
    y, p = fastsoft.log_softmax(x).astype(np.longdouble), fastsoft.softmax(x).astype(np.longdouble)
    assert (y <= 0).all()
    eps = np.finfo(x.dtype).eps
    tiny = np.finfo(x.dtype).tiny
    assert (np.abs(np.exp(y) - p) <= (4 + 3 * np.abs(y)) * eps * p + 2 * tiny).all()
    normal = p > 100 * tiny
    assert (np.abs(np.log(p[normal]) - y[normal]) <= eps * (4 + 3 * np.abs(y[normal]))).all()


@given(x=arrays())
def test_logsumexp_is_above_the_maximum(x: Array) -> None:
    """Between the maximum and the maximum plus log n; exactly the maximum where the rest does not count."""
    top, n = x.max(-1), x.shape[-1]
    y = fastsoft.logsumexp(x)
    unit = BOUND["logsumexp"] * ulp(np.maximum(np.abs(y), 1), x.dtype)
    assert (y >= top - unit).all()
    assert (y <= top + np.longdouble(math.log(n)) + unit).all()


@given(x=arrays(100), y=arrays(100))
def test_logsumexp_of_parts(x: Array, y: Array) -> None:
    """The logsumexp of two rows is that of their two logsumexps."""
    n = min(len(x), len(y))
    x, y = x[:n].astype(np.float64), y[:n].astype(np.float64)
    whole = fastsoft.logsumexp(np.concatenate([x, y], axis=1))
    parts = fastsoft.logsumexp(np.stack([fastsoft.logsumexp(x), fastsoft.logsumexp(y)], axis=1))
    assert np.allclose(whole, parts, rtol=1e-14, atol=1e-14)


@softmax_family
@given(x=arrays(), data=st.data())
def test_masked_is_minus_infinity(op: Operation, x: Array, data: st.DataObject) -> None:
    """A mask has the effect of -inf in its place."""
    mask = data.draw(hnp.arrays(bool, x.shape))
    hidden = np.where(mask, x, x.dtype.type(-math.inf))
    got, want = function(op)(x, where=mask), function(op)(hidden)
    error = max_error(op, got[mask.any(-1)], hidden[mask.any(-1)])
    assert error <= op.bound
    assert np.array_equal(np.isnan(got), np.isnan(want))
