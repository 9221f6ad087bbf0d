"""
Logistic regression with SciPy's optimizer
==========================================

A classifier of handwritten digits, trained with `fastsoft.softmax_cross_entropy_with_grad` and SciPy, beside
scikit-learn's. With logits :math:`x = A W + b`, labels t and m images, both minimize

.. math::

   \\frac1m \\sum \\operatorname{cross\\_entropy}(\\operatorname{softmax}(x), t) + \\frac{|W|^2}{2 C m},

which is what scikit-learn's ``LogisticRegression(C=C)`` minimizes, over C m. The gradient by the logits, G, comes with
the loss; by W it is :math:`A^T G + W / (C m)`, by b the sums of G over the images::

    python -m pip install scikit-learn matplotlib
    python logistic_regression.py
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import fastsoft

C, CLASSES = 10, 10


def fit(images, labels):
    """W, of the shape (pixels, classes), and b."""
    m, pixels = images.shape
    logits = np.empty((m, CLASSES))

    def objective(flat):
        parameters = flat.reshape(pixels + 1, CLASSES)
        w, b = parameters[:-1], parameters[-1]
        np.matmul(images, w, out=logits)
        logits[...] += b
        # out= is the gradient's, and may be the logits themselves
        loss, g = fastsoft.softmax_cross_entropy_with_grad(logits, labels, reduction="mean", out=logits)
        slope = np.vstack([images.T @ g + w / (C * m), g.sum(0)])
        return float(loss) + (w * w).sum() / (2 * C * m), slope.ravel()

    start = np.zeros((pixels + 1) * CLASSES)
    options = {"maxiter": 1000, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}  # where scikit-learn stops, too
    found = minimize(objective, start, method="L-BFGS-B", jac=True, options=options)
    if not found.success:
        raise RuntimeError(found.message)
    parameters = found.x.reshape(pixels + 1, CLASSES)
    return parameters[:-1], parameters[-1]


def best_of(function, rounds=5):
    """What function() gives, and the seconds of the fastest call."""
    seconds = []
    for _ in range(rounds):
        start = perf_counter()
        result = function()
        seconds.append(perf_counter() - start)
    return result, min(seconds)


images, labels = load_digits(return_X_y=True)
images /= 16  # pixels are 0 to 16
train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.5, random_state=0, stratify=labels)

with fastsoft.num_threads(1), threadpool_limits(1):  # more do not pay at this size
    (w, b), seconds = best_of(lambda: fit(train_x, train_y))
    model, their_seconds = best_of(lambda: LogisticRegression(C=C, max_iter=1000).fit(train_x, train_y))

ours, theirs = test_x @ w + b, model.decision_function(test_x)
print(f"{len(train_x)} images to train with, {len(test_x)} held out; one thread")
for name, logits, time in (("fastsoft and SciPy", ours, seconds), ("scikit-learn", theirs, their_seconds)):
    loss = fastsoft.softmax_cross_entropy(logits, test_y, reduction="mean")
    right = (logits.argmax(-1) == test_y).mean()
    print(f"{name:20} {right:.4f} of them right, mean loss {loss:.5f}, trained in {1000 * time:.1f} ms")
probabilities = fastsoft.softmax(ours)
gap = np.abs(probabilities - fastsoft.softmax(theirs)).max()
print(f"the probabilities differ by at most {gap:.2g}")

# %%
# The held-out images that it is least sure of, and the probabilities that it gives them.
entropy = fastsoft.cross_entropy(probabilities, probabilities)
hardest = entropy.argsort()[-5:]

plt.style.use("petroff10")
figure, panels = plt.subplots(2, 5, figsize=(11, 4.5), layout="constrained")
for (picture, bars), k in zip(panels.T, hardest, strict=True):
    picture.imshow(test_x[k].reshape(8, 8), cmap="gray_r")
    picture.set(title=f"a {test_y[k]}", xticks=[], yticks=[])
    colours = ["C1" if digit == test_y[k] else "C0" for digit in range(CLASSES)]
    bars.bar(range(CLASSES), probabilities[k], color=colours)
    bars.set(xticks=range(CLASSES), xlabel="digit", ylim=(0, 1))
panels[1, 0].set_ylabel("probability (orange: right)")
plt.show()
