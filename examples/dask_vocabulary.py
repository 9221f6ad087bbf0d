"""
A vocabulary that no worker holds
=================================

Logits of 512 tokens over a vocabulary of 262144, half a gigabyte in float32, on a Dask cluster of two processes. The
vocabulary is cut into 64 parts. The cross-entropy and its gradient by the logits are computed without a row ever being
in one place: what the parts tell each other is a few numbers for each token. The gradient goes where a model would use
it, into the gradient by the weights of the last layer, here into one number for each class.

The logits are made when they are needed, as a model makes them::

    python -m pip install ".[dask]" distributed matplotlib
    python dask_vocabulary.py
"""

# sphinx_gallery_thumbnail_path = "thumbnails/dask_vocabulary.svg"

import math
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import fastsoft

TOKENS, VOCABULARY = 512, 262144
CHUNK = (512, 4096)


def peak_memory():
    """The most memory, in MB, that this process has had."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def draw(at_start, at_end, block):
    """The peaks of the workers, beside the size of a block of whole rows."""
    import matplotlib.pyplot as plt  # here, since each worker imports this file

    plt.style.use("petroff10")
    _, bars = plt.subplots(figsize=(6, 4), layout="constrained")
    workers = np.arange(len(at_end))
    bars.bar(workers - 0.2, at_start, 0.4, label="at the start")
    bars.bar(workers + 0.2, at_end, 0.4, label="at the end")
    bars.axhline(block, color="black", linewidth=0.8, label=f"logits of the {TOKENS} tokens")
    bars.set(xticks=workers, xticklabels=[f"worker {k + 1}" for k in workers], ylabel="peak of memory (MB)")
    bars.set_ylim(0, 1.35 * block)
    bars.legend(ncols=3, loc="upper center", fontsize="small")
    plt.show()


def main():
    x = da.random.default_rng(0).standard_normal((TOKENS, VOCABULARY), chunks=CHUNK, dtype=np.float32) * 5
    t = np.random.default_rng(1).integers(0, VOCABULARY, TOKENS)
    print(f"{x.nbytes / 2**20:.0f} MB of logits, in parts of {math.prod(CHUNK) * 4 / 2**20:.0f} MB")

    # Nothing is computed here.
    loss, grad = fastsoft.softmax_cross_entropy_with_grad(x, t, reduction="mean")
    by_class = grad.sum(axis=0)

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="500MB", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        at_start = list(client.run(peak_memory).values())
        print("peak of each worker at the start:", *(f"{mb:.0f} MB" for mb in at_start))
        start = time.perf_counter()
        value, slopes = dask.compute(loss, by_class)
        print(f"loss {value:.4f}, in {time.perf_counter() - start:.1f} s")
        at_end = list(client.run(peak_memory).values())
        print("peak of each worker at the end:", *(f"{mb:.0f} MB" for mb in at_end))

    # The gradients of a token sum to 0 over its classes, hence those of all tokens do.
    print(f"gradients of {slopes.size} classes, from {slopes.min():.2e} to {slopes.max():.2e}, sum {slopes.sum():.1e}")
    draw(at_start, at_end, x.nbytes / 2**20)


if __name__ == "__main__":
    main()

# %%
