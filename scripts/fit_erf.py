#!/usr/bin/env python3
"""Fits the polynomials of `tensor::math::erf` and measures them.

usage: python scripts/fit_erf.py [--points 200000]

erf(x) = x + x·P(x²) below EDGE and 1 − exp(−Q(x)) above, where P and Q minimise the largest error of erf in units in the
last place (iteratively reweighted least squares, coefficients rounded to f32 one after another, the rest fitted again).
Prints the coefficients, highest power first, and the largest error of the evaluation in f32 over evenly spaced points
against mpmath's erf.  Needs mpmath and numpy.
"""
import argparse

import mpmath
import numpy as np

EDGE, END = 0.875, 4.0
DEGREE_P, DEGREE_Q = 5, 6
mpmath.mp.dps = 40


def chebyshev(begin, end, n):
    return (begin + end) / 2 + (end - begin) / 2 * np.cos(np.pi * (np.arange(n) + 0.5) / n)


def fit(x, y, weight, powers):
    """Coefficients of `powers` that minimise the largest |weight · (polynomial − y)|, each of them an f32."""
    fixed = {}
    for last in powers:                                             # lowest power first: it matters most
        left = [p for p in powers if p not in fixed]
        target = y - sum(c * x ** p for p, c in fixed.items())
        emphasis = np.ones_like(x)
        best = None
        for _ in range(300):
            scale = weight * np.sqrt(emphasis)
            columns = np.stack([x ** p for p in left], axis=1) * scale[:, None]
            size = np.linalg.norm(columns, axis=0)
            c = np.linalg.lstsq(columns / size, target * scale, rcond=None)[0] / size
            error = np.abs(weight * (sum(a * x ** p for a, p in zip(c, left)) - target))
            if best is None or error.max() < best[0]:
                best = (error.max(), c)
            emphasis *= error / error.mean()
            emphasis = np.maximum(emphasis / emphasis.mean(), 1e-9)
        fixed[last] = float(np.float32(best[1][left.index(last)]))
    return [fixed[p] for p in sorted(powers, reverse=True)], best[0]


def exact(function, x):
    return np.array([float(function(mpmath.mpf(float(v)))) for v in x])


def fma(a, b, c):
    """In f32: the product of two f32 is exact in f64, and so nearly is the sum."""
    return (a.astype(np.float64) * b.astype(np.float64) + c.astype(np.float64)).astype(np.float32)


def horner(coefficients, x):
    value = np.full_like(x, np.float32(coefficients[0]))
    for c in coefficients[1:]:
        value = fma(value, x, np.full_like(x, np.float32(c)))
    return value


def exp(x):
    """`tensor::math::exp`."""
    n = np.rint(x * np.float32(np.log2(np.e)))
    r = fma(-n, np.full_like(n, -2.1219444e-4), fma(-n, np.full_like(n, 355 / 512), x))
    p = horner([np.float32(1 / v) for v in (720, 120, 24, 6, 2, 1, 1)], r)
    return np.ldexp(p, n.astype(int)).astype(np.float32)


def evaluate(p, q, x):
    """`tensor::math::erf` for positive `x`."""
    below = fma(horner(p, x * x), x, x)
    above = np.float32(1) - exp(-horner(q, x))
    return np.where(x < np.float32(EDGE), below, above)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200_000)
    n = parser.parse_args().points
    x = chebyshev(1e-4, EDGE, 600)
    erf = exact(mpmath.erf, x)
    p, error_p = fit(x * x, erf / x - 1, x / erf, range(DEGREE_P + 1))
    x = chebyshev(EDGE, END, 600)
    y = exact(lambda v: -mpmath.log(mpmath.erfc(v)), x)
    # An error of Q is one of erf times the derivative, erfc.
    q, error_q = fit(x, y, exact(mpmath.erfc, x), range(DEGREE_Q + 1))
    for name, values, error in (("P", p, error_p), ("Q", q, error_q)):
        print(name, f"within 2^{np.log2(error):.1f}:", ", ".join(f"{v:.9e}" for v in values))
    points = np.linspace(0, END, n, dtype=np.float32)[1:]
    want = exact(mpmath.erf, points)
    got = evaluate(p, q, points).astype(np.float64)
    unit = np.spacing(want.astype(np.float32)).astype(np.float64)
    worst = np.abs(got - want) / unit
    print(f"at most {worst.max():.2f} units in the last place, at {points[worst.argmax()]}; "
          f"at most {np.abs(got - want).max():.2e}")


if __name__ == "__main__":
    main()
