"""
Policy gradients on a bandit
============================

Ten slot machines pay r on average; a policy plays machine i with probability :math:`\\sigma_i`, where :math:`\\sigma`
is the softmax of ten parameters x. The mean payment :math:`r \\cdot \\sigma` is to grow. Three ways up, each with a
function for it:

- its gradient, :math:`\\sigma_i (r_i - r \\cdot \\sigma)`: `fastsoft.softmax_vjp`;
- the natural gradient, the former times the pseudo-inverse of the Fisher matrix, which is the Jacobian of softmax:
  `fastsoft.SoftmaxJacobian.solve`;
- where r is not known, REINFORCE: play, and step along
  :math:`(\\text{payment} - \\text{mean})\\, \\nabla \\log \\sigma_i` of the machine that was played:
  `fastsoft.log_softmax_vjp`.

::

    python -m pip install matplotlib
    python policy_gradient.py
"""

import matplotlib.pyplot as plt
import numpy as np

import fastsoft

rng = np.random.default_rng(0)
MACHINES, STEPS, RUNS, RATE, SMALL = 10, 2000, 200, 0.2, 1e-2
r = rng.uniform(0, 1, MACHINES)
start = np.zeros(MACHINES)
start[r.argmin()] = 3.0  # it begins with the worst


def regret(x):
    """How much less than the best machine the policy is paid on average."""
    return r.max() - fastsoft.softmax(x) @ r


def climb(direction):
    """The regret after each step along direction(x), until it is small."""
    x, found = start.copy(), [regret(start)]
    while found[-1] > SMALL and len(found) < STEPS:
        x += RATE * direction(x)
        found.append(regret(x))
    return np.array(found)


def natural(x):
    return fastsoft.SoftmaxJacobian(x).solve(fastsoft.softmax_vjp(x, r))


def reinforce():
    """The regret after each step, of many runs side by side."""
    x, mean, found = np.tile(start, (RUNS, 1)), np.zeros(RUNS), []
    for step in range(STEPS):
        found.append(regret(x))
        chosen = (fastsoft.softmax(x).cumsum(-1) < rng.random((RUNS, 1))).sum(-1).clip(max=MACHINES - 1)
        payment = r[chosen] + rng.normal(0, 0.1, RUNS)
        g = np.zeros_like(x)
        g[np.arange(RUNS), chosen] = payment - mean
        x += RATE * fastsoft.log_softmax_vjp(x, g)
        mean += (payment - mean) / (step + 1)
    return np.array(found)


plain, fisher, sampled = climb(lambda x: fastsoft.softmax_vjp(x, r)), climb(natural), reinforce()
for name, found in (("gradient", plain), ("natural gradient", fisher), ("REINFORCE, mean", sampled.mean(-1))):
    steps = len(found) - 1
    print(
        f"{name:16} regret {found[0]:.2f} at the start, {found[100]:.2f} after 100 steps, {found[-1]:.3f} after {steps}"
    )

# %%
# The natural gradient does not mind where it starts: its step is r without its mean, whatever :math:`\sigma` is. The
# gradient is small wherever :math:`\sigma` is near a corner, so it leaves the worst machine slowly. But ``solve``
# divides by :math:`\sigma`: where a machine is hardly ever played, rounding errors become large steps. So the climb
# ends at a small regret, before the policy has all but decided.
assert np.allclose(natural(start), r - r.mean())

plt.style.use("petroff10")
figure, panel = plt.subplots(figsize=(8, 4.5), layout="constrained")
steps = np.arange(1, STEPS + 1)
panel.loglog(steps[: len(plain)], plain, label="gradient")
panel.loglog(steps, sampled.mean(-1), "--", label=f"REINFORCE, mean of {RUNS} runs")
panel.fill_between(steps, *np.quantile(sampled, (0.1, 0.9), axis=-1), color="C1", alpha=0.25, label="8 of 10 runs")
panel.loglog(steps[: len(fisher)], fisher, "-.", color="C2", label="natural gradient")
panel.set(xlabel="step", ylabel="regret (mean payment lost)", ylim=(SMALL / 2, 2))
panel.grid(alpha=0.3)
panel.legend(loc="lower left")
plt.show()
