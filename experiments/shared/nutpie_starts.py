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
    """The sampled variables at a standardised mixture: the inverse of `pymc_nuts._mixtures`."""
    spread = np.linalg.inv(np.linalg.cholesky(hyper.precision))
    found = {"weights": gmm.weights, "means": (gmm.means - hyper.loc) @ np.linalg.inv(spread)}
    if gmm.covariance_type in ("diag", "spherical"):
        return found | {"covariances": gmm.covariances}
    matrices = gmm.covariances if gmm.covariances.ndim == 3 else gmm.covariances[None]
    outer = np.linalg.cholesky(np.linalg.inv(hyper.size))
    bartlett = np.linalg.solve(outer, np.linalg.cholesky(np.linalg.inv(matrices)))  # A_k = M⁻¹ T_k
    found["squares"] = np.diagonal(bartlett, axis1=1, axis2=2) ** 2
    places = np.tril_indices(gmm.n_features, -1)
    return found | ({"below": bartlett[:, places[0], places[1]]} if gmm.n_features > 1 else {})
