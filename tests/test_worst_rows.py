"""The rows with the largest errors that a search has found (worst_rows.py), and a sample of all rows of two classes."""

from __future__ import annotations

import exhaustive
import numpy as np
import pytest
import worst_rows
from helpers import WORK, dtype_of, extended, given, operations

from fastsoft import _dispatch
from fastsoft.reference import OPS, Operation, errors


@extended
@operations(OPS)
@pytest.mark.parametrize("dtype", WORK)
def test_worst_row(op: Operation, isa: str, dtype: str) -> None:
    """It has the error that is documented, where there is FMA, and on no variant one beyond the bound."""
    kept = worst_rows.load()[op.name, dtype]
    arguments = tuple(worst_rows.decoded(values, dtype) for values in kept["arguments"])
    error = float(errors(op, given(op, *arguments), arguments).max())
    if isa != "portable":
        assert error == pytest.approx(kept["error"], abs=0.002)
    assert error <= op.bound


@extended
@operations(OPS)
def test_search(op: Operation) -> None:
    """Rows of all kinds, and what a few steps of the search make of them, do not go beyond the bound."""
    for dtype in WORK:
        rng = np.random.default_rng(0)
        for n in (2, 5, 33) if op.classes < 2 else (2, 5):
            rows = worst_rows.started(rng, op, n, dtype)
            for _ in range(3):
                assert worst_rows.errors_of(op, rows).max() <= op.bound
                rows = worst_rows.children(rng, op, rows.take(np.arange(worst_rows.PARENTS)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_sample_of_all_rows_of_two_classes(dtype: str) -> None:
    """Each so-manieth of the 2**32 rows, on every variant: `python tests/exhaustive.py` takes them all."""
    number = dtype_of(dtype)
    found = exhaustive.worst(number, exhaustive.blocks_of(20_011))
    for case in exhaustive.CASES:
        for isa in _dispatch.available():
            error, row = found[case.name, isa]
            assert error <= case.bound_of(number), f"{case.name} {isa}: {error:.4g} ULP at {row}"
