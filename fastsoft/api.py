"""The public functions: validate, call the kernels, return. The formula of each stands in its docstring."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _validate
from ._dispatch import kernels
from ._entry import public
from ._run import LOG_SOFTMAX, LOGSUMEXP, SOFTMAX, lazy, on_dask, pieces, quiet
from ._threads import allowed

Array = np.ndarray[Any, Any]


@public
def softmax(
    x: npt.ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    empty: str = "nan",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Softmax: exp(x_i / T) / sum_j exp(x_j / T).

    Parameters
    ----------
    x : array_like
        Logits: float16, bfloat16 (``ml_dtypes``), float32 or float64, of any strides; integers and bool are
        widened to float64 first. Never written to.
    axis : int, tuple of int or None, default -1
        The axis, or axes together, that hold the classes; None: all.
    where : array_like of bool, optional
        Broadcast to `x`. Only these entries take part; the others get probability 0.
    temperature : float, default 1.0
        T, positive and finite. As if x were x / T in exact arithmetic.
    empty : {"nan", "zero", "raise"}, default "nan"
        What a row gives that holds nothing (all -inf, or all masked).
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides. May be `x` itself.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        Probabilities of the shape and dtype of `x`. A row that holds a NaN or +inf is NaN. Dask arrays give a Dask
        array, lazily.

    Raises
    ------
    TypeError
        A dtype or type that is not allowed; a masked array.
    ValueError
        A value or shape that is not allowed. `numpy.exceptions.AxisError`: an axis that `x` does not have.
    EmptyRowError
        An empty row, with ``empty="raise"``.

    Notes
    -----
    The error is at most 2.5 ulp for every finite input in float32 and float64 (3.5 with a temperature), and 0.51 in
    float16 and bfloat16. The shift by the maximum is a power of two, hence exact [1]_, the sum is compensated [2]_.

    References
    ----------
    .. [1] M. Dukhan and A. Ablavatski, "Two-Pass Softmax Algorithm", arXiv:2001.04438, 2020.
    .. [2] T. J. Dekker, "A floating-point technique for extending the available precision",
       Numerische Mathematik 18, 1971.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.softmax(np.array([0.0, 0.0, -np.inf]))
    array([0.5, 0.5, 0. ])
    """
    return _run(SOFTMAX, x, axis, where, temperature, empty, out, num_threads)


@public
def log_softmax(
    x: npt.ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    where: npt.ArrayLike | None = None,
    temperature: float = 1.0,
    empty: str = "nan",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Logarithm of the softmax: x_i / T - log sum_j exp(x_j / T).

    Parameters
    ----------
    x : array_like
        Logits: float16, bfloat16 (``ml_dtypes``), float32 or float64, of any strides; integers and bool are
        widened to float64 first. Never written to.
    axis : int, tuple of int or None, default -1
        The axis, or axes together, that hold the classes; None: all.
    where : array_like of bool, optional
        Broadcast to `x`. Only these entries take part; the others get -inf.
    temperature : float, default 1.0
        T, positive and finite. As if x were x / T in exact arithmetic.
    empty : {"nan", "zero", "raise"}, default "nan"
        What a row gives that holds nothing (all -inf, or all masked); "zero", being a probability, is -inf here.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides. May be `x` itself.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        Log-probabilities of the shape and dtype of `x`. A row that holds a NaN or +inf is NaN. Dask arrays give a
        Dask array, lazily.

    Raises
    ------
    TypeError
        A dtype or type that is not allowed; a masked array.
    ValueError
        A value or shape that is not allowed. `numpy.exceptions.AxisError`: an axis that `x` does not have.
    EmptyRowError
        An empty row, with ``empty="raise"``.

    Notes
    -----
    The error is at most 3 ulp for every finite input in float32 and float64, and 0.51 in float16 and bfloat16. The
    dominant class gives -log1p(sum of the others), which does not cancel where its probability is near 1 [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
       IMA Journal of Numerical Analysis 41, 2021.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.log_softmax(np.array([20.0, 0.0, 0.0]))[0]
    np.float64(-4.1223072363804075e-09)
    """
    return _run(LOG_SOFTMAX, x, axis, where, temperature, empty, out, num_threads)


@public
def logsumexp(
    x: npt.ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    keepdims: bool = False,
    where: npt.ArrayLike | None = None,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Logarithm of the sum of exponentials: log sum_j exp(x_j).

    Parameters
    ----------
    x : array_like
        Logits: float16, bfloat16 (``ml_dtypes``), float32 or float64, of any strides; integers and bool are
        widened to float64 first. Never written to.
    axis : int, tuple of int or None, default -1
        The axis, or axes together, that are summed; None: all.
    keepdims : bool, default False
        Leave the summed axes in the result, with length 1.
    where : array_like of bool, optional
        Broadcast to `x`. Only these entries take part.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        Of the shape of `x` without `axis`, and of its dtype. A row that holds nothing (all -inf, or all masked) gives
        -inf; one with a NaN gives NaN, else one with +inf gives +inf. Dask arrays give a Dask array, lazily.

    Raises
    ------
    TypeError
        A dtype or type that is not allowed; a masked array.
    ValueError
        A value or shape that is not allowed. `numpy.exceptions.AxisError`: an axis that `x` does not have.

    Notes
    -----
    The error is at most 2 ulp of max(abs(result), 1) for every finite input in float32 and float64, and 0.51 in
    float16 and bfloat16. Computed as max + log1p(sum of the others), in which nothing cancels [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
       IMA Journal of Numerical Analysis 41, 2021.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.logsumexp(np.array([1000.0, 1000.0]))
    array(1000.69314718)
    """
    return _run(LOGSUMEXP, x, axis, where, 1.0, "nan", out, num_threads, bool(keepdims))


def _run(
    kind: int,
    x: object,
    axis: object,
    where: object,
    temperature: object,
    empty: object,
    out: object,
    num_threads: object,
    keepdims: bool = False,
) -> Array:
    """Check everything, then compute: the long way, for any arguments."""
    if lazy(x, where):
        options = {"temperature": temperature, "empty": empty, "num_threads": num_threads, "keepdims": keepdims}
        return on_dask(kind, {"x": x, "where": where}, axis, out, **options)  # type: ignore[no-any-return]
    a = _validate.array(x, "x", ".data and where=~x.mask")
    shape = a.shape
    if a.ndim == 0:  # one class
        a = a.reshape(1)
    classes = _validate.axes(axis, a.ndim)
    mask = _validate.mask(where, a.shape if shape else ())
    how, factor = _validate.factor(temperature)
    fill = _validate.empty_value(empty)
    threads = allowed(num_threads)
    if kind == LOGSUMEXP:
        shape = tuple(1 if d in classes else n for d, n in enumerate(shape) if keepdims or d not in classes)
    y = _validate.result(out, shape, a.dtype)
    if mask is not None:
        mask = mask.reshape(a.shape) if not shape else mask
    if empty == "raise":
        _validate.no_empty_rows(a, classes, mask)
    target = np.empty(shape, a.dtype) if out is not None and _validate.must_copy(y, a, mask) else y
    if a.size == 0:
        target[...] = -math.inf  # the sum of nothing; softmax has nothing to fill
    else:
        if a.size == target.size == 1:
            view = target.reshape(a.shape)
        else:
            view = np.expand_dims(target, classes) if target.ndim < a.ndim else target
        if _validate.beyond(how, a.dtype):
            wide = np.empty(view.shape)
            with quiet():
                _compute(kind, a.astype(np.float64), wide, mask, classes, how, factor, fill, threads)
                view[...] = wide
        else:
            _compute(kind, a, view, mask, classes, how, factor, fill, threads)
    if target is not y:
        y[...] = target
    return y


def _compute(
    kind: int,
    x: Array,
    y: Array,
    where: Array | None,
    classes: tuple[int, ...],
    how: int,
    factor: tuple[float, float, float],
    fill: float,
    threads: int,
) -> None:
    """Run the kernel over x, in pieces; `y` has x's axes (logsumexp: classes of length 1)."""
    if len(classes) != 1:
        return _compute_joined(kind, x, y, where, classes, how, factor, fill, threads)
    n = x.shape[classes[0]]
    rows = x.size // n
    for start, stop in pieces(rows, n):
        kernels.apply(kind, x, y, where, classes[0], how, factor, fill, threads, start, stop)
    return None


def _compute_joined(kind: int, x: Array, y: Array, where: Array | None, classes: tuple[int, ...], *rest: Any) -> None:
    """As `_compute` with the axes `classes` joined to one, without a copy where they lie as one."""
    order = (*(d for d in range(x.ndim) if d not in classes), *sorted(classes))

    def joined(a: Array) -> Array:
        batch = a.transpose(order).shape[: a.ndim - len(classes)]
        return a.transpose(order).reshape(*batch, math.prod(a.shape) // max(1, math.prod(batch)))

    z = joined(y)
    _compute(kind, joined(x), z, None if where is None else joined(where), (z.ndim - 1,), *rest)
    if not np.may_share_memory(z, y):
        y.transpose(order)[...] = z.reshape(y.transpose(order).shape)
