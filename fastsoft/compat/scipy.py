"""softmax, log_softmax and logsumexp as `scipy.special` has them, for real numbers.

    from fastsoft.compat.scipy import logsumexp, softmax    # was: from scipy.special import ...

The axis is None, all axes together, unless it is given; `logsumexp` takes weights and gives signs. SciPy is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from .. import _validate, api
from .._run import lazy, quiet

Array = np.ndarray[Any, Any]
Axis = int | tuple[int, ...] | None
F = TypeVar("F", bound=np.floating[Any])
S = TypeVar("S", bound=tuple[int, ...])
Widened = Sequence[float] | Sequence[Sequence[float]] | npt.NDArray[np.integer[Any] | np.bool_]  # to float64

__all__ = ["log_softmax", "logsumexp", "softmax"]


@overload
def softmax(x: np.ndarray[S, np.dtype[F]], axis: Axis = None) -> np.ndarray[S, np.dtype[F]]: ...
@overload
def softmax(x: F, axis: Axis = None) -> F: ...
@overload
def softmax(x: float, axis: Axis = None) -> np.float64: ...
@overload
def softmax(x: Widened, axis: Axis = None) -> npt.NDArray[np.float64]: ...
@overload
def softmax(x: npt.ArrayLike, axis: Axis = None) -> Any: ...
def softmax(x: npt.ArrayLike, axis: Axis = None) -> Any:
    """Softmax, with the arguments of SciPy [1]_: exp(x_i) / sum_j exp(x_j).

    Parameters
    ----------
    x : array_like
        Logits, as in `fastsoft.softmax`.
    axis : int, tuple of int or None, default None
        The axis, or axes together, that hold the classes; None: all.

    Returns
    -------
    numpy.ndarray or NumPy scalar
        Probabilities of the shape and dtype of `x`; float64 of integers. Dask arrays give a Dask array, lazily.

    Raises
    ------
    TypeError, ValueError
        As in `fastsoft.softmax`.

    References
    ----------
    .. [1] P. Virtanen et al., "SciPy 1.0: Fundamental Algorithms for Scientific Computing in Python", Nature
       Methods 17, 2020.

    Examples
    --------
    >>> from fastsoft.compat.scipy import softmax
    >>> softmax([[0.0, 0.0], [0.0, 0.0]])
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    return api.softmax(x, axis)[()]


@overload
def log_softmax(x: np.ndarray[S, np.dtype[F]], axis: Axis = None) -> np.ndarray[S, np.dtype[F]]: ...
@overload
def log_softmax(x: F, axis: Axis = None) -> F: ...
@overload
def log_softmax(x: float, axis: Axis = None) -> np.float64: ...
@overload
def log_softmax(x: Widened, axis: Axis = None) -> npt.NDArray[np.float64]: ...
@overload
def log_softmax(x: npt.ArrayLike, axis: Axis = None) -> Any: ...
def log_softmax(x: npt.ArrayLike, axis: Axis = None) -> Any:
    """Logarithm of the softmax, with the arguments of SciPy [1]_: x_i - log sum_j exp(x_j).

    Parameters
    ----------
    x : array_like
        Logits, as in `fastsoft.log_softmax`.
    axis : int, tuple of int or None, default None
        The axis, or axes together, that hold the classes; None: all.

    Returns
    -------
    numpy.ndarray or NumPy scalar
        Log-probabilities of the shape and dtype of `x`; float64 of integers. Dask arrays give a Dask array, lazily.

    Raises
    ------
    TypeError, ValueError
        As in `fastsoft.log_softmax`.

    References
    ----------
    .. [1] P. Virtanen et al., "SciPy 1.0: Fundamental Algorithms for Scientific Computing in Python", Nature
       Methods 17, 2020.

    Examples
    --------
    >>> from fastsoft.compat.scipy import log_softmax
    >>> log_softmax([20.0, 0.0, 0.0])[0]
    np.float64(-4.1223072363804075e-09)
    """
    return api.log_softmax(x, axis)[()]


@overload
def logsumexp(
    a: npt.NDArray[F], axis: None = None, b: None = None, keepdims: Literal[False] = False,
    return_sign: Literal[False] = False,
) -> F: ...
@overload
def logsumexp(
    a: npt.NDArray[F], axis: None = None, b: None = None, keepdims: Literal[False] = False, *,
    return_sign: Literal[True],
) -> tuple[F, F]: ...
@overload
def logsumexp(
    a: float | Widened, axis: None = None, b: float | Widened | None = None, keepdims: Literal[False] = False,
    return_sign: Literal[False] = False,
) -> np.float64: ...
@overload
def logsumexp(
    a: float | Widened, axis: None = None, b: float | Widened | None = None, keepdims: Literal[False] = False, *,
    return_sign: Literal[True],
) -> tuple[np.float64, np.float64]: ...
@overload
def logsumexp(
    a: npt.ArrayLike, axis: Axis = None, b: npt.ArrayLike | None = None, keepdims: bool = False,
    return_sign: Literal[False] = False,
) -> Any: ...
@overload
def logsumexp(
    a: npt.ArrayLike, axis: Axis = None, b: npt.ArrayLike | None = None, keepdims: bool = False, *,
    return_sign: Literal[True],
) -> tuple[Any, Any]: ...
@overload
def logsumexp(
    a: npt.ArrayLike, axis: Axis = None, b: npt.ArrayLike | None = None, keepdims: bool = False,
    return_sign: bool = False,
) -> Any: ...
def logsumexp(
    a: npt.ArrayLike,
    axis: Axis = None,
    b: npt.ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    """Logarithm of a sum of exponentials, with weights: log sum_j b_j exp(a_j).

    Parameters
    ----------
    a : array_like
        Logits, as in `fastsoft.logsumexp`.
    axis : int, tuple of int or None, default None
        The axis, or axes together, to sum over; None: all.
    b : array_like, optional
        Real weights of any sign, which broadcast against `a`. Where one is 0, its `a` does not matter.
    keepdims : bool, default False
        Whether the axes that are summed over stay, with length 1.
    return_sign : bool, default False
        Whether to give also the sign of the sum. Without it the logarithm of a negative sum is NaN.

    Returns
    -------
    numpy.ndarray or NumPy scalar
        Logarithms, log abs(sum), of the shape of `a` and `b` together without `axis`, and of their dtype; float64 of
        integers. Without weights Dask arrays give a Dask array, lazily.
    sign : numpy.ndarray or NumPy scalar
        1, -1 or 0; only with ``return_sign=True``.

    Raises
    ------
    TypeError, ValueError
        As in `fastsoft.logsumexp`; also for `b`, which must broadcast against `a`, and for Dask arrays with weights.

    Notes
    -----
    The arguments are those of `scipy.special.logsumexp` [1]_. With weights the result is
    log sum_j exp(a_j) + log abs(sum_j b_j sigma_j), sigma = softmax(a), both sums over the entries of which the weight
    is not 0, in float64, and rounded once. Weights of equal a_j are added up first, so that what cancels there hides
    nothing. Where terms of different a_j cancel, digits are lost: the error of the sum is relative to
    sum_j abs(b_j) exp(a_j).

    References
    ----------
    .. [1] P. Virtanen et al., "SciPy 1.0: Fundamental Algorithms for Scientific Computing in Python", Nature
       Methods 17, 2020.

    Examples
    --------
    >>> from fastsoft.compat.scipy import logsumexp
    >>> logsumexp([1000.0, 1000.0, 999.0], b=[1.0, -2.0, 1.0], return_sign=True)
    (np.float64(999.5413248546129), np.float64(-1.0))
    """
    if b is None:
        x = a if lazy(a) else _validate.array(a, "a", ".data and b=~a.mask")
        y = api.logsumexp(x, axis, keepdims=keepdims)[()]
        return (y, np.where(np.isnan(y), y, y > -np.inf).astype(y.dtype)[()]) if return_sign else y
    x, weight = _validate.array(a, "a"), _validate.array(b, "b")
    shape = _validate.common_shape(x.shape, weight.shape, ("a", "b")) or (1,)
    axes = _validate.axes(axis, len(shape))
    dtype = np.result_type(*(z if isinstance(z, (int, float)) else np.asarray(z) for z in (a, b)))
    order = (*(d for d in range(len(shape)) if d not in axes), *axes)
    n = math.prod(shape[d] for d in axes)
    kept = tuple(1 if d in axes else size for d, size in enumerate(shape) if keepdims or d not in axes)
    with quiet():
        wide = (np.broadcast_to(z.astype(np.float64), shape).transpose(order) for z in (x, weight))
        y, sign = _weighted(*(z.reshape(math.prod(kept), n) for z in wide))
        y = y if return_sign else np.where(sign < 0, np.nan, y)
        kind = np.float64 if dtype.kind in "biu" else dtype
        y, sign = (z.reshape(kept).astype(kind)[()] for z in (y, sign))
    return (y, sign) if return_sign else y


def _weighted(a: Array, b: Array) -> tuple[Array, Array]:
    """log abs(sum b exp(a)) of each row, and the sign of the sum."""
    if (b < 0).any():
        a, b = _gathered(a, b)
    far = np.frexp(b)[1]  # what is huge or tiny of a weight goes into its exponential, lest its share underflow
    far = np.where(np.abs(far) > 100, far, 0)
    a, b = a + far * math.log(2), np.ldexp(b, -far)
    used = b != 0
    size = api.logsumexp(a, where=used)
    share = api.softmax(a, where=used, empty="zero")
    share = np.where(size[:, None] == np.inf, np.where(used & (a == np.inf), np.inf, 0), share)
    total = np.where(used, b * share, 0).sum(-1)
    return size + np.log(np.abs(total)), np.sign(total)


def _gathered(a: Array, b: Array) -> tuple[Array, Array]:
    """The rows sorted, with the weights of equal numbers in the first of them, and 0 in the others."""
    order = np.argsort(a, -1)
    a, b = (np.take_along_axis(z, order, -1) for z in (a, b))
    first = np.ones(a.shape, np.bool_)
    first[:, 1:] = (a[:, 1:] != a[:, :-1]) | ~np.isfinite(a[:, 1:])  # inf - inf is not 0
    weight = np.zeros(a.shape)
    weight[first] = np.bincount(np.cumsum(first) - 1, b.ravel())
    return a, weight
