"""fastsoft.compat.scipy: SciPy's own tests of real numbers, unchanged; weights, also where SciPy is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import python

from fastsoft.compat import scipy as compat

scipy_special = pytest.importorskip("scipy.special", reason="NOT TESTED: fastsoft.compat, since SciPy is not installed")

# SciPy's tests take the functions from scipy.special, and what their arrays may be from a table of its own.
RUN = """
import os, sys
import pytest, scipy.special
from fastsoft.compat import scipy as compat
from scipy._lib import _array_api as tables
for name in compat.__all__:
    own, theirs = getattr(compat, name), getattr(scipy.special, name)
    tables.xp_capabilities_table[own] = tables.xp_capabilities_table[theirs]
    setattr(scipy.special, name, own)
unchosen = "complex", "j", "wrap_radians", "gh21610", "gh21709", "infinite_elements"
sys.exit(pytest.main([
    "-q", "-c", os.devnull, "-p", "no:cacheprovider", "--pyargs", "scipy.special.tests.test_logsumexp",
    "-k", " and ".join(f"not {name}" for name in unchosen),
]))
"""


def test_tests_of_scipy() -> None:
    """All but those of complex numbers."""
    done = python(RUN, timeout=200)
    if "xp_capabilities_table" in done.stderr:
        pytest.skip("NOT TESTED: this SciPy has no table of what its arrays may be")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 50


@pytest.mark.parametrize("x", [[np.inf, 0.0], [-np.inf, 1.0], [np.inf, np.inf], [-np.inf, -np.inf], [np.nan, 1.0]])
@pytest.mark.parametrize("b", [None, [1.0, 2.0], [-1.0, 2.0], [0.0, 2.0]])
def test_not_finite(x: list[float], b: list[float] | None) -> None:
    """As SciPy has them, of real numbers, but that an infinite one of weight 0 does not matter."""
    if b is not None and b[0] == 0:
        x, b = x[1:], b[1:]
    with np.errstate(all="ignore"):
        for sign in (False, True):
            got, want = (f.logsumexp(np.array(x), b=b, return_sign=sign) for f in (compat, scipy_special))
            assert np.allclose(got, want, rtol=1e-14, atol=1e-15, equal_nan=True), (x, b, got, want)


@pytest.mark.parametrize(
    "a, b, log, sign",
    [
        ([800, 0, 800], [1, 1, -1], 0, 1),
        ([5, 3, 1, 3, 5], [1, 2, -4, -2, -1], 1 + math.log(4), -1),
        ([3, 3], [1, -1], -math.inf, 0),
        ([1e4, -1e4, 1e4], [1e300, 1, -1e300], -1e4, 1),
        ([0, -800], [1e-320, 1e308], math.log(1e308) - 800, 1),
        ([1000, 0], [5e-324, -1e-300], math.log(5e-324) + 1000, 1),
        ([math.inf, math.inf], [1, -1], math.nan, math.nan),
    ],
)
def test_weights_that_hide_others(a: list[float], b: list[float], log: float, sign: float) -> None:
    """What cancels to 0 among the largest, or weighs nearly nothing, hides no other."""
    got = compat.logsumexp(a, b=b, return_sign=True)
    assert np.allclose(got, (log, sign), rtol=1e-15, atol=0, equal_nan=True)
    both = compat.logsumexp([a, [0] * len(a)], axis=1, b=[b, [1] * len(a)], return_sign=True)
    assert np.array_equal(both, np.stack([got, (math.log(len(a)), 1)], 1), equal_nan=True)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (2, 0), (0, 1, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_axes_of_weights(axis: int | tuple[int, ...] | None, keepdims: bool) -> None:
    a, b = np.random.default_rng(0).normal(0, 5, (2, 2, 3, 4))
    for weight in b, b[:, :1], b[0, 0], 2.0, np.zeros(()):
        got, want = (f.logsumexp(a, axis, weight, keepdims, True) for f in (compat, scipy_special))
        assert got[0].shape == want[0].shape and np.allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("a", [np.int8, np.bool_, np.float16, np.float32, np.float64])
def test_dtype_of_weights(a: Any) -> None:
    """That of both together, as SciPy has it: a number of Python has none."""
    for b in (2, 2.0, True, [1.0, 2.0], *(np.ones(2, t) for t in (np.int8, np.bool_, np.float16, np.float32, float))):
        got, want = (f.logsumexp(np.ones(2, a), b=b) for f in (compat, scipy_special))
        assert got.dtype == want.dtype, b


WRONG = [
    np.array([1j, 2]),
    np.ma.masked_array([1.0, 2.0], [True, False]),
    np.array(["1", "2"]),
    np.array([1.0, None]),
    np.ones(2, np.longdouble),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda a: a.dtype.name)
def test_refused(wrong: Any) -> None:
    """What would be computed wrongly without a word, with weights and without, by the name of the argument."""
    for a, b, name in ((wrong, None, "a"), (wrong, [1, 1], "a"), ([1, 1], wrong, "b")):
        with pytest.raises(TypeError, match=rf"^{name} (must be of dtype|is a masked array)"):
            compat.logsumexp(a, b=b)


def test_shapes_refused() -> None:
    with pytest.raises(ValueError, match=r"^b must broadcast against a, got shapes \(3,\) and \(2,\)"):
        compat.logsumexp([1, 2], b=[1, 2, 3])
    with pytest.raises(np.exceptions.AxisError):
        compat.logsumexp([1, 2], axis=1, b=1)
