"""softmax, log_softmax and cross_entropy of PyTorch tensors on the CPU, differentiable to any order.

The arguments are those of `torch.nn.functional`. The kernels read the tensors' own memory, of any strides, float16 and
bfloat16 (with ``ml_dtypes``) included, and compute on `fastsoft.get_num_threads` threads: `fastsoft.set_num_threads`,
``with fastsoft.num_threads(n):`` and ``FASTSOFT_NUM_THREADS`` set them, `torch.set_num_threads` does not.

Where the rules of fastsoft and PyTorch differ, those of fastsoft hold:

- `cross_entropy` with ``reduction="mean"`` is 0, its gradient too, where every label is ignored, the labels that are
  not have no weight, or there is no row; PyTorch gives NaN.
- A target probability of 0 on a logit of -inf counts for nothing; PyTorch gives NaN.
- Values are within the bounds of `fastsoft.softmax`, `fastsoft.log_softmax` and
  `fastsoft.softmax_cross_entropy_with_grad`: where the right class is nearly certain, cross_entropy and its gradient
  keep digits that PyTorch loses. The gradients of softmax and log_softmax are taken from the result that was kept,
  as PyTorch does. Second derivatives are made of such gradients and PyTorch's arithmetic, without a bound.
- Labels may be of any integer type; one out of range raises ValueError (PyTorch: IndexError), whatever the device.
- Class weights may be of another floating type than the logits.
- ``dim=None`` is an error, and so are the deprecated ``size_average`` and ``reduce``; what follows `weight` goes by
  keyword, since PyTorch has those two in between.
- Results are contiguous, whatever the strides of the input, and plain tensors, whatever its subclass.

Forward-mode differentiation and `torch.func` transforms are not supported and raise an error. Gradients that arrive
several at once, under ``is_grads_batched=True`` or ``vectorize=True``, go through PyTorch's arithmetic, without a
bound. `torch.compile` runs these functions as they stand, outside its graphs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _validate, api, derivatives, losses

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise ImportError('fastsoft.torch needs PyTorch: pip install "fastsoft[torch]"') from error

__all__ = ["cross_entropy", "log_softmax", "softmax"]

Array = np.ndarray[Any, Any]
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
HALVES = (torch.bfloat16, torch.float16)
INTEGERS = (
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
# Whether a gradient stands for several (``is_grads_batched=True``), and has no memory that a kernel could read.
_is_batch: Callable[[Tensor], bool] = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda grad: False)


def softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None, *, _stacklevel: int = 3) -> Tensor:
    """Softmax of a tensor: exp(x_i) / sum_j exp(x_j).

    Parameters
    ----------
    input : torch.Tensor
        Logits on the CPU: float16, bfloat16, float32 or float64, of any shape and strides.
    dim : int
        The dimension that holds the classes.
    dtype : torch.dtype, optional
        One of those types; `input`, which may then be of any real type, is converted to it first.
    _stacklevel : int
        Ignored: in PyTorch it belongs to the warning of a `dim` that is not given.

    Returns
    -------
    torch.Tensor
        Probabilities of the shape of `input`, contiguous. A row that holds a NaN or +inf, or only -inf, is NaN.

    Raises
    ------
    TypeError
        A type, dtype or layout that is not allowed, or no `dim`.
    ValueError
        `input` on another device. IndexError: a `dim` that is not there.
    ImportError
        A bfloat16 tensor without ``ml_dtypes``.

    Notes
    -----
    Accuracy and source: `fastsoft.softmax`, and for the gradient `fastsoft.softmax_vjp_from_output`.

    Examples
    --------
    >>> import torch, fastsoft.torch
    >>> fastsoft.torch.softmax(torch.zeros(2), dim=0)
    tensor([0.5000, 0.5000])
    """
    logits = _logits(input, dtype)
    dim = _dim(dim, logits.ndim)
    return _Softmax.apply(logits, dim) if _followed(logits) else _tensor(api.softmax(_array(logits), dim))


def log_softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None, *, _stacklevel: int = 3) -> Tensor:
    """Logarithm of softmax: x_i - log(sum_j exp(x_j)).

    Parameters
    ----------
    input, dim, dtype, _stacklevel
        As in `softmax`.

    Returns
    -------
    torch.Tensor
        Log-probabilities of the shape of `input`, contiguous.

    Raises
    ------
    TypeError, ValueError, IndexError, ImportError
        As in `softmax`.

    Notes
    -----
    Accuracy and source: `fastsoft.log_softmax`, and for the gradient `fastsoft.log_softmax_vjp_from_output`.

    Examples
    --------
    >>> import torch, fastsoft.torch
    >>> fastsoft.torch.log_softmax(torch.zeros(2), dim=0)
    tensor([-0.6931, -0.6931])
    """
    logits = _logits(input, dtype)
    dim = _dim(dim, logits.ndim)
    return _LogSoftmax.apply(logits, dim) if _followed(logits) else _tensor(api.log_softmax(_array(logits), dim))


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy from logits: -sum_c w_c t_c log softmax(x)_c, the gradient computed in the same pass.

    Parameters
    ----------
    input : torch.Tensor
        Logits on the CPU, of shape (C,), (N, C) or (N, C, d_1, ..., d_k): float16, bfloat16, float32 or float64. Under
        `torch.autocast` the first two are converted to float32.
    target : torch.Tensor
        Labels: integers of the shape of `input` without C. Or probabilities: of a floating type and the shape of
        `input`; the two are converted to their common type. Never differentiated by.
    weight : torch.Tensor of shape (C,), optional
        One weight w for each class. Never differentiated by.
    ignore_index : int, default -100
        Rows with this label count for nothing; with probabilities it must be negative.
    reduction : {"mean", "sum", "none"}, default "mean"
        Their mean, over the weights of the labels that are not ignored, with probabilities over the rows; their sum;
        or a loss for each row.
    label_smoothing : float, default 0.0
        From 0 to 1: e in targets (1 - e) t + e / C.

    Returns
    -------
    torch.Tensor
        Without dimensions, or with ``reduction="none"`` of the shape of `input` without C. A label on a -inf logit
        gives +inf.

    Raises
    ------
    TypeError
        A type, dtype or layout that is not allowed.
    ValueError
        A value, shape or device that is not allowed; a label out of range; a `target` or `weight` that requires grad.
    ImportError
        A bfloat16 tensor without ``ml_dtypes``.

    Notes
    -----
    Where `input` requires grad the gradient is kept until `torch.Tensor.backward`, which multiplies it in place by
    the gradient that arrives; so are the logits, from which going backward once more through the same graph computes
    it again. float16 that requires grad is computed in a float32 copy, so that a gradient that a scaled loss would
    have saved is not lost.
    Accuracy and source: `fastsoft.softmax_cross_entropy_with_grad`.

    Examples
    --------
    >>> import torch, fastsoft.torch
    >>> x = torch.tensor([[20.0, 0.0, 0.0]], requires_grad=True)
    >>> fastsoft.torch.cross_entropy(x, torch.tensor([0])).backward()
    >>> x.grad
    tensor([[-4.1223e-09,  2.0612e-09,  2.0612e-09]])
    """
    _check(input, "input", FLOATS)
    if input.dtype in HALVES and torch.is_autocast_enabled("cpu"):
        input = input.float()
    ignore_index = _index(ignore_index, "ignore_index")
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": label_smoothing}
    if _are_probabilities(input, target):
        if ignore_index >= 0:
            raise ValueError(f"ignore_index must be negative where target holds probabilities, got {ignore_index}")
        dtype = torch.promote_types(input.dtype, target.dtype)
        input, target = input.to(dtype), target.to(dtype)
    else:
        options["ignore_index"] = ignore_index
    if weight is not None:
        _check(weight, "weight", FLOATS)
        _check_constant(weight, "weight")
    if not _followed(input, target, *(() if weight is None else (weight,))):
        return _tensor(_computed(losses.softmax_cross_entropy, input, target, weight, options))
    if input.dtype is torch.float16 and input.requires_grad:
        return _CrossEntropy.apply(input.float(), target, weight, options).to(torch.float16)
    return _CrossEntropy.apply(input, target, weight, options)


def _check(tensor: Tensor, name: str, dtypes: tuple[torch.dtype, ...] | None) -> None:
    """Raise unless it is a plain tensor on the CPU, of one of some dtypes."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if not tensor.is_cpu:
        raise ValueError(f"{name} must be on the device cpu, got {tensor.device}: pass {name}.cpu()")
    if tensor.layout is not torch.strided or tensor.is_nested:
        found = "a nested tensor" if tensor.is_nested else f"layout {tensor.layout}"
        raise TypeError(f"{name} must be dense, of layout torch.strided, got {found}")
    if dtypes is not None and tensor.dtype not in dtypes:
        raise TypeError(f"{name} must be of dtype {_words(dtypes)}, got {tensor.dtype}")


def _words(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(map(str, dtypes[:-1])) + f" or {dtypes[-1]}"


def _check_constant(tensor: Tensor, name: str) -> None:
    """Raise where a derivative by the tensor would be expected."""
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name} must not require grad, there is no derivative by it: pass {name}.detach()")


def _logits(input: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The input of softmax in the dtype that is asked for."""
    if dtype is None:
        _check(input, "input", FLOATS)
        return input
    _check(input, "input", None)
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be {_words(FLOATS)}, or None, got {dtype!r}")
    if input.is_complex() or input.is_quantized:
        raise TypeError(f"input must be of a real dtype, got {input.dtype}")
    return input.to(dtype)


def _index(number: int, name: str) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {number!r}") from None


def _dim(dim: int, ndim: int) -> int:
    """`dim`, which must be there."""
    found = _index(dim, "dim")
    size = max(ndim, 1)
    if not -size <= found < size:
        raise IndexError(f"dim must be from {-size} to {size - 1}, got {found}")
    return found


def _class_dim(input: Tensor) -> int:
    return 0 if input.ndim == 1 else 1


def _are_probabilities(input: Tensor, target: Tensor) -> bool:
    """Whether `target`, which is checked here, holds probabilities, and not labels."""
    _check(target, "target", None)
    if input.ndim == 0:
        raise ValueError("input must be of shape (C,), (N, C) or (N, C, d_1, ..., d_k), got ()")
    dim = _class_dim(input)
    batch = input.shape[:dim] + input.shape[dim + 1 :]
    if target.shape == input.shape:
        _check(target, "target", FLOATS)
        _check_constant(target, "target")
        return True
    if target.shape != batch:
        raise ValueError(
            f"target must hold labels in shape {tuple(batch)} or probabilities in the shape of input, "
            f"{tuple(input.shape)}, got shape {tuple(target.shape)}"
        )
    _check(target, "target", INTEGERS)
    return False


def _array(tensor: Tensor) -> Array:
    """The tensor's memory as an array."""
    if tensor.dtype is not torch.bfloat16:
        if tensor.is_neg():
            tensor = tensor.resolve_neg()
        return (tensor.detach() if tensor.requires_grad else tensor).numpy()
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError('bfloat16 tensors need ml_dtypes: pip install "fastsoft[bfloat16]"') from error
    return tensor.view(torch.int16).numpy(force=True).view(ml_dtypes.bfloat16)


def _tensor(array: Array) -> Tensor:
    """The array's memory as a tensor."""
    if array.dtype.kind == "f":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, dim: int) -> Tensor:
        output = _tensor(api.softmax(_array(input), dim))
        ctx.save_for_backward(output)
        ctx.dim = dim
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        return _softmax_vjp(output, grad, ctx.dim), None


def _recorded(grad: Tensor) -> bool:
    """Whether what becomes of the gradient that arrives is asked for, backward or forward; the latter a Function
    refuses."""
    return torch.is_grad_enabled() or _is_dual(grad)


def _followed(input: Tensor, *others: Tensor) -> bool:
    """Whether what becomes of the input is asked for, or that of any argument by forward differentiation or a
    transform, which a Function refuses, or a trace. Only then a Function is used: its call takes longer than a small
    kernel."""
    if (input.requires_grad and torch.is_grad_enabled()) or torch._C._are_functorch_transforms_active():
        return True
    return torch.jit.is_tracing() or any(map(_is_dual, (input, *others)))  # a trace would hold the result for good


def _is_dual(tensor: Tensor) -> bool:
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None


def _softmax_vjp(output: Tensor, grad: Tensor, dim: int) -> Tensor:
    """y (g - sum(y g)), of y = softmax(x) and the gradient g that arrives."""
    if _is_batch(grad):
        return output * (grad - (output * grad).sum(dim, keepdim=True))
    if _recorded(grad):  # only then a Function, whose call takes longer than a small kernel
        return _SoftmaxGradient.apply(output, grad, dim)
    return _tensor(derivatives.softmax_vjp_from_output(_array(output), _array(grad), dim))


class _SoftmaxGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, grad: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(output, grad)
        ctx.dim = dim
        return _softmax_vjp(output, grad, dim)

    @staticmethod
    def backward(ctx: Any, second: Tensor) -> tuple[Tensor, Tensor, None]:
        output, grad = ctx.saved_tensors
        by_output = second * (grad - (grad * output).sum(ctx.dim, keepdim=True))
        by_output = by_output - grad * (second * output).sum(ctx.dim, keepdim=True)
        return by_output, _softmax_vjp(output, second, ctx.dim), None


class _LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, dim: int) -> Tensor:
        output = _tensor(api.log_softmax(_array(input), dim))
        ctx.save_for_backward(output)
        ctx.dim = dim
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        return _log_softmax_vjp(output, grad, ctx.dim), None


def _log_softmax_vjp(output: Tensor, grad: Tensor, dim: int) -> Tensor:
    """g - exp(y) sum(g), of y = log_softmax(x) and the gradient g that arrives."""
    if _is_batch(grad):
        return grad - output.exp() * grad.sum(dim, keepdim=True)
    if _recorded(grad):
        return _LogSoftmaxGradient.apply(output, grad, dim)
    return _tensor(derivatives.log_softmax_vjp_from_output(_array(output), _array(grad), dim))


class _LogSoftmaxGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, grad: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(output, grad)
        ctx.dim = dim
        return _log_softmax_vjp(output, grad, dim)

    @staticmethod
    def backward(ctx: Any, second: Tensor) -> tuple[Tensor, Tensor, None]:
        output, grad = ctx.saved_tensors
        weighted = second * output.exp()
        by_grad = second - weighted.sum(ctx.dim, keepdim=True)
        return -weighted * grad.sum(ctx.dim, keepdim=True), by_grad, None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, weight: Tensor | None, options: dict[str, Any]) -> Tensor:
        loss, gradient = _computed(losses.softmax_cross_entropy_with_grad, input, target, weight, options)
        ctx.save_for_backward(input, target, weight)
        ctx.options = options
        ctx.gradient = _tensor(gradient)  # not saved as the others are: nothing else may hold it when it is scaled
        if options["reduction"] == "none" and "ignore_index" in options:
            ctx.ignored = torch.as_tensor(_array(target) == options["ignore_index"])
        return _tensor(loss)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        # Of all who come here, on whatever thread, only one gets it: to scale it, or to keep it in a graph of its own.
        gradient = vars(ctx).pop("gradient", None)
        if gradient is None:
            input, target, weight = ctx.saved_tensors
            both = _computed(losses.softmax_cross_entropy_with_grad, input, target, weight, ctx.options)
            gradient = _tensor(both[1])
        if ctx.options["reduction"] == "none":
            if "ignored" in vars(ctx):  # what arrives there may be NaN, and 0 times it would be NaN
                grad = grad.masked_fill(ctx.ignored, 0)
            grad = grad.unsqueeze(_class_dim(gradient))
        if torch.is_grad_enabled():
            input, target, weight = ctx.saved_tensors
            row_weights = _row_weights(input, target, weight, **ctx.options)
            gradient = _CrossEntropyGradient.apply(input, gradient, row_weights) * grad
        elif _is_batch(grad):
            gradient = gradient * grad
        elif grad.numel() != 1 or grad.item() != 1 or _recorded(grad):
            gradient.mul_(grad)
        return gradient, None, None, None


class _CrossEntropyGradient(torch.autograd.Function):
    """The gradient of the loss, W softmax(x) - w t with a W for each row, as a function of x."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, gradient: Tensor, row_weights: Tensor) -> Tensor:
        ctx.save_for_backward(input, row_weights)
        return gradient

    @staticmethod
    def backward(ctx: Any, second: Tensor) -> tuple[Tensor, None, None]:
        input, row_weights = ctx.saved_tensors
        dim = _class_dim(input)
        return row_weights * _softmax_vjp(_Softmax.apply(input, dim), second, dim), None, None


def _computed(
    kernel: Callable[..., Any], input: Tensor, target: Tensor, weight: Tensor | None, options: dict[str, Any]
) -> Any:
    """What the function for arrays gives."""
    x, t = _array(input), _array(target)
    dim = _class_dim(input)
    try:
        return kernel(x, t, dim, weight=None if weight is None else _array(weight), **options)
    except ValueError:
        if "ignore_index" in options:
            _validate.labels(t, x.shape[dim], options["ignore_index"], "target")  # the same error, by its name here
        raise


def _row_weights(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Tensor:
    """sum_c w_c t_c of each row, smoothed and divided as the losses are, with one class: what softmax(x) is times."""
    dim = _class_dim(input)
    n = input.shape[dim]
    classes = input.new_ones(n) if weight is None else weight.to(input.dtype)
    if target.is_floating_point():
        smooth = (1 - label_smoothing) * target + label_smoothing / n
        rows = (smooth.movedim(dim, -1) * classes).sum(-1)  # no product of matrices: autocast would round it
        total = input.new_tensor(rows.numel())
    else:
        labels = target.long()
        shown = labels.ne(ignore_index)
        of_label = torch.where(shown, classes[torch.where(shown, labels, 0)], 0)
        rows = (1 - label_smoothing) * of_label + label_smoothing * classes.mean() * shown
        total = of_label.sum()
    if reduction == "mean":
        rows = rows / total if total != 0 else torch.zeros_like(rows)
    return rows.unsqueeze(dim)
