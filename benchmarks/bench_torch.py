"""fastsoft.torch beside torch.nn.functional, forward and backward, call by call in one run: a table in Markdown.

    python benchmarks/bench_torch.py

A ratio is PyTorch's time over fastsoft's, above 1 where fastsoft is faster: the median over rounds, in each of which
both are timed one after the other. Nothing is timed before both have given the same gradient.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="this benchmark needs PyTorch")

import torch.nn.functional as functional  # noqa: E402

import fastsoft.torch  # noqa: E402

SHAPES = ((256, 1000), (32, 32000))
NAMES = ("cross_entropy", "softmax", "log_softmax")
ROUNDS = 25
SAMPLE = 0.01  # seconds that a sample lasts, about
Call = Callable[[], Any]


def calls(library: Any, name: str, logits: Any, second: Any) -> tuple[Call, Call]:
    """Forward alone, no gradient being asked for; forward and backward, which returns the gradient.

    `second`: labels, or the gradient that arrives.
    """
    function = getattr(library, name)
    x = logits.clone().requires_grad_()
    loss = name == "cross_entropy"

    def forward(x: Any = logits) -> Any:
        return function(x, second) if loss else function(x, dim=-1)

    def both() -> Any:
        x.grad = None
        forward(x).backward(None if loss else second)
        return x.grad

    return forward, both


def seconds(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def compare(ours: Call, theirs: Call) -> tuple[float, float, float]:
    """Seconds of both, and the ratio."""
    count = max(1, round(SAMPLE / max(seconds(theirs, 2), 1e-9)))
    times = [(seconds(ours, count), seconds(theirs, count)) for _ in range(ROUNDS)]
    ratio = statistics.median(b / a for a, b in times)
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times), ratio


def row(name: str, shape: tuple[int, int], threads: int) -> str:
    """A line of the table."""
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(shape, generator=generator)
    labels = torch.randint(0, shape[1], shape[:1], generator=generator)
    second = labels if name == "cross_entropy" else torch.randn(shape, generator=generator)
    ours, theirs = (calls(library, name, logits, second) for library in (fastsoft.torch, functional))
    torch.testing.assert_close(ours[1](), theirs[1](), rtol=1e-3, atol=1e-6)
    *_, forward = compare(ours[0], theirs[0])
    mine, other, both = compare(ours[1], theirs[1])
    size = "x".join(map(str, shape))
    return f"| `{name}` | {size} | {threads} | {forward:.2f} | {both:.2f} | {mine * 1e6:.0f} | {other * 1e6:.0f} |"


def main() -> None:
    print(f"fastsoft {fastsoft.__version__}, PyTorch {torch.__version__}, float32\n")
    print("| function | shape | threads | forward | forward + backward | fastsoft us | PyTorch us |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for threads in sorted({1, fastsoft.get_num_threads()}):
        fastsoft.set_num_threads(threads)
        torch.set_num_threads(threads)
        for name in NAMES:
            for shape in SHAPES:
                print(row(name, shape, threads), flush=True)


if __name__ == "__main__":
    main()
