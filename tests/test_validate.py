"""What comes in: the types and shapes that are taken, and what is said, and left alone, where one is not."""

from __future__ import annotations

import array
import datetime
import decimal
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    FAMILY,
    FLOATS,
    Array,
    assert_same_bits,
    at_any_length,
    dtype_of,
    elementwise,
    every_operation,
    function,
    logits,
    operations,
    reduces,
    result_shape,
    softmax_family,
    with_empty,
    with_temperature,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.exceptions import AxisError

import fastsoft
from fastsoft.reference import OPS, Operation

PLAIN = logits((3, 4), "float64")


def refused(op: Operation, error: type[Exception], *says: str, x: Any = PLAIN, **arguments: Any) -> None:
    """The call raises exactly `error`, the message has all of `says`, and neither x nor an output has changed."""
    if x is PLAIN and "axis" not in arguments and "out" not in arguments:
        arguments["out"] = np.full(result_shape(op, x.shape), 7.0)
    arrays = [a for a in (x, arguments.get("out")) if isinstance(a, np.ndarray)]
    before = [a.tobytes() for a in arrays]
    with pytest.raises(error) as caught:
        function(op)(x, **arguments)
    assert type(caught.value) is error
    for text in says:
        assert text in str(caught.value), f"{text!r} is not in {str(caught.value)!r}"
    assert [a.tobytes() for a in arrays] == before


# ---- x ----


@softmax_family
@pytest.mark.parametrize(
    "x",
    [
        np.ones(3, np.longdouble),
        np.ones(3, np.complex64),
        np.ones(3, np.complex128),
        np.ones(3, np.clongdouble),
        np.array([1, 2.5, None], object),
        np.array([decimal.Decimal(1)]),
        np.array([2**70, 1]),
        np.array(["1", "2"]),
        np.array([b"1", b"2"]),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([1, 2], "m8[s]"),
        np.zeros(3, [("a", "f4"), ("b", "f4")]),
        np.zeros(3, [("a", "f4")]),
        np.zeros(3, "V4"),
        "text",
        None,
        {},
        {1.0, 2.0},
        datetime.date(2020, 1, 1),
        [1, "2"],
        1j,
    ],
    ids=lambda x: str(getattr(x, "dtype", repr(x))),
)
def test_dtypes_that_are_refused(op: Operation, x: Any) -> None:
    """The message names x, the dtype that it has, and those that are taken."""
    got = str(np.asarray(x).dtype)
    refused(op, TypeError, "x must be", "float16, bfloat16, float32, float64", "integer", "bool", got, x=x)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="NOT TESTED: here longdouble is float64 in disguise")
def test_longdouble_is_not_rounded_silently() -> None:
    """Not even where it would fit."""
    with pytest.raises(TypeError, match="x must be"):
        fastsoft.softmax(np.longdouble(1))


@softmax_family
def test_other_types_of_ml_dtypes_are_refused(op: Operation) -> None:
    """bfloat16 is the only one that is taken: the kernels would read another as if it were that."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in ("float8_e5m2", "float8_e4m3fn", "float8_e4m3b11fnuz", "int4", "uint4"):
        refused(op, TypeError, "x must be", name, x=np.ones(3, getattr(ml_dtypes, name)))


@softmax_family
def test_ragged_lists_are_refused(op: Operation) -> None:
    """As NumPy refuses them."""
    with pytest.raises(ValueError, match="inhomogeneous"):
        function(op)([[1.0, 2.0], [3.0]])


@softmax_family
@pytest.mark.parametrize(
    ("x", "remedy"),
    [
        (np.ones(3, complex), "got complex128; pass x.real or abs(x)"),
        (np.ones(3, np.longdouble), "; pass np.asarray(x, np.float64)"),
        (np.array([1, None]), "got object; pass np.asarray(x, np.float64)"),
        (["a", "b"], "got <U1; pass np.asarray(x, np.float64)"),
    ],
)
def test_refusals_say_what_to_pass(op: Operation, x: Any, remedy: str) -> None:
    refused(op, TypeError, "x must be of dtype", remedy, x=x)


@softmax_family
def test_masked_arrays_are_refused(op: Operation) -> None:
    """The mask would be lost; the message says how to pass it."""
    x = np.ma.array([[1.0, 2.0], [3.0, 4.0]], mask=[[True, False], [False, False]])
    for masked in (x, np.ma.array([1.0]), np.ma.masked):
        with pytest.raises(TypeError, match=r"x is a masked array.*where=~x\.mask"):
            function(op)(masked)
    with pytest.raises(TypeError, match=r"out must be a numpy\.ndarray, got MaskedArray"):
        function(op)(x.data, out=x)
    y = function(op)(x.data, where=~x.mask)
    assert np.array_equal(y[0], function(op)(np.array([-np.inf, 2.0])))


@softmax_family
@pytest.mark.parametrize("dtype", (*FLOATS, "int8", "bool"))
def test_inputs_are_not_written_to(op: Operation, isa: str, dtype: str) -> None:
    """Whatever they are, and with a mask."""
    number = dtype_of(dtype)
    for shape in ((5, 20), (1, 70_000), (70_000, 2)):
        x = logits(shape, "float64").astype(number)
        mask = np.arange(shape[1]) % 3 > 0
        before = x.tobytes(), mask.tobytes()
        for a in (x, x.T, x[::-1, ::-1]):
            function(op)(a)
            function(op)(a, where=mask if a.shape[-1] == len(mask) else mask[:, None])
        assert (x.tobytes(), mask.tobytes()) == before


@softmax_family
def test_read_only_and_mapped_input(op: Operation, isa: str, tmp_path: Path) -> None:
    """Memory that cannot be written to is input like any other."""
    x = logits((30, 50), "float32")
    want = function(op)(x)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    frozen = np.frombuffer(x.tobytes(), np.float32).reshape(x.shape)
    for a in (mapped, frozen, mapped[::-1][::-1], np.asarray(memoryview(x))):
        y = function(op)(a)
        assert type(y) is np.ndarray
        assert_same_bits(y, want)
        refused(op, ValueError, "out must be writable", x=x, out=np.broadcast_to(np.zeros((), want.dtype), want.shape))


class Tensor:
    """An array of another library."""

    def __init__(self, a: Array) -> None:
        self.a = a

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.a


@softmax_family
def test_what_asarray_takes(op: Operation) -> None:
    """Lists, ranges, buffers, scalars, arrays of other libraries and subclasses: the result is a plain array."""
    x = logits((4, 6), "float64")
    want = function(op)(x)
    for like in (x.tolist(), tuple(map(tuple, x)), list(x), memoryview(x), Tensor(x), x.view(np.recarray)):
        y = function(op)(like)
        assert type(y) is np.ndarray
        assert_same_bits(y, want)
    assert_same_bits(function(op)(array.array("f", [1, 2])), function(op)(np.array([1, 2], "f4")))
    assert_same_bits(function(op)(range(5)), function(op)(np.arange(5.0)))
    assert_same_bits(function(op)([True, False]), function(op)(np.array([1.0, 0.0])))
    assert_same_bits(function(op)([[1, 2.5]]), function(op)(np.array([[1, 2.5]])))
    assert_same_bits(function(op)(bytearray(b"\x01\x05")), function(op)(np.array([1.0, 5.0])))


@every_operation
def test_mapped_output(op: Operation, tmp_path: Path) -> None:
    """A memory-mapped file is an output like any other."""
    x = logits((30, 50), "float32")
    want = function(op)(x)
    out = np.memmap(tmp_path / "y", np.float32, "w+", shape=want.shape)
    assert function(op)(x, out=out) is out
    out.flush()
    assert (tmp_path / "y").read_bytes() == want.tobytes()


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_byte_order(op: Operation, isa: str, dtype: str) -> None:
    """Input in the other byte order works, in place of no copy of it; the result is in the native one."""
    number = dtype_of(dtype)
    x = logits((4, 33), number)
    swapped = x.astype(number.newbyteorder("S"))
    before = swapped.tobytes()
    for a, b in ((swapped, x), (swapped[::2, ::-1], x[::2, ::-1])):
        y = function(op)(a)
        assert y.dtype.isnative
        assert_same_bits(y, function(op)(b))
    assert swapped.tobytes() == before
    if not number.newbyteorder("S").isnative:
        want = function(op)(x)
        refused(op, TypeError, "out must be of the result's dtype", x=x, out=want.astype(number.newbyteorder("S")))


@every_operation
def test_zero_strides(op: Operation, isa: str) -> None:
    """Broadcast input, along the classes, the batch or both."""
    for shape, source in (
        ((5, 40), (1, 40)),
        ((5, 40), (5, 1)),
        ((5, 40), (1, 1)),
        ((3, 5, 8), (5, 1)),
        ((0, 4), (1, 4)),
    ):
        x = np.broadcast_to(logits(source, "float32"), shape)
        assert_same_bits(function(op)(x), function(op)(x.copy()))
        if x.size or "softmax_cross_entropy" not in op.name:  # without classes no label is in range
            assert_same_bits(function(op)(x, 0), function(op)(x.copy(), 0))
        out = np.empty_like(function(op)(x))
        assert_same_bits(function(op)(x, out=out), function(op)(x.copy()))


@softmax_family
def test_many_axes(op: Operation) -> None:
    """As many as NumPy has."""
    shape = [1] * 64
    shape[3], shape[40], shape[60] = 4, 3, 5
    x = logits((4, 3, 5), "float64").reshape(shape)
    for k in (3, 40, 60):
        assert_same_bits(function(op)(x, k).ravel(), function(op)(x.reshape(4, 3, 5), [3, 40, 60].index(k)).ravel())
    assert_same_bits(function(op)(x, None).ravel(), function(op)(x.ravel()).ravel())
    wide = logits((2,) * 14, "float64")
    turned = wide.transpose(np.random.default_rng(0).permutation(14))
    for k in (0, 5, 13, (3, 7), (13, 0, 6)):
        assert_same_bits(function(op)(turned, k), function(op)(turned.copy(), k))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "axis"), [(((1 << 20) + 1, 2048), -1), ((2048, (1 << 20) + 1), 0)], ids=["rows", "columns"]
)
def test_more_than_2_to_the_31_elements(shape: tuple[int, int], axis: int) -> None:
    """Sizes are not of 32 bits; all of it by zero strides, without the memory."""
    x = np.broadcast_to(np.float32(0), shape)
    assert (fastsoft.logsumexp(x, axis) == np.float32(math.log(shape[axis]))).all()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_class_beyond_2_to_the_31(threads: int) -> None:
    """Nor are places in a row: one class counts, the last, of pages that take no memory since nobody wrote to them."""
    try:
        x = np.zeros((1 << 31) + 33, np.float32)
    except MemoryError:
        pytest.skip("NOT TESTED: this system gives no 8 GB of address space")
    x[-1] = 300
    assert fastsoft.logsumexp(x, num_threads=threads) == 300
    assert fastsoft.softmax_cross_entropy(x, np.array(x.size - 1), num_threads=threads) == 0


# ---- axis ----


@softmax_family
def test_axis_that_x_does_not_have(op: Operation) -> None:
    """AxisError, as NumPy has it."""
    for axis in (2, -3, 100, -100, 2**40, (0, 2), (0, -3)):
        bad = axis if isinstance(axis, int) else axis[1]
        refused(op, AxisError, "axis", str(bad), "dimension 2", axis=axis)
    for axis in (1, -2, (0, 1)):
        with pytest.raises(AxisError):
            function(op)(1.0, axis)


@softmax_family
def test_axis_given_twice(op: Operation) -> None:
    """Also once from the front and once from the back."""
    for axis in ((0, 0), (1, -1), (0, 1, -2)):
        refused(op, ValueError, "axis", "twice", str(axis), axis=axis)


@softmax_family
def test_axis_of_another_type(op: Operation) -> None:
    """The message names the type that it got, and those that are taken."""
    for axis in (1.0, "0", [0], np.array([0, 1]), b"", (0, 1.0), (None,), ((0,),), slice(None)):
        got = type(axis).__name__
        refused(
            op,
            TypeError,
            "axis must be an int, a tuple of ints or None",
            "got",
            "" if "tuple" in got else got,
            axis=axis,
        )


@softmax_family
def test_axis(op: Operation, isa: str) -> None:
    """Every axis and all together, counted from the front and the back, by any integer type."""
    x = logits((3, 4, 5), "float64")
    for k in range(3):
        want = np.apply_along_axis(function(op), k, x)
        for axis in (k, k - 3, np.int8(k), np.uint64(k), (k,), (k - 3,)):
            assert_same_bits(function(op)(x, axis), want)
            assert_same_bits(function(op)(x, axis=axis), want)
    whole = function(op)(x.ravel())
    for axis in (None, (0, 1, 2), (2, 0, 1), (-1, -2, -3)):
        y = function(op)(x, axis)
        assert y.shape == (() if reduces(op) else x.shape)
        assert_same_bits(y.ravel(), whole.ravel())


@softmax_family
def test_empty_tuple_of_axes(op: Operation) -> None:
    """Without an axis each number is a row of its own."""
    x = logits((3, 4), "float64")
    y = function(op)(x, ())
    assert_same_bits(y, function(op)(x[..., None]).reshape(3, 4))


def test_keepdims() -> None:
    """The summed axes stay, with length 1."""
    x = logits((3, 4, 5), "float64")
    for axis, shape in ((1, (3, 1, 5)), (-1, (3, 4, 1)), (None, (1, 1, 1)), ((0, 2), (1, 4, 1)), ((), (3, 4, 5))):
        y = fastsoft.logsumexp(x, axis, keepdims=True)
        assert y.shape == shape
        assert_same_bits(y.ravel(), fastsoft.logsumexp(x, axis).ravel())
        out = np.empty(shape)
        assert fastsoft.logsumexp(x, axis, keepdims=True, out=out) is out
        assert_same_bits(out, y)


# ---- out ----


@every_operation
def test_out_of_another_type(op: Operation) -> None:
    """Only arrays; not lists, nor what merely looks like an array."""
    for out in ([[0.0] * 4] * 3, 1.0, "out", bytearray(96), np.float64(1), ()):
        refused(op, TypeError, "out must be a numpy.ndarray", type(out).__name__, out=out)


@every_operation
def test_out_of_another_dtype(op: Operation) -> None:
    """The result is not cast on its way out."""
    shape = function(op)(np.zeros((3, 4))).shape
    for dtype in ("float32", "float16", "int64", "bool", "complex128", "object", ">f8" if np.little_endian else "<f8"):
        refused(op, TypeError, "out must be of the result's dtype float64", out=np.zeros(shape, dtype))
    refused(op, TypeError, "float32", "float64", x=np.zeros((3, 4), "f4"), out=np.zeros(shape))
    refused(op, TypeError, "float64", "int64", x=np.zeros((3, 4), "i8"), out=np.zeros(shape, "i8"))


@every_operation
def test_out_of_another_shape(op: Operation) -> None:
    """The result does not broadcast into it either."""
    shape = function(op)(np.zeros((3, 4))).shape
    for other in ((4, 3), (12,), (1, 3, 4), (3, 4, 1), (3, 5), (2, 4), (), (0,), (3, 1)):
        refused(op, ValueError, "out must be of the result's shape", str(shape), str(other), out=np.zeros(other))


@every_operation
def test_out_that_is_read_only(op: Operation) -> None:
    """Nothing is written to it."""
    out = np.zeros(function(op)(np.zeros((3, 4))).shape)
    out.flags.writeable = False
    refused(op, ValueError, "out must be writable", "read-only", out=out)


@at_any_length
def test_out_that_overlaps_itself(op: Operation) -> None:
    """Two results would go to one place."""
    shape = function(op)(np.zeros((3, 4))).shape
    buffer = np.zeros(64)
    for strides in ((0, 8), (8, 8), (32, 0), (16, 8), (0, 0), (4, 8), (-8, 8), (24, 16)):
        out = np.lib.stride_tricks.as_strided(buffer[20:], shape, strides[: len(shape)])
        if len(shape) == 1 and strides[0] not in (0, 4):
            continue
        refused(op, ValueError, "out must not overlap itself", str(out.strides), out=out)


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_out_of_any_strides(op: Operation, isa: str, dtype: str) -> None:
    """The result goes where it belongs, and nowhere else; `out` itself is returned."""
    number = dtype_of(dtype)
    axes: list[tuple[Any, Any]] = [((6, 17), -1), ((17, 6), 0), ((3, 20, 5), 1), ((2, 3, 33), 2)]
    for shape, axis in [*axes, ((3, 4, 5), (0, 2))] if op.name in FAMILY else axes:
        x = logits(shape, number)
        want = function(op)(x, axis)
        for steps in ((1, 2, 1, 1), (-1, -1, -1, -1), (3, 1, 2, 3), (-2, 2, 1, -1)):
            for order in ("C", "F"):
                buffer = np.full([3 * n + 2 for n in want.shape], 9, number, order=order)
                out = buffer
                for d, (n, step) in enumerate(zip(want.shape, steps, strict=False)):
                    part = np.moveaxis(out, d, 0)[1 :: abs(step)][:n]
                    out = np.moveaxis(part[::-1] if step < 0 else part, 0, d)
                assert function(op)(x, axis, out=out) is out
                assert_same_bits(out, want)
                out[...] = 9
                assert (buffer == 9).all()


@operations(op for op in OPS if op.name in ("softmax", "log_softmax"))
def test_out_that_is_the_mask(op: Operation) -> None:
    """A mask that lies in the output's memory, or in x's, is read before it is written over."""
    x = logits((100, 8), "float64")
    mask = np.random.default_rng(0).random(x.shape) < 0.7
    mask[:, 0] = True
    want = function(op)(x, where=mask)
    for start in (0, 100, 5600):
        out = np.zeros(x.shape)
        inside = out.view(bool).reshape(-1)[start : start + x.size].reshape(x.shape)
        inside[...] = mask
        assert_same_bits(function(op)(x, where=inside, out=out), want)


SIZE = 90


@st.composite
def views(draw: st.DrawFn, buffer: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A view of a buffer of SIZE numbers: offset and strides are any that stay inside. And the places that it has."""
    strides = [draw(st.integers(-10, 10)) for _ in shape]
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    low, high = -sum(r for r in reach if r < 0), SIZE - 1 - sum(r for r in reach if r > 0)
    assume(low <= high)
    offset = draw(st.integers(low, high))

    def view(a: Array) -> Array:
        return np.lib.stride_tricks.as_strided(a[offset:], shape, [s * a.itemsize for s in strides])

    return view(buffer), view(np.arange(SIZE))


@at_any_length
@settings(max_examples=400)
@given(data=st.data())
def test_overlap(op: Operation, data: st.DataObject) -> None:
    """Any two views of one buffer as x and out: what copies give, or a ValueError and nothing written."""
    buffer = logits((SIZE,), data.draw(st.sampled_from(["float16", "float32", "float64"])))
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    x, _ = data.draw(views(buffer, shape))
    want = function(op)(x.copy(), axis)
    out, places = data.draw(views(buffer, want.shape))
    after = buffer.copy()
    try:
        function(op)(x, axis, out=out)
    except ValueError as error:
        assert "out must not overlap itself" in str(error)  # also where that is too hard to tell
    else:
        assert len(np.unique(places)) == places.size
        after[places] = want
    assert_same_bits(buffer, after)


@elementwise
def test_overlap_of_many_kinds(op: Operation) -> None:
    """The fuzzing above reaches both ends: outputs that are refused, and outputs that are taken."""
    buffer = logits((SIZE,), "float64")
    taken = 0
    for shift in range(-4, 5):
        x, out = buffer[40:60], buffer[40 + shift : 60 + shift]
        want = function(op)(x.copy())
        taken += function(op)(x, out=out) is out
        assert_same_bits(out, want)
    assert taken == 9


# ---- the other arguments ----


@with_temperature
def test_temperature_out_of_range(op: Operation) -> None:
    """Positive and finite; anything else is a ValueError, as early as can be."""
    for t in (0, 0.0, -0.0, -1, -1e-300, math.inf, -math.inf, math.nan, 10**400, np.float32(0), np.array(-1.0)):
        refused(op, ValueError, "temperature must be a positive finite number", temperature=t)
    for t in (0, 1e400):
        refused(op, ValueError, "temperature", repr(t), temperature=t)


@with_temperature
def test_temperature_of_another_type(op: Operation) -> None:
    """One number; not text, nor an array of several or of one."""
    for t in (None, True, "warm", "0.5", b"1", 1j, [0.5], np.array([1.0, 2.0]), np.array([0.5]), np.ones((1, 1))):
        refused(op, TypeError, "temperature must be a positive finite number", type(t).__name__, temperature=t)


@with_empty
def test_empty_of_another_value(op: Operation) -> None:
    """The message says what there is."""
    for empty in ("", "NaN", "Zero", "ignore", None, 0, math.nan, 0.0, True, b"nan", ["nan"]):
        refused(op, ValueError, "empty must be", '"nan"', '"zero"', '"raise"', repr(empty), empty=empty)


@softmax_family
def test_where_of_another_dtype(op: Operation) -> None:
    """Only booleans: 0 and 1 could as well be indices or weights."""
    for where in (
        1,
        0.0,
        [1, 0, 1, 0],
        np.ones(4, np.uint8),
        "True",
        np.ones((3, 4)),
        [None] * 4,
        np.array([True], object),
    ):
        refused(op, TypeError, "where must be of dtype bool", str(np.asarray(where).dtype), where=where)


@softmax_family
def test_where_of_another_shape(op: Operation) -> None:
    """It broadcasts to x, and x not to it."""
    for shape in ((3,), (5,), (4, 3), (2, 4), (1, 3, 4), (2, 3, 4), (0,), (3, 4, 1)):
        refused(op, ValueError, "where must broadcast", "(3, 4)", str(shape), where=np.ones(shape, bool))
    with pytest.raises(ValueError, match="where must broadcast"):
        function(op)(1.0, where=np.ones(2, bool))


@softmax_family
def test_masked_where(op: Operation) -> None:
    """A masked mask would lose its own mask."""
    refused(op, TypeError, "where", "masked array", where=np.ma.array([True, True, False, True], mask=[1, 0, 0, 0]))


@every_operation
def test_num_threads_out_of_range(op: Operation) -> None:
    """From 1 to 4096, an int."""
    for n in (0, -1, 4097, 2**40, np.int64(0)):
        refused(op, ValueError, "num_threads must be from 1 to 4096", str(n), num_threads=n)
    for n in (1.0, "2", True, False, [1], np.array([1, 2]), np.float64(1)):
        refused(op, TypeError, "num_threads must be an int", type(n).__name__, num_threads=n)
    for n in (1, 4096, np.int8(3)):
        assert_same_bits(function(op)([1.0, 2.0], num_threads=n), function(op)([1.0, 2.0]))


@softmax_family
def test_unknown_and_positional_arguments(op: Operation) -> None:
    """All but x and axis are named."""
    with pytest.raises(TypeError):
        function(op)(np.zeros(3), -1, None)
    with pytest.raises(TypeError, match="dim"):
        function(op)(np.zeros(3), dim=0)
    with pytest.raises(TypeError):
        function(op)()


@softmax_family
def test_arguments_are_checked_without_rows_too(op: Operation) -> None:
    """An array of size 0 excuses nothing."""
    x = np.zeros((0, 4))
    refused(op, AxisError, "axis", x=x, axis=2)
    refused(op, TypeError, "where", x=x, where=1)
    refused(op, TypeError, "num_threads", x=x, num_threads="2")
    refused(op, TypeError, "out", x=x, out=[])
    refused(op, ValueError, "out", x=x, out=np.zeros((1, 4)))
