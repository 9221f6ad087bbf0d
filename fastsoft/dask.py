"""The public functions of Dask arrays: they give Dask arrays, and compute nothing before these are asked for.

Where each row lies in one chunk, chunks are mapped with the function of NumPy arrays (`WHOLE`). Where the class axis is
cut, each chunk gives what the others need to know of it, a `LogSumExp` and sums, which is merged along a tree; from the
total and a chunk comes the chunk of the result (`CUT`). No row is gathered, and chunks are only ever made smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from . import _validate, api, derivatives, losses
from ._run import (
    CROSS_ENTROPY,
    CROSS_ENTROPY_GRAD,
    DIAGONAL,
    JACOBIAN,
    LABELS,
    LOG_SOFTMAX,
    LOG_VJP,
    LOG_VJP_FROM_OUTPUT,
    LOGSUMEXP,
    SOFTMAX,
    VJP,
    VJP_FROM_OUTPUT,
    VJP_GAP,
    lazy,
    quiet,
)
from ._threads import num_threads
from .state import LogSumExp

try:
    import dask.array as da
    from dask.array.utils import meta_from_array
except ImportError as error:
    raise ImportError('Dask arrays need dask.array: pip install "fastsoft[dask]"') from error

Array = np.ndarray[Any, Any]
Axes = tuple[int, ...]
Arrays = list[tuple[Any, Axes]]  # Dask arrays, each with its axes among those of x


def call(kind: int, given: dict[str, object], axis: object, out: object, options: dict[str, Any]) -> Any:
    """What an operation gives for named arrays, of which one at least is a Dask array."""
    if out is not None:
        raise TypeError("out must be None with Dask arrays: what they give is computed later, into new memory")
    names = tuple(name for name, a in given.items() if a is not None)
    x, *others = (_array(name, given[name]) for name in names)
    labels = False
    if names[-1] == "t":
        k = _validate.axis(axis, x.ndim)
        x, others[0], labels = _with_targets(names, x, others[0], k, options.get("ignore_index"))
        if labels and options.get("ignore_index") is not None:
            options["ignore_index"] = -1
    elif names[-1] == "where":
        _validate.mask(_like(others[0]), _known(x.shape))
        others[0] = _broadcast(names, x.shape, others[0])
    elif others:
        x, others[0] = _two_arrays(names, x, others[0])
    family = kind in (SOFTMAX, LOG_SOFTMAX, LOGSUMEXP)
    classes = _validate.axes(axis, max(x.ndim, 1)) if family else (_validate.axis(axis, x.ndim),)
    options["axis"] = tuple(k - max(x.ndim, 1) for k in classes)
    classes = classes if x.ndim else ()
    if "num_threads" in options and options["num_threads"] is None:
        options["num_threads"] = 1  # Dask has threads of its own
    inds = tuple(range(x.ndim))
    batch = tuple(k for k in inds if k not in classes)
    arrays = _unified([(x, inds), *((a, batch if labels else inds) for a in others)])
    return _Call(kind, names, arrays, classes, labels, options).result()


class _Call:
    """An operation of arrays that fit together, x being the first."""

    def __init__(
        self, kind: int, names: tuple[str, ...], arrays: Arrays, classes: Axes, labels: bool, options: dict[str, Any]
    ) -> None:
        self.kind, self.name, self.arrays, self.classes, self.labels = kind, names[0], arrays, classes, labels
        self.x, self.inds = arrays[0]
        self.batch = tuple(k for k in self.inds if k not in classes)
        self.options = {**options, "names": names} if kind in PRODUCTS else options
        self.whole = partial(WHOLE[kind], **self.options)
        # The function itself says what is wrong with its arguments, for no rows.
        self.whole(*(np.empty((0, *_known(a.shape)), a.dtype) for a, _ in arrays))
        if any(math.isnan(n) for k in classes for n in self.x.chunks[k]):
            raise ValueError(f"{self.name} must have classes of known number: call {self.name}.compute_chunk_sizes()")
        self.cut = any(len(self.x.chunks[k]) > 1 for k in classes)

    def result(self) -> Any:
        """The lazy result, or two."""
        kind, dtype = self.kind, self.x.dtype
        if kind == LABELS:
            return self.cut_loss() if self.cut else self.loss()
        if kind == CROSS_ENTROPY_GRAD and (not self.cut or not self.labels):
            if self.options["return_singular"]:
                pairs = self.blocks(self.whole, self.inds, self.arrays)
                return tuple(self.part(k, pairs, self.inds, of) for k, of in enumerate((dtype, np.dtype(np.int8))))
            return self.blocks(self.whole, self.inds, self.arrays, dtype)
        if self.cut:
            return self.cut_result()
        if kind == JACOBIAN:
            new = dict.fromkeys((self.x.ndim, self.x.ndim + 1), self.x.shape[self.classes[0]] if self.classes else 1)
            return self.blocks(self.whole, (*self.batch, *new), self.arrays, dtype, new_axes=new)
        return self.shaped(self.whole, self.arrays, np.dtype(bool) if kind == VJP_GAP else dtype)

    def blocks(
        self, function: Callable[..., Any], out: Axes, arrays: Arrays, dtype: Any = object, one: Axes = (), **how: Any
    ) -> Any:
        """function of the arrays' blocks, as an array with the axes `out`; its blocks have length 1 along `one`."""
        chunks = {k: 1 if k in one else self.x.chunks[k] for k in out if k in self.inds}
        return da.blockwise(
            partial(_of_blocks, function), out, *(part for pair in arrays for part in pair), dtype=dtype,
            meta=np.empty((0,) * len(out), dtype), align_arrays=False, adjust_chunks=chunks, token="fastsoft", **how,
        )  # fmt: skip

    def shaped(self, function: Callable[..., Any], arrays: Arrays, dtype: Any) -> Any:
        """The same for a result with a number for each entry, or each row, as the operation has it."""
        if self.kind not in (LOGSUMEXP, CROSS_ENTROPY):
            return self.blocks(function, self.inds, arrays, dtype)
        if not self.options.get("keepdims"):
            return self.blocks(function, self.batch, arrays, dtype)
        return self.blocks(function, self.inds, arrays, dtype, self.classes)

    def part(self, which: int, pairs: Any, out: Axes, dtype: Any) -> Any:
        """One of two arrays of which the blocks of `pairs` hold a block each."""
        return self.blocks(partial(_part, which), out, [(pairs, self.inds)], dtype)

    def total(self, start: Callable[..., Any], arrays: Arrays) -> tuple[Any, Axes]:
        """What the chunks of each row come to together, in an array that has one class."""
        parts = self.blocks(partial(start, **self.options), self.inds, arrays, object, self.classes)
        merged = da.reduction(
            parts, _same, _merged, axis=self.classes, keepdims=True, concatenate=False, dtype=object,
            meta=np.empty((0,) * len(self.inds), object), name="fastsoft-merged",
        )  # fmt: skip
        return merged, self.inds

    def cut_result(self) -> Any:
        """`result` where a row lies in several chunks."""
        if self.kind not in CUT or (self.labels and self.kind != CROSS_ENTROPY):
            k = self.classes[0]
            raise ValueError(
                f"{self.name} must have all classes of a row in one chunk here, got chunks of {self.x.chunks[k]} along "
                f"axis {k}: pass {self.name}.rechunk({{{k}: -1}})"
            )
        starts, finish = CUT[self.kind]
        arrays = self.arrays
        if self.labels:
            starts, finish, arrays = (_picked,), _loss_of_picked, [*arrays, self.first_classes()]
        self.options = {**self.options, "kind": self.kind, "dtype": self.x.dtype}
        totals: Arrays = []
        for start in starts:
            totals.append(self.total(start, [*totals, *arrays]))
        rows = self.kind in (LOGSUMEXP, CROSS_ENTROPY)
        return self.shaped(partial(finish, **self.options), totals if rows else [*totals, *arrays], self.x.dtype)

    def first_classes(self) -> tuple[Any, Axes]:
        """The number of the first class of each chunk."""
        sizes = self.x.chunks[self.classes[0]]
        return da.from_array(np.cumsum((0, *sizes[:-1])), chunks=1), self.classes

    def loss(self) -> Any:
        """Cross-entropy from logits, with its gradient where that is asked for."""
        count = self.count()
        pairs = self.blocks(self.whole, self.inds, [*self.arrays, *count])
        loss = self.reduced(self.part(0, pairs, self.batch, self.loss_dtype()), count)
        return (loss, self.part(1, pairs, self.inds, self.x.dtype)) if self.options["grad"] else loss

    def cut_loss(self) -> Any:
        """The same where a row lies in several chunks."""
        count, arrays = self.count(), [*self.arrays, self.first_classes()]
        classes = self.x.shape[self.classes[0]]
        self.options = {**self.options, "labels": self.labels, "n": classes, "dtype": self.x.dtype}
        totals = [self.total(_logits, arrays)]
        if not self.labels or self.options["label_smoothing"]:
            totals.append(self.total(_spread, [*totals, *arrays]))
        options = {**self.options, "totals": len(totals)}
        rows = [*totals, *self.arrays[1:]] if self.labels else totals
        loss = self.blocks(partial(_cut_loss, **options), self.batch, rows, self.loss_dtype())
        loss = self.reduced(loss, count)
        if not options["grad"]:
            return loss
        slopes = self.blocks(partial(_cut_slopes, **options), self.inds, [*totals, *arrays, *count], self.x.dtype)
        return loss, slopes

    def loss_dtype(self) -> Any:
        """Of the losses of rows: they are rounded once."""
        return self.x.dtype if self.options["reduction"] == "none" else losses._work(self.x.dtype)

    def count(self) -> Arrays:
        """What a mean is taken over, where there is one."""
        if self.options["reduction"] != "mean":
            return []
        if self.labels:
            t, meta = self.arrays[1][0], np.empty((0,) * len(self.batch))
            weights = t.map_blocks(_row_weights, self.options["weight"], dtype=np.float64, meta=meta)
            return [(weights.sum(), ())]
        rows = math.prod(self.x.shape[k] for k in self.batch)
        if math.isnan(rows):
            raise ValueError('x must have rows of known number for reduction="mean": call x.compute_chunk_sizes()')
        return [(da.from_array(np.float64(rows)), ())]

    def reduced(self, loss: Any, count: Arrays) -> Any:
        """The losses as `reduction` asks for them."""
        if self.options["reduction"] == "none":
            return loss
        total = loss.sum(dtype=np.float64), ()
        return self.blocks(partial(_reduced, self.x.dtype), (), [total, *count], self.x.dtype)


# ---- arguments ----


def _array(name: str, a: Any) -> Any:
    """As a Dask array, of a dtype that the kernels take; masks and targets stay as they are, and are checked later."""
    if name in ("where", "t"):
        return a if lazy(a) else da.from_array(a if isinstance(a, np.ma.MaskedArray) else np.asarray(a), chunks=-1)
    if not lazy(a):
        a = da.from_array(_validate.array(a, name), chunks=-1)
    return a.astype(_validate.array(meta_from_array(a), name).dtype)


def _known(shape: tuple[float, ...]) -> Axes:
    """A shape with 0 where Dask does not know it."""
    return tuple(0 if math.isnan(n) else int(n) for n in shape)


def _like(a: Any) -> Array:
    """An array of its shape, dtype and kind that takes no memory."""
    like = np.broadcast_to(np.zeros((), a.dtype), _known(a.shape))
    return np.ma.asarray(like) if isinstance(meta_from_array(a), np.ma.MaskedArray) else like


def _two_arrays(names: tuple[str, ...], x: Any, v: Any) -> tuple[Any, Any]:
    """Two arrays of one dtype and shape."""
    both = (names[0], names[-1])
    dtype = _validate.two_arrays(np.empty(0, x.dtype), np.empty(0, v.dtype), both)[0].dtype
    shape: tuple[float, ...] = _validate.common_shape(_known(x.shape), _known(v.shape), both)
    if _known(x.shape) == _known(v.shape):
        shape = x.shape  # which may be unknown
    elif any(map(math.isnan, (*x.shape, *v.shape))):
        shape = (math.nan,)
    return _broadcast(names, shape, x.astype(dtype)), _broadcast(names, shape, v.astype(dtype))


def _broadcast(names: tuple[str, ...], shape: tuple[float, ...], a: Any) -> Any:
    """The array in a shape, which must then be known."""
    if _known(a.shape) == _known(shape):
        return a
    if any(map(math.isnan, shape)):
        raise ValueError(
            f"{names[0]} and {names[-1]} must be of one shape where that is unknown, or call compute_chunk_sizes()"
        )
    return da.broadcast_to(a, shape)


def _with_targets(names: tuple[str, ...], x: Any, t: Any, axis: int, ignore_index: object) -> tuple[Any, Any, bool]:
    """x, its targets, and whether these are labels, which are checked when they are computed."""
    batch = _known(_validate.without(x.shape, axis))
    if _validate.are_labels(_like(t), batch):
        check = partial(_labels, n=x.shape[axis] if x.ndim else 1, ignore_index=ignore_index)
        return x, t.map_blocks(check, dtype=np.int64, meta=check(meta_from_array(t))), True
    if names[0] == "x" and _known(t.shape) != _known(x.shape):
        losses._Job._dense(_like(x), _like(t), batch, ignore_index)  # says what is wrong
    return *_two_arrays(names, x, t.astype(_validate.array(meta_from_array(t), "t").dtype)), False


def _labels(t: Array, n: int, ignore_index: object, block_info: Any = None) -> Array:
    """A block of labels, checked: an error names the index among all of them."""
    start = tuple(first for first, _ in block_info[0]["array-location"]) if block_info else None
    return _validate.labels(t, n, ignore_index, start=start)


def _unified(arrays: Arrays) -> Arrays:
    """With the same chunks along the axes that they share, which may be smaller than they were."""
    found = da.unify_chunks(*(part for pair in arrays for part in pair))[1]
    return [(a, inds) for a, (_, inds) in zip(found, arrays, strict=True)]


# ---- what is done with blocks ----


def _of_blocks(function: Callable[..., Any], *blocks: Any) -> Any:
    """function(*blocks): where the result lacks an axis, a block comes in a list."""
    with quiet():
        return function(*(next(_flat(block)) for block in blocks))


def _flat(blocks: Any) -> Iterator[Any]:
    if isinstance(blocks, list):
        for block in blocks:
            yield from _flat(block)
    else:
        yield blocks


def _part(which: int, block: tuple[Any, ...]) -> Any:
    return block[which]


def _same(block: Any, axis: Axes, keepdims: bool) -> Any:
    return block


def _merged(blocks: Any, axis: Axes, keepdims: bool) -> tuple[Any, ...]:
    """States and sums of some classes to those of all of them; what comes in is not changed."""
    return tuple(_sum(*parts) for parts in zip(*_flat(blocks), strict=True))


def _sum(first: Any, *others: Any) -> Any:
    if not isinstance(first, LogSumExp):
        return sum(others, first)
    total = first.copy()
    for other in others:
        total.merge(other)
    return total


# ---- where a row lies in one chunk ----


def _family(kind: int, x: Array, where: Array | None = None, *, axis: Axes, temperature: float, empty: str,
            num_threads: int, keepdims: bool) -> Array:  # fmt: skip
    return api._run(kind, x, axis, where, temperature, empty, None, num_threads, keepdims)


def _derivative(kind: int, x: Array, v: Array | None = None, *, names: tuple[str, ...], axis: Axes, temperature: float,
                num_threads: int) -> Array:  # fmt: skip
    return derivatives._run(kind, x, v, axis[0], temperature, None, num_threads, (names[0], names[-1]))


def _public(function: Callable[..., Any], *arrays: Array, axis: Axes, **options: Any) -> Any:
    return function(*arrays, axis[0], **options)


def _zeros(x: Array, v: Array, *, axis: Axes, tol: float | None) -> Array:
    with num_threads(1):  # which is no argument of the function
        return derivatives.softmax_vjp_zeros(x, v, axis[0], tol=tol)


def _loss(x: Array, t: Array, count: Array | None = None, *, axis: Axes, grad: bool, reduction: str,
          **options: Any) -> tuple[Array, Array | None]:  # fmt: skip
    """The losses of some rows, not yet reduced, and the gradient of what they are reduced to."""
    _validate.choice("reduction", reduction, ("none", "sum", "mean"))
    job = losses._Job(x, t, axis[0], reduction="none", **options)
    if count is not None:
        job.scale = 1 / float(count) if count else 0.0
    y = _validate.new(job.shape, job.dtype) if grad else None
    job.run(y)
    return losses._rounded(job.losses, job.dtype) if reduction == "none" else job.losses, y


def _row_weights(t: Array, weight: Any) -> Array:
    """What the row of each label counts."""
    return np.where(t < 0, 0.0, 1.0 if weight is None else np.asarray(weight, np.float64)[t])


def _reduced(dtype: Any, total: Array, count: Array | None = None) -> Array:
    """The sum of all losses, or their mean."""
    if count is not None:
        total = total / count if count else np.zeros(())
    return losses._rounded(np.asarray(total), dtype)


# ---- where it lies in several: softmax, log_softmax, logsumexp ----


def _joined(a: Array, axis: Axes) -> tuple[Array, int]:
    """Class axes as one, and which."""
    if len(axis) == 1:
        return a, axis[0]
    k = len(axis)
    a = np.moveaxis(a, axis, range(-k, 0))
    return a.reshape(*a.shape[:-k], math.prod(a.shape[-k:])), -1


def _state(x: Array, where: Array | None = None, *, axis: Axes, temperature: float, num_threads: int,
           **_: Any) -> tuple[LogSumExp]:  # fmt: skip
    a, k = _joined(x, axis)
    state = LogSumExp(_validate.without(a.shape, k % a.ndim), dtype=a.dtype, temperature=temperature)
    mask = None if where is None else _joined(where, axis)[0]
    return (state.update(a, k, where=mask, num_threads=num_threads),)


def _entries(total: tuple[LogSumExp], x: Array, where: Array | None = None, *, kind: int, axis: Axes, empty: str,
             num_threads: int, **_: Any) -> Array:  # fmt: skip
    (state,) = total
    a, k = _joined(x, axis)
    mask = None if where is None else _joined(where, axis)[0]
    function = state.softmax if kind == SOFTMAX else state.log_softmax
    y = function(a, k, where=mask, empty=empty, num_threads=num_threads)
    if len(axis) == 1:
        return y
    places = range(-len(axis), 0)
    return np.moveaxis(y.reshape(np.moveaxis(x, axis, places).shape), places, axis)


def _rows(total: tuple[LogSumExp], *, axis: Axes, keepdims: bool, **_: Any) -> Array:
    y = total[0].result()
    return np.expand_dims(y, axis) if keepdims else y


# ---- parts of a chunk: what is made of them on the way takes more than they do ----

PART = 1 << 18  # numbers


def _blocks(shape: Axes) -> Iterator[tuple[slice, ...]]:
    """Where the blocks of an array are, each of PART numbers at most, contiguous where the array is."""
    inner = math.prod(shape[1:])
    if not shape:
        yield ()
    elif inner > PART:
        for k in range(shape[0]):
            yield from ((slice(k, k + 1), *block) for block in _blocks(shape[1:]))
    elif inner:
        for start in range(0, shape[0], PART // inner):
            yield slice(start, min(start + PART // inner, shape[0])), *(slice(0, n) for n in shape[1:])


def _parts(x: Array, k: int) -> Iterator[tuple[Any, Any]]:
    """Where the parts of a chunk with the class axis k are, and their rows among its rows."""
    for part in _blocks(x.shape):
        yield part, part[:k] + part[k:][1:]


# ---- products with the Jacobian ----
# Sums, and what is made of them, are in more digits than the result: in float64, for float64 in longdouble.

SURE = 0.75  # of the classes of a row at most one is more probable, also when all are rounded


def _wide(dtype: Any) -> Any:
    return np.longdouble if dtype == np.float64 else np.float64


def _weights(kind: int, totals: list[Any], rows: Any, y: Array, k: int, num_threads: int) -> Array:
    """The probabilities of a part, in more digits."""
    if kind == VJP_FROM_OUTPUT:
        return y.astype(_wide(y.dtype))
    if kind == LOG_VJP_FROM_OUTPUT:
        return np.asarray(np.exp(y.astype(_wide(y.dtype))))
    state = totals[0][0]._some(rows)
    p: Array = state.softmax(y.astype(np.float64, copy=False), k, num_threads=num_threads)
    return p.astype(_wide(y.dtype), copy=False)


def _wide_state(x: Array, v: Array, *, axis: Axes, temperature: float, num_threads: int,
                **_: Any) -> tuple[LogSumExp, Array]:  # fmt: skip
    (state,) = _state(x, axis=axis, temperature=temperature, num_threads=num_threads)
    return state._some(..., np.float64), *_sum_of_v(x, v, axis=axis)


def _sum_of_v(x: Array, v: Array, *, axis: Axes, **_: Any) -> tuple[Array]:
    return (np.asarray(v.sum(axis[0], dtype=_wide(v.dtype))),)


def _averages(*found: Any, kind: int, axis: Axes, num_threads: int, **_: Any) -> tuple[Array, ...]:
    """The sums of the probabilities, of which each is rounded, and of v by them; for VJP also without a class that is
    nearly certain, whose result is what the others make of it."""
    *totals, x, v = found
    k = axis[0]
    sums = np.zeros((4 if kind == VJP else 2, *_validate.without(x.shape, k % x.ndim)), _wide(x.dtype))
    for part, rows in _parts(x, k):
        p, w = _weights(kind, totals, rows, x[part], k, num_threads), v[part]
        both = np.array([p.sum(k), (p * w).sum(k)])
        sums[:2, *rows] += both
        if kind == VJP:
            if (sure := p > SURE).any():
                p[sure] = 0
                both = np.array([p.sum(k), (p * w).sum(k)])
            sums[2:, *rows] += both
    return tuple(sums)


def _products(*found: Any, kind: int, axis: Axes, temperature: float, num_threads: int, **_: Any) -> Array:
    """p (v - v.p) / T or (v - p sum(v)) / T"""
    *totals, x, v = found
    k, sums = axis[0], np.array([s for s in totals[-1] if not isinstance(s, LogSumExp)])
    sums = np.where(np.isfinite(sums), sums, np.nan)  # an infinite v makes all of its row NaN
    z = np.empty(x.shape, x.dtype)
    for part, rows in _parts(x, k):
        p, w = _weights(kind, totals, rows, x[part], k, num_threads), v[part]
        s = np.expand_dims(sums[:, *rows], k)
        if kind == VJP:  # the rounding that all probabilities of a row have in common goes with s[0]
            y = w * s[0] - s[1]
            if (sure := p > SURE).any():
                np.copyto(y, w * s[2] - s[3], where=sure)
            p /= s[0] ** 2
            y *= p
        elif kind == VJP_FROM_OUTPUT:
            y = p * (w - s[1])
        else:
            y = w - p * s[0]
        if kind == LOG_VJP:  # 1 - p as it is where p may be near 1
            place = x[part].argmax(k, keepdims=True)
            some = partial(np.take_along_axis, indices=place, axis=k)
            near = some(x[part]).astype(np.float64, copy=False)
            left = totals[0][0]._some(rows).softmax_complement(near, k, num_threads=num_threads)
            np.put_along_axis(y, place, some(w) * left - some(p) * (s[0] - some(w)), k)
        y /= _wide(x.dtype)(temperature)
        z[part] = y
    return z


# ---- losses ----


def _at_labels(t: Array, first: Array, n: int, k: int) -> tuple[Array, Array]:
    """Which rows have their label in a chunk of n classes, and where; both with a class axis of length 1."""
    place = np.expand_dims(t - first.reshape(()), k)
    held = (place >= 0) & (place < n)
    return held, np.where(held, place, 0)


def _picked(x: Array, t: Array, first: Array, *, axis: Axes, **_: Any) -> tuple[Array]:
    """x at the labels, 0 where they are elsewhere."""
    k = axis[0]
    if not x.shape[k]:
        return (np.zeros(t.shape, x.dtype),)
    held, place = _at_labels(t, first, x.shape[k], k)
    return (np.where(held, np.take_along_axis(x, place, k), 0).squeeze(k),)


def _loss_of_picked(total: tuple[Array], *, num_threads: int, **_: Any) -> Array:
    (z,) = total
    return losses.cross_entropy(z[..., None], np.zeros(z.shape, np.int64), num_threads=num_threads)


def _terms(z: Array, t: Array, *, axis: Axes, num_threads: int, **_: Any) -> tuple[Array]:
    k = axis[0]
    loss = np.zeros(_validate.without(z.shape, k % z.ndim), np.longdouble)
    for part, rows in _parts(z, k):
        some, its = (a[part].astype(np.float64, copy=False) for a in (z, t))
        loss[rows] += losses.cross_entropy(some, its, k, num_threads=num_threads)
    return (loss,)


def _sum_of_terms(total: tuple[Array], *, dtype: Any, **_: Any) -> Array:
    return losses._rounded(total[0].astype(np.float64), dtype)


def _work(dtype: Any, temperature: float) -> Any:
    """The type that losses from logits are computed in."""
    wide = _validate.beyond(_validate.factor(temperature)[0], dtype)
    return np.dtype(np.float64) if wide else losses._work(dtype)


def _logits(x: Array, t: Array, first: Array, *, axis: Axes, labels: bool, temperature: float, num_threads: int,
            **_: Any) -> tuple[Any, ...]:  # fmt: skip
    """The state, and with labels their logits."""
    (state,) = _state(x, axis=axis, temperature=temperature, num_threads=num_threads)
    state = state._some(..., _work(x.dtype, temperature))
    return (state, _picked(x, t, first, axis=axis)[0].astype(state.dtype)) if labels else (state,)


def _targets(t: Array, part: Any, first: Array, k: int, options: dict[str, Any], dtype: Any) -> Any:
    """w_i ((1 - e) t_i + e / n) of a part of a chunk; of labels only what they do not stand for, w_i e / n."""
    e = options["label_smoothing"]
    a = e / options["n"] + (0 if options["labels"] else (1 - e) * t[part].astype(dtype, copy=False))
    if options["weight"] is not None:
        start = int(first.reshape(()))
        w = np.asarray(options["weight"], dtype)[start + part[k].start : start + part[k].stop]
        a = a * w.reshape(-1, *(1,) * (-k - 1))
    return a


def _times_log(a: Array, y: Array) -> Array:
    """-a y of targets a and logarithms y of probabilities: 0 where a is 0, but NaN in a row that is."""
    return np.where((a == 0) & ~np.isnan(y), 0, -a * y)


def _spread(total: tuple[Any, ...], x: Array, t: Array, first: Array, **options: Any) -> tuple[Array, ...]:
    """The sums of -a_i log p_i and of a_i, with the targets a_i of a chunk."""
    state, k = total[0], options["axis"][0]
    sums = np.zeros((2, *state.shape))
    for part, rows in _parts(x, k):
        some = x[part].astype(state.dtype, copy=False)
        y = state._some(rows).log_softmax(some, k, num_threads=options["num_threads"])
        a = np.broadcast_to(_targets(t, part, first, k, options, state.dtype), y.shape)
        sums[0, *rows] += _times_log(a, y).sum(k, dtype=np.float64)
        sums[1, *rows] += a.sum(k, dtype=np.float64)
    return tuple(sums)


def _cut_loss(*found: Any, totals: int, labels: bool, label_smoothing: float, weight: Any, z_loss: float,
              reduction: str, dtype: Any, num_threads: int, **_: Any) -> Array:  # fmt: skip
    """The losses of rows."""
    state = found[0][0]
    loss = np.zeros(state.shape)
    if labels:
        t = found[-1]
        y = state.log_softmax(found[0][1][..., None], num_threads=num_threads)[..., 0]
        a = (1 - label_smoothing) * _row_weights(t, weight)
        loss = _times_log(a, y) if label_smoothing else -a * y  # which is NaN for a label of weight 0 on a -inf logit
    if totals > 1:
        loss = loss + found[1][0]
    if z_loss:
        loss = loss + z_loss * state.result().astype(np.float64) ** 2
    if labels:
        loss = np.where(t < 0, 0, loss)
    return losses._rounded(loss, dtype if reduction == "none" else losses._work(dtype))


def _cut_slopes(*found: Any, totals: int, axis: Axes, temperature: float, **options: Any) -> Array:
    """The gradient of a chunk: (p_i A - a_i) / T, with A the sum of the targets a_i."""
    x, t, first, *count = found[totals:]
    state, k, labels = found[0][0], axis[0], options["labels"]
    z = np.zeros(x.shape, options["dtype"])
    scale = 1 / temperature
    if count:
        scale = scale / float(count[0]) if count[0] else 0
    if not scale:
        return z
    spread = np.zeros(state.shape) if totals == 1 else found[1][1]
    if options["z_loss"]:
        spread = spread + 2 * options["z_loss"] * state.result().astype(np.float64)
    label = (1 - options["label_smoothing"]) * _row_weights(t, options["weight"]) if labels else np.zeros(state.shape)
    for part, rows in _parts(x, k):
        a = None
        if totals > 1:
            a = state.dtype.type(scale) * _targets(t, part, first, k, options, state.dtype)
        some = x[part].astype(state.dtype, copy=False)
        at = _at_labels(t[rows], first + part[k].start, some.shape[k], k) if labels else None
        weights = [np.expand_dims(np.asarray(scale * w[rows], state.dtype), k) for w in (label, spread)]
        y = _slopes(state._some(rows), some, a, weights, at, k, options["num_threads"])
        if labels:
            np.copyto(y, 0, where=np.expand_dims(t[rows] < 0, k))
        z[part] = losses._rounded(y, options["dtype"])
    return z


def _slopes(state: LogSumExp, x: Array, a: Any, weights: list[Array], at: tuple[Array, Array] | None, k: int,
            num_threads: int) -> Array:  # fmt: skip
    """The same of a part, from what is scaled already: targets a, unless there are labels alone; the weights of the
    labels, which are `at` their places, and the sums of a."""
    label, spread = weights
    y = state.softmax(x, k, num_threads=num_threads)
    # Where p is near 1, that is of the label or the largest class, 1 - p is taken as it is.
    held, place = (True, x.argmax(k, keepdims=True)) if at is None else at
    some = partial(np.take_along_axis, indices=place, axis=k)
    p, left = some(y), state.softmax_complement(some(x), k, num_threads=num_threads)
    own = 0 if a is None else some(np.broadcast_to(a, x.shape))
    y *= label + spread
    if a is not None:
        y -= a
    if at is None:
        held = p > 0.5
        near = spread - own - left * spread
    else:
        near = p * spread - own - left * label
    np.put_along_axis(y, place, np.where(held, near, some(y)), k)
    return y


# ---- the operations ----

PRODUCTS = (DIAGONAL, VJP, LOG_VJP, VJP_FROM_OUTPUT, LOG_VJP_FROM_OUTPUT)
WHOLE: dict[int, Callable[..., Any]] = {
    **{kind: partial(_family, kind) for kind in (SOFTMAX, LOG_SOFTMAX, LOGSUMEXP)},
    **{kind: partial(_derivative, kind) for kind in PRODUCTS},
    JACOBIAN: partial(_public, derivatives.softmax_jacobian),
    VJP_GAP: _zeros,
    CROSS_ENTROPY: partial(_public, losses.cross_entropy),
    CROSS_ENTROPY_GRAD: partial(_public, losses.cross_entropy_grad),
    LABELS: _loss,
}
# What is added up over the chunks of a row, one total after the other, and what is made of the totals and a chunk.
CUT: dict[int, tuple[tuple[Callable[..., Any], ...], Callable[..., Any]]] = {
    SOFTMAX: ((_state,), _entries),
    LOG_SOFTMAX: ((_state,), _entries),
    LOGSUMEXP: ((_state,), _rows),
    VJP: ((_wide_state, _averages), _products),
    LOG_VJP: ((_wide_state,), _products),
    VJP_FROM_OUTPUT: ((_averages,), _products),
    LOG_VJP_FROM_OUTPUT: ((_sum_of_v,), _products),
    CROSS_ENTROPY: ((_terms,), _sum_of_terms),
}
