"""Functions of Dask arrays: lazy, the same bits or the same bounds, on workers that die and have little memory."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    FAMILY,
    FLOATS,
    Array,
    assert_same_bits,
    bound_of,
    dtype_of,
    every_operation,
    logits,
    operations,
    python,
)  # fmt: skip

import fastsoft
from fastsoft.reference import OPS, Operation, errors

dask = pytest.importorskip("dask", reason="NOT TESTED: Dask arrays, since Dask is not installed")
distributed = pytest.importorskip("distributed", reason="NOT TESTED: Dask arrays, since distributed is not installed")

import dask.array as da  # noqa: E402
from dask.callbacks import Callback  # noqa: E402

INF, NAN = np.inf, np.nan
TIMEOUT = 60
ONE_CHUNK = ("softmax_jacobian", "softmax_jacobian_diagonal")  # of the classes
cut_operations = operations(op for op in OPS if op.name not in ONE_CHUNK)
PRODUCTS = ("softmax_vjp", "softmax_jvp", "log_softmax_vjp", "softmax_vjp_from_output", "log_softmax_vjp_from_output")


def here(*lazy: Any) -> Any:
    """Computed in this thread: one result, or all of them."""
    found = dask.compute(*lazy, scheduler="synchronous")
    return found if len(found) > 1 else found[0]


def cut(a: Array, *sizes: Any) -> Any:
    """As a Dask array of chunks of such sizes; of sizes that are missing, like those of a label's class, none."""
    return da.from_array(a, chunks=sizes[: a.ndim])


def results(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)


def assert_promised(lazy: Any, got: Any) -> None:
    """A result is as the lazy one said."""
    assert isinstance(lazy, da.Array)
    assert isinstance(lazy._meta, np.ndarray)
    got = np.asarray(got)
    assert (lazy.shape, lazy.dtype, lazy._meta.dtype, lazy._meta.ndim) == (got.shape, got.dtype, got.dtype, got.ndim)


class Largest(Callback):  # type: ignore[misc]
    """The size of the largest chunk that was computed; where memory is traced, the most bytes that a task had beside
    what it was given and what it gave."""

    size = beside = before = 0

    def _pretask(self, *_: Any) -> None:
        tracemalloc.reset_peak()
        self.before = tracemalloc.get_traced_memory()[0]

    def _posttask(self, key: Any, result: Any, *_: Any) -> None:
        if isinstance(key, tuple):  # a chunk, not the array that was cut, or the one that chunks are put together to
            self.size = max(self.size, *(np.size(a) for a in results(result)))
            given = sum(a.nbytes for a in results(result) if a is not None)
            self.beside = max(self.beside, tracemalloc.get_traced_memory()[1] - self.before - given)


# ---- what is computed ----


def fails(block: Any = None) -> Any:
    pytest.fail("computed when a function was called")


@every_operation
@pytest.mark.parametrize("classes", [9, 4])
def test_lazy(op: Operation, classes: int) -> None:
    """Nothing is computed by the call, whose result has its dtype, shape and chunks."""
    x = np.zeros((5, 9))
    arguments = [cut(a, (2, 3), classes).map_blocks(fails, dtype=a.dtype, meta=a[:0]) for a in op.arguments(x)]
    if classes == 4 and op.name in ONE_CHUNK:
        return
    want = getattr(fastsoft, op.name)(*op.arguments(x))
    for lazy, whole in zip(results(getattr(fastsoft, op.name)(*arguments)), results(want), strict=True):
        assert_promised(lazy, whole)
        assert lazy.chunks[0] == (2, 3)
        assert whole.ndim < 2 or op.classes > 1 or lazy.chunks[1] == ((9,) if classes == 9 else (4, 4, 1))


def test_dask_is_not_imported() -> None:
    """By fastsoft, which does not need it."""
    code = "import sys, fastsoft; fastsoft.softmax([1, 2]); assert 'dask' not in sys.modules"
    assert python(code).returncode == 0
    found = python("import sys; sys.modules['dask'] = None; import fastsoft.dask")
    assert 'pip install "fastsoft[dask]"' in found.stderr


@every_operation
@pytest.mark.parametrize("dtype", FLOATS)
def test_batch_in_chunks(op: Operation, dtype: str) -> None:
    """The bits of the whole array, for uneven chunks, other chunks of the other argument, and any class axis."""
    x = logits((7, 3, 17), dtype_of(dtype))
    f = getattr(fastsoft, op.name)
    for axis, sizes in ((-1, ((1, 4, 2), 2, 17)), (0, (7, 2, (9, 8)))):
        arguments = op.arguments(x, axis)
        batch = [size for k, size in enumerate(sizes) if k != axis % 3]
        lazy = f(*(cut(a, *(sizes if a.ndim == 3 else batch)) for a in arguments), axis=axis)
        for one, want in zip(results(lazy), results(f(*arguments, axis=axis)), strict=True):
            got = here(one)
            assert_promised(one, got)
            assert_same_bits(got, want)


@cut_operations
@pytest.mark.parametrize("dtype", FLOATS)
def test_classes_in_chunks(op: Operation, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds of the whole array, and no task makes more than a chunk, however it is divided."""
    monkeypatch.setattr("fastsoft.dask.PART", 100)
    f = getattr(fastsoft, op.name)
    for n, sizes, axis in ((17, (1, 8, 3, 5), -1), (2, (1, 1), -1), (1000, (1, 400, 99, 500), -1), (50, 7, 0)):
        x = logits((12, n), dtype_of(dtype), seed=n)
        x[0] = 0
        x[1, -1] += 90
        arguments = [a.T if axis == 0 else a for a in op.arguments(x)]
        both = (sizes, (5, 7)) if axis == 0 else ((5, 7), sizes)
        lazy = f(*(cut(a, *both) if a.ndim == 2 else cut(a, (5, 7)) for a in arguments), axis=axis)
        with Largest() as largest:
            got = here(*results(lazy))
        assert 0 < largest.size <= 7 * (sizes if isinstance(sizes, int) else max(sizes))
        for one, part in zip(results(lazy), results(got), strict=True):
            assert_promised(one, part)
        assert errors(op, got, tuple(arguments), axis).max() <= bound_of(op, x.dtype)


@pytest.mark.parametrize("name", FAMILY)
def test_axes_masks_and_empty_rows(name: str) -> None:
    """Any axes together, in chunks or not, with masks, temperatures, and rows of nothing, NaN or infinity."""
    x = logits((4, 6, 11), np.float64)
    x[0, 0, 3], x[0, 1, 4], x[0, 2], x[1, 0, 4], x[1, 1, 2] = NAN, INF, -INF, -INF, 60
    mask = np.random.default_rng(0).random(x.shape) < 0.6
    mask[1, 2] = False
    f = getattr(fastsoft, name)
    more: list[dict[str, Any]] = [{"keepdims": True}, {}]
    if name != "logsumexp":
        more = [{"temperature": 0.5, "empty": "zero"}, {}]
    for axis, where, options, sizes in itertools.product(
        (-1, 1, (2, 0), None, ()), (None, mask, mask[0], mask[:, :1, :1]), more, ((4, 6, 11), (2, 4, 3), (4, 6, 5))
    ):
        lazy = f(cut(x, *sizes), axis, where=where, **options)
        want = f(x, axis, where=where, **options)
        got = here(lazy)
        assert_promised(lazy, got)
        np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-300)
        if where is mask and sizes[0] == 2:
            np.testing.assert_array_equal(here(f(cut(x, *sizes), axis, where=cut(mask, 1, 6, 4), **options)), got)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_losses_with_all_arguments(kind: str, dtype: str) -> None:
    """Weights, smoothing, z-loss, temperature, reductions and ignored labels: the numbers of the whole array."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 5, (4, 6, 11)).astype(dtype)
    x[0, 0, 3], x[0, 1, 4], x[0, 2], x[1, 0, 4], x[1, 1, 2] = NAN, INF, -INF, -INF, 40
    t = rng.integers(0, 11, (4, 6))
    t[1, :2], t[0, 3], t[3] = (4, 2), -7, -7
    t[0, 2] = -7  # an ignored row that is NaN
    dense = rng.random(x.shape).astype(dtype)
    dense[1, 0, 4], dense[1, 1] = 0, np.arange(11) == 2
    weight = rng.random(11)
    weight[2] = 0
    eps = float(np.finfo(dtype).eps)
    for w, smoothing, (z_loss, temperature), reduction in itertools.product(
        (None, weight), (0.0, 0.3), ((0.0, 1.0), (0.01, 0.7)), ("none", "sum", "mean")
    ):
        options: dict[str, Any] = {
            "weight": w, "label_smoothing": smoothing, "z_loss": z_loss, "temperature": temperature,
            "reduction": reduction,
        }  # fmt: skip
        if kind == "labels":
            options["ignore_index"] = -7
        for rows, classes in ((slice(0, 4), 4), (slice(2, 4), 11), (slice(3, 4), 5)):
            a, target = x[rows], (t if kind == "labels" else dense)[rows]
            chunked = cut(a, 3, 4, classes), cut(target, 2, 6, min(classes + 1, 11))
            lazies = fastsoft.softmax_cross_entropy_with_grad(*chunked, **options)
            wanted = fastsoft.softmax_cross_entropy_with_grad(a, target, **options)
            *found, alone = here(*lazies, fastsoft.softmax_cross_entropy(*chunked, **options))
            np.testing.assert_array_equal(alone, found[0])
            for lazy, got, want in zip(lazies, found, wanted, strict=True):
                assert_promised(lazy, got)
                if classes == 11 and reduction == "none":
                    assert_same_bits(got, want)
                got, want = got.astype(float), want.astype(float)
                np.testing.assert_allclose(got, want, rtol=40 * eps, atol=40 * eps)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_losses_of_rows_that_are_not_numbers(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN, +inf or nothing but -inf make loss and gradient NaN, also with weights and targets of 0, unless the row is
    ignored: as in the whole array."""
    monkeypatch.setattr("fastsoft.dask.PART", 2)
    x, eps = logits((7, 4), dtype), float(np.finfo(dtype).eps)
    x[0, 0], x[1, 0], x[2], x[3, 0], x[4, 2], x[5, 3] = NAN, INF, -INF, -INF, NAN, 60
    ignored, one = np.array([-1, -1, -1, 0, 1, -1, 2]), np.eye(4, dtype=dtype)[np.arange(7) % 4]
    targets = (np.zeros(7, int), ignored, np.full(7, -1), np.zeros((7, 4), dtype), one)
    weights = (None, np.array([0.0, 1, 2, 0]), np.zeros(4))
    for t, weight, smoothing, (z_loss, temperature), reduction in itertools.product(
        targets, weights, (0.0, 0.2, 1.0), ((0.0, 1.0), (0.1, 0.5)), ("none", "mean")
    ):
        options: dict[str, Any] = {
            "weight": weight, "label_smoothing": smoothing, "z_loss": z_loss, "temperature": temperature,
            "reduction": reduction, "ignore_index": -1 if t.ndim == 1 else None,
        }  # fmt: skip
        wanted = fastsoft.softmax_cross_entropy_with_grad(x, t, **options)
        found = here(*fastsoft.softmax_cross_entropy_with_grad(cut(x, 5, (1, 3)), cut(t, 5, 2), **options))
        for got, want in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=40 * eps, atol=40 * eps)
        if reduction == "none" and t.ndim == 2:
            assert np.isnan(found[0]).tolist() == [True, True, True, False, True, False, False]


@pytest.mark.parametrize("inserted", [NAN, INF, -INF])
@pytest.mark.parametrize("name", PRODUCTS)
def test_vector_that_is_not_finite(name: str, inserted: float) -> None:
    """It makes its whole row NaN, wherever it stands, and no other row."""
    (op,) = (op for op in OPS if op.name == name)
    y, v = op.arguments(logits((8, 4), np.float64))
    y[0, 0] = -INF if name.startswith("log") or not name.endswith("output") else 0
    clean = v.copy()
    v[::2][np.arange(4), np.arange(4)] = inserted
    f = getattr(fastsoft, name)
    got = here(f(cut(y, 3, (1, 2, 1)), v))
    assert np.isnan(got[::2]).all()
    np.testing.assert_allclose(got[1::2], f(y, clean)[1::2], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_near_certainty(dtype: str) -> None:
    """What the largest class gets does not cancel, though its chunk does not know the others."""
    x, v = np.zeros((1, 6), dtype), np.arange(6, dtype=dtype)
    for gap in (20.0, 40.0, 80.0):
        x[0, 4] = gap
        e, lazy, only = np.exp(-gap), cut(x, 1, 2), np.arange(6) == 4
        lazies = fastsoft.softmax_vjp(lazy, v), fastsoft.softmax_vjp(lazy, only), fastsoft.log_softmax_vjp(lazy, only)
        want = 9 * e / (1 + 5 * e) ** 2, 5 * e / (1 + 5 * e) ** 2, 5 * e / (1 + 5 * e)
        np.testing.assert_allclose([y[0, 4] for y in here(*lazies)], want, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_confident(dtype: str) -> None:
    """Where the label is nearly certain, but not by what its own chunk knows, loss and gradient keep their digits."""
    x, t = np.zeros((1, 6), dtype), np.array([4])
    for gap in (20.0, 40.0, 80.0):
        x[0, 4] = gap
        lazy = fastsoft.softmax_cross_entropy_with_grad(cut(x, 1, 2), t)
        dense = fastsoft.softmax_cross_entropy_with_grad(cut(x, 1, 2), np.arange(6) == t[:, None])
        loss, grad, also, slopes = here(*lazy, *dense)
        eps = np.finfo(dtype).eps
        want = np.log1p(5 * np.exp(-gap))
        np.testing.assert_allclose([loss[0], also[0]], want, rtol=4 * eps)
        np.testing.assert_allclose([grad[0, 4], slopes[0, 4]], np.expm1(-want), rtol=4 * eps)


def test_probabilities_and_their_slopes() -> None:
    """cross_entropy with both kinds of targets; its gradient, entry by entry, wherever the chunks end."""
    rng = np.random.default_rng(1)
    z, t, dense = rng.random((4, 9)), rng.integers(0, 9, 4), rng.random((4, 9))
    z[1, 3], z[2, 5], dense[2, 5] = 0, 0, 0
    for sizes in ((3, 9), (3, 2)):
        lazy = cut(z, *sizes)
        for target in (t, dense):
            got = here(fastsoft.cross_entropy(lazy, target))
            np.testing.assert_allclose(got, fastsoft.cross_entropy(z, target), rtol=1e-15)
        both = fastsoft.cross_entropy_grad(lazy, dense, return_singular=True)
        for one, got, want in zip(
            both, here(*both), fastsoft.cross_entropy_grad(z, dense, return_singular=True), strict=True
        ):
            assert_promised(one, got)
            assert_same_bits(got, want)
        with pytest.raises(fastsoft.SingularGradientError):
            here(fastsoft.cross_entropy_grad(lazy, dense))
    got = here(fastsoft.cross_entropy_grad(cut(z, 3, 9), t, singular="zero"))
    assert_same_bits(got, fastsoft.cross_entropy_grad(z, t, singular="zero"))


@pytest.mark.parametrize("name", PRODUCTS)
def test_two_arrays(name: str) -> None:
    """Broadcast against each other, one of them NumPy's, of two dtypes, in chunks of their own."""
    f = getattr(fastsoft, name)
    x, v = fastsoft.log_softmax(logits((4, 6, 11), np.float64)), logits((6, 11), np.float32, seed=1)
    for a, b in (
        (cut(x, 2, 3, 4), v), (x, cut(v, 4, 5)), (cut(x, 2, 3, 11), cut(v, 6, 5)), (cut(x, 2, 3, 4), v[:, :1]),
        (cut(x[:, :1], 3, 1, 4), v), (cut(x, 4, 6, 3), 2.0), (cut(np.arange(11), 4), v),
    ):  # fmt: skip
        lazy = f(a, b)
        got, want = here(lazy), f(*here(da.asarray(a), da.asarray(b)))
        assert_promised(lazy, got)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", PRODUCTS)
def test_long_and_large(name: str) -> None:
    """Many classes of one probability, and the largest vectors: sums do not lose digits or overflow."""
    (op,) = (op for op in OPS if op.name == name)
    for dtype in ("float32", "float64"):
        x = np.zeros((1, 60000), dtype)
        x[0, ::2] = 1
        arguments = op.arguments(x)
        for size in (1, float(np.finfo(dtype).max) / 8):
            y, v = arguments[0], arguments[1] * arguments[1].dtype.type(size)
            if size > 1 and name.startswith("log"):
                v[:, 5:] = 0  # the sum is a number
            got = here(getattr(fastsoft, name)(cut(y, 1, 7000), cut(v, 1, 7000)))
            assert errors(op, got, (y, v)).max() <= op.bound


def test_unknown_chunks() -> None:
    """Rows of unknown number are mapped; classes are an error, and so is their mean."""
    x, t = logits((5, 9), np.float64), np.arange(5)
    keep = np.array([True, False, True, True, False])
    for classes in (4, 9):
        some, labels = (cut(a, 3, classes)[cut(keep, 3)] for a in (x, t))
        for name in ("softmax", "logsumexp"):
            got = here(getattr(fastsoft, name)(some))
            np.testing.assert_allclose(got, getattr(fastsoft, name)(x[keep]), rtol=1e-14)
        got = here(fastsoft.softmax_cross_entropy(some, labels, reduction="mean"))
        np.testing.assert_allclose(got, fastsoft.softmax_cross_entropy(x[keep], t[keep], reduction="mean"), rtol=1e-14)
        got = here(fastsoft.softmax_vjp(some, some))
        np.testing.assert_allclose(got, fastsoft.softmax_vjp(x[keep], x[keep]), rtol=1e-12, atol=1e-14)
    for f in (
        lambda: fastsoft.softmax_vjp(some, x[0]),
        lambda: fastsoft.softmax_vjp(x[0], some),
        lambda: fastsoft.softmax(some, where=x[0] > 0),
    ):
        with pytest.raises(ValueError, match=r"of one shape .*compute_chunk_sizes\(\)"):
            f()
    got = here(fastsoft.softmax(some, where=some > 0))
    np.testing.assert_allclose(got, fastsoft.softmax(x[keep], where=x[keep] > 0), rtol=1e-14)
    with pytest.raises(ValueError, match=r"x\.compute_chunk_sizes\(\)"):
        fastsoft.softmax(some, 0)
    with pytest.raises(ValueError, match=r"x\.compute_chunk_sizes\(\)"):
        fastsoft.softmax_cross_entropy(some, some, reduction="mean")


def test_shapes_without_much_in_them() -> None:
    """No axes, one axis, no rows, no classes."""
    one = cut(np.float64(3))
    assert [here(f(one)) for f in (fastsoft.softmax, fastsoft.log_softmax, fastsoft.logsumexp)] == [1, 0, 3]
    assert here(fastsoft.softmax_jacobian(one)).shape == (1, 1)
    x = logits((9,), np.float64)
    for size in (4, 9):
        got = here(*fastsoft.softmax_cross_entropy_with_grad(cut(x, size), 3))
        for a, b in zip(got, fastsoft.softmax_cross_entropy_with_grad(x, 3), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)
        assert np.isclose(here(fastsoft.cross_entropy(cut(np.exp(x), size), 3)), -x[3])
    for shape in ((0, 4), (4, 0)):
        empty = da.zeros(shape, chunks=2)
        assert here(fastsoft.softmax(empty)).shape == shape
        assert here(fastsoft.logsumexp(empty)).shape == shape[:1]
        assert here(fastsoft.softmax_vjp(empty, empty)).shape == shape


# ---- how it is computed ----


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_memory_of_a_task(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its chunks and its result a task has 80 bytes for each of PART numbers at most, and some for each row."""
    part = 1 << 12
    monkeypatch.setattr("fastsoft.dask.PART", part)
    monkeypatch.setattr("fastsoft._validate.ALIGNED", sys.maxsize)  # NumPy's memory, which is traced
    x = logits((64, 8192), dtype)
    x[3, 5] = 90  # a class that is certain is computed apart
    lazy, t = cut(x, 64, 4096), cut(abs(x), 64, 4096)
    labels, weight = np.zeros(64, int), np.ones(8192)
    f = fastsoft.softmax_cross_entropy_with_grad
    calls: list[Any] = [
        fastsoft.softmax(lazy), fastsoft.log_softmax(lazy.T, 0), fastsoft.logsumexp(lazy), fastsoft.cross_entropy(t, t),
        fastsoft.cross_entropy(t.T, t.T, 0), f(lazy, labels), f(lazy, t), f(lazy.T, t.T, 0, temperature=1e-20),
        f(lazy, labels, label_smoothing=0.1, weight=weight, reduction="mean"), f(lazy, t, weight=weight, z_loss=0.1),
    ]  # fmt: skip
    for name in PRODUCTS:
        calls += [getattr(fastsoft, name)(lazy, t), getattr(fastsoft, name)(lazy.T, t.T, 0)]
    tracemalloc.start()
    try:
        for call in calls:
            with Largest() as largest:
                here(*results(call))
            assert largest.beside < 80 * part + (1 << 16) < 64 * 4096 * x.itemsize
    finally:
        tracemalloc.stop()


def test_threads_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """One, whatever the process is set to, or as many as the call says."""
    used = []
    for module in ("api", "derivatives", "state"):
        monkeypatch.setattr(f"fastsoft.{module}.allowed", lambda n: used.append(n or fastsoft.get_num_threads()) or 1)
    x = da.zeros((2, 9), chunks=(1, 9))
    with fastsoft.num_threads(3):
        here(fastsoft.softmax(x), fastsoft.softmax(x.rechunk((1, 4))), fastsoft.softmax_vjp_zeros(x, x))
        assert set(used) == {1}
        used.clear()
        here(fastsoft.softmax(x, num_threads=2), fastsoft.softmax_vjp(x.rechunk((1, 4)), x, num_threads=2))
        assert set(used) == {2}


def test_states_are_merged_along_a_tree() -> None:
    """Its height is the logarithm of the number of chunks, so that no task waits for all of them."""

    def height(chunks: int) -> int:
        lazy = fastsoft.logsumexp(da.zeros((1, chunks), chunks=1))
        needs = lazy.__dask_graph__().get_all_dependencies()

        def above(key: Any) -> int:
            return max((1 + above(other) for other in needs[key]), default=0)

        return max(map(above, needs))

    heights = [height(4**k) for k in range(1, 6)]
    assert set(np.diff(heights)) == {1}, heights


# ---- errors ----


def test_errors_when_called() -> None:
    """What the arguments tell is said by the call; they name the argument."""
    x = logits((4, 6, 11), np.float64)
    d, v, t = cut(x, 2, 3, 4), np.ones(11), np.zeros((4, 6), int)
    loss = fastsoft.softmax_cross_entropy
    wrong: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (TypeError, "out must be None", lambda: fastsoft.softmax(d, out=np.empty(x.shape))),
        (TypeError, "out must be None", lambda: fastsoft.softmax_cross_entropy_with_grad(d, t, out=np.empty(x.shape))),
        (np.exceptions.AxisError, "axis 3", lambda: fastsoft.softmax(d, 3)),
        (TypeError, "axis must be an int", lambda: fastsoft.softmax_vjp(d, v, (0, 1))),
        (ValueError, "temperature", lambda: fastsoft.softmax(d, temperature=0)),
        (ValueError, "num_threads", lambda: fastsoft.softmax(d, num_threads=0)),
        (ValueError, "where .* shape of x, ", lambda: fastsoft.softmax(d, where=np.ones(5, bool))),
        (TypeError, "where", lambda: fastsoft.softmax(d, where=v)),
        (TypeError, r"pass where\.filled\(False\)", lambda: fastsoft.softmax(d, where=np.ma.array(x > 0))),
        (TypeError, r"pass where\.filled\(False\)", lambda: fastsoft.softmax(x, where=da.ma.masked_array(d > 0))),
        (TypeError, r"pass t\.filled\(label\)", lambda: loss(d, np.ma.array(t))),
        (TypeError, r"pass t\.filled\(label\)", lambda: loss(x, da.ma.masked_array(cut(t, 2, 3)))),
        (TypeError, r"pass t\.filled\(value\)", lambda: loss(x, da.ma.masked_array(d))),
        (TypeError, "x must be of dtype", lambda: fastsoft.softmax(d.astype(complex))),
        (TypeError, "x is a masked array", lambda: fastsoft.softmax(da.ma.masked_less(d, 0))),
        (ValueError, r"u must broadcast against x, got shapes \(5,\)", lambda: fastsoft.softmax_jvp(d, np.ones(5))),
        (TypeError, "x must not be a Dask array", lambda: fastsoft.SoftmaxJacobian(d)),
        (TypeError, "weight must not be a Dask array", lambda: loss(d, t, weight=da.ones(11))),
        (ValueError, "weight", lambda: loss(d, t, weight=np.ones(4))),
        (ValueError, "reduction", lambda: loss(d, t, reduction="all")),
        (ValueError, r"t must .* \(4, 6\) .* \(4, 6, 11\), got int64 of shape \(4, 5\)", lambda: loss(d, t[:, :5])),
        (ValueError, "ignore_index goes with labels, got 3 ", lambda: loss(d, d, ignore_index=3)),
        (TypeError, "ignore_index", lambda: loss(d, t, ignore_index=3.5)),
    ]
    for f in (fastsoft.softmax_jacobian, fastsoft.softmax_jacobian_diagonal):
        wrong.append((ValueError, r"one chunk .*\(4, 4, 3\) .* x.rechunk\(\{2: -1\}\)", lambda f=f: f(d)))  # type: ignore[misc]
    wrong.append((ValueError, r"x.rechunk\(\{2: -1\}\)", lambda: fastsoft.softmax_vjp_zeros(d, v)))
    wrong.append((ValueError, r"z.rechunk\(\{2: -1\}\)", lambda: fastsoft.cross_entropy_grad(d, t)))
    for kind, message, f in wrong:
        with pytest.raises(kind, match=message):
            f()


@pytest.mark.parametrize("classes", [11, 4])
def test_errors_when_computed(classes: int) -> None:
    """A label out of range, with its index among all; an empty row."""
    x, t = logits((4, 6, 11), np.float64), np.zeros((4, 6), int)
    d = cut(x, 2, 3, classes)
    for label in (11, -1, -11):
        t[3, 4] = label
        for f in (fastsoft.softmax_cross_entropy, fastsoft.cross_entropy):
            with pytest.raises(ValueError, match=rf"t must hold labels from 0 to 10, got {label} at index \(3, 4\)"):
                here(f(d, cut(t, 2, 5)))
    x[0, 2] = -INF
    with pytest.raises(fastsoft.EmptyRowError):
        here(fastsoft.softmax(cut(x, 2, 3, classes), empty="raise"))


# ---- on a cluster ----


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two worker processes of one thread and 300 MB each."""
    place = str(tmp_path_factory.mktemp("workers"))
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "10s"}),  # not 30 s for a worker that was killed
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, memory_limit="300MB", dashboard_address=None,
            local_directory=place,
        ) as cluster,
        distributed.Client(cluster, timeout=TIMEOUT, set_as_default=False) as client,
    ):  # fmt: skip
        client.wait_for_workers(2, timeout=TIMEOUT)
        yield client


def there(client: Any, *lazy: Any) -> list[Any]:
    """Computed on the cluster, or an error after a minute."""
    return [future.result(timeout=TIMEOUT) for future in client.compute(list(lazy))]


LOSS, SLOPES = (op for op in OPS if op.name.startswith("softmax_cross_entropy"))


def assert_losses(got: Any, x: Array, t: Array) -> None:
    """Loss and gradient within the bounds."""
    for op, y in zip((LOSS, SLOPES), got, strict=True):
        assert errors(op, y, (x, t)).max() <= op.bound


@pytest.mark.parametrize("name", FAMILY)
def test_on_a_cluster(client: Any, name: str) -> None:
    """Bits where rows are whole; the bits of this process where they are not."""
    x = logits((30, 501), np.float32)
    f = getattr(fastsoft, name)
    whole, parts = f(cut(x, (7, 13, 10), 501)), f(cut(x, (7, 13, 10), (1, 300, 200)))
    got, cut_got = there(client, whole, parts)
    assert_same_bits(got, f(x))
    assert_same_bits(cut_got, here(parts))


def test_vocabulary_on_a_cluster(client: Any) -> None:
    """Cross-entropy with its gradient, the classes over the workers: as it is here, within the bounds."""
    x, t = LOSS.arguments(logits((64, 5000), np.float32))
    chunked = cut(x, (40, 24), (1000, 1500, 2500))
    assert_losses(there(client, *fastsoft.softmax_cross_entropy_with_grad(chunked, cut(t, 32))), x, t)
    loss, _ = there(client, *fastsoft.softmax_cross_entropy_with_grad(chunked, t, reduction="mean"))
    want = fastsoft.softmax_cross_entropy(x.astype(float), t, reduction="mean")
    np.testing.assert_allclose(loss, want, rtol=1e-6)


def test_errors_on_a_cluster(client: Any) -> None:
    """Come back as what they are."""
    t = np.zeros(4, int)
    t[3] = 9
    with pytest.raises(ValueError, match=r"got 9 at index \(3,\)"):
        there(client, fastsoft.softmax_cross_entropy(da.zeros((4, 6), chunks=2), t))
    with pytest.raises(fastsoft.EmptyRowError, match="1 empty row"):
        there(client, fastsoft.softmax(da.full((1, 6), -INF, chunks=2), empty="raise"))


def waiting_to_be_killed(block: Array, note: Path, block_id: Any = None) -> Array:
    """A chunk; of one, for the first time, the number of the process, which then waits."""
    if block_id == (1, 2):
        try:
            with note.open("x") as file:
                file.write(f"{os.getpid()}\n")
        except FileExistsError:
            return block
        time.sleep(TIMEOUT)
    return block


@pytest.mark.parametrize("phase", ["logits", "gradient"])
def test_worker_that_is_killed(client: Any, tmp_path: Path, phase: str) -> None:
    """While it reads logits, or with the total of some rows makes their gradient: what it had is computed again."""
    note = tmp_path / "pid"
    x, t = LOSS.arguments(logits((20, 600), np.float32))

    def slow(a: Any) -> Any:
        return a.map_blocks(waiting_to_be_killed, note=note, dtype=x.dtype, meta=x[:0])

    chunked = cut(x, 7, 150)
    loss, grad = fastsoft.softmax_cross_entropy_with_grad(slow(chunked) if phase == "logits" else chunked, t)
    futures = client.compute([loss, slow(grad) if phase == "gradient" else grad])
    end = time.monotonic() + TIMEOUT
    while not (note.exists() and note.read_text().endswith("\n")):
        assert time.monotonic() < end, "no worker came to the chunk"
        time.sleep(0.01)
    os.kill(int(note.read_text()), signal.SIGKILL)
    got = [future.result(timeout=TIMEOUT) for future in futures]
    assert_losses(got, x, t)
    for y, undisturbed in zip(got, here(*fastsoft.softmax_cross_entropy_with_grad(chunked, t)), strict=True):
        assert_same_bits(y, undisturbed)
    client.wait_for_workers(2, timeout=TIMEOUT)


def repeating(block_info: Any = None) -> Array:
    """Logits: each row has those from 0 to 9.99 in steps of 0.01, again and again."""
    (row, last_row), (first, last) = block_info[None]["array-location"]
    again = np.tile(np.arange(1000, dtype=np.float32) / np.float32(100), (last - first) // 1000 + 2)
    starts = ((31 * i + first) % 1000 for i in range(row, last_row))
    return np.stack([again[start : start + last - first] for start in starts])


def peak_memory() -> int:
    """The most bytes that this process has had."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def test_larger_than_memory(client: Any) -> None:
    """More than a gigabyte of logits over two workers of 300 MB, which never have a block of whole rows."""
    rows, size = 256, 8000
    once = np.exp((np.arange(1000, dtype=np.float32) / np.float32(100)).astype(float)).sum()

    def made(blocks: int, n: int) -> Any:
        chunks = ((rows,) * blocks, (size,) * (n // size))
        return da.map_blocks(repeating, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0), np.float32))

    x, t = made(2, 520_000), np.arange(2 * rows) % 200 * 1000
    at_label = repeating({None: {"array-location": [(0, 2 * rows), (0, 1)]}})[:, 0]
    losses = np.log(520 * once) - at_label.astype(float)
    assert x.nbytes > 1e9
    (got,) = there(client, fastsoft.softmax_cross_entropy(x, t))
    np.testing.assert_allclose(got, losses, rtol=1e-6)

    block = made(1, 304_000)
    loss, grad = fastsoft.softmax_cross_entropy_with_grad(block, t[:rows])
    got, size_of_grad = there(client, loss, abs(grad).sum(1))
    losses = np.log(304 * once) - at_label[:rows].astype(float)
    np.testing.assert_allclose(got, losses, rtol=1e-6)
    np.testing.assert_allclose(size_of_grad, 2 * (1 - np.exp(-losses)), rtol=1e-4)
    peaks = client.run(peak_memory)
    assert len(peaks) == 2
    assert max(peaks.values()) < block.nbytes, peaks


def test_functions_can_be_sent(client: Any) -> None:
    """What a graph holds is small: not the arrays, and not this module."""
    lazy = fastsoft.softmax(da.zeros((100, 10**6), chunks=(100, 10**5)))
    assert len(pickle.dumps(lazy.__dask_graph__().to_dict())) < 10**6
