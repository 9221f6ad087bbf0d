"""Whether two machines with FMA give the same bits: `make FILE` on one, `check FILE` on the other.

The file holds the arguments of some calls, since what NumPy computes differs between machines, and hashes of the
results. PYTHONPATH must hold the tree and its tests.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np
from helpers import FLOATS, SWEPT, Array, dtype_of, given, lengths, within_reach
from test_same_bits import assorted, ways

from fastsoft import _dispatch
from fastsoft.reference import Operation

LENGTHS = (1, 2, 3, 7, 8, 16, 17, 33, 64, 100, 129, 1000, 8193)
CASES = [(op, dtype) for op in SWEPT for dtype in FLOATS]


def with_large(arguments: tuple[Array, ...], dtype: str) -> tuple[Array, ...]:
    """The same, but vectors so large in every third row that their products are summed with a scale."""
    x, *vectors = arguments
    large = 2.0**12 if dtype == "float16" else 2.0**120
    return x, *(np.where(np.arange(len(v))[:, None] % 3 == 1, v * large, v).astype(v.dtype) for v in vectors)


def calls(op: Operation, dtype: str) -> list[tuple[Array, ...]]:
    """The arguments of some calls, one for each length."""
    shapes = [within_reach(op, (60 if n < 1000 else 23, n)) for n in lengths(op, LENGTHS)]
    found = [op.arguments(assorted(shape, dtype_of(dtype))) for shape in shapes]
    return [with_large(arguments, dtype) if "vjp" in op.name else arguments for arguments in found]


def digest(op: Operation, arguments: tuple[Array, ...]) -> str:
    """A hash of the results in rows and in columns, for each way in which the logits enter exp."""
    columns = [a.T.copy() for a in arguments]
    total = hashlib.sha256()
    for options in ways(op):
        for y in (given(op, *arguments, **options), given(op, *columns, axis=0, **options)):
            total.update(y.tobytes())
    return total.hexdigest()


def make(file: str) -> None:
    """Write the file."""
    found: dict[str, Any] = {}
    for op, dtype in CASES:
        for k, arguments in enumerate(calls(op, dtype)):
            name = f"{op.name} {dtype} {k}"
            found |= {f"{name} {j}": a for j, a in enumerate(arguments)}
            found[name] = digest(op, arguments)
    np.savez(file, **found)
    print(f"{_dispatch.isa}: written")


def check(file: str) -> bool:
    """Whether this machine gives what the file says."""
    found = np.load(file)
    names = [name for name in found.files if name.count(" ") == 2]
    differ = []
    for name in names:
        operation, dtype, _ = name.split()
        arguments = [found[key] for key in found.files if key.startswith(f"{name} ")]
        arguments = [a.view(dtype_of(dtype)) if a.dtype.kind == "V" else a for a in arguments]  # bfloat16
        op = next(op for op in SWEPT if op.name == operation)
        if digest(op, tuple(arguments)) != found[name].item():
            differ.append(name)
    print(f"{_dispatch.isa}: {len(names) - len(differ)} of {len(names)} hashes are the same", *differ, sep="\n    ")
    return bool(names) and not differ


if __name__ == "__main__":
    task, path = sys.argv[1:]
    sys.exit(not check(path) if task == "check" else make(path))
