"""LogSumExp: rows that come in chunks give the bits, and keep the bounds, of rows seen at once."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from helpers import (
    FLOATS,
    LENGTHS,
    WORK,
    Array,
    all_layouts,
    assert_same_bits,
    bits,
    dtype_of,
    extended,
    in_rows,
    logits,
    use,
)
from hypothesis import given
from hypothesis import strategies as st

import fastsoft
from fastsoft import EmptyRowError, LogSumExp, _dispatch, _run, reference, state
from fastsoft.reference import OPS, distance, ulp

WITH_FMA = [isa for isa in _dispatch.available() if isa != "portable"]
TEMPERATURES = (1.0, 0.7, 1e4, 1e-25, 1e25)
# Where a row may lie: where x itself goes into exp, at the ends of that with and without FMA, beyond, and where only
# the maximum is left.
PLACES = (0, 300, 390, 709, 1300, 1419.6, 2129.3, 3.6e8, 3.72e8, 7.44e8, 1.2e9, 1e10, 2.0**45, 2.0**62, 2.0**66, 1e300)


def rows_everywhere(dtype: np.dtype[Any], n: int, temperature: float = 1, seed: int = 0) -> Array:
    """Rows of n classes in all these places on both sides of 0, narrow and wide, with ties, and with -inf in some."""
    rng = np.random.default_rng([seed, n])
    found = []
    for place in PLACES:
        for sign in (1, -1):
            for spread in (1, 30, 1e3, 1e9):
                x = (sign * min(place, 1e300 / temperature) + rng.standard_normal(n) * spread) * temperature
                if rng.random() < 0.3:
                    x = np.where(rng.random(n) < 0.5, x, rng.choice(x))
                if rng.random() < 0.3:
                    x[rng.integers(n)] += rng.choice([50, 140, 800]) * temperature
                if rng.random() < 0.2:
                    x[rng.random(n) < 0.4] = -math.inf
                found.append(x)
    largest = float(reference.largest(dtype))
    return np.where(np.isfinite(x := np.array(found)), np.clip(x, -largest, largest), x).astype(dtype)


def in_parts(x: Array, rng: np.random.Generator, parts: int, **options: Any) -> LogSumExp:
    """The state of x, whose classes are dealt out at random, merged along a random tree."""
    piles = np.array_split(rng.permutation(x.shape[-1]), np.sort(rng.integers(0, x.shape[-1] + 1, parts)))
    states = [LogSumExp(x.shape[:-1], dtype=x.dtype, **options).update(x[..., pile]) for pile in piles]
    while len(states) > 1:
        one = states.pop(rng.integers(len(states)))
        k = rng.integers(len(states))
        states[k] = states[k].merge(one) if rng.random() < 0.5 else one.merge(states[k])
    return states[0]


def results(s: LogSumExp, x: Array, axis: int = -1, **options: Any) -> tuple[Array, ...]:
    """All that a state gives: three of x's shape, and the sums."""
    of_x = (s.softmax, s.log_softmax, s.softmax_complement)
    return (*(f(x, axis, **options) for f in of_x), s.result())


def assert_same(got: tuple[Array, ...], want: tuple[Array, ...]) -> None:
    for a, b in zip(got, want, strict=True):
        assert_same_bits(a, b)


def seen(x: Array, **options: Any) -> LogSumExp:
    """The state of rows that are seen at once."""
    return LogSumExp(x.shape[:-1], dtype=x.dtype, **options).update(x)


# ---- the same bits ----


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_cuts_and_orders(isa: str, dtype: str, temperature: float) -> None:
    """However the classes of a row are dealt out, and in whatever order they are merged."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 8, 40, 300):
        x = rows_everywhere(dtype_of(dtype), n, temperature)
        want = results(seen(x, temperature=temperature), x)
        for parts in (1, 2, 7):
            assert_same(results(in_parts(x, rng, parts, temperature=temperature), x), want)


@pytest.mark.parametrize("dtype", WORK)
def test_cuts_of_long_rows(isa: str, dtype: str) -> None:
    """Of several blocks, one class at the end of which changes everything."""
    rng = np.random.default_rng(0)
    for last in (0, 30, 200):
        x = logits((2, 20_001), dtype)
        x[:, -1] += last
        want = results(seen(x), x)
        assert_same(results(in_parts(x, rng, 5), x), want)
        one_by_one = LogSumExp(2, dtype=dtype)
        for k in range(0, 20_001, 1000):
            one_by_one.update(x[:, k : k + 1000])
        assert_same(results(one_by_one, x), want)


NUMBERS = st.floats(width=32, allow_nan=False) | st.floats(-50, 50, width=32)


@given(st.lists(NUMBERS, min_size=1, max_size=12), st.randoms())
def test_any_rows(values: list[float], random: Any) -> None:
    """Any numbers, in any order, in any number of states."""
    x = np.array(values)
    want = seen(x)
    random.shuffle(values)
    cut = random.randint(0, len(values))
    got = LogSumExp().update(values[:cut]).merge(LogSumExp().update(values[cut:]))
    assert_same(results(got, x), results(want, x))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.skipif(len(WITH_FMA) < 2, reason=f"NOT TESTED: of the instruction sets with FMA only {WITH_FMA} run here")
def test_instruction_sets(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All instruction sets with FMA give the same bits, the states' own too."""
    for n in (1, 3, 8, 17, 300, 5000):
        for temperature in TEMPERATURES if n < 1000 else (1.0,):
            x = rows_everywhere(dtype_of(dtype), n, temperature)
            found = []
            for isa in WITH_FMA:
                use(isa, monkeypatch)
                s = seen(x, temperature=temperature)
                found.append((*results(s, x), s._tallies))
            for other in found[1:]:
                assert_same(other, found[0])


@pytest.mark.parametrize("shape", [(1, 200_000), (3, 70_001), (300, 1000), (40_000, 5), (17, 9000)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_number_of_threads(isa: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Also where threads share a row, in rows and in columns."""
    x = logits(shape, dtype_of(dtype))
    mask = np.random.default_rng(0).random(shape) < 0.9
    s = LogSumExp(shape[0], dtype=x.dtype).update(x, where=mask, num_threads=1)
    want = results(s, x, where=mask, num_threads=1)
    for threads in (2, 3, 4):
        s = LogSumExp(shape[0], dtype=x.dtype).update(x, where=mask, num_threads=threads)
        assert_same(results(s, x, where=mask, num_threads=threads), want)
        s = LogSumExp(shape[0], dtype=x.dtype).update(x.T.copy(), 0, where=mask.T, num_threads=threads)
        got = results(s, np.asfortranarray(x), where=mask, num_threads=threads)
        assert_same(got, want)


@pytest.mark.parametrize("dtype", FLOATS)
def test_layouts(isa: str, dtype: str) -> None:
    """Any axis, strides and place of the output."""
    softmax = next(op for op in OPS if op.name == "softmax")
    for n in LENGTHS[:-3]:
        x = logits((3, 11 if n < 1000 else 2, n), dtype_of(dtype), largest=40)
        want = [in_rows(y, x, -1) for y in results(seen(x), x)]
        for name, (a,), axis in all_layouts(softmax, x):
            s = LogSumExp(tuple(np.delete(a.shape, axis)), dtype=x.dtype).update(a, axis)
            for got, expected in zip(results(s, a, axis), want, strict=True):
                assert np.array_equal(bits(in_rows(got, a, axis)), bits(expected)), f"{name}, n = {n}"
            y = s.softmax(a, axis)
            for out in (np.repeat(y, 2, -1)[..., ::2], np.asfortranarray(y), a.copy(order="K")):
                assert s.softmax(a, axis, out=out) is out
                assert_same_bits(out, y)
            inside = a.copy(order="K")
            assert_same_bits(s.log_softmax(inside, axis, out=inside), s.log_softmax(a, axis))


def test_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long work is done in pieces, and a state has all of a chunk or nothing of it."""
    x = logits((50, 300), np.float64)
    want = results(seen(x), x)
    for module in (_run, state):
        monkeypatch.setattr(module, "PIECE", 1000)
    assert_same(results(seen(x), x), want)
    s = seen(x)
    interrupt_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        s.update(x + 1)
    monkeypatch.undo()
    assert_same(results(s, x), want)
    assert s._seen == 300


def interrupt_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after so many pieces."""
    part, left = state.kernels.state_part, iter(range(calls))

    def interrupted(*arguments: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        part(*arguments)

    monkeypatch.setattr(state.kernels, "state_part", interrupted)


# ---- the bounds ----


def exact(x: Array, temperature: float) -> tuple[Array, ...]:
    """All results in 80 bits."""
    with np.errstate(all="ignore"):
        _, e, first, rest = reference._parts(x, -1, temperature)
        lacks = 1 + rest - e
        np.put_along_axis(lacks, first, rest, -1)
        top = x.astype(np.longdouble).max(-1) / np.longdouble(temperature)
        log = reference.log_softmax(x, -1, temperature)
        return e / (1 + rest), log, lacks / (1 + rest), top + np.log1p(rest[..., 0])


def assert_within_bounds(s: LogSumExp, x: Array) -> None:
    bounds = (2.5 if s.temperature == 1 else 3.5, 3, 4, 2) if x.dtype.itemsize > 2 else (0.51,) * 4
    names = ("softmax", "log_softmax", "softmax_complement", "result")
    for name, got, want, bound in zip(names, results(s, x), exact(x, s.temperature), bounds, strict=True):
        with np.errstate(all="ignore"):
            size = np.abs(want) if name != "result" else np.maximum(np.abs(want), 1)
            error = distance(got, want, ulp(size, x.dtype)).max(initial=0)
        assert error <= bound, f"{name}: an error of {error:.4g} ULP, {bound} are allowed"


@extended
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_bounds(isa: str, dtype: str, temperature: float) -> None:
    """Everywhere, of states that come from chunks."""
    for n in (1, 2, 3, 17, 1000):
        x = rows_everywhere(dtype_of(dtype), n, temperature, seed=1)
        x = x[np.isfinite(x.max(-1).astype(np.float64))]
        assert_within_bounds(in_parts(x, np.random.default_rng(0), 3, temperature=temperature), x)


@extended
@pytest.mark.parametrize("dtype", WORK)
@pytest.mark.parametrize("ahead", [0.1, 1, 10, 40, 139, 600, 740])
def test_dominant_class(isa: str, dtype: str, ahead: float) -> None:
    """The others may be far below the largest, such as 2**-200: they alone say what it lacks to 1."""
    x = logits((20, 50), dtype)
    x[:, 7] = x.max(-1) + np.asarray(ahead, dtype)
    s = in_parts(x, np.random.default_rng(0), 4)
    assert_within_bounds(s, x)
    assert (s.softmax_complement(x)[:, 7] > 0).all() or dtype == "float32" or ahead > 700


@extended
def test_many_classes_far_behind(isa: str) -> None:
    """Of the others most are so small beside one that only their number lets them count."""
    for below in (30, 45, 60):
        x = np.full((1, 1 << 20), -float(below))
        x[:, 12345], x[:, 123456] = 0, 3
        s = in_parts(x, np.random.default_rng(0), 3)
        assert_within_bounds(s, x)
        others = Fraction(math.exp(-3)) + (x.size - 2) * Fraction(math.exp(-3 - below))
        assert abs(Fraction(float(s.softmax_complement(x)[0, 123456])) * (1 + others) / others - 1) < 2**-51


def test_ties(isa: str) -> None:
    """Equal classes are counted, across chunks, and also when a larger one comes."""
    s = LogSumExp().update([5.0, 5.0]).merge(LogSumExp().update([5.0]))
    assert_same_bits(s.softmax([5.0]), np.array([1 / 3]))
    assert_same_bits(s.softmax_complement([5.0]), np.array([2 / 3]))
    for larger in (5.5, 50.0, 1e6):
        x = [5.0, 5.0, 5.0, larger]
        assert_same(results(s.copy().update([larger]), np.array(x)), results(LogSumExp().update(x), np.array(x)))
    assert_same_bits(LogSumExp().update([-0.0]).update([0.0]).result(), LogSumExp().update([0.0, -0.0]).result())
    many = LogSumExp()
    for _ in range(30):
        many.update([1.0])
        many.merge(many)
    assert many.result() == 1 + math.log(2**31 - 2)


# ---- special values ----


@pytest.mark.parametrize("dtype", FLOATS)
def test_not_finite(isa: str, dtype: str) -> None:
    """NaN and +inf, in whichever chunk they come, make their row NaN, and no other."""
    number = dtype_of(dtype)
    for n in (1, 2, 9, 5000):
        for special, total in ((math.nan, math.nan), (math.inf, math.inf)):
            for place in {0, n // 2, n - 1}:
                x = logits((3, n), number)
                x[1, place] = special
                if n == 9:
                    x[1, :place] = -math.inf
                s = in_parts(x, np.random.default_rng(place), 3)
                for y in results(s, x)[:3]:
                    assert np.isnan(y[1].astype(np.float64)).all()
                    assert not np.isnan(y[::2].astype(np.float64)).any()
                np.testing.assert_equal(float(s.result()[1]), total)
    both = LogSumExp().update([math.inf]).merge(LogSumExp().update([0.0, math.nan]))
    assert np.isnan(both.result())


def test_minus_infinity(isa: str) -> None:
    """A class that cannot occur."""
    s = LogSumExp().update([0.0, -math.inf]).update([-math.inf, 0.0])
    x = np.array([-math.inf, 0.0])
    want = ([0, 0.5], [-math.inf, -math.log(2)], [1, 0.5], math.log(2))
    assert_same(results(s, x), tuple(np.array(y, np.float64) for y in want))


@pytest.mark.parametrize("dtype", FLOATS)
def test_empty_rows(isa: str, dtype: str) -> None:
    """What has seen nothing, or nothing but -inf, gives what `empty` says."""
    number = dtype_of(dtype)
    x = np.array([[1, 2], [-math.inf, -math.inf]], number)
    for s in (LogSumExp(2, dtype=number).update(x), LogSumExp(2, dtype=number).update(x[:, :0]).update(x)):
        assert s.result()[1] == -math.inf
        for f, zero in ((s.softmax, 0), (s.log_softmax, -math.inf)):
            assert np.isnan(f(x)[1].astype(np.float64)).all()
            assert (f(x, empty="zero")[1] == zero).all()
            assert_same_bits(f(x, empty="zero")[0], f(x)[0])
            out = np.full_like(x, 7)
            with pytest.raises(EmptyRowError, match=r"chunk: 1 empty row.*index \(1,\)") as info:
                f(x, empty="raise", out=out)
            assert (info.value.count, info.value.first, out[0, 0]) == (1, (1,), 7)
        assert np.isnan(s.softmax_complement(x)[1].astype(np.float64)).all()
    assert LogSumExp().result() == -math.inf


def test_where(isa: str) -> None:
    """What is masked changes nothing, whatever it is."""
    x = logits((4, 100), np.float64)
    mask = np.random.default_rng(0).random((4, 100)) < 0.6
    s, masked = LogSumExp(4).update(np.where(mask, x, -math.inf)), np.where(mask, x, math.nan)
    for where, a in ((mask, masked), (mask[0], np.where(mask[0], x, math.nan))):
        s = LogSumExp(4).update(np.where(where, x, -math.inf))
        got = LogSumExp(4).update(a[:, :50], where=where[..., :50]).update(a[:, 50:], where=where[..., 50:])
        assert_same(results(got, a, where=where), results(s, np.where(where, x, -math.inf)))
        assert (got.softmax(a, where=where)[np.broadcast_to(~where, x.shape)] == 0).all()
        assert (got.softmax_complement(a, where=where)[np.broadcast_to(~where, x.shape)] == 1).all()


def test_larger_than_all_that_was_seen(isa: str) -> None:
    """Has no probability."""
    s = LogSumExp().update([0.0, 1.0])
    for y in results(s, np.array([1.5, 1.0, -5.0]))[:3]:
        assert np.isnan(y).tolist() == [True, False, False]


def test_sizes(isa: str) -> None:
    """No classes, no rows, one class, no axis; integers."""
    assert LogSumExp((0, 3)).update(np.ones((0, 3, 5))).softmax(np.ones((0, 3, 5))).shape == (0, 3, 5)
    s = LogSumExp((2, 3)).update(np.ones((2, 0, 3)), 1)
    assert s.softmax(np.ones((2, 0, 3)), 1).shape == (2, 0, 3)
    assert (s.result() == -math.inf).all()
    assert_same(results(LogSumExp().update(2.0), np.array(2.0)), tuple(map(np.array, (1.0, 0.0, 0.0, 2.0))))
    x = np.array([[1, 2], [3, 3]])
    assert_same_bits(LogSumExp(2).update(x).result(), LogSumExp(2).update(x.astype(np.float64)).result())
    assert LogSumExp((2, 3)).update(np.zeros((5, 2, 3)), 0).result().shape == (2, 3)


# ---- the object ----


def copies() -> Iterator[Callable[[LogSumExp], LogSumExp]]:
    yield LogSumExp.copy
    yield copy.copy
    yield copy.deepcopy
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield lambda s, protocol=protocol: pickle.loads(pickle.dumps(s, protocol))  # type: ignore[misc]


@pytest.mark.parametrize("again", list(copies()))
@pytest.mark.parametrize("dtype", FLOATS)
def test_copies_and_pickles(again: Callable[[LogSumExp], LogSumExp], dtype: str) -> None:
    """A state of its own."""
    x = logits((3, 50), dtype_of(dtype))
    s = LogSumExp(3, dtype=x.dtype, temperature=0.5).update(x)
    want = results(s, x)
    other = again(s)
    assert (other.shape, other.dtype, other.temperature, other.nbytes) == ((3,), x.dtype, 0.5, 168)
    assert_same(results(other, x), want)
    other.update(x)
    assert_same(results(s, x), want)
    assert_same(results(other, x), results(s.merge(s), x))


def test_attributes() -> None:
    """They are what was asked for, and cannot be set."""
    s = LogSumExp([2, np.int64(3)], dtype="<f4", temperature=np.float32(0.5))  # type: ignore[arg-type]
    assert repr(s) == "LogSumExp(shape=(2, 3), dtype=float32, temperature=0.5)"
    assert (s.shape, s.dtype, s.temperature, s.nbytes) == ((2, 3), np.float32, 0.5, 6 * 56)
    for name in ("shape", "dtype", "temperature", "nbytes", "other"):
        with pytest.raises(AttributeError):
            setattr(s, name, 1)
    assert pickle.dumps(LogSumExp(1000)).__sizeof__() < 57_000


def test_small_beside_the_rows() -> None:
    """However many classes have been seen."""
    s = LogSumExp(2)
    for _ in range(3):
        s.update(np.zeros((2, 100_000)))
    assert s.nbytes == 112
    assert len(pickle.dumps(s)) < 1000


def test_merge_of_what_does_not_fit() -> None:
    """Says what differs."""
    s = LogSumExp(2)
    with pytest.raises(TypeError, match=r"other must be a LogSumExp, got list"):
        s.merge([1])  # type: ignore[arg-type]
    for other, message in (
        (LogSumExp(3), r"other must be of the shape \(2,\), got \(3,\)"),
        (LogSumExp(2, dtype=np.float32), "other must be of the dtype float64, got float32"),
        (LogSumExp(2, temperature=2), r"other must be of the temperature 1\.0, got 2\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            s.merge(other)


def test_bad_arguments() -> None:
    """Each is named, and nothing has changed."""
    for shape, error, message in (
        ("a", TypeError, "shape must be an int or a tuple of ints, got 'a'"),
        ((2, 1.5), TypeError, r"shape must be .*, got \(2, 1\.5\)"),
        (-1, ValueError, "shape must not be negative, got -1"),
    ):
        with pytest.raises(error, match=message):
            LogSumExp(shape)  # type: ignore[arg-type]
    for dtype in ("int64", "longdouble", "complex128", "nonsense", object):
        with pytest.raises(TypeError, match="dtype must be float16, bfloat16, float32, float64, got"):
            LogSumExp(dtype=dtype)
    for temperature in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature must be a positive finite number"):
            LogSumExp(temperature=temperature)
    x, good = logits((2, 5), np.float64), np.zeros((2, 5))
    s = LogSumExp(2).update(x)
    want = results(s, x)
    everywhere: list[tuple[Any, dict[str, Any], Any, str]] = [
        (good.astype(np.float32), {}, TypeError, "chunk must be of the state's dtype float64, got float32"),
        (good.astype(complex), {}, TypeError, "chunk must be of dtype"),
        (np.ma.masked_array(good), {}, TypeError, "chunk is a masked array"),
        (np.zeros((3, 5)), {}, ValueError, r"axis 1 must have the state's shape \(2,\), got a chunk of \(3, 5\)"),
        (np.zeros(5), {}, ValueError, r"axis 0 must have the state's shape \(2,\), got a chunk of \(5,\)"),
        (good, {"axis": 2}, np.exceptions.AxisError, "axis"),
        (good, {"axis": (0, 1)}, TypeError, "axis must be an int"),
        (good, {"where": np.ones(3, bool)}, ValueError, r"where must broadcast to the shape of chunk, \(2, 5\)"),
        (good, {"where": np.ones(5)}, TypeError, "where must be of dtype bool"),
        (good, {"num_threads": 0}, ValueError, "num_threads"),
    ]
    for chunk, options, error, message in everywhere:
        for f in (s.update, s.softmax, s.log_softmax, s.softmax_complement):
            with pytest.raises(error, match=message):
                f(chunk, **options)
    read_only = np.zeros((2, 5))
    read_only.flags.writeable = False
    for options, error, message in (
        ({"empty": "none"}, ValueError, "empty must be"),
        ({"out": np.zeros((2, 4))}, ValueError, "out must be of the result's shape"),
        ({"out": np.zeros((2, 5), np.float32)}, TypeError, "out must be of the result's dtype"),
        ({"out": read_only}, ValueError, "out must be writable"),
    ):
        for f in (s.softmax, s.log_softmax):
            with pytest.raises(error, match=message):
                f(good, **options)  # type: ignore[arg-type]
    assert_same(results(s, x), want)


def test_too_many_classes() -> None:
    """A sum could overflow."""
    s = LogSumExp().update([0.0])
    s._seen = (1 << 31) - 1
    s.update([0.0])
    for f in (lambda: s.update([0.0]), lambda: s.merge(LogSumExp().update([0.0]))):
        with pytest.raises(OverflowError, match="a row can see 2147483648 classes, got 2147483649"):
            f()
    assert s.result() == math.log(2)


def test_inputs_are_not_written_to() -> None:
    """Nor does `out` beside the chunk get anything else than another array."""
    x = logits((3, 40), np.float64)
    x.flags.writeable = False
    s = seen(x)
    want = results(s, x)
    memory = np.zeros((3, 50))
    memory[:, :40] = x
    assert_same_bits(s.softmax(memory[:, :40], out=memory[:, 5:45]), want[0])


def test_beside_softmax(isa: str) -> None:
    """The other functions give nearly the same."""
    x = logits((20, 1000), np.float64)
    got = results(in_parts(x, np.random.default_rng(0), 3), x)
    for a, b in zip(got, (fastsoft.softmax(x), fastsoft.log_softmax(x)), strict=False):
        np.testing.assert_array_max_ulp(a, b, 6)
    np.testing.assert_array_max_ulp(got[-1], fastsoft.logsumexp(x), 6)
