"""
A chain of derivatives, with numbers
====================================

x -> sigma = softmax(x) -> z = v J -> l(z, t) = -sum_i t_i log z_i -> dl/dz -> dl/dx, where J is the Jacobian of softmax
and v a vector. Gradients are compared with central differences of order 4, where there is a gradient.
:doc:`/mathematics` derives the formulas. It needs nothing but fastsoft::

    python chain.py
"""

# sphinx_gallery_thumbnail_path = "thumbnails/chain.svg"

import numpy as np

import fastsoft

np.set_printoptions(precision=6, suppress=True, linewidth=110)


def difference(f, x, h=3e-4):
    """The gradient of f at x: (f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)) / 12h, entry by entry."""
    slope = np.empty_like(x)
    for k in range(x.size):
        step = np.where(np.arange(x.size) == k, h, 0.0)
        slope[k] = (f(x - 2 * step) - 8 * f(x - step) + 8 * f(x + step) - f(x + 2 * step)) / (12 * h)
    return slope


def compare(what, got, want):
    gap = np.abs(got - want).max()
    print(f"  {what}: differs by at most {gap:.0e} from central differences")
    if not gap < 1e-8 * max(np.abs(want).max(), 1):
        raise RuntimeError(f"{what}: {got} is not {want}")


# %%
# :math:`\sigma_i = e^{x_i} / \sum_j e^{x_j}`
print("1. Probabilities of the logits x: sigma_i = exp(x_i) / sum_j exp(x_j)")
x = np.array([0.5, -1.0, 2.0, 0.0])
sigma = fastsoft.softmax(x)
print(f"  x      {x}\n  sigma  {sigma}, sum {sigma.sum():.6f}\n")

# %%
# :math:`J_{ij} = \sigma_i ([i=j] - \sigma_j)`
print("2. Their Jacobian: J_ij = sigma_i (1[i = j] - sigma_j), symmetric, each row with the sum 0")
J = fastsoft.softmax_jacobian(x)
print("  " + str(J).replace("\n", "\n  "))
compare("row 0 of J", J[0], difference(lambda x: fastsoft.softmax(x)[0], x))
print()

# %%
# :math:`z_i = \sigma_i (v_i - v \cdot \sigma)`
print("3. z = v J, z_i = sigma_i (v_i - v.sigma), for a v whose entry 1 is put at the mean v.sigma of the others")
v = np.array([3.0, 0.0, 2.0, -1.0])
v[1] = (sigma @ v) / (1 - sigma[1])
z = fastsoft.softmax_vjp(x, v)
print(f"  v      {v}, v.sigma {v @ sigma:.6f}\n  z      {z}, sum {z.sum():.0e}")
print(f"  v @ J  {v @ J}, the same from the matrix")
compare("z", z, difference(lambda x: fastsoft.softmax(x) @ v, x))
print()

# %%
# :math:`z_i = 0` exactly where :math:`v_i = v \cdot \sigma`
print("4. Where z is 0: sigma being positive, exactly where v_i = v.sigma; rounding is allowed for")
zero = fastsoft.softmax_vjp_zeros(x, v)
print(f"  zeros  {zero}")
z = np.where(zero, 0.0, z)
print(f"  z      {z}\n")

# %%
# :math:`l(z, t) = -\sum_i t_i \log z_i`
print("5. The loss l(z, t) = -sum_i t_i log z_i, with targets where z is positive; a target 0 counts for nothing")
t = np.where(z > 0, [0.3, 0.0, 0.7, 0.0], 0.0)
print(f"  t      {t}\n  l      {fastsoft.cross_entropy(z, t):.6f}\n")

# %%
# :math:`\partial l / \partial z_i = -t_i / z_i`
print("6. Its gradient dl/dz_i = -t_i / z_i")
grad, singular = fastsoft.cross_entropy_grad(z, t, return_singular=True)
print(f"  dl/dz  {grad}")
print(f"  kinds  {singular} (0 regular, 1 removable: z_i and t_i are both 0, 2 a pole)")
compare("dl/dz", grad, difference(lambda z: fastsoft.cross_entropy(z, t), z))
print()

# %%
# Where :math:`z_i = 0` and :math:`t_i \ne 0` there is no gradient.
print("7. A target where z is 0: the loss is infinite, and -t_i / z_i is a pole, not a number")
t_pole = t + np.where(zero, 0.1, 0.0)
print(f"  t      {t_pole}\n  l      {fastsoft.cross_entropy(z, t_pole)}")
try:
    fastsoft.cross_entropy_grad(z, t_pole)
except fastsoft.SingularGradientError as error:
    print(f'  singular="raise" (the default)  SingularGradientError, count {error.count}, first {error.first}')
for mode in ("inf", "nan", "zero"):
    print(f'  singular="{mode}"'.ljust(34) + str(fastsoft.cross_entropy_grad(z, t_pole, singular=mode)))
print(f"  return_singular=True            {fastsoft.cross_entropy_grad(z, t_pole, return_singular=True)[1]}\n")

# %%
# :math:`\partial l / \partial x = J (u \circ v) - (v \cdot \sigma) J u - (u \cdot \sigma) J v` with
# :math:`u = \partial l / \partial z`
print("8. Back through the chain, u = dl/dz: dl/dv = J u, and dl/dx = J (u v) - (v.sigma) J u - (u.sigma) J v")
u = grad
Ju = fastsoft.softmax_jvp(x, u)
by_x = fastsoft.softmax_jvp(x, u * v) - (v @ sigma) * Ju - (u @ sigma) * fastsoft.softmax_jvp(x, v)
print(f"  dl/dv  {Ju}")
compare("dl/dv", Ju, difference(lambda v: fastsoft.cross_entropy(fastsoft.softmax_vjp(x, v), t), v))
print(f"  dl/dx  {by_x}")
compare("dl/dx", by_x, difference(lambda x: fastsoft.cross_entropy(fastsoft.softmax_vjp(x, v), t), x))
