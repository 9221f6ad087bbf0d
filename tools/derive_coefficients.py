"""Derive the polynomial coefficients and split constants of fastsoft/simd/math.hpp and types.hpp.

    python tools/derive_coefficients.py            print the constants and their errors
    python tools/derive_coefficients.py --check    compare them with those in the headers (exit 1 if one differs)

exp:  e^r = 1 + (r + r^2 q(r)) on |r| <= ln 2 / 2 and a little more, because k = round(x log2 e) is chosen
      with a rounded log2 e. q minimises the largest *relative* error of the whole. EXP_RAISED: the same with all r
      higher by 0.0965. EXP_QUARTER, and with one degree more EXP_QUARTER_EXACT: on |r| <= ln 2 / 8, beside
      unit 2^(j/4) (QUARTERS: their bits, less those of 1 and of j << 21). UNIT, from 1 to 2^(1/4), is such that
      these four are nearest to numbers of the format.
log:  log(1 + f) = f - (f^2/2 - s (f^2/2 + R(s^2))), s = f / (2 + f), with R(z) = z w(z), which is
      (log(1 + f) - 2 s) / s; 1 + f in [sqrt(1/2), sqrt(2)], hence |s| <= 3 - 2 sqrt(2).

Method: the Remez exchange (Remez 1934; Muller, Elementary Functions, ch. 3) in 60 digits with mpmath;
the errors printed are those of the rounded coefficients.
"""

from __future__ import annotations

import pathlib
import re
import sys

import numpy as np
from mpmath import exp, linspace, log, lu_solve, matrix, mp, mpf, sqrt

mp.dps = 60
LN2 = log(2)
RAISE = mpf(0.0965)
SIMD = pathlib.Path(__file__).parents[1] / "fastsoft" / "simd"
HEADERS = (SIMD / "math.hpp", SIMD / "types.hpp")


def rounded(x, dtype):
    """`x` to the nearest number of the format (exact: an mpf is rounded once)."""
    bits = {"float32": 24, "float64": 53}[dtype]
    with mp.workprec(bits):
        return +mpf(x)


def remez(f, weight, low, high, powers):
    """Coefficients of x^powers that minimise max |weight (sum c x^p - f)| on [low, high], and that maximum."""
    m = len(powers) + 1
    grid = linspace(low, high, 1200)
    want = [f(x) for x in grid]
    scale = [weight(x) for x in grid]
    basis = [[x**p for p in powers] for x in grid]
    nodes = [round((1 - mp.cos(mp.pi * (i + mpf(1) / 2) / m)) / 2 * (len(grid) - 1)) for i in range(m)]
    for _ in range(30):
        a = matrix(m, m)
        b = matrix(m, 1)
        for row, i in enumerate(nodes):
            for col in range(m - 1):
                a[row, col] = basis[i][col]
            a[row, m - 1] = (-1) ** row / scale[i]
            b[row] = want[i]
        c = lu_solve(a, b)
        value = [sum(c[k] * t for k, t in enumerate(row)) for row in basis]
        error = [s * (v - w) for s, v, w in zip(scale, value, want, strict=True)]
        new, start = [], 0
        for i in range(1, len(grid) + 1):  # the extremum of each run of one sign
            if i == len(grid) or error[i] * error[start] < 0:
                new.append(max(range(start, i), key=lambda k: abs(error[k])))
                start = i
        if len(new) != m or new == nodes:
            break
        nodes = new
    return [c[k] for k in range(m - 1)], max(abs(e) for e in error)


def fit(f, weight, low, high, degree, dtype):
    """Minimax coefficients of degree `degree`, rounded to `dtype`, and the error that they reach then."""
    exact, _ = remez(f, weight, low, high, range(degree + 1))
    fixed = [rounded(c, dtype) for c in exact]
    grid = linspace(low, high, 4000)
    return fixed, max(abs(weight(x) * (sum(c * x**p for p, c in enumerate(fixed)) - f(x))) for x in grid)


def exp_tail(r):
    """(e^r - 1 - r) / r^2"""
    return (exp(r) - 1 - r) / r**2


def exp_weight(r):
    """What an error of `exp_tail` is worth, relative to e^r"""
    return r**2 * exp(-r)


def log_tail(z):
    """(log((1 + s) / (1 - s)) - 2 s) / s^3 with z = s^2"""
    s = sqrt(z)
    return (log((1 + s) / (1 - s)) - 2 * s) / s**3


def literal(x, dtype):
    """A C literal that reads back as exactly `x`, a number of the format or the bits of one."""
    if isinstance(x, int):
        return f"0x{x:08x}"
    return f"{np.float32(float(x)).item():.9g}f" if dtype == "float32" else f"{float(x):.17g}"


def unit_of_quarters():
    """The float32 u for which u 2^(j/4) are nearest to float32s, these, and their relative errors."""
    u = np.arange(0x3F800000, np.float32(2**0.25).view(np.uint32), dtype=np.uint32).view(np.float32)
    steps = np.longdouble(2) ** (np.arange(4) / np.longdouble(4))
    exact = u[:, None] * steps
    spread = np.ptp((exact.astype(np.float32) - exact) / exact, axis=1)
    best = mpf(float(u[spread.argmin()]))
    powers = [rounded(best * mpf(2) ** (mpf(j) / 4), "float32") for j in range(4)]
    return best, powers, [p / (best * mpf(2) ** (mpf(j) / 4)) - 1 for j, p in enumerate(powers)]


def quarter(power, j):
    """What the bits of unit 2^(j/4) have beyond those of 1, less j << 21, which the exponent's place already holds."""
    return (int(np.float32(float(power)).view(np.uint32)) - 0x3F800000 - (j << 21)) % 2**32


def derive():
    """Yield (name, dtype, constants, relative error in ulp of 1 or None)."""
    edge = 3 - 2 * sqrt(mpf(2))
    for dtype, exp_degree, log_degree in (("float32", 4, 3), ("float64", 9, 7)):
        bits = 24 if dtype == "float32" else 53
        high = LN2 / 2 + mpf("0.005")
        c, error = fit(exp_tail, exp_weight, -high, high, exp_degree, dtype)
        yield "EXP_Q", dtype, c, error * 2**bits
        if dtype == "float64":
            half = LN2 / 2 + mpf("0.0001")
            c, error = fit(exp_tail, exp_weight, RAISE - half, RAISE + half, exp_degree, dtype)
            yield "EXP_RAISED", dtype, c, error * 2**bits
        if dtype == "float32":
            c, error = fit(exp_tail, exp_weight, -high / 4, high / 4, 2, dtype)
            yield "EXP_QUARTER", dtype, c, error * 2**bits
            c, error = fit(exp_tail, exp_weight, -high / 4, high / 4, 3, dtype)
            yield "EXP_QUARTER_EXACT", dtype, c, error * 2**bits
            unit, powers, errors = unit_of_quarters()
            yield "UNIT", dtype, [unit], None
            yield "QUARTERS", dtype, [quarter(p, j) for j, p in enumerate(powers)], max(map(abs, errors)) * 2**bits
        tiny = mpf(10) ** -12
        c, error = fit(log_tail, lambda z: z / (2 + z), tiny, edge**2, log_degree, dtype)
        yield "LOG_W", dtype, c, error * 2**bits
        lengths = {"LN2": bits if bits == 24 else bits - 20, "LN2_SHORT": bits - 9 if bits == 24 else bits - 11}
        for name, length in lengths.items():
            with mp.workprec(length):
                hi = +LN2
            yield name, dtype, [hi, rounded(LN2 - hi, dtype)], None
        yield "LOG2E", dtype, [rounded(1 / LN2, dtype)], None


def main() -> int:
    headers = HEADERS if "--check" in sys.argv else ()
    header = "".join(path.read_text() for path in headers)
    numbers = set(re.findall(r"-?0x[0-9a-f]{8}|-?\d+\.?\d*(?:e[-+]?\d+)?f?", header))
    missing = 0
    for name, dtype, values, error in derive():
        text = [literal(v, dtype) for v in values]
        gone = [t for t in text if t.lstrip("-") not in {n.lstrip("-") for n in numbers}] if header else []
        missing += len(gone)
        note = "" if error is None else f"  // error {float(error):.3g} * 2^-{24 if dtype == 'float32' else 53}"
        print(f"{name}<{dtype}>: {', '.join(text)}{note}{'  NOT IN A HEADER: ' + str(gone) if gone else ''}")
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
