"""What the tests share: input arrays, the ways they can lie in memory, and comparisons."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastsoft
from fastsoft import _dispatch, _entry
from fastsoft.reference import OPS, Operation, max_error

Array = np.ndarray[Any, Any]

FLOATS = ("float16", "bfloat16", "float32", "float64")
WORK = ("float32", "float64")  # the types that are computed in
INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
# Around a register's lanes (16 float32, 8 float64), several registers, and a block of a long row.
LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000, 8191, 8192, 8193)


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of that name; the test is skipped where only ml_dtypes would have it."""
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16)
    return np.dtype(name)


extended = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63,
    reason="NOT TESTED: longdouble has no more digits than float64 here, so errors are larger than they look",
)

FAMILY = ("softmax", "log_softmax", "logsumexp")  # one argument, and several axes, where=, empty=


def function(op: Operation) -> Callable[..., Array]:
    """The public function of an operation; if it has several arguments, with those that `op` makes of logits."""
    public: Callable[..., Any] = getattr(fastsoft, op.name)
    if op.name in FAMILY:
        return public

    def call(x: Any, axis: Any = -1, **options: Any) -> Array:
        return given(op, *op.arguments(np.asarray(x), axis), axis=axis, **options)

    return call


def given(op: Operation, *arguments: Any, **options: Any) -> Array:
    """What an operation gives for all of its arguments: of two results the gradient."""
    y = getattr(fastsoft, op.name)(*arguments, **options)
    return y[1] if isinstance(y, tuple) else y  # type: ignore[no-any-return]


def in_python(patch: pytest.MonkeyPatch) -> None:
    """Let all calls of public functions go the long way: to the function in Python, without the compiled way in."""
    for name in set(_entry.general) & set(fastsoft.__all__):
        patch.setattr(fastsoft, name, _entry.general[name])


def takes(op: Operation, argument: str) -> bool:
    """Whether the function of an operation has an argument of that name."""
    return argument in inspect.signature(getattr(fastsoft, op.name)).parameters


def reduces(op: Operation) -> bool:
    """Whether the result has lost the class axis."""
    return op.classes == 0


def result_shape(op: Operation, shape: tuple[int, ...], axis: int = -1) -> tuple[int, ...]:
    """The shape of the operation's result for x of a shape."""
    if op.classes == 1:
        return shape
    batch = tuple(np.delete(shape, axis).tolist())
    return (*batch, *[shape[axis]] * op.classes)


def lengths(op: Operation, of: Iterable[int]) -> list[int]:
    """The lengths, or fewer and small ones where each row gives a matrix."""
    return [n for n in of if op.classes < 2 or n in (1, 2, 3, 8, 16, 17, 30, 33, 65, 129)]


def within_reach(op: Operation, shape: tuple[int, ...], axis: int = -1) -> tuple[int, ...]:
    """The shape, or where each row gives a matrix one that is not too large for that."""
    if op.classes < 2:
        return shape
    n = min(shape[axis], 129)
    return tuple(n if d == axis % len(shape) else min(size, (1 << 20) // n**2) for d, size in enumerate(shape))


def operations(ops: Iterable[Operation]) -> pytest.MarkDecorator:
    """For each of these operations."""
    return pytest.mark.parametrize("op", list(ops), ids=lambda op: op.name)


SWEPT = [op for op in OPS if op.name != "softmax_jvp"]  # which is softmax_vjp bit for bit: test_derivatives.py
SAMPLE = (*FAMILY, "softmax_jacobian_diagonal", "softmax_vjp", "log_softmax_vjp", "softmax_cross_entropy_with_grad")
every_operation = operations(SWEPT)
some_operations = operations(op for op in OPS if op.name in SAMPLE)  # one of each way through the kernels
softmax_family = operations(op for op in OPS if op.name in FAMILY)
at_any_length = operations(op for op in SWEPT if op.classes < 2)
elementwise = operations(op for op in SWEPT if op.classes == 1)
with_temperature = operations(op for op in SWEPT if takes(op, "temperature"))
with_empty = operations(op for op in OPS if takes(op, "empty"))


def logits(shape: tuple[int, ...], dtype: Any, seed: int = 0, largest: float = 20) -> Array:
    """Normal numbers, whose deviation is from 0.2 to `largest` in a row: flat rows beside confident ones."""
    rng = np.random.default_rng([seed, *shape])
    deviation = 0.2 * (largest / 0.2) ** rng.random((*shape[:-1], 1))
    return (rng.standard_normal(shape) * deviation).astype(dtype)


def layouts(x: Array) -> Iterator[tuple[str, Array, int]]:
    """A (p, q, n) array in other memory: a name, the array and its class axis. All have x's rows in x's order."""
    n = x.shape[-1]
    columns = np.ascontiguousarray(x.reshape(-1, n).T)
    gaps = np.tile(x, (2, 2, 2))  # a wrong step would take the wrong number
    gaps[::2, ::2, ::2] = x
    yield "C order", x, -1
    yield "Fortran order", np.asfortranarray(x), -1
    yield "reversed", np.ascontiguousarray(x[::-1, ::-1, ::-1])[::-1, ::-1, ::-1], -1
    yield "every second", gaps[::2, ::2, ::2], -1
    yield "first axis of two", columns, 0
    yield "first axis of two, reversed", np.ascontiguousarray(columns[::-1, ::-1])[::-1, ::-1], 0
    yield "two axes transposed", columns.T, -1
    yield "first axis of three", np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0
    yield "middle axis", np.ascontiguousarray(np.moveaxis(x, -1, 1)), 1
    yield "three axes transposed", np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1), -1
    yield "batch transposed", np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2), -1


def all_layouts(op: Operation, x: Array, *, mixed: bool = True) -> Iterator[tuple[str, tuple[Array, ...], int]]:
    """As `layouts`, all arguments that the operation makes of x: each laid out alike, and one by one contiguous."""
    arguments = op.arguments(x)
    whole = [list(layouts(a)) for a in arguments if a.shape == x.shape]
    for k, (name, a, axis) in enumerate(whole[0]):
        batch = np.delete(a.shape, axis)
        labels = [np.repeat(b, 2, -1).ravel()[::2].reshape(batch) for b in arguments if b.shape != x.shape]
        alike = [ways[k][1] for ways in whole]
        plain = [np.ascontiguousarray(b) for b in alike]
        yield name, (*alike, *labels), axis
        if len(whole) > 1 and mixed:
            yield f"{name}, the first contiguous", (plain[0], *alike[1:]), axis
            yield f"{name}, the others contiguous", (alike[0], *plain[1:]), axis


def in_rows(result: Array, x: Array, axis: int) -> Array:
    """The result for x with a row for each row of x: (rows, n), (rows,) where the operation reduces, (rows, n, n)."""
    if result.ndim < x.ndim:
        return result.reshape(-1)
    if result.ndim > x.ndim:
        return result.reshape(-1, *result.shape[-2:])
    return np.moveaxis(result, axis, -1).reshape(-1, x.shape[axis])


def bound_of(op: Operation, dtype: np.dtype[Any]) -> float:
    """The error in ULP that an operation allows itself."""
    return op.bound16 if dtype.itemsize == 2 else op.bound


def knowing(op: Operation, want: Array, size: Array | None = None) -> Operation:
    """The operation with a result, and a measure of its error, that are known, for several comparisons with it."""
    known = np.abs(want) if size is None else size
    return replace(op, reference=lambda *_, **__: want, size=lambda *_, **__: known, derive=lambda x, _: (x,))


def assert_accurate(
    op: Operation, got: Array, x: Array, axis: int = -1, *, bound: float | None = None, **options: Any
) -> None:
    """`got` = op(x) within the bound of the operation."""
    bound = bound_of(op, got.dtype) if bound is None else bound
    error = max_error(op, got, x, axis, **options)
    assert error <= bound, f"an error of {error:.4g} ULP, {bound} are allowed"


WAYS_IN = ("fastsoft.api", "fastsoft.derivatives", "fastsoft.losses")


def use(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every module of the package, and of the tests, compute by the variant of that name."""
    kernels = _dispatch.load(isa)
    ours = [module for name, module in sys.modules.items() if name.startswith(("fastsoft", "test_"))]
    for module in ours:
        if "kernels" in vars(module) and module is not _dispatch:
            monkeypatch.setattr(module, "kernels", kernels)
        for name, value in list(vars(module).items()):  # the ways in, whatever they are called there
            if type(value) is type(fastsoft.softmax) and value.__module__ in WAYS_IN:
                monkeypatch.setattr(module, name, _entry.entry(kernels, value.__name__))


def bits(a: Array) -> Array:
    """The numbers' bits, in which 0 and -0 differ and NaN equals itself."""
    return np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}").reshape(a.shape)


def assert_same_bits(got: Array, want: Array) -> None:
    """The same dtype, shape and bits."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    differ = np.argwhere(bits(got) != bits(want))
    if len(differ):
        first = tuple(map(int, differ[0]))
        pytest.fail(f"{len(differ)} of {got.size} differ, first at {first}: {got[first]!r} and {want[first]!r}")


def python(code: str, *, timeout: float = 60, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter, which hangs no longer than `timeout` seconds. None unsets a variable."""
    merged = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in merged.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
