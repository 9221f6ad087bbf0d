"""
The losses of ONNX
==================

SoftmaxCrossEntropyLoss and NegativeLogLikelihoodLoss (opset 13) by fastsoft, checked: with onnx installed they are
compared with its reference implementation, without it with plain NumPy::

    python -m pip install onnx
    python onnx_losses.py
"""

# sphinx_gallery_thumbnail_path = "thumbnails/onnx_losses.svg"

from itertools import product

import numpy as np

import fastsoft

try:
    import onnx
    from onnx.reference import ReferenceEvaluator
except ImportError:
    onnx = None

# %%
# The operators: x (N, C, d1, ...), labels (N, d1, ...), weight (C,).


def softmax_cross_entropy_loss(x, labels, weight=None, ignore_index=None, reduction="mean"):
    """Both outputs: the loss, and log_prob of the shape of x."""
    loss = fastsoft.softmax_cross_entropy(
        x, labels, axis=1, weight=weight, ignore_index=ignore_index, reduction=reduction
    )
    return loss, fastsoft.log_softmax(x, axis=1)


def negative_log_likelihood_loss(log_prob, labels, weight=None, ignore_index=None, reduction="mean"):
    """The loss of log-probabilities, of which softmax gives the probabilities again: the same function."""
    return fastsoft.softmax_cross_entropy(
        log_prob, labels, axis=1, weight=weight, ignore_index=ignore_index, reduction=reduction
    )


# %%
# What they are compared with.


def by_onnx(name, inputs, outputs, **attributes):
    """The outputs of one node, computed by onnx."""
    attributes = {key: value for key, value in attributes.items() if value is not None}
    names = ["x", "labels", "weight"][: len(inputs)]
    x, labels = inputs[:2]
    shapes = {"loss": labels.shape if attributes["reduction"] == "none" else (), "log_prob": x.shape}

    def value(key, dtype, shape):
        return onnx.helper.make_tensor_value_info(key, onnx.helper.np_dtype_to_tensor_dtype(dtype), shape)

    node = onnx.helper.make_node(name, names, outputs, **attributes)
    given = [value(key, a.dtype, a.shape) for key, a in zip(names, inputs, strict=True)]
    graph = onnx.helper.make_graph([node], name, given, [value(key, x.dtype, shapes[key]) for key in outputs])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    onnx.checker.check_model(model)
    return ReferenceEvaluator(model).run(outputs, dict(zip(names, inputs, strict=True)))


def by_numpy(name, inputs, outputs, ignore_index=None, reduction="mean"):
    """The outputs of one node by the formulas of the specification."""
    x, labels, *weight = inputs
    log_prob = x
    if name == "SoftmaxCrossEntropyLoss":
        d = x - x.max(1, keepdims=True)
        log_prob = d - np.log(np.exp(d).sum(1, keepdims=True))
    ignored = np.zeros(labels.shape, bool) if ignore_index is None else labels == ignore_index
    label = np.where(ignored, 0, labels)
    w = np.where(ignored, 0, weight[0][label] if weight else 1).astype(x.dtype)
    loss = -w * np.take_along_axis(log_prob, np.expand_dims(label, 1), 1).squeeze(1)
    loss = loss if reduction == "none" else loss.sum() / (w.sum() if reduction == "mean" else 1)
    return (loss, log_prob)[: len(outputs)]


# %%
# The comparison.

reference = by_onnx if onnx else by_numpy
against = f"onnx {onnx.__version__}" if onnx else "plain NumPy, since onnx is not installed"
print(f"fastsoft beside {against}: the largest difference over the largest abs(output), or over 1")

rng = np.random.default_rng(0)
shapes = ((5, 3), (3, 5, 2), (3, 5, 6, 6), (2, 4, 3, 2, 5))
for dtype in (np.float32, np.float64):
    largest, count = {}, 0
    for shape, weighted, ignore_index, reduction in product(
        shapes, (False, True), (None, 0, -100, 99), ("none", "sum", "mean")
    ):  # not -1, with which onnx 1.23 counts the ignored labels in the mean of NegativeLogLikelihoodLoss
        x = rng.normal(0, 3, shape).astype(dtype)
        labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
        if ignore_index is not None:
            labels.flat[::3] = ignore_index
        weight = rng.uniform(0.1, 2, shape[1]).astype(dtype) if weighted else None
        options = {"ignore_index": ignore_index, "reduction": reduction}
        log_prob = fastsoft.log_softmax(x, axis=1)
        for name, outputs, first, got in (
            ("SoftmaxCrossEntropyLoss", ["loss", "log_prob"], x,
             softmax_cross_entropy_loss(x, labels, weight, **options)),
            ("NegativeLogLikelihoodLoss", ["loss"], log_prob,
             [negative_log_likelihood_loss(log_prob, labels, weight, **options)]),
        ):  # fmt: skip
            inputs = [first, labels] if weight is None else [first, labels, weight]
            for output, ours, theirs in zip(outputs, got, reference(name, inputs, outputs, **options), strict=True):
                if (ours.dtype, ours.shape) != (np.dtype(dtype), np.shape(theirs)):
                    raise RuntimeError(f"{name}: {output} is {ours.dtype} {ours.shape}, not {dtype} {np.shape(theirs)}")
                size = max(np.abs(theirs).max(), 1)
                difference = np.abs(ours.astype(float) - theirs).max() / size
                largest[name, output] = max(largest.get((name, output), 0), difference)
            count += 1
    for (name, output), difference in largest.items():
        print(f"{np.dtype(dtype).name:8} {name:26} {output:9} {difference:.1e}")
    if not max(largest.values()) < 32 * np.finfo(dtype).eps:
        raise RuntimeError("they differ by more than rounding")
print(f"{count} calls with each dtype")
