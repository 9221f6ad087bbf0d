"""fastsoft.compat.scipy: SciPy's own tests of real numbers, unchanged."""

from __future__ import annotations

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
