"""Which mode does every draw belong to? The one that it climbs to, up to the order of components.

Reference:
    Yao & Lindsay (2009), Bayesian mixture labeling by highest posterior density, JASA 104: draws climb by EM.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float, Int

from ..mixture import GMM, MixtureSpec, Posterior, assign, distinguished, match_cost

SAME_MODE = 1e-2  # match cost between two ends of climbs to one mode, which EM may stop short of


def modes_reached(
    posterior: Posterior, modes: GMM, climb: Callable[[GMM], GMM], spec: MixtureSpec | None = None
) -> tuple[Int[np.ndarray, "C S"], Int[np.ndarray, "M"]]:
    """The number of the mode that each draw climbs to, −1 for one that is not listed; and that of each listed one.

    Args:
        modes: (M, ...), each anywhere on the slopes of its mode, as an optimum of EM is for the posterior's: they climb
            too, and those that end together share the number of the first.
        climb: mixtures with one leading axis to their modes, as in `relabel`.
    """
    shape, n_components = posterior.draws.weights.shape[:2], posterior.draws.n_components
    spec = MixtureSpec(n_components, posterior.draws.covariance_type) if spec is None else spec
    spec = distinguished(spec, posterior.named)
    flat = jax.tree.map(lambda leaf: np.reshape(leaf, (-1, *np.shape(leaf)[2:])), posterior.draws)
    both = jax.tree.map(lambda many, few: np.concatenate([many, np.asarray(few, many.dtype)]), flat, modes)
    ends = jax.tree.map(np.asarray, climb(both))
    n_draws = shape[0] * shape[1]
    distances = []
    for m in range(len(modes.weights)):
        top = jax.tree.map(lambda leaf, m=m: leaf[n_draws + m], ends)
        distances.append(_distance(ends, top, spec))
    near = np.stack(distances, axis=-1) <= SAME_MODE  # NaN, where a climb failed, is near nothing
    number = np.where(near.any(axis=-1), np.argmax(near, axis=-1), -1)
    return number[:n_draws].reshape(shape), number[n_draws:]


def _distance(gmms, reference, spec) -> Float[np.ndarray, "B"]:
    """The match cost of the cheapest pairing; NaN where a mixture is not finite."""
    cost = match_cost(gmms, reference, spec)
    finite = np.isfinite(cost).all(axis=(1, 2))
    paired = assign(np.where(finite[:, None, None], cost, 0.0))
    total = np.take_along_axis(cost, paired[:, None, :], axis=1).sum(axis=(1, 2))
    return np.where(finite, total, np.nan)
