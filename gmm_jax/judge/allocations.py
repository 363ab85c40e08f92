"""Relabelling by which samples belong together: equivalence classes representatives, and Stephens' algorithm.

With p_mnk the probability in draw m that sample n belongs to component k, a labelling τ is good where it makes small

    ECR:       mean_m Σ_n 1[z_mn ≠ τ_m(z*_n)],  z_mn = argmax_k p_mnk,  z*_n the reference's or the most frequent place
    Stephens:  mean_m Σ_n Σ_j p_mnτ_m(j) log(p_mnτ_m(j) / q_nj),  q_nj = mean_m p_mnτ_m(j)

Both are sums over j of a cost [τ_m(j), j] with cost_ij = own_i − Σ_n p_mni score_nj. Iterative methods take turns: the
best score for the labelling, then the best labelling for the score; neither can raise the objective.

Reference:
    Papastamoulis & Iliopoulos (2010), JCGS 19: ECR; Papastamoulis (2016), JSS 69(1): its iterative form.
    Stephens (2000), Dealing with label switching in mixture models, JRSS B 62.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, Float, Int

from ..mixture import ONE_AT_A_TIME, MixtureSpec, assign, exchangeable
from ..mixture.gmm import GMM, deviations, log_joint_components_first
from ..mixture.programs import jit

HELD_NUMBERS = 1 << 26  # probabilities p_mnk kept between passes, 512 MiB of float64; more are computed anew each pass
NO_GAIN = 1e-12  # a draw's permutation is kept where another is cheaper by no more than this, relatively: rounding


class Criterion(NamedTuple):
    """What the two methods differ in; arrays are components first."""

    share: Callable[[Float[Array, "K N"]], Float[Array, "K N"]]  # of p: which part of a sample goes to a component
    own: Callable[[Float[Array, "K N"]], Float[Array, "K"]]
    score: Callable[[Float[Array, "K N"]], Float[Array, "K N"]]  # the best one for the mean share


class Labelling(NamedTuple):
    """A permutation for every draw, and what each would cost under the score that belongs to all of them."""

    permutations: Int[np.ndarray, "M K"]
    cost: Float[np.ndarray, "M K K"]

    @property
    def objective(self) -> float:
        return float(np.mean(chosen(self.cost, self.permutations)))


def _most_probable(p):
    """One-hot in the largest (the lowest index on a tie); NaN stays NaN."""
    k = jnp.arange(p.shape[0], dtype=jnp.int32)[:, None]
    return (k == jnp.argmax(p, axis=0).astype(jnp.int32)[None]).astype(p.dtype) + 0.0 * p


def _safe_log(q):
    """log q, where q = 0 counts as the smallest positive number: never −inf, and 0 · log q is 0."""
    return jnp.log(jnp.maximum(q, jnp.finfo(q.dtype).tiny))


ECR = Criterion(_most_probable, lambda share: jnp.sum(share, axis=1), _most_probable)
STEPHENS = Criterion(lambda p: p, lambda p: jnp.sum(xlogy(p, p), axis=1), _safe_log)
ITERATIVE = {"ecr-iterative": ECR, "stephens": STEPHENS}


class Allocations:
    """The draws' probabilities p_mnk for standardised samples z, and the costs of both criteria.

    Held in memory in the precision of z up to HELD_NUMBERS of them, else computed draw by draw in every pass.
    """

    def __init__(self, draws: GMM, z: Float[np.ndarray, "N D"], spec: MixtureSpec):
        n_draws, n_components = np.shape(draws.weights)
        few = n_draws * n_components * z.shape[0] <= HELD_NUMBERS
        self._source = all_probabilities(draws, z) if few else draws
        self._z = z
        self._allowed = exchangeable(spec)

    def cost_of(self, criterion: Criterion, permutations: Int[np.ndarray, "M K"]) -> Float[np.ndarray, "M K K"]:
        """Costs under the score that is best for these permutations of the draws."""
        score = _score(self._source, self._z, np.asarray(permutations, np.int32), criterion)
        return self._cost(criterion, score)

    def cost_against(self, criterion: Criterion, reference: GMM) -> Float[np.ndarray, "M K K"]:
        """Costs under the score of one standardised mixture."""
        return self._cost(criterion, _score_of_one(reference, self._z, criterion))

    def _cost(self, criterion, score):
        cost = np.asarray(_costs(self._source, self._z, score, criterion), float)
        return np.where(self._allowed | np.isnan(cost), cost, np.inf)  # inf costs scipy's assignment no digits


def best_labellings(
    allocations: Allocations, starts: list[Int[np.ndarray, "M K"]], by_reference: Float[np.ndarray, "M K K"]
) -> dict[str, Labelling]:
    """For each iterative method its best fixed point from all starts and from the other method's.

    So neither has a higher objective than the other's labelling, or any start, has under it.
    """
    run = partial(_run, allocations, by_reference)
    distinct = {start.tobytes(): start for start in (in_order(start, by_reference) for start in starts)}
    found = {
        name: min((run(criterion, start) for start in distinct.values()), key=lambda labelling: labelling.objective)
        for name, criterion in ITERATIVE.items()
    }
    lowered = True
    while lowered:
        lowered = False
        for name, other in (("stephens", "ecr-iterative"), ("ecr-iterative", "stephens")):
            if not np.array_equal(found[name].permutations, found[other].permutations):
                trial = run(ITERATIVE[name], found[other].permutations)
                if trial.objective < found[name].objective:
                    found[name], lowered = trial, True
    return found


def _run(allocations, by_reference, criterion, permutations):
    """The fixed point reached from these permutations, with components in the reference's order."""
    while True:
        start = in_order(permutations, by_reference)
        end = settle(partial(allocations.cost_of, criterion), start)
        if np.array_equal(end.permutations, in_order(end.permutations, by_reference)):
            return end
        permutations = end.permutations  # in another order ties of allocations fall otherwise


def settle(cost_of: Callable[[Int[np.ndarray, "M K"]], Float[np.ndarray, "M K K"]], permutations) -> Labelling:
    """Score and labelling in turn, until no draw gains by another permutation: the objective falls at every step."""
    now = Labelling(permutations, cost_of(permutations))
    while True:
        best = assign(now.cost)
        paid = chosen(now.cost, now.permutations)
        gains = paid - chosen(now.cost, best) > NO_GAIN * (1.0 + np.abs(paid))
        permutations = np.where(gains[:, None], best, now.permutations)
        following = Labelling(permutations, cost_of(permutations)) if gains.any() else now
        if not following.objective < now.objective:
            return now
        now = following


def in_order(permutations: Int[np.ndarray, "M K"], by_reference: Float[np.ndarray, "M K K"]) -> Int[np.ndarray, "M K"]:
    """The same labelling up to one permutation common to all draws, the one nearest to the reference."""
    rows = np.take_along_axis(by_reference, permutations[:, :, None], axis=1)
    return permutations[:, assign(np.mean(rows, axis=0))]


def chosen(cost: Float[np.ndarray, "*batch K K"], permutations: Int[np.ndarray, "*batch K"]):
    """Cost of each permutation, (*batch)."""
    return np.take_along_axis(cost, permutations[..., None, :], axis=-2)[..., 0, :].sum(axis=-1)


def _probabilities(draw, z):
    """(K, N) of one draw, whether it is held as that or as a mixture."""
    if not isinstance(draw, GMM):
        return draw
    return jax.nn.softmax(log_joint_components_first(draw, deviations(draw, z)), axis=0)


@partial(jit, compiler_options=ONE_AT_A_TIME)
def all_probabilities(draws: GMM, z: Float[Array, "N D"]) -> Float[Array, "M K N"]:
    """p_mkn of standardised draws, one draw after another."""
    return jax.lax.map(lambda draw: _probabilities(draw, z), draws)


@partial(jit, static_argnames="criterion")
def _score_of_one(gmm, z, criterion):
    return criterion.score(criterion.share(_probabilities(gmm, z)))


@partial(jit, static_argnames="criterion", compiler_options=ONE_AT_A_TIME)
def _score(source, z, permutations, criterion):
    def add(total, one):
        draw, order = one
        return total + criterion.share(_probabilities(draw, z))[order], None

    zero = jnp.zeros((permutations.shape[1], z.shape[0]), z.dtype)
    total = jax.lax.scan(add, zero, (source, permutations))[0]
    return criterion.score(total / permutations.shape[0])


@partial(jit, static_argnames="criterion", compiler_options=ONE_AT_A_TIME)
def _costs(source, z, score, criterion):
    def one(draw):
        share = criterion.share(_probabilities(draw, z))
        return criterion.own(share)[:, None] - share @ score.T

    return jax.lax.map(one, source)
