"""NaN, infinities, masks, empty rows and shapes, subnormal results: what is promised beyond ordinary numbers."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import pickle
import platform
import sys
from typing import Any

import numpy as np
import pytest
from helpers import (
    FAMILY,
    FLOATS,
    INTEGERS,
    WORK,
    Array,
    assert_accurate,
    assert_same_bits,
    at_any_length,
    bits,
    dtype_of,
    every_operation,
    function,
    given,
    knowing,
    logits,
    reduces,
    result_shape,
    softmax_family,
    takes,
    with_empty,
)

import fastsoft
from fastsoft.reference import OPS, Operation, ulp

NAN, INF = math.nan, math.inf
ONE_CLASS = {"softmax": 1.0, "logsumexp": 1.0}  # of the number 1; elsewhere 0
LENGTHS = (*range(1, 41), *range(63, 66), *range(124, 134))
SOME_LENGTHS = (1, 2, 3, 7, 8, 9, 16, 17, 33, 65)


def both_ways(op: Operation, x: Array, **arguments: Any) -> tuple[Array, Array]:
    """op(x) of the rows as they lie, and of the same rows as columns."""
    columns = function(op)(np.ascontiguousarray(x.T), 0, **arguments)
    return function(op)(x, **arguments), columns.T if columns.ndim == 2 else columns


# ---- NaN and infinities ----


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "inserted",
    [(NAN,), (-NAN,), (INF,), (NAN, INF), (INF, NAN), (-INF, NAN), (NAN, -INF), (INF, -INF), (INF, INF)],
    ids=str,
)
def test_not_finite_in_every_place(op: Operation, isa: str, dtype: str, inserted: tuple[float, ...]) -> None:
    """A NaN or +inf, wherever it stands in a row, makes the row NaN (logsumexp: NaN, or +inf), and no other row."""
    infinite = op.name == "logsumexp" and not any(map(math.isnan, inserted))
    for n in LENGTHS if op.name in FAMILY else SOME_LENGTHS:
        if n < len(inserted):
            continue
        clean = logits((n - len(inserted) + 1, n), dtype_of(dtype))
        x = np.repeat(clean, 2, axis=0)
        for k in range(len(clean)):
            x[2 * k, k : k + len(inserted)] = inserted
        for y, want in zip(both_ways(op, x), both_ways(op, clean), strict=True):
            wrong = np.where(y[::2] == INF, NAN, 0) if infinite else y[::2]
            assert np.isnan(wrong).all(), f"n = {n}: missed at {np.argwhere(~np.isnan(wrong))[0]}"
            assert_same_bits(y[1::2], want)


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_minus_infinity_in_every_place(op: Operation, isa: str, dtype: str) -> None:
    """A class of -inf has probability 0, and the others are as if it were not there."""
    for n in (LENGTHS if op.name in FAMILY else SOME_LENGTHS)[1:]:
        x = logits((n, n), dtype_of(dtype))
        np.fill_diagonal(x, -INF)
        x[:, n // 2] = 1
        for y in both_ways(op, x):
            assert_accurate(op, y, x)


@every_operation
@pytest.mark.parametrize("dtype", WORK)
def test_only_one_number_in_a_row(op: Operation, isa: str, dtype: str) -> None:
    """All classes but one are -inf: the logarithm of its probability is 0, whatever its size, and logsumexp is it."""
    for value in (0.0, -0.0, 1.0, -3e38, 3e38, 1e-45, -1e7):
        for n in (1, 2, 8, 17, 40):
            x = np.full((n, n), -INF, dtype)
            np.fill_diagonal(x, value)
            for y in both_ways(op, x):
                assert_accurate(op, y, x, bound=0 if op.name in ("log_softmax", "logsumexp") else op.bound)


@at_any_length
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_in_a_long_row(op: Operation, isa: str, dtype: str) -> None:
    """A NaN is found in any block of a row that is shared out among threads, and in front of all -inf."""
    n = 131072 + 5
    for place in (0, 1, 8191, 8192, 65536, n - 6, n - 1):
        for rest in (0, -INF):
            x = np.full((1, n), rest, dtype_of(dtype))
            x[0, place] = NAN
            assert np.isnan(function(op)(x, num_threads=2)).all()


# ---- rows with nothing in them ----


@pytest.mark.parametrize("dtype", FLOATS)
def test_empty_rows(isa: str, dtype: str) -> None:
    """Rows of -inf give NaN, or probability 0 with empty="zero", and logsumexp is -inf; other rows do not mind."""
    number = dtype_of(dtype)
    for n in (1, 2, 7, 8, 9, 16, 17, 33, 129):
        x = logits((12, n), number)
        x[[0, 3, 4, 11]] = -INF
        full = np.delete(np.arange(12), [0, 3, 4, 11])
        for op in OPS:
            for y in both_ways(op, x):
                hollow = np.delete(y, full, axis=0)
                assert (hollow == -INF).all() if op.name == "logsumexp" else np.isnan(hollow).all(), op.name
                assert_same_bits(y[full], function(op)(x[full]))
            if takes(op, "empty"):
                for y in both_ways(op, x, empty="zero"):
                    assert (np.delete(y, full, axis=0) == (0 if op.name == "softmax" else -INF)).all()
                    assert_same_bits(y[full], function(op)(x[full]))


@with_empty
@pytest.mark.parametrize("empty", ["nan", "zero"])
def test_empty_rows_at_any_temperature(op: Operation, isa: str, empty: str) -> None:
    """An empty row gives what `empty` says, whichever way x goes into exp."""
    x = np.full((3, 10), -INF)
    want = function(op)(x, empty=empty)
    for t in (0.5, 3.0, 1e-30, 1e30):
        assert_same_bits(function(op)(x, empty=empty, temperature=t), want)
        assert_same_bits(function(op)(np.asfortranarray(x), empty=empty, temperature=t), want)


@with_empty
def test_empty_raise(op: Operation) -> None:
    """With empty="raise": how many rows and the first of them, over the batch axes; the output is not touched."""
    x = np.zeros((2, 3, 4, 5))
    x[1, :, 2] = -INF  # three rows along the last axis, five times three along the first is none
    out = np.full(x.shape, 7.0)
    with pytest.raises(fastsoft.EmptyRowError, match=r"x: 3 empty row.*first at batch index \(1, 0, 2\)") as caught:
        function(op)(x, empty="raise", out=out)
    assert (caught.value.count, caught.value.first) == (3, (1, 0, 2))
    assert isinstance(caught.value, ValueError)
    assert (out == 7).all()
    assert_same_bits(function(op)(x, 0, empty="raise"), function(op)(x, 0))
    with pytest.raises(fastsoft.EmptyRowError) as caught:
        function(op)(x, (1, 3), empty="raise")
    assert (caught.value.count, caught.value.first) == (1, (1, 2))
    with pytest.raises(fastsoft.EmptyRowError) as caught:
        function(op)(np.full(3, -INF), empty="raise")
    assert (caught.value.count, caught.value.first) == (1, ())
    with pytest.raises(fastsoft.EmptyRowError) as caught:
        function(op)(np.zeros((2, 3)), empty="raise", where=np.array([[True], [False]]))
    assert (caught.value.count, caught.value.first) == (1, (1,))
    x[1, 0, 2, 0] = NAN  # a row with a NaN is not empty
    with pytest.raises(fastsoft.EmptyRowError) as caught:
        function(op)(x, empty="raise")
    assert (caught.value.count, caught.value.first) == (2, (1, 1, 2))


@pytest.mark.parametrize("error", [fastsoft.EmptyRowError, fastsoft.SingularGradientError])
def test_errors_go_from_process_to_process(error: Any) -> None:
    """With all that they say."""
    raised = error(3, (1, 2))
    got = pickle.loads(pickle.dumps(raised))
    assert (type(got), str(got), got.count, got.first) == (error, str(raised), 3, (1, 2))


@pytest.mark.parametrize("dtype", FLOATS)
def test_empty_raise_of_every_dtype(dtype: str) -> None:
    """NaN, numbers and -inf are told apart in every dtype."""
    x = np.array([[0, -INF], [NAN, -INF], [-INF, -INF], [INF, -INF]], dtype_of(dtype))
    with pytest.raises(fastsoft.EmptyRowError) as caught:
        fastsoft.softmax(x, empty="raise")
    assert (caught.value.count, caught.value.first) == (1, (2,))


# ---- masks ----


@softmax_family
@pytest.mark.parametrize("dtype", FLOATS)
def test_where(op: Operation, isa: str, dtype: str) -> None:
    """What is masked has probability 0 and changes nothing, be it NaN or infinite."""
    number = dtype_of(dtype)
    rng = np.random.default_rng(0)
    for n in (1, 2, 8, 15, 16, 17, 100, 1000):
        x = logits((20, n), number)
        mask = rng.random((20, n)) < 0.6
        mask[:, n // 2] = True
        seen = np.where(mask, x, number.type(-INF))
        hidden = np.where(mask, x, rng.choice([NAN, INF, -INF, 6e4], (20, n)).astype(number))
        for where in (mask, np.asfortranarray(mask), mask[::-1, ::-1].copy()[::-1, ::-1]):
            assert_accurate(op, function(op)(hidden, where=where), seen)
            assert_accurate(op, function(op)(np.ascontiguousarray(hidden.T), 0, where=where.T).T, seen)


@softmax_family
def test_where_broadcasts(op: Operation, isa: str) -> None:
    """A mask has the shape of x after broadcasting, and may be anything that gives booleans."""
    x = logits((4, 5, 9), "float64")
    masks: list[Any] = [
        [True, False, True] * 3,
        np.arange(5)[:, None] % 2 == 0,
        np.arange(4)[:, None, None] > 0,
        True,
        np.bool_(True),
        np.array([[True]]),
        np.broadcast_to(np.arange(9) < 4, (5, 9)),
        np.arange(18)[::2] > 7,
    ]
    for mask in masks:
        whole = np.broadcast_to(np.asarray(mask), x.shape).copy()
        assert_same_bits(function(op)(x, where=mask), function(op)(x, where=whole))
        assert_same_bits(function(op)(x, (0, 2), where=mask), function(op)(x, (0, 2), where=whole))
        shown = whole.any(-1)
        got = function(op)(x, where=mask)[shown]
        assert_accurate(op, got, np.where(whole, x, -INF)[shown])


@pytest.mark.parametrize("dtype", FLOATS)
def test_all_masked(isa: str, dtype: str) -> None:
    """A row with nothing shown is an empty row, whatever is in it."""
    x = np.array([[1, 2, 3], [NAN, INF, 0], [4, 5, 6]], dtype_of(dtype))
    mask = np.array([[True], [False], [False]])
    for where in (mask, np.broadcast_to(mask, x.shape).copy()):
        assert np.isnan(fastsoft.softmax(x, where=where)[1:]).all()
        assert np.isnan(fastsoft.log_softmax(x, where=where)[1:]).all()
        assert (fastsoft.softmax(x, where=where, empty="zero")[1:] == 0).all()
        assert (fastsoft.log_softmax(x, where=where, empty="zero")[1:] == -INF).all()
        assert (fastsoft.logsumexp(x, where=where)[1:] == -INF).all()
    assert np.isnan(fastsoft.softmax(x, where=False)).all()
    assert fastsoft.logsumexp(x, None, where=False) == -INF


# ---- shapes at the edge ----


@every_operation
@pytest.mark.parametrize("dtype", (*FLOATS, *INTEGERS))
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5), (2, 0, 4), (2, 3, 0), (0, 0), (1, 0)], ids=str)
def test_size_zero(op: Operation, dtype: str, shape: tuple[int, ...]) -> None:
    """Without classes or without rows: the result has its shape and dtype; the sum of nothing has logarithm -inf."""
    number = dtype_of(dtype)
    x = np.zeros(shape, number)
    like = number if dtype in FLOATS else np.dtype("float64")
    one_axis: list[Any] = list(range(-len(shape), len(shape)))
    for axis in [*one_axis, None, tuple(range(len(shape)))] if op.name in FAMILY else one_axis:
        if "softmax_cross_entropy" in op.name and shape[axis] == 0:  # no label is in range
            continue
        y = function(op)(x, axis)
        along = tuple(range(len(shape))) if axis is None else axis
        want = x.sum(along).shape if reduces(op) else shape
        assert (y.shape, y.dtype) == (want if op.classes < 2 else result_shape(op, shape, axis), like)
        nothing = 0.0 if op.name == "cross_entropy" else -INF
        assert (y == nothing).all()
        out = np.ones_like(y)
        assert function(op)(x, axis, out=out) is out
        assert (out == nothing).all()
        if takes(op, "empty"):
            assert function(op)(x, axis, empty="raise").shape == shape
        if takes(op, "keepdims"):
            assert function(op)(x, axis, keepdims=True).shape == x.sum(along, keepdims=True).shape


@every_operation
@pytest.mark.parametrize("axis", [-1, 0, None, ()], ids=str)
def test_0d(op: Operation, isa: str, axis: Any) -> None:
    """A 0-d array, or a number, is one class, along no axis as along its only one."""
    if axis not in (-1, 0) and op.name not in FAMILY:
        axis = 0
    shape = (1, 1) if op.classes == 2 else ()
    for dtype in (*FLOATS, *INTEGERS):
        number = dtype_of(dtype)
        like = number if dtype in FLOATS else np.dtype("float64")
        for x in (np.ones((), number), number.type(1)):
            out = np.full(shape, 9, like)
            assert function(op)(x, axis, out=out) is out
            for y in (
                function(op)(x, axis),
                out,
                function(op)(x, axis, num_threads=2),
                *([function(op)(x, axis, where=True)] if op.name in FAMILY else []),
            ):
                assert isinstance(y, np.ndarray)
                assert (y.shape, y.dtype) == (shape, like)
                assert_accurate(knowing(op, np.array(ONE_CLASS.get(op.name, 0.0))), y, np.asarray(x))
    for x in (3, 3.0, True):
        assert function(op)(x, axis).shape == shape


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_one_class(op: Operation, isa: str, dtype: str) -> None:
    """One class has probability 1, logarithm 0 (never -0), and is its own logsumexp, whatever number it is.

    Its loss and all derivatives are 0.
    """
    number = dtype_of(dtype)
    size = number.itemsize
    patterns = (
        np.arange(1 << 16) if size == 2 else np.random.default_rng(0).integers(0, 1 << 8 * size, 50_000, f"u{size}")
    )
    edge = np.array([0, -0.0, 1, -1, INF, -INF, NAN], number)
    x = np.concatenate([patterns.astype(f"u{size}").view(number), edge])[:, None]
    with np.errstate(invalid="ignore"):  # NumPy and ml_dtypes mind signalling NaN
        values = x[:, 0].astype(np.float64)
    finite = np.isfinite(values)
    for y in both_ways(op, x):
        if op.name == "logsumexp":
            assert np.array_equal(y.astype(np.float64), values, equal_nan=True)
        else:
            assert_accurate(op, y[finite], x[finite])
            assert np.isnan(y[~finite]).all()
            assert op.name not in FAMILY or not np.signbit(y[finite]).any()
            assert op.name == "softmax" or (y[finite] == 0).all()


# ---- results at the edge ----


@pytest.mark.parametrize("dtype", FLOATS)
def test_subnormal_results(isa: str, dtype: str) -> None:
    """Probabilities below the normal numbers are right within one subnormal step."""
    number = dtype_of(dtype)
    first, last = {"float16": (9.8, 20), "bfloat16": (88, 100), "float32": (88, 108), "float64": (709, 750)}[dtype]
    reference = next(op for op in OPS if op.name == "softmax").reference
    step = ulp(np.zeros(1), number)
    for n in (2, 5, 16, 17, 100):
        x = np.zeros((300, n))
        x[:, -1] = -np.linspace(first, last, 300)
        x[:, :-2] = -1
        x = x.astype(number)
        want = reference(x)[:, -1]
        assert (want < step).any()
        for y in (fastsoft.softmax(x), fastsoft.softmax(np.ascontiguousarray(x.T), 0).T):
            assert (np.abs(y[:, -1] - want) <= step).all()
            assert (y[:, -1] == 0).any()
            assert ((y[:, -1] > 0) & (y[:, -1] < 100 * step)).any()


@pytest.mark.parametrize("dtype", FLOATS)
def test_subnormal_input(isa: str, dtype: str) -> None:
    """Subnormal logits are numbers like others: logsumexp of one class, and the order of several, shows them."""
    number = dtype_of(dtype)
    tiny = np.array([5e-324 if dtype == "float64" else 6e-8 if dtype == "float16" else 1e-40], number)
    assert tiny > 0
    assert fastsoft.logsumexp(tiny) == tiny[0]
    x = np.concatenate([tiny, -tiny, 0 * tiny])
    assert (fastsoft.softmax(x) == np.array(1 / 3, number)).all()


def test_integers_do_not_wrap(isa: str) -> None:
    """Differences of more than an integer type holds."""
    y = fastsoft.softmax(np.array([127, -128, 0], np.int8))
    assert y[0] == 1
    assert np.allclose(y[1:], [math.exp(-255), math.exp(-127)], rtol=1e-15, atol=0)
    y = fastsoft.softmax(np.array([0, 255], np.uint8))
    assert np.allclose(y, [math.exp(-255), 1], rtol=1e-15, atol=0)
    limits = np.iinfo(np.int64)
    assert fastsoft.softmax(np.array([limits.max, limits.min])).tolist() == [1, 0]
    assert np.allclose(fastsoft.log_softmax(np.array([True, False])), [-math.log1p(math.exp(-1)), -math.log1p(math.e)])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_many_equal_logits_of_16_bits(isa: str, dtype: str) -> None:
    """A sum that 16 bits do not hold gives no zeros."""
    number = dtype_of(dtype)
    x = np.zeros(70_000, number)
    assert (fastsoft.softmax(x) == np.array(1 / 70_000, number)).all()
    assert (fastsoft.log_softmax(x) == np.array(-math.log(70_000), number)).all()
    assert fastsoft.logsumexp(x) == np.array(math.log(70_000), number)


# ---- floating-point state ----


def awkward(dtype: np.dtype[Any]) -> Array:
    """Rows that raise every floating-point exception on the way, in plain NumPy."""
    x = np.zeros((10, 20))
    x[1, 3] = NAN
    x[2, 3] = INF
    x[3] = -INF
    x[4] = np.linspace(-120, 0, 20)
    x[5] = np.linspace(-760, 0, 20)
    x[6] = [6e4, -6e4] * 10
    x[7] = np.linspace(-20, 0, 20)
    x[8, :2] = NAN, INF
    x = x.astype(dtype)
    if dtype.itemsize > 2 or dtype.name == "bfloat16":
        largest = 3.3e38 if dtype.itemsize < 8 else 1.7e308
        x[6] = np.array([largest, -largest] * 10, dtype)
    infinite = np.array(INF, dtype).view(f"u{dtype.itemsize}")
    x.view(infinite.dtype)[9, 5] = infinite + 1  # a signalling NaN
    return x


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_no_warnings(op: Operation, isa: str, dtype: str) -> None:
    """Neither warnings nor NumPy's floating-point errors come out."""
    x = awkward(dtype_of(dtype))
    with np.errstate(all="raise"):
        for a, axis in ((x, -1), (x.T, 0), (x[:, ::2], -1), (x.astype(x.dtype.newbyteorder()), -1)):
            function(op)(a, axis)
            if op.name in FAMILY:
                function(op)(a, axis, where=np.zeros(a.shape, bool))
                function(op)(a, None)
            if takes(op, "temperature"):
                for t in (0.5, 1e-3, 1e-30, 1e30):
                    function(op)(a, axis, temperature=t, **({"empty": "zero"} if takes(op, "empty") else {}))
            if takes(op, "empty"):
                with pytest.raises(fastsoft.EmptyRowError):
                    function(op)(x, empty="raise")


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: the flags' numbers are known for Linux only")
def test_status_flags_stay(op: Operation, isa: str, dtype: str) -> None:
    """Invalid, division by zero, overflow and underflow are not left behind in the thread's status."""
    flags = {"x86_64": 0x1D, "aarch64": 0x0F}.get(platform.machine())
    if flags is None:
        pytest.skip(f"NOT TESTED: the flags' numbers on {platform.machine()} are not known here")
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    x = awkward(dtype_of(dtype))
    for a, axis in ((x, -1), (np.ascontiguousarray(x.T), 0)):
        arguments = op.arguments(a, axis)
        for options in ({}, {"temperature": 1e-30}) if takes(op, "temperature") else ({},):  # the second in float64
            libm.feclearexcept(flags)
            given(op, *arguments, axis=axis, **options)
            assert libm.fetestexcept(flags) == 0, options


def test_bits_of_nan(isa: str) -> None:
    """Every NaN that comes out is the same one, whatever NaN went in: its sign and payload mean nothing."""
    for number, unsigned, payloads in (
        ("float32", "uint32", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF]),
        ("float64", "uint64", [0x7FF8 << 48, 0xFFF8 << 48, (0x7FF0 << 48) + 1, (1 << 64) - 1]),
    ):
        nans = np.array(payloads, unsigned).view(number)
        for n in (2, 17):
            x = np.zeros((8, n), number)
            x[:4, 1] = nans
            x[4:8, 0] = INF
            x[4:8, 1] = -INF
            for op in OPS:
                for y in both_ways(op, x):
                    assert set(bits(y[np.isnan(y)]).tolist()) == {payloads[0]}, op.name
