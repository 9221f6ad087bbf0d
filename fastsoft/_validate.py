"""What comes in: the only place that raises for a bad argument. Nothing is written before all of it has passed."""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
from numpy.exceptions import AxisError

from . import _memory
from ._run import lazy, quiet

Array = np.ndarray[Any, Any]
PLAIN, SCALED, WIDE = 0, 1, 2  # how x enters exp: simd/math.hpp
FLOATS = "float16, bfloat16, float32, float64"
ALIGNED = 1 << 16  # bytes from which a result begins at a line of the cache; in plain.pxi as well
LARGE = 1 << 24  # bytes from which a result has memory of its own, beyond the heap


class SingularGradientError(ValueError):
    """With ``singular="raise"``: a gradient -t/z has poles, z being 0 where t is not.

    Parameters
    ----------
    count : int
        How many there are.
    first : tuple of int
        The index of the first.

    Attributes
    ----------
    count : int
        How many there are.
    first : tuple of int
        The index of the first.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> try:
    ...     fastsoft.cross_entropy_grad(np.array([0.5, 0.0]), np.array([0.0, 1.0]))
    ... except fastsoft.SingularGradientError as error:
    ...     error.count, error.first
    (1, (1,))
    """

    def __init__(self, count: int, first: tuple[int, ...]) -> None:
        super().__init__(f"z: {count} entries are 0 where t is not, the first at index {first}: the gradient -t/z has "
                         'poles there; singular="inf", "nan" or "zero" allows them')  # fmt: skip
        self.count = count
        self.first = first

    def __reduce__(self) -> tuple[Any, ...]:  # from one process to another
        return type(self), (self.count, self.first)


class EmptyRowError(ValueError):
    """With ``empty="raise"``: a row holds nothing, being all -inf or all masked.

    Parameters
    ----------
    count : int
        How many such rows there are.
    first : tuple of int
        The index of the first, over the batch axes.
    name : str, default "x"
        The argument that has them.

    Attributes
    ----------
    count : int
        How many such rows there are.
    first : tuple of int
        The index of the first, over the batch axes.

    Examples
    --------
    >>> import numpy as np, fastsoft
    >>> try:
    ...     fastsoft.softmax(np.array([[0.0, 1.0], [-np.inf, -np.inf]]), empty="raise")
    ... except fastsoft.EmptyRowError as error:
    ...     error.count, error.first
    (1, (1,))
    """

    def __init__(self, count: int, first: tuple[int, ...], name: str = "x") -> None:
        super().__init__(f"{name}: {count} empty row(s) (all -inf or all masked), the first at batch index {first}; "
                         'empty="nan" or empty="zero" allows them')  # fmt: skip
        self.count = count
        self.first = first

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.count, self.first)


def array(x: object, name: str = "x", unmasked: str = ".filled(value)") -> Array:
    """`x` as an array that the kernels take: a floating type, native byte order, aligned. No copy where that holds.
    `unmasked`: what to write after the name of a masked array instead."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; pass {name}{unmasked}")
    if lazy(x):
        raise TypeError(f"{name} must not be a Dask array here: pass {name}.compute()")
    a = _read(x, name)
    if a.dtype.kind in "biu" and issubclass(a.dtype.type, (np.integer, np.bool_)):
        return a.astype(np.float64)  # widened before anything is subtracted
    if a.dtype.type not in (np.float16, np.float32, np.float64) and a.dtype.name != "bfloat16":
        remedy = f"{name}.real or abs({name})" if a.dtype.kind == "c" else f"np.asarray({name}, np.float64)"
        raise TypeError(f"{name} must be of dtype {FLOATS}, an integer or bool, got {a.dtype}; pass {remedy}")
    if not (a.dtype.isnative and a.flags.aligned):
        return a.astype(a.dtype.newbyteorder("="))
    return a


def _read(x: object, name: str) -> Array:
    """`x` as an array, of whatever type."""
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        tensor = type(x).__module__.partition(".")[0] == "torch"
        remedy = "; fastsoft.torch takes tensors" if tensor else ""
        raise kind(f"{name} cannot be read as an array: {error}{remedy}") from error


def two_arrays(x: object, v: object, names: tuple[str, str] = ("x", "v")) -> tuple[Array, Array]:
    """Two arrays of one dtype, broadcast against each other."""
    a, b = array(x, names[0]), array(v, names[1])
    if a.dtype != b.dtype:
        try:
            both = np.result_type(a, b)
        except TypeError as error:
            dtypes = f"{names[0]} of dtype {a.dtype} and {names[1]} of {b.dtype}"
            raise TypeError(f"{dtypes} have no common dtype") from error
        with quiet():
            a, b = a.astype(both, copy=False), b.astype(both, copy=False)
    if a.shape != b.shape:
        shape = common_shape(a.shape, b.shape, names)
        a, b = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    return a, b


def common_shape(first: tuple[int, ...], second: tuple[int, ...], names: tuple[str, str]) -> tuple[int, ...]:
    """The shape to which two arrays broadcast each other."""
    try:
        return np.broadcast_shapes(first, second)
    except ValueError:
        raise ValueError(f"{names[1]} must broadcast against {names[0]}, got shapes {second} and {first}") from None


def axis(axis: object, ndim: int) -> int:
    """`axis`, an int, as a number from 0 to ndim - 1; a 0-d array counts as one class."""
    try:
        found = operator.index(axis)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"axis must be an int, got {axis!r}") from None
    return axes(found, max(ndim, 1))[0]


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """`value`, which must be one of a few words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def number(name: str, value: object, low: float, high: float) -> float:
    """`value` as a float from low to high."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, (Real, np.number)) or isinstance(value, (bool, np.complexfloating)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    x = float(value)
    if not low <= x <= high or math.isinf(x):
        raise ValueError(f"{name} must be from {low:g} to {high:g} and finite, got {value!r}")
    return x


def without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """A shape without one of its axes; of a 0-d array, which counts as one class, nothing is left."""
    return shape[:axis] + shape[axis + 1 :]


def are_labels(t: object, shape: tuple[int, ...]) -> bool:
    """Whether `t` is an array of integers with an entry for each row, of the given batch shape."""
    t = np.asarray(t)
    return t.dtype.kind in "iu" and t.shape == shape


def labels(
    t: object, n: int, ignore_index: object = None, name: str = "t", start: tuple[int, ...] | None = None
) -> Array:
    """Labels as contiguous int64, -1 where they are to be ignored. `start`: where they begin in all of the labels."""
    if isinstance(t, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; pass {name}.filled(label)")
    a = np.asarray(t)  # no copy: if another thread changes `t` after the check, kernels still stay within their rows
    ignored = None
    if ignore_index is not None:
        try:
            ignored = a == operator.index(ignore_index)  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(f"ignore_index must be an int or None, got {ignore_index!r}") from None
        a = np.where(ignored, 0, a)
    if a.size and not (a.min() >= 0 and a.max() < n):
        where = tuple(map(int, np.argwhere((a < 0) | (a >= n))[0]))
        also = "" if ignore_index is None else f", or ignore_index = {ignore_index}"
        index = where if start is None else tuple(k + first for k, first in zip(where, start, strict=True))
        raise ValueError(f"{name} must hold labels from 0 to {n - 1}{also}, got {a[where]} at index {index}")
    found = a.astype(np.int64, copy=False)
    if ignored is not None:
        found = np.where(ignored, -1, found)
    return found if found.flags.c_contiguous and found.flags.aligned else found.copy()


def class_weights(weight: object, n: int) -> Array | None:
    """One weight a class, as float64."""
    if weight is None:
        return None
    w = array(weight, "weight")
    if w.shape != (n,):
        raise ValueError(f"weight must hold one number for each of the {n} classes, got shape {w.shape}")
    with quiet():
        return np.ascontiguousarray(w, np.float64)


def axes(axis: object, ndim: int) -> tuple[int, ...]:
    """`axis` (an int, a tuple of ints, or None for all) as different numbers from 0 to ndim - 1."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    found = []
    for a in given:
        try:
            k = operator.index(a)
        except TypeError:
            found_type = type(a).__name__
            raise TypeError(f"axis must be an int, a tuple of ints or None, got {found_type} in {axis!r}") from None
        if not -ndim <= k < ndim:
            raise AxisError(k, ndim, "axis")
        found.append(k % ndim)
    if len(set(found)) != len(found):
        raise ValueError(f"axis names an axis twice: {axis!r} for an array of {ndim} axes")
    return tuple(found)


def factor(temperature: object) -> tuple[int, tuple[float, float, float]]:
    """How 1/temperature is applied, and g, hi and lo with 1/temperature = g (hi + lo)."""
    if isinstance(temperature, np.ndarray) and temperature.ndim == 0:
        temperature = temperature[()]
    if not isinstance(temperature, (Real, np.number)) or isinstance(temperature, (bool, np.complexfloating)):
        raise TypeError(f"temperature must be a positive finite number, got {type(temperature).__name__}")
    try:
        t = float(temperature)
    except OverflowError:
        t = math.inf
    if not (t > 0 and math.isfinite(t)):
        raise ValueError(f"temperature must be a positive finite number, got {temperature!r}")
    return _inverse(t)


@lru_cache(maxsize=256)
def _inverse(t: float) -> tuple[int, tuple[float, float, float]]:
    """What `factor` says of a valid temperature, once for all: not in the floating-point state of one caller."""
    if t == 1:
        return PLAIN, (1.0, 0.0, 1.0)
    how, g = SCALED, 1.0
    with quiet():
        if not 2.0**-60 <= t <= 2.0**60:
            how, g = WIDE, 2.0 ** min(-math.frexp(t)[1], 1023)  # 1 <= hi: what x g gives does not overflow before x/T
        exact = 1 / (Fraction(t) * Fraction(g))
        hi = float(exact)
        return how, (hi, float(exact - Fraction(hi)), g)


def beyond(how: int, dtype: np.dtype[Any]) -> bool:
    """Whether 1/temperature may be beyond the numbers of the type, so that float64 is computed in."""
    return how == WIDE and dtype != np.float64


def mask(where: object, shape: tuple[int, ...], name: str = "x") -> Array | None:
    """`where` as booleans of the shape of x, or of what is named."""
    if where is None:
        return None
    if isinstance(where, np.ma.MaskedArray):
        raise TypeError("where is a masked array, whose mask would be lost; pass where.filled(False)")
    w = np.asarray(where)
    if w.dtype != np.bool_:
        raise TypeError(f"where must be of dtype bool, got {w.dtype}")
    try:
        return np.broadcast_to(w, shape)
    except ValueError:
        raise ValueError(f"where must broadcast to the shape of {name}, {shape}, got {w.shape}") from None


def empty_value(empty: object) -> float:
    """The probabilities in an empty row: NaN or 0."""
    if not isinstance(empty, str) or empty not in ("nan", "zero", "raise"):
        raise ValueError(f'empty must be "nan", "zero" or "raise", got {empty!r}')
    return 0.0 if empty == "zero" else math.nan


def no_empty_rows(x: Array, axis: tuple[int, ...], where: Array | None) -> None:
    """Raise EmptyRowError if a row holds nothing but -inf."""
    if x.size == 0:
        return
    with quiet():
        top = np.max(x, axis=axis, initial=-np.inf, where=True if where is None else where)
    no_empty_tops(top)


def no_empty_tops(top: Array, name: str = "x") -> None:
    """The same by the maxima of the rows."""
    rows = np.argwhere(np.asarray(top == -np.inf))
    if len(rows):
        raise EmptyRowError(len(rows), tuple(map(int, rows[0])), name)


def floating(dtype: Any) -> np.dtype[Any]:
    """A dtype that the kernels take, in native byte order."""
    try:
        found: np.dtype[Any] = np.dtype(np.dtype(dtype).type)
    except TypeError:
        raise TypeError(f"dtype must be {FLOATS}, got {dtype!r}") from None
    if found.name not in FLOATS.split(", "):
        raise TypeError(f"dtype must be {FLOATS}, got {found}")
    return found


def shape(shape: object) -> tuple[int, ...]:
    """`shape`, an int or a tuple of ints, as a tuple."""
    try:
        found = tuple(map(operator.index, shape if isinstance(shape, (tuple, list)) else (shape,)))
    except TypeError:
        raise TypeError(f"shape must be an int or a tuple of ints, got {shape!r}") from None
    if any(n < 0 for n in found):
        raise ValueError(f"shape must not be negative, got {shape!r}")
    return found


def seen(classes: int) -> int:
    """How many classes a row has seen, if it can tell them apart."""
    if classes > 1 << 31:
        raise OverflowError(f"chunk: a row can see {1 << 31} classes, got {classes}")
    return classes


def new(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array for a result, not yet filled."""
    size = math.prod(shape) * dtype.itemsize
    return np.empty(shape, dtype) if size < ALIGNED else _memory.empty(shape, dtype, size >= LARGE)


def result(out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """`out` if it fits the result, or a new array."""
    if out is None:
        return new(shape, dtype)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
    if out.dtype != dtype or not out.dtype.isnative:
        raise TypeError(f"out must be of the result's dtype {dtype}, got {out.dtype!r}")
    if out.shape != shape:
        raise ValueError(f"out must be of the result's shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    if _overlaps_itself(out):
        raise ValueError(f"out must not overlap itself, got strides {out.strides} for shape {out.shape}")
    return out


def _overlaps_itself(a: Array) -> bool:
    """Whether two elements may share memory: each axis must step over all that the smaller ones reach."""
    reach = a.itemsize
    for stride, size in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach:
            return a.size > 0
        reach += stride * (size - 1)
    return False


def must_copy(out: Array, x: Array, where: Array | None) -> bool:
    """Whether writing `out` could change what is still to be read: an overlap that is not x itself, in place."""
    if not out.flags.aligned:
        return True
    if where is not None and np.may_share_memory(out, where):
        return True
    if not np.may_share_memory(out, x):
        return False
    same = (out.ctypes.data, out.shape, out.strides) == (x.ctypes.data, x.shape, x.strides)
    if same:
        return False
    try:
        return np.shares_memory(out, x, max_work=1)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
