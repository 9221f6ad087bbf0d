"""
Loss and gradient of a confident row
====================================

The logits are [d, 0, 0] with the label 0. Loss and gradient of the label are :math:`\\log(1 + R)` and
:math:`-R / (1 + R)` with :math:`R = 2 e^{-d}`. The picture has the relative error of both against the margin d, in
float64; 1 means that no digit is right. The exact values are those of ``fastsoft.reference``, in 80 bits.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.special

import fastsoft
from fastsoft import reference

margins = np.linspace(0, 60, 241)
x = np.zeros((margins.size, 3))
x[:, 0] = margins
t = np.zeros(margins.size, int)

loss, grad = fastsoft.softmax_cross_entropy_with_grad(x, t)
exact_loss = reference.softmax_cross_entropy(x, t)
exact_grad = reference.softmax_cross_entropy_gradient(x, t)[:, 0]
their_loss = -scipy.special.log_softmax(x, axis=-1)[:, 0]
their_grad = scipy.special.softmax(x, axis=-1)[:, 0] - 1
panels = {
    "loss": (loss, their_loss, "SciPy: -log_softmax(x)[0]", exact_loss),
    "gradient of the label": (grad[:, 0], their_grad, "SciPy: softmax(x)[0] - 1", exact_grad),
}

# %%
# Where an error is 0 it is drawn at :math:`10^{-17}`.
plt.style.use("petroff10")
figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for panel, (title, (ours, theirs, name, exact)) in zip(axes, panels.items(), strict=True):
    for got, label, style in ((ours, "fastsoft", "-"), (theirs, name, "--")):
        error = np.abs((got - exact) / exact).astype(float)
        panel.semilogy(margins, np.maximum(error, 1e-17), style, label=label)
    panel.set(title=title, xlabel="margin d of the right class")
    panel.grid(alpha=0.3)
    panel.legend(loc="center right")
axes[0].set_ylabel("relative error")
plt.show()
