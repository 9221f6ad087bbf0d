"""What the public functions share: the kernels' names for operations, the pieces in which long work is done, a quiet
NumPy, and the way out for Dask arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import _machine

# kernels/operation.pxi
SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, VJP, VJP_GAP, LOG_VJP, JACOBIAN, DIAGONAL, LABELS, TARGETS = range(10)
VJP_FROM_OUTPUT, LOG_VJP_FROM_OUTPUT, CROSS_ENTROPY, CROSS_ENTROPY_GRAD = range(10, 14)
PIECE = 1 << 24  # numbers computed in one go, in about 0.2 s at most; between pieces Python sees to signals


def pieces(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Runs of rows, start and stop, of `size` numbers each."""
    step = max(1, PIECE // max(size, 1))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


@contextmanager
def quiet() -> Iterator[None]:
    """For what NumPy computes or converts: no warnings, the default floating-point state, and no flag is left behind,
    which a mere conversion may set: that of a signalling NaN is invalid."""
    with _machine.DefaultState(), np.errstate(all="ignore"):
        yield


def lazy(*arrays: object) -> bool:
    """Whether there is a Dask array among them. Without `dask.array`, which is not imported here, there is none."""
    found = getattr(sys.modules.get("dask.array"), "Array", None)
    return found is not None and any(isinstance(a, found) for a in arrays)


def on_dask(kind: int, arrays: dict[str, object], axis: object, out: object, **options: object) -> Any:
    """What an operation gives for named arrays of which one is `lazy`: a Dask array, or two."""
    from . import dask

    return dask.call(kind, arrays, axis, out, options)
