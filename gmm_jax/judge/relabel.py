"""One labelling for all draws of a posterior: a mixture's posterior has K! copies of each mode.

Every draw is permuted to lie nearest to one reference, whole components at once.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ..mixture import GMM, MixtureSpec, Posterior, assign, match_cost, permute


class Relabelled(NamedTuple):
    """A posterior in one labelling, and how that was decided."""

    posterior: Posterior
    permutations: Int[np.ndarray, "C S K"]  # permute(draw, permutation) is the relabelled draw
    method: str
    objective: float  # mean over draws of the cost of the chosen labelling; what the method makes small
    decided: float  # share of draws for which exchanging any two components would at least double the cost


def relabel(
    posterior: Posterior, *, method: str = "pivot", spec: MixtureSpec | None = None, reference: GMM | None = None
) -> Relabelled:
    """The same draws, each with its components in the reference's order.

    Args:
        method: "pivot": the reference is `reference`, or else the draw of highest density.
        spec: with it, only components with identical Known rows are exchanged.

    A `decided` well below 1 says that components overlap so much that labels mean little: read label-invariant
    quantities (densities, predictions) instead of per-component ones.

    Reference:
        Marin, Mengersen & Robert (2005), Bayesian modelling and inference on mixtures of distributions, section 3.1.
    """
    if method != "pivot":
        raise ValueError(f"method must be 'pivot'; got {method!r}.")
    pivot = _highest(posterior) if reference is None else reference
    cost = match_cost(posterior.draws, pivot, spec)
    permutations = assign(cost)
    total, next_best = _costs(cost, permutations)
    relabelled = posterior._replace(draws=permute(jax.tree.map(np.asarray, posterior.draws), permutations))
    decided = float(np.mean(next_best >= 2.0 * total)) if permutations.shape[-1] > 1 else 1.0
    return Relabelled(relabelled, permutations, method, float(np.mean(total)), decided)


def _highest(posterior):
    density = np.asarray(posterior.log_density)
    best = np.unravel_index(np.argmax(np.where(np.isnan(density), -np.inf, density)), density.shape)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[best], posterior.draws)


def _costs(cost: Float[np.ndarray, "C S K K"], permutations):
    """Cost of the labelling chosen, and the least cost after exchanging two components."""
    chosen = np.take_along_axis(cost, permutations[..., None, :], axis=-2)[..., 0, :]  # (C, S, K): pair at place j
    ordered = np.take_along_axis(cost, permutations[..., :, None], axis=-2)  # rows in the chosen order
    pair = chosen[..., :, None] + chosen[..., None, :]
    exchanged = ordered + np.swapaxes(ordered, -1, -2)
    gain = exchanged - pair + np.where(np.eye(cost.shape[-1], dtype=bool), np.inf, 0.0)
    total = chosen.sum(axis=-1)
    return total, total + gain.min(axis=(-2, -1))
