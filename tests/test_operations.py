"""Every operation against its reference: on each instruction set, for each dtype, length and memory layout."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from helpers import (
    FAMILY,
    FLOATS,
    INTEGERS,
    LENGTHS,
    WORK,
    Array,
    all_layouts,
    assert_accurate,
    at_any_length,
    bits,
    bound_of,
    dtype_of,
    every_operation,
    function,
    given,
    in_rows,
    knowing,
    layouts,
    lengths,
    logits,
    result_shape,
    softmax_family,
    takes,
    with_temperature,
)

import fastsoft
from fastsoft.reference import Operation, max_error

WITH_TEMPERATURE = {"softmax": 3.5}  # ULP, where it is more than the bound of the operation


@functools.cache
def case(op: Operation, n: int, dtype: np.dtype[Any]) -> tuple[Array, Operation]:
    """Rows of n logits, more than a register has lanes where they are short, and what the operation gives."""
    x = logits((3, 7 if n < 1000 else 2, n), dtype)
    arguments = op.arguments(x.reshape(-1, n))
    want = op.reference(*arguments)
    return x, knowing(op, want, op.size(want, *arguments))


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_length_and_layout(op: Operation, isa: str, dtype: str) -> None:
    """The bound holds, and the result's shape and dtype are right, however the array lies in memory."""
    number = dtype_of(dtype)
    for n in lengths(op, LENGTHS):
        x, known = case(op, n, number)
        seen: Array | None = None
        for name, arguments, axis in all_layouts(op, x):
            y = given(op, *arguments, axis=axis)
            assert y.dtype == number
            assert y.flags.c_contiguous
            assert y.shape == result_shape(op, arguments[0].shape, axis)
            got = in_rows(y, arguments[0], axis)
            if seen is None or not np.array_equal(bits(got), bits(seen)):  # the same bits have the same error
                error = max_error(known, got, x)
                assert error <= bound_of(op, number), f"{name}, n = {n}: an error of {error:.4g} ULP"
            seen = got


@every_operation
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(op: Operation, isa: str, dtype: str) -> None:
    """Integers and bool give float64, from all of their range: nothing wraps."""
    rng = np.random.default_rng(0)
    if dtype == "bool":
        x = rng.random((3, 5, 33)) < 0.5
    else:
        limits = np.iinfo(dtype)
        x = rng.integers(limits.min, limits.max, (3, 5, 33), dtype, endpoint=True)
        x[0] = rng.integers(0, 100, (5, 33))  # and where the classes are close
        x[1, 0, :2] = limits.min, limits.max
    for name, a, axis in layouts(x):
        y = function(op)(a, axis=axis)
        assert y.dtype == np.float64
        assert max_error(op, y, a.astype(np.float64), axis) <= op.bound, name


def around(middle: float, dtype: np.dtype[Any], shape: tuple[int, ...], seed: int) -> Array:
    """Numbers near `middle`, so near that several classes count, or else on neighbouring floating-point numbers."""
    rng = np.random.default_rng(seed)
    step = max(float(np.spacing(dtype.type(abs(middle)))) / 4, 1.0)
    return (middle + rng.normal(0, 3, shape) * step).astype(dtype)


def middles(dtype: np.dtype[Any]) -> Array:
    """From small numbers to the largest, of both signs: all the ways in which x goes into exp, and where they meet."""
    largest = float(np.finfo(dtype).max) / 2
    powers = 2.0 ** np.array([17, 30])
    edges = [299, 301, 1299, 1301, *(powers - 1), *powers, *(powers + 1), 3.3e38 if dtype.itemsize < 8 else 1.7e308]
    found = np.concatenate([np.geomspace(50, 1e12, 30), np.geomspace(1e12, largest, 8), edges])
    return np.concatenate([found, -found])


@every_operation
@pytest.mark.parametrize("dtype", WORK)
def test_every_finite_input(op: Operation, isa: str, dtype: str) -> None:
    """The bound holds wherever the logits lie."""
    number = np.dtype(dtype)
    for n in (2, 5, 17, 100) if op.classes < 2 else (2, 17):
        for k, middle in enumerate(middles(number)[:: 1 if op.name in FAMILY else 3]):
            x = around(middle, number, (20, n), k)
            error = max(max_error(op, function(op)(a, axis=axis), a, axis) for a, axis in ((x, -1), (x.T.copy(), 0)))
            assert error <= op.bound, f"around {middle}, n = {n}: an error of {error:.4g} ULP"


@every_operation
@pytest.mark.parametrize("dtype", WORK)
def test_rows_of_all_sizes_in_one_batch(op: Operation, isa: str, dtype: str) -> None:
    """Rows that are computed in different ways stand side by side, and numbers of all sizes in one row."""
    number = np.dtype(dtype)
    largest = float(np.finfo(number).max) / 4
    rng = np.random.default_rng(0)
    for n in (1, 3, 16, 50):
        x = logits((100, n), number)
        far = x[::3]
        far[...] = [around(m, number, (n,), k) for k, m in enumerate(rng.choice(middles(number), len(far)))]
        mixed = x[1::3]
        mixed[...] = 10 ** rng.uniform(-20, np.log10(largest), mixed.shape) * rng.choice([-1, 1], mixed.shape)
        for a, axis in ((x, -1), (x.T.copy(), 0), (x.reshape(4, 25, n).transpose(1, 0, 2).copy(), -1)):
            assert_accurate(op, function(op)(a, axis=axis), a, axis)


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_dominant_class(op: Operation, isa: str, dtype: str) -> None:
    """One class far ahead of the others: nothing cancels, and what is left for the others is right too."""
    number = dtype_of(dtype)
    leads = np.concatenate([np.arange(0, 110, 0.37), np.arange(110, 760, 7.3)])
    for n in lengths(op, (2, 3, 4, 10, 16, 17, 100 if op.classes < 2 else 33, 1000)):
        x = np.random.default_rng(n).normal(0, 0.7, (len(leads), n))
        x[np.arange(len(leads)), np.arange(len(leads)) * 7 % n] += leads
        x = (x - 3.3 * (n % 3)).astype(number)
        assert_accurate(op, function(op)(x), x)
    flat = np.zeros((len(leads), 3), number)
    flat[:, 1] = leads
    assert_accurate(op, function(op)(flat), flat)


@at_any_length
@pytest.mark.parametrize("dtype", WORK)
def test_many_classes_far_behind(op: Operation, isa: str, dtype: str) -> None:
    """Equal ones, each far below the last digit of the largest: what their sum loses would all go the same way."""
    x = np.full((12, 8192), -0.3, dtype)
    x[:, 0] = np.linspace(10, 60 if dtype == "float32" else 500, len(x))
    assert_accurate(op, function(op)(x), x)


@every_operation
@pytest.mark.parametrize("dtype", WORK)
def test_many_short_rows(op: Operation, isa: str, dtype: str) -> None:
    """The bound holds in the rare row, too, in which all roundings go the same way."""
    for n in (2, 3, 4, 7):
        for deviation in (0.3, 1, 3, 9, 20, 45, 100):
            x = (
                np.random.default_rng(n)
                .normal(0, deviation, ((40_000 if op.name in FAMILY else 12_000) // n, n))
                .astype(dtype)
            )
            error = max_error(op, function(op)(x), x)
            assert error <= op.bound, f"n = {n}, deviation {deviation}: an error of {error:.4g} ULP"


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_sum_of_exponentials_near_1(op: Operation, isa: str, dtype: str) -> None:
    """Logits near -log n: the sum's logarithm cancels the maximum, and what is left of both is right."""
    for n in lengths(op, (3, 30, 100, 1000, 10_000, 100_000)):
        rows = max(1, (20_000 if op.name in FAMILY else 8000) // n ** max(1, op.classes))
        x = -math.log(n) + np.random.default_rng(n).normal(0, 1e-3, (rows, n)) + np.linspace(-1, 1, rows)[:, None]
        x = np.concatenate([x, x - 1]).astype(dtype_of(dtype))
        assert_accurate(op, function(op)(x), x)


@at_any_length
@pytest.mark.parametrize("dtype", WORK)
def test_long_rows(op: Operation, isa: str, dtype: str) -> None:
    """The error does not grow with n, nor do the probabilities' sum and 1 part."""
    n = (1 << 20 if op.name in FAMILY else 1 << 17) + 13
    rows = [logits((1, n), dtype), np.full((1, n), 0.3, dtype), -np.arange(n, dtype=dtype)[None] / 1000]
    for x in rows:
        assert_accurate(op, function(op)(x), x)


@softmax_family
@pytest.mark.parametrize("dtype", WORK)
def test_blocks_far_apart(op: Operation, isa: str, dtype: str) -> None:
    """Rows so long that each block of 8192 classes is shifted by itself: whatever lies between the blocks' maxima."""
    n = 90_005
    x = np.repeat(logits((1, n), dtype), 9, axis=0)
    block = np.arange(n) // 8192
    x[0] = np.sort(x[0])
    x[1] = -x[0]
    x[2] += np.linspace(-150, 100, n)
    x[3, block != 4] -= 60
    x[4] -= np.array([0, 30, 70, 88, 104, 150, 400, 1000])[block % 8]
    x[5, block % 3 == 1] = -math.inf
    x[6, block > 0] = -1e30
    x[7] = np.array([0, -1, -2, -20])[block % 4]  # maxima that many share, in some blocks below that of the row
    x[8, block == 10] += 250
    assert_accurate(op, function(op)(x), x)
    columns = np.ascontiguousarray(np.concatenate([x, x]).T)  # enough to go side by side
    assert_accurate(op, function(op)(columns, 0), columns, 0)


@softmax_family
@pytest.mark.parametrize("dtype", WORK)
def test_long_rows_at_the_edge_of_reach(op: Operation, isa: str, dtype: str) -> None:
    """Maxima around where x / T no longer goes into exp as it is, on both sides of 0, one class far ahead of others."""
    options = {"temperature": 0.96} if takes(op, "temperature") else {}
    edges = [edge * (0.96 if options else 1) for edge in (300.0, 1300.0, 131_072.0, 524_288.0)]
    for top in (sign * edge for edge in edges for sign in (-1, 1)):
        row = np.full((3, 65_537), top - 28.8, dtype)
        row[:, 5] = np.asarray(top, dtype) + np.spacing(np.asarray(top, dtype)) * np.array([-1, 0, 1], dtype)
        y = function(op)(row, **options)
        assert_accurate(op, y, row, bound=temperature_bound(op, dtype_of(dtype)), **options)


@pytest.mark.parametrize("dtype", WORK)
def test_sum_of_probabilities(isa: str, dtype: str) -> None:
    """The exact sum is 1 within one ulp of 1, for any n."""
    for n in (*LENGTHS, 100_000):
        x = logits((9 if n < 1000 else 2, n), dtype)
        x[0] = x[0, 0]  # all classes the same
        for row in fastsoft.softmax(x):
            assert abs(math.fsum(row.tolist()) - 1) <= np.finfo(dtype).eps, f"n = {n}"


def temperature_bound(op: Operation, dtype: np.dtype[Any]) -> float:
    return op.bound16 if dtype.itemsize == 2 else WITH_TEMPERATURE.get(op.name, op.bound)


@with_temperature
@pytest.mark.parametrize("dtype", FLOATS)
def test_temperature(op: Operation, isa: str, dtype: str) -> None:
    """As if x were x / T in exact arithmetic, in rows and in columns."""
    number = dtype_of(dtype)
    for n in lengths(op, (1, 2, 9, 16, 33, 1000, 8193)):
        for t in (0.1, 0.7, 1 / 3, 0.9999999, 1.0000001, 2.0, 3.0, 10.0, 77.7, 1e3, 1e-3):
            x = (logits((21 if n < 1000 else 2, n), "float64", largest=5) * t).astype(number)
            bound = temperature_bound(op, number)
            assert_accurate(op, function(op)(x, temperature=t), x, bound=bound, temperature=t)
            x = x.T.copy()
            assert_accurate(op, function(op)(x, 0, temperature=t), x, 0, bound=bound, temperature=t)


def extreme(temperature: float, largest: float) -> dict[str, Array]:
    """Logits for which x, x - max or x / T is out of the ordinary, though not what comes of them."""
    rng = np.random.default_rng(0)
    near = float(np.clip(temperature, 1e-30, largest / 20))  # so that several classes count, where that can be
    return {
        "spread by T": rng.normal(0, 3, (5, 20)) * near,
        "spread by T around a large number": rng.normal(0, 3, (5, 20)) * near + largest / 3,
        "from end to end": rng.choice([largest, -largest, 0, 1, 1 + 2.0**-7], (20, 20)),
        "the largest": np.full((2, 20), largest),
        "ordinary": rng.normal(0, 3, (5, 20)),
    }


@with_temperature
@pytest.mark.parametrize("dtype", FLOATS)
def test_extreme_temperature(op: Operation, isa: str, dtype: str) -> None:
    """Where T, 1 / T or x / T is not in the range of x's dtype, the bound holds all the same."""
    number = dtype_of(dtype)
    largest = 6e4 if dtype == "float16" else 3.3e38 if number.itemsize < 8 else 1.7e308
    wrong = []
    for t in (5e-324, 1e-310, 1e-200, 1e-50, 1e-40, 1e-20, 1e20, 1e38, 1e40, 1e50, 1e200, 1e300, 1.7e308):
        for name, rows in extreme(t, largest).items():
            x = rows.astype(number)
            for a, axis in ((x, -1), (x.T.copy(), 0)):
                y = function(op)(a, axis, temperature=t)
                error = max_error(op, y, a, axis, temperature=t)
                if error > temperature_bound(op, number) or np.isnan(y).any():
                    wrong.append(f"T = {t:g}, {name}: an error of {error:.4g} ULP, {np.isnan(y).sum()} NaN")
    assert not wrong, "\n".join(dict.fromkeys(wrong))


def test_log_near_overflow(isa: str) -> None:
    """Where x / T, and no step before it, is near the largest number."""
    y = fastsoft.log_softmax(np.array([0, -1.6e8, -1.75e8, -1.8e8]), temperature=1e-300)
    assert np.allclose(y[:3], [0, -1.6e308, -1.75e308], rtol=1e-15)
    assert y[3] == -math.inf


@pytest.mark.parametrize("dtype", FLOATS)
def test_log_overflow(isa: str, dtype: str) -> None:
    """A log-probability below the smallest number is -inf, not NaN, and the others stay right."""
    number = dtype_of(dtype)
    largest = 65504 if dtype == "float16" else 3e38 if number.itemsize < 8 else 1.7e308
    x = np.array([[largest, -largest, largest], [-largest, -largest, largest]], number)
    want = [[-math.log(2), -math.inf, -math.log(2)], [-math.inf, -math.inf, 0]]
    for y in (fastsoft.log_softmax(x), fastsoft.log_softmax(x.T.copy(), 0).T):
        assert np.array_equal(y, np.array(want, number))
