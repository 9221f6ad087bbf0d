"""The same bits however the work is cut, wherever it lies and whatever instruction set with FMA computes it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import (
    FLOATS,
    INTEGERS,
    LENGTHS,
    WORK,
    Array,
    assert_same_bits,
    bits,
    dtype_of,
    elementwise,
    every_operation,
    function,
    in_rows,
    layouts,
    logits,
    reduces,
    takes,
    with_temperature,
)

from fastsoft import _dispatch, api
from fastsoft.reference import Operation

WITH_FMA = [isa for isa in _dispatch.available() if isa != "portable"]


def assorted(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Rows of all kinds side by side: ordinary, far off, tied, with -inf, NaN, +inf, and empty ones."""
    x = logits(shape, dtype, largest=40)
    rows = x.reshape(-1, shape[-1])
    largest = 6e4 if dtype.name == "float16" else 1e38 if dtype.itemsize < 8 else 1e308
    rows[1::11] = np.asarray(largest, dtype)
    rows[2::11, ::3] = -math.inf
    rows[4::11, 1::2] = np.asarray(-largest, dtype)
    rows[5::11, -1] = np.asarray(30, dtype)
    rows[7::22] = -math.inf
    rows[8::33, shape[-1] // 2] = math.nan
    rows[9::33, shape[-1] // 3] = math.inf
    if dtype.itemsize > 2:
        rows[6::11] += 3e6 if dtype.itemsize == 4 else 1e10
    return x


def arguments(op: Operation) -> list[dict[str, Any]]:
    """One set of arguments for each way in which x goes into exp."""
    if not takes(op, "temperature"):
        return [{}]
    return [{}, {"temperature": 0.7}, {"temperature": 1e-25}]


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.skipif(len(WITH_FMA) < 2, reason=f"NOT TESTED: of the instruction sets with FMA only {WITH_FMA} run here")
def test_instruction_sets(op: Operation, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All instruction sets with FMA give the same bits, in rows and in columns."""
    number = dtype_of(dtype)
    for n in LENGTHS:
        x = assorted((40 if n < 1000 else 23, n), number)
        results: list[list[Array]] = []
        for isa in WITH_FMA:
            monkeypatch.setattr(api, "kernels", _dispatch.load(isa))
            f = function(op)
            results.append([y for a in arguments(op) for y in (f(x, **a), f(x[:, ::2], **a), f(x.T.copy(), 0, **a))])
        for other in results[1:]:
            for got, want in zip(other, results[0], strict=True):
                assert_same_bits(got, want)


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(op: Operation, isa: str, dtype: str) -> None:
    """Rows, columns and strided arrays give the same bits, wherever the result goes."""
    number = dtype_of(dtype)
    for n in LENGTHS[:-3] if op.name != "softmax" else LENGTHS:
        x = assorted((3, 11 if n < 1000 else 2, n), number)
        for options in arguments(op) if n < 1000 else [{}]:
            want = in_rows(function(op)(x, **options), x, -1)
            for name, a, axis in layouts(x):
                y = function(op)(a, axis, **options)
                out = np.asfortranarray(y) if a.flags.c_contiguous else np.repeat(y, 2, -1)[..., ::2]
                function(op)(a, axis, out=out, **options)
                for result in (y, out):
                    same = np.array_equal(bits(in_rows(result, a, axis)), bits(want))
                    assert same, f"{name}, n = {n}, {options}"


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 131072), -1),  # the row is split over the threads
        ((1, 200_001), -1),
        ((2, 50_000), -1),
        ((5, 3, 20_000), 1),
        ((300, 1000), -1),
        ((70_001, 3), -1),
        ((1000, 301), 0),  # tiles of columns
        ((40_000, 5), 0),
        ((100_000, 2), 0),  # too few columns for a tile
        ((131_072, 1), 0),
        ((7, 90, 200), 1),
    ],
    ids=str,
)
def test_number_of_threads(op: Operation, isa: str, dtype: str, shape: tuple[int, ...], axis: int) -> None:
    """One thread or many give the same bits, also where a row is split over them."""
    number = dtype_of(dtype)
    x = np.ascontiguousarray(np.moveaxis(assorted((*np.delete(shape, axis), shape[axis]), number), -1, axis))
    ordinary = logits(shape, number)
    for a in (x, ordinary):
        want = function(op)(a, axis, num_threads=1)
        for threads in (2, 3, 8):
            assert_same_bits(function(op)(a, axis, num_threads=threads), want)


@every_operation
@pytest.mark.parametrize("dtype", WORK)
def test_threads_after_a_pause(op: Operation, isa: str, dtype: str) -> None:
    """As above, where calls before that came late do not keep this one from using its threads."""
    for shape, axis in (((1, 131_072), -1), ((300, 1000), -1), ((1000, 301), 0)):
        x = logits(shape, dtype)
        want = function(op)(x, axis, num_threads=1)
        time.sleep(0.11)
        assert_same_bits(function(op)(x, axis, num_threads=2), want)


@every_operation
@pytest.mark.parametrize("dtype", WORK)
def test_threads_with_all_arguments(op: Operation, isa: str, dtype: str) -> None:
    """Threads and masks, temperatures, strided and split rows together."""
    number = dtype_of(dtype)
    for shape in ((1, 100_000), (40, 3000)):
        x = assorted((*shape[:-1], 2 * shape[-1]), number)[..., ::2]
        mask = np.random.default_rng(0).random(shape) < 0.9
        for options in ({}, {"where": mask}, *arguments(op)[1:], *({"where": mask, **a} for a in arguments(op)[1:])):
            want = function(op)(x, num_threads=1, **options)
            for threads in (2, 3):
                assert_same_bits(function(op)(x, num_threads=threads, **options), want)
                out = np.repeat(want, 2, -1)[..., ::2]
                function(op)(x, num_threads=threads, out=out, **options)
                assert_same_bits(out, want)


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_place_in_the_batch(op: Operation, isa: str, dtype: str) -> None:
    """A row gives the same bits alone, and with any neighbours, in any place, in rows and in columns."""
    number = dtype_of(dtype)
    for n in (1, 2, 5, 8, 16, 17, 33, 100, 129):
        x = assorted((50, n), number)
        for options in arguments(op):
            alone = np.stack([function(op)(row, **options) for row in x])
            for start, stop, step in ((0, 50, 1), (0, 7, 1), (3, 20, 1), (13, 46, 1), (49, None, -1), (1, 50, 3)):
                part = x[start:stop:step]
                want = alone[start:stop:step]
                assert_same_bits(function(op)(part.copy(), **options), want)
                columns = function(op)(part.T.copy(), 0, **options)
                assert_same_bits(columns.T if columns.ndim == 2 else columns, want)


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_alignment(op: Operation, isa: str, dtype: str) -> None:
    """Wherever input and output start, also between the multiples of the item size."""
    number = dtype_of(dtype)
    for n in (3, 16, 40, 129):
        x = assorted((9, n), number)
        want = function(op)(x)
        for shift in (*range(0, 64, number.itemsize), 1, 3):
            a = np.empty(x.nbytes + 64, np.uint8)[shift : shift + x.nbytes].view(number).reshape(x.shape)
            a[...] = x
            out = np.empty(want.nbytes + 64, np.uint8)[64 - shift : 64 - shift + want.nbytes].view(number)
            out = out.reshape(want.shape)
            assert_same_bits(function(op)(a), want)
            assert function(op)(a, out=out) is out
            assert_same_bits(out, want)


@elementwise
@pytest.mark.parametrize("dtype", FLOATS)
def test_in_place(op: Operation, isa: str, dtype: str) -> None:
    """Over the input itself, into another array, or into a new one, in every layout and on several threads."""
    number = dtype_of(dtype)
    for shape in ((3, 7, 1), (3, 7, 17), (3, 7, 100), (2, 2, 20_000), (1, 1, 70_000)):
        x = assorted(shape, number)
        for options in arguments(op):
            for name, a, axis in layouts(x):
                want = function(op)(a, axis, **options)
                if name == "C order":
                    a = a.copy()
                assert function(op)(a, axis, out=a, **options) is a
                assert np.array_equal(bits(a), bits(want)), f"{name}, {shape}, {options}"


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_results_larger_than_the_caches(op: Operation, isa: str, dtype: str) -> None:
    """Some 20 MB, which may be written in another way, give what parts of them give; also in place."""
    number = dtype_of(dtype)
    n = 1001
    x = np.resize(assorted((200, n), number), ((20 << 20) // number.itemsize // n, n))
    want = np.resize(function(op)(x[:200]), x.shape if not reduces(op) else x.shape[:1])
    for threads in (1, 2):
        assert_same_bits(function(op)(x, num_threads=threads), want)
    out = np.zeros(want.size + 3, number)[3:].reshape(want.shape)
    function(op)(x, out=out)
    assert_same_bits(out, want)
    if not reduces(op):
        function(op)(x, out=x)
        assert_same_bits(x, want)


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_out_beside_the_input(op: Operation, isa: str, dtype: str) -> None:
    """An output that overlaps the input, but is not the input, gets what another array gets."""
    number = dtype_of(dtype)

    def shifted(size: int) -> list[Callable[[Array], Array]]:
        return [lambda b, k=k: b[k : k + size] for k in (0, 1, 2, 15, 17, 100)]

    x = assorted((12, 60), number)
    size = function(op)(x).size
    for place in shifted(size):
        for source in shifted(x.size):
            buffer = np.resize(x.ravel(), 2 * x.size)
            a = source(buffer).reshape(x.shape)
            want = function(op)(a.copy())
            out = place(buffer).reshape(want.shape)
            function(op)(a, out=out)
            assert_same_bits(out, want)
    if not reduces(op):
        for turn in (lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a[::-1, ::-1], lambda a: a[:12, :12].T):
            a = x.copy()
            want = function(op)(turn(turn(a)) if turn(a).shape == a.shape else a[:12, :12].copy())
            target = turn(a)
            function(op)(a if target.shape == a.shape else a[:12, :12], out=target)
            assert_same_bits(target, want)


@every_operation
@pytest.mark.parametrize("dtype", (*FLOATS, *INTEGERS))
def test_ways_to_say_it(op: Operation, isa: str, dtype: str) -> None:
    """Defaults and the same said explicitly, lists, subclasses, byte order, pieces, joined axes: the same bits."""
    number = dtype_of(dtype)
    f = function(op)
    x = assorted((6, 5, 4), number) if dtype in FLOATS else logits((6, 5, 4), "float64").astype(number)
    want = f(x)
    assert_same_bits(f(x, -1, num_threads=1), want)
    assert_same_bits(f(x, 2), want)
    assert_same_bits(f(x, np.int64(-1)), want)
    assert_same_bits(f(x, (-1,)), want)
    assert_same_bits(f(x, where=None, out=None), want)
    assert_same_bits(f(x, where=True), want)
    assert_same_bits(f(x.astype(want.dtype)), want)
    assert_same_bits(f(x.astype(number.newbyteorder())), want)
    assert_same_bits(f(x.view(type("Sub", (np.ndarray,), {}))), want)
    readonly = x.copy()
    readonly.flags.writeable = False
    assert_same_bits(f(readonly), want)
    if want.dtype == np.float64:
        assert_same_bits(f(x.tolist()), want)
    if takes(op, "temperature"):
        for one in (1, np.float32(1), np.int64(1)):
            assert_same_bits(f(x, temperature=one), want)
    for axes, order in (
        ((1, 2), (0, 1, 2)),
        ((0, 1), (2, 0, 1)),
        ((0, 2), (1, 0, 2)),
        ((2, 0), (1, 0, 2)),
        (None, (0, 1, 2)),
    ):
        kept = 1 if axes else 0
        turned = x.transpose(order)
        joined = f(np.ascontiguousarray(turned).reshape(*turned.shape[:kept], -1))
        got = f(x, axes)
        assert_same_bits(got if got.ndim < 3 else got.transpose(order).reshape(joined.shape), joined)


@every_operation
def test_pieces(op: Operation, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is done in several goes gives the same bits."""
    for x, axis in ((assorted((50, 9), np.dtype("float32")), -1), (assorted((9, 7, 40), np.dtype("float64")), 1)):
        want = function(op)(x, axis, num_threads=2)
        for piece in (1, 10, 63, 64, 100):
            monkeypatch.setattr(api, "PIECE", piece)
            assert_same_bits(function(op)(x, axis, num_threads=2), want)


@with_temperature
def test_temperature_is_a_number(op: Operation, isa: str) -> None:
    """What counts is the temperature's value, not its type."""
    x = logits((5, 20), "float64")
    want = function(op)(x, temperature=0.5)
    for half in (np.float16(0.5), np.float64(0.5), np.array(0.5), np.longdouble(0.5)):
        assert_same_bits(function(op)(x, temperature=half), want)
