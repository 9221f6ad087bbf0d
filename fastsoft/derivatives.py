"""Derivatives of softmax and log_softmax: validate, call the kernels, return. The formula stands in each docstring."""

from __future__ import annotations

from types import GenericAlias
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _validate
from ._dispatch import kernels
from ._entry import public
from ._run import (
    DIAGONAL,
    JACOBIAN,
    LOG_VJP,
    LOG_VJP_FROM_OUTPUT,
    VJP,
    VJP_FROM_OUTPUT,
    VJP_GAP,
    lazy,
    on_dask,
    pieces,
    quiet,
)
from ._threads import allowed
from .api import softmax

Array = np.ndarray[Any, Any]


@public
def softmax_jacobian(
    x: npt.ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Jacobian of softmax: J_ij = sigma_i (1[i = j] - sigma_j) / T, with sigma = softmax(x / T).

    Parameters
    ----------
    x : array_like
        Logits: float16, bfloat16 (``ml_dtypes``), float32 or float64, of any strides; integers and bool are
        widened to float64 first. Never written to.
    axis : int, default -1
        The axis that holds the n classes.
    temperature : float, default 1.0
        T, positive and finite.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        Of shape (..., n, n): the batch axes in their order, then twice the classes; of the dtype of `x`. Symmetric
        bit for bit. Dask arrays give a Dask array, lazily, and must have each row in one chunk.

    Raises
    ------
    TypeError
        A dtype or type that is not allowed; a masked array.
    ValueError
        A value or shape that is not allowed. `numpy.exceptions.AxisError`: an axis that `x` does not have.

    Notes
    -----
    The error is at most 6 ulp of each entry in float32 and float64, and 0.51 in float16 and bfloat16: the diagonal of a
    class near 1 is sigma_i sum_{j != i} sigma_j, in which nothing cancels. J is the covariance of the categorical
    distribution, and its Fisher information in terms of the logits [1]_.

    References
    ----------
    .. [1] S. Amari, "Natural Gradient Works Efficiently in Learning", Neural Computation 10, 1998.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.softmax_jacobian(np.zeros(2))
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    if lazy(x):
        options = {"temperature": temperature, "num_threads": num_threads}
        return on_dask(JACOBIAN, {"x": x}, axis, out, **options)  # type: ignore[no-any-return]
    a = _validate.array(x)
    k = _validate.axis(axis, a.ndim)
    how, factor = _validate.factor(temperature)
    threads = allowed(num_threads)
    rows = np.moveaxis(a.reshape(1) if a.ndim == 0 else a, k, -1)
    y = _validate.result(out, (*rows.shape, rows.shape[-1]), a.dtype)
    if y.size == 0:
        return y
    direct = y.flags.c_contiguous and y.flags.aligned and not np.may_share_memory(y, a)
    target = y if direct else _validate.new(y.shape, y.dtype)
    work = np.float64 if a.dtype == np.float64 or how == _validate.WIDE else np.float32
    n = rows.shape[-1]
    with quiet():
        flat = np.ascontiguousarray(rows, work).reshape(-1, n)
    to = target.reshape(-1, n, n)
    if _validate.beyond(how, a.dtype):
        to = np.empty(to.shape)
    for start, stop in pieces(len(flat), n * n):
        kernels.jacobian(flat, to, how, factor, factor[0], threads, start, stop)
    with quiet():
        if factor[2] != 1:
            to *= factor[2]
        if not np.may_share_memory(to, target):
            target.reshape(to.shape)[...] = to
    if target is not y:
        y[...] = target
    return y


@public
def softmax_jacobian_diagonal(
    x: npt.ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Diagonal of the Jacobian of softmax: sigma_i (1 - sigma_i) / T, with sigma = softmax(x / T).

    Parameters
    ----------
    x : array_like
        Logits, as in `softmax_jacobian`.
    axis : int, default -1
        The axis that holds the classes.
    temperature : float, default 1.0
        T, positive and finite.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides. May be `x` itself.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        Of the shape and dtype of `x`. Dask arrays give a Dask array, lazily.

    Raises
    ------
    TypeError, ValueError
        As in `softmax_jacobian`.

    Notes
    -----
    The error is at most 6 ulp in float32 and float64, and 0.51 in float16 and bfloat16, also where sigma_i is near 1,
    for there it is sigma_i sum_{j != i} sigma_j. These are the variances of the categorical distribution [1]_.

    References
    ----------
    .. [1] A. F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax", ICML 2016, section 2.5.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.softmax_jacobian_diagonal(np.zeros(2))
    array([0.25, 0.25])
    """
    return _run(DIAGONAL, x, None, axis, temperature, out, num_threads)


@public
def softmax_vjp(
    x: npt.ArrayLike,
    v: npt.ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Vector-Jacobian product of softmax: z = v J, z_i = sigma_i (v_i - v . sigma) / T, sigma = softmax(x / T).

    Parameters
    ----------
    x : array_like
        Logits: float16, bfloat16 (``ml_dtypes``), float32 or float64, of any strides; integers and bool are
        widened to float64 first. Never written to.
    v : array_like
        The cotangent (gradient by the probabilities). `x` and `v` broadcast against each other, and are computed
        in `numpy.result_type` of both.
    axis : int, default -1
        The axis that holds the classes.
    temperature : float, default 1.0
        T, positive and finite.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides. May be `x` itself.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        The gradient by the logits, of the shape and dtype of `x` and `v` together. Dask arrays give a Dask array,
        lazily.

    Raises
    ------
    TypeError
        A dtype or type that is not allowed; a masked array.
    ValueError
        A value or shape that is not allowed. `numpy.exceptions.AxisError`: an axis that is not there.

    Notes
    -----
    The error is at most 4 ulp of sigma_i max_j abs(v_j) in float32 and float64, and 1 in float16 and bfloat16. With m
    the largest class, v . sigma is taken as v_m + sum_j sigma_j (v_j - v_m), so that z_m does not cancel where sigma_m
    is near 1. A class with a probability below 2^-190 (float32) or 2^-1150 (float64) counts as 0, which only a
    cotangent as large could tell from what it is. J is symmetric, hence `softmax_jvp` is the same function [1]_.

    References
    ----------
    .. [1] A. F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax", ICML 2016, section 2.5.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.softmax_vjp(np.zeros(2), np.array([1.0, 0.0]))
    array([ 0.25, -0.25])
    """
    return _run(VJP, x, v, axis, temperature, out, num_threads)


@public
def softmax_jvp(
    x: npt.ArrayLike,
    u: npt.ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Jacobian-vector product of softmax: (J u)_i = sigma_i (u_i - u . sigma) / T, sigma = softmax(x / T).

    Parameters
    ----------
    x : array_like
        Logits, as in `softmax_vjp`.
    u : array_like
        The tangent (a direction of the logits); broadcasts against `x`.
    axis : int, default -1
        The axis that holds the classes.
    temperature : float, default 1.0
        T, positive and finite.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides. May be `x` itself.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        The change of the probabilities, of the shape and dtype of `x` and `u` together. Dask arrays give a Dask
        array, lazily.

    Raises
    ------
    TypeError, ValueError
        As in `softmax_vjp`.

    Notes
    -----
    J being symmetric, it is `softmax_vjp` of the tangent [1]_, with the same error.

    References
    ----------
    .. [1] A. F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax", ICML 2016, section 2.5.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.softmax_jvp(np.zeros(2), np.array([1.0, 1.0]))
    array([0., 0.])
    """
    return _run(VJP, x, u, axis, temperature, out, num_threads, ("x", "u"))


@public
def softmax_vjp_from_output(
    y: npt.ArrayLike,
    v: npt.ArrayLike,
    axis: int = -1,
    *,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Vector-Jacobian product of softmax from a kept y = softmax(x): z_i = y_i (v_i - sum_j v_j y_j).

    Parameters
    ----------
    y : array_like
        Probabilities, of the dtypes that `softmax_vjp` takes.
    v : array_like
        The cotangent; broadcasts against `y`.
    axis : int, default -1
        The axis that holds the classes.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides. May be `y` itself.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        The gradient by the logits, of the shape and dtype of `y` and `v` together. Dask arrays give a Dask array,
        lazily.

    Raises
    ------
    TypeError, ValueError
        As in `softmax_vjp`.

    Notes
    -----
    The error is at most 4 ulp of y_i max_j abs(v_j) in float32 and float64, and 1 in float16 and bfloat16, for the `y`
    that is given: where it was rounded to 1 the difference to 1 is gone; `softmax_vjp` has it. The formula is that of
    the Jacobian in terms of its output [1]_.

    References
    ----------
    .. [1] A. F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax", ICML 2016, section 2.5.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.softmax_vjp_from_output(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    array([ 0.25, -0.25])
    """
    return _run(VJP_FROM_OUTPUT, y, v, axis, 1.0, out, num_threads, ("y", "v"))


@public
def log_softmax_vjp(
    x: npt.ArrayLike,
    g: npt.ArrayLike,
    axis: int = -1,
    *,
    temperature: float = 1.0,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Vector-Jacobian product of log_softmax: (g_i - sigma_i sum_j g_j) / T, with sigma = softmax(x / T).

    Parameters
    ----------
    x : array_like
        Logits, as in `softmax_vjp`.
    g : array_like
        The cotangent (gradient by the log-probabilities); broadcasts against `x`.
    axis : int, default -1
        The axis that holds the classes.
    temperature : float, default 1.0
        T, positive and finite.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides. May be `x` itself.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        The gradient by the logits, of the shape and dtype of `x` and `g` together. Dask arrays give a Dask array,
        lazily.

    Raises
    ------
    TypeError, ValueError
        As in `softmax_vjp`.

    Notes
    -----
    The Jacobian of log_softmax is 1[i = j] - sigma_j [1]_. For the largest class m the product is
    g_m sum_{j != m} sigma_j - sigma_m sum_{j != m} g_j, which does not cancel where sigma_m is near 1. The error is at
    most 4 ulp of the largest of abs(g_i), sigma_i abs(sum_j g_j) and sigma_i max_j abs(g_j) in float32 and float64, and
    1 in float16 and bfloat16.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", Springer, 2006, section 4.3.4.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.log_softmax_vjp(np.array([37.42994775023705, 0.0]), np.array([1.0, 0.0]))
    array([ 5.55111512e-17, -5.55111512e-17])
    """
    return _run(LOG_VJP, x, g, axis, temperature, out, num_threads, ("x", "g"))


@public
def log_softmax_vjp_from_output(
    y: npt.ArrayLike,
    g: npt.ArrayLike,
    axis: int = -1,
    *,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Vector-Jacobian product of log_softmax from a kept y = log_softmax(x): g_i - exp(y_i) sum_j g_j.

    Parameters
    ----------
    y : array_like
        Log-probabilities, of the dtypes that `softmax_vjp` takes; numbers above 0 have no meaning.
    g : array_like
        The cotangent; broadcasts against `y`.
    axis : int, default -1
        The axis that holds the classes.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides. May be `y` itself.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        The gradient by the logits, of the shape and dtype of `y` and `g` together. Dask arrays give a Dask array,
        lazily.

    Raises
    ------
    TypeError, ValueError
        As in `softmax_vjp`.

    Notes
    -----
    The Jacobian of log_softmax is 1[i = j] - sigma_j [1]_, with sigma = exp(y). The error is within the bounds of
    `log_softmax_vjp`, for the `y` that is given.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", Springer, 2006, section 4.3.4.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.log_softmax_vjp_from_output(np.log([0.5, 0.5]), np.array([1.0, 0.0]))
    array([ 0.5, -0.5])
    """
    return _run(LOG_VJP_FROM_OUTPUT, y, g, axis, 1.0, out, num_threads, ("y", "g"))


def softmax_vjp_zeros(x: npt.ArrayLike, v: npt.ArrayLike, axis: int = -1, *, tol: float | None = None) -> Array:
    """Where z = v J vanishes: for finite x, sigma_i being positive, exactly where v_i = v . sigma.

    Parameters
    ----------
    x : array_like
        Logits, as in `softmax_vjp`.
    v : array_like
        The cotangent; broadcasts against `x`.
    axis : int, default -1
        The axis that holds the classes.
    tol : float, optional
        At least 0: abs(v_i - v . sigma) up to tol max_j abs(v_j) counts as 0. Default: 4 times the rounding unit of
        the type that is computed in, which is what the difference may be off.

    Returns
    -------
    numpy.ndarray
        Booleans of the shape of `x` and `v` together. Dask arrays give a Dask array, lazily.

    Raises
    ------
    TypeError, ValueError
        As in `softmax_vjp`; also for a `tol` that is not a finite number of at least 0.

    Notes
    -----
    It follows from z_i = sigma_i (v_i - v . sigma) [1]_. There the gradient -t/z of a cross-entropy of z is not
    computable, see `cross_entropy_grad`.

    References
    ----------
    .. [1] A. F. T. Martins and R. F. Astudillo, "From Softmax to Sparsemax", ICML 2016, section 2.5.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.softmax_vjp_zeros(np.zeros(3), np.array([1.0, 2.0, 3.0]))
    array([False,  True, False])
    """
    if lazy(x, v):
        return on_dask(VJP_GAP, {"x": x, "v": v}, axis, None, tol=tol)  # type: ignore[no-any-return]
    a, w = _validate.two_arrays(x, v)
    if a.dtype.itemsize == 2:
        with quiet():
            a, w = a.astype(np.float32), w.astype(np.float32)
    k = _validate.axis(axis, a.ndim)
    allowed_gap = 4 * float(np.finfo(a.dtype).eps) if tol is None else _validate.number("tol", tol, 0, np.inf)
    gap = _run(VJP_GAP, a, w, axis, 1.0, None, None)
    with quiet():
        if a.ndim == 0:
            return np.asarray(np.abs(gap) <= allowed_gap * abs(w))
        return np.asarray(np.abs(gap) <= allowed_gap * np.max(np.abs(w), axis=k, keepdims=True, initial=0))


class SoftmaxJacobian:
    """The Jacobian of softmax as an operator, without forming it: O(n) memory for each row.

    Parameters
    ----------
    x : array_like
        Logits, as in `softmax_vjp`. They are kept, not copied.
    axis : int, default -1
        The axis that holds the n classes; the operator acts on arrays with the classes last.

    Attributes
    ----------
    shape : tuple of int
        (..., n, n), the batch axes in their order.
    dtype : numpy.dtype

    Raises
    ------
    TypeError, ValueError
        As in `softmax_jacobian`.

    Notes
    -----
    ``J @ v`` takes vectors, of shape (..., n), where `v` has no more axes than `x`, else blocks of vectors, of shape
    (..., n, k), as in `numpy.matmul`; ``v @ J`` vectors, or blocks of shape (..., k, n). J is symmetric: `rmatvec` is
    `matvec`. Where `x` has one axis it is what `scipy.sparse.linalg.aslinearoperator` takes. `solve` is the natural
    gradient of a categorical distribution [1]_.

    References
    ----------
    .. [1] S. Amari, "Natural Gradient Works Efficiently in Learning", Neural Computation 10, 1998.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> J = fastsoft.SoftmaxJacobian(np.zeros(2))
    >>> J @ np.array([1.0, 0.0])
    array([ 0.25, -0.25])
    >>> J.solve(np.array([0.25, -0.25]))
    array([ 0.5, -0.5])
    """

    __array_ufunc__ = None  # array @ J is for J to compute, not for NumPy, which would take it for an object in 0-d
    __class_getitem__: Any = classmethod(GenericAlias)  # for annotations: SoftmaxJacobian[np.float32]

    def __init__(self, x: npt.ArrayLike, axis: int = -1) -> None:
        a = _validate.array(x)
        k = _validate.axis(axis, a.ndim)
        self._x = np.moveaxis(a.reshape(1) if a.ndim == 0 else a, k, -1)
        self.shape = (*self._x.shape, self._x.shape[-1])
        self.dtype = self._x.dtype

    def __repr__(self) -> str:
        return f"SoftmaxJacobian(shape={self.shape}, dtype={self.dtype})"

    def _checked(self, v: object, name: str, rows: bool = False) -> Array:
        """`v`, which holds vectors, or blocks of them: as columns, or as `rows`."""
        w = _validate.array(v, name)
        n = self.shape[-1]
        if w.ndim == 0 or w.shape[-1 if rows or w.ndim <= self._x.ndim else -2] != n:
            blocks = f"(..., k, {n})" if rows else f"(..., {n}, k)"
            raise ValueError(f"{name} must have {n} classes, in shape (..., {n}) or {blocks}, got {w.shape}")
        return w

    def __matmul__(self, v: npt.ArrayLike) -> Array:
        """J v"""
        w = self._checked(v, "v")
        if w.ndim <= self._x.ndim:
            return softmax_jvp(self._x, w)
        return np.ascontiguousarray(softmax_jvp(self._x[..., None], w, -2))

    def __rmatmul__(self, v: npt.ArrayLike) -> Array:
        """v J, which is J v, J being symmetric; a block has its vectors as rows."""
        w = self._checked(v, "v", rows=True)
        return softmax_jvp(self._x if w.ndim <= self._x.ndim else self._x[..., None, :], w)

    def matvec(self, v: npt.ArrayLike) -> Array:
        """J v, the product with a vector; also under the name `rmatvec`, J being symmetric.

        Parameters
        ----------
        v : array_like
            Of shape (..., n), or with one axis of logits a column (n, 1); of the dtypes that `softmax_vjp` takes.

        Returns
        -------
        numpy.ndarray
            Of the shape of the logits and `v` together, in their common dtype.

        Raises
        ------
        TypeError
            A dtype or type that is not allowed; a masked array.
        ValueError
            Another number of classes than n, or a shape that does not broadcast.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> fastsoft.SoftmaxJacobian(np.zeros(2)).matvec([1.0, 0.0])
        array([ 0.25, -0.25])
        """
        return self @ v

    def matmat(self, v: npt.ArrayLike) -> Array:
        """J V, the product with a block of vectors; also under the name `rmatmat`, J being symmetric.

        Parameters
        ----------
        v : array_like
            Of shape (..., n, k), a vector in each column; of the dtypes that `softmax_vjp` takes.

        Returns
        -------
        numpy.ndarray
            Of the shape of `v`, and of the batch axes together, in the common dtype of the logits and `v`.

        Raises
        ------
        TypeError, ValueError
            As in `matvec`.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> fastsoft.SoftmaxJacobian(np.zeros(2)).matmat([[1.0, 0.0], [0.0, 2.0]])
        array([[ 0.25, -0.5 ],
               [-0.25,  0.5 ]])
        """
        return self @ v

    rmatvec = matvec
    rmatmat = matmat

    def diagonal(self) -> Array:
        """Diagonal of J: sigma_i (1 - sigma_i).

        Returns
        -------
        numpy.ndarray
            Of shape (..., n), as `softmax_jacobian_diagonal` gives it.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> fastsoft.SoftmaxJacobian(np.zeros(2)).diagonal()
        array([0.25, 0.25])
        """
        return softmax_jacobian_diagonal(self._x)

    def toarray(self) -> Array:
        """The dense matrices: J_ij = sigma_i (1[i = j] - sigma_j).

        Returns
        -------
        numpy.ndarray
            Of shape (..., n, n), as `softmax_jacobian` gives it.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> fastsoft.SoftmaxJacobian(np.zeros(2)).toarray()
        array([[ 0.25, -0.25],
               [-0.25,  0.25]])
        """
        return softmax_jacobian(self._x)

    def solve(self, w: npt.ArrayLike) -> Array:
        """The pseudo-inverse of J applied to w: (w - mean w) / sigma, less its own mean; in O(n).

        Parameters
        ----------
        w : array_like
            Vectors or blocks of vectors, of the shapes and dtypes that ``@`` takes.

        Returns
        -------
        numpy.ndarray
            The shortest u for which J u is nearest to w, of the shape and dtype of the logits and `w` together.
            Computed in float64, without an error bound.

        Raises
        ------
        TypeError, ValueError
            As in `matvec`.

        Notes
        -----
        J maps the ones vector to 0, and nothing else, so without its mean w is in the range of J.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> fastsoft.SoftmaxJacobian(np.zeros(2)).solve([0.25, -0.25])
        array([ 0.5, -0.5])
        """
        b = self._checked(w, "w")
        vectors = b.ndim <= self._x.ndim
        k = -1 if vectors else -2
        x = self._x if vectors else self._x[..., None]
        dtype = np.result_type(x.dtype, b.dtype)
        with quiet():
            b = b.astype(np.float64)
            u = (b - b.mean(axis=k, keepdims=True)) / softmax(x.astype(np.float64), k)
            u -= u.mean(axis=k, keepdims=True)
            return np.asarray(u.astype(dtype))


def _run(
    kind: int,
    x: object,
    v: object,
    axis: object,
    temperature: object,
    out: object,
    num_threads: object,
    names: tuple[str, str] = ("x", "v"),
) -> Array:
    """Check everything, then compute: the long way, for any arguments."""
    if lazy(x, v):
        options = {"temperature": temperature, "num_threads": num_threads}
        return on_dask(kind, dict(zip(names, (x, v), strict=True)), axis, out, **options)  # type: ignore[no-any-return]
    a, w = (_validate.array(x, names[0]), None) if v is None else _validate.two_arrays(x, v, names)
    shape = a.shape
    if a.ndim == 0:  # one class
        a, w = a.reshape(1), None if w is None else w.reshape(1)
    k = _validate.axis(axis, a.ndim)
    how, factor = _validate.factor(temperature)
    threads = allowed(num_threads)
    y = _validate.result(out, shape, a.dtype)
    if a.size == 0:
        return y
    overlap = out is not None and (_validate.must_copy(y, a, None) or (w is not None and np.may_share_memory(y, w)))
    target = np.empty(shape, a.dtype) if overlap else y
    view = target.reshape(a.shape)
    if _validate.beyond(how, a.dtype):
        wide = np.empty(a.shape)
        with quiet():
            w = None if w is None else w.astype(np.float64)
            _compute(kind, a.astype(np.float64), w, wide, k, how, factor, threads)
            view[...] = wide
    else:
        _compute(kind, a, w, view, k, how, factor, threads)
    if target is not y:
        y[...] = target
    return y


def _compute(
    kind: int,
    x: Array,
    v: Array | None,
    y: Array,
    axis: int,
    how: int,
    factor: tuple[float, float, float],
    threads: int,
) -> None:
    """Run the kernel over x, in pieces; all arrays have x's axes."""
    n = x.shape[axis]
    scale = factor[0] if kind == DIAGONAL else 1.0
    for start, stop in pieces(x.size // n, n):
        kernels.derive(kind, x, v, y, axis, how, factor, threads, start, stop, scale=scale)
