"""
Time against the length of the row
==================================

The time of a call on one row, against its length, on one thread; float32. NumPy stands for what one writes by hand,
the ``baseline`` of ``fastsoft.reference``. Of ten short runs in turn the best counts. The figures are those of the
machine that built this page: only their ratios say something.
"""

from timeit import Timer

import matplotlib.pyplot as plt
import numpy as np
import scipy.special

import fastsoft
from fastsoft.reference import OPS

libraries = {
    "fastsoft": lambda name: getattr(fastsoft, name),
    "NumPy": lambda name: next(op.baseline for op in OPS if op.name == name),
    "SciPy": lambda name: getattr(scipy.special, name),
}
try:
    import torch

    torch.set_num_threads(1)
    libraries["PyTorch"] = lambda name: lambda x, axis: getattr(torch, name)(torch.from_numpy(x), axis).numpy()
except ImportError:
    print("Without PyTorch, which is not installed")

SAMPLE, ROUNDS = 0.002, 10  # seconds of a run, at least; runs


def microseconds(functions, x):
    """The time of a call of each, in turn, so that what else the machine does hits all alike."""
    timers = [Timer(lambda f=f: f(x, axis=-1)) for f in functions]
    numbers = [1 + int(SAMPLE / max(timer.timeit(2) / 2, 1e-9)) for timer in timers]
    runs = [[timer.timeit(n) / n for timer, n in zip(timers, numbers, strict=True)] for _ in range(ROUNDS)]
    return 1e6 * np.min(runs, axis=0)


plt.style.use("petroff10")
lengths = 4 ** np.arange(1, 11)
rng = np.random.default_rng(0)
names = ("softmax", "log_softmax", "logsumexp")
figure, panels = plt.subplots(1, 3, figsize=(11, 4), sharey=True, layout="constrained")
with fastsoft.num_threads(1):
    for panel, name in zip(panels, names, strict=True):
        functions = [library(name) for library in libraries.values()]
        times = np.array([microseconds(functions, rng.normal(0, 3, n).astype(np.float32)) for n in lengths])
        for label, found, style in zip(libraries, times.T, ("o-", "s--", "^:", "d-."), strict=False):
            panel.loglog(lengths, found, style, label=label, markersize=4)
        if "PyTorch" not in libraries:
            panel.plot([], [], " ", label="PyTorch: not installed")
        panel.set(title=name, xlabel="classes")
        panel.grid(alpha=0.3)
        panel.legend(loc="upper left")
panels[0].set_ylabel("time of a call (µs)")
plt.show()
