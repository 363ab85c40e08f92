"""How many of too many components hold samples? A sparse finite mixture: φ ~ Dirichlet(e₀) with e₀ small.

Components that are not needed stay empty, so that K₊, the number of those that hold samples, has a posterior.

Reference:
    Malsiner-Walli, Frühwirth-Schnatter & Grün (2016), Model-based clustering based on sparse finite Gaussian mixtures,
    Statistics and Computing 26.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Array, Float, Key

from ..mixture import MixtureSpec
from .gibbs import gibbs

CONCENTRATION = 0.01


def occupied_components(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_chains: int = 4,
    n_warmup: int = 1000,
    n_draws: int = 1000,
    concentration: float = CONCENTRATION,
) -> Float[np.ndarray, "K"]:
    """P(K₊ = k | x) for k = 0, ..., K: the share of Gibbs' draws in which k of the spec's K components hold samples.

    The spec's prior over φ is replaced by the sparse one; that over μ and Σ is kept. Chains start with all components
    occupied and empty them one by one, which takes the longer the nearer components lie.
    """
    import numpyro.distributions as dist

    weights = dist.Dirichlet(np.full(spec.n_components, concentration))
    sparse = replace(spec, prior=replace(spec.prior, weights=weights))
    posterior = gibbs(key, x, sparse, n_chains=n_chains, n_warmup=n_warmup, n_draws=n_draws)
    occupied = np.asarray(posterior.stats["occupied"]).ravel()
    return np.bincount(occupied, minlength=spec.n_components + 1) / occupied.size
