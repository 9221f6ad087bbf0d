"""What type checkers take the public functions for: which dtype comes back, and where it is known which shape.

The functions themselves, with their docstrings, are in `api`, `derivatives` and `losses`, the classes in `derivatives`
and `state`; there each has one plain signature, which these refine. Of several declarations the first that fits counts.
"""

from collections.abc import Sequence
from types import GenericAlias
from typing import Any, Generic, Literal, Never, Protocol, Self, SupportsIndex, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import TypeVar  # part of type checkers; Python's own has no default before 3.13

from ._config import show_config as show_config
from ._threads import get_num_threads as get_num_threads
from ._threads import num_threads as num_threads
from ._threads import set_num_threads as set_num_threads
from ._validate import EmptyRowError as EmptyRowError
from ._validate import SingularGradientError as SingularGradientError

__version__: str

class _DaskArray(Protocol):
    """What tells a Dask array from others, without Dask."""

    def __dask_graph__(self) -> Any: ...
    def map_blocks(self, *args: Any, **kwargs: Any) -> Any: ...

_A = TypeVar("_A", bound=np.ndarray[Any, Any])
_D = TypeVar("_D", bound=_DaskArray)
_F = TypeVar("_F", bound=np.floating[Any], default=Any)
_S = TypeVar("_S", bound=tuple[int, ...])

_Number: TypeAlias = float | np.integer[Any] | np.floating[Any]
# Numbers of Python, integers and bool are computed in float64, and so is whatever meets float64.
_Widened: TypeAlias = float | np.integer[Any] | np.bool_ | NDArray[np.integer[Any] | np.bool_] | Sequence[_Widened]
_Double: TypeAlias = NDArray[np.float64] | _Widened
_Real: TypeAlias = NDArray[np.floating[Any]] | _Widened
# Integers are taken for labels, though in the shape of the logits they would be dense targets, in float64.
_Labels: TypeAlias = int | np.integer[Any] | NDArray[np.integer[Any]] | Sequence[_Labels]
_Scalar: TypeAlias = np.ndarray[tuple[()], np.dtype[_F]]
_Vector: TypeAlias = np.ndarray[tuple[int], np.dtype[_F]]
_Matrix: TypeAlias = np.ndarray[tuple[int, int], np.dtype[_F]]
# An NDArray may have any number of axes, and so would be taken for a vector; but first for this, as nothing else is.
_Unknown: TypeAlias = np.ndarray[tuple[Never, Never, Never, Never], np.dtype[_F]]

_Axis: TypeAlias = SupportsIndex
_Axes: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | None
_Threads: TypeAlias = SupportsIndex | None
_Empty: TypeAlias = Literal["nan", "zero", "raise"]
_Singular: TypeAlias = Literal["raise", "inf", "nan", "zero"]
_Reduction: TypeAlias = Literal["none", "sum", "mean"]
_Summed: TypeAlias = Literal["sum", "mean"]

# ---- softmax ----

@overload
def softmax(
    x: np.ndarray[_S, np.dtype[_F]], axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0,
    empty: _Empty = "nan", out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def softmax(
    x: _F, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0, empty: _Empty = "nan",
    out: None = None, num_threads: _Threads = None,
) -> _Scalar[_F]: ...
@overload
def softmax(
    x: _Widened, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0, empty: _Empty = "nan",
    out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax(
    x: _D, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0, empty: _Empty = "nan",
    out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax(
    x: ArrayLike, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0,
    empty: _Empty = "nan", out: None = None, num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def softmax(
    x: ArrayLike, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0,
    empty: _Empty = "nan", out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def log_softmax(
    x: np.ndarray[_S, np.dtype[_F]], axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0,
    empty: _Empty = "nan", out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def log_softmax(
    x: _F, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0, empty: _Empty = "nan",
    out: None = None, num_threads: _Threads = None,
) -> _Scalar[_F]: ...
@overload
def log_softmax(
    x: _Widened, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0, empty: _Empty = "nan",
    out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax(
    x: _D, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0, empty: _Empty = "nan",
    out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def log_softmax(
    x: ArrayLike, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0,
    empty: _Empty = "nan", out: None = None, num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def log_softmax(
    x: ArrayLike, axis: _Axes = -1, *, where: ArrayLike | None = None, temperature: _Number = 1.0,
    empty: _Empty = "nan", out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def logsumexp(
    x: np.ndarray[_S, np.dtype[_F]], axis: _Axes = -1, *, keepdims: Literal[True], where: ArrayLike | None = None,
    out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def logsumexp(
    x: NDArray[_F], axis: None, *, keepdims: Literal[False] = False, where: ArrayLike | None = None, out: None = None,
    num_threads: _Threads = None,
) -> _Scalar[_F]: ...
@overload
def logsumexp(
    x: _Unknown[_F], axis: _Axis = -1, *, keepdims: Literal[False] = False, where: ArrayLike | None = None,
    out: None = None, num_threads: _Threads = None,
) -> NDArray[_F]: ...
@overload
def logsumexp(
    x: _Vector[_F], axis: _Axis = -1, *, keepdims: Literal[False] = False, where: ArrayLike | None = None,
    out: None = None, num_threads: _Threads = None,
) -> _Scalar[_F]: ...
@overload
def logsumexp(
    x: _Matrix[_F], axis: _Axis = -1, *, keepdims: Literal[False] = False, where: ArrayLike | None = None,
    out: None = None, num_threads: _Threads = None,
) -> _Vector[_F]: ...
@overload
def logsumexp(
    x: NDArray[_F], axis: _Axes = -1, *, keepdims: bool = False, where: ArrayLike | None = None, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[_F]: ...
@overload
def logsumexp(
    x: _F, axis: _Axes = -1, *, keepdims: bool = False, where: ArrayLike | None = None, out: None = None,
    num_threads: _Threads = None,
) -> _Scalar[_F]: ...
@overload
def logsumexp(
    x: _Widened, axis: _Axes = -1, *, keepdims: bool = False, where: ArrayLike | None = None, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def logsumexp(
    x: _D, axis: _Axes = -1, *, keepdims: bool = False, where: ArrayLike | None = None, out: None = None,
    num_threads: _Threads = None,
) -> _D: ...
@overload
def logsumexp(
    x: ArrayLike, axis: _Axes = -1, *, keepdims: bool = False, where: ArrayLike | None = None, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def logsumexp(
    x: ArrayLike, axis: _Axes = -1, *, keepdims: bool = False, where: ArrayLike | None = None, out: _A,
    num_threads: _Threads = None,
) -> _A: ...

# ---- its derivatives ----

@overload
def softmax_jacobian(
    x: _Unknown[_F], axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> NDArray[_F]: ...
@overload
def softmax_jacobian(
    x: _Vector[_F], axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> _Matrix[_F]: ...
@overload
def softmax_jacobian(
    x: _Matrix[_F], axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> np.ndarray[tuple[int, int, int], np.dtype[_F]]: ...
@overload
def softmax_jacobian(
    x: NDArray[_F], axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> NDArray[_F]: ...
@overload
def softmax_jacobian(
    x: _Widened, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_jacobian(
    x: _D, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_jacobian(
    x: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def softmax_jacobian(
    x: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def softmax_jacobian_diagonal(
    x: np.ndarray[_S, np.dtype[_F]], axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def softmax_jacobian_diagonal(
    x: _F, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> _Scalar[_F]: ...
@overload
def softmax_jacobian_diagonal(
    x: _Widened, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_jacobian_diagonal(
    x: _D, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_jacobian_diagonal(
    x: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def softmax_jacobian_diagonal(
    x: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def softmax_vjp(
    x: np.ndarray[_S, np.dtype[np.float64]], v: np.ndarray[_S, np.dtype[np.float64]], axis: _Axis = -1, *,
    temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[np.float64]]: ...
@overload
def softmax_vjp(
    x: _Double, v: _Real, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_vjp(
    x: _Real, v: _Double, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_vjp(
    x: np.ndarray[_S, np.dtype[_F]], v: np.ndarray[_S, np.dtype[_F]], axis: _Axis = -1, *,
    temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def softmax_vjp(
    x: _D, v: ArrayLike | _DaskArray, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_vjp(
    x: ArrayLike, v: _D, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_vjp(
    x: ArrayLike, v: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def softmax_vjp(
    x: ArrayLike, v: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def softmax_jvp(
    x: np.ndarray[_S, np.dtype[np.float64]], u: np.ndarray[_S, np.dtype[np.float64]], axis: _Axis = -1, *,
    temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[np.float64]]: ...
@overload
def softmax_jvp(
    x: _Double, u: _Real, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_jvp(
    x: _Real, u: _Double, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_jvp(
    x: np.ndarray[_S, np.dtype[_F]], u: np.ndarray[_S, np.dtype[_F]], axis: _Axis = -1, *,
    temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def softmax_jvp(
    x: _D, u: ArrayLike | _DaskArray, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_jvp(
    x: ArrayLike, u: _D, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_jvp(
    x: ArrayLike, u: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def softmax_jvp(
    x: ArrayLike, u: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def softmax_vjp_from_output(
    y: np.ndarray[_S, np.dtype[np.float64]], v: np.ndarray[_S, np.dtype[np.float64]], axis: _Axis = -1, *,
    out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[np.float64]]: ...
@overload
def softmax_vjp_from_output(
    y: _Double, v: _Real, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_vjp_from_output(
    y: _Real, v: _Double, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_vjp_from_output(
    y: np.ndarray[_S, np.dtype[_F]], v: np.ndarray[_S, np.dtype[_F]], axis: _Axis = -1, *,
    out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def softmax_vjp_from_output(
    y: _D, v: ArrayLike | _DaskArray, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_vjp_from_output(
    y: ArrayLike, v: _D, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_vjp_from_output(
    y: ArrayLike, v: ArrayLike, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def softmax_vjp_from_output(
    y: ArrayLike, v: ArrayLike, axis: _Axis = -1, *, out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def log_softmax_vjp(
    x: np.ndarray[_S, np.dtype[np.float64]], g: np.ndarray[_S, np.dtype[np.float64]], axis: _Axis = -1, *,
    temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[np.float64]]: ...
@overload
def log_softmax_vjp(
    x: _Double, g: _Real, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax_vjp(
    x: _Real, g: _Double, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax_vjp(
    x: np.ndarray[_S, np.dtype[_F]], g: np.ndarray[_S, np.dtype[_F]], axis: _Axis = -1, *,
    temperature: _Number = 1.0, out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def log_softmax_vjp(
    x: _D, g: ArrayLike | _DaskArray, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> _D: ...
@overload
def log_softmax_vjp(
    x: ArrayLike, g: _D, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> _D: ...
@overload
def log_softmax_vjp(
    x: ArrayLike, g: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: None = None,
    num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def log_softmax_vjp(
    x: ArrayLike, g: ArrayLike, axis: _Axis = -1, *, temperature: _Number = 1.0, out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def log_softmax_vjp_from_output(
    y: np.ndarray[_S, np.dtype[np.float64]], g: np.ndarray[_S, np.dtype[np.float64]], axis: _Axis = -1, *,
    out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[np.float64]]: ...
@overload
def log_softmax_vjp_from_output(
    y: _Double, g: _Real, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax_vjp_from_output(
    y: _Real, g: _Double, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def log_softmax_vjp_from_output(
    y: np.ndarray[_S, np.dtype[_F]], g: np.ndarray[_S, np.dtype[_F]], axis: _Axis = -1, *,
    out: None = None, num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def log_softmax_vjp_from_output(
    y: _D, g: ArrayLike | _DaskArray, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def log_softmax_vjp_from_output(
    y: ArrayLike, g: _D, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def log_softmax_vjp_from_output(
    y: ArrayLike, g: ArrayLike, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def log_softmax_vjp_from_output(
    y: ArrayLike, g: ArrayLike, axis: _Axis = -1, *, out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def softmax_vjp_zeros(x: _D, v: ArrayLike | _DaskArray, axis: _Axis = -1, *, tol: _Number | None = None) -> _D: ...
@overload
def softmax_vjp_zeros(x: ArrayLike, v: _D, axis: _Axis = -1, *, tol: _Number | None = None) -> _D: ...
@overload
def softmax_vjp_zeros(
    x: ArrayLike, v: ArrayLike, axis: _Axis = -1, *, tol: _Number | None = None,
) -> NDArray[np.bool_]: ...

class SoftmaxJacobian(Generic[_F]):
    shape: tuple[int, ...]
    dtype: np.dtype[_F]
    __array_ufunc__: None
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    @overload
    def __init__(self, x: NDArray[_F], axis: _Axis = -1) -> None: ...
    @overload
    def __init__(self: SoftmaxJacobian[np.float64], x: _Widened, axis: _Axis = -1) -> None: ...
    @overload
    def __init__(self: SoftmaxJacobian[Any], x: ArrayLike, axis: _Axis = -1) -> None: ...
    @overload
    def __matmul__(self, v: NDArray[_F]) -> NDArray[_F]: ...
    @overload
    def __matmul__(self, v: _Double) -> NDArray[np.float64]: ...
    @overload
    def __matmul__(self, v: ArrayLike) -> NDArray[Any]: ...
    __rmatmul__ = __matmul__
    @overload
    def matvec(self, v: NDArray[_F]) -> NDArray[_F]: ...
    @overload
    def matvec(self, v: _Double) -> NDArray[np.float64]: ...
    @overload
    def matvec(self, v: ArrayLike) -> NDArray[Any]: ...
    matmat = matvec
    rmatvec = matvec
    rmatmat = matvec
    def diagonal(self) -> NDArray[_F]: ...
    def toarray(self) -> NDArray[_F]: ...
    @overload
    def solve(self, w: NDArray[_F]) -> NDArray[_F]: ...
    @overload
    def solve(self, w: _Double) -> NDArray[np.float64]: ...
    @overload
    def solve(self, w: ArrayLike) -> NDArray[Any]: ...

# ---- losses ----

@overload
def cross_entropy(
    z: _Unknown[_F], t: _Labels, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[_F]: ...
@overload
def cross_entropy(
    z: _Matrix[_F], t: _Labels, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> _Vector[_F]: ...
@overload
def cross_entropy(
    z: _Double, t: _Real, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def cross_entropy(
    z: NDArray[_F], t: _Labels | NDArray[_F], axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[_F]: ...
@overload
def cross_entropy(
    z: _D, t: ArrayLike | _DaskArray, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def cross_entropy(z: ArrayLike, t: _D, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None) -> _D: ...
@overload
def cross_entropy(
    z: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, out: None = None, num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def cross_entropy(z: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, out: _A, num_threads: _Threads = None) -> _A: ...
@overload
def cross_entropy_grad(
    z: np.ndarray[_S, np.dtype[np.float64]], t: _Labels | np.ndarray[_S, np.dtype[np.float64]], axis: _Axis = -1, *,
    singular: _Singular = "raise", return_singular: Literal[False] = False, out: None = None,
    num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[np.float64]]: ...
@overload
def cross_entropy_grad(
    z: np.ndarray[_S, np.dtype[np.float64]], t: _Labels | np.ndarray[_S, np.dtype[np.float64]], axis: _Axis = -1, *,
    singular: _Singular = "raise", return_singular: Literal[True], out: None = None, num_threads: _Threads = None,
) -> tuple[np.ndarray[_S, np.dtype[np.float64]], np.ndarray[_S, np.dtype[np.int8]]]: ...
@overload
def cross_entropy_grad(
    z: _Double, t: _Real, axis: _Axis = -1, *, singular: _Singular = "raise", return_singular: Literal[False] = False,
    out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def cross_entropy_grad(
    z: _Double, t: _Real, axis: _Axis = -1, *, singular: _Singular = "raise", return_singular: Literal[True],
    out: None = None, num_threads: _Threads = None,
) -> tuple[NDArray[np.float64], NDArray[np.int8]]: ...
@overload
def cross_entropy_grad(
    z: np.ndarray[_S, np.dtype[_F]], t: _Labels | np.ndarray[_S, np.dtype[_F]], axis: _Axis = -1, *,
    singular: _Singular = "raise", return_singular: Literal[False] = False, out: None = None,
    num_threads: _Threads = None,
) -> np.ndarray[_S, np.dtype[_F]]: ...
@overload
def cross_entropy_grad(
    z: np.ndarray[_S, np.dtype[_F]], t: _Labels | np.ndarray[_S, np.dtype[_F]], axis: _Axis = -1, *,
    singular: _Singular = "raise", return_singular: Literal[True], out: None = None, num_threads: _Threads = None,
) -> tuple[np.ndarray[_S, np.dtype[_F]], np.ndarray[_S, np.dtype[np.int8]]]: ...
@overload
def cross_entropy_grad(
    z: _D, t: ArrayLike | _DaskArray, axis: _Axis = -1, *, singular: _Singular = "raise",
    return_singular: Literal[False] = False, out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def cross_entropy_grad(
    z: _D, t: ArrayLike | _DaskArray, axis: _Axis = -1, *, singular: _Singular = "raise",
    return_singular: Literal[True], out: None = None, num_threads: _Threads = None,
) -> tuple[_D, _D]: ...
@overload
def cross_entropy_grad(
    z: ArrayLike, t: _D, axis: _Axis = -1, *, singular: _Singular = "raise", return_singular: Literal[False] = False,
    out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def cross_entropy_grad(
    z: ArrayLike, t: _D, axis: _Axis = -1, *, singular: _Singular = "raise", return_singular: Literal[True],
    out: None = None, num_threads: _Threads = None,
) -> tuple[_D, _D]: ...
@overload
def cross_entropy_grad(
    z: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, singular: _Singular = "raise",
    return_singular: Literal[False] = False, out: None = None, num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def cross_entropy_grad(
    z: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, singular: _Singular = "raise", return_singular: Literal[True],
    out: None = None, num_threads: _Threads = None,
) -> tuple[NDArray[Any], NDArray[np.int8]]: ...
@overload
def cross_entropy_grad(
    z: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, singular: _Singular = "raise",
    return_singular: Literal[False] = False, out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def cross_entropy_grad(
    z: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, singular: _Singular = "raise", return_singular: Literal[True],
    out: _A, num_threads: _Threads = None,
) -> tuple[_A, NDArray[np.int8]]: ...
@overload
def cross_entropy_grad(
    z: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, singular: _Singular = "raise", return_singular: bool = False,
    out: np.ndarray[Any, Any] | None = None, num_threads: _Threads = None,
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[np.int8]]: ...
@overload
def softmax_cross_entropy(
    x: _Unknown[_F], t: _Labels, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: Literal["none"] = "none", out: None = None, num_threads: _Threads = None,
) -> NDArray[_F]: ...
@overload
def softmax_cross_entropy(
    x: _Matrix[_F], t: _Labels, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: Literal["none"] = "none", out: None = None, num_threads: _Threads = None,
) -> _Vector[_F]: ...
@overload
def softmax_cross_entropy(
    x: _Double, t: _Real, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Summed, out: None = None, num_threads: _Threads = None,
) -> _Scalar[np.float64]: ...
@overload
def softmax_cross_entropy(
    x: _Double, t: _Real, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> NDArray[np.float64]: ...
@overload
def softmax_cross_entropy(
    x: NDArray[_F], t: _Labels | NDArray[_F], axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Summed, out: None = None, num_threads: _Threads = None,
) -> _Scalar[_F]: ...
@overload
def softmax_cross_entropy(
    x: NDArray[_F], t: _Labels | NDArray[_F], axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> NDArray[_F]: ...
@overload
def softmax_cross_entropy(
    x: _D, t: ArrayLike | _DaskArray, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_cross_entropy(
    x: ArrayLike, t: _D, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> _D: ...
@overload
def softmax_cross_entropy(
    x: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> NDArray[Any]: ...
@overload
def softmax_cross_entropy(
    x: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: _A, num_threads: _Threads = None,
) -> _A: ...
@overload
def softmax_cross_entropy_with_grad(
    x: _Unknown[_F], t: _Labels, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: Literal["none"] = "none", out: None = None, num_threads: _Threads = None,
) -> tuple[NDArray[_F], NDArray[_F]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: _Matrix[_F], t: _Labels, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: Literal["none"] = "none", out: None = None, num_threads: _Threads = None,
) -> tuple[_Vector[_F], _Matrix[_F]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: np.ndarray[_S, np.dtype[np.float64]], t: _Real, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Summed, out: None = None, num_threads: _Threads = None,
) -> tuple[_Scalar[np.float64], np.ndarray[_S, np.dtype[np.float64]]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: np.ndarray[_S, np.dtype[np.float64]], t: _Real, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> tuple[NDArray[np.float64], np.ndarray[_S, np.dtype[np.float64]]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: _Double, t: _Real, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Summed, out: None = None, num_threads: _Threads = None,
) -> tuple[_Scalar[np.float64], NDArray[np.float64]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: _Double, t: _Real, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: np.ndarray[_S, np.dtype[_F]], t: _Labels | NDArray[_F], axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Summed, out: None = None, num_threads: _Threads = None,
) -> tuple[_Scalar[_F], np.ndarray[_S, np.dtype[_F]]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: np.ndarray[_S, np.dtype[_F]], t: _Labels | NDArray[_F], axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> tuple[NDArray[_F], np.ndarray[_S, np.dtype[_F]]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: _D, t: ArrayLike | _DaskArray, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> tuple[_D, _D]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: ArrayLike, t: _D, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> tuple[_D, _D]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: None = None, num_threads: _Threads = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Summed, out: np.ndarray[_S, np.dtype[_F]], num_threads: _Threads = None,
) -> tuple[_Scalar[_F], np.ndarray[_S, np.dtype[_F]]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: np.ndarray[_S, np.dtype[_F]],
    num_threads: _Threads = None,
) -> tuple[NDArray[_F], np.ndarray[_S, np.dtype[_F]]]: ...
@overload
def softmax_cross_entropy_with_grad(
    x: ArrayLike, t: ArrayLike, axis: _Axis = -1, *, weight: ArrayLike | None = None,
    ignore_index: SupportsIndex | None = None, label_smoothing: _Number = 0.0, z_loss: _Number = 0.0,
    temperature: _Number = 1.0, reduction: _Reduction = "none", out: _A, num_threads: _Threads = None,
) -> tuple[NDArray[Any], _A]: ...

# ---- rows in chunks ----

class LogSumExp(Generic[_F]):
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    @overload
    def __init__(
        self: LogSumExp[np.float64], shape: SupportsIndex | Sequence[SupportsIndex] = (), *, dtype: type[float] = ...,
        temperature: _Number = 1.0,
    ) -> None: ...
    @overload
    def __init__(
        self, shape: SupportsIndex | Sequence[SupportsIndex] = (), *, dtype: type[_F] | np.dtype[_F],
        temperature: _Number = 1.0,
    ) -> None: ...
    @overload
    def __init__(
        self: LogSumExp[Any], shape: SupportsIndex | Sequence[SupportsIndex] = (), *, dtype: DTypeLike,
        temperature: _Number = 1.0,
    ) -> None: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[_F]: ...
    @property
    def temperature(self) -> float: ...
    @property
    def nbytes(self) -> int: ...
    def update(
        self, chunk: ArrayLike, axis: _Axis = -1, *, where: ArrayLike | None = None, num_threads: _Threads = None,
    ) -> Self: ...
    def merge(self, other: LogSumExp[_F]) -> Self: ...
    def copy(self) -> LogSumExp[_F]: ...
    def __copy__(self) -> LogSumExp[_F]: ...
    def result(self) -> NDArray[_F]: ...
    @overload
    def softmax(
        self, chunk: np.ndarray[_S, Any], axis: _Axis = -1, *, where: ArrayLike | None = None, empty: _Empty = "nan",
        out: None = None, num_threads: _Threads = None,
    ) -> np.ndarray[_S, np.dtype[_F]]: ...
    @overload
    def softmax(
        self, chunk: ArrayLike, axis: _Axis = -1, *, where: ArrayLike | None = None, empty: _Empty = "nan",
        out: None = None, num_threads: _Threads = None,
    ) -> NDArray[_F]: ...
    @overload
    def softmax(
        self, chunk: ArrayLike, axis: _Axis = -1, *, where: ArrayLike | None = None, empty: _Empty = "nan", out: _A,
        num_threads: _Threads = None,
    ) -> _A: ...
    @overload
    def log_softmax(
        self, chunk: np.ndarray[_S, Any], axis: _Axis = -1, *, where: ArrayLike | None = None, empty: _Empty = "nan",
        out: None = None, num_threads: _Threads = None,
    ) -> np.ndarray[_S, np.dtype[_F]]: ...
    @overload
    def log_softmax(
        self, chunk: ArrayLike, axis: _Axis = -1, *, where: ArrayLike | None = None, empty: _Empty = "nan",
        out: None = None, num_threads: _Threads = None,
    ) -> NDArray[_F]: ...
    @overload
    def log_softmax(
        self, chunk: ArrayLike, axis: _Axis = -1, *, where: ArrayLike | None = None, empty: _Empty = "nan", out: _A,
        num_threads: _Threads = None,
    ) -> _A: ...
    @overload
    def softmax_complement(
        self, chunk: np.ndarray[_S, Any], axis: _Axis = -1, *, where: ArrayLike | None = None,
        num_threads: _Threads = None,
    ) -> np.ndarray[_S, np.dtype[_F]]: ...
    @overload
    def softmax_complement(
        self, chunk: ArrayLike, axis: _Axis = -1, *, where: ArrayLike | None = None, num_threads: _Threads = None,
    ) -> NDArray[_F]: ...
