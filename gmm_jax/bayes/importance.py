"""How far is an approximation q from the posterior p? Pareto-smoothed importance sampling of its draws.

Draws of q weigh w = p/q. The largest weights follow a generalised Pareto law whose shape k̂ says whether the weights
have the moments that a correction needs: up to 0.7 they correct q, above it nothing that q says of p can be trusted.

Reference:
    Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25.
"""

import jax
import numpy as np
from jaxtyping import Bool, Float

from ..mixture import GMM, Posterior, Status
from .checks import check_posterior

FEWEST = 25  # draws: with fewer there is no tail to fit
ALIKE = 1e-4  # nats: a spread of log weights that is rounding, and nothing to correct
K_HAT_LIMIT = 0.7  # above it weights correct nothing
UNDERFLOW = 700.0  # nats: beyond it a weight is 0 beside the largest


def importance(log_ratio: Float[np.ndarray, "C S"]) -> tuple[Float[np.ndarray, "C S"], Float[np.ndarray, "C"]]:
    """Smoothed log weights, normalised within each chain, and k̂ of each chain.

    Args:
        log_ratio: log p − log q of each draw, each up to a constant.

    k̂ is 0 where all weights are alike, infinite where the tail's smallest weight is nothing beside its largest, and NaN
    where there are fewer than 25 draws or a ratio that is no number.

    Reference:
        Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25; for approximations
        Yao, Vehtari, Simpson & Gelman (2018), Yes, but did it work?: evaluating variational inference, ICML.
    """
    smoothed, k_hat = zip(*map(_one, np.asarray(log_ratio, float)), strict=True)
    return np.stack(smoothed), np.array(k_hat)


def _one(log_ratio):
    from arviz_stats.base import array_stats
    from scipy.special import logsumexp

    plain = log_ratio - logsumexp(log_ratio)
    if np.isnan(plain).any() or log_ratio.size < FEWEST:
        return plain, np.nan
    if np.ptp(log_ratio) < ALIKE:
        return plain, 0.0
    if tail_is_lost(log_ratio):
        return plain, np.inf
    return array_stats.psislw(-log_ratio, axis=-1)


def is_reliable(k_hat: Float[np.ndarray, "C"]) -> bool:
    """Whether every k̂ is at most 0.7; NaN is not."""
    return bool(np.all(k_hat <= K_HAT_LIMIT))


def weighted(log_ratio: Float[np.ndarray, "C S"]) -> tuple[dict[str, np.ndarray], Status]:
    """What an approximating engine adds to its stats, log_weight (C, S) and pareto_k (C,), and its status."""
    log_weight, k_hat = importance(log_ratio)
    return {"log_weight": log_weight, "pareto_k": k_hat}, Status.SAMPLED if is_reliable(k_hat) else Status.UNRELIABLE


def corrected_moments(posterior: Posterior) -> tuple[GMM, GMM]:
    """Importance-corrected mean and sd of φ, μ, Σ of each chain: leaves (C, ...), units of the data.

    For a posterior with `log_weight` in its stats (svi, laplace), in the labelling in which its draws are. Before the
    correction they are the plain mean and sd over the axis of the draws.
    """
    if "log_weight" not in check_posterior(posterior).stats:
        raise ValueError("corrected_moments needs a posterior with log_weight in its stats: those of svi and laplace.")
    weight = np.exp(np.asarray(posterior.stats["log_weight"], float))

    def mean_of(leaf):
        return np.einsum("cs,cs...->c...", weight, leaf)

    draws = jax.tree.map(lambda leaf: np.asarray(leaf, float), posterior.draws)
    mean = jax.tree.map(mean_of, draws)
    square = jax.tree.map(lambda leaf, m: mean_of((leaf - m[:, None]) ** 2), draws, mean)
    return mean, jax.tree.map(np.sqrt, square)


def tail_is_lost(log_weight: Float[np.ndarray, "... S"]) -> Bool[np.ndarray, "..."]:
    """Whether of the weights that the law is fitted to, the smallest is nothing beside the largest.

    Then k̂ is far above 1; ArviZ fits zeros and finds 0.05.
    """
    n_draws = log_weight.shape[-1]
    n_tail = int(np.ceil(min(0.2 * n_draws, 3.0 * np.sqrt(n_draws))))
    tail = np.sort(log_weight, axis=-1)[..., -n_tail:]
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        return tail[..., -1] - tail[..., 0] > UNDERFLOW
