"""Without the truth: do the chains agree, and how many independent draws are they worth?

R-hat and effective sample sizes are arviz-stats' (rank-normalised, split). The log density and sorted functionals do
not depend on labels, so they come first: a chain that merely switched labels is told from one that is stuck.

Reference:
    Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Rank-normalization, folding, and localization, Bayesian
    Analysis 16.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..mixture import GMM, MixtureSpec, Posterior, Status, free_parts, structure

R_HAT_LIMIT = 1.01
ESS_LIMIT = 400


class Diagnostics(NamedTuple):
    """One row a quantity; quantities that are known do not appear."""

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
    return _table(quantities(posterior.draws, spec) | {"log_density": np.asarray(posterior.log_density)})


def invariant_diagnostics(posterior: Posterior, spec: MixtureSpec) -> Diagnostics:
    """The same for what does not depend on labels: the log density, sorted φ, sorted coordinates of μ."""
    weights, means, _ = free_parts(spec)
    found = {"log_density": np.asarray(posterior.log_density)}
    if weights.sum() > 1:
        ordered = np.sort(np.asarray(posterior.draws.weights), axis=-1)
        found |= {f"sorted weights[{k}]": ordered[..., k] for k in range(spec.n_components)}
    if means.any():
        ordered = np.sort(np.asarray(posterior.draws.means), axis=-2)
        n_components, n_features = ordered.shape[-2:]
        found |= {f"sorted means[{k},{j}]": ordered[..., k, j] for k in range(n_components) for j in range(n_features)}
    return _table(found)


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


def _table(found):
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
