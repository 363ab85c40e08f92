r"""How much components overlap, exactly.

ω_{j|i} = P(φ_i N(x | i) < φ_j N(x | j)) for x from component i: how often the best rule takes a sample of i for one of
j. ω_ij = ω_{j|i} + ω_{i|j} is the overlap of a pair, and its mean and its maximum over pairs say how hard a problem is.

With x = μ_i + L_i z the event is Q = Σ_l (a_l z_l² + 2 b_l z_l) < c, a quadratic form in normals, whose distribution is
an integral over its characteristic function. Everything here is NumPy in float64.
"""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ..mixture import GMM, structure, validate

ACCURACY = 1e-9  # relative, of each ω_{j|i}: the integral is refined until two in a row agree so far
FINEST = 1 << 14  # points of the integral beyond which it is given up
SLOPE = 0.5  # of the contour against the imaginary axis; below 1, as s² must keep a negative real part
NEARLY_LINEAR = 0.3, 0.1  # |s a| of a term that ends the integrand as a Gaussian; the second where the first fails
FURTHEST = 60.0  # in sinh⁻¹ of the distance from the saddle; |s|^(−1/2), the slowest decay there is, leaves 1e-13


class Overlap(NamedTuple):
    """The pairwise overlap of a mixture's components."""

    misclassified: Float[np.ndarray, "K K"]  # [i, j] = ω_{j|i}, zeros on the diagonal
    pairs: Float[np.ndarray, "K K"]  # ω_ij = ω_{j|i} + ω_{i|j}, zeros on the diagonal
    mean: float  # of ω_ij over pairs; 0 for one component
    maximum: float


def overlap(gmm: GMM) -> Overlap:
    """ω_{j|i} of every two components, weights included, each to a relative 1e-9; a tie counts one half.

    By numerical inversion of the characteristic function of Q (Imhof 1961, Davies 1980), along a contour through the
    saddle point, where the integrand does not cancel (Rice 1980): values down to 1e-300 keep their digits.

    Raises:
        ValueError: `gmm` is no mixture.

    References:
        Maitra & Melnykov (2010), J. Comput. Graph. Stat. 19, theorem 1; Melnykov, Chen & Maitra (2012), J. Stat.
        Softw. 51(12); Imhof (1961), Biometrika 48; Davies (1980), Appl. Stat. 29, AS 155; Rice (1980), SIAM J. Sci.
        Stat. Comput. 1.
    """
    gmm = validate(jax.tree.map(lambda leaf: np.asarray(leaf, float), gmm))
    dense = structure(gmm.covariance_type).dense(gmm.covariances, *gmm.means.shape)
    return overlap_of(gmm.weights, gmm.means, np.asarray(dense, float))


def overlap_of(weights, means, matrices) -> Overlap:
    """`overlap` of (K,), (K, D) and (K, D, D), unchecked."""
    n_components = len(weights)
    lower = np.linalg.cholesky(matrices)
    inverse = np.linalg.inv(lower)
    half_log_volume = np.sum(np.log(np.diagonal(lower, axis1=1, axis2=2)), axis=1)
    with np.errstate(divide="ignore"):  # a weight of zero
        height = np.log(weights) - half_log_volume
    misclassified = np.zeros((n_components, n_components))
    for i in range(n_components):
        for j in range(n_components):
            if i != j:
                ratio = inverse[j] @ lower[i]  # in the units of j: x − μ_j = ratio z + offset
                offset = inverse[j] @ (means[i] - means[j])
                misclassified[i, j] = _probability(ratio, offset, height[j] - height[i])
    pairs = misclassified + misclassified.T
    above = pairs[np.triu_indices(n_components, 1)]
    return Overlap(misclassified, pairs, *((float(above.mean()), float(above.max())) if above.size else (0.0, 0.0)))


def _probability(ratio, offset, log_odds):
    """P(|ratio z + offset|² − |z|² < 2 log_odds) for z standard normal."""
    _, scales, rows = np.linalg.svd(ratio)
    a = (scales - 1.0) * (scales + 1.0)  # eigenvalues of ratioᵀ ratio − I
    b = rows @ (ratio.T @ offset)
    c = 2.0 * log_odds - offset @ offset
    deviation = np.sqrt(np.sum(2.0 * a**2 + 4.0 * b**2))
    if np.isinf(c) or deviation <= 1e-13 * (1.0 + offset @ offset):  # one component twice: the weights decide
        return 0.5 * (1.0 + np.sign(c if np.isinf(c) else 2.0 * log_odds))
    return quadratic_form_cdf(a / deviation, b / deviation, c / deviation)


def quadratic_form_cdf(a: Float[np.ndarray, "D"], b: Float[np.ndarray, "D"], c: float) -> float:
    r"""P(Σ_l a_l z_l² + 2 b_l z_l < c) for independent standard normal z; a and b are not all zero.

    With K(s) = Σ_l 2 s² b_l²/(1 − 2 s a_l) − ½ log(1 − 2 s a_l) the cumulant function, the tail beyond c on the far
    side of the mean is (1/2πi) ∫ exp(K(s) − s c) ds / s, from −i∞ to i∞ through the saddle point on the real axis. The
    contour bends to the side on which the integrand decays exponentially, its points stand in geometric progression far
    out, and the trapezoid rule is refined until it does not change: it converges exponentially.
    """
    side = 1.0 if c > np.sum(a) else -1.0  # the upper tail, or with the signs of all turned the lower
    tail = _upper_tail(side * a, side * b, side * c)
    return 1.0 - tail if side > 0.0 else tail


def _upper_tail(a, b, c):
    saddle = _saddle_point(a, b, c)
    if saddle is None:
        return 0.0
    top = _exponent(a, b, c, saddle).real
    width = 1.0 / np.sqrt(np.sum(_curvature(a, b, saddle)) + 1.0 / saddle**2)
    for linear in NEARLY_LINEAR:
        reach = _gaussian_reach(a, b, saddle, linear)
        felt = np.abs(a) > max(linear / reach, 1e-300)  # curved before the integrand has died of a factor exp(2 s² b²)
        towards = SLOPE * np.sign(c + np.sum(b[felt] ** 2 / a[felt]))
        furthest = min(FURTHEST, np.arcsinh(reach / width))
        for slope in (towards, -towards):  # where Q can hardly be so large the sign is rounding; the wrong one diverges
            value = _refined(partial(_trapezoid, a, b, c, saddle, top, width, slope, furthest))
            if value is not None:
                return float(np.exp(top) * value)
    raise ArithmeticError(f"the distribution of a quadratic form did not converge at c={c:.6g} with a={a}, b={b}.")


def _refined(integral):
    """integral(n_points) with the points doubled until it does not change, or None where it does not settle."""
    n_points, previous = 32, np.nan
    while n_points <= FINEST:
        value = integral(n_points)
        if np.isfinite(value) and abs(value - previous) <= ACCURACY * value:
            return value
        previous, n_points = value, 2 * n_points
    return None


def _gaussian_reach(a, b, saddle, linear):
    """How far from the saddle the integrand lives, if a nearly linear term z_l ends it as a Gaussian; else infinity."""
    with np.errstate(divide="ignore", invalid="ignore"):  # of a = b = 0 nothing is felt
        reach = 6.0 / np.abs(b)  # exp(−2·36·(1 − slope²)) is below 1e-23
        nearly_linear = np.abs(a) * (saddle + reach) < linear
    return np.min(reach[nearly_linear], initial=np.inf)


def _trapezoid(a, b, c, saddle, top, width, slope, furthest, n_points):
    """(1/π) ∫ Im of exp(exponent − top) ds over the upper half of the contour."""
    u = np.linspace(0.0, furthest, n_points + 1)
    y = width * np.sinh(u)
    bow = np.hypot(y, width)
    s = saddle + slope * (bow - width) + 1j * y
    direction = (slope * y / bow + 1j) * width * np.cosh(u)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        terms = (np.exp(_exponent(a, b, c, s) - top) * direction).imag
        terms[0] *= 0.5
        return np.sum(terms) * u[1] / np.pi


def _exponent(a, b, c, s):
    """K(s) − s c − log s."""
    s = np.asarray(s, complex)
    shrink = 1.0 - 2.0 * np.multiply.outer(s, a)
    cumulant = np.sum(2.0 * np.multiply.outer(s * s, b * b) / shrink - 0.5 * np.log(shrink), axis=-1)
    return cumulant - s * c - np.log(s)


def _curvature(a, b, s):
    """The terms of K″(s)."""
    shrink = 1.0 - 2.0 * s * a
    return 2.0 * a**2 / shrink**2 + 4.0 * b**2 / shrink**3


def _saddle_point(a, b, c):
    """Where K(s) − s c − log s is least on the positive axis; None where the tail is empty."""
    from scipy.optimize import brentq

    end = 0.5 / np.max(a) if np.max(a) > 0.0 else np.inf

    def slope(s):
        shrink = 1.0 - 2.0 * s * a
        return np.sum(a / shrink + 4.0 * s * b**2 * (1.0 - s * a) / shrink**2) - c - 1.0 / s

    low = min(1.0, 0.5 * end)
    while slope(low) > 0.0:
        low *= 0.5
    high = low
    for _ in range(200):
        high = 0.5 * (high + end) if np.isfinite(end) else 2.0 * high
        if not high < end:
            return None
        if slope(high) > 0.0:
            return brentq(slope, low, high, rtol=1e-6)
    return None
