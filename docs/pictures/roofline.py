"""
Exponentials in a second, under the roof of the machine
=======================================================

A roofline: the exponentials that an operation computes in a second, against those that it has to compute for each byte
that it reads or writes. What memory brings is the slope, and what the multiplications in the exponentials allow is the
flat roof. Left of the ridge between them memory sets the limit, right of it arithmetic. Each array has a slope of its
own, since the small ones are in a cache. One thread.

The slope is that of the fastest simple pass over as much memory: reading, writing, copying, or two arrays into a third.
What writes much stays below it. A point above the roof is noise, or shows a cache of which the pass made less use. The
roof knows nothing of the cost of a call, which keeps small arrays down, nor of other arithmetic than exponentials.

``benchmarks/roofline.py`` in the source tree measures every operation on more arrays, each beside the pass that is most
like it; this takes some of its functions. They need a C compiler. The figures are those of the machine that built this
page.
"""

import importlib
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from fastsoft.reference import OPS

sys.path.insert(0, str(Path.cwd().parents[1] / "benchmarks"))  # Sphinx runs it in its own folder
roofline = importlib.import_module("roofline")

MARKERS = {"softmax_vjp": "s", "softmax_cross_entropy_with_grad": "D", "softmax": "o", "logsumexp": "^"}
SHAPES, DTYPES, THREADS = ((64, 100), (64, 1000), (1000, 1000)), ("float32", "float64"), [1]
MEMORY = 64 << 20  # bytes: no operation here goes over more


def bandwidth(size, bandwidths):
    """Bytes in a second of the fastest pass over this many."""
    shares = (0, 1 / 3, 1 / 2, 1)  # of what is written
    return size / min(roofline.memory_seconds(size * (1 - s), size * s, THREADS[0], bandwidths) for s in shares)


def draw(panel, dtype, rates, bandwidths):
    """The roof over each array, and the operations under it."""
    intensities = np.geomspace(0.02, 1, 200)
    for k, (rows, n) in enumerate(SHAPES):
        slope = bandwidth(2 * rows * n * np.dtype(dtype).itemsize, bandwidths)
        roof = np.minimum(slope * intensities, rates[dtype, THREADS[0]])
        panel.loglog(intensities, roof / 1e9, color=f"C{k}", label=f"{rows} x {n}, {slope / 1e9:.0f} GB/s")
        for op in OPS:
            if op.name in MARKERS:
                (cell,) = roofline.measure_operation(op, (rows, n), -1, dtype, THREADS, bandwidths, rates)
                reached = cell.exps / cell.seconds
                panel.plot(cell.exps / cell.bytes, reached / 1e9, MARKERS[op.name], color=f"C{k}", alpha=0.8)
    panel.set(title=dtype, xlabel="exponentials for each byte")
    panel.grid(alpha=0.3)
    panel.legend(loc="lower right")


plt.style.use("petroff10")
figure, panels = plt.subplots(1, 2, figsize=(10, 4.5), sharey=True, layout="constrained")
try:
    rates = roofline.exp_rates(THREADS)
    bandwidths = roofline.measure_bandwidths(THREADS, quick=True, largest=MEMORY)
    for panel, dtype in zip(panels, DTYPES, strict=True):
        draw(panel, dtype, rates, bandwidths)
    panels[0].set_ylabel("exponentials in a second (10$^9$)")
    points = [plt.Line2D([], [], color="gray", marker=marker, linestyle="") for marker in MARKERS.values()]
    figure.legend(points, list(MARKERS), loc="outside lower center", ncols=len(MARKERS))
except SystemExit as reason:  # without a C compiler
    print(f"Not measured: {reason}")
    figure.set_size_inches(9, 1)
    figure.text(0.5, 0.5, f"Not measured: {reason}", ha="center", va="center", wrap=True)
    for panel in panels:
        panel.set_axis_off()
plt.show()
