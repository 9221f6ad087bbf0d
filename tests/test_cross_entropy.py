"""Cross-entropy, of probabilities and from logits, and its gradients: what is promised beyond the usual bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import FLOATS, INTEGERS, WORK, Array, assert_same_bits, dtype_of, logits
from hypothesis import given
from hypothesis import strategies as st
from numpy.exceptions import AxisError

import fastsoft
from fastsoft import _entry
from fastsoft.reference import OPS, ulp

L = np.longdouble
NAN, INF = math.nan, math.inf
LABELS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "longlong")
loss_of = fastsoft.softmax_cross_entropy
both_of = fastsoft.softmax_cross_entropy_with_grad


def log_sigma(x: Array, axis: int = -1) -> Array:
    """log softmax in extended precision, by the plain formula."""
    d = x - x.max(axis, keepdims=True)
    return np.asarray(d - np.log(np.exp(d).sum(axis, keepdims=True)))


def labels_for(x: Array, axis: int = -1) -> Array:
    """Labels of all kinds, as the walk over OPS takes them."""
    return next(op for op in OPS if op.name == "softmax_cross_entropy").arguments(x, axis)[1]


def dense(t: Array, n: int) -> Array:
    """Labels as targets of 0 and 1, on the last axis."""
    return (np.arange(n) == t[..., None]).astype(float)


def plain(
    x: Array,
    t: Array,
    *,
    weight: Array | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    reduction: str = "none",
) -> tuple[Array, Array]:
    """Loss and gradient along the last axis by their definitions, in extended precision: labels or dense targets."""
    x = x.astype(L) / L(temperature)
    n = x.shape[-1]
    w = np.ones(n, L) if weight is None else weight.astype(L)
    of_labels = t.ndim < x.ndim
    shown = np.ones(x.shape[:-1], bool)
    total = L(shown.size)
    if of_labels:
        shown = t != ignore_index if ignore_index is not None else shown
        t = np.where(shown, t, 0).astype(np.intp)
        total = (w[t] * shown).sum()
        t = dense(t, n)
    e = L(label_smoothing)
    targets = w * ((1 - e) * t.astype(L) + e / n) * shown[..., None]
    y, p = log_sigma(x), np.exp(log_sigma(x))
    lse = x.max(-1) + np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1))
    z = L(z_loss) * shown
    loss = -(targets * y).sum(-1) + z * lse**2
    grad = p * targets.sum(-1, keepdims=True) - targets + 2 * (z * lse)[..., None] * p
    grad = grad / L(temperature)
    if reduction == "none":
        return loss, grad
    if reduction == "sum":
        return np.asarray(loss.sum()), grad
    return (np.asarray(loss.sum() / total), grad / total) if total else (np.asarray(L(0)), 0 * grad)


def close(got: Any, want: Any, dtype: Any = "float64", factor: float = 30) -> None:
    """Equal within a few roundings of the largest number that is compared."""
    want = np.asarray(want)
    size = np.abs(want).max(initial=1e-300)
    assert np.shape(got) == want.shape
    error = np.abs(np.asarray(got).astype(L) - want).max(initial=0)
    eps = 2.0 ** {"float64": -52, "float32": -23, "float16": -10, "bfloat16": -7}[np.dtype(dtype).name]
    assert error <= factor * eps * size, f"an error of {float(error / size / eps):.3g} eps"


def slopes(f: Callable[[Array], Any], x: Array, h: float = 1e-3) -> Array:
    """Central differences of order 4 of f by each number of x."""
    found = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        values = []
        for step in (-2, -1, 1, 2):
            moved = x.copy()
            moved[place] += step * h
            values.append(float(f(moved)))
        found[place] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return found


# ---- on probabilities ----


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy_of_labels(isa: str, dtype: str) -> None:
    """-log z of the label, for every type of label, within the bound."""
    number = dtype_of(dtype)
    for n in (1, 2, 9, 17, 100):
        z = fastsoft.softmax(logits((30, n), number))
        t = labels_for(z)
        with np.errstate(divide="ignore"):
            want = -np.log(np.take_along_axis(z.astype(L), t[:, None], -1)[:, 0])
        for kind in LABELS:
            got = fastsoft.cross_entropy(z, t.astype(kind))
            assert got.dtype == number
            finite = np.isfinite(want)
            error = np.abs(got[finite].astype(L) - want[finite]) / ulp(want[finite], number)
            assert (error <= (0.51 if number.itemsize == 2 else 4)).all()
            assert (got[~finite] == INF).all()
            assert_same_bits(fastsoft.cross_entropy(np.ascontiguousarray(z.T), t.astype(kind), 0), got)
        assert np.array_equal(fastsoft.cross_entropy(z, dense(t, n).astype(number)), got)
        assert_same_bits(fastsoft.cross_entropy(z[0], t[0]), got[0])
        slopes = fastsoft.cross_entropy_grad(z, t, singular="inf")
        assert_same_bits(fastsoft.cross_entropy_grad(z[0], t[0], singular="inf"), slopes[0])


def test_cross_entropy_at_0(isa: str) -> None:
    """0 log 0 is 0, and a target above 0 gives +inf."""
    f = fastsoft.cross_entropy
    for dtype in FLOATS:
        number = dtype_of(dtype)
        z, t = np.array([0.0, 1, 0, 0.5]).astype(number), np.array([0.0, 1, 0, 0]).astype(number)
        assert f(z, t) == 0
        t[0] = 0.5
        assert f(z, t) == INF
    assert f(np.array([0.0, 1.0]), np.array([1, 0])) == INF  # integers of z's shape are targets
    assert f(np.array([[0.0, 1.0]]), np.array([1])).tolist() == [0]
    assert f(np.array([[0.0, 1.0]]), np.array([0])).tolist() == [INF]
    assert np.isnan(f(np.array([NAN, 1.0]), np.array([0.5, 0.5])))
    assert np.isnan(f(np.array([-1.0, 1.0]), np.array([0.5, 0.5])))
    assert f(np.array([0.25, 4.0]), np.array([1.0, 1.0])) == 0  # z may be any numbers above 0


def test_cross_entropy_near_1(isa: str) -> None:
    """log z where z is next to 1, and where it is subnormal."""
    for dtype in WORK:
        eps = np.finfo(dtype).eps
        z = np.array([[1 - eps / 2], [1 - eps], [1 + eps], [0.999], [np.finfo(dtype).tiny], [0]], dtype)
        z[-1] = np.finfo(dtype).smallest_subnormal
        got = fastsoft.cross_entropy(z, np.ones_like(z))
        want = -np.log(z[:, 0].astype(L))
        assert (np.abs(got - want) <= 4 * ulp(want, dtype)).all()


@pytest.mark.parametrize("f", [fastsoft.cross_entropy, fastsoft.cross_entropy_grad], ids=lambda f: f.__name__)
def test_broadcasting(isa: str, f: Callable[..., Array]) -> None:
    """Targets against probabilities and the other way round, along any axis: as whole copies."""
    for first, second, axis in (
        ((3, 5), (5,), -1),
        ((5,), (3, 5), -1),
        ((4, 1, 5), (3, 5), -1),
        ((5, 1), (4, 5, 3), 1),
        ((3, 5), (3, 1), -1),
        ((5,), (), 0),
    ):
        z, t = np.exp(logits(first, "float64", 1, 3)), np.exp(logits(second or (1,), "float64", 2, 3)).reshape(second)
        whole = np.broadcast_arrays(z, t)
        got = f(z, t, axis)
        assert_same_bits(got, f(whole[0].copy(), whole[1].copy(), axis))


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropy_grad(isa: str, dtype: str) -> None:
    """-t / z, correctly rounded or nearly, in every layout; out= may be z or t."""
    number = dtype_of(dtype)
    for n in (1, 2, 15, 17, 100, 5000):
        z = np.exp(logits((4, n), "float64", largest=3)).astype(number)
        t = logits((4, n), number, 1, 1)
        want = -t.astype(L) / z.astype(L)
        got = fastsoft.cross_entropy_grad(z, t)
        assert got.dtype == number
        assert (np.abs(got.astype(L) - want) <= (0.51 if number.itemsize == 2 else 1) * ulp(want, number)).all()
        assert_same_bits(fastsoft.cross_entropy_grad(np.asfortranarray(z), t), got)
        assert_same_bits(np.ascontiguousarray(fastsoft.cross_entropy_grad(z.T, t.T, 0).T), got)
        for k in range(2):
            pair = [z.copy(), t.copy()]
            assert fastsoft.cross_entropy_grad(*pair, out=pair[k]) is pair[k]
            assert_same_bits(pair[k], got)
        labels = labels_for(z)
        got = fastsoft.cross_entropy_grad(z, labels)
        want = fastsoft.cross_entropy_grad(z, dense(labels, n).astype(number))
        assert np.array_equal(got, want)


@pytest.mark.parametrize("dtype", FLOATS)
def test_singular(isa: str, dtype: str) -> None:
    """Where z is 0: removable if t is 0 too, else a pole, which gives what `singular` says."""
    number = dtype_of(dtype)
    z = np.array([[0.5, 0, 0, -0.0], [1, 2, 0, 0]]).astype(number)
    t = np.array([[1, 0, 2, -3], [0, -4, -0.0, 0.25]]).astype(number)
    regular = np.array([[-2, 0, 7, 7], [0, 2, 0, 7]])
    codes = np.array([[0, 1, 2, 2], [0, 0, 1, 2]])
    poles = codes == 2
    f = fastsoft.cross_entropy_grad
    for singular, value in (("inf", [-INF, INF, -INF]), ("nan", [NAN] * 3), ("zero", [0] * 3)):
        want = regular.astype(float)
        want[poles] = value
        for options in ({}, {"return_singular": True}):
            for order in "CF":
                got = f(z.copy(order=order), t, singular=singular, **options)
                if options:
                    got, found = got
                    assert found.dtype == np.int8
                    assert np.array_equal(found, codes)
                assert got.dtype == number
                assert np.array_equal(got.astype(float), want, equal_nan=True)
    out = np.full(z.shape, 7).astype(number)
    with pytest.raises(fastsoft.SingularGradientError) as caught:
        f(z, t, out=out)
    assert isinstance(caught.value, ValueError)
    assert (caught.value.count, caught.value.first) == (3, (0, 2))
    assert "3" in str(caught.value)
    assert "(0, 2)" in str(caught.value)
    assert (out == 7).all()
    got, found = f(z, t, return_singular=True)  # then nothing is raised
    assert np.array_equal(found, codes)
    assert np.array_equal(got[~poles], regular[~poles])
    got, found = f(z, t, return_singular=True, singular="zero", out=out)
    assert got is out
    assert (out[poles] == 0).all()
    fine, found = f(np.ones(3, number), np.ones(3, number), return_singular=True)
    assert (found == 0).all()
    assert (fine == -1).all()


def test_singular_of_labels(isa: str) -> None:
    """A label on a probability of 0 is a pole, the other classes of it are removable."""
    z = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    t = np.array([2, 0])
    with pytest.raises(fastsoft.SingularGradientError) as caught:
        fastsoft.cross_entropy_grad(z, t)
    assert (caught.value.count, caught.value.first) == (1, (0, 2))
    grad, found = fastsoft.cross_entropy_grad(z, t, return_singular=True, singular="inf")
    assert grad.tolist() == [[0, 0, -INF], [-2, 0, 0]]
    assert found.tolist() == [[1, 0, 2], [0, 1, 0]]
    assert fastsoft.cross_entropy_grad(z, t, singular="nan")[1].tolist() == [-2, 0, 0]
    for wrong in ("", "Inf", "ignore", None, 0):
        with pytest.raises((ValueError, TypeError), match="singular must be"):
            fastsoft.cross_entropy_grad(z, t, singular=wrong)  # type: ignore[arg-type]


def test_nan_is_not_singular(isa: str) -> None:
    """A NaN in z or t is a number like others, which nothing is raised for."""
    grad, found = fastsoft.cross_entropy_grad(
        np.array([NAN, 1.0, INF]), np.array([1.0, NAN, 1.0]), return_singular=True
    )
    assert np.isnan(grad[:2]).all()
    assert grad[2] == 0
    assert found.tolist() == [0, 0, 0]


def test_chain_of_derivatives(isa: str) -> None:
    """x -> sigma -> z = v J -> l(z, t) and back: the product of the derivatives is the slope of the whole."""
    rng = np.random.default_rng(0)
    for n in (3, 6):
        x, v = rng.normal(0, 1, n), rng.normal(0, 1, n)
        z = fastsoft.softmax_vjp(x, v)
        t = np.where(z > 0.005, rng.random(n), 0)  # a logarithm needs z > 0
        t[z.argmax()] = 1
        grad = fastsoft.cross_entropy_grad(z, t)
        seen = t > 0
        assert np.allclose(grad[seen], -t[seen] / z[seen])

        def loss(v: Array, x: Array = x, t: Array = t) -> Any:
            z = fastsoft.softmax_vjp(x, v)
            return fastsoft.cross_entropy(np.where(t > 0, z, 1.0), t)

        h = 1e-4
        slope_z = slopes(lambda z, t=t: fastsoft.cross_entropy(np.where(t > 0, z, 1.0), t), z, h * 0.1)
        assert np.allclose(grad, slope_z, rtol=1e-6, atol=1e-6)
        # z = v J, so dl/dv = J dl/dz
        assert np.allclose(fastsoft.softmax_jvp(x, grad), slopes(loss, v, h), rtol=1e-6, atol=1e-7)
        # z_i = s_i (v_i - v.s), so dz/dx_k by u = dl/dz is [J (u * v) - (v.s) J u - (u.s) J v]_k
        s, j = fastsoft.softmax(x), fastsoft.softmax_jacobian(x)
        by_x = j @ (grad * v) - (v @ s) * (j @ grad) - (grad @ s) * (j @ v)
        assert np.allclose(by_x, slopes(lambda x, v=v: loss(v, x), x, h), rtol=1e-6, atol=1e-7)


# ---- from logits: numbers ----


def test_confident(isa: str) -> None:
    """One minus a probability near 1 is what the others have."""
    x = np.array([20.0, 0.0, 0.0])
    want = math.log1p(2 * math.exp(-20))
    gradient = -2 * math.exp(-20) / (1 + 2 * math.exp(-20))
    assert want == pytest.approx(4.1223072e-9, rel=1e-7)
    assert gradient == pytest.approx(-4.1223072e-9, rel=1e-7)
    for like, t in ((x, 0), (x[None], [0]), (np.tile(x, (9, 1)), [0] * 9)):
        loss, grad = both_of(like, np.array(t))
        assert loss == pytest.approx(want, rel=2e-15)
        assert grad[..., 0] == pytest.approx(gradient, rel=2e-15)
        assert grad[..., 1] == pytest.approx(-gradient / 2, rel=2e-15)
        assert loss_of(like, np.array(t)) == pytest.approx(want, rel=2e-15)
        loss, grad = both_of(like, dense(np.array(t), 3))
        assert loss == pytest.approx(want, rel=2e-15)
        assert grad[..., 0] == pytest.approx(gradient, rel=2e-15)
    loss, grad = both_of(x.astype(np.float32), np.array(0))
    assert loss == pytest.approx(want, rel=4e-7)
    assert grad[0] == pytest.approx(gradient, rel=4e-7)
    loss, grad = both_of(np.array([700.0, 0.0]), np.array(0))
    assert loss == pytest.approx(math.exp(-700), rel=1e-14, abs=0)
    assert grad[0] == pytest.approx(-math.exp(-700), rel=1e-14, abs=0)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"weight": np.array([0.5, 2.0, 0.0, 1.25, 3.0])},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"z_loss": 1e-2},
    {"temperature": 0.7},
    {"temperature": 3.0, "label_smoothing": 0.25},
    {"weight": np.array([0.5, 2.0, 0.0, 1.25, 3.0]), "label_smoothing": 0.3, "temperature": 2.0},
    {"z_loss": 0.5, "temperature": 2.0, "label_smoothing": 0.2},
]


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda a: " ".join(a) or "plain")
def test_formula(isa: str, options: dict[str, Any], reduction: str) -> None:
    """The definition in extended precision, for labels, ignored labels, and dense targets."""
    x = logits((40, 5), "float64", largest=6)
    t = labels_for(x)
    soft = np.exp(logits((40, 5), "float64", 5, 1))
    ignoring = np.where(np.arange(40) % 3 == 0, -100, t)
    for targets, more in ((t, {}), (ignoring, {"ignore_index": -100}), (soft, {}), (dense(t, 5), {})):
        want, slope = plain(x, targets, reduction=reduction, **options, **more)
        loss, grad = both_of(x, targets, reduction=reduction, **options, **more)
        assert isinstance(loss, np.ndarray)
        close(loss, want)
        close(grad, slope)
        close(loss_of(x, targets, reduction=reduction, **options, **more), want)
        close(loss_of(np.asfortranarray(x), targets, reduction=reduction, **options, **more), want)
        for dtype in ("float32", "float16", "bfloat16"):
            y = x.astype(dtype_of(dtype))
            cast = targets if targets.ndim == 1 else targets.astype(y.dtype)
            want_, slope_ = plain(y, cast, reduction=reduction, **options, **more)
            loss, grad = both_of(y, cast, reduction=reduction, **options, **more)
            assert loss.dtype == grad.dtype == y.dtype
            close(loss, want_, y.dtype)
            close(grad, slope_, y.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda a: " ".join(a) or "plain")
def test_loss_alone_of_any_rows(isa: str, options: dict[str, Any], dtype: str) -> None:
    """Rows of all lengths, with ignored labels, NaN, infinities and nothing but -inf among them, and once one beyond
    the reach of exp: the loss is the one that comes with the gradient, and that of each row by itself."""
    for n in (50, 128, 129, 160, 1000, 8192, 8193, 65_537):
        rows = 37 if n <= 1000 else 5
        options = {**options, "weight": np.resize(options["weight"], n)} if "weight" in options else options
        x = logits((rows, n), dtype, largest=9)
        x[0, 1], x[1, n - 1], x[2] = np.nan, np.inf, -np.inf
        t = labels_for(x)
        t[3] = -100
        for far in (0, 1e30):
            x[4] += far
            loss, _ = both_of(x, t, num_threads=1, ignore_index=-100, **options)
            assert_same_bits(loss_of(x, t, ignore_index=-100, **options), loss)
            for k in range(5):
                assert_same_bits(loss_of(x[k], t[k], ignore_index=-100, **options), loss[k, ...])


@pytest.mark.parametrize("options", OPTIONS, ids=lambda a: " ".join(a) or "plain")
def test_loss_alone_and_with_gradient(isa: str, options: dict[str, Any]) -> None:
    """The same loss; one row, rows and columns, one thread or three: the same bits."""
    for shape in ((1, 5), (30, 5), (20_000, 5), (300, 2), (300, 3), (300, 4), (300, 40)):
        n = shape[1]
        options = {**options, "weight": np.resize(options["weight"], n)} if "weight" in options else options
        x = logits(shape, "float32", largest=9)
        t = labels_for(x)
        for targets in (t, dense(t, n).astype("f4") * 0.75):
            loss, grad = both_of(x, targets, num_threads=1, **options)
            assert_same_bits(loss_of(x, targets, **options), loss)
            for threads in (2, 3):
                again, slope = both_of(x, targets, num_threads=threads, **options)
                assert_same_bits(again, loss)
                assert_same_bits(slope, grad)
            turned = targets if targets.ndim == 1 else np.ascontiguousarray(targets.T)
            again, slope = both_of(np.ascontiguousarray(x.T), turned, 0, **options)
            assert_same_bits(again, loss)
            assert_same_bits(np.ascontiguousarray(slope.T), grad)
            last, slope = both_of(x[-1], targets[-1], **options)
            assert_same_bits(last, loss[-1, ...])
            assert_same_bits(slope, grad[-1])


@pytest.mark.parametrize("options", OPTIONS, ids=lambda a: " ".join(a) or "plain")
def test_gradient_is_the_slope_of_the_loss(isa: str, options: dict[str, Any]) -> None:
    """Central differences of order 4, of the sum and of the mean."""
    x = logits((3, 5), "float64", 7, 2)
    for targets in (np.array([4, 1, 0]), np.abs(logits((3, 5), "float64", 8, 1))):
        for reduction in ("sum", "mean"):
            _, grad = both_of(x, targets, reduction=reduction, **options)
            found = slopes(lambda y: loss_of(y, targets, reduction=reduction, **options), x)  # noqa: B023
            assert np.allclose(grad, found, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", WORK)
def test_gradient_sums_to_0(isa: str, dtype: str) -> None:
    """For labels, smoothed or not: a shift of the logits changes nothing."""
    for n in (1, 2, 3, 17, 100, 1000):
        x = logits((20, n), dtype, largest=40)
        t = labels_for(x)
        for options in ({}, {"label_smoothing": 0.1}):
            _, grad = both_of(x, t, **options)
            wide = grad.astype(L)
            assert (np.abs(wide.sum(-1)) <= 8 * ulp(wide, dtype).sum(-1)).all()


@given(
    x=st.lists(st.floats(-800, 800), min_size=1, max_size=12),
    label=st.integers(0, 11),
    shift=st.floats(-1e6, 1e6),
)
def test_bound_of_any_margin(x: list[float], label: int, shift: float) -> None:
    """4 ulp of the loss and of each entry of its gradient, whichever class is ahead by however much."""
    for dtype in WORK:
        a = (np.array(x) + shift).astype(dtype)
        t = np.array(label % len(x))
        loss, grad = both_of(a, t)
        e = np.exp(a.astype(L) - a.max().astype(L))
        rest = np.delete(e, t).sum()
        far = a[t] < a.max()
        others = np.delete(e, a.argmax()).sum()
        want = np.log1p(others) + (a.max().astype(L) - a[t].astype(L)) if far else np.log1p(rest)
        assert abs(loss.astype(L) - want) <= 4 * ulp(want, dtype)
        slope = e / e.sum()
        slope[t] = -rest / e.sum()
        assert (np.abs(grad.astype(L) - slope) <= 4 * ulp(slope, dtype)).all()


# ---- from logits: labels and targets ----


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_types_of_labels(isa: str, kind: str, dtype: str) -> None:
    """Any integer type, strided and read-only: the same bits."""
    x = logits((12, 100), dtype_of(dtype))
    t = labels_for(x)
    loss, grad = both_of(x, t)
    labels = np.repeat(t.astype(kind), 2)[::2]
    labels.flags.writeable = False
    for got in (both_of(x, labels), both_of(x, labels[::-1].copy()[::-1]), both_of(x, labels.tolist())):
        assert_same_bits(got[0], loss)
        assert_same_bits(got[1], grad)
    assert_same_bits(loss_of(x, t.astype(np.dtype(kind).newbyteorder("S"))), loss)
    assert_same_bits(loss_of(x, labels), loss)


@pytest.mark.parametrize("f", [loss_of, both_of, fastsoft.cross_entropy, fastsoft.cross_entropy_grad])
def test_label_out_of_range(isa: str, f: Callable[..., Any]) -> None:
    """ValueError with the label and its index; nothing wraps, nothing is written."""
    x = np.full((3, 4, 5), 0.5)
    for kind, wrong in (
        *itertools.product(("int8", "int64"), (5, -1, -5, -100, 127)),
        *itertools.product(("uint8", "uint64"), (5, 200)),
        ("uint64", 2**64 - 1),
        ("int64", 2**63 - 1),
        ("int64", 2**32),
        ("int64", -(2**63)),
    ):
        t = np.zeros((3, 4), kind)
        t[1, 2] = t[2, 0] = wrong
        shape = (3, 4) if f in (loss_of, fastsoft.cross_entropy) else x.shape
        out = np.full(shape, 7.0)
        with pytest.raises(ValueError) as caught:
            f(x, t, out=out)
        assert str(wrong) in str(caught.value)
        assert "(1, 2)" in str(caught.value)
        assert (out == 7).all()
        with pytest.raises(ValueError):
            f(x, t)
    with pytest.raises(ValueError, match="7"):
        f(np.zeros(3), np.array(7))


def test_label_out_of_range_in_place() -> None:
    """Logits that the gradient would go over stay."""
    x = logits((4, 5), "float64")
    kept = x.copy()
    with pytest.raises(ValueError):
        both_of(x, np.array([0, 1, 2, 5]), out=x)
    assert_same_bits(x, kept)


@pytest.mark.parametrize("ignored", [-100, -1, 0, 3, 255, 1000, 2**40, -(2**63)])
def test_ignore_index(isa: str, ignored: int) -> None:
    """Rows with it count for nothing, whatever is in their logits; it may be any integer, also a class."""
    x = logits((9, 4), "float64", largest=5)
    t = np.array([0, 1, 2, 3, 0, 1, 2, 3, 1])
    hidden = np.arange(9) % 4 == 3 if ignored not in range(4) else t == ignored
    t = np.where(hidden, ignored, t)
    bad = x.copy()
    bad[hidden] = [NAN, INF, -INF, NAN]
    for logits_ in (x, bad, np.asfortranarray(bad)):
        loss, grad = both_of(logits_, t, ignore_index=ignored)
        assert (loss[hidden] == 0).all()
        assert (grad[hidden] == 0).all()
        want, slope = both_of(x[~hidden], t[~hidden])
        assert_same_bits(loss[~hidden], want)
        assert_same_bits(grad[~hidden], slope)
        assert_same_bits(loss_of(logits_, t, ignore_index=ignored), loss)
        mean, grad = both_of(logits_, t, ignore_index=ignored, reduction="mean")
        close(mean, plain(x[~hidden], t[~hidden], reduction="mean")[0])
        close(grad[~hidden], plain(x[~hidden], t[~hidden], reduction="mean")[1])
        assert (grad[hidden] == 0).all()
        for options in ({"z_loss": 0.1}, {"label_smoothing": 0.1}, {"temperature": 2.0}, {"weight": np.ones(4)}):
            loss, grad = both_of(logits_, t, ignore_index=ignored, **options)
            assert (loss[hidden] == 0).all()
            assert (grad[hidden] == 0).all()


def test_ignore_index_of_small_types(isa: str) -> None:
    """An ignore_index that the labels' type does not hold ignores nothing, and does not wrap."""
    x = logits((3, 200), "float64")
    t = np.array([0, 156, 199], np.uint8)  # -100 would wrap to 156
    assert_same_bits(loss_of(x, t, ignore_index=-100), loss_of(x, t))
    with pytest.raises(TypeError, match="ignore_index"):
        loss_of(x, t, ignore_index=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", FLOATS)
def test_all_ignored(isa: str, dtype: str) -> None:
    """The mean of nothing is 0, and so is the gradient; so it is without rows."""
    x = logits((6, 5), dtype_of(dtype))
    x[0] = NAN
    t = np.full(6, -100)
    for a, labels in ((x, t), (x[:0], t[:0])):
        for reduction in ("mean", "sum"):
            for options in ({}, {"weight": np.ones(5)}, {"label_smoothing": 0.1}, {"z_loss": 0.1}):
                loss, grad = both_of(a, labels, ignore_index=-100, reduction=reduction, **options)
                assert loss.shape == ()
                assert loss.dtype == x.dtype
                assert loss == 0
                assert grad.shape == a.shape
                assert (grad == 0).all()
                assert loss_of(a, labels, ignore_index=-100, reduction=reduction, **options) == 0
    loss, grad = both_of(x, t, ignore_index=-100)
    assert (loss == 0).all()
    assert (grad == 0).all()


def test_minus_infinity(isa: str) -> None:
    """A target 0 on a -inf logit counts for nothing; a label there gives +inf."""
    for dtype in FLOATS:
        x = np.array([[1, -INF, 2], [-INF, 0, -INF]]).astype(dtype_of(dtype))
        for targets in (np.array([[0.5, 0, 0.5], [0, 1, 0]]), np.array([[1.0, 0, 0], [0, 2, 0]])):
            loss, grad = both_of(x, targets.astype(x.dtype))
            p = np.array([1 / (1 + math.e), 0, math.e / (1 + math.e)])
            want = -(targets[0, ::2] * np.log(p[::2])).sum()
            close(loss, [want, 0], x.dtype)
            close(grad[0], p * targets[0].sum() - targets[0], x.dtype)
            close(grad[1], np.array([0, 0, 0]), x.dtype)
        assert loss_of(x, np.array([1, 0])).tolist() == [INF, INF]
        loss, grad = both_of(x, np.array([1, 1]))
        assert loss.tolist() == [INF, 0]
        close(grad[0], p - [0, 1, 0], x.dtype)
        assert (grad[1] == 0).all()
        assert loss_of(x, np.array([[0, 0.5, 0.5], [0, 1, 0]]).astype(x.dtype)).tolist() == [INF, 0]
        assert loss_of(x, np.array([0, 1]), label_smoothing=0.1).tolist() == [INF, INF]


def test_nan_in_logits_and_targets(isa: str) -> None:
    """The row is NaN, and no other."""
    x, t = logits((4, 6), "float64"), np.array([0, 1, 2, 3])
    loss, grad = both_of(x, t)
    for value in (NAN, INF):
        for k in range(6):
            bad = x.copy()
            bad[2, k] = value
            got, slope = both_of(bad, t)
            assert np.isnan(got[2])
            assert np.isnan(slope[2]).all()
            assert_same_bits(np.delete(got, 2), np.delete(loss, 2))
            assert_same_bits(np.delete(slope, 2, 0), np.delete(grad, 2, 0))
    targets = dense(t, 6)
    targets[1, 4] = NAN
    loss, grad = both_of(x, targets)
    assert np.isnan(loss[1])
    assert np.isnan(grad[1]).all()
    assert np.isfinite(np.delete(loss, 1)).all()


def test_targets_that_do_not_sum_to_1(isa: str) -> None:
    """-sum t log p and p sum t - t as they stand; also negative ones, and none at all."""
    x = logits((5, 4), "float64", largest=4)
    for targets in (3 * dense(labels_for(x), 4), np.full((5, 4), 0.1), -np.ones((5, 4)), np.zeros((5, 4))):
        loss, grad = both_of(x, targets)
        want, slope = plain(x, targets)
        close(loss, want)
        close(grad, slope)
    assert (loss == 0).all()
    assert (grad == 0).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_images(isa: str, dtype: str) -> None:
    """Classes on axis 1 of (N, C, H, W): labels (N, H, W), in any memory order."""
    x = logits((2, 5, 3, 4), dtype_of(dtype))
    rows = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    t = labels_for(x, 1)
    assert t.shape == (2, 3, 4)
    want, slope = both_of(rows, t)
    for a in (x, np.asfortranarray(x), np.moveaxis(rows, -1, 1)):
        for labels in (t, np.asfortranarray(t), np.repeat(t, 2, -1)[..., ::2]):
            loss, grad = both_of(a, labels, 1)
            assert loss.shape == t.shape
            assert_same_bits(loss, want)
            assert_same_bits(np.ascontiguousarray(np.moveaxis(grad, 1, -1)), slope)
            assert_same_bits(loss_of(a, labels, -3), want)
    targets = np.abs(x) / 8
    loss, grad = both_of(x, targets, 1)
    want, slope = both_of(rows, np.moveaxis(targets, 1, -1))
    assert_same_bits(loss, want)
    assert_same_bits(np.ascontiguousarray(np.moveaxis(grad, 1, -1)), slope)
    ignoring = np.where(t == 0, 255, t)
    loss, _ = both_of(x, ignoring, 1, ignore_index=255, reduction="mean")
    close(loss, plain(rows, ignoring, ignore_index=255, reduction="mean")[0], dtype_of(dtype))


# ---- from logits: the other arguments ----


@pytest.mark.parametrize("dtype", FLOATS)
def test_out(isa: str, dtype: str) -> None:
    """Of the gradient x itself, the targets, beside them, or strided; of the loss an array of its shape."""
    number = dtype_of(dtype)
    x = logits((7, 19), number)
    t = labels_for(x)
    soft = np.abs(logits((7, 19), number, 3, 1))
    for targets in (t, soft):
        loss, grad = both_of(x, targets)
        for out in (np.zeros_like(x), np.zeros((7, 38), number)[:, ::2], np.zeros((19, 7), number).T[::-1]):
            got, slope = both_of(x, targets, out=out)
            assert slope is out
            assert_same_bits(np.ascontiguousarray(out), grad)
            assert_same_bits(got, loss)
        a = x.copy()
        got, slope = both_of(a, targets, out=a)
        assert slope is a
        assert_same_bits(a, grad)
        assert_same_bits(got, loss)
        for shift in (1, 19, 50, -3):
            buffer = np.zeros(300, number)
            a = buffer[60 : 60 + x.size].reshape(x.shape)
            a[...] = x
            out = buffer[60 + shift : 60 + shift + x.size].reshape(x.shape)
            assert_same_bits(both_of(a, targets, out=out)[0], loss)
            assert_same_bits(out, grad)
        out = np.zeros(14, number)[::2]
        assert loss_of(x, targets, out=out) is out
        assert_same_bits(np.ascontiguousarray(out), loss)
        for reduction in ("sum", "mean"):
            one = np.zeros((), number)
            assert loss_of(x, targets, reduction=reduction, out=one) is one
            assert_same_bits(one, loss_of(x, targets, reduction=reduction))
    loss, grad = both_of(x, soft)
    a = soft.copy()
    assert_same_bits(both_of(x, a, out=a)[0], loss)
    assert_same_bits(a, grad)
    a = x.copy()
    out = a[:, 0]
    want = loss_of(x, t)
    loss_of(a, t, out=out)
    assert_same_bits(np.ascontiguousarray(out), want)


def test_out_that_holds_the_labels(isa: str) -> None:
    """They are read before they are written over."""
    x = logits((64, 8), "float64")
    t = labels_for(x).astype(np.int64)
    loss, grad = both_of(x, t)
    out = np.zeros(x.shape)
    inside = out.reshape(-1)[100:164].view(np.int64)
    inside[...] = t
    assert_same_bits(both_of(x, inside, out=out)[0], loss)
    assert_same_bits(out, grad)
    out = np.zeros(64)
    inside = out.view(np.int64)
    inside[...] = t
    assert_same_bits(loss_of(x, inside, out=out), loss)


@pytest.mark.parametrize("f", [loss_of, both_of])
def test_wrong_arguments(f: Callable[..., Any]) -> None:
    """Refused with the argument's name, and nothing written."""
    x, t = logits((3, 4), "float64"), np.array([0, 1, 2])
    out = np.full(3 if f is loss_of else (3, 4), 7.0)
    wrong: list[tuple[type[Exception], dict[str, Any], str]] = [
        (AxisError, {"axis": 2}, "axis 2"),
        (TypeError, {"axis": None}, "axis must be an int"),
        (TypeError, {"axis": (0,)}, "axis must be an int"),
        (ValueError, {"weight": np.ones(3)}, "weight"),
        (ValueError, {"weight": np.ones((3, 4))}, "weight"),
        (TypeError, {"weight": np.ones(4, complex)}, "weight"),
        (TypeError, {"ignore_index": "none"}, "ignore_index"),
        (ValueError, {"label_smoothing": -0.1}, "label_smoothing"),
        (ValueError, {"label_smoothing": 1.1}, "label_smoothing"),
        (ValueError, {"label_smoothing": NAN}, "label_smoothing"),
        (TypeError, {"label_smoothing": "0.1"}, "label_smoothing"),
        (ValueError, {"z_loss": -1e-4}, "z_loss"),
        (ValueError, {"z_loss": INF}, "z_loss"),
        (TypeError, {"z_loss": None}, "z_loss"),
        (ValueError, {"temperature": 0}, "temperature"),
        (ValueError, {"temperature": NAN}, "temperature"),
        (TypeError, {"temperature": "1"}, "temperature"),
        (ValueError, {"reduction": "average"}, "reduction"),
        (ValueError, {"reduction": None}, "reduction"),
        (ValueError, {"num_threads": 0}, "num_threads"),
        (TypeError, {"num_threads": 1.5}, "num_threads"),
        (TypeError, {"where": True}, "where"),
    ]
    for error, options, says in wrong:
        with pytest.raises(error, match=says):
            f(x, t, out=out, **options)
    for bad, error in (
        (np.array([0, 1]), ValueError),
        (np.zeros((3, 5)), ValueError),
        (np.array([0.0, 1, 2]), ValueError),
        (np.zeros((3, 4), complex), TypeError),
        (np.ma.array(t, mask=[1, 0, 0]), TypeError),
        (np.ma.array(x), TypeError),
        (np.array(["0", "1", "2"]), (TypeError, ValueError)),
        (None, (TypeError, ValueError)),
    ):
        with pytest.raises(error, match="t "):
            f(x, bad, out=out)
    with pytest.raises(TypeError, match="x is a masked array"):
        f(np.ma.array(x), t, out=out)
    with pytest.raises(TypeError, match=r"^x must be of dtype"):
        f(x.astype(complex), t, out=out)
    with pytest.raises(TypeError):
        f(x, t, -1, np.ones(4))
    with pytest.raises(TypeError, match="out must be a"):
        f(x, t, out=[0.0] * 3)
    with pytest.raises(TypeError, match="out must be of the result's dtype"):
        f(x, t, out=np.zeros(out.shape, "f4"))
    with pytest.raises(ValueError, match="out must be of the result's shape"):
        f(x, t, out=np.zeros((4, 3)))
    with pytest.raises(ValueError, match="out must be writable"):
        f(x, t, out=np.broadcast_to(np.float64(7), out.shape))
    with pytest.raises(ValueError, match="out must be of the result's shape"):
        loss_of(x, t, reduction="sum", out=np.zeros(3))
    assert (out == 7).all()


@pytest.mark.parametrize("f", [fastsoft.cross_entropy, fastsoft.cross_entropy_grad])
def test_wrong_arguments_of_probabilities(f: Callable[..., Any]) -> None:
    """Refused with the argument's name, and nothing written."""
    z, t = np.full((3, 4), 0.25), np.full((3, 4), 0.25)
    out = np.full(3 if f is fastsoft.cross_entropy else (3, 4), 7.0)
    for error, arguments, says in (
        (TypeError, (np.ma.array(z), t), "z is a masked array"),
        (TypeError, (z, np.ma.array(t)), "t is a masked array"),
        (TypeError, (z.astype(complex), t), "z must be of dtype"),
        (TypeError, (z, t.astype(object)), "t must be of dtype"),
        (ValueError, (z, np.zeros(5)), r"\(5,\)"),
        (AxisError, (z, t, 2), "axis 2"),
        (TypeError, (z, t, None), "axis must be an int"),
        (TypeError, (z, t, -1, None), "positional"),
    ):
        with pytest.raises(error, match=says):
            f(*arguments, out=out)
    for wrong_out, error in ((np.zeros((9, 9)), ValueError), (np.zeros(out.shape, "f4"), TypeError), ([], TypeError)):
        with pytest.raises(error, match="out must be"):
            f(z, t, out=wrong_out)
    with pytest.raises(ValueError, match="num_threads"):
        f(z, t, out=out, num_threads=-1)
    assert (out == 7).all()


def test_result_type(isa: str) -> None:
    """Of logits and dense targets NumPy's result type; labels and weights leave the logits' own."""
    for f, first in itertools.product((loss_of, fastsoft.cross_entropy), FLOATS):
        for second in FLOATS:
            x, t = fastsoft.softmax(logits((4, 6), dtype_of(first))), np.full((4, 6), 0.25).astype(dtype_of(second))
            try:
                both = np.result_type(x, t)
            except TypeError:
                with pytest.raises(TypeError):
                    f(x, t)
                continue
            assert f(x, t).dtype == both
            assert_same_bits(f(x, t), f(x.astype(both), t.astype(both)))
        assert f(x, np.array([0, 1, 2, 3])).dtype == x.dtype
    x = logits((4, 6), "float32")
    loss, grad = both_of(x, np.array([0, 1, 2, 3]), weight=np.ones(6))
    assert loss.dtype == grad.dtype == np.float32
    assert_same_bits(loss, loss_of(x, np.array([0, 1, 2, 3]), weight=[1] * 6))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_widen(isa: str, dtype: str) -> None:
    """Integer logits, from all of their range, give float64; integer targets of x's shape are dense."""
    rng = np.random.default_rng(0)
    limits = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    x = rng.integers(*limits, (5, 7), "bool" if dtype == "bool" else dtype, endpoint=True)
    t = np.arange(5)
    loss, grad = both_of(x, t)
    assert loss.dtype == grad.dtype == np.float64
    want, slope = both_of(x.astype(float), t)
    assert_same_bits(loss, want)
    assert_same_bits(grad, slope)
    soft = logits((5, 7), "float64")
    hot = dense(t, 7).astype(dtype)
    for a, b in zip(both_of(soft, hot), both_of(soft, dense(t, 7)), strict=True):
        assert_same_bits(a, b)


def test_shapes_at_the_edge(isa: str) -> None:
    """One class, no rows, and no axes besides that of the classes."""
    for n in (1, 2, 17):
        loss, grad = both_of(np.zeros(n), np.array(n - 1))
        assert loss.shape == ()
        assert grad.shape == (n,)
        assert loss_of(np.zeros(n), n - 1) == pytest.approx(math.log(n))
    loss, grad = both_of(np.zeros((3, 1)), np.zeros(3, int))
    assert (loss == 0).all()
    assert (grad == 0).all()
    loss, grad = both_of(np.zeros((0, 4)), np.zeros(0, int))
    assert loss.shape == (0,)
    assert grad.shape == (0, 4)
    loss, grad = both_of(np.zeros((0, 4)), np.zeros((0, 4)))
    assert loss.shape == (0,)
    assert loss_of(np.zeros((0, 4)), np.zeros((0, 4)), reduction="mean") == 0
    assert loss_of(np.zeros((3, 0)), np.zeros((3, 0))).shape == (3,)
    with pytest.raises(ValueError):
        loss_of(np.zeros((3, 0)), np.zeros(3, int))
    assert fastsoft.cross_entropy(np.zeros((3, 0)), np.zeros((3, 0))).tolist() == [0, 0, 0]
    assert fastsoft.cross_entropy_grad(np.zeros((3, 0)), np.zeros((3, 0))).shape == (3, 0)
    assert fastsoft.cross_entropy_grad(np.array(0.5), np.array(0.25)) == -0.5
    assert fastsoft.cross_entropy(np.array(0.5), np.array(1.0)) == pytest.approx(math.log(2))


def test_inputs_stay(isa: str) -> None:
    """Nothing but the output is written to."""
    for dtype in FLOATS:
        x = logits((30, 40), dtype_of(dtype))
        t, weight, soft = labels_for(x), np.linspace(0.5, 2, 40), np.abs(x) / 64
        arrays = [x, t, weight, soft]
        before = [a.tobytes() for a in arrays]
        for options in ({}, {"weight": weight}, {"label_smoothing": 0.1, "z_loss": 0.1, "reduction": "mean"}):
            both_of(x, t, ignore_index=0, **options)
            both_of(x, soft, **options)
            loss_of(x.T, t[:30], 0, **options) if len(t) == 40 else loss_of(x, t, **options)
        assert [a.tobytes() for a in arrays] == before


def test_long_rows(isa: str) -> None:
    """Rows that are shared out among threads: a vocabulary, labels anywhere in it."""
    n = 200_003
    for dtype in WORK:
        x = logits((4, n), dtype, largest=3)
        t = np.array([0, n - 1, int(x[2].argmax()), 100_000])
        loss, grad = both_of(x, t, num_threads=1)
        again, slope = both_of(x, t, num_threads=3)
        assert_same_bits(again, loss)
        assert_same_bits(slope, grad)
        want, right = plain(x, t)
        assert np.allclose(loss.astype(L), want, rtol=4 * np.finfo(dtype).eps, atol=0)
        close(grad[np.arange(4), t], right[np.arange(4), t], dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_of_16_bits(isa: str, dtype: str) -> None:
    """A mean over more rows than the type counts, and a sum that is rounded once."""
    number = dtype_of(dtype)
    x = np.zeros((70_000, 3), number)
    t = np.zeros(70_000, int)
    assert loss_of(x, t, reduction="mean") == np.array(math.log(3)).astype(number)
    loss, grad = both_of(x[:3000], t[:3000], reduction="mean")
    assert loss == np.array(math.log(3)).astype(number)
    assert np.allclose(grad[0].astype(float), [-2 / 9000, 1 / 9000, 1 / 9000], rtol=2.0**-7)
    assert loss_of(x[:3000], t[:3000], reduction="sum") == np.array(3000 * math.log(3)).astype(number)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_reduction_of_plain_arrays(isa: str, dtype: str, reduction: str) -> None:
    """The same bits as by the way for all arguments, and the sum of the losses rounded once; whatever is ignored."""
    x = logits((300, 7), dtype, largest=30)
    t = labels_for(x)
    for ignored in (None, -100, -1, 3, 7, -(2**63), -(2**70)):
        hidden = np.zeros(300, bool) if ignored is None else np.arange(300) % 4 == 0
        held = ignored is not None and abs(ignored) < 2**64 and ignored != 3
        targets = np.where(hidden, ignored, t) if held else t
        hidden = targets == ignored
        options = {"reduction": reduction, "ignore_index": ignored}
        short = *both_of(x, targets, **options), loss_of(x, targets, **options)
        long = (
            *_entry.general["softmax_cross_entropy_with_grad"](x, targets, **options),
            _entry.general["softmax_cross_entropy"](x, targets, **options),
        )
        for a, b in zip(short, long, strict=True):
            assert_same_bits(a, b)
        exact = math.fsum(map(float, loss_of(x, t)[~hidden])) / (np.sum(~hidden) if reduction == "mean" else 1)
        assert abs(float(short[0]) - exact) <= 2 * np.spacing(x.dtype.type(exact))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probabilities_in_plain_arrays(isa: str, dtype: str) -> None:
    """Labels and targets of plain probabilities: the same bits as by the way for all arguments, the same errors."""
    nll = fastsoft.cross_entropy
    z = fastsoft.softmax(logits((300, 7), dtype, largest=200))
    z[5, 3], z[6, 2] = math.nan, -1
    t, soft = labels_for(z), fastsoft.softmax(logits((300, 7), dtype, 3, 1))
    for targets in (t, soft, t.astype(np.int32), dense(t, 7).astype(dtype)):
        want = _entry.general["cross_entropy"](z, targets)
        assert_same_bits(nll(z, targets), want)
        assert_same_bits(nll(z.reshape(20, 15, 7), targets.reshape(20, 15, *targets.shape[1:])), want.reshape(20, 15))
        assert_same_bits(nll(z[9], targets[9]), want[9])
        out = np.zeros_like(want)
        assert nll(z, targets, out=out) is out
        assert_same_bits(out, want)
        both = np.zeros((301, 7), z.dtype)  # in which the result lies over the end of z
        both[:300] = z
        assert_same_bits(nll(both[:300], targets, out=both.reshape(-1)[-300:]), want)
    for label in (-1, 7, 2**40):
        with pytest.raises(ValueError, match=rf"labels from 0 to 6, got {label} at index \(4,\)"):
            nll(z, np.where(np.arange(300) == 4, label, t))


def test_sum_beyond_the_largest_number(isa: str) -> None:
    """A sum of finite losses that no float64 holds is inf, without a warning."""
    x = np.array([[0, 1e308]] * 2)
    for reduction in ("sum", "mean"):
        assert loss_of(x, np.zeros(2, int), reduction=reduction) == math.inf


def test_mean_that_is_not_a_number(isa: str) -> None:
    """An infinite loss over an infinite weight: the one NaN that there is elsewhere."""
    x = np.array([[0, -math.inf], [0, 0]])
    found = loss_of(x, np.array([1, 0]), reduction="mean", weight=np.array([math.inf, 1]))
    assert_same_bits(found, np.asarray(math.nan))
