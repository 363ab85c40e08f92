"""One labelling for all draws of a posterior: a mixture's posterior has K! copies of each mode.

Every draw m is given the permutation τ_m that makes Σ_j cost_m[τ_m(j), j] least. Methods differ in the cost: distance
from one mixture, or samples that change their component, or information lost about which sample belongs where.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ..bayes.checks import check_posterior, check_spec, standardised
from ..bayes.diagnostics import highest
from ..bayes.starts import climber
from ..mixture import GMM, MixtureSpec, Posterior, assign, distinguished, match_cost, permute
from .allocations import ECR, ITERATIVE, Allocations, Labelling, best_labellings

RELABELLINGS = ("pivot", "ecr", "ecr-iterative", "stephens", "modes")
AMBIGUOUS = 0.9  # below this share of decided draws the labels are called ambiguous


class Relabelled(NamedTuple):
    """A posterior in one labelling, and how that was decided."""

    posterior: Posterior
    permutations: Int[np.ndarray, "C S K"]  # permute(draw, permutation) is the relabelled draw
    method: str
    objective: float  # mean over draws of the cost of the chosen labelling; what the method makes small
    decided: float  # share of draws for which exchanging any two components would at least double the cost

    @property
    def note(self) -> str:
        """A sentence where the labels are ambiguous, else empty."""
        if self.decided >= AMBIGUOUS:
            return ""
        return (
            f"labels are ambiguous: only {100 * self.decided:.0f} % of the draws have one clearly best labelling "
            f"(method {self.method}); read densities, predictions and sorted quantities, not single components."
        )


def relabel(
    posterior: Posterior,
    *,
    method: str = "pivot",
    x: Float[np.ndarray, "N D"] | None = None,
    spec: MixtureSpec | None = None,
    reference: GMM | None = None,
    climb: Callable[[GMM], GMM] | None = None,
) -> Relabelled:
    """The same draws, each with its components in the reference's order.

    Components that labels of rows name (`posterior.named`) stay where they are.

    Args:
        method: what the permutations make small, in the mean over draws.
            "pivot": the match cost (Bhattacharyya distances, and weights) between a draw and the reference.
            "ecr": samples whose most probable component is another than in the reference.
            "ecr-iterative": the same against the most frequent allocation of the relabelled draws themselves.
            "stephens": Σ_n KL(p_n ‖ q_n), nats, of a draw's probabilities p_n of components for sample n from their
            mean q_n over relabelled draws.
            "modes": the match cost between the modes that a draw and the reference climb to; draws that reach another
            mode than the reference's get the labels of the nearest pairing.
        x: the data, for all methods but pivot.
        spec: with it, only components with identical Known rows are exchanged.
        reference: a mixture; by default the draw of highest density.
        climb: mixtures with one leading axis (all draws and the reference) to the modes they climb to; for modes by
            default EM on x, under the spec's prior (`bayes.climber`). The other iterative methods take the labelling by
            a climb that is given as one more start.

    The iterative methods start from the labels as they are and from those of pivot and ecr, and go on from each other's
    results, so that none of these has a lower objective. A `decided` well below 1 says that components overlap so much
    that labels mean little: `note` says so in a sentence. Probabilities are computed in the precision of JAX.

    Reference:
        Marin, Mengersen & Robert (2005), Bayesian modelling and inference on mixtures of distributions, section 3.1:
        pivot. Papastamoulis & Iliopoulos (2010), JCGS 19: ecr. Stephens (2000), JRSS B 62: stephens.
        Yao & Lindsay (2009), Bayesian mixture labeling by highest posterior density, JASA 104: modes.
    """
    _check_arguments(posterior, method, x, climb, spec)
    pivot = highest(posterior) if reference is None else jax.tree.map(np.asarray, reference)
    shape = posterior.draws.weights.shape
    draws = jax.tree.map(lambda leaf: np.reshape(leaf, (-1, *np.shape(leaf)[2:])), posterior.draws)
    spec = MixtureSpec(shape[-1], draws.covariance_type) if spec is None else spec
    apart = distinguished(spec, posterior.named)
    if method == "pivot":
        found = _cheapest(match_cost(draws, pivot, apart))
    elif method == "modes":
        found = _by_modes(climber(x, spec) if climb is None else climb, draws, pivot, apart)
    else:
        found = _by_allocations(method, x, climb, draws, pivot, spec, apart, shape)
    permutations = found.permutations.reshape(shape)
    relabelled = posterior._replace(draws=permute(jax.tree.map(np.asarray, posterior.draws), permutations))
    return Relabelled(relabelled, permutations, method, found.objective, _share_decided(found))


def check_relabelling(method: str, name: str = "relabelling", *, gaps: bool = False) -> None:
    """Before anything is sampled: a ValueError where there is no such method, or none for rows with gaps."""
    if method not in RELABELLINGS:
        raise ValueError(f"{name} must be one of {', '.join(RELABELLINGS)}; got {method!r}.")
    if gaps and method != "pivot":
        raise ValueError(f"{name}={method!r} looks at whole rows, and x has NaN: use 'pivot', or fill x in first.")


def _check_arguments(posterior, method, x, climb, spec):
    check_posterior(posterior)
    if spec is not None:
        check_spec(spec)
    check_relabelling(method, "method")
    if method in ("ecr", *ITERATIVE) and x is None:
        raise ValueError(f"method {method!r} compares allocations of samples: pass x, or use method='pivot'.")
    if method == "modes" and climb is None and x is None:
        raise ValueError("method 'modes' climbs to the modes of the posterior of x: pass x, or use method='pivot'.")


def _cheapest(cost):
    return Labelling(assign(cost), cost)


def _by_modes(climb, draws, reference, spec):
    """By match costs between the modes that the draws reach and the one that the reference reaches."""
    both = jax.tree.map(lambda many, one: np.concatenate([many, np.asarray(one, many.dtype)[None]]), draws, reference)
    modes = jax.tree.map(np.asarray, climb(both))
    if jax.tree.map(np.shape, modes) != jax.tree.map(np.shape, both):
        raise ValueError(
            f"climb must return mixtures of the shapes it was given, means {both.means.shape}; "
            f"got means {np.shape(modes.means)}."
        )
    top = jax.tree.map(lambda leaf: leaf[-1], modes)
    return _cheapest(match_cost(jax.tree.map(lambda leaf: leaf[:-1], modes), top, spec))


def _by_allocations(method, x, climb, draws, reference, spec, apart, shape):
    """ECR against the reference, or the best fixed point of an iterative method from all labellings there are."""
    z, _, (inner_draws, inner_reference) = standardised(x, spec, draws, reference)
    allocations = Allocations(inner_draws, z, apart)
    by_ecr = _cheapest(_finite(allocations.cost_against(ECR, inner_reference), shape))
    if method == "ecr":
        return by_ecr
    by_pivot = _cheapest(match_cost(draws, reference, apart))
    identity = np.broadcast_to(np.arange(shape[-1]), by_pivot.permutations.shape)
    starts = [identity, by_pivot.permutations, by_ecr.permutations]
    if climb is not None:
        starts.append(_by_modes(climb, draws, reference, apart).permutations)
    return best_labellings(allocations, starts, by_pivot.cost)[method]


def _finite(cost, shape):
    bad = np.isnan(cost).any(axis=(-2, -1))
    if bad.any():
        chain, draw = divmod(int(np.argmax(bad)), shape[1])
        raise ValueError(
            f"posterior.draws gives no probabilities in chain {chain}, draw {draw} (NaN, or a covariance that is not "
            "positive definite): leave such draws out, or use method='pivot'."
        )
    return cost


def _share_decided(labelling) -> float:
    """The share of draws for which every exchange of two components would at least double the cost."""
    permutations, cost = labelling
    if permutations.shape[-1] == 1:
        return 1.0
    ordered = np.take_along_axis(cost, permutations[:, :, None], axis=1)  # rows in the chosen order
    kept = np.diagonal(ordered, axis1=1, axis2=2)
    gain = ordered + np.swapaxes(ordered, 1, 2) - kept[:, :, None] - kept[:, None, :]
    gain = np.where(np.eye(cost.shape[-1], dtype=bool), np.inf, gain).min(axis=(1, 2))
    return float(np.mean((gain >= kept.sum(axis=1)) & (gain > 0.0)))
