"""The same bits however the work is cut, wherever it lies and whatever instruction set with FMA computes it."""

from __future__ import annotations

import itertools
import math
import sys
import time
from typing import Any

import numpy as np
import pytest
from helpers import (
    FAMILY,
    FLOATS,
    INTEGERS,
    LENGTHS,
    SWEPT,
    WORK,
    Array,
    all_layouts,
    assert_accurate,
    assert_same_bits,
    at_any_length,
    bits,
    dtype_of,
    elementwise,
    every_operation,
    function,
    given,
    in_python,
    in_rows,
    lengths,
    logits,
    softmax_family,
    some_operations,
    takes,
    use,
    with_temperature,
    within_reach,
)

from fastsoft import (
    _dispatch,
    log_softmax,
    log_softmax_vjp,
    logsumexp,
    softmax,
    softmax_cross_entropy,
    softmax_cross_entropy_with_grad,
    softmax_jacobian_diagonal,
    softmax_vjp,
    softmax_vjp_from_output,
)
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


def ways(op: Operation) -> list[dict[str, Any]]:
    """One set of options for each way in which x goes into exp."""
    if not takes(op, "temperature"):
        return [{}]
    return [{}, {"temperature": 0.7}, {"temperature": 1e-25}]


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.skipif(len(WITH_FMA) < 2, reason=f"NOT TESTED: of the instruction sets with FMA only {WITH_FMA} run here")
def test_instruction_sets(op: Operation, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All instruction sets with FMA give the same bits, in rows and in columns."""
    number = dtype_of(dtype)
    for n in lengths(op, LENGTHS if op.name in FAMILY else LENGTHS[::2]):
        x = assorted((40 if n < 1000 else 23, n), number)
        results: list[list[Array]] = []
        for isa in WITH_FMA:
            use(isa, monkeypatch)
            f = function(op)
            results.append([y for a in ways(op) for y in (f(x, **a), f(x[:, ::2], **a), f(x.T.copy(), 0, **a))])
        for other in results[1:]:
            for got, want in zip(other, results[0], strict=True):
                assert_same_bits(got, want)


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(op: Operation, isa: str, dtype: str) -> None:
    """Rows, columns and strided arrays give the same bits, wherever the result goes."""
    number = dtype_of(dtype)
    for n in lengths(op, LENGTHS[:-3] if op.name != "softmax" else LENGTHS):
        x = assorted((3, 11 if n < 1000 else 2, n), number)
        for options in ways(op) if n < (1000 if op.classes < 2 else 30) else [{}]:
            want = in_rows(function(op)(x, **options), x, -1)
            for name, arguments, axis in all_layouts(op, x):
                y = given(op, *arguments, axis=axis, **options)
                out = np.asfortranarray(y) if arguments[0].flags.c_contiguous else np.repeat(y, 2, -1)[..., ::2]
                given(op, *arguments, axis=axis, out=out, **options)
                for result in (y, out):
                    same = np.array_equal(bits(in_rows(result, arguments[0], axis)), bits(want))
                    assert same, f"{name}, n = {n}, {options}"


SHAPES = (
    ((1, 131072), -1),  # the row is split over the threads
    ((70_001, 3), -1),
    ((1000, 301), 0),  # tiles of columns
    ((300, 1000), -1),
    ((5, 3, 20_000), 1),
    ((1, 200_001), -1),
    ((2, 50_000), -1),
    ((40_000, 5), 0),
    ((100_000, 2), 0),  # too few columns for a tile
    ((131_072, 1), 0),
    ((7, 90, 200), 1),
)


@pytest.mark.parametrize(
    ("op", "shape", "axis"),
    [(op, shape, axis) for op in SWEPT for shape, axis in SHAPES[: None if op.name in FAMILY else 4]],
    ids=lambda a: a.name if isinstance(a, Operation) else str(a),
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_number_of_threads(op: Operation, isa: str, dtype: str, shape: tuple[int, ...], axis: int) -> None:
    """One thread or many give the same bits, also where a row is split over them."""
    number = dtype_of(dtype)
    shape = within_reach(op, shape, axis)
    x = np.ascontiguousarray(np.moveaxis(assorted((*np.delete(shape, axis), shape[axis]), number), -1, axis))
    ordinary = logits(shape, number)
    for a in (x, ordinary):
        arguments = op.arguments(a, axis)
        want = given(op, *arguments, axis=axis, num_threads=1)
        for threads in (2, 3, 8) if op.name in FAMILY else (2, 3):
            assert_same_bits(given(op, *arguments, axis=axis, num_threads=threads), want)


@some_operations
@pytest.mark.parametrize("dtype", WORK)
def test_threads_after_a_pause(op: Operation, isa: str, dtype: str) -> None:
    """As above, where calls before that came late do not keep this one from using its threads."""
    for shape, axis in (((1, 131_072), -1), ((300, 1000), -1), ((1000, 301), 0)):
        x = logits(within_reach(op, shape, axis), dtype)
        want = function(op)(x, axis, num_threads=1)
        time.sleep(0.05)
        assert_same_bits(function(op)(x, axis, num_threads=2), want)


@every_operation
@pytest.mark.parametrize("dtype", WORK)
def test_threads_with_all_arguments(op: Operation, isa: str, dtype: str) -> None:
    """Threads and masks, temperatures, strided and split rows together."""
    number = dtype_of(dtype)
    for shape in (within_reach(op, (1, 100_000)), within_reach(op, (40, 3000))):
        x = assorted((*shape[:-1], 2 * shape[-1]), number)[..., ::2]
        mask = np.random.default_rng(0).random(shape) < 0.9
        arguments = op.arguments(x)
        masks: list[dict[str, Any]] = [{}, {"where": mask}] if takes(op, "where") else [{}]
        for options in [{**masked, **way} for way in ways(op) for masked in masks]:
            want = given(op, *arguments, num_threads=1, **options)
            for threads in (2, 3):
                assert_same_bits(given(op, *arguments, num_threads=threads, **options), want)
                out = np.repeat(want, 2, -1)[..., ::2]
                given(op, *arguments, num_threads=threads, out=out, **options)
                assert_same_bits(out, want)


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_place_in_the_batch(op: Operation, isa: str, dtype: str) -> None:
    """A row gives the same bits alone, and with any neighbours, in any place, in rows and in columns."""
    number = dtype_of(dtype)
    for n in (1, 2, 5, 8, 16, 17, 33, 100, 129, 700) if op.classes < 2 else (1, 2, 16, 17):
        x = assorted((50, n), number)
        for options in ways(op):
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
    for n in (3, 16, 40, 300) if op.classes < 2 else (3, 40):
        x = assorted((9, n), number)
        want = function(op)(x)
        for shift in (*range(0, 64, number.itemsize), 1, 3):
            arguments = [moved(a, shift) for a in op.arguments(x)]
            out = moved(np.zeros_like(want), 64 - shift)
            assert_same_bits(given(op, *arguments), want)
            assert given(op, *arguments, out=out) is out
            assert_same_bits(out, want)


@elementwise
@pytest.mark.parametrize("dtype", FLOATS)
def test_one_row_in_place(op: Operation, isa: str, dtype: str) -> None:
    """A row by itself, whatever it holds, over its input: what the batch gives."""
    number = dtype_of(dtype)
    for n in (1, 7, 16, 17, 40, 128, 129):
        x = assorted((44, n), number)
        arguments = op.arguments(x)
        for k, want in enumerate(given(op, *arguments)):
            row = [a[k].copy() for a in arguments]
            assert_same_bits(given(op, *row, out=row[0]), want)


@pytest.mark.parametrize("dtype", WORK)
def test_rows_of_few_registers(isa: str, dtype: str) -> None:
    """A kept output whose rows are unrolled, the last register full or not, gives what one without such a way gives."""
    for n in (*range(30, 132, 7), 48, 64, 80, 96, 112, 128):
        y = softmax(assorted((37, n), np.dtype(dtype)))
        v = assorted((37, n), np.dtype(dtype))
        apart = np.repeat(y, 2, -1)[:, ::2], np.repeat(v, 2, -1)[:, ::2]
        assert_same_bits(softmax_vjp_from_output(y, v), softmax_vjp_from_output(*apart))


@pytest.mark.parametrize("dtype", WORK)
def test_ends_of_rows(isa: str, dtype: str) -> None:
    """Rows of which the ends are unrolled, of any number of registers and parts of one, with NaN, infinities and
    nothing but -inf among them, give what those that lie otherwise give; also in place."""
    number = np.dtype(dtype)
    for n in (*range(129, 330, 7), 8191, 8192, 8193):
        ordinary = logits((40 if n < 1000 else 9, n), number, largest=40)
        ordinary[2, ::3] = ordinary[3] = -math.inf
        ordinary[5, n // 2], ordinary[7, n - 1] = math.nan, math.inf
        for x in (ordinary, assorted(ordinary.shape, number)):
            apart = np.repeat(x, 2, -1)[:, ::2]
            assert_same_bits(logsumexp(x), logsumexp(apart))
            for f in (softmax, log_softmax):
                want, y = f(apart), x.copy()
                assert_same_bits(f(x), want)
                assert_same_bits(f(y, out=y), want)


@elementwise
@pytest.mark.parametrize("dtype", WORK)
def test_ends_of_rows_are_accurate(op: Operation, isa: str, dtype: str) -> None:
    """The last register of a row reaches back over what comes before it, which must be neither computed twice nor
    changed; also in place of any argument."""
    for n in (*range(9, 330, 7), 1001, 8193):
        x = logits((20 if n < 1000 else 3, n), np.dtype(dtype))
        want = function(op)(x)
        assert_accurate(op, want, x)
        for k, argument in enumerate(op.arguments(x)):
            if takes(op, "out") and argument.dtype == x.dtype and argument.shape == x.shape:
                own = [a.copy() for a in op.arguments(x)]
                assert_same_bits(given(op, *own, out=own[k]), want)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.7, 1e-3])
@pytest.mark.parametrize("dtype", WORK)
def test_short_rows_with_options(isa: str, dtype: str, temperature: float) -> None:
    """Derivatives and losses of many short rows, or columns, give what each row by itself gives."""
    number = np.dtype(dtype)
    for n in (2, 3, 5, 10, 16, 21, 32, 41, 47):
        x, v = logits((45, n), number), logits((45, n), number, seed=1)
        labels, targets, weight = np.arange(len(v)) % n, softmax(v), np.linspace(0.5, 2, n)
        losses, smoothed = softmax_cross_entropy_with_grad, {"label_smoothing": 0.1, "z_loss": 0.1, "weight": weight}
        for f, other, options in (
            (softmax_vjp, v, {}),
            (log_softmax_vjp, v, {}),
            (losses, labels, {}),
            (losses, labels, {"ignore_index": 1, "z_loss": 0.1, "weight": weight}),
            (losses, labels, {"ignore_index": 1, **smoothed}),
            (losses, labels, {"label_smoothing": 1.0}),
            (losses, targets, {"z_loss": 0.1}),
            (losses, targets, smoothed),
            (losses, targets, {"weight": weight}),
        ):
            options = {"temperature": temperature} | options
            by_itself = [f(x[i : i + 1], other[i : i + 1], **options) for i in range(len(x))]
            together, columns = f(x, other, **options), f(x.T.copy(), other.T.copy(), 0, **options)
            if f is losses:
                assert_same_bits(together[0], np.concatenate([loss for loss, _ in by_itself]))
                assert_same_bits(columns[0], together[0])
                assert_same_bits(softmax_cross_entropy(x, other, **options), together[0])
                by_itself, together, columns = [gradient for _, gradient in by_itself], together[1], columns[1]
            assert_same_bits(together, np.concatenate(by_itself))
            assert_same_bits(columns.T, together)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", FLOATS)
def test_masks_and_diagonals_side_by_side(isa: str, dtype: str, temperature: float) -> None:
    """Many rows, or columns, give what each row by itself gives: with any kind of mask, which gives what -inf in its
    place does; and the diagonal of the Jacobian."""
    for n in (1, 2, 7, 10, 16, 21, 32, 41, 60, 130, 1001):
        x = assorted((45, n), dtype_of(dtype))
        rows, columns = np.arange(45)[:, None], np.arange(n)
        some = (rows * 7 + columns * 5) % 11 < 6
        some[3], some[4] = False, True
        for mask in (some, np.asfortranarray(some), np.repeat(some, 2, -1)[:, ::2], columns % 3 > 0, rows % 3 > 0):
            where = np.broadcast_to(mask, x.shape)
            hidden = np.where(where, x, x.dtype.type(-math.inf))
            for f in (softmax, log_softmax, logsumexp):
                options = {} if f is logsumexp else {"temperature": temperature, "empty": "zero"}
                want = np.concatenate([f(hidden[i : i + 1], **options) for i in range(len(x))])
                for mask_ in (mask, where, where.copy()):
                    assert_same_bits(f(x, where=mask_, **options), want)
                    assert_same_bits(f(x.T.copy(), 0, where=np.atleast_2d(mask_).T, **options), want.T)
                    assert_same_bits(f(x.T.copy(), 0, where=where.T.copy(), **options), want.T)
        by_itself = [softmax_jacobian_diagonal(x[i : i + 1], temperature=temperature) for i in range(len(x))]
        assert_same_bits(softmax_jacobian_diagonal(x, temperature=temperature), np.concatenate(by_itself))
        of_columns = softmax_jacobian_diagonal(x.T.copy(), 0, temperature=temperature)
        assert_same_bits(of_columns.T, np.concatenate(by_itself))


@pytest.mark.parametrize("n", [400, 1000, 9001])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_between_lines(isa: str, dtype: str, n: int) -> None:
    """A kept output and what it is multiplied by may begin anywhere in a line, each in its own place, also in place."""
    number = dtype_of(dtype)
    y, v = softmax(assorted((7, n), number)), assorted((7, n), number)
    want = softmax_vjp_from_output(np.repeat(y, 2, -1)[:, ::2], np.repeat(v, 2, -1)[:, ::2])
    for y_shift in (0, 16, 40):
        for v_shift in (0, 16, 56):
            its_y, its_v = moved(y, y_shift), moved(v, v_shift)
            assert_same_bits(softmax_vjp_from_output(its_y, its_v), want)
            assert_same_bits(softmax_vjp_from_output(its_y, its_v, out=its_v), want)


@pytest.mark.parametrize("n", [100, 400, 2000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_a_kept_output(isa: str, dtype: str, n: int) -> None:
    """Each row goes by itself, its sums beside another: how the others lie in memory, whether one of them is out of the
    ordinary, and how large all are together, change nothing."""
    number = dtype_of(dtype)
    few, weights = softmax(assorted((60, n), number)), assorted((60, n), number)
    want = np.stack([softmax_vjp_from_output(y, v) for y, v in zip(few, weights, strict=True)])
    y, v = few.reshape(4, 5, 3, n), weights.reshape(4, 5, 3, n)
    for part in (np.s_[:, ::2], np.s_[:, 1:4, :2], np.s_[::-1, :, 1:]):
        assert_same_bits(softmax_vjp_from_output(y[part], v[part]), want.reshape(4, 5, 3, n)[part])
    rows = (7 << 20) // (n * number.itemsize)
    large = softmax_vjp_from_output(np.resize(few, (rows, n)), np.resize(weights, (rows, n)), num_threads=1)
    assert_same_bits(large, np.resize(want, (rows, n)))


@pytest.mark.parametrize("n", [130, 203, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_that_share_lines(isa: str, dtype: str, n: int) -> None:
    """Past the caches a line in which one row ends and the next begins is written whole, whatever the row before was:
    results that begin anywhere in a line, of ordinary rows and others, give what parts of them give."""
    number = dtype_of(dtype)
    few = assorted((64, n), number)
    rows = (17 << 20) // (n * number.itemsize)
    x = np.resize(few, (rows, n))
    y, v = softmax(few), assorted((64, n), number)
    kept, weights = np.resize(y, (rows, n)), np.resize(v, (rows, n))
    cases = [
        (softmax, (x,), softmax(few)),
        (log_softmax, (x,), log_softmax(few)),
        (softmax_vjp_from_output, (kept, weights), softmax_vjp_from_output(y, v)),
    ]
    for shift in (0, number.itemsize, 48):
        for f, arguments, part in cases:
            out = f(*arguments, out=moved(x, shift))
            assert_same_bits(out, np.resize(part, (rows, n)))


@softmax_family
@pytest.mark.parametrize("n", [65_537, 73_728, 90_005])
@pytest.mark.parametrize("dtype", FLOATS)
def test_long_rows(op: Operation, isa: str, dtype: str, n: int) -> None:
    """Rows whose blocks are shifted each by itself, ordinary ones beside others, blocks far apart: alone, shared among
    threads, in batches, also past the caches, strided, in columns, and in place."""
    number = dtype_of(dtype)
    x = assorted((12, n), number)
    x[3] -= (np.arange(n) // 8192 % 3 * 60).astype(number)
    x[10] = np.sort(x[10])
    for options in ways(op):
        want = np.stack([function(op)(row, num_threads=1, **options) for row in x])
        assert_same_bits(function(op)(x, num_threads=1, **options), want)
        assert_same_bits(function(op)(x, num_threads=2, **options), want)
        assert_same_bits(np.stack([function(op)(row, num_threads=2, **options) for row in x]), want)
        assert_same_bits(function(op)(np.repeat(x, 2, -1)[:, ::2], **options), want)
        for times in (1, 2):  # few columns are made rows
            columns = function(op)(np.concatenate([x] * times).T.copy(), 0, **options)
            assert_same_bits(columns.T if columns.ndim == 2 else columns, np.concatenate([want] * times))
        if op.name != "logsumexp":
            for shift in (0, 16):
                out = moved(x, shift)
                assert_same_bits(function(op)(out, out=out, **options), want)
    rows = (18 << 20) // (n * number.itemsize)
    large, of_all = np.resize(x, (rows, n)), np.resize(function(op)(x), (rows, *want.shape[1:]))
    for threads in (1, 2):
        assert_same_bits(function(op)(large, num_threads=threads), of_all)
        assert_same_bits(function(op)(large, num_threads=threads, out=moved(of_all, 16)), of_all)
    assert_same_bits(function(op)(np.repeat(large, 2, -1)[:, ::2]), of_all)
    if op.name != "logsumexp":
        assert_same_bits(function(op)(large, out=large), of_all)


def moved(a: Array, shift: int) -> Array:
    """A copy that starts so many bytes further on."""
    b = np.empty(a.nbytes + 64, np.uint8)[shift : shift + a.nbytes].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


@elementwise
@pytest.mark.parametrize("dtype", FLOATS)
def test_in_place(op: Operation, isa: str, dtype: str) -> None:
    """Over one of the inputs, in every layout and on several threads: what a new array gets."""
    number = dtype_of(dtype)
    for shape in ((3, 7, 1), (3, 7, 17), (3, 7, 100), (2, 2, 20_000), (1, 1, 70_000)):
        x = assorted(shape, number)
        of_x_shape = [k for k, a in enumerate(op.arguments(x)) if a.shape == shape]
        for options, k in itertools.product(ways(op), of_x_shape):
            for name, arguments, axis in all_layouts(op, x, mixed=False):
                want = given(op, *arguments, axis=axis, **options)
                if name == "C order":
                    arguments = tuple(a.copy() for a in arguments)
                a = arguments[k]
                assert given(op, *arguments, axis=axis, out=a, **options) is a
                assert np.array_equal(bits(a), bits(want)), f"{name}, {shape}, {options}, argument {k}"


@every_operation
@pytest.mark.parametrize("n", [1001, 9001])
@pytest.mark.parametrize("dtype", FLOATS)
def test_results_larger_than_the_caches(op: Operation, isa: str, dtype: str, n: int) -> None:
    """Some 20 MB, which may be written in another way, give what parts of them give; also in place."""
    number = dtype_of(dtype)
    if op.classes > 1:
        n = 33 if n == 1001 else 129
    rows = (20 << 20) // number.itemsize // n ** max(op.classes, 1)
    few = op.arguments(assorted((200, n), number))
    arguments = [np.resize(a, (rows, *a.shape[1:])) for a in few]
    part = given(op, *few)
    want = np.resize(part, (rows, *part.shape[1:]))
    for threads in (1, 2):
        assert_same_bits(given(op, *arguments, num_threads=threads), want)
    out = np.zeros(want.size + 3, number)[3:].reshape(want.shape)
    given(op, *arguments, out=out)
    assert_same_bits(out, want)
    if op.classes == 1:
        given(op, *arguments, out=arguments[0])
        assert_same_bits(arguments[0], want)


@softmax_family
@pytest.mark.parametrize("dtype", FLOATS)
def test_masked_results_larger_than_the_caches(op: Operation, isa: str, dtype: str) -> None:
    """The same with a mask, of rows that follow each other, lie apart, or are reversed; one of them holds nothing."""
    number, n = dtype_of(dtype), 1001
    few, some = assorted((200, n), number), np.arange(200 * n).reshape(200, n) % 7 < 5
    some[30] = False
    part = function(op)(few, where=some)
    rows = (20 << 20) // number.itemsize // n
    x, where, want = np.resize(few, (rows, n)), np.resize(some, (rows, n)), np.resize(part, (rows, *part.shape[1:]))
    wide = np.zeros((rows, n + 5), number)
    wide[:, :n] = x
    for threads, own in itertools.product((1, 2), (x, wide[:, :n], x[:, ::-1].copy()[:, ::-1])):
        out = np.zeros(want.size + 3, number)[3:].reshape(want.shape)
        function(op)(own, where=where, out=out, num_threads=threads)
        assert_same_bits(out, want)
    assert_same_bits(function(op)(x[::-1], where=where[::-1]), want[::-1])
    if op.classes == 1:
        function(op)(x, where=where, out=x)
        assert_same_bits(x, want)


@softmax_family
@pytest.mark.parametrize("dtype", FLOATS)
def test_columns_side_by_side(op: Operation, isa: str, dtype: str) -> None:
    """Few columns or many, of few classes or many, several such arrays after each other: what rows give."""
    number = dtype_of(dtype)
    for n, columns in itertools.product((3, 40, 300), (1, 2, 5, 7, 12, 16, 17, 20, 33, 70)):
        x = assorted((3, columns, n), number)
        want = function(op)(x)
        turned = np.ascontiguousarray(np.moveaxis(x, -1, 1))
        got = function(op)(turned, axis=1)
        assert np.array_equal(bits(in_rows(got, turned, 1)), bits(in_rows(want, x, -1))), f"{columns} columns of {n}"


@at_any_length
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 17, 40, 600])
@pytest.mark.parametrize("dtype", FLOATS)
def test_columns_that_go_together(op: Operation, isa: str, dtype: str, n: int) -> None:
    """Some hundred columns: all of them ordinary, or some that hold a NaN, infinities, or huge numbers."""
    number = dtype_of(dtype)
    for columns, odd in itertools.product((15, 64, 530), (0, 1, 7)):
        x = logits((columns, n), number, largest=40)
        x[columns // 2 : columns // 2 + odd] = assorted((11, n), number)[10 - odd : 10]
        want, turned = function(op)(x), np.ascontiguousarray(x.T)
        for threads in (1, 2):
            got = function(op)(turned, axis=0, num_threads=threads)
            assert np.array_equal(bits(in_rows(got, turned, 0)), bits(in_rows(want, x, -1))), f"{columns} columns"
        if op.classes == 1:
            assert_same_bits(function(op)(turned, axis=0, out=turned, num_threads=1 + odd % 2), got)


@pytest.mark.parametrize("n", [4, 20, 40])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_beside_large_weights(isa: str, dtype: str, n: int) -> None:
    """v far below its largest entry, which has no share: the same of a row alone, of rows and of columns."""
    number = dtype_of(dtype)
    least = np.finfo(number).smallest_subnormal
    x, v = logits((64, n), number), (np.arange(64 * n).reshape(64, n) % 9 * 700 * least).astype(number)
    x[:, 0], v[:, 0] = -2000, 1e13
    want = [softmax_vjp(*pair) for pair in zip(x, v, strict=True)]
    assert_same_bits(softmax_vjp(x, v), np.stack(want))
    turned = [np.ascontiguousarray(a.T) for a in (x, v)]
    assert_same_bits(softmax_vjp(*turned, axis=0), np.stack(want, 1))


@elementwise
@pytest.mark.parametrize(("n", "megabytes"), [(3, 20), (10, 3), (21, 3), (37, 20)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_columns_larger_than_the_caches(op: Operation, isa: str, dtype: str, n: int, megabytes: int) -> None:
    """Many columns, whose lines of memory begin together, and wherever: what parts of them give; those of next to no
    classes all ordinary, or hardly any would be written side by side."""
    number = dtype_of(dtype)
    times = (megabytes << 20) // number.itemsize // n // 192
    x = assorted((192, n), number) if n > 4 else logits((192, n), number)
    few = op.arguments(np.ascontiguousarray(x.T), 0)
    arguments = [np.tile(a, (1, times) if a.ndim == 2 else times) for a in few]
    want = np.tile(given(op, *few, axis=0), (1, times))
    for shift in (0, number.itemsize, 16):
        out = moved(np.zeros_like(want), shift)
        given(op, *arguments, axis=0, out=out, num_threads=1 + shift % 3)
        assert_same_bits(out, want)


@at_any_length
@pytest.mark.parametrize("dtype", FLOATS)
def test_out_beside_the_input(op: Operation, isa: str, dtype: str) -> None:
    """An output that overlaps an input, but is not the input, gets what another array gets."""
    number = dtype_of(dtype)
    arguments = op.arguments(assorted((12, 60), number))
    want = given(op, *arguments)
    shifts = (0, 1, 2, 15, 17, 100)
    for k in [k for k, a in enumerate(arguments) if a.shape == (12, 60)]:
        for place, source in itertools.product(shifts, shifts):
            buffer = np.resize(arguments[k].ravel(), 2 * arguments[k].size)
            a = buffer[source : source + arguments[k].size].reshape(12, 60)
            a[...] = arguments[k]
            out = buffer[place : place + want.size].reshape(want.shape)
            given(op, *arguments[:k], a, *arguments[k + 1 :], out=out)
            assert_same_bits(out, want)
    if op.classes == 1:
        for turn in (lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a[::-1, ::-1], lambda a: a[:12, :12].T):
            for k in [k for k, a in enumerate(arguments) if a.shape == (12, 60)]:
                a = arguments[k].copy()
                target = turn(a)
                part = (slice(None), slice(None, target.shape[1]))
                parts = [b[part[: b.ndim]] % 12 if b.dtype.kind == "i" else b[part] for b in arguments]
                want = given(op, *parts)
                parts[k] = a[part]
                given(op, *parts, out=target)
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
    assert_same_bits(f(x, out=None, num_threads=None), want)
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
    if op.name not in FAMILY:
        return
    assert_same_bits(f(x, (-1,)), want)
    assert_same_bits(f(x, where=None), want)
    assert_same_bits(f(x, where=True), want)
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
    in_python(monkeypatch)
    for x, axis in ((assorted((50, 9), np.dtype("float32")), -1), (assorted((9, 7, 40), np.dtype("float64")), 1)):
        want = function(op)(x, axis, num_threads=2)
        for piece in (1, 10, 63, 64, 100):
            for name in ("api", "_run"):
                if hasattr(sys.modules.get(f"fastsoft.{name}"), "PIECE"):
                    monkeypatch.setattr(f"fastsoft.{name}.PIECE", piece)
            assert_same_bits(function(op)(x, axis, num_threads=2), want)


@with_temperature
def test_temperature_is_a_number(op: Operation, isa: str) -> None:
    """What counts is the temperature's value, not its type."""
    x = logits((5, 20), "float64")
    want = function(op)(x, temperature=0.5)
    for half in (np.float16(0.5), np.float64(0.5), np.array(0.5), np.longdouble(0.5)):
        assert_same_bits(function(op)(x, temperature=half), want)
