"""
Temperature, and what it does to a distribution
===============================================

A temperature T divides the logits. Near 0 the largest logit gets all the probability, at 1 softmax is what it is, and
far above 1 all classes become equal. ``temperature=`` acts as if the logits were divided in exact arithmetic::

    python -m pip install matplotlib
    python temperature.py
"""

import matplotlib.pyplot as plt
import numpy as np

import fastsoft

x = np.array([4.0, 3.5, 2.5, 2.0, 1.0, 0.5, 0.0, -1.0])
shown = (0.25, 1.0, 4.0)

plt.style.use("petroff10")
figure, (bars, lines) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for k, t in enumerate(shown):
    bars.bar(np.arange(x.size) + 0.27 * (k - 1), fastsoft.softmax(x, temperature=t), 0.27, label=f"T = {t:g}")
bars.set(xlabel="logit", ylabel="probability", xticks=range(x.size), xticklabels=[f"{a:g}" for a in x])
bars.legend()

# The entropy is the cross-entropy of a distribution with itself; over log 2 it is in bits.
temperatures = np.geomspace(0.05, 50, 200)
p = np.stack([fastsoft.softmax(x, temperature=t) for t in temperatures])
lines.semilogx(temperatures, fastsoft.cross_entropy(p, p) / np.log(2), label="entropy")
lines.axhline(np.log2(x.size), color="black", linewidth=0.8, linestyle="--", label="all classes equal")
for k, t in enumerate(shown):
    q = fastsoft.softmax(x, temperature=t)
    lines.plot(t, fastsoft.cross_entropy(q, q) / np.log(2), "o", color=f"C{k}")
lines.set(xlabel="temperature T", ylabel="entropy (bits)")
lines.grid(alpha=0.3)
lines.legend()
plt.show()

# %%
# Its derivative by T is a product with the Jacobian: :math:`\partial \sigma / \partial T = -\sigma (x - x \cdot
# \sigma) / T^2`, and `fastsoft.softmax_vjp` with ``temperature=T`` has one of the two factors 1/T in it.
T, h = 1.0, 1e-5
by_formula = -fastsoft.softmax_vjp(x, x, temperature=T) / T
by_difference = (fastsoft.softmax(x, temperature=T + h) - fastsoft.softmax(x, temperature=T - h)) / (2 * h)
print(f"by the formula    {by_formula.round(6)}")
print(f"by a difference   {by_difference.round(6)}")
