"""softmax, log_softmax and logsumexp as `scipy.special` has them, for real numbers.

    from fastsoft.compat.scipy import logsumexp, softmax    # was: from scipy.special import ...

The axis is None, all axes together, unless it is given; `logsumexp` takes weights and gives signs. SciPy is not needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import api

Axis = int | tuple[int, ...] | None

__all__ = ["log_softmax", "logsumexp", "softmax"]


def softmax(x: npt.ArrayLike, axis: Axis = None) -> Any:
    """Softmax: exp(x_i) / sum_j exp(x_j).

    Parameters
    ----------
    x : array_like
        As in `fastsoft.softmax`, whose errors it raises.
    axis : int, tuple of int or None, default None
        The axis, or axes together, that hold the classes; None: all.

    Returns
    -------
    numpy.ndarray or NumPy scalar
        Of the shape of `x`.
    """
    return api.softmax(x, axis)[()]


def log_softmax(x: npt.ArrayLike, axis: Axis = None) -> Any:
    """Logarithm of the softmax: x_i - log sum_j exp(x_j).

    Parameters
    ----------
    x, axis
        As in `softmax`.

    Returns
    -------
    numpy.ndarray or NumPy scalar
        Of the shape of `x`.
    """
    return api.log_softmax(x, axis)[()]


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
        As in `fastsoft.logsumexp`, whose errors it raises.
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
        log abs(sum), of the dtype of `a` and `b` together.
    sign : numpy.ndarray or NumPy scalar
        1, -1 or 0; only with ``return_sign=True``.

    Notes
    -----
    With weights the result is log sum_j exp(a_j) + log abs(sum_j b_j sigma_j), sigma = softmax(a), both sums over the
    entries of which the weight is not 0. So the error is that of `fastsoft.logsumexp` and of a plain sum of products,
    which may cancel.
    """
    if b is None:
        y = api.logsumexp(a, axis, keepdims=keepdims)[()]
        return (y, np.where(np.isnan(y), y, y > -np.inf).astype(y.dtype)[()]) if return_sign else y
    a, weight = np.broadcast_arrays(a, b)
    dtype = np.result_type(a, weight)
    dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
    a, weight, used = a.astype(dtype), weight.astype(dtype), weight != 0
    size = api.logsumexp(a, axis, where=used, keepdims=True)
    with np.errstate(all="ignore"):
        share = api.softmax(a, axis, where=used, empty="zero")
        share = np.where(size == np.inf, np.where(used & (a == np.inf), np.inf, 0), share)
        total = np.where(used, weight * share, 0).sum(axis, keepdims=True)
        y, sign = size + np.log(np.abs(total)), np.sign(total)
        y = y if return_sign else np.where(sign < 0, np.nan, y)
    if not keepdims:
        axes = tuple(range(a.ndim)) if axis is None else axis
        y, sign = y.squeeze(axes), sign.squeeze(axes)
    y, sign = y.astype(dtype)[()], sign.astype(dtype)[()]
    return (y, sign) if return_sign else y
