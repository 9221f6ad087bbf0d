"""
Calibration by temperature scaling
==================================

A classifier that was fitted too closely is too sure of itself: of what it calls 99 % probable, less than 99 % is
right. One number mends much of it: a temperature, fitted on held-out data by minimizing the cross-entropy, divides all
logits from then on [1]_. It changes no prediction, only how sure it is::

    python -m pip install scikit-learn matplotlib
    python calibration.py

.. [1] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", *ICML* 2017.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import fastsoft

# %%
# Noisy images of digits, and a model of hardly any regularization, fitted to 300 of them.
rng = np.random.default_rng(0)
images, labels = load_digits(return_X_y=True)
images = images / 16 + rng.normal(0, 0.35, images.shape)
train, held_out, test = np.split(rng.permutation(len(images)), [300, 700])
model = LogisticRegression(C=1e3, max_iter=5000).fit(images[train], labels[train])
logits = model.decision_function(images)


def mean_loss(temperature, rows):
    return float(fastsoft.softmax_cross_entropy(logits[rows], labels[rows], temperature=temperature, reduction="mean"))


found = minimize_scalar(lambda log_t: mean_loss(np.exp(log_t), held_out), bounds=(-3, 5), method="bounded")
T = float(np.exp(found.x))
print(f"{(logits.argmax(-1) == labels)[test].mean():.1%} of the {len(test)} test images are right")
print(f"T = {T:.2f}; mean loss of the test images {mean_loss(1, test):.3f} before, {mean_loss(T, test):.3f} after")


# %%
# Reliability: the images are sorted into bins by the probability of what was predicted. In a calibrated model that
# probability is the share that is right.
def reliability(temperature, bins=8):
    """Of each bin of equal size: the mean probability, and the share that is right."""
    p = fastsoft.softmax(logits[test], temperature=temperature)
    sure, right = p.max(-1), p.argmax(-1) == labels[test]
    order = np.array_split(sure.argsort(), bins)
    return [sure[k].mean() for k in order], [right[k].mean() for k in order]


plt.style.use("petroff10")
figure, (left, panel) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
temperatures = np.geomspace(0.5, 50, 100)
for rows, label, style in ((held_out, "held out, to fit T", "-"), (test, "test", "--")):
    left.semilogx(temperatures, [mean_loss(t, rows) for t in temperatures], style, label=label)
left.axvline(T, color="black", linewidth=0.8, label=f"T = {T:.1f}")
left.set(xlabel="temperature T", ylabel="mean cross-entropy (nats)", ylim=(0, None))
left.grid(alpha=0.3)
left.legend()

panel.plot([0, 1], [0, 1], color="black", linewidth=0.8, label="calibrated")
panel.plot(*reliability(1.0), "s--", color="C1", label="T = 1")
panel.plot(*reliability(T), "o-", color="C0", label=f"T = {T:.1f}")
panel.set(xlabel="mean probability of the prediction", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
panel.set_aspect("equal")
panel.grid(alpha=0.3)
panel.legend()
plt.show()
