"""softmax, log_softmax and cross_entropy of PyTorch tensors: values, gradients of first and second order, errors."""

from __future__ import annotations

import doctest
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import python

torch = pytest.importorskip("torch", reason="NOT TESTED: fastsoft.torch, since PyTorch is not installed")

import torch.nn.functional as functional  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

import fastsoft.torch as ours  # noqa: E402
from fastsoft import api, derivatives, losses  # noqa: E402

Tensor = torch.Tensor
EPSILON = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float32: 2**-23, torch.float64: 2**-52}
FLOATS = pytest.mark.parametrize("dtype", EPSILON, ids=str)
FAMILY = pytest.mark.parametrize("name", ["softmax", "log_softmax"])
ALL = ("softmax", "log_softmax", "cross_entropy")


def available(dtype: torch.dtype) -> None:
    if dtype is torch.bfloat16:
        pytest.importorskip("ml_dtypes", reason="NOT TESTED: bfloat16, since ml_dtypes is not installed")


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def labels(*shape: int, classes: int) -> Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(1))


def leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


def gradient(function: Callable[[Tensor], Tensor], x: Tensor, arriving: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """function(x), and the gradient by x."""
    x = x.detach().requires_grad_()
    y = function(x)
    return y.detach(), torch.autograd.grad(y, x, arriving)[0]


def strided(x: Tensor) -> Iterator[Tensor]:
    """The same numbers in other memory."""
    yield x
    yield x.mT.contiguous().mT
    yield torch.stack([x, -x], -1)[..., 0]
    yield torch.cat([x, x])[: len(x)]


def losses_of(classes: int) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
    """Input, target and options of cross_entropy: every shape of a target with every option."""
    weight = torch.linspace(0.5, 2, classes, dtype=torch.float64)
    for batch in ((), (3,), (2, 3), (2, 2, 3)):
        shape = (*batch[:1], classes, *batch[1:])
        t = labels(*batch, classes=classes)
        if batch:
            t.view(-1)[1] = -100
        probabilities = random(*shape, seed=2).abs()
        for target, w, reduction, smoothing in itertools.product(
            (t, probabilities), (None, weight), ("none", "sum", "mean"), (0.0, 0.3)
        ):
            yield random(*shape), target, {"weight": w, "reduction": reduction, "label_smoothing": smoothing}


@FAMILY
@pytest.mark.parametrize("dim", range(-3, 3))
def test_derivatives_of_the_family(name: str, dim: int) -> None:
    """First and second derivatives agree with differences."""
    x = random(2, 3, 4).requires_grad_()

    def function(x: Tensor) -> Tensor:
        return getattr(ours, name)(x, dim)

    assert gradcheck(function, x)
    assert gradgradcheck(function, x)


@pytest.mark.parametrize("case", list(losses_of(4)), ids=lambda case: f"{tuple(case[0].shape)}")
def test_derivatives_of_cross_entropy(case: Any) -> None:
    """The same, and the value and gradient are PyTorch's."""
    x, target, options = case

    def function(x: Tensor) -> Tensor:
        return ours.cross_entropy(x, target, **options)

    assert gradcheck(function, x.requires_grad_())
    assert gradgradcheck(function, x)
    want = functional.cross_entropy(x, target, **options)
    arriving = random(*want.shape, seed=3)
    for got, expected in zip(
        gradient(function, x, arriving),
        gradient(lambda x: functional.cross_entropy(x, target, **options), x, arriving),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_third_derivatives() -> None:
    """Gradients of gradients can be differentiated further."""
    x, v, t = random(2, 4).requires_grad_(), random(2, 4, seed=1), labels(2, classes=4)
    for name in ALL:
        third = []
        for library in (ours, functional):
            y = getattr(library, name)(x, t) if name == "cross_entropy" else getattr(library, name)(x, dim=-1)
            for _ in range(3):
                y = torch.autograd.grad((y.sin() * v).sum(), x, create_graph=True)[0]
            third.append(y.detach())
        torch.testing.assert_close(*third)


@FAMILY
@FLOATS
def test_family_in_every_dtype(name: str, dtype: torch.dtype) -> None:
    """Every type, strides and dim: within rounding of PyTorch in float64, or for float64 of its own error."""
    available(dtype)
    x, v = random(3, 4, 50, dtype=dtype), random(3, 4, 50, dtype=dtype, seed=1)
    bound = 8 * EPSILON[dtype]
    for dim in range(3):
        want = gradient(lambda x, dim=dim: getattr(functional, name)(x, dim), x.double(), v.double())
        for memory in strided(x):
            got = gradient(lambda x, dim=dim: getattr(ours, name)(x, dim), memory, v)
            for g, w in zip(got, want, strict=True):
                assert g.dtype == dtype
                torch.testing.assert_close(g.double(), w, rtol=bound, atol=bound * max(1.0, float(w.abs().max())))


@FLOATS
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_cross_entropy_in_every_dtype(dtype: torch.dtype, reduction: str) -> None:
    available(dtype)
    x, t = random(6, 30, dtype=dtype), labels(6, classes=30)
    bound = 4 * EPSILON[dtype]
    for target in (t, t.int(), t.byte(), random(6, 30, seed=1).softmax(1).to(dtype)):
        exact = target.double() if target.is_floating_point() else t
        want_y = functional.cross_entropy(x.double(), exact, reduction=reduction)
        arriving = random(*want_y.shape, dtype=dtype, seed=2)
        want = gradient(
            lambda x, exact=exact: functional.cross_entropy(x, exact, reduction=reduction),
            x.double(), arriving.double(),
        )  # fmt: skip
        for memory in strided(x):
            got = gradient(
                lambda x, target=target: ours.cross_entropy(x, target, reduction=reduction), memory, arriving
            )
            for g, w in zip(got, want, strict=True):
                assert g.dtype == dtype
                torch.testing.assert_close(g.double(), w, rtol=bound, atol=bound * float(w.abs().max()))


def test_loss_scaling_in_float16() -> None:
    """A gradient below the smallest float16 is there once the loss is scaled."""
    x = torch.zeros(1, 3, dtype=torch.float16)
    x[0, 0] = 20
    _, got = gradient(lambda x: ours.cross_entropy(x, torch.tensor([0])) * 4096, x)
    want = 4096 * fastsoft_gradient(x.double())
    torch.testing.assert_close(got.double(), want, rtol=2**-6, atol=0)
    assert float(want.abs().max()) / 4096 < 2**-25


def fastsoft_gradient(x: Tensor) -> Tensor:
    return torch.from_numpy(losses.softmax_cross_entropy_with_grad(x.numpy(), np.array([0]))[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    """There a loss of 16-bit logits is computed in float32, as PyTorch does it; the others keep the type."""
    available(dtype)
    x, t = random(4, 5, dtype=dtype), labels(4, classes=5)
    p, w = random(4, 5, dtype=dtype, seed=1).softmax(1), torch.linspace(1, 2, 5, dtype=torch.float64)
    with torch.autocast("cpu", dtype=dtype):
        for target in (t, p):
            loss, grad = gradient(lambda x, target=target: ours.cross_entropy(x, target, w), x)
            want = functional.cross_entropy(x, target, w.float())
            assert (loss.dtype, grad.dtype) == (want.dtype, dtype) == (torch.float32, dtype)
            torch.testing.assert_close(loss, want)
        assert ours.cross_entropy(x.double(), t).dtype is torch.float64
        for name in ("softmax", "log_softmax"):
            assert getattr(ours, name)(x, 1).dtype is getattr(functional, name)(x, 1).dtype is dtype


def test_second_derivatives_under_autocast() -> None:
    """Nothing in them is rounded to 16 bits."""
    x, p = leaf(random(4, 5, dtype=torch.float32)), random(4, 5, dtype=torch.float32, seed=1).softmax(1)
    w = torch.linspace(1, 2, 5)

    def second() -> Tensor:
        (first,) = torch.autograd.grad(ours.cross_entropy(x, p, w), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    want = second()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(second(), want)


def test_common_dtype_of_probabilities() -> None:
    x, p = random(3, 5, dtype=torch.float32), random(3, 5, seed=1).softmax(1)
    loss, grad = gradient(lambda x: ours.cross_entropy(x, p), x)
    assert (loss.dtype, grad.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(loss, functional.cross_entropy(x.double(), p))


@FAMILY
def test_dtype_argument(name: str) -> None:
    """The input is converted first, the gradient comes back in its type."""
    x = random(3, 5, dtype=torch.float16)
    got = gradient(lambda x: getattr(ours, name)(x, -1, torch.float64), x, random(3, 5))
    want = gradient(lambda x: getattr(functional, name)(x, -1, dtype=torch.float64), x, random(3, 5))
    assert [a.dtype for a in got] == [torch.float64, torch.float16]
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)
    assert torch.equal(getattr(ours, name)(random(3, 5), 1, _stacklevel=5), getattr(ours, name)(random(3, 5), 1))
    integers = torch.arange(4)
    torch.testing.assert_close(
        getattr(ours, name)(integers, 0, torch.float32), getattr(ours, name)(integers.float(), 0)
    )


@FAMILY
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (0, 3)])
def test_small_shapes(name: str, shape: tuple[int, ...]) -> None:
    x = random(*shape)
    for got, want in zip(
        gradient(lambda x: getattr(ours, name)(x, -1), x, torch.ones(shape, dtype=x.dtype)),
        gradient(lambda x: getattr(functional, name)(x, -1), x, torch.ones(shape, dtype=x.dtype)),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


@FLOATS
def test_kernels_read_the_tensors_memory(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy of the input, the kept result, or the gradient that arrives; the gradient of a loss is the one kept."""
    available(dtype)
    seen: list[int] = []

    def spy(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(x: Any, second: Any, *rest: Any, **options: Any) -> Any:
            seen.extend(a.ctypes.data for a in (x, second) if isinstance(a, np.ndarray))
            return real(x, second, *rest, **options)

        monkeypatch.setattr(module, name, call)

    for name in ("softmax", "log_softmax"):
        spy(api, name)
        spy(derivatives, f"{name}_vjp_from_output")
        x, v = random(40, 50, dtype=dtype).requires_grad_(), random(40, 50, dtype=dtype, seed=1)
        y = getattr(ours, name)(x, 1)
        y.backward(v)
        assert seen == [x.data_ptr(), y.data_ptr(), v.data_ptr()]
        seen.clear()
    spy(losses, "softmax_cross_entropy")
    spy(losses, "softmax_cross_entropy_with_grad")
    x, t = random(40, 50, dtype=dtype), labels(40, classes=50)
    ours.cross_entropy(x, t)
    assert seen == [x.data_ptr(), t.data_ptr()]
    if dtype is torch.float16:
        return  # differentiated in a float32 copy
    loss = ours.cross_entropy(x.requires_grad_(), t)
    assert seen == [x.data_ptr(), t.data_ptr()] * 2
    kept = loss.grad_fn.gradient.data_ptr()
    (loss * 3).backward()
    assert x.grad.data_ptr() == kept


def test_backward_again() -> None:
    """A graph that is kept gives the same gradient again, whatever became of the first; one that is not, an error."""
    x, t = leaf(random(5, 7)), labels(5, classes=7)
    for reduction in ("mean", "none"):
        loss = ours.cross_entropy(x, t, reduction=reduction)
        arriving = random(*loss.shape, seed=1)
        first = torch.autograd.grad(loss, x, arriving, retain_graph=True)[0]
        want = first.clone()
        first.zero_()
        (differentiable,) = torch.autograd.grad(loss, x, arriving, create_graph=True)
        (again,) = torch.autograd.grad(loss, x, arriving)
        assert torch.equal(again, want)
        assert torch.equal(differentiable.detach(), want)
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(loss, x, arriving)


@pytest.mark.parametrize("arriving", [math.nan, math.inf])
def test_ignored_rows_pass_nothing_on(arriving: float) -> None:
    """Their gradient is 0, whatever arrives."""
    ignore = np.int64(255)
    for target in (torch.tensor([255, 1]), torch.tensor([255, 1], dtype=torch.uint8)):
        x = leaf(random(2, 3))
        loss = ours.cross_entropy(x, target, ignore_index=ignore, reduction="none")
        v = torch.tensor([arriving, 1], dtype=x.dtype)
        reference = functional.cross_entropy(x, target.long(), ignore_index=255, reduction="none")
        (want,) = torch.autograd.grad(reference, x, v)
        for create_graph in (True, False):
            (got,) = torch.autograd.grad(loss, x, v, create_graph=create_graph)
            torch.testing.assert_close(got.detach(), want)
    for target in (torch.tensor(255), torch.tensor(1)):
        x = leaf(random(3))
        loss = ours.cross_entropy(x, target, ignore_index=ignore, reduction="none")
        (got,) = torch.autograd.grad(loss, x, torch.tensor(arriving, dtype=x.dtype))
        assert bool(got.isfinite().all()) == bool(target == ignore)


def functions_of(library: Any) -> Iterator[Callable[[Tensor], Tensor]]:
    """All, of logits of shape (3, 4)."""
    yield lambda x: library.softmax(x, 1)
    yield lambda x: library.log_softmax(x, 0)
    t, w = labels(3, classes=4), torch.linspace(1, 2, 4, dtype=torch.float64)
    t[1] = -100
    for reduction, target in itertools.product(("none", "mean"), (t, random(3, 4, seed=2).abs())):
        yield lambda x, t=target, r=reduction: library.cross_entropy(x, t, w, reduction=r, label_smoothing=0.1)


@pytest.mark.parametrize("create_graph", [False, True])
def test_batches_of_gradients(create_graph: bool) -> None:
    """Several that arrive at once give what each gives, and that can be differentiated again."""
    for function, reference in zip(functions_of(ours), functions_of(functional), strict=True):
        found = []
        for f in (function, reference):
            x = leaf(random(3, 4))
            y = f(x)
            v = random(5, *y.shape, seed=1)
            if f is function:
                (grad,) = torch.autograd.grad(y, x, v, create_graph=create_graph, is_grads_batched=True)
            else:
                grad = torch.stack([torch.autograd.grad(y, x, each, create_graph=True)[0] for each in v])
            found.append([grad.detach()])
            if create_graph:
                found[-1] += torch.autograd.grad((grad * random(*grad.shape, seed=2)).sum(), x)
        torch.testing.assert_close(*found)


def test_vectorized_jacobian_and_hessian() -> None:
    from torch.autograd.functional import hessian, jacobian

    for function, reference in zip(functions_of(ours), functions_of(functional), strict=True):
        x = random(3, 4)
        torch.testing.assert_close(jacobian(function, x, vectorize=True), jacobian(reference, x))
        got = hessian(lambda x, f=function: f(x).sin().sum(), x, vectorize=True)
        torch.testing.assert_close(got, hessian(lambda x, f=reference: f(x).sin().sum(), x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # PyTorch's own
def test_compile() -> None:
    """torch.compile changes no bit."""

    def function(x: Tensor) -> Tensor:
        return torch.stack([f(2 * x).square().sum() for f in itertools.islice(functions_of(ours), 3)])

    v = random(3, seed=1)
    for got, want in zip(
        gradient(torch.compile(function, backend="eager"), random(3, 4), v),
        gradient(function, random(3, 4), v),
        strict=True,
    ):
        assert torch.equal(got, want)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradient_penalty(reduction: str, scale: float) -> None:
    """Between a differentiable gradient and a backward through it the loss itself may go backward."""
    t, results = labels(5, classes=7), []
    for library in (ours, functional):
        x = leaf(random(5, 7))
        loss = library.cross_entropy(x, t, reduction=reduction).sum() * scale
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        before = first.detach().clone()
        loss.backward(retain_graph=True)
        first.square().sum().backward()
        assert torch.equal(first, before)
        results.append(x.grad)
    torch.testing.assert_close(*results)


def test_training_equals_pytorch() -> None:
    """The same steps of gradient descent, with a weighted loss of several parts that is accumulated."""
    data, t = random(64, 8), labels(64, classes=5)
    weight = torch.linspace(1, 2, 5, dtype=torch.float64)
    results = []
    for library in (ours, functional):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 5)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        for _ in range(20):
            optimizer.zero_grad()
            for part in (slice(0, 32), slice(32, 64)):
                logits = model(data[part])
                loss = library.cross_entropy(logits, t[part], weight, label_smoothing=0.1) / 2
                attention = library.softmax(logits, dim=1).square().sum() - library.log_softmax(logits, dim=0).mean()
                (loss + 1e-3 * attention).backward()
            optimizer.step()
        results.append([p.detach() for p in model.parameters()])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_where_rules_differ() -> None:
    """What the module's documentation lists."""
    x = random(2, 3)
    ignored = torch.tensor([-100, -100])
    loss, grad = gradient(lambda x: ours.cross_entropy(x, ignored), x)
    assert loss == 0
    assert not grad.any()
    assert functional.cross_entropy(x, ignored).isnan()
    twice = leaf(x)
    (first,) = torch.autograd.grad(ours.cross_entropy(twice, ignored), twice, create_graph=True)
    assert not torch.autograd.grad(first.sum(), twice)[0].any()
    assert ours.cross_entropy(x[:0], ignored[:0]) == 0
    x[0, 1] = -math.inf
    target = torch.tensor([[0.5, 0, 0.5], [0, 1, 0]], dtype=torch.float64)
    loss, grad = gradient(lambda x: ours.cross_entropy(x, target), x)
    assert loss.isfinite()
    assert grad.isfinite().all()
    assert ours.cross_entropy(x, torch.tensor([1, 0])) == math.inf
    confident = torch.tensor([[20.0, 0, 0]])
    loss, grad = gradient(lambda x: ours.cross_entropy(x, torch.tensor([0])), confident)
    exact, gradient_exact = losses.softmax_cross_entropy_with_grad(confident.double().numpy(), np.array([0]))
    assert float(loss) == pytest.approx(float(exact[0]), rel=1e-6)
    assert grad.numpy() == pytest.approx(gradient_exact, rel=1e-6)
    weight = torch.tensor([1.0, 2, 3])  # float32
    assert ours.cross_entropy(random(2, 3), torch.tensor([1, 0]), weight).dtype is torch.float64
    subclass = type("Subclass", (Tensor,), {})
    assert type(ours.softmax(x.as_subclass(subclass), 1)) is Tensor


def test_no_gradient_where_none_is_asked_for() -> None:
    x, t = random(2, 3), torch.tensor([0, 1])
    for y in (ours.softmax(x, 1), ours.log_softmax(x, 1), ours.cross_entropy(x, t)):
        assert y.grad_fn is None
    with torch.no_grad():
        assert not ours.cross_entropy(x.requires_grad_(), t).requires_grad
        assert not ours.softmax(x, 1).requires_grad


X, T = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
NOT_A_TENSOR: Any = np.zeros((2, 3))
BAD = (  # error, what its message holds, call
    (TypeError, "input must be a torch.Tensor, got ndarray", lambda f: f(NOT_A_TENSOR)),
    (ValueError, "input must be on the device cpu, got meta", lambda f: f(X.to("meta"))),
    (TypeError, "input must be dense.*sparse_coo", lambda f: f(X.to_sparse())),
    (TypeError, "input must be of dtype .*got torch.complex64", lambda f: f(X.to(torch.complex64))),
    (TypeError, "input must be of dtype .*got torch.int64", lambda f: f(X.long())),
    (TypeError, "input must be of dtype .*got torch.bool", lambda f: f(X.bool())),
)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input(name: str, error: type[Exception], message: str, call: Callable[[Any], Any]) -> None:
    function = getattr(ours, name)
    with pytest.raises(error, match=message):
        call(lambda x: function(x, T if name == "cross_entropy" else 1))


@FAMILY
def test_bad_dim_and_dtype(name: str) -> None:
    function = getattr(ours, name)
    with pytest.raises(TypeError, match="dim must be an int, got None"):
        function(X, None)
    with pytest.raises(IndexError, match="dim must be from -2 to 1, got 2"):
        function(X, 2)
    with pytest.raises(IndexError, match="dim must be from -2 to 1, got -3"):
        function(X, -3)
    with pytest.raises(TypeError, match=r"dtype must be torch.float32.*got torch.int64"):
        function(X, 1, torch.int64)
    with pytest.raises(TypeError, match=r"input must be of a real dtype, got torch.complex64"):
        function(X.to(torch.complex64), 1, torch.float32)


@pytest.mark.parametrize(
    ("error", "message", "arguments", "options"),
    [
        (ValueError, "input must be of shape", (X[0, 0], T[0]), {}),
        (TypeError, "target must be a torch.Tensor, got list", (X, [0, 1]), {}),
        (ValueError, "target must be on the device cpu, got meta", (X, T.to("meta")), {}),
        (ValueError, r"target must hold labels in shape \(2,\)", (X, T[:1]), {}),
        (TypeError, "target must be of dtype .*got torch.float32", (X, X[:, 0]), {}),
        (TypeError, "target must be of dtype .*got torch.int64", (X, X.long()), {}),
        (TypeError, "target must be of dtype .*got torch.bool", (X, T.bool()), {}),
        (ValueError, "target must hold labels from 0 to 2.*got 3 at index", (X, T + 3), {}),
        (ValueError, "target must hold labels from 0 to 2.*got -100", (X, T - 100), {"ignore_index": 1}),
        (ValueError, "target must not require grad", (X, leaf(X)), {}),
        (ValueError, "ignore_index must be negative", (X, X), {"ignore_index": 0}),
        (TypeError, "ignore_index must be an int", (X, T), {"ignore_index": None}),
        (ValueError, "weight must not require grad", (X, T, leaf(X[0])), {}),
        (ValueError, "weight must hold one number for each of the 3", (X, T, X[:, 0]), {}),
        (TypeError, "weight must be of dtype .*got torch.int64", (X, T, torch.ones(3).long()), {}),
        (ValueError, "reduction must be one of", (X, T), {"reduction": "max"}),
        (ValueError, "label_smoothing must be from 0 to 1", (X, T), {"label_smoothing": 1.5}),
        (TypeError, "label_smoothing must be a number", (X, T), {"label_smoothing": torch.zeros(2)}),
        (TypeError, "label_smoothing must be a number", (X, T), {"label_smoothing": False}),
    ],
)
def test_bad_arguments_of_cross_entropy(
    error: type[Exception], message: str, arguments: Any, options: dict[str, Any]
) -> None:
    for x in (arguments[0], leaf(arguments[0])):
        with pytest.raises(error, match=message):
            ours.cross_entropy(x, *arguments[1:], **options)


def test_tensors_for_the_functions_of_arrays() -> None:
    """One that NumPy does not read is refused with the way to go."""
    with pytest.raises(TypeError, match=r"^x cannot be read as an array: .*grad.*; fastsoft\.torch takes tensors"):
        api.softmax(leaf(X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("differentiated", [False, True])
def test_traces_compute(differentiated: bool) -> None:
    """What torch.jit.trace gives computes, and does not repeat what it was traced with."""
    other = random(*X.shape, seed=7)
    for function in (lambda x: ours.softmax(2 * x, 1), lambda x: ours.log_softmax(2 * x, 1),
                     lambda x: ours.cross_entropy(2 * x, T)):  # fmt: skip
        traced = torch.jit.trace(function, X.clone().requires_grad_(differentiated), check_trace=False)
        assert torch.equal(traced(other), function(other))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own, of its transforms
def test_unsupported_transforms_raise() -> None:
    """They are not ignored, which would lose a derivative."""
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.vmap(lambda x: ours.softmax(x, 0))(X)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        ours.softmax(torch.autograd.forward_ad.make_dual(X, X), 1)
    probabilities, weight = torch.softmax(X, 1), torch.ones(X.shape[1])
    for arguments in ((X, T, weight), (X, probabilities, weight)):
        for k in range(len(arguments)):
            if arguments[k].is_floating_point():
                with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
                    dual = torch.autograd.forward_ad.make_dual(arguments[k], arguments[k])
                    ours.cross_entropy(*arguments[:k], dual, *arguments[k + 1 :])
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.vmap(lambda t: ours.cross_entropy(X, t))(torch.stack([T, T]))
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda x: (x * ours.softmax(X, 1)).sum())(X)
    for name in ("softmax", "log_softmax"):
        x = X.clone().requires_grad_()
        y = getattr(ours, name)(x, 1)
        with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
            torch.autograd.grad(y, x, torch.autograd.forward_ad.make_dual(y.detach(), X))
    x = X.clone().requires_grad_()
    loss = ours.cross_entropy(x, T)
    with torch.autograd.forward_ad.dual_level():
        one = torch.autograd.forward_ad.make_dual(torch.ones(()), torch.ones(()))
        found = torch.autograd.forward_ad.unpack_dual(torch.autograd.grad(loss, x, one)[0])
        assert torch.equal(found.tangent, found.primal)


@pytest.mark.parametrize("first", ["torch", "fastsoft"])
def test_threads_of_both_side_by_side(first: str) -> None:
    """Two threads in each, whichever brings its OpenMP first, also in a child: the same bits, and no hang."""
    second = "fastsoft" if first == "torch" else "torch"
    code = f"""
import os, {first}, {second}, fastsoft.torch
fastsoft.set_num_threads(2); torch.set_num_threads(2)
x = torch.randn(512, 4096, requires_grad=True)
t = torch.randint(0, 4096, (512,))
def work():
    y = x @ x.detach()[:64].T  # PyTorch's threads
    return [torch.autograd.grad(fastsoft.torch.cross_entropy(x, t), x)[0], fastsoft.torch.softmax(x, 0).detach()]
with fastsoft.num_threads(1):
    want = work()
for _ in range(20):
    assert all(map(torch.equal, work(), want))
child = os.fork()
if child == 0:
    y = fastsoft.softmax(x.detach().numpy(), 0)
    os._exit(0 if (y == want[1].numpy()).all() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert all(map(torch.equal, work(), want))
"""
    done = python(code, FASTSOFT_NUM_THREADS=None)
    assert done.returncode == 0, done.stderr


def test_backward_on_many_threads() -> None:
    """Several threads go backward through one graph, and each gets the gradient."""
    import threading

    x, t = leaf(random(50, 60)), labels(50, classes=60)
    loss = ours.cross_entropy(x, t)
    (want,) = torch.autograd.grad(loss, x, torch.tensor(3.0, dtype=x.dtype), retain_graph=True)
    loss = ours.cross_entropy(x, t)
    found: list[Tensor] = []

    def work() -> None:
        found.append(torch.autograd.grad(loss, x, torch.tensor(3.0, dtype=x.dtype), retain_graph=True)[0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(torch.equal(a, want) for a in found)


def test_imports() -> None:
    """fastsoft does not import PyTorch; without it fastsoft.torch says how to install it."""
    done = python("import sys, fastsoft; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr
    done = python("import sys; sys.modules['torch'] = None; import fastsoft.torch")
    assert 'pip install "fastsoft[torch]"' in done.stderr
    done = python(
        "import sys, torch, fastsoft.torch; sys.modules['ml_dtypes'] = None\n"
        "fastsoft.torch.softmax(torch.zeros(2, dtype=torch.bfloat16), 0)"
    )
    assert 'pip install "fastsoft[bfloat16]"' in done.stderr


def test_examples() -> None:
    """Those in the docstrings of fastsoft.torch, and all of docs/torch.rst, which pytest leaves out without PyTorch."""
    assert doctest.testmod(ours).failed == 0
    page = Path(__file__).parents[1] / "docs" / "torch.rst"
    if not page.is_file():
        pytest.skip(f"NOT TESTED: {page} is not there")
    result = doctest.testfile(str(page), module_relative=False)
    assert result.failed == 0
    assert result.attempted > 20
