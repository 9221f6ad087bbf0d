"""
Error against the length of the row
===================================

The largest error of softmax, in ulps of the exact result, against the number of classes, with logits from a normal
distribution of standard deviation 3, and :math:`2^{18}` of them or one row in all. float32 and float64; the exact
result is that of ``fastsoft.reference``, in 80 bits. NumPy stands for what one writes by hand, the ``baseline`` there;
its line is wide, since that of SciPy, which computes alike, lies upon it.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.special

import fastsoft
from fastsoft.reference import OPS, max_error

operation = next(op for op in OPS if op.name == "softmax")
libraries = {"fastsoft": fastsoft.softmax, "NumPy": operation.baseline, "SciPy": scipy.special.softmax}
try:
    import torch

    libraries["PyTorch"] = lambda x, axis: torch.softmax(torch.from_numpy(x), axis).numpy()
except ImportError:
    print("Without PyTorch, which is not installed")

plt.style.use("petroff10")
lengths = 2 ** np.arange(1, 22, 2)
rng = np.random.default_rng(0)
figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for panel, dtype in zip(panels, ("float32", "float64"), strict=True):
    errors = {label: [] for label in libraries}
    for n in lengths:
        x = rng.normal(0, 3, (max(1, 2**18 // n), n)).astype(dtype)
        for label, softmax in libraries.items():
            errors[label].append(max_error(operation, softmax(x, axis=-1), x))
    for (label, found), style in zip(errors.items(), ("o-", "-", "^:", "d-."), strict=False):
        wide = {"linewidth": 6, "zorder": 1} if label == "NumPy" else {}
        panel.loglog(lengths, found, style, label=label, markersize=4, **wide, base=2)
    if "PyTorch" not in libraries:
        panel.plot([], [], " ", label="PyTorch: not installed")
    panel.axhline(operation.bound, color="black", linewidth=0.8, label=f"bound of fastsoft: {operation.bound} ulp")
    panel.set_yscale("log", base=10)
    panel.set_ylim(1, max(400, panel.get_ylim()[1]))  # room for the legend
    panel.set(title=dtype, xlabel="classes")
    panel.grid(alpha=0.3)
    panel.legend(loc="upper left")
panels[0].set_ylabel("largest error (ulp)")
plt.show()
