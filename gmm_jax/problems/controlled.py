r"""Truths that are as difficult as was asked for: overlap, separation, imbalance and eccentricity, dimension.

A random arrangement of means and covariances is drawn, and then the means' scale is solved for: ω̄(scale) = target.
Everything here is NumPy in float64.
"""

from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Key

from ..mixture import GMM, structure
from ..mixture.checks import check_count, check_key
from .overlap import overlap_of

SIZES = 0.5, 2.0  # largest variances of components lie between, uniform in their logarithm
MET = 1e-6  # relative, how near a requested overlap is come to


def mixture_with_overlap(
    key: Key[Array, ""],
    n_components: int,
    n_features: int,
    *,
    mean: float | None = None,
    maximum: float | None = None,
    separation: float | None = None,
    imbalance: float = 1.0,
    eccentricity: float = 0.9,
    covariance_type: str = "full",
    n_tries: int = 100,
) -> GMM:
    r"""A random mixture with the requested overlap, met to a relative 1e-6; NumPy leaves.

    Means are uniform on a cube, whose side is then chosen so that the target is met. With `mean` and `maximum` both,
    the pair that overlaps most is kept, and the covariances of the others are scaled until the mean is met too.

    Args:
        mean: of ω_ij over pairs, in (0, 1).
        maximum: of ω_ij over pairs, in (0, 1).
        separation: instead of an overlap the least c-separation of two components,
            ‖μ_i − μ_j‖ / √(D max(λ_i, λ_j)) with λ the largest eigenvalue of Σ.
        imbalance: the largest weight divided by the smallest; those between are in geometric progression.
        eccentricity: e = √(1 − λ_min/λ_max) of no covariance is larger; in [0, 1). It has no effect on spherical ones.
        n_tries: mixtures that are drawn before a target is given up.

    Raises:
        ValueError: an argument is out of its range, or no mixture drawn could meet the target.

    Reference:
        Melnykov, Chen & Maitra (2012), J. Stat. Softw. 51(12), section 2.
    """
    _check_options(n_components, n_features, imbalance, eccentricity, covariance_type)
    _check_targets(n_components, mean, maximum, separation)
    if covariance_type == "tied" and None not in (mean, maximum):
        raise ValueError("tied covariances cannot be scaled apart: ask for mean or for maximum, not for both.")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(check_key(key))))
    weights = imbalance ** -np.linspace(0.0, 1.0, n_components)
    weights = weights / weights.sum()
    for _ in range(n_tries):
        means = rng.uniform(size=(n_components, n_features))
        matrices = _random_covariances(rng, n_components, n_features, eccentricity, covariance_type)
        if separation is not None:
            found = means * (separation / _least_separation(means, matrices)), matrices
        else:
            found = _met(weights, means, matrices, mean, maximum)
        if found is not None:
            leaf = structure(covariance_type).from_dense(found[1], weights)
            return GMM(weights, found[0], np.asarray(leaf, float), covariance_type)
    asked = " and ".join(f"{n}={v!r}" for n, v in (("mean", mean), ("maximum", maximum)) if v is not None)
    raise ValueError(
        f"{asked} was met by none of {n_tries} random mixtures with n_components={n_components}, n_features="
        f"{n_features}, imbalance={imbalance:g} and eccentricity={eccentricity:g}: ask for less overlap, bring mean "
        "and maximum nearer to each other, or raise n_tries."
    )


def _check_options(n_components, n_features, imbalance, eccentricity, covariance_type):
    structure(covariance_type)
    check_count(n_components, "n_components", 2)
    check_count(n_features, "n_features")
    if not 1.0 <= imbalance < np.inf:
        raise ValueError(f"imbalance is the largest weight over the smallest, at least 1; got {imbalance!r}.")
    if not 0.0 <= eccentricity < 1.0:
        raise ValueError(f"eccentricity must lie in [0, 1); got {eccentricity!r}: 0 is round.")


def _check_targets(n_components, mean, maximum, separation):
    if (mean is None and maximum is None) == (separation is None):
        raise ValueError("give either an overlap (mean, maximum or both) or a separation: each alone sets the scale.")
    for name, value in (("mean", mean), ("maximum", maximum)):
        if value is not None and not 0.0 < value < 1.0:
            raise ValueError(f"{name} must lie in (0, 1); got {value!r}: 0.001 is little overlap, 0.3 much.")
    if separation is not None and not 0.0 < separation < np.inf:
        raise ValueError(f"separation must be positive and finite; got {separation!r}.")
    n_pairs = n_components * (n_components - 1) // 2
    if None not in (mean, maximum) and not (maximum / n_pairs < mean <= maximum or (n_pairs == 1 and mean == maximum)):
        raise ValueError(
            f"mean={mean!r} and maximum={maximum!r} contradict each other: the mean of {n_pairs} overlaps lies between "
            f"maximum / {n_pairs} and maximum."
        )


def _random_covariances(rng, n_components, n_features, eccentricity, covariance_type):
    """(K, D, D): largest variances of SIZES, the others down to 1 − e² of them, in random directions."""
    low, high = np.log(SIZES)
    largest = np.exp(rng.uniform(low, high, size=(n_components, 1)))
    shape = rng.uniform(1.0 - eccentricity**2, 1.0, size=(n_components, n_features))
    shape[:, 0] = 1.0
    turned, _ = np.linalg.qr(rng.standard_normal((n_components, n_features, n_features)))
    if covariance_type == "spherical":
        shape = np.ones_like(shape)
    if covariance_type in ("diag", "spherical"):
        turned = np.eye(n_features)[None]
        shape = rng.permuted(shape, axis=1)
    matrices = (turned * (largest * shape)[:, None, :]) @ np.swapaxes(turned, 1, 2)
    if covariance_type == "tied":
        matrices = np.repeat(matrices[:1], n_components, axis=0)
    return 0.5 * (matrices + np.swapaxes(matrices, 1, 2))


def _met(weights, means, matrices, mean, maximum):
    """(means, matrices) that meet the target, or None where these cannot."""

    def spread(log_scale):
        return np.exp(log_scale) * means, matrices

    first = "mean" if maximum is None else "maximum"
    found = _solve(partial(overlap_of, weights), first, spread, mean if maximum is None else maximum)
    if found is None or mean is None or maximum is None:
        return found
    means, matrices = found
    now = overlap_of(weights, means, matrices)
    if len(weights) == 2:
        return found
    others = np.ones(len(weights), bool)
    others[list(np.unravel_index(np.argmax(now.pairs), now.pairs.shape))] = False

    def swell(log_scale):
        return means, np.where(others[:, None, None], np.exp(-2.0 * log_scale) * matrices, matrices)

    found = _solve(partial(overlap_of, weights), "mean", swell, mean)
    if found is None or overlap_of(weights, *found).maximum > maximum * (1.0 + MET):
        return None
    return found


def _solve(overlap_at, name, mixture_at, target):
    """mixture_at(log scale) whose overlap of this name is the target, or None: the largest there is may be below it.

    Overlap falls with the scale, if not always monotonically: the first crossing from wide to narrow is taken.
    """
    from scipy.optimize import brentq

    def excess(log_scale):
        # in logarithms, as small targets are to be met relatively too
        return np.log(max(getattr(overlap_at(*mixture_at(log_scale)), name), 1e-300) / target)

    high = 3.0
    while excess(high) > 0.0:
        high += 1.0
        if high > 20.0:  # pairs that no scale takes apart
            return None
    low = high - 0.5
    while excess(low) < 0.0:
        high, low = low, low - 0.5
        if low < -12.0:  # of one standard deviation: as near as counts
            return None
    root = brentq(excess, low, high, xtol=1e-14, rtol=1e-10)
    return mixture_at(root) if abs(excess(root)) <= MET else None


def _least_separation(means, matrices):
    largest = np.linalg.eigvalsh(matrices)[:, -1]
    i, j = np.triu_indices(len(means), 1)
    distance = np.linalg.norm(means[i] - means[j], axis=1)
    return np.min(distance / np.sqrt(means.shape[1] * np.maximum(largest[i], largest[j])))
