"""Cross-entropy on probabilities and from logits: validate, call the kernels, return."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _validate
from ._dispatch import kernels
from ._entry import public
from ._run import CROSS_ENTROPY, CROSS_ENTROPY_GRAD, LABELS, TARGETS, lazy, on_dask, pieces, quiet
from ._threads import allowed
from ._validate import SingularGradientError

Array = np.ndarray[Any, Any]
OPTIONS = "weight", "ignore_index", "label_smoothing", "z_loss", "temperature", "reduction", "num_threads"  # of losses
PLAIN_FACTOR = (1.0, 0.0, 1.0)


@public
def cross_entropy(
    z: npt.ArrayLike,
    t: npt.ArrayLike,
    axis: int = -1,
    *,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Cross-entropy on probabilities: l(z, t) = -sum_i t_i log z_i.

    Parameters
    ----------
    z : array_like
        Probabilities, or whatever else a logarithm is to be taken of: float16, bfloat16 (``ml_dtypes``), float32 or
        float64, of any strides; integers and bool are widened to float64 first. Negative numbers give NaN where the
        target is not 0.
    t : array_like
        Dense targets, which broadcast against `z`; or labels: an integer array of the shape of `z` without `axis`.
    axis : int, default -1
        The axis that holds the classes.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        A loss for each row, of the dtype of `z` and dense targets together. 0 log 0 is 0; a target above 0 where z is
        0 gives +inf. Dask arrays give a Dask array, lazily.

    Raises
    ------
    TypeError
        A dtype or type that is not allowed; a masked array.
    ValueError
        A value or shape that is not allowed, a label out of range. `numpy.exceptions.AxisError`: an axis that is
        not there.

    Notes
    -----
    The error is at most 4 ulp for z from 0 to 1 and targets of at least 0 in float32 and float64, and 0.51 in float16
    and bfloat16. For logits there is `softmax_cross_entropy`. Labels are integers: real numbers of their shape are
    dense targets, and broadcast if they can. The logarithm is that of FreeBSD's msun [1]_ with coefficients of our own;
    the sum does not lose digits.

    References
    ----------
    .. [1] P. T. P. Tang, "Table-driven implementation of the logarithm function in IEEE floating-point arithmetic",
       ACM Transactions on Mathematical Software 16, 1990.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.cross_entropy(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    array(0.69314718)
    """
    if lazy(z, t):
        return on_dask(CROSS_ENTROPY, {"z": z, "t": t}, axis, out, num_threads=num_threads)  # type: ignore[no-any-return]
    a = _validate.array(z, "z")
    k = _validate.axis(axis, a.ndim)
    batch = _validate.without(a.shape, k)
    threads = allowed(num_threads)
    if a.ndim and _validate.are_labels(t, batch):
        where = _validate.labels(t, a.shape[k])
        a = np.take_along_axis(a, np.expand_dims(where, k), k)
        w = np.broadcast_to(np.ones((), a.dtype), a.shape)
    else:
        a, w = _validate.two_arrays(a, t, ("z", "t"))
        if a.ndim == 0:
            a, w = a.reshape(1), w.reshape(1)
        k = _validate.axis(axis, a.ndim)
        batch = _validate.without(a.shape, k)
    y = _validate.result(out, batch, a.dtype)
    loss = np.zeros(batch, _work(a.dtype))
    if a.size:
        n = a.shape[k]
        for start, stop in pieces(a.size // n, n):
            kernels.derive(CROSS_ENTROPY, a, w, None, k, 0, PLAIN_FACTOR, threads, start, stop, loss=loss)
    y[...] = _rounded(loss, a.dtype)
    return y


@public
def cross_entropy_grad(
    z: npt.ArrayLike,
    t: npt.ArrayLike,
    axis: int = -1,
    *,
    singular: str = "raise",
    return_singular: bool = False,
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array | tuple[Array, Array]:
    """Gradient of the cross-entropy on probabilities: dl/dz_i = -t_i / z_i, and where there is none.

    Parameters
    ----------
    z : array_like
        Probabilities, as in `cross_entropy`.
    t : array_like
        Targets, as in `cross_entropy`; labels stand for targets that are 1 at the label and 0 elsewhere.
    axis : int, default -1
        The axis that holds the classes.
    singular : {"raise", "inf", "nan", "zero"}, default "raise"
        What a pole gives, an entry where z_i is 0 and t_i is not: an error, -sign(t_i) inf, NaN, or 0.
    return_singular : bool, default False
        Return also which entries are singular; nothing is raised then (``"raise"`` is ``"inf"``).
    out : numpy.ndarray, optional
        For the gradient: of its shape and dtype, of any strides.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    grad : numpy.ndarray
        Of the shape and dtype of `z` and `t` together. Where z_i and t_i are both 0 the entry is removable and 0.
    singular : numpy.ndarray of int8
        With `return_singular`: 0 regular, 1 removable, 2 a pole. Dask arrays give Dask arrays, lazily; then poles
        raise when they are computed.

    Raises
    ------
    SingularGradientError
        Poles, with ``singular="raise"``; it has their count and the index of the first.
    TypeError, ValueError
        As in `cross_entropy`.

    Notes
    -----
    Each entry is one quotient, correctly rounded in float32 and float64. With z = v J of a softmax, z_i is 0 exactly
    where v_i = v . sigma: `softmax_vjp_zeros`. With z = sigma loss and softmax are better taken as one, which has no
    poles [1]_: `softmax_cross_entropy_with_grad`.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", Springer, 2006, section 4.3.4.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.cross_entropy_grad(np.array([0.5, 0.0, 0.5]), np.array([1.0, 0.0, 0.0]))
    array([-2.,  0.,  0.])
    """
    if lazy(z, t):
        options = {"singular": singular, "return_singular": return_singular, "num_threads": num_threads}
        return on_dask(CROSS_ENTROPY_GRAD, {"z": z, "t": t}, axis, out, **options)  # type: ignore[no-any-return]
    a = _validate.array(z, "z")
    k = _validate.axis(axis, a.ndim)
    _validate.choice("singular", singular, ("raise", "inf", "nan", "zero"))
    threads = allowed(num_threads)
    if a.ndim and _validate.are_labels(t, _validate.without(a.shape, k)):
        w = np.zeros(a.shape, a.dtype)
        np.put_along_axis(w, np.expand_dims(_validate.labels(t, a.shape[k]), k), 1, k)
    else:
        a, w = _validate.two_arrays(a, t, ("z", "t"))
    y = _validate.result(out, a.shape, a.dtype)
    with quiet():
        none = a == 0
        poles = none & (w != 0) if none.any() else none
    if singular == "raise" and not return_singular and poles.any():
        raise SingularGradientError(int(poles.sum()), tuple(map(int, np.argwhere(poles)[0])))
    if a.size:
        _slopes(a, w, y, out is not None, threads)
        if singular in ("nan", "zero") and poles.any():
            y[poles] = math.nan if singular == "nan" else 0
    return (y, np.add(none, poles, dtype=np.int8, order="C")) if return_singular else y


def _slopes(z: Array, t: Array, y: Array, given: bool, threads: int) -> None:
    """y = -t / z, entry by entry"""
    overlap = given and (_validate.must_copy(y, z, None) or np.may_share_memory(y, t))
    target = np.empty(y.shape, y.dtype) if overlap else y
    shape = z.shape or (1,)
    n = shape[-1]
    for start, stop in pieces(z.size // n, n):
        arrays = (a.reshape(shape) for a in (z, t, target))
        kernels.derive(CROSS_ENTROPY_GRAD, *arrays, len(shape) - 1, 0, PLAIN_FACTOR, threads, start, stop)
    if target is not y:
        y[...] = target


@public
def softmax_cross_entropy(
    x: npt.ArrayLike,
    t: npt.ArrayLike,
    axis: int = -1,
    *,
    weight: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    reduction: str = "none",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Cross-entropy from logits: -sum_i w_i t_i log softmax(x / T)_i + z_loss logsumexp(x / T)^2.

    Parameters
    ----------
    x : array_like
        Logits: float16, bfloat16 (``ml_dtypes``), float32 or float64, of any strides; integers and bool are
        widened to float64 first. Never written to.
    t : array_like
        Labels: an array of integers of the shape of `x` without `axis`; or dense targets of the shape of `x`, which
        need not sum to 1.
    axis : int, default -1
        The axis that holds the n classes, of images (N, C, H, W) 1.
    weight : array_like of shape (n,), optional
        One weight w for each class.
    ignore_index : int, optional
        Rows with this label count for nothing: loss and gradient are 0.
    label_smoothing : float, default 0.0
        From 0 to 1: e in targets (1 - e) t + e / n [2]_.
    z_loss : float, default 0.0
        At least 0: what logsumexp(x / T)^2 is multiplied by [3]_.
    temperature : float, default 1.0
        T, positive and finite.
    reduction : {"none", "sum", "mean"}, default "none"
        A loss for each row, their sum, or their mean: over the weights of the labels that are not ignored, with
        dense targets over the rows; 0 where all is ignored.
    out : numpy.ndarray, optional
        For the result: of its shape and dtype, of any strides.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    numpy.ndarray
        Of the shape of `x` without `axis`, or without axes; of the dtype of `x` and dense targets together. A label on
        a -inf logit gives +inf; a target 0 there counts for nothing. Dask arrays give a Dask array, lazily.

    Raises
    ------
    TypeError
        A dtype or type that is not allowed; a masked array.
    ValueError
        A value or shape that is not allowed; a label out of range, which never wraps.
        `numpy.exceptions.AxisError`: an axis that is not there.

    Notes
    -----
    With labels the error is at most 4 ulp at any margin in float32 and float64, and 0.51 in float16 and bfloat16:
    for the largest class the loss is log1p(sum of the others) [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham and N. J. Higham, "Accurately computing the log-sum-exp and softmax functions",
       IMA Journal of Numerical Analysis 41, 2021.
    .. [2] C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens and Z. Wojna, "Rethinking the Inception Architecture for
       Computer Vision", CVPR 2016, section 7.
    .. [3] A. Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", Journal of Machine Learning
       Research 24, 2023, section 5.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> fastsoft.softmax_cross_entropy(np.array([[20.0, 0.0, 0.0]]), np.array([0]))
    array([4.12230724e-09])
    """
    given = weight, ignore_index, label_smoothing, z_loss, temperature, reduction, num_threads
    if lazy(x, t):
        options = dict(zip(OPTIONS, given, strict=True))
        return on_dask(LABELS, {"x": x, "t": t}, axis, out, grad=False, **options)  # type: ignore[no-any-return]
    job = _Job(x, t, axis, *given)
    y = None if out is None else _validate.result(out, job.result_shape, job.dtype)
    job.run(None)
    loss = _rounded(job.reduced(), job.dtype)
    if y is None:
        return loss
    y[...] = loss
    return y


@public
def softmax_cross_entropy_with_grad(
    x: npt.ArrayLike,
    t: npt.ArrayLike,
    axis: int = -1,
    *,
    weight: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    reduction: str = "none",
    out: Array | None = None,
    num_threads: int | None = None,
) -> tuple[Array, Array]:
    """Cross-entropy from logits, -sum_i t_i log softmax(x / T)_i, and its gradient by x, in one pass over the logits.

    Parameters
    ----------
    x : array_like
        Logits, as in `softmax_cross_entropy`, which says more of the other arguments too.
    t : array_like
        Labels: integers of the shape of `x` without `axis`; or dense targets of the shape of `x`.
    axis : int, default -1
        The axis that holds the n classes.
    weight : array_like of shape (n,), optional
        One weight for each class.
    ignore_index : int, optional
        Rows with this label count for nothing: loss and gradient are 0.
    label_smoothing : float, default 0.0
        From 0 to 1.
    z_loss : float, default 0.0
        At least 0.
    temperature : float, default 1.0
        T, positive and finite.
    reduction : {"none", "sum", "mean"}, default "none"
        A loss for each row, their sum, or their mean.
    out : numpy.ndarray, optional
        For the gradient: of its shape and dtype, of any strides. May be `x` itself.
    num_threads : int, optional
        For this call. None: `get_num_threads()`.

    Returns
    -------
    loss : numpy.ndarray
        As `softmax_cross_entropy` gives it.
    grad : numpy.ndarray
        The gradient of the sum of the losses, or of their mean, by `x`: with labels (softmax(x / T) - 1[i = t]) / T.
        Of the shape of `x`, and of the dtype of the loss. Dask arrays give two Dask arrays, lazily.

    Raises
    ------
    TypeError, ValueError
        As in `softmax_cross_entropy`.

    Notes
    -----
    With labels the error of the gradient [1]_ is at most 4 ulp at any margin in float32 and float64, and 0.51 in
    float16 and bfloat16: at the label it is -sum_{j != t} sigma_j where that class is the largest.

    References
    ----------
    .. [1] C. M. Bishop, "Pattern Recognition and Machine Learning", Springer, 2006, section 4.3.4.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> loss, grad = fastsoft.softmax_cross_entropy_with_grad(np.array([[20.0, 0.0, 0.0]]), np.array([0]))
    >>> grad
    array([[-4.12230723e-09,  2.06115361e-09,  2.06115361e-09]])
    """
    given = weight, ignore_index, label_smoothing, z_loss, temperature, reduction, num_threads
    if lazy(x, t):
        options = dict(zip(OPTIONS, given, strict=True))
        return on_dask(LABELS, {"x": x, "t": t}, axis, out, grad=True, **options)  # type: ignore[no-any-return]
    job = _Job(x, t, axis, *given)
    y = _validate.result(out, job.shape, job.dtype)
    overlap = out is not None and job.must_copy(y)
    target = np.empty(y.shape, y.dtype) if overlap else y
    job.run(target)
    if target is not y:
        y[...] = target
    return _rounded(job.reduced(), job.dtype), y


def _work(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that is computed in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _rounded(losses: Array, dtype: np.dtype[Any]) -> Array:
    """The losses in the dtype of the result; from float64 to 16 bits by way of float32 only where they were summed."""
    if losses.dtype == dtype:
        return losses
    with quiet():
        losses = losses.astype(_work(dtype), copy=False)
    if losses.dtype == dtype:
        return losses
    found = np.empty(losses.shape, dtype)
    kernels.round_to(losses, found)
    return found


class _Job:
    """The arguments of a cross-entropy from logits, checked, and what comes of them."""

    def __init__(
        self, x: object, t: object, axis: object, weight: object, ignore_index: object, label_smoothing: object,
        z_loss: object, temperature: object, reduction: object, num_threads: object,
    ) -> None:  # fmt: skip
        a = _validate.array(x)
        self.shape = a.shape
        if a.ndim == 0:  # one class
            a = a.reshape(1)
            t = t if _validate.are_labels(t, ()) else np.reshape(_validate.array(t, "t"), -1)
        self.axis = _validate.axis(axis, a.ndim)
        n = a.shape[self.axis]
        self.labels: Array | None = None
        self.targets: Array | None = None
        self.row_weights: Array | None = None
        batch = _validate.without(a.shape, self.axis)
        if _validate.are_labels(t, batch):
            self.labels = _validate.labels(t, n, ignore_index)
        else:
            a, self.targets = self._dense(a, t, batch, ignore_index)
        self.x, self.dtype, self.batch = a, a.dtype, batch
        self.weight = _validate.class_weights(weight, n)
        self.smoothing = _validate.number("label_smoothing", label_smoothing, 0, 1)
        self.z_loss = _validate.number("z_loss", z_loss, 0, math.inf)
        self.how, self.factor = _validate.factor(temperature)
        self.reduction = _validate.choice("reduction", reduction, ("none", "sum", "mean"))
        self.threads = allowed(num_threads)
        self.result_shape = batch if self.reduction == "none" else ()
        if self.labels is not None and self.weight is not None:
            self.row_weights = np.where(self.labels < 0, 0.0, self.weight[self.labels]).ravel()
        with quiet():
            self.total_weight = self._total_weight() if self.reduction == "mean" else 1.0
            self.scale = 1 / self.total_weight if self.total_weight else 0.0
            self.on, self.off = 1 - self.smoothing, self.smoothing / n if n else 0.0

    @staticmethod
    def _dense(x: Array, t: object, batch: tuple[int, ...], ignore_index: object) -> tuple[Array, Array]:
        """Logits and dense targets in one dtype."""
        targets = _validate.array(t, "t")
        if targets.shape != x.shape:
            raise ValueError(
                f"t must be integer labels of shape {batch} or dense targets of the shape of x, {x.shape}, "
                f"got {np.asarray(t).dtype} of shape {targets.shape}"
            )
        if ignore_index is not None:
            raise ValueError(f"ignore_index goes with labels, got {ignore_index!r} with dense targets")
        return _validate.two_arrays(x, targets, ("x", "t"))

    def _total_weight(self) -> float:
        """What a mean is taken over."""
        if self.labels is None:
            return float(math.prod(self.batch))
        if self.row_weights is not None:
            return float(kernels.reduced(self.row_weights, 1.0))
        return float(np.count_nonzero(self.labels >= 0))

    def must_copy(self, out: Array) -> bool:
        """Whether the gradient, written to `out`, could change what is still to be read."""
        others = [a for a in (self.targets, self.labels, self.weight) if a is not None]
        return _validate.must_copy(out, self.x, None) or any(np.may_share_memory(out, a) for a in others)

    def run(self, grad: Array | None) -> None:
        """Compute the losses, one for each row in the type that is computed in, and the gradient into `grad`."""
        x, targets, y = self.x, self.targets, None if grad is None else grad.reshape(self.x.shape)
        wide = _validate.beyond(self.how, x.dtype)
        if wide:
            with quiet():
                x = x.astype(np.float64)
                targets = None if targets is None else targets.astype(np.float64)
            y = None if grad is None else np.empty(x.shape)
        self.losses = np.zeros(self.batch, _work(x.dtype))
        n = x.shape[self.axis]
        dense = self.labels is None or self.smoothing != 0
        if x.size:
            for start, stop in pieces(x.size // n, n):
                kernels.derive(
                    TARGETS if dense else LABELS, x, targets, y, self.axis, self.how, self.factor, self.threads,
                    start, stop, labels=None if self.labels is None else self.labels.reshape(-1),
                    row_weights=None if dense else self.row_weights, class_weights=self.weight if dense else None,
                    loss=self.losses, on=self.on, off=self.off, scale=self.scale, z_loss=self.z_loss,
                )  # fmt: skip
        if self.scale == 0 and grad is not None:
            grad[...] = 0
        elif wide and grad is not None:
            with quiet():
                grad[...] = y.reshape(grad.shape)  # type: ignore[union-attr]

    def reduced(self) -> Array:
        """The losses as `reduction` asks for them."""
        if self.reduction == "none":
            return self.losses
        return np.asarray(kernels.reduced(self.losses, self.total_weight))
