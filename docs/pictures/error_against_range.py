"""
Error against the range of the logits
=====================================

The largest error of 100 rows of 1000 logits from a normal distribution, in ulps of the exact result, against the
standard deviation of the logits. float32; the exact result is that of ``fastsoft.reference``, in 80 bits. Where the
deviation is 100 and more hardly any probability is left that is neither 0 nor 1. An error of :math:`2^{24}`, 1.7e7, is
that of a result without a right digit.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.special

import fastsoft
from fastsoft.reference import OPS, max_error

libraries = {"fastsoft": fastsoft, "SciPy": scipy.special}
try:
    import torch

    class ByTorch:
        softmax = staticmethod(lambda x, axis: torch.softmax(torch.from_numpy(x), axis).numpy())
        log_softmax = staticmethod(lambda x, axis: torch.log_softmax(torch.from_numpy(x), axis).numpy())

    libraries["PyTorch"] = ByTorch
except ImportError:
    pass

plt.style.use("petroff10")
spreads = np.geomspace(0.1, 300, 25)
normal = np.random.default_rng(0).standard_normal((100, 1000))
figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for panel, name in zip(panels, ("softmax", "log_softmax"), strict=True):
    operation = next(op for op in OPS if op.name == name)
    for (label, library), style in zip(libraries.items(), ("o-", "s--", "^:"), strict=False):
        errors = []
        for spread in spreads:
            x = (spread * normal).astype(np.float32)
            errors.append(max_error(operation, getattr(library, name)(x, axis=-1), x))
        panel.loglog(spreads, errors, style, label=label, markersize=4)
    panel.axhline(operation.bound, color="black", linewidth=0.8, label=f"bound of fastsoft: {operation.bound} ulp")
    panel.set(title=name, xlabel="standard deviation of the logits")
    panel.grid(alpha=0.3)
    panel.legend()
panels[0].set_ylabel("largest error (ulp)")
plt.show()
