"""Where nutpie's chains start: a mixture as the variables of the method pymc_nuts."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from gmm_jax.mixture import GMM


def starts_at(init: GMM, hyper, scaling) -> dict[str, Any]:
    """Options of nutpie for chains that all start at init, a mixture in the units of the data."""
    inner = jax.tree.map(lambda leaf: np.asarray(leaf, float), scaling.inward(init))
    return {"initial_points": variables(inner, hyper), "jitter_rvs": set()}


def variables(gmm, hyper):
    """The sampled variables at a standardised mixture: the inverse of what pymc_nuts makes of draws."""
    spread = np.linalg.inv(np.linalg.cholesky(hyper.precision))
    found = {"weights": gmm.weights, "means": (gmm.means - hyper.loc) @ np.linalg.inv(spread)}
    unknown = hyper.size_dof is not None  # the scale starts at its mean
    if gmm.covariance_type in ("diag", "spherical"):
        return found | {"covariances": gmm.covariances} | ({"size": hyper.size} if unknown else {})
    matrices = gmm.covariances if gmm.covariances.ndim == 3 else gmm.covariances[None]
    root = np.linalg.cholesky(hyper.size)
    bartlett = np.linalg.cholesky(root.T @ np.linalg.inv(matrices) @ root)  # A_k A_kᵀ = M⁻¹ Λ_k M⁻ᵀ, M = root⁻ᵀ
    factors = {"": bartlett} | ({"size_": np.sqrt(hyper.size_dof) * np.eye(gmm.n_features)[None]} if unknown else {})
    places = np.tril_indices(gmm.n_features, -1)
    for prefix, factor in factors.items():
        found[f"{prefix}squares"] = np.diagonal(factor, axis1=1, axis2=2) ** 2
        if gmm.n_features > 1:
            found[f"{prefix}below"] = factor[:, places[0], places[1]]
    return found
