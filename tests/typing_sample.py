"""What type checkers see of the public functions, in calls as users write them.

mypy and basedpyright read it (`make lint`); `test_typing.py` runs it, and looks whether each `assert_type` holds.
"""

from __future__ import annotations

from typing import Any, assert_type, cast

import numpy as np
import numpy.typing as npt

import fastsoft
from fastsoft.compat import scipy as compat

Half = npt.NDArray[np.float16]
Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Kinds = npt.NDArray[np.int8]
Vector = np.ndarray[tuple[int], np.dtype[np.float32]]
VectorDouble = np.ndarray[tuple[int], np.dtype[np.float64]]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float32]]
MatrixDouble = np.ndarray[tuple[int, int], np.dtype[np.float64]]
MatrixKinds = np.ndarray[tuple[int, int], np.dtype[np.int8]]
Cube = np.ndarray[tuple[int, int, int], np.dtype[np.float32]]
ScalarSingle = np.ndarray[tuple[()], np.dtype[np.float32]]
ScalarDouble = np.ndarray[tuple[()], np.dtype[np.float64]]

h: Half = np.ones((2, 3), np.float16)
x: Single = np.ones((2, 3), np.float32)
d: Double = np.ones((2, 3), np.float64)
i: npt.NDArray[np.int32] = np.ones((2, 3), np.int32)
b: Bools = np.ones((2, 3), np.bool_)
labels: npt.NDArray[np.int64] = np.array([0, 2])
unknown: npt.NDArray[Any] = x
named: npt.NDArray[np.generic] = x  # so do type checkers see an array of bfloat16


def softmax() -> None:
    """Floating dtypes are kept, the rest becomes float64."""
    assert_type(fastsoft.softmax(h), Half)
    assert_type(fastsoft.softmax(x, axis=(0, 1), temperature=np.float32(0.5)), Single)
    assert_type(fastsoft.softmax(d, None, where=b, empty="zero"), Double)
    assert_type(fastsoft.softmax(i), Double)
    assert_type(fastsoft.softmax(b), Double)
    assert_type(fastsoft.softmax([1, 2.0, True]), Double)
    assert_type(fastsoft.softmax([[1, 2], [3, 4]], num_threads=1), Double)
    assert_type(fastsoft.log_softmax(x, labels[0]), Single)
    assert_type(fastsoft.log_softmax((1.0, 2.0)), Double)
    assert_type(fastsoft.logsumexp(h), Half)
    assert_type(fastsoft.logsumexp(x, keepdims=True), Single)
    assert_type(fastsoft.logsumexp(x, None), ScalarSingle)
    assert_type(fastsoft.logsumexp(i, 0), Double)


def scalars() -> None:
    """A number of NumPy's is an array without axes."""
    assert_type(fastsoft.softmax(np.float32(1)), ScalarSingle)
    assert_type(fastsoft.log_softmax(np.float64(1)), ScalarDouble)
    assert_type(fastsoft.logsumexp(np.float32(1)), ScalarSingle)
    assert_type(fastsoft.softmax_jacobian_diagonal(np.float32(1)), ScalarSingle)


def shapes() -> None:
    """A number of axes that is known is kept, or is one less or one more."""
    v: Vector = np.ones(3, np.float32)
    m: Matrix = np.ones((2, 3), np.float32)
    a: Cube = np.ones((2, 3, 4), np.float32)
    assert_type(fastsoft.softmax(v), Vector)
    assert_type(fastsoft.log_softmax(m), Matrix)
    assert_type(fastsoft.logsumexp(m, keepdims=True), Matrix)
    assert_type(fastsoft.logsumexp(a, 0), Single)
    assert_type(fastsoft.logsumexp(m), Vector)
    assert_type(fastsoft.logsumexp(m, (0,)), Single)
    assert_type(fastsoft.logsumexp(v, where=[True, False, True]), ScalarSingle)
    assert_type(fastsoft.softmax_jacobian(v), Matrix)
    assert_type(fastsoft.softmax_jacobian(m, 0), Cube)
    assert_type(fastsoft.softmax_jacobian(a), Single)
    assert_type(fastsoft.softmax_jacobian_diagonal(m), Matrix)


def shapes_of_two() -> None:
    """So it is where both arrays have it, and where labels go with logits."""
    m: Matrix = np.ones((2, 3), np.float32)
    w: MatrixDouble = np.ones((2, 3))
    a: Cube = np.ones((2, 3, 4), np.float32)
    assert_type(fastsoft.softmax_vjp(m, m), Matrix)
    assert_type(fastsoft.softmax_vjp(w, w), MatrixDouble)
    assert_type(fastsoft.softmax_vjp(m, w), Double)
    assert_type(fastsoft.softmax_jvp(a, a), Cube)
    assert_type(fastsoft.softmax_vjp_from_output(m, m), Matrix)
    assert_type(fastsoft.log_softmax_vjp(w, w), MatrixDouble)
    assert_type(fastsoft.log_softmax_vjp_from_output(m, m), Matrix)
    assert_type(fastsoft.cross_entropy(m, labels), Vector)
    assert_type(fastsoft.cross_entropy(w, [0, 1]), VectorDouble)
    assert_type(fastsoft.cross_entropy_grad(m, m), Matrix)
    assert_type(fastsoft.cross_entropy_grad(w, labels, return_singular=True), tuple[MatrixDouble, MatrixKinds])
    assert_type(fastsoft.softmax_cross_entropy(m, labels), Vector)
    assert_type(fastsoft.softmax_cross_entropy(w, labels, reduction="mean"), ScalarDouble)
    assert_type(fastsoft.softmax_cross_entropy_with_grad(m, labels), tuple[Vector, Matrix])
    assert_type(fastsoft.softmax_cross_entropy_with_grad(m, m), tuple[Single, Matrix])
    assert_type(fastsoft.softmax_cross_entropy_with_grad(w, w), tuple[Double, MatrixDouble])
    assert_type(fastsoft.softmax_cross_entropy_with_grad(w, labels), tuple[VectorDouble, MatrixDouble])
    assert_type(fastsoft.softmax_cross_entropy_with_grad(m, labels, reduction="sum"), tuple[ScalarSingle, Matrix])
    assert_type(fastsoft.softmax_cross_entropy_with_grad(w, labels, reduction="sum"), tuple[ScalarDouble, MatrixDouble])


def states() -> None:
    """What a state gives of a chunk has the axes of the chunk."""
    m: Matrix = np.ones((2, 3), np.float32)
    state = fastsoft.LogSumExp(2, dtype=np.float32).update(m)
    assert_type(state.softmax(m), Matrix)
    assert_type(state.softmax_complement(m), Matrix)


def out() -> None:
    """`out=` is what comes back."""
    y: Matrix = np.empty((2, 3), np.float32)
    square: Matrix = np.empty((2, 2), np.float32)
    row: Vector = np.empty(2, np.float32)
    assert_type(fastsoft.softmax(x, out=y), Matrix)
    assert_type(fastsoft.log_softmax(x, out=y), Matrix)
    assert_type(fastsoft.logsumexp(x, out=row), Vector)
    assert_type(fastsoft.softmax_jacobian(x[0, :2], out=square), Matrix)
    assert_type(fastsoft.softmax_jacobian_diagonal(x, out=y), Matrix)
    assert_type(fastsoft.softmax_vjp(x, x, out=y), Matrix)
    assert_type(fastsoft.softmax_jvp(x, x, out=y), Matrix)
    assert_type(fastsoft.softmax_vjp_from_output(x, x, out=y), Matrix)
    assert_type(fastsoft.log_softmax_vjp(x, x, out=y), Matrix)
    assert_type(fastsoft.log_softmax_vjp_from_output(x, x, out=y), Matrix)
    assert_type(fastsoft.cross_entropy(x, x, out=row), Vector)
    assert_type(fastsoft.cross_entropy_grad(x, x, out=y), Matrix)
    assert_type(fastsoft.cross_entropy_grad(x, x, return_singular=True, out=y), tuple[Matrix, Kinds])
    assert_type(fastsoft.softmax_cross_entropy(x, labels, out=row), Vector)
    assert_type(fastsoft.softmax_cross_entropy_with_grad(x, labels, out=y), tuple[Single, Matrix])
    assert_type(
        fastsoft.softmax_cross_entropy_with_grad(x, labels, reduction="mean", out=y), tuple[ScalarSingle, Matrix]
    )


def derivatives() -> None:
    """Two arrays give the dtype of both together."""
    assert_type(fastsoft.softmax_jacobian(x), Single)
    assert_type(fastsoft.softmax_jacobian([1, 2]), Double)
    assert_type(fastsoft.softmax_jacobian_diagonal(h, temperature=2), Half)
    assert_type(fastsoft.softmax_jacobian_diagonal(i), Double)
    assert_type(fastsoft.softmax_vjp(x, x), Single)
    assert_type(fastsoft.softmax_vjp(x, d), Double)
    assert_type(fastsoft.softmax_vjp(d, h), Double)
    assert_type(fastsoft.softmax_vjp(x, [1, 0, 0]), Double)
    assert_type(fastsoft.softmax_jvp(h, u=h), Half)
    assert_type(fastsoft.softmax_jvp(i, b), Double)
    assert_type(fastsoft.softmax_vjp_from_output(y=x, v=x), Single)
    assert_type(fastsoft.softmax_vjp_from_output(x, i), Double)
    assert_type(fastsoft.log_softmax_vjp(x, g=x), Single)
    assert_type(fastsoft.log_softmax_vjp(d, 1.0), Double)
    assert_type(fastsoft.log_softmax_vjp_from_output(h, h), Half)
    assert_type(fastsoft.log_softmax_vjp_from_output([0.5, 0.5], [1, 0]), Double)
    assert_type(fastsoft.softmax_vjp_zeros(x, d, tol=0.5), Bools)


def operator() -> None:
    """The Jacobian as an operator has the dtype of its logits."""
    jacobian = fastsoft.SoftmaxJacobian(x)
    assert_type(jacobian, fastsoft.SoftmaxJacobian[np.float32])
    assert_type(fastsoft.SoftmaxJacobian([1, 2]), fastsoft.SoftmaxJacobian[np.float64])
    assert_type(jacobian.shape, tuple[int, ...])
    assert_type(jacobian @ x, Single)
    assert_type(jacobian @ d, Double)
    assert_type(x @ jacobian, Single)
    assert_type([1, 2, 3] @ jacobian, Double)
    assert_type(jacobian.matvec([1, 2, 3]), Double)
    assert_type(jacobian.rmatvec(x), Single)
    assert_type(jacobian.diagonal(), Single)
    assert_type(jacobian.toarray(), Single)
    assert_type(jacobian.solve(x), Single)


def losses() -> None:
    """Integers are labels; a sum or a mean is an array without axes."""
    assert_type(fastsoft.cross_entropy(x, labels), Single)
    assert_type(fastsoft.cross_entropy(x, [0, 1]), Single)
    assert_type(fastsoft.cross_entropy(x, x), Single)
    assert_type(fastsoft.cross_entropy(i, labels), Double)
    assert_type(fastsoft.cross_entropy_grad(x, labels, singular="inf"), Single)
    assert_type(fastsoft.cross_entropy_grad(x, x, return_singular=True), tuple[Single, Kinds])
    assert_type(fastsoft.cross_entropy_grad(i, i, return_singular=True), tuple[Double, Kinds])
    assert_type(fastsoft.softmax_cross_entropy(x, labels, weight=[1, 2, 3], ignore_index=-1), Single)
    assert_type(fastsoft.softmax_cross_entropy(x, x, reduction="none"), Single)
    assert_type(fastsoft.softmax_cross_entropy(x, labels, reduction="mean"), ScalarSingle)
    assert_type(fastsoft.softmax_cross_entropy([1, 2, 3], 0, reduction="sum"), ScalarDouble)
    assert_type(fastsoft.softmax_cross_entropy_with_grad(h, labels), tuple[Half, Half])
    assert_type(fastsoft.softmax_cross_entropy_with_grad(i, labels), tuple[Double, Double])
    assert_type(fastsoft.softmax_cross_entropy_with_grad(x, labels, reduction="sum"), tuple[ScalarSingle, Single])


def chunks() -> None:
    """A state has the dtype of its chunks."""
    state = fastsoft.LogSumExp(2, dtype=np.float32)
    assert_type(state, fastsoft.LogSumExp[np.float32])
    assert_type(fastsoft.LogSumExp(), fastsoft.LogSumExp[np.float64])
    assert_type(fastsoft.LogSumExp((2,), dtype=x.dtype, temperature=0.5), fastsoft.LogSumExp[np.float32])
    assert_type(state.update(x, where=b).merge(state.copy()), fastsoft.LogSumExp[np.float32])
    assert_type(state.result(), Single)
    assert_type(state.softmax(x, empty="raise"), Single)
    assert_type(state.softmax(x, out=x.copy()), Single)
    assert_type(state.log_softmax(x), Single)
    assert_type(state.softmax_complement(x), Single)
    assert_type(state.shape, tuple[int, ...])
    assert_type(state.nbytes, int)
    anyhow: fastsoft.LogSumExp = state
    assert_type(anyhow.result().ndim, int)


def unknown_dtypes() -> None:
    """Of any dtype, bfloat16 among them: an array, at least."""
    y: npt.NDArray[Any] = fastsoft.softmax(unknown)
    z: npt.NDArray[Any] = fastsoft.softmax_vjp(y, unknown)
    assert_type(fastsoft.softmax(unknown, out=x.copy()), Single)
    assert_type(fastsoft.softmax(named), npt.NDArray[Any])
    assert_type(fastsoft.softmax_vjp(x, named), npt.NDArray[Any])
    assert_type(fastsoft.LogSumExp(2, dtype=named.dtype.name).update(z).result(), npt.NDArray[Any])


def dask_arrays() -> None:
    """Dask arrays give Dask arrays."""
    import dask.array
    from dask.array.core import Array

    a: Array = cast(Any, dask.array).from_array(x)
    assert_type(fastsoft.softmax(a), Array)
    assert_type(fastsoft.log_softmax(a), Array)
    assert_type(fastsoft.logsumexp(a, None), Array)
    assert_type(fastsoft.softmax_jacobian(a), Array)
    assert_type(fastsoft.softmax_jacobian_diagonal(a), Array)
    assert_type(fastsoft.softmax_vjp(a, x), Array)
    assert_type(fastsoft.softmax_jvp(x, a), Array)
    assert_type(fastsoft.softmax_vjp_from_output(a, a), Array)
    assert_type(fastsoft.log_softmax_vjp(a, [1.0, 2.0, 3.0]), Array)
    assert_type(fastsoft.log_softmax_vjp_from_output(a, x), Array)
    assert_type(fastsoft.softmax_vjp_zeros(x, a), Array)
    assert_type(fastsoft.cross_entropy(a, labels), Array)
    assert_type(fastsoft.cross_entropy_grad(a, a), Array)
    assert_type(fastsoft.cross_entropy_grad(x, a, return_singular=True), tuple[Array, Array])
    assert_type(fastsoft.softmax_cross_entropy(a, labels, reduction="mean"), Array)
    assert_type(fastsoft.softmax_cross_entropy_with_grad(a, labels), tuple[Array, Array])


def scipys() -> None:
    """Under SciPy's names all axes go together, and what has none is a number."""
    m: Matrix = np.ones((2, 3), np.float32)
    assert_type(compat.softmax(m), Matrix)
    assert_type(compat.log_softmax(x, 0), Single)
    assert_type(compat.softmax(np.float32(1)), np.float32)
    assert_type(compat.softmax(1.0), np.float64)
    assert_type(compat.log_softmax([[1, 2], [3, 4]]), Double)
    assert_type(compat.softmax(i), Double)
    assert_type(compat.logsumexp(x), np.float32)
    assert_type(compat.logsumexp(x, return_sign=True), tuple[np.float32, np.float32])
    assert_type(compat.logsumexp([1, 2], b=[3.0, -4.0]), np.float64)
    assert_type(compat.logsumexp(i, b=2, return_sign=True), tuple[np.float64, np.float64])
    assert_type(compat.logsumexp(x, axis=1, b=d), Any)
    assert_type(compat.logsumexp(x, axis=1, return_sign=True), tuple[Any, Any])


def settings() -> None:
    """What is no array."""
    assert_type(fastsoft.get_num_threads(), int)
    with fastsoft.num_threads(1):
        fastsoft.set_num_threads(2)
    fastsoft.show_config()
    assert_type(fastsoft.__version__, str)
    assert_type(fastsoft.EmptyRowError(1, (0,)).first, tuple[int, ...])
    assert_type(fastsoft.SingularGradientError(1, (0,)).count, int)
