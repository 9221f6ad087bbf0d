"""Every operation in plain NumPy, and `OPS`, the list that tests, benchmarks and `fastsoft bench` walk.

`reference` is the formula in extended precision (80 bits on x86), with the dominant class
kept free of cancellation; `baseline` is what one writes in NumPy without fastsoft.
Nothing here is called by the package's own functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _wide(x: Array, axis: int) -> Array:
    """`x` in extended precision with the classes on the last axis."""
    return np.moveaxis(np.asarray(x).astype(np.longdouble), axis, -1)


def _parts(x: Array, axis: int, temperature: float = 1.0) -> tuple[Array, Array, Array, Array]:
    """(x - max) / T, its exp, the index of one dominant class, and the sum of all the others; classes last."""
    x, t = _wide(x, axis), np.longdouble(temperature)
    top = x.max(-1, keepdims=True)
    d = x - top
    back = d - x
    lost = (x - (d - back)) - (top + back)  # by the rounding of d, where x and max are of very different sizes
    d = d / t
    e = np.exp(d) * (1 + np.where(np.isfinite(lost), lost, 0) / t)
    first = x.argmax(-1)[..., None]
    return d, e, first, _others(e, first)


def _others(e: Array, k: Array) -> Array:
    """The sum of each row but for class k: nothing is subtracted."""
    others = e.copy()
    np.put_along_axis(others, k, 0, -1)
    return others.sum(-1, keepdims=True)


# ---- formulas ----


def softmax(x: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """exp(x_i / T) / sum_j exp(x_j / T)"""
    _, e, _, rest = _parts(x, axis, temperature)
    return np.moveaxis(e / (1 + rest), -1, axis)


def log_softmax(x: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """x_i / T - log sum_j exp(x_j / T); of the dominant class -log1p(sum of the others)"""
    d, _, first, rest = _parts(x, axis, temperature)
    y = d - np.log1p(rest)
    np.put_along_axis(y, first, -np.log1p(rest), -1)
    return np.moveaxis(y, -1, axis)


def logsumexp(x: Array, axis: int = -1) -> Array:
    """log sum_j exp(x_j)"""
    rest = _parts(x, axis)[3]
    return _wide(x, axis).max(-1) + np.log1p(rest)[..., 0]


def softmax_jacobian(x: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """p_i (1[i = j] - p_j) / T, of the shape (..., n, n)"""
    p = np.moveaxis(softmax(x, axis, temperature), axis, -1)
    y = -p[..., :, None] * p[..., None, :] / np.longdouble(temperature)
    k = np.arange(p.shape[-1])
    y[..., k, k] = np.moveaxis(softmax_jacobian_diagonal(x, axis, temperature), axis, -1)
    return y


def softmax_jacobian_diagonal(x: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """p_i (1 - p_i) / T, where 1 - p_i of the dominant class is the sum of the others over that of all"""
    _, e, first, rest = _parts(x, axis, temperature)
    left = 1 + rest - e
    np.put_along_axis(left, first, rest, -1)
    return np.moveaxis(e * left / (1 + rest) ** 2, -1, axis) / np.longdouble(temperature)


def softmax_vjp(x: Array, v: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """p_i (v_i - sum_j p_j v_j) / T"""
    return softmax_vjp_from_output(softmax(x, axis, temperature), v, axis) / np.longdouble(temperature)


def softmax_vjp_from_output(y: Array, v: Array, axis: int = -1) -> Array:
    """y_i (v_i - sum_j y_j v_j)"""
    y, v = y.astype(np.longdouble), v.astype(np.longdouble)
    return y * (v - (y * v).sum(axis, keepdims=True))


def log_softmax_vjp(x: Array, g: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """(g_i - p_i sum_j g_j) / T"""
    g = g.astype(np.longdouble)
    return (g - softmax(x, axis, temperature) * g.sum(axis, keepdims=True)) / np.longdouble(temperature)


def log_softmax_vjp_from_output(y: Array, g: Array, axis: int = -1) -> Array:
    """g_i - exp(y_i) sum_j g_j"""
    g = g.astype(np.longdouble)
    return g - np.exp(y.astype(np.longdouble)) * g.sum(axis, keepdims=True)


def cross_entropy(z: Array, t: Array, axis: int = -1) -> Array:
    """-sum_i t_i log z_i, where 0 log 0 is 0"""
    z, t = z.astype(np.longdouble), t.astype(np.longdouble)
    with np.errstate(divide="ignore"):
        return -(t * np.log(np.where((t == 0) & (z == 0), 1, z))).sum(axis)


def softmax_cross_entropy(x: Array, t: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """-log p_t of the labels t"""
    y = np.moveaxis(log_softmax(x, axis, temperature), axis, -1)
    return -np.take_along_axis(y, t[..., None], -1)[..., 0]


def softmax_cross_entropy_gradient(x: Array, t: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """(p_i - 1[i = t]) / T, of the label's class as minus the sum of the others over that of all"""
    _, e, _, rest = _parts(x, axis, temperature)
    np.put_along_axis(e, t[..., None], -_others(e, t[..., None]), -1)
    return np.moveaxis(e / (1 + rest), -1, axis) / np.longdouble(temperature)


# ---- what one writes in NumPy ----


def _numpy_softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _numpy_log_softmax(x: Array, axis: int = -1) -> Array:
    d = x - x.max(axis, keepdims=True)
    return d - np.log(np.exp(d).sum(axis, keepdims=True))


def _numpy_logsumexp(x: Array, axis: int = -1) -> Array:
    top = x.max(axis, keepdims=True)
    return (np.log(np.exp(x - top).sum(axis, keepdims=True)) + top).squeeze(axis)


def _numpy_jacobian(x: Array, axis: int = -1) -> Array:
    p = np.moveaxis(_numpy_softmax(x, axis), axis, -1)
    return p[..., :, None] * (np.eye(p.shape[-1], dtype=p.dtype) - p[..., None, :])


def _numpy_jacobian_diagonal(x: Array, axis: int = -1) -> Array:
    p = _numpy_softmax(x, axis)
    return p * (1 - p)


def _numpy_vjp_from_output(y: Array, v: Array, axis: int = -1) -> Array:
    return y * (v - (y * v).sum(axis, keepdims=True))


def _numpy_vjp(x: Array, v: Array, axis: int = -1) -> Array:
    return _numpy_vjp_from_output(_numpy_softmax(x, axis), v, axis)


def _numpy_log_vjp_from_output(y: Array, g: Array, axis: int = -1) -> Array:
    return g - np.exp(y) * g.sum(axis, keepdims=True)


def _numpy_log_vjp(x: Array, g: Array, axis: int = -1) -> Array:
    return g - _numpy_softmax(x, axis) * g.sum(axis, keepdims=True)


def _numpy_cross_entropy(z: Array, t: Array, axis: int = -1) -> Array:
    return -(t * np.log(z)).sum(axis)


def _numpy_softmax_cross_entropy(x: Array, t: Array, axis: int = -1) -> Array:
    return -np.take_along_axis(_numpy_log_softmax(x, axis), np.expand_dims(t, axis), axis).squeeze(axis)


def _numpy_softmax_cross_entropy_with_grad(x: Array, t: Array, axis: int = -1) -> tuple[Array, Array]:
    y, k = _numpy_log_softmax(x, axis), np.expand_dims(t, axis)
    grad = np.exp(y)
    np.put_along_axis(grad, k, np.take_along_axis(grad, k, axis) - 1, axis)
    return -np.take_along_axis(y, k, axis).squeeze(axis), grad


# ---- arguments ----


def _rows(x: Array, axis: int) -> Array:
    """`x` in float64 with the classes last, contiguous: a row gives the same numbers wherever it lies."""
    return np.moveaxis(np.atleast_1d(x), axis, -1).astype(np.float64, order="C")


def _like(x: Array, rows: Array, axis: int) -> Array:
    """Rows as an array of the shape, floating type and memory order of `x`."""
    y = np.empty_like(x, x.dtype if x.dtype.name in PRECISION else np.float64, subok=False)
    y[...] = np.moveaxis(rows, -1, axis).reshape(x.shape)
    return y


def _chance(x: Array, axis: int) -> Array:
    """64 random bits for each entry that depend on its value and its class alone: rows keep theirs in any batch."""
    rows = _rows(x, axis) + 0.0  # -0.0 as 0.0
    h: Array = rows.view(np.uint64) + np.arange(1, rows.shape[-1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
    return h ^ (h >> np.uint64(31))


def _normal(x: Array, axis: int) -> Array:
    """Numbers from about the normal distribution: the sum of four uniform ones."""
    h, mask = _chance(x, axis), np.uint64(0xFFFF)
    total = sum((h >> np.uint64(s)) & mask for s in (0, 16, 32, 48))
    return _like(x, (np.asarray(total).astype(np.float64) - 2 * 65535) / 37837, axis)


def _rounded(f: Callable[[Array], Array], x: Array, axis: int) -> Array:
    """f of the rows in float64, as x's type: what the caller of a function of f(x) has kept."""
    rows = _rows(x, axis)
    return _like(x, f(rows) if rows.size else rows, axis)


def with_vector(x: Array, axis: int) -> tuple[Array, ...]:
    return x, _normal(x, axis)


def softmax_with_vector(x: Array, axis: int) -> tuple[Array, ...]:
    return _rounded(_numpy_softmax, x, axis), _normal(x, axis)


def log_softmax_with_vector(x: Array, axis: int) -> tuple[Array, ...]:
    return _rounded(_numpy_log_softmax, x, axis), _normal(x, axis)


def softmax_with_targets(x: Array, axis: int) -> tuple[Array, ...]:
    """Numbers from 0 to 1 / n."""
    h = _chance(x, axis)
    t = np.ldexp((h >> np.uint64(11)).astype(np.float64), -53) / h.shape[-1]
    return _rounded(_numpy_softmax, x, axis), _like(x, t, axis)


def with_labels(x: Array, axis: int) -> tuple[Array, ...]:
    """The dominant class in every second row or so, any class in the others."""
    rows = _rows(x, axis)
    h = _chance(x, axis).sum(-1)
    labels = np.where(h & np.uint64(256), rows.argmax(-1), (h >> np.uint64(10)) % np.uint64(rows.shape[-1]))
    return x, labels.astype(np.intp).reshape(np.take(x, 0, axis).shape if x.ndim else ())


# ---- the list ----


def _size(y: Array, *_: Array, **__: Any) -> Array:
    return np.abs(y)


def _size_or_1(y: Array, *_: Array, **__: Any) -> Array:
    return np.maximum(np.abs(y), 1)


def _largest(v: Array, axis: int) -> Array:
    return np.abs(v.astype(np.longdouble)).max(axis, keepdims=True)


def _vjp_size(_: Array, x: Array, v: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    """p_i max|v| / T: of what the result is a difference"""
    return softmax(x, axis, temperature) * _largest(v, axis) / np.longdouble(temperature)


def _vjp_from_output_size(_: Array, y: Array, v: Array, axis: int = -1) -> Array:
    return np.abs(y.astype(np.longdouble)) * _largest(v, axis)


def _log_size(p: Array, g: Array, axis: int) -> Array:
    """The largest of |g_i|, p_i |sum of g| and p_i max|g|"""
    g = g.astype(np.longdouble)
    return np.maximum(np.abs(g), p * np.maximum(np.abs(g.sum(axis, keepdims=True)), _largest(g, axis)))


def _log_vjp_size(_: Array, x: Array, g: Array, axis: int = -1, temperature: float = 1.0) -> Array:
    return _log_size(softmax(x, axis, temperature), g, axis) / np.longdouble(temperature)


def _log_vjp_from_output_size(_: Array, y: Array, g: Array, axis: int = -1) -> Array:
    return _log_size(np.exp(y.astype(np.longdouble)), g, axis)


@dataclass(frozen=True)
class Operation:
    """One public operation: how it is checked, and what it is compared with."""

    name: str  # of the function in `fastsoft`
    reference: Callable[..., Array]
    baseline: Callable[..., Any]
    bound: float  # ULP for float32 and float64, for every finite input
    bound16: float  # ULP for float16 and bfloat16
    size: Callable[..., Array] = _size  # errors are counted in ULP of this: (result, *arguments, axis=...)
    derive: Callable[[Array, int], tuple[Array, ...]] = lambda x, axis: (x,)  # all arguments, made of logits
    classes: int = 1  # class axes of the result

    def arguments(self, x: Array, axis: int = -1) -> tuple[Array, ...]:
        """The operation's arguments for logits x: the same for a row wherever it stands, and without warnings."""
        with np.errstate(all="ignore"):
            return self.derive(x, axis)


# A z of 16 bits may lie a binade above its unit; correctly rounded it is off by a whole unit then, and being rounded
# from float32 by a few parts in ten thousand more.
NEXT_BINADE = 1.001

OPS = (
    Operation("softmax", softmax, _numpy_softmax, 2.5, 0.51),
    Operation("log_softmax", log_softmax, _numpy_log_softmax, 3.0, 0.51),
    Operation("logsumexp", logsumexp, _numpy_logsumexp, 2.0, 0.51, _size_or_1, classes=0),
    Operation("softmax_jacobian", softmax_jacobian, _numpy_jacobian, 6.0, 0.51, classes=2),
    Operation("softmax_jacobian_diagonal", softmax_jacobian_diagonal, _numpy_jacobian_diagonal, 6.0, 0.51),
    Operation("softmax_vjp", softmax_vjp, _numpy_vjp, 4.0, NEXT_BINADE, _vjp_size, with_vector),
    Operation("softmax_jvp", softmax_vjp, _numpy_vjp, 4.0, NEXT_BINADE, _vjp_size, with_vector),
    Operation("softmax_vjp_from_output", softmax_vjp_from_output, _numpy_vjp_from_output, 4.0, NEXT_BINADE,
              _vjp_from_output_size, softmax_with_vector),
    Operation("log_softmax_vjp", log_softmax_vjp, _numpy_log_vjp, 4.0, NEXT_BINADE, _log_vjp_size, with_vector),
    Operation("log_softmax_vjp_from_output", log_softmax_vjp_from_output, _numpy_log_vjp_from_output, 4.0, NEXT_BINADE,
              _log_vjp_from_output_size, log_softmax_with_vector),
    Operation("cross_entropy", cross_entropy, _numpy_cross_entropy, 4.0, 0.51, _size, softmax_with_targets, 0),
    Operation("softmax_cross_entropy", softmax_cross_entropy, _numpy_softmax_cross_entropy, 4.0, 0.51,
              _size, with_labels, 0),
    Operation("softmax_cross_entropy_with_grad", softmax_cross_entropy_gradient,
              _numpy_softmax_cross_entropy_with_grad, 4.0, 0.51, _size, with_labels),
)  # fmt: skip

PRECISION = {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}


def ulp(x: Array, dtype: Any) -> Array:
    """The distance between neighbouring `dtype` numbers at `x`; below the normal numbers one subnormal step."""
    bits, smallest = PRECISION[np.dtype(dtype).name]
    x = np.abs(np.asarray(x, np.longdouble))
    _, exponent = np.frexp(x)
    exponent = np.where(x > 0, exponent - 1, smallest)
    return np.ldexp(np.longdouble(1), np.maximum(exponent, smallest) - (bits - 1))


def largest(dtype: Any) -> Array:
    """The largest finite number of `dtype`."""
    bits, smallest = PRECISION[np.dtype(dtype).name]
    return np.ldexp(2 - np.ldexp(np.longdouble(1), 1 - bits), 1 - smallest)


def distance(got: Array, want: Array, unit: Array) -> Array:
    """abs(got - want) in `unit`, in the type of `want`; infinite where one side is not finite alone.

    What is beyond the largest number of the type of `got` may be infinite.
    """
    beyond = np.abs(want) > largest(got.dtype)
    got = got.astype(want.dtype)
    same = (got == want) | (np.isnan(got) & np.isnan(want)) | (beyond & (got == np.copysign(np.inf, want)))
    error = np.where(same, 0, np.abs(got - want) / unit)
    return np.where(np.isnan(error), np.inf, error)


def errors(op: Operation, got: Any, arguments: tuple[Array, ...], axis: int = -1, **options: Any) -> Array:
    """The error of each entry of `got` = op(*arguments) in ULP, as a `distance`.

    Of two results the second, the gradient, counts.
    """
    got = got[1] if isinstance(got, tuple) else got
    with np.errstate(all="ignore"):
        want = op.reference(*arguments, axis=axis, **options)
        return distance(got, want, ulp(op.size(want, *arguments, axis=axis, **options), got.dtype))


def max_error(op: Operation, got: Any, x: Array, axis: int = -1, **options: Any) -> float:
    """The largest of the `errors` of `got` = op of the arguments that it makes of logits x."""
    return float(errors(op, got, op.arguments(x, axis), axis, **options).max(initial=0))
