"""Derivatives of softmax and log_softmax: what is promised of them beyond the bounds that every operation keeps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import FLOATS, INTEGERS, LENGTHS, WORK, Array, assert_same_bits, bits, dtype_of, logits
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.exceptions import AxisError

import fastsoft
from fastsoft.reference import OPS, max_error, ulp

L = np.longdouble
Function = Callable[..., Array]
PAIRS = {  # name: those of its two arguments
    "softmax_vjp": ("x", "v"),
    "softmax_jvp": ("x", "u"),
    "softmax_vjp_from_output": ("y", "v"),
    "log_softmax_vjp": ("x", "g"),
    "log_softmax_vjp_from_output": ("y", "g"),
}
OF_X = ("softmax_jacobian", "softmax_jacobian_diagonal", "softmax_vjp", "softmax_jvp", "log_softmax_vjp")
every_pair = pytest.mark.parametrize("name", PAIRS)
FORMULAS: dict[str, Callable[[Array, Array], Array]] = {  # of x or y, and v, both wide, along the last axis
    "softmax_vjp": lambda x, v: sigma(x) * (v - (sigma(x) * v).sum(-1, keepdims=True)),
    "softmax_jvp": lambda x, u: sigma(x) * (u - (sigma(x) * u).sum(-1, keepdims=True)),
    "softmax_vjp_from_output": lambda y, v: y * (v - (y * v).sum(-1, keepdims=True)),
    "log_softmax_vjp": lambda x, g: g - sigma(x) * g.sum(-1, keepdims=True),
    "log_softmax_vjp_from_output": lambda y, g: g - np.exp(y) * g.sum(-1, keepdims=True),
}


def sigma(x: Array) -> Array:
    """softmax along the last axis in extended precision."""
    e = np.exp(x.astype(L) - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def operation(name: str) -> Any:
    return next(op for op in OPS if op.name == name)


def call(name: str, *arguments: Any, **options: Any) -> Array:
    return getattr(fastsoft, name)(*arguments, **options)  # type: ignore[no-any-return]


def pair(name: str, shape: tuple[int, ...], dtype: Any = "float64", axis: int = -1) -> tuple[Array, Array]:
    """Ordinary arguments of a function of two."""
    x, v = operation(name).arguments(logits(shape, dtype), axis)
    return x, v


def error_of(name: str, got: Array, a: Array, b: Array, **options: Any) -> float:
    """The error of `got` in ULP where the second argument is not the one that OPS makes."""
    op = operation(name)
    want, dtype = op.reference(a, b, **options), got.dtype
    largest = float(np.finfo(dtype).max)
    right = (np.abs(want) > largest) & np.isinf(got) & (np.sign(want) == np.sign(got))
    with np.errstate(invalid="ignore"):
        error = np.where(right, 0, np.abs(got.astype(L) - want) / ulp(op.size(want, a, b, **options), dtype))
    return float(np.where(np.isnan(error), np.inf, error).max())


# ---- the Jacobian ----


@pytest.mark.parametrize("dtype", FLOATS)
def test_symmetric(isa: str, dtype: str) -> None:
    """Bit for bit, at any temperature and where probabilities are subnormal."""
    number = dtype_of(dtype)
    for n in (*LENGTHS[:-4], 90, 100):
        x = logits((4, n), number, largest=60)
        for t in (1.0, 0.7, 1e-3, 1e30):
            y = fastsoft.softmax_jacobian(x, temperature=t)
            assert_same_bits(np.ascontiguousarray(y.swapaxes(-1, -2)), y)


@pytest.mark.parametrize("dtype", WORK)
def test_rows_of_the_jacobian(isa: str, dtype: str) -> None:
    """They sum to 0 within the error of their entries: the probabilities' sum is 1, whatever x; and so do columns."""
    for n in (*LENGTHS[:-4], 90, 100):
        x = logits((4, n), dtype)
        y = fastsoft.softmax_jacobian(x).astype(L)
        allowed = 6 * ulp(y, dtype).sum(-1)
        assert (np.abs(y.sum(-1)) <= allowed).all(), f"n = {n}"
        assert (np.abs(y.sum(-2)) <= allowed).all(), f"n = {n}"


@pytest.mark.parametrize("dtype", FLOATS)
def test_axes_of_the_jacobian(isa: str, dtype: str) -> None:
    """The batch axes in their order, then two of classes; each matrix is that of its row, its diagonal that alone."""
    x = logits((2, 3, 4, 5), dtype_of(dtype))
    for axis in range(-4, 4):
        rows = np.moveaxis(x, axis, -1)
        n = rows.shape[-1]
        y = fastsoft.softmax_jacobian(x, axis)
        assert y.shape == (*rows.shape, n)
        assert y.dtype == x.dtype
        assert y.flags.c_contiguous
        for place in np.ndindex(*rows.shape[:-1]):
            assert_same_bits(y[place], fastsoft.softmax_jacobian(rows[place]))
        diagonal = np.diagonal(y, axis1=-2, axis2=-1).astype(L)
        alone = np.moveaxis(fastsoft.softmax_jacobian_diagonal(x, axis), axis, -1).astype(L)
        assert (np.abs(diagonal - alone) <= 12 * ulp(alone, x.dtype)).all()


def test_diagonal_near_1(isa: str) -> None:
    """sigma (1 - sigma) where 1 - sigma is far below an ulp of 1."""
    for lead in (20.0, 40.0, 300.0, 700.0):
        want = 2 * math.exp(-lead) / (1 + 2 * math.exp(-lead)) ** 2
        x = np.array([lead, 0, 0])
        for y in (fastsoft.softmax_jacobian(x)[0, 0], fastsoft.softmax_jacobian_diagonal(x)[0]):
            assert y == pytest.approx(want, rel=6 * 2.0**-52, abs=0)
    x = np.array([60, 0], np.float32)
    assert fastsoft.softmax_jacobian(x)[0, 0] == pytest.approx(math.exp(-60), rel=6 * 2.0**-23, abs=0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_jacobian_out(isa: str, dtype: str) -> None:
    """Of any strides, and also where it holds x."""
    x = logits((3, 6), dtype_of(dtype))
    want = fastsoft.softmax_jacobian(x)
    for out in (np.zeros_like(want), np.asfortranarray(want) * 0, np.zeros((3, 6, 12), x.dtype)[..., ::2]):
        assert fastsoft.softmax_jacobian(x, out=out) is out
        assert_same_bits(out, want)
    for start in (0, 1, 50, 90):
        buffer = np.zeros(want.size + x.size, x.dtype)
        inside = buffer[start : start + x.size].reshape(x.shape)
        inside[...] = x
        out = buffer[: want.size].reshape(want.shape)
        fastsoft.softmax_jacobian(inside, out=out)
        assert_same_bits(out, want)


# ---- products ----


@pytest.mark.parametrize("dtype", WORK)
@pytest.mark.parametrize("name", ["softmax_vjp", "softmax_jvp"])
def test_product_is_that_with_the_matrix(isa: str, name: str, dtype: str) -> None:
    """v J = J v, of the dense matrix."""
    for n in LENGTHS[:-4]:
        x, v = pair(name, (5, n), dtype)
        dense = fastsoft.softmax_jacobian(x).astype(L)
        z = call(name, x, v).astype(L)
        allowed = (4 + 7 * 2) * ulp(sigma(x) * np.abs(v).max(-1, keepdims=True), dtype) + n * ulp(np.zeros(1), dtype)
        assert (np.abs(z - (v.astype(L)[..., None, :] @ dense)[..., 0, :]) <= allowed).all()
        assert_same_bits(fastsoft.softmax_jvp(x, v), fastsoft.softmax_vjp(x, v))


@every_pair
@pytest.mark.parametrize("dtype", WORK)
def test_formula(isa: str, name: str, dtype: str) -> None:
    """The plain formula in extended precision, with a temperature too."""
    for n in (1, 2, 5, 17, 100, 1000):
        a, b = pair(name, (6, n), dtype)
        size = np.maximum(np.abs(b).max(-1), np.abs(b.sum(-1)))[:, None]
        for t in (1.0, 0.7, 3.0) if name in OF_X else (1.0,):
            want = FORMULAS[name](a.astype(L) / L(t), b.astype(L)) / L(t)
            got = call(name, a, b, **({"temperature": t} if name in OF_X else {})).astype(L)
            assert (np.abs(got - want) <= 5 * np.finfo(dtype).eps * size / t).all()


def test_temperature_of_the_jacobian(isa: str) -> None:
    """The derivative by x, not by x / T."""
    x = logits((4, 6), "float64", largest=4)
    for t in (0.5, 0.7, 3.0):
        p = sigma(x.astype(L) / L(t))
        want = p[..., None] * (np.eye(6) - p[..., None, :]) / L(t)
        assert np.allclose(fastsoft.softmax_jacobian(x, temperature=t).astype(L), want, rtol=1e-13, atol=1e-17)
        got = fastsoft.softmax_jacobian_diagonal(x, temperature=t).astype(L)
        assert np.allclose(got, np.diagonal(want, axis1=1, axis2=2), rtol=1e-13, atol=1e-17)


@every_pair
@pytest.mark.parametrize("dtype", FLOATS)
def test_broadcasting(isa: str, name: str, dtype: str) -> None:
    """Each argument against the other, along classes, batch or both: the same bits as of whole copies."""
    number = dtype_of(dtype)
    shapes: list[tuple[tuple[int, ...], tuple[int, ...], int]] = [
        ((5,), (3, 5), -1),
        ((3, 5), (5,), -1),
        ((4, 1, 5), (3, 5), -1),
        ((1, 3, 5), (4, 1, 5), 2),
        ((4, 5, 1), (4, 5, 3), 1),
        ((5, 1), (4, 5, 3), -2),
        ((3, 1), (3, 4), -1),
        ((3, 4), (3, 1), -1),
        ((4,), (), -1),
        ((), (4,), 0),
        ((40, 1), (1, 33), 0),
        ((1, 33), (300, 33), -1),
        ((0, 3), (1, 3), -1),
    ]
    for first, second, axis in shapes:
        x, v = logits(first, number, 1, 3) if first else number.type(1.5), logits(second, number, 2, 3)
        x = -np.abs(x) if name == "log_softmax_vjp_from_output" else x
        whole = np.broadcast_arrays(x, v)
        got = call(name, x, v, axis)
        assert got.shape == whole[0].shape
        assert got.dtype == number
        assert got.flags.c_contiguous
        assert_same_bits(got, call(name, whole[0].copy(), whole[1].copy(), axis))


@every_pair
def test_shapes_that_do_not_broadcast(name: str) -> None:
    """ValueError, with both shapes."""
    for first, second in (((3, 4), (3, 5)), ((2, 3), (4, 2, 4)), ((4,), (5,))):
        with pytest.raises(ValueError) as caught:
            call(name, np.zeros(first), np.zeros(second))
        assert str(first) in str(caught.value)
        assert str(second) in str(caught.value)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["softmax_vjp", "softmax_jvp"])
def test_constant_vector(isa: str, name: str, dtype: str) -> None:
    """J has the constant vectors for its kernel: exactly 0, however many classes, in rows and in columns."""
    number = dtype_of(dtype)
    huge = 6e4 if dtype == "float16" else 3e38 if number.itemsize < 8 else 1.7e308
    for n in (*LENGTHS[:-3], 20_000):
        x = logits((9 if n < 1000 else 2, n), number, largest=50)
        for c in (1.0, 0.1, -1 / 3, 1e-7, 5e-324, huge, -huge):
            v = np.full(x.shape, c).astype(number)
            assert (call(name, x, v) == 0).all(), f"n = {n}, v = {c}"
            assert (call(name, x, v[:1, :1]) == 0).all(), f"n = {n}, v = {c}, broadcast"
            assert (call(name, x.T.copy(), v.T.copy(), 0) == 0).all(), f"n = {n}, v = {c}, columns"
        assert (call(name, x, number.type(0.3), temperature=0.7) == 0).all()


def test_log_softmax_where_nothing_is_left(isa: str) -> None:
    """1 - sigma of half an ulp of 1, which a difference of rounded numbers does not have."""
    x, g = np.array([37.42994775023705, 0.0]), np.array([1.0, 0.0])
    half = 5.551115123125776e-17
    assert fastsoft.log_softmax_vjp(x, g).tolist() == [half, -half]
    z = fastsoft.log_softmax_vjp_from_output(fastsoft.log_softmax(x), g)
    assert z[1] == pytest.approx(-half, rel=1e-13)
    assert abs(z[0] - half) <= 2.0**-52


@pytest.mark.parametrize("dtype", WORK)
@every_pair
def test_vectors_of_any_size(isa: str, name: str, dtype: str) -> None:
    """Up to the largest number and down to the smallest: right where the result is a number, infinite where not."""
    info = np.finfo(dtype)
    sizes = [float(info.max), float(info.max) / 2, 1e30, 1.0, 1e-30, float(info.tiny), float(info.smallest_subnormal)]
    rng = np.random.default_rng(0)
    op = operation(name)
    for n in (1, 2, 3, 5, 8, 16, 17, 33, 100):
        a, normal = pair(name, (20, n), dtype)
        for size in sizes:
            with np.errstate(under="ignore"):
                vectors = [
                    np.clip(normal, -1, 1) * np.asarray(size, dtype),
                    rng.choice([-1, 1], a.shape).astype(dtype) * np.asarray(size, dtype),
                    np.where(np.arange(n) == n // 2, size, 0).astype(dtype) + np.zeros_like(a),
                ]
            for v in vectors:
                for z, x, w in ((call(name, a, v), a, v), (call(name, a.T.copy(), v.T.copy(), 0).T, a, v)):
                    error = error_of(name, z, x, w)
                    assert error <= op.bound, f"n = {n}, {size:g}: an error of {error:.4g} ULP"


@pytest.mark.parametrize("dtype", WORK)
@pytest.mark.parametrize("name", ["softmax_vjp", "softmax_jvp", "log_softmax_vjp"])
def test_large_vectors_where_probabilities_are_small(isa: str, name: str, dtype: str) -> None:
    """sigma_i below the normal numbers, or below all of them, times a large v_i is an ordinary number.

    From 2^-190 and 2^-1150 down it counts as 0.
    """
    first, last, size = (80, 130, 1e38) if dtype == "float32" else (700, 795, 1e308)
    far = np.linspace(first, last, 60)
    for n in (2, 3, 17):
        x = np.zeros((60, n), dtype)
        x[:, -1] = -far
        v = np.zeros_like(x)
        v[:, -1] = size
        error = error_of(name, call(name, x, v), x, v)
        assert error <= operation(name).bound, f"n = {n}: an error of {error:.4g} ULP"
        v[:, 0] = 1
        error = error_of(name, call(name, x, v), x, v)
        assert error <= operation(name).bound, f"n = {n}: an error of {error:.4g} ULP"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_pair
def test_large_vectors_of_16_bits(isa: str, name: str, dtype: str) -> None:
    """Sums beyond the 16-bit numbers on the way."""
    number = dtype_of(dtype)
    a, _ = pair(name, (10, 300), number)
    largest = float(fastsoft.reference.largest(number))
    v = np.full((10, 300), largest).astype(number)
    v[:, ::3] = -v[:, ::3]
    want = operation(name).reference(a, v)
    fits = np.abs(want) < 0.99 * largest
    z = call(name, a, v)
    unit = ulp(operation(name).size(want, a, v), number)
    assert (np.abs(z.astype(L) - want)[fits] <= unit[fits]).all()
    assert np.isinf(z.astype(float)[np.abs(want) > 1.01 * largest]).all()


@pytest.mark.parametrize("inserted", [math.nan, math.inf, -math.inf])
@every_pair
def test_vector_that_is_not_finite(isa: str, name: str, inserted: float) -> None:
    """A NaN in it, wherever it stands, makes the row NaN, and no other row; so does infinity, or it stays infinite."""
    for dtype in FLOATS:
        for n in (1, 2, 7, 16, 17, 33, 65, 129):
            a, v = pair(name, (2 * n, n), dtype_of(dtype))
            clean = v.copy()
            v[np.arange(n) * 2, np.arange(n)] = inserted
            for z in (call(name, a, v), call(name, a.T.copy(), v.T.copy(), 0).T):
                if math.isnan(inserted):
                    assert np.isnan(z[::2]).all(), f"{dtype}, n = {n}"
                else:
                    assert not np.isfinite(np.diagonal(z[::2]).astype(float)).any(), f"{dtype}, n = {n}"
                assert_same_bits(np.ascontiguousarray(z[1::2]), call(name, a[1::2], clean[1::2]))


@st.composite
def two_arrays(draw: st.DrawFn) -> tuple[Array, Array]:
    """Logits and a vector of any size."""
    dtype = draw(st.sampled_from([np.dtype("float32"), np.dtype("float64")]))
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 20)))
    largest = float(np.finfo(dtype).max) / 4
    wide = hnp.from_dtype(dtype, min_value=-largest, max_value=largest, allow_nan=False, allow_infinity=False)
    usual = st.integers(-60, 60).map(float) | st.floats(-30, 30, width=32)
    return draw(hnp.arrays(dtype, shape, elements=wide | usual)), draw(hnp.arrays(dtype, shape, elements=wide | usual))


@pytest.mark.parametrize("name", ["softmax_vjp", "log_softmax_vjp"])
@given(both=two_arrays())
def test_bound_for_any_numbers(name: str, both: tuple[Array, Array]) -> None:
    """The bound for logits and vectors of all sizes, and the sum of the gradient 0 within it."""
    x, v = both
    reach = 130 if x.dtype == np.float32 else 795  # beyond, a probability counts as 0, which a large v could tell
    gap = x.max(-1, keepdims=True).astype(L) - x
    assume(not ((gap > reach) & (gap < 2 * reach)).any())
    z = call(name, x, v)
    error = error_of(name, z, x, v)
    assert error <= operation(name).bound, f"an error of {error:.4g} ULP"
    if np.isfinite(z).all():
        allowed = 4 * ulp(operation(name).size(z, x, v), x.dtype).sum(-1)
        assert (np.abs(z.astype(L).sum(-1)) <= allowed).all()


# ---- arguments ----


@every_pair
@pytest.mark.parametrize("dtype", FLOATS)
def test_out(isa: str, name: str, dtype: str) -> None:
    """New, strided, one of the arguments or beside it; `out` itself is returned, and the other argument stays."""
    x, v = pair(name, (6, 17), dtype_of(dtype))
    want = call(name, x, v)
    for out in (np.zeros_like(x), np.zeros((6, 34), x.dtype)[:, ::2], np.zeros((17, 6), x.dtype).T[::-1, ::-1]):
        assert call(name, x, v, out=out) is out
        assert_same_bits(np.ascontiguousarray(out), want)
    for k in range(2):
        both = [x.copy(), v.copy()]
        assert call(name, *both, out=both[k]) is both[k]
        assert_same_bits(both[k], want)
        assert_same_bits(both[1 - k], (x, v)[1 - k])
        for shift in (1, 5, 17, 100):
            buffer = np.zeros(300, x.dtype)
            both[k] = buffer[50 : 50 + x.size].reshape(x.shape)
            both[k][...] = (x, v)[k]
            out = buffer[50 + shift : 50 + shift + x.size].reshape(x.shape)
            call(name, *both, out=out)
            assert_same_bits(out, want)
    one = x.copy()
    assert_same_bits(call(name, one, one), call(name, x, x.copy()))
    assert call(name, one, one, out=one) is one
    assert_same_bits(one, call(name, x, x))


@every_pair
def test_out_that_is_a_broadcast_argument(isa: str, name: str) -> None:
    """A row that all rows share is read before it is written over."""
    x, v = pair(name, (6, 17))
    buffer = x.copy()
    want = call(name, x[2], v)
    assert_same_bits(call(name, buffer[2], v, out=buffer), want)
    buffer = v.copy()
    want = call(name, x, v[3])
    assert_same_bits(call(name, x, buffer[3], out=buffer), want)


@pytest.mark.parametrize("name", ["softmax_jacobian", "softmax_jacobian_diagonal", *PAIRS])
def test_wrong_out(name: str) -> None:
    """Refused, and nothing written."""
    x = logits((3, 4), "float64")
    arguments = (x, x) if name in PAIRS else (x,)
    shape = call(name, *arguments).shape
    cases: list[tuple[type[Exception], Any, str]] = [
        (TypeError, [0.0] * 4, "out must be a numpy.ndarray"),
        (TypeError, np.full(shape, 7, np.float32), "out must be of the result's dtype float64"),
        (ValueError, np.full((4, 3), 7.0), "out must be of the result's shape"),
        (ValueError, np.full((1, *shape), 7.0), "out must be of the result's shape"),
        (ValueError, np.broadcast_to(np.full((), 7.0), shape), "out must be writable"),
        (ValueError, np.lib.stride_tricks.as_strided(np.full(64, 7.0), shape, [8] * len(shape)), "overlap itself"),
    ]
    for error, out, says in cases:
        before = np.array(out, copy=True)
        with pytest.raises(error, match=says):
            call(name, *arguments, out=out)
        assert np.array_equal(before, out)


@pytest.mark.parametrize("name", ["softmax_jacobian", "softmax_jacobian_diagonal", *PAIRS])
def test_wrong_arguments(name: str) -> None:
    """Refused with the argument's name, and nothing written."""
    x = logits((3, 4), "float64")
    arguments = [x, x] if name in PAIRS else [x]
    out = np.full(call(name, *arguments).shape, 7.0)
    wrong: list[tuple[type[Exception], dict[str, Any], str]] = [
        (AxisError, {"axis": 2}, "axis 2"),
        (AxisError, {"axis": -3}, "axis -3"),
        (TypeError, {"axis": None}, "axis must be an int"),
        (TypeError, {"axis": (0, 1)}, "axis must be an int"),
        (TypeError, {"axis": 1.0}, "axis must be an int"),
        (ValueError, {"num_threads": 0}, "num_threads"),
        (TypeError, {"num_threads": 1.5}, "num_threads"),
        (TypeError, {"where": True}, "where"),
    ]
    if name in OF_X:
        wrong += [(ValueError, {"temperature": t}, "temperature") for t in (0, -1.0, math.inf, math.nan)]
        wrong += [(TypeError, {"temperature": t}, "temperature") for t in ("1", None, [1.0])]
    for error, options, says in wrong:
        with pytest.raises(error, match=says):
            call(name, *arguments, out=out, **options)
    with pytest.raises(TypeError):
        call(name, *arguments, -1, 1.0)
    for k, argument in enumerate(PAIRS.get(name, ("x",))):
        bad = [np.ones((3, 4), t) for t in (np.longdouble, np.complex128, "O", "U1", "M8[s]")]
        for b in bad if np.dtype(np.longdouble).itemsize > 8 else bad[1:]:
            given_ = [*arguments[:k], b, *arguments[k + 1 :]]
            with pytest.raises(TypeError, match=f"^{argument} must be of dtype"):
                call(name, *given_, out=out)
        masked = [*arguments[:k], np.ma.array(x, mask=x > 0), *arguments[k + 1 :]]
        with pytest.raises(TypeError, match=f"{argument} is a masked array"):
            call(name, *masked, out=out)
    assert (out == 7).all()


@every_pair
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_widen(isa: str, name: str, dtype: str) -> None:
    """Either argument, from all of its range."""
    rng = np.random.default_rng(0)
    if dtype == "bool":
        whole = rng.random((4, 9)) < 0.5
    else:
        limits = np.iinfo(dtype)
        whole = rng.integers(limits.min, limits.max, (4, 9), dtype, endpoint=True)
    x, v = pair(name, (4, 9))
    first = -np.abs(whole.astype(float)) if name == "log_softmax_vjp_from_output" else whole
    for a, b in ((first, v), (x, whole), (first, whole), (first, v.astype(np.float16)), (x.astype("f4"), whole)):
        got = call(name, a, b)
        assert got.dtype == np.float64
        assert_same_bits(got, call(name, a.astype(float), b.astype(float)))


@every_pair
def test_result_type(isa: str, name: str) -> None:
    """Of two floating types NumPy's result type, in which it is computed."""
    for first in FLOATS:
        for second in FLOATS:
            a, b = pair(name, (4, 9))
            a, b = a.astype(dtype_of(first)), b.astype(dtype_of(second))
            try:
                both = np.result_type(a, b)
            except TypeError:
                with pytest.raises(TypeError):
                    call(name, a, b)
                continue
            got = call(name, a, b)
            assert got.dtype == both
            assert_same_bits(got, call(name, a.astype(both), b.astype(both)))
    a, b = pair(name, (4, 9), "float32")
    assert_same_bits(call(name, a.astype(">f4"), b.astype(">f4")), call(name, a, b))
    assert call(name, a.tolist(), b).dtype == np.float64


@every_pair
def test_read_only_and_mixed_layouts(isa: str, name: str) -> None:
    """Arguments that cannot be written to, in different memory orders, of zero and negative strides."""
    x, v = pair(name, (12, 20), "float32")
    want = call(name, x, v)
    for a in (x, np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], x[::-1].copy()[::-1]):
        for b in (v, np.asfortranarray(v), np.repeat(v, 2, 0)[::2], v[:, ::-1].copy()[:, ::-1]):
            a, b = a.view(), b.view()
            a.flags.writeable = b.flags.writeable = False
            assert_same_bits(call(name, a, b), want)
    assert_same_bits(call(name, x, np.broadcast_to(v[0], x.shape)), call(name, x, v[0]))
    assert_same_bits(call(name, np.broadcast_to(x[0], x.shape), v), call(name, x[0], v))


@pytest.mark.parametrize("dtype", FLOATS)
@every_pair
def test_place_of_both_arguments(isa: str, name: str, dtype: str) -> None:
    """Rows of one batch that share x, or v: the same bits as alone."""
    x, v = pair(name, (7, 33), dtype_of(dtype))
    whole = call(name, x[:, None], v[None])
    for i in range(7):
        for j in range(7):
            assert_same_bits(whole[i, j], call(name, x[i], v[j]))


# ---- zeros ----


def test_zeros(isa: str) -> None:
    """Where v_i = v . sigma."""
    f = fastsoft.softmax_vjp_zeros
    assert f(np.zeros(3), np.array([1.0, 2.0, 3.0])).tolist() == [False, True, False]
    assert f(np.zeros(3), np.array([1e300, 2e300, 3e300])).tolist() == [False, True, False]
    assert f(np.zeros(3), np.array([1e-300, 2e-300, 3e-300])).tolist() == [False, True, False]
    assert f(np.array([0.0, -2000.0]), np.array([1.0, 2.0])).tolist() == [True, False]  # not where sigma_i rounds to 0
    assert f(np.array([1.0, 2.0]), np.array([5.0, 5.0])).tolist() == [True, True]
    assert f(np.zeros(2), np.zeros(2)).tolist() == [True, True]
    for dtype in FLOATS:
        for n in (1, 2, 9, 33, 1000):
            x = logits((5, n), dtype_of(dtype))
            got = f(x, np.full(n, 0.1).astype(x.dtype))
            assert got.shape == x.shape
            assert got.dtype == np.bool_
            assert got.all()


def test_zeros_of_made_vectors(isa: str) -> None:
    """One entry is put at the mean of the others, in the numbers of the type: it is found, and no other."""
    for dtype in WORK:
        x, v = pair("softmax_vjp", (50, 12), dtype)
        p = sigma(x)
        k = np.arange(50) % 12
        rest = np.where(np.arange(12) == k[:, None], 0, p * v)
        v[np.arange(50), k] = rest.sum(-1) / (1 - p[np.arange(50), k])
        ordinary = p.max(-1) < 0.9
        got = fastsoft.softmax_vjp_zeros(x[ordinary], v[ordinary])
        assert np.array_equal(got, np.arange(12) == k[ordinary, None])
        columns = fastsoft.softmax_vjp_zeros(x[ordinary].T, v[ordinary].T, 0)
        assert np.array_equal(columns.T, got)


def test_tolerance_of_zeros(isa: str) -> None:
    """tol is relative to max|v|."""
    x, v = np.zeros(3), np.array([1.0, 2.1, 3.0])
    gap = 2.1 - 6.1 / 3
    assert fastsoft.softmax_vjp_zeros(x, v, tol=1.01 * gap / 3).tolist() == [False, True, False]
    assert fastsoft.softmax_vjp_zeros(x, v, tol=0.99 * gap / 3).tolist() == [False, False, False]
    assert fastsoft.softmax_vjp_zeros(x, v, tol=1.0).all()
    assert fastsoft.softmax_vjp_zeros(np.zeros(2), np.array([2.0, 2.0]), tol=0.0).all()
    for tol in (-1e-9, math.nan):
        with pytest.raises(ValueError, match="tol"):
            fastsoft.softmax_vjp_zeros(x, v, tol=tol)
    with pytest.raises(TypeError, match="tol"):
        fastsoft.softmax_vjp_zeros(x, v, tol="small")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="masked"):
        fastsoft.softmax_vjp_zeros(np.ma.array(x), v)
    assert fastsoft.softmax_vjp_zeros(np.zeros((2, 1, 3)), np.zeros((4, 3))).shape == (2, 4, 3)


# ---- the operator ----


@pytest.mark.parametrize("dtype", FLOATS)
def test_operator(isa: str, dtype: str) -> None:
    """shape, dtype, products, diagonal and the dense matrices, with and without a batch."""
    number = dtype_of(dtype)
    for shape, axis in (((7,), -1), ((3, 7), -1), ((7, 3), 0), ((2, 7, 3), 1)):
        x = logits(shape, number, largest=3)
        rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        operator = fastsoft.SoftmaxJacobian(x, axis)
        assert operator.shape == (*rows.shape, 7)
        assert operator.dtype == number
        dense = fastsoft.softmax_jacobian(x, axis)
        assert_same_bits(operator.toarray(), dense)
        assert_same_bits(np.ascontiguousarray(operator.diagonal()), fastsoft.softmax_jacobian_diagonal(rows))
        v = logits((7,), number, 3)
        assert_same_bits(operator @ v, fastsoft.softmax_jvp(rows, v))
        several = logits((*rows.shape[:-1], 7, 4), number, 4)
        block = operator @ several
        assert block.shape == several.shape
        assert block.dtype == number
        for k in range(4):
            want = fastsoft.softmax_jvp(rows, several[..., k])
            assert_same_bits(np.ascontiguousarray(block[..., k]), want)


def test_operator_of_a_batch_of_vectors(isa: str) -> None:
    """One vector for each row of x."""
    x, v = pair("softmax_jvp", (3, 7))
    assert_same_bits(fastsoft.SoftmaxJacobian(x) @ v, fastsoft.softmax_jvp(x, v))


@pytest.mark.parametrize("shape", [(7,), (3, 7)])
def test_array_times_operator(isa: str, shape: tuple[int, ...]) -> None:
    """v J is J v; a block before J has its vectors as rows, also where it is square. Lists do as well."""
    operator = fastsoft.SoftmaxJacobian(logits(shape, "float64", largest=3))
    for v in logits((7,), "float64", 1), logits(shape, "float64", 2):
        assert_same_bits(v @ operator, operator @ v)
        assert_same_bits(v.tolist() @ operator, operator @ v)
    for k in (1, 4, 7):
        rows = logits((*shape[:-1], k, 7), "float64", 3)
        got = rows @ operator
        assert got.shape == rows.shape
        for i in range(k):
            assert_same_bits(np.ascontiguousarray(got[..., i, :]), operator @ np.ascontiguousarray(rows[..., i, :]))
    with pytest.raises(TypeError):
        rows * operator


def test_operator_refuses() -> None:
    """Vectors of another length, masked ones, axes that are not there."""
    operator = fastsoft.SoftmaxJacobian(np.zeros(3))
    with pytest.raises(ValueError, match=r"3 classes, in shape \(\.\.\., 3\) or \(\.\.\., k, 3\), got \(3, 2\)"):
        np.zeros((3, 2)) @ operator
    for wrong in (np.zeros(4), np.zeros((4, 2)), np.zeros(())):
        with pytest.raises(ValueError):
            operator @ wrong
        with pytest.raises(ValueError):
            wrong @ operator
        with pytest.raises(ValueError):
            operator.solve(wrong)
    with pytest.raises(TypeError):
        operator @ np.ma.zeros(3)
    with pytest.raises(AxisError):
        fastsoft.SoftmaxJacobian(np.zeros(3), 1)
    with pytest.raises(TypeError):
        fastsoft.SoftmaxJacobian(np.zeros(3), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="masked"):
        fastsoft.SoftmaxJacobian(np.ma.zeros(3))


def test_solve(isa: str) -> None:
    """The pseudo-inverse of the dense matrix, applied; also to what is not in the range of J."""
    for n in (1, 2, 5, 30):
        x = logits((4, n), "float64", n, 2)
        w = logits((4, n), "float64", n + 1, 2)
        dense = fastsoft.softmax_jacobian(x)
        want = (np.linalg.pinv(dense) @ w[..., None])[..., 0] if n > 1 else np.zeros((4, 1))
        got = fastsoft.SoftmaxJacobian(x).solve(w)
        assert got.dtype == np.float64
        assert np.allclose(got, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())
        for k in range(4):
            assert_same_bits(fastsoft.SoftmaxJacobian(x[k]).solve(w[k]), got[k])
        in_range = fastsoft.SoftmaxJacobian(x) @ w
        back = fastsoft.SoftmaxJacobian(x).solve(in_range)
        assert np.allclose(back, w - w.mean(-1, keepdims=True), rtol=1e-9, atol=1e-9)


def test_solve_of_a_block(isa: str) -> None:
    """Column by column."""
    x, w = logits((6,), "float64", largest=2), logits((6, 3), "float64")
    operator = fastsoft.SoftmaxJacobian(x)
    block = operator.solve(w)
    assert block.shape == (6, 3)
    for k in range(3):
        assert np.allclose(block[:, k], operator.solve(w[:, k]), rtol=1e-14, atol=1e-14)


def test_solve_where_the_matrix_is_nearly_singular(isa: str) -> None:
    """The closed form is right where the dense matrix's pseudo-inverse has lost its small singular values."""
    x = np.array([0.0, -30.0, -60.0])
    w = np.array([1.0, -3.0, 2.0])
    u = w.astype(L) / sigma(x)
    assert np.allclose(fastsoft.SoftmaxJacobian(x).solve(w), (u - u.mean()).astype(float), rtol=1e-13)


def test_operator_in_scipy(isa: str) -> None:
    """What scipy's LinearOperator asks for."""
    linalg = pytest.importorskip(
        "scipy.sparse.linalg", reason="NOT TESTED: SciPy is not here, so nothing shows that its operators take J"
    )
    x, v = logits((9,), "float64", largest=3), logits((9,), "float64", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operator = linalg.aslinearoperator(fastsoft.SoftmaxJacobian(x))
        dense = fastsoft.softmax_jacobian(x)
        assert np.allclose(operator.matvec(v), dense @ v, rtol=1e-13, atol=1e-15)
        assert np.allclose(operator.rmatvec(v), dense @ v, rtol=1e-13, atol=1e-15)
        assert np.allclose(operator @ np.eye(9), dense, rtol=1e-13, atol=1e-15)
        assert np.allclose((operator + operator) @ v, 2 * dense @ v, rtol=1e-13, atol=1e-15)
        values = linalg.eigsh(operator, 2, return_eigenvectors=False)
    assert np.allclose(np.sort(values), np.linalg.eigvalsh(dense)[-2:], rtol=1e-10)


# ---- shapes at the edge ----


def test_without_rows_or_classes(isa: str) -> None:
    """Of size 0, and right in shape."""
    for shape, axis, matrices in (((0, 3), -1, (0, 3, 3)), ((3, 0), -1, (3, 0, 0)), ((3, 0), 0, (0, 3, 3))):
        x = np.zeros(shape, np.float32)
        assert fastsoft.softmax_jacobian(x, axis).shape == matrices
        assert fastsoft.softmax_jacobian_diagonal(x, axis).shape == shape
        for name in PAIRS:
            assert call(name, x, x, axis).shape == shape
            assert call(name, x, x, axis).dtype == np.float32
        assert fastsoft.softmax_vjp_zeros(x, x, axis).shape == shape


def test_long_rows_of_pairs(isa: str) -> None:
    """A row that is shared out among threads, with a vector that is broadcast to it: the same bits as its copy."""
    n = 150_001
    for name in PAIRS:
        x, v = pair(name, (1, n), "float32")
        wide = np.broadcast_to(v[0, :1], (1, n))
        for threads in (1, 2):
            got = call(name, x, wide, num_threads=threads)
            assert_same_bits(got, call(name, x, wide.copy(), num_threads=3 - threads))
        assert max_error(operation(name), call(name, x, v), logits((1, n), "float32")) <= 4


def test_nan_has_one_pattern(isa: str) -> None:
    """Whatever NaN goes in as the vector."""
    x = np.zeros((2, 5), np.float32)
    v = np.zeros((2, 5), np.float32)
    v.view(np.uint32)[0, 2] = 0xFFC01234
    v.view(np.uint32)[1, 4] = 0x7F800001
    for name in PAIRS:
        z = call(name, x, v)
        assert set(bits(z).ravel().tolist()) == {0x7FC00000}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [3, 33, 50, 64, 128, 129, 300, 1000, 9000])
@pytest.mark.parametrize("name", ["softmax_vjp_from_output", "log_softmax_vjp_from_output"])
def test_kept_outputs_in_any_order(isa: str, name: str, n: int, dtype: str) -> None:
    """Rows that are out of the ordinary, among others, wherever they lie: what each gives by itself, and by way of
    scratch."""
    y, v = pair(name, (23, n), dtype_of(dtype))
    wide = v.astype(np.float64)
    wide[3] *= 1e-7 if dtype == "float16" else 1e-25  # of a sum next to nothing
    wide[4] *= 4e3 if dtype == "float16" else 1e37
    wide[9, 0] = np.inf
    wide[10, -1] = np.nan
    wide[13] = 0
    wide[14], wide[14, :2] = 0, (1, -1)
    v = wide.astype(v.dtype)
    y[11, n // 2] = np.nan
    y[12, 0] = np.inf
    y[17] = -np.inf if name.startswith("log") else 0
    y[17, 1] = 0 if name.startswith("log") else 1  # so sure that z is 0
    z = call(name, y, v)
    assert_same_bits(z, call(name, np.asfortranarray(y), np.asfortranarray(v)))
    assert_same_bits(z[::-1], call(name, y[::-1], v[::-1]))
    for r in range(len(y)):
        assert_same_bits(z[r], call(name, y[r], v[r]))
    assert np.all(np.isfinite(z[[*range(4), *range(5, 9), *range(13, 23)]].astype(np.float64)))


def odd_ones_among(y: Array, v: Array, is_log: bool) -> None:
    """Columns that are out of the ordinary, one here and there."""
    n, columns = y.shape
    every = columns // 7 + 1
    v[0, 3::every] = np.inf
    v[-1, 5::every] = np.nan
    v[:, 11::every] = 0
    y[n // 2, 13::every] = np.nan
    v[:, 17::every] *= np.asarray(1e-7 if v.dtype.itemsize == 2 else 1e-25, v.dtype)
    y[:, 19::every] = -np.inf if is_log else 0
    y[1, 19::every] = 0 if is_log else 1
    y[1, 23::every] = 44.5  # no probability, nor its logarithm; exp of float32 ends here


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [2, 4, 5, 16, 17, 21, 33, 48, 49, 64, 65, 150])
@pytest.mark.parametrize("name", ["softmax_vjp_from_output", "log_softmax_vjp_from_output"])
def test_columns_of_kept_outputs(isa: str, name: str, n: int, dtype: str) -> None:
    """What rows give: few and many columns, whole registers of them or not, classes a power of two apart or not."""
    for columns in (1, 2, 15, 16, 17, 50, 64, 256, 1000, 1024, 2048 + 5):
        y, v = pair(name, (columns, n), dtype_of(dtype))
        for odd in (False, True) if columns > 16 else (False,):
            if odd:
                odd_ones_among(y.T, v.T, name.startswith("log"))
            z = call(name, y, v)
            of_columns = call(name, np.ascontiguousarray(y.T), np.ascontiguousarray(v.T), axis=0)
            assert_same_bits(of_columns.T, z)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [10, 19, 40])
@pytest.mark.parametrize("name", ["softmax_vjp_from_output", "log_softmax_vjp_from_output"])
def test_columns_of_kept_outputs_beyond_the_caches(isa: str, name: str, n: int, dtype: str) -> None:
    y, v = pair(name, (131072, n), dtype_of(dtype))
    odd_ones_among(y.T, v.T, name.startswith("log"))
    of_columns = call(name, np.ascontiguousarray(y.T), np.ascontiguousarray(v.T), axis=0)
    assert_same_bits(of_columns.T, call(name, y, v))


def test_what_is_left_of_a_sum(isa: str) -> None:
    """Partial sums that cancel, and leave next to nothing in what they lack."""
    n, left = 40960, 1.37 * 2.0**-105
    g, y = np.zeros((2, n), np.float32), np.full((2, n), -12.0, np.float32)
    lane = g[:, ::16]
    lane[:, :1024], lane[:, 1024:1536], lane[:, 1536:2560] = 2.0**-90, left, -(2.0**-90)
    y[:, 1] = -0.1
    z = fastsoft.log_softmax_vjp_from_output(y, g)
    assert z[:, 1] == pytest.approx(-np.exp(-0.1) * 512 * left, rel=1e-6)
    assert_same_bits(z, fastsoft.log_softmax_vjp_from_output(np.asfortranarray(y), np.asfortranarray(g)))


@pytest.mark.parametrize("dtype", WORK)
def test_nothing_is_left_where_a_class_is_certain(isa: str, dtype: str) -> None:
    """sigma = 1 and g = sum g give 0, not a rest of the unit that exponentials have."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 20, 40, 200):
        y = np.full((300, n), -np.inf, dtype)
        y[:, n // 2] = 0
        g = np.zeros((300, n), dtype)
        g[:, n // 2] = rng.standard_normal(300) * 10.0 ** rng.integers(-30, 30, 300)
        assert not fastsoft.log_softmax_vjp_from_output(y, g).any()
