"""Rows that come in chunks: what softmax needs to know of all classes, gathered a chunk at a time, in any order."""

from __future__ import annotations

import math
from types import GenericAlias
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from . import _validate
from ._dispatch import kernels
from ._run import PIECE, pieces, quiet
from ._threads import allowed

Array = np.ndarray[Any, Any]

SEEN, SHARE, LOG_SHARE, MISSING = range(4)  # kernels/state.pxi
WORDS = 7  # of 8 bytes, for each row: `Tally` in simd/tally.hpp


class LogSumExp:
    """What softmax needs to know of all classes, for rows that come in chunks or are shared out among workers.

    Each worker makes a state, updates it with its chunks, and states are merged in any order; then each chunk gets its
    probabilities from the state of the whole. Neither the order nor where the rows were cut changes a bit of a result.

    Parameters
    ----------
    shape : int or tuple of int, default ()
        The shape of the batch: that of the chunks without their class axis. ``()`` is one row.
    dtype : dtype, default float64
        That of the chunks and of the results: float16, bfloat16 (``ml_dtypes``), float32 or float64. All are
        computed in float64; the results are rounded once.
    temperature : float, default 1.0
        T, positive and finite. As if the chunks were x / T in exact arithmetic.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    temperature : float
    nbytes : int
        The size of the state: 56 bytes for each row, however many classes it has seen.

    Raises
    ------
    TypeError, ValueError
        A shape, dtype or temperature that is not allowed.

    Notes
    -----
    Of the entries :math:`x_j` of a row that have come the state holds the maximum m, how many are equal to it (c), and
    R, the sum of :math:`e^{x_j / T}` over all that are below it:

    .. math::

       \\log \\sum_j e^{x_j / T} = m / T + \\log \\left(c + R e^{-m / T}\\right).

    R is kept in four integers of 64 bits, at fixed binary positions. Each exponential is rounded to a multiple of the
    smallest of these by itself, at most :math:`2^{-97}` of the largest exponential in R, and integers add up without a
    rounding in any order; so do states [1]_. Where floating-point numbers are rescaled and added as they come [2]_,
    the order and the cuts change the last digits.

    The bits are also the same for any number of threads, any strides, and on every instruction set with FMA; they are
    not those of `softmax`, `log_softmax` and `logsumexp`, but the errors keep within the same bounds. A row can see
    :math:`2^{31}` classes.

    A state can be pickled, and copied with `copy`. One state must not be used by several threads at once if one of
    them changes it.

    References
    ----------
    .. [1] J. Demmel and H. D. Nguyen, "Parallel Reproducible Summation", IEEE Transactions on Computers 64, 2015.
    .. [2] M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867, 2018.

    Examples
    --------
    Two rows of six classes, of which two workers have three each:

    >>> import numpy as np, fastsoft
    >>> x = np.array([[2.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 20.0, 0.0, 0.0, 0.0, 0.0]])
    >>> first = fastsoft.LogSumExp(2).update(x[:, :3])
    >>> second = fastsoft.LogSumExp(2).update(x[:, 3:])
    >>> whole = first.copy().merge(second)
    >>> whole.result().round(3)
    array([ 2.647, 20.   ])
    >>> whole.softmax(x[:, :3]).round(3)
    array([[0.524, 0.193, 0.071],
           [0.   , 1.   , 0.   ]])
    >>> whole.softmax_complement(x[:, :3])[1, 1]
    np.float64(1.0305768005983934e-08)
    """

    __slots__ = ("_dtype", "_factor", "_how", "_seen", "_shape", "_tallies", "_temperature")
    __class_getitem__: Any = classmethod(GenericAlias)  # for annotations: LogSumExp[np.float32]

    def __init__(
        self, shape: int | tuple[int, ...] = (), *, dtype: npt.DTypeLike = np.float64, temperature: float = 1.0
    ) -> None:
        self._shape = _validate.shape(shape)
        self._dtype = _validate.floating(dtype)
        self._how, self._factor = _validate.factor(temperature)
        self._temperature = float(temperature)
        self._seen = 0  # classes, at most, for each row
        self._tallies = np.empty((*self._shape, WORDS), np.int64)
        kernels.state_new(self._tallies)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the batch."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of chunks and results."""
        return self._dtype

    @property
    def temperature(self) -> float:
        """T."""
        return self._temperature

    @property
    def nbytes(self) -> int:
        """The size of the state in bytes."""
        return self._tallies.nbytes

    def __repr__(self) -> str:
        return f"LogSumExp(shape={self.shape}, dtype={self.dtype}, temperature={self.temperature})"

    def update(
        self,
        chunk: npt.ArrayLike,
        axis: int = -1,
        *,
        where: npt.ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> Self:
        """Add classes to the rows.

        Parameters
        ----------
        chunk : array_like
            Some of the logits, of the state's dtype (integers and bool count as float64) and any strides: of the
            state's shape without `axis`. Never written to.
        axis : int, default -1
            The axis of `chunk` that holds the classes.
        where : array_like of bool, optional
            Broadcast to `chunk`. Only these entries take part.
        num_threads : int, optional
            For this call. None: `get_num_threads()`.

        Returns
        -------
        LogSumExp
            The state itself. If an exception is raised, it has not changed.

        Raises
        ------
        TypeError
            A dtype or type that is not allowed; a masked array.
        ValueError
            A shape that is not allowed. `numpy.exceptions.AxisError`: an axis that `chunk` does not have.
        OverflowError
            More than 2**31 classes.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> state = fastsoft.LogSumExp()
        >>> state.update(np.array([2.0, 1.0])).update(np.array([0.0])).result().round(3)
        np.float64(2.408)
        """
        x, k, mask, threads = self._checked(chunk, axis, where, num_threads)
        seen = _validate.seen(self._seen + (x.shape[k] if x.ndim else 1))
        whole = x.size <= PIECE
        own = self._tallies if whole else LogSumExp(self._shape)._tallies  # what is interrupted must not stay half done
        self._run(SEEN, own, x, None, mask, k, math.nan, threads)
        if not whole:
            kernels.state_merge(self._tallies, own, self._factor)
        self._seen = seen
        return self

    def merge(self, other: LogSumExp) -> Self:
        """Add all classes that another state has seen.

        Parameters
        ----------
        other : LogSumExp
            A state of the same shape, dtype and temperature, which does not change.

        Returns
        -------
        LogSumExp
            The state itself.

        Raises
        ------
        TypeError
            `other` is not a `LogSumExp`.
        ValueError
            Its shape, dtype or temperature is another one.
        OverflowError
            More than 2**31 classes.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> first, second = (fastsoft.LogSumExp().update(np.array([x, 0.0])) for x in (2.0, 1.0))
        >>> first.merge(second).result().round(3)
        np.float64(2.494)
        """
        if not isinstance(other, LogSumExp):
            raise TypeError(f"other must be a LogSumExp, got {type(other).__name__}")
        for name in ("shape", "dtype", "temperature"):
            own, its = getattr(self, name), getattr(other, name)
            if own != its:
                raise ValueError(f"other must be of the {name} {own}, got {its}")
        seen = _validate.seen(self._seen + other._seen)
        kernels.state_merge(self._tallies, other._tallies if other is not self else self._tallies.copy(), self._factor)
        self._seen = seen
        return self

    def copy(self) -> LogSumExp:
        """Make another state that has seen the same.

        Returns
        -------
        LogSumExp
            Of the same shape, dtype and temperature. What either sees from then on does not change the other.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> state = fastsoft.LogSumExp().update(np.array([2.0, 1.0]))
        >>> before = state.copy()
        >>> state.update(np.array([0.0])).result() > before.result()
        np.True_
        """
        return self._some(...)

    __copy__ = copy

    def _some(self, rows: Any, dtype: npt.DTypeLike | None = None) -> LogSumExp:
        """A copy of some rows, for chunks of another dtype: in all of them the same is added up."""
        tallies = self._tallies[rows]
        shape, dtype = tallies.shape[:-1], self._dtype if dtype is None else dtype
        new = LogSumExp(shape, dtype=dtype, temperature=self._temperature)
        new._tallies[...] = tallies
        new._seen = self._seen
        return new

    def result(self) -> Array:
        """Logarithm of the sum of exponentials of all classes that have been seen: log sum_j exp(x_j / T).

        Returns
        -------
        numpy.ndarray
            Of the state's shape and dtype. A row that has seen nothing (or -inf only) gives -inf; one with a NaN gives
            NaN, else one with +inf gives +inf. The error is at most 2 ulp of max(abs(result), 1), and 0.51 in float16
            and bfloat16.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> x = np.array([2.0, 1.0, 0.0, 0.0])
        >>> state = fastsoft.LogSumExp().update(x[:2]).update(x[2:])
        >>> state.result().round(3)
        np.float64(2.494)
        """
        y = np.empty(self._shape)
        kernels.state_result(self._tallies, y, self._how, self._factor)
        with quiet():
            return y.astype(self._dtype, copy=False)

    def softmax(
        self,
        chunk: npt.ArrayLike,
        axis: int = -1,
        *,
        where: npt.ArrayLike | None = None,
        empty: str = "nan",
        out: Array | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """Probabilities of some classes, among all that have been seen: exp(x_i / T) / sum_j exp(x_j / T).

        Parameters
        ----------
        chunk : array_like
            Some of the logits that have been seen, as in `update`. What is larger than all that have been seen gives
            NaN.
        axis : int, default -1
            The axis of `chunk` that holds the classes.
        where : array_like of bool, optional
            Broadcast to `chunk`. The other entries get probability 0.
        empty : {"nan", "zero", "raise"}, default "nan"
            What a row gives that has seen nothing but -inf.
        out : numpy.ndarray, optional
            For the result: of its shape and dtype, of any strides. May be `chunk` itself.
        num_threads : int, optional
            For this call. None: `get_num_threads()`.

        Returns
        -------
        numpy.ndarray
            Of the shape of `chunk`. A row that has seen a NaN or +inf is NaN. The error is at most 2.5 ulp (3.5 with a
            temperature), and 0.51 in float16 and bfloat16.

        Raises
        ------
        TypeError
            A dtype or type that is not allowed; a masked array.
        ValueError
            A value or shape that is not allowed. `numpy.exceptions.AxisError`: an axis that `chunk` does not have.
        EmptyRowError
            An empty row, with ``empty="raise"``.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> x = np.array([2.0, 1.0, 0.0, 0.0])
        >>> state = fastsoft.LogSumExp().update(x[:2]).update(x[2:])
        >>> state.softmax(x[:2]).round(3)
        array([0.61 , 0.225])
        """
        return self._shares(SHARE, chunk, axis, where, empty, out, num_threads)

    def log_softmax(
        self,
        chunk: npt.ArrayLike,
        axis: int = -1,
        *,
        where: npt.ArrayLike | None = None,
        empty: str = "nan",
        out: Array | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """Logarithm of the probabilities of some classes: x_i / T - log sum_j exp(x_j / T).

        Parameters
        ----------
        chunk : array_like
            Some of the logits that have been seen, as in `softmax`.
        axis : int, default -1
            The axis of `chunk` that holds the classes.
        where : array_like of bool, optional
            Broadcast to `chunk`. The other entries get -inf.
        empty : {"nan", "zero", "raise"}, default "nan"
            What a row gives that has seen nothing but -inf; "zero", being a probability, is -inf here.
        out : numpy.ndarray, optional
            For the result: of its shape and dtype, of any strides. May be `chunk` itself.
        num_threads : int, optional
            For this call. None: `get_num_threads()`.

        Returns
        -------
        numpy.ndarray
            Of the shape of `chunk`. A row that has seen a NaN or +inf is NaN. The error is at most 3 ulp, also where
            the probability is near 1, and 0.51 in float16 and bfloat16.

        Raises
        ------
        TypeError, ValueError, EmptyRowError
            As in `softmax`.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> x = np.array([2.0, 1.0, 0.0, 0.0])
        >>> state = fastsoft.LogSumExp().update(x[:2]).update(x[2:])
        >>> state.log_softmax(x[:2]).round(3)
        array([-0.494, -1.494])
        """
        return self._shares(LOG_SHARE, chunk, axis, where, empty, out, num_threads)

    def softmax_complement(
        self,
        chunk: npt.ArrayLike,
        axis: int = -1,
        *,
        where: npt.ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """How much the probabilities of some classes lack to 1, without cancellation: 1 - softmax.

        Parameters
        ----------
        chunk : array_like
            Some of the logits that have been seen, as in `softmax`.
        axis : int, default -1
            The axis of `chunk` that holds the classes.
        where : array_like of bool, optional
            Broadcast to `chunk`. The other entries get 1.
        num_threads : int, optional
            For this call. None: `get_num_threads()`.

        Returns
        -------
        numpy.ndarray
            Of the shape of `chunk`; of the largest class the sum of the others over that of all. Empty rows, and those
            that have seen a NaN or +inf, are NaN. The error is at most 4 ulp, and 0.51 in float16 and bfloat16.

        Raises
        ------
        TypeError, ValueError
            As in `softmax`.

        Examples
        --------
        >>> import numpy as np, fastsoft
        >>> x = np.array([2.0, 1.0, 0.0, 0.0])
        >>> state = fastsoft.LogSumExp().update(x[:2]).update(x[2:])
        >>> state.softmax_complement(x[:2]).round(3)
        array([0.39 , 0.775])
        """
        return self._shares(MISSING, chunk, axis, where, "nan", None, num_threads)

    def _checked(
        self, chunk: object, axis: object, where: object, num_threads: object
    ) -> tuple[Array, int, Array | None, int]:
        """The chunk, its class axis, the mask and the number of threads."""
        x = _validate.array(chunk, "chunk", ".data and where=~chunk.mask")
        if x.dtype != self._dtype:
            other = f"convert it, or make the state with dtype={x.dtype}"
            raise TypeError(f"chunk must be of the state's dtype {self._dtype}, got {x.dtype}: {other}")
        k = _validate.axis(axis, x.ndim)
        if _validate.without(x.shape, k) != self._shape:
            raise ValueError(
                f"chunk without its class axis {k} must have the state's shape {self._shape}, got a chunk of {x.shape}"
            )
        return x, k, _validate.mask(where, x.shape, "chunk"), allowed(num_threads)

    def _shares(
        self, part: int, chunk: object, axis: object, where: object, empty: object, out: object, num_threads: object
    ) -> Array:
        """What the classes of a chunk get: check everything, then compute."""
        x, k, mask, threads = self._checked(chunk, axis, where, num_threads)
        fill = _validate.empty_value(empty)
        y = _validate.result(out, x.shape, x.dtype)
        if empty == "raise":
            _validate.no_empty_tops(self._tallies[..., 0].view(np.float64), "chunk")
        target = np.empty(y.shape, y.dtype) if out is not None and _validate.must_copy(y, x, mask) else y
        self._run(part, self._tallies, x, target, mask, k, fill, threads)
        if target is not y:
            y[...] = target
        return y

    def _run(
        self,
        part: int,
        tallies: Array,
        x: Array,
        y: Array | None,
        mask: Array | None,
        axis: int,
        fill: float,
        threads: int,
    ) -> None:
        """Run the kernel over the chunk, in pieces; all arrays have its shape."""
        if x.ndim == 0:  # one class
            x = x.reshape(1)
            y, mask = None if y is None else y.reshape(1), None if mask is None else mask.reshape(1)
        n = x.shape[axis]
        for start, stop in pieces(x.size // n if x.size else 0, n):
            kernels.state_part(part, tallies, x, y, mask, axis, self._how, self._factor, fill, threads, start, stop)
