"""What mypy sees of `fastsoft.torch`; in a file of its own, since it sees nothing where PyTorch is not installed."""

from __future__ import annotations

from typing import assert_type

import torch
from torch import Tensor

import fastsoft.torch


def tensors() -> None:
    """Tensors give tensors, and the arguments are those of torch.nn.functional."""
    x, t = torch.zeros(2, 3), torch.tensor([0, 2])
    assert_type(fastsoft.torch.softmax(x, dim=-1), Tensor)
    assert_type(fastsoft.torch.log_softmax(x, 1, dtype=torch.float64), Tensor)
    assert_type(fastsoft.torch.cross_entropy(x, t), Tensor)
    loss = fastsoft.torch.cross_entropy(x, t, torch.ones(3), ignore_index=-1, reduction="sum", label_smoothing=0.1)
    assert_type(loss, Tensor)
