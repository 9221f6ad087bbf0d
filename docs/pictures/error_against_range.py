"""
Error against the range of the logits
=====================================

The largest error of 100 rows of 1000 logits from a normal distribution, in ulps of the exact result, against the
standard deviation of the logits. float32; the exact result is that of ``fastsoft.reference``, in 80 bits. Where the
deviation is 100 and more hardly any probability is left that is neither 0 nor 1. An error of :math:`2^{24}`, 1.7e7, is
that of a result without a right digit. NumPy stands for what one writes by hand, the ``baseline`` of
``fastsoft.reference``; its line is wide, since that of SciPy, which computes alike, lies upon it.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.special

import fastsoft
from fastsoft.reference import OPS, max_error

operations = {op.name: op for op in OPS if op.name in ("softmax", "log_softmax")}
libraries = {
    "fastsoft": lambda name: getattr(fastsoft, name),
    "NumPy": lambda name: operations[name].baseline,
    "SciPy": lambda name: getattr(scipy.special, name),
}
try:
    import torch

    libraries["PyTorch"] = lambda name: lambda x, axis: getattr(torch, name)(torch.from_numpy(x), axis).numpy()
except ImportError:
    print("Without PyTorch, which is not installed")

plt.style.use("petroff10")
spreads = np.geomspace(0.1, 300, 25)
normal = np.random.default_rng(0).standard_normal((100, 1000))
figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for panel, (name, operation) in zip(panels, operations.items(), strict=True):
    for (label, library), style in zip(libraries.items(), ("o-", "-", "^:", "d-."), strict=False):
        errors = []
        for spread in spreads:
            x = (spread * normal).astype(np.float32)
            errors.append(max_error(operation, library(name)(x, axis=-1), x))
        wide = {"linewidth": 6, "zorder": 1} if label == "NumPy" else {}
        panel.loglog(spreads, errors, style, label=label, markersize=4, **wide)
    if "PyTorch" not in libraries:
        panel.plot([], [], " ", label="PyTorch: not installed")
    panel.axhline(operation.bound, color="black", linewidth=0.8, label=f"bound of fastsoft: {operation.bound} ulp")
    panel.set(title=name, xlabel="standard deviation of the logits")
    panel.grid(alpha=0.3)
    panel.legend(loc="upper left")
panels[0].set_ylabel("largest error (ulp)")
plt.show()
