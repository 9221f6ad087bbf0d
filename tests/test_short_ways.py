"""The short ways into the public functions (kernels/entry.pxi): what they take, and that they give what the functions
in Python of the same name give, bit for bit."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import FLOATS, WORK, Array, assert_same_bits, dtype_of, logits
from numpy.exceptions import AxisError

import fastsoft
from fastsoft import _entry, _validate

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
SHAPES = (((3, 10), -1), ((7,), 0), ((2, 5, 3, 4), 1), ((4, 100), 1), ((9, 40), 0), ((70, 33), 1), ((3, 1), 1))
TEMPERATURES = (1.0, 2.0, 0.7, 3, np.float64(1.3))
LABELS = ("int8", "uint8", "int16", "int32", "uint32", "int64")


def family(x: Array, axis: int) -> Iterator[Call]:
    """Softmax and its like, with all of their options, of arrays of any strides."""
    some = logits(x.shape, np.float32, seed=2) > 0
    for own in (x, np.asfortranarray(x), np.repeat(x, 2, -1)[..., ::2], x[::-1]):
        masks = None, some, np.asfortranarray(some), some[(0,) * (x.ndim - 1)], some[..., :1]  # some to be broadcast
        for where, threads in itertools.product(masks, (None, 2)):
            for keepdims in (False, True):
                options = {"where": where, "keepdims": keepdims, "num_threads": threads}
                yield "logsumexp", (own, axis), options
                out = np.zeros_like(np.sum(x.astype(np.float32), axis, keepdims=keepdims), x.dtype)
                if out.ndim:
                    yield "logsumexp", (own, axis), options | {"out": out}
            for name, t, empty in itertools.product(("softmax", "log_softmax"), TEMPERATURES, ("nan", "zero")):
                options = {"where": where, "temperature": t, "empty": empty, "num_threads": threads}
                yield name, (own, axis), options
                yield name, (own, axis), options | {"out": np.zeros(x.shape, x.dtype)}


def derivatives(x: Array, axis: int) -> Iterator[Call]:
    """The derivatives of softmax and its like; float16 and bfloat16 have no short way to the Jacobian."""
    v, y = logits(x.shape, x.dtype, seed=3), fastsoft.softmax(x, axis)
    for t, threads in itertools.product(TEMPERATURES, (None, 2)):
        for name in ("softmax_vjp", "softmax_jvp", "log_softmax_vjp"):
            for own, its in ((x, v), (x, np.asfortranarray(v)), (x[::-1], v), (x, np.broadcast_to(v[:1], v.shape))):
                yield name, (own, its, axis), {"temperature": t, "num_threads": threads, "out": np.empty_like(x)}
                yield name, (own, its, axis), {"temperature": t, "num_threads": threads}
        yield "softmax_jacobian_diagonal", (x, axis), {"temperature": t, "num_threads": threads}
        if x.dtype.itemsize > 2:
            at = axis % x.ndim
            rows = x if at == x.ndim - 1 else np.moveaxis(x, at, -1).copy()
            yield "softmax_jacobian", (rows,), {"temperature": t, "num_threads": threads}
    for name, own in (("softmax_vjp_from_output", y), ("log_softmax_vjp_from_output", fastsoft.log_softmax(x, axis))):
        yield name, (own, v, axis), {}


def losses(x: Array, axis: int) -> Iterator[Call]:
    """The losses of labels of any integer type, and of targets, with all of their options."""
    n = x.shape[axis]
    batch = tuple(np.delete(x.shape, axis).tolist())
    y, targets = fastsoft.softmax(x, axis), fastsoft.softmax(logits(x.shape, x.dtype, seed=4), axis)
    for options in ({}, {"singular": "inf", "num_threads": 2}) if x.dtype.itemsize > 2 else ():
        yield "cross_entropy_grad", (y, targets, axis), options
    weights = None, np.linspace(0.5, 2, n), np.linspace(0.5, 2, n, dtype=np.float32)
    for kind in LABELS:
        t = np.asarray(np.arange(math.prod(batch)) % n, kind).reshape(batch)
        ignoring = None, *([0] if t.size > t[t == 0].size else []), 255
        for ignored, weight in itertools.product(ignoring, weights):
            for smoothing, z_loss, reduction in itertools.product((0.0, 0.1), (0, 0.01), ("none", "sum", "mean")):
                options = {
                    "ignore_index": ignored, "weight": weight, "label_smoothing": smoothing, "z_loss": z_loss,
                    "reduction": reduction, "temperature": 0.7,
                }  # fmt: skip
                yield "softmax_cross_entropy", (x, t, axis), options
                yield "softmax_cross_entropy_with_grad", (x, t, axis), options
                if kind == "int32" and ignored is None:
                    yield "softmax_cross_entropy_with_grad", (x, targets, axis), options | {"num_threads": 2}


def same(short: Any, long: Any) -> None:
    for a, b in zip(short, long, strict=True) if isinstance(short, tuple) else [(short, long)]:
        assert type(a) is type(b)
        assert_same_bits(a, b)


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("the long way")


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_same_as_the_long_ways(isa: str, dtype: str, shape: tuple[int, ...], axis: int) -> None:
    """None of these calls comes to Python, and each gives what it would give there."""
    x = logits(shape, dtype_of(dtype))
    calls = itertools.chain(family(x, axis), derivatives(x, axis), losses(x, axis))
    for name, arguments, options in calls:
        long = copy.deepcopy(_entry.general[name](*arguments, **options))
        if "out" in options:
            options["out"].fill(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(_entry.general, name, refuse)
            same(getattr(fastsoft, name)(*arguments, **options), long)


@pytest.mark.parametrize("dtype", FLOATS)
def test_several_axes(isa: str, dtype: str) -> None:
    """All axes, or such as follow each other, of contiguous arrays; others go the long way."""
    x = logits((3, 4, 5, 2), dtype_of(dtype))
    where = logits(x.shape, np.float32, seed=2) > 0
    for axis, options in itertools.product(
        (None, (0,), (0, 1), (1, 2), (-2, -1), (1, 2, 3), (0, 1, 2, 3)), ({}, {"where": where}, {"num_threads": 2})
    ):
        for name, more in (("softmax", {}), ("log_softmax", {}), ("logsumexp", {}), ("logsumexp", {"keepdims": True})):
            long = _entry.general[name](x, axis, **options, **more)
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(_entry.general, name, refuse)
                same(getattr(fastsoft, name)(x, axis, **options, **more), long)
    same(fastsoft.softmax(x, (1, 0)), fastsoft.softmax(x, (0, 1)))
    for axis in ((0, 0), (0, 4), (1.0,), [0, 1], (None,)):
        with pytest.raises((TypeError, ValueError)):
            fastsoft.softmax(x, axis)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="axis must be an int"):
        fastsoft.softmax_jacobian_diagonal(x, None)  # type: ignore[arg-type]


def test_temperatures(isa: str) -> None:
    """The two numbers that stand for 1 / temperature are those of the long way, at any temperature within reach."""
    x = logits((2, 5), np.float64)
    rng = np.random.default_rng(0)
    for t in (2.0**60, 2.0**-60, *np.ldexp(rng.uniform(0.5, 1, 300), rng.integers(-59, 60, 300)).tolist()):
        same(fastsoft.log_softmax(x, temperature=t), _entry.general["log_softmax"](x, temperature=t))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_entry.general, "softmax", refuse)
        for t in (2.0**61, 2.0**-61, 1e300, 10**30, np.float32(0.7)):
            with pytest.raises(AssertionError, match="the long way"):
                fastsoft.softmax(x, temperature=t)
    assert _validate.factor(0.7)[0] == _validate.SCALED


@pytest.mark.parametrize("dtype", FLOATS)
def test_in_place_and_over_what_is_read(isa: str, dtype: str) -> None:
    """`out` may be x, and lie over the mask, the labels or the weights, or over a part of x: always what no overlap
    gives."""
    number = dtype_of(dtype)
    x = logits((4, 8), number)
    where = logits((4, 8), np.float32, seed=1) > 0
    want = fastsoft.softmax(x, where=where, temperature=2)
    own = x.copy()
    assert fastsoft.softmax(own, where=where, temperature=2, out=own) is own
    assert_same_bits(own, want)
    memory = np.zeros(32 * number.itemsize, np.uint8)
    mask = memory[:32].view(bool).reshape(4, 8)
    mask[...] = where
    assert_same_bits(fastsoft.softmax(x, where=mask, temperature=2, out=memory.view(number).reshape(4, 8)), want)
    for own, out in (
        (np.s_[:4], np.s_[1:5]),  # of ten rows
        (np.s_[8:0:-2], np.s_[1:5]),
        (np.s_[8:0:-2], np.s_[8:4:-1]),
        (np.s_[3::-1], np.s_[:4]),
        (np.s_[:4], np.s_[3::-1]),
    ):
        rows = np.zeros((10, 8), number)
        rows[own] = x
        assert_same_bits(fastsoft.softmax(rows[own], where=where, temperature=2, out=rows[out]), want)
        rows[own], v = x, logits((4, 8), number, seed=2)
        assert_same_bits(fastsoft.softmax_vjp(v, rows[own], out=rows[out]), fastsoft.softmax_vjp(v, x))
    column = np.zeros(32, number)
    column[...] = x.ravel()
    lse = fastsoft.logsumexp(x, keepdims=True)
    assert_same_bits(fastsoft.logsumexp(column.reshape(4, 8), keepdims=True, out=column[:4].reshape(4, 1)), lse)
    if dtype in WORK:  # weights and targets that are still read when gradients are written
        x, t, memory = logits((100, 8), np.float64), np.arange(100) % 8, np.zeros(800)
        out = memory.reshape(100, 8)
        memory[:8], weight = np.linspace(1, 2, 8), np.linspace(1, 2, 8)
        options: dict[str, Any] = {"label_smoothing": 0.1}
        want = fastsoft.softmax_cross_entropy_with_grad(x, t, weight=weight, **options)[1]
        got = fastsoft.softmax_cross_entropy_with_grad(x, t, weight=memory[:8], out=out, **options)[1]
        assert_same_bits(got, want)
        labels = memory.view(np.int64)[-100:]
        labels[:] = t
        got = fastsoft.softmax_cross_entropy_with_grad(x, labels, weight=weight, out=out, **options)[1]
        assert_same_bits(got, want)


def test_errors_come_from_python(isa: str) -> None:
    """What a short way does not take is looked at in Python, whose errors name it; nothing is written."""
    x, t = logits((3, 5), np.float64), np.array([0, 1, 2])
    out = np.zeros_like(x)
    for error, name, options in (
        (ValueError, "temperature", {"temperature": 0}),
        (ValueError, "temperature", {"temperature": math.nan}),
        (TypeError, "temperature", {"temperature": True}),
        (TypeError, "temperature", {"temperature": "2"}),
        (ValueError, "empty", {"empty": "none"}),
        (ValueError, "empty", {"empty": 0}),
        (TypeError, "where", {"where": np.ones((3, 5), int)}),
        (ValueError, "where", {"where": np.ones((3, 4), bool)}),
        (ValueError, "num_threads", {"num_threads": 0}),
        (TypeError, "num_threads", {"num_threads": 1.0}),
    ):
        with pytest.raises(error, match=name):
            fastsoft.softmax(x, out=out, **options)  # type: ignore[arg-type]
    for error, name, labels, options in (
        (ValueError, "t must hold labels", t.astype(np.int8) - 1, {}),
        (ValueError, "got -1", np.array([0, -1, 2]), {"ignore_index": 0}),
        (ValueError, "got 9", np.array([0, 9, 2], np.uint8), {"ignore_index": 255, "label_smoothing": 0.1}),
        (ValueError, "18446744073709551615", np.array([0, 2**64 - 1, 2], np.uint64), {"ignore_index": -1}),
        (TypeError, "ignore_index", t, {"ignore_index": 1.0}),
        (ValueError, "label_smoothing", t, {"label_smoothing": 1.5}),
        (ValueError, "z_loss", t, {"z_loss": -1}),
        (ValueError, "z_loss", t, {"z_loss": math.inf}),
        (ValueError, "weight", t, {"weight": np.ones(4)}),
        (ValueError, "reduction", t, {"reduction": "max"}),
        (ValueError, "ignore_index goes with labels", np.ones((3, 5)), {"ignore_index": 1}),
    ):
        with pytest.raises(error, match=name):
            fastsoft.softmax_cross_entropy_with_grad(x, labels, out=out, **options)  # type: ignore[arg-type]
    with pytest.raises(fastsoft.EmptyRowError):
        fastsoft.softmax(x, where=np.zeros((3, 5), bool), empty="raise", out=out)
    with pytest.raises(fastsoft.SingularGradientError):
        fastsoft.cross_entropy_grad(np.zeros((3, 5)), np.ones((3, 5)), out=out)
    with pytest.raises(ValueError, match="singular"):
        fastsoft.cross_entropy_grad(np.ones((3, 5)), np.ones((3, 5)), singular="none", out=out)
    assert not out.any()


@pytest.mark.parametrize("name", ["softmax", "logsumexp", "softmax_vjp", "softmax_jacobian", "softmax_cross_entropy"])
def test_threads(isa: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small arrays do not ask for what is set; large ones do, and any number that is given counts."""
    allowed, seen = _entry.general["allowed"], []

    def spy(n: object) -> int:
        seen.append(n)
        return int(allowed(n))

    def call(x: Array, **options: Any) -> None:
        others = {"softmax_vjp": (x,), "softmax_cross_entropy": (np.zeros(len(x), int),)}.get(name, ())
        long = _entry.general[name](x, *others, **options)
        seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(_entry.general, name, refuse)
            same(getattr(fastsoft, name)(x, *others, **options), long)

    monkeypatch.setitem(_entry.general, "allowed", spy)
    large = logits((500, 70), np.float32)
    call(large[:5])
    assert seen == []
    call(large[:5], num_threads=3)
    assert seen == [3]
    call(large)
    assert seen == [None]
    call(large if name == "softmax_jacobian" else large[:300].astype(np.float16))  # large once it is widened
    assert seen == [None]
    call(large, num_threads=2)
    assert seen == [2]
    for bad, error in ((0, ValueError), (True, TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="num_threads"):
            call(large, num_threads=bad)
    with pytest.raises(AxisError):  # which is looked at first
        fastsoft.softmax(large, 7, num_threads=0)


def test_subclasses_of_numbers(isa: str) -> None:
    """A number that says of itself what it is goes the long way."""

    class Three(float):
        def __float__(self) -> float:
            return 3.0

    x = logits((2, 5), np.float64)
    same(fastsoft.softmax(x, temperature=Three(2)), fastsoft.softmax(x, temperature=3))
