"""
Time beside the limit of the machine
====================================

The least time that the machine allows for an operation, in percent of the time that it takes: 50 means twice the least
time, and 100 cannot be passed but by noise. That limit is the time to read the arguments and write the results once, at
the bandwidth of passes over as much memory (*m*); or the time of the multiplications in the exponentials, one
exponential for each class, where that is longer (*e*). One thread.

``benchmarks/roofline.py`` in the source tree measures all of it, on more arrays; this takes some of its functions. They
need a C compiler. The figures are those of the machine that built this page.
"""

import importlib
import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from fastsoft.reference import OPS

sys.path.insert(0, str(Path.cwd().parents[1] / "benchmarks"))  # Sphinx runs it in its own folder
roofline = importlib.import_module("roofline")

SHAPES, DTYPES, THREADS = ((64, 100), (64, 1000), (1000, 1000)), ("float32", "float64"), [1]
LARGEST = 1 << 20  # numbers in a result: there are n times more in Jacobians
MEMORY = 64 << 20  # bytes: no operation here goes over more


def measure():
    """How near to its limit each operation comes on each array."""
    rates = roofline.exp_rates(THREADS)
    bandwidths = roofline.measure_bandwidths(THREADS, quick=True, largest=MEMORY)
    return [
        cell
        for op in OPS
        for shape in SHAPES
        if math.prod(shape) * (shape[-1] if op.classes == 2 else 1) <= LARGEST
        for dtype in DTYPES
        for cell in roofline.measure_operation(op, shape, -1, dtype, THREADS, bandwidths, rates)
    ]


# %%
# Small arrays are far from the limit, which knows nothing of the cost of a call, nor of other arithmetic than
# exponentials: the logarithms of ``cross_entropy`` do not count. Jacobians of long rows are left out, being large.
figure, panel = plt.subplots(figsize=(9, 6), layout="constrained")
try:
    image = roofline.draw_fractions(panel, measure(), THREADS[0])
    arrays = [f"{rows} x {n}\n{dtype}" for rows, n in SHAPES for dtype in DTYPES]
    panel.set_xticks(range(len(arrays)), arrays, rotation=0, ha="center")
    panel.set(xlabel=None, ylabel=None)
    figure.colorbar(image, label="percent of the limit", shrink=0.8)
except SystemExit as reason:  # without a C compiler
    print(f"Not measured: {reason}")
    figure.set_size_inches(9, 1)
    panel.text(0.5, 0.5, f"Not measured: {reason}", ha="center", va="center", wrap=True)
    panel.set_axis_off()
plt.show()
