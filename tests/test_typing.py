"""Whether what type checkers are told is true: each `assert_type` of the samples, when it runs.

That they see what stands there is for mypy and basedpyright to say, in `make lint`; neither is needed here.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from typing import Any, get_args, get_origin

import numpy as np
import pytest
import typing_sample as sample

import fastsoft

FUNCTIONS = [f for _, f in inspect.getmembers(sample, inspect.isfunction) if f.__module__ == sample.__name__]


def check(value: Any, kind: Any) -> Any:
    """Raise unless `value` is what `kind` says, the dtype and the number of axes included."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    assert isinstance(value, origin or kind)
    if origin is tuple and args[-1] is not Ellipsis:
        for part, of in zip(value, args, strict=True):
            check(part, of)
    elif origin is tuple:
        for part in value:
            check(part, args[0])
    elif origin is np.ndarray:
        axes, (scalar,) = get_args(args[0]), get_args(args[1])
        assert scalar is Any or value.dtype == np.dtype(scalar)
        if args[0] is not Any and Ellipsis not in axes:
            assert value.ndim == len(axes)
    elif origin is not None:  # LogSumExp, SoftmaxJacobian
        assert value.dtype == np.dtype(args[0])
    return value


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_sample(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each function of the sample asserts holds."""
    if function.__name__ == "dask_arrays" and importlib.util.find_spec("dask") is None:
        pytest.skip("NOT TESTED: Dask is not installed")
    seen = []
    monkeypatch.setattr(sample, "assert_type", lambda value, kind: seen.append(check(value, kind)))
    function()
    assert seen


def test_sample_of_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise of fastsoft.torch."""
    pytest.importorskip("torch", reason="NOT TESTED: PyTorch is not installed")
    tensors = importlib.import_module("typing_sample_torch")
    seen = []
    monkeypatch.setattr(tensors, "assert_type", lambda value, kind: seen.append(check(value, kind)))
    tensors.tensors()
    assert len(seen) == 4


def test_a_wrong_claim_is_found() -> None:
    """`check` sees another dtype, another number of axes, and an array that is missing."""
    x = np.ones(3, np.float32)
    for value, kind in (
        (x, sample.Double),
        (x, sample.Matrix),
        (x, sample.ScalarSingle),
        (x[0], sample.Single),
        ((x,), tuple[sample.Single, sample.Single]),
        ((x, x), tuple[sample.Single, sample.Kinds]),
        (fastsoft.LogSumExp(), fastsoft.LogSumExp[np.float32]),
    ):
        with pytest.raises((AssertionError, ValueError)):
            check(value, kind)


def test_sample_calls_everything() -> None:
    """No public function is missing from the sample."""
    assert set(fastsoft.__all__) <= set(re.findall(r"fastsoft\.(\w+)", inspect.getsource(sample)))
