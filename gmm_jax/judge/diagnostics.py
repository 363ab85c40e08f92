"""Without the truth: do the chains agree, and how many independent draws are they worth?

R-hat and effective sample sizes are arviz-stats' (rank-normalised, split). The log density, sorted functionals and
co-clustering do not depend on labels, so they come first: a chain that merely switched labels is distinguished from one
that is stuck (see mixing.py).

Reference:
    Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Rank-normalization, folding, and localization, Bayesian
    Analysis 16.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ..bayes.checks import check_posterior, check_spec
from ..mixture import GMM, MixtureSpec, Posterior, Status, check_data, free_parts, structure
from .allocations import all_probabilities, standardised

R_HAT_LIMIT = 1.01
ESS_LIMIT = 400
N_SPREAD = 4  # samples, an even number, whose pairs are looked at for co-clustering
AGREED = 1e-3  # a co-clustering that varies less over all draws says nothing about mixing


class Diagnostics(NamedTuple):
    """R-hat, effective sample sizes and Monte-Carlo errors, one entry a free quantity."""

    names: tuple[str, ...]
    r_hat: Float[np.ndarray, "Q"]
    ess_bulk: Float[np.ndarray, "Q"]
    ess_tail: Float[np.ndarray, "Q"]
    mcse_mean: Float[np.ndarray, "Q"]

    @property
    def worst(self) -> dict[str, float]:
        """The largest R-hat and the smallest ESS."""
        return {
            "r_hat": float(np.max(self.r_hat)),
            "ess_bulk": float(np.min(self.ess_bulk)),
            "ess_tail": float(np.min(self.ess_tail)),
        }

    @property
    def status(self) -> Status:
        """UNMIXED where any R-hat is above 1.01 or any ESS below 400; NaN counts as unmixed."""
        worst = self.worst
        mixed = worst["r_hat"] <= R_HAT_LIMIT and worst["ess_bulk"] >= ESS_LIMIT and worst["ess_tail"] >= ESS_LIMIT
        return Status.SAMPLED if mixed else Status.UNMIXED


def diagnostics(posterior: Posterior, spec: MixtureSpec) -> Diagnostics:
    """R-hat, ESS and Monte-Carlo errors of the free φ, μ, Σ and of the log density, in the labelling given."""
    found = quantities(check_posterior(posterior).draws, check_spec(spec))
    return diagnostics_of(found | {"log_density": np.asarray(posterior.log_density)})


def invariant_diagnostics(
    posterior: Posterior, spec: MixtureSpec, x: Float[np.ndarray, "N D"] | None = None
) -> Diagnostics:
    """R-hat, ESS and Monte-Carlo errors of quantities without labels: log density, sorted φ and μ, co-clustering.

    Only free φ and μ are sorted. Co-clustering needs x; pairs on which all draws agree to 0.001 have no row.
    """
    return diagnostics_of(invariants(posterior, spec, x))


def invariants(posterior: Posterior, spec: MixtureSpec, x=None) -> dict[str, Float[np.ndarray, "C S"]]:
    """Label-invariant quantities by name."""
    weights, means, _ = free_parts(check_spec(spec))
    found = {"log_density": np.asarray(check_posterior(posterior).log_density)}
    if weights.sum() > 1:
        ordered = np.sort(np.asarray(posterior.draws.weights)[..., weights], axis=-1)
        found |= {f"sorted weights[{k}]": ordered[..., k] for k in range(ordered.shape[-1])}
    if means.any():
        ordered = np.sort(np.asarray(posterior.draws.means)[..., means, :], axis=-2)
        n_components, n_features = ordered.shape[-2:]
        found |= {f"sorted means[{k},{j}]": ordered[..., k, j] for k in range(n_components) for j in range(n_features)}
    if x is None:
        return found
    pairs = spread_pairs(x)
    together = co_clustering(posterior, x, pairs, spec)
    names = [f"co-clustering[{a},{b}]" for a, b in pairs]
    agreed = np.ptp(together, axis=(0, 1)) < AGREED  # as good as constant; a NaN is not agreed
    return found | {name: together[..., i] for i, name in enumerate(names) if not agreed[i]}


def co_clustering(
    posterior: Posterior, x: Float[np.ndarray, "N D"], pairs: Int[np.ndarray, "P 2"], spec: MixtureSpec | None = None
) -> Float[np.ndarray, "C S P"]:
    """The probability that two samples share a component, Σ_k p(k | x_a) p(k | x_b), in every draw, by rows of x."""
    z, _, (draws,) = standardised(x, spec, posterior.draws)
    shape = draws.weights.shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)
    rows, place = np.unique(pairs, return_inverse=True)
    p = np.asarray(all_probabilities(flat, z[rows]), float)  # (M, K, rows)
    a, b = place.reshape(-1, 2).T
    return np.sum(p[..., a] * p[..., b], axis=1).reshape(*shape, -1)


def spread_pairs(x: Float[np.ndarray, "N D"]) -> Int[np.ndarray, "P 2"]:
    """All pairs of N_SPREAD samples, evenly spread in rank along the first principal axis of the scaled data."""
    x = np.asarray(check_data(x), float)
    scaled = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), np.finfo(float).tiny)
    along = scaled @ np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
    low = ((np.arange(N_SPREAD // 2) + 0.5) / N_SPREAD * len(x)).astype(int)
    ranks = np.unique([low, len(x) - 1 - low])  # the same samples if the axis points the other way
    rows = np.sort(np.argsort(along)[ranks])
    return np.array(list(combinations(rows.tolist(), 2)), int).reshape(-1, 2)


def quantities(draws: GMM, spec: MixtureSpec) -> dict[str, Float[np.ndarray, "C S"]]:
    """Every free number of the mixture by name; of symmetric matrices the lower triangle."""
    weights, means, covariances = free_parts(spec)
    found = {}
    if weights.sum() > 1:
        found |= {f"weights[{k}]": np.asarray(draws.weights)[..., k] for k in np.flatnonzero(weights)}
    leaf = np.asarray(draws.means)
    found |= {f"means[{k},{j}]": leaf[..., k, j] for k in np.flatnonzero(means) for j in range(leaf.shape[-1])}
    if not covariances.any():
        return found
    leaf = np.asarray(draws.covariances)
    kind = structure(draws.covariance_type)
    event = leaf.shape[2:]
    for index in np.ndindex(*event):
        upper = draws.covariance_type in ("full", "tied") and index[-1] > index[-2]
        known = kind.per_component and not covariances[index[0]]
        if not upper and not known:
            found["covariances[" + ",".join(map(str, index)) + "]"] = leaf[(..., *index)]
    return found


def diagnostics_of(found: dict[str, Float[np.ndarray, "C S"]]) -> Diagnostics:
    """One row for each quantity."""
    from arviz_stats.base import array_stats

    draws = np.stack([np.asarray(value, float) for value in found.values()])  # (Q, C, S)

    def each(statistic, **options):
        return np.asarray(statistic(draws, chain_axis=1, draw_axis=2, **options), float)

    with np.errstate(invalid="ignore", divide="ignore"):
        return Diagnostics(
            tuple(found),
            each(array_stats.rhat) if draws.shape[1] > 1 else np.full(len(found), np.nan),
            each(array_stats.ess, method="bulk"),
            each(array_stats.ess, method="tail", prob=(0.05, 0.95)),
            each(array_stats.mcse, method="mean"),
        )
