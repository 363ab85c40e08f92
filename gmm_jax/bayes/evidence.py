"""The evidence p(x) = ∫ p(x | θ) p(θ) dθ of the unordered model, all K! labellings counted, with its standard error.

Bridge sampling: with q a proposal that is normalised, p(x) = E_q[h p] / E_post[h q], where p is the unnormalised
posterior and h = 1 / (s₁ p / p(x) + s₂ q). Both p and q do not change with the labels: q(θ) = |G|⁻¹ Σ_g q₀(gθ) over the
group G of relabellings that leave the posterior as it is, with q₀ fitted to draws in one labelling. Then h p and h q do
not change either, and it does not matter in which labelling a draw is taken.

Reference:
    Meng & Wong (1996), Statistica Sinica 6; Frühwirth-Schnatter (2004), Estimating marginal likelihoods for mixture and
    Markov switching models using bridge sampling techniques, Econometrics Journal 7; Gronau et al. (2017), A tutorial
    on bridge sampling, J. Mathematical Psychology 81.
"""

from functools import partial
from itertools import combinations, permutations, product
from math import lgamma
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float, Int, Key
from scipy.special import expit

from ..mixture import ONE_AT_A_TIME, MixtureSpec, NotSupported, Posterior, assign, match_cost, permute
from ..mixture.checks import check_count, check_key
from ..mixture.programs import jit
from .checks import check_posterior
from .model import assemble, log_volume
from .target import constrain, density_of, prepare, unconstrain

MOST_LABELLINGS = 720  # 6!
OVERLAP = 1e-3  # of labellings, above which they cannot be left out
DOF = 5.0  # of the proposal, a multivariate t
TRIED = 8  # draws at which the posterior's symmetry is tested


class Evidence(NamedTuple):
    """log p(x) and what is known about its error."""

    log_evidence: float  # of the unordered model, nats, units of the data
    standard_error: float  # of log_evidence
    overlap: float | None = None  # bridge: mean share of the other labellings in q at the draws; at 0, q is q₀ / K!


def pool(posterior: Posterior) -> Evidence:
    """The evidence of independent runs of smc: the log of the mean of their p(x), which is unbiased.

    Its standard error comes from the scatter of the runs; of one run alone, from its own estimate.
    """
    values = check_posterior(posterior).stats.get("log_evidence")
    if values is None:
        raise ValueError("posterior has no log_evidence in its stats: draw it by smc, or use bridge.")
    ratio = np.exp(values - np.max(values))
    log_evidence = float(np.max(values) + np.log(np.mean(ratio)))
    if values.size == 1:
        error = posterior.stats["log_evidence_error"][0]
    else:
        error = np.std(ratio, ddof=1) / np.mean(ratio) / np.sqrt(values.size)
    return Evidence(log_evidence, float(error))


def bridge(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    posterior: Posterior,
    *,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
    n_proposals: int = 4000,
) -> Evidence:
    """The evidence by bridge sampling from any engine's draws.

    q₀ is a multivariate t in unconstrained coordinates, fitted to the first half of every chain after relabelling; the
    second halves and n_proposals draws of q₀ are what is averaged. The draws may lie in any labellings, but must come
    from all modes that relabelling does not join: what they miss is missing in the evidence.

    Args:
        labels, missing: those by which the draws were made; then it is the evidence of what was seen.

    Returns:
        Evidence; its standard error is Frühwirth-Schnatter's, with the draws' autocorrelation.

    Raises:
        ValueError: the draws' densities are not those of x, spec, labels and missing.
        NotSupported: more than 720 labellings, some of which overlap; with fewer all are summed, with more the
            transpositions alone, to see that the others add nothing.
    """
    check_key(key)
    check_count(n_proposals, "n_proposals", 100)
    check_posterior(posterior)
    problem, scaling = prepare(x, spec, labels=labels, missing=missing, padded=True)
    volume = scaling.log_volume_of(problem.n_samples, problem.annotations)
    draws = jax.tree.map(lambda leaf: leaf.astype(problem.z.dtype), scaling.inward(posterior.draws))
    classes, density = _classes(problem, draws)
    eps = np.finfo(posterior.draws.means.dtype).eps
    _check_density(density - volume - float(log_volume(problem)), _some(posterior.log_density), np.sqrt(eps))
    draws = _one_labelling(draws, posterior.log_density, classes)
    orders, log_size = _orders(classes)
    half = draws.means.shape[1] // 2
    first, second = (jax.tree.map(lambda leaf, part=part: leaf[:, part], draws) for part in np.s_[:half, half:])
    mean, root = _fit(np.asarray(_coordinates(problem, first), float))
    proposals = _propose(key, problem, mean, root, n_proposals)
    ours, overlap = _log_ratio(problem, second, orders, log_size, mean, root)
    theirs, _ = _log_ratio(problem, proposals, orders, log_size, mean, root)
    if len(orders) < np.exp(log_size) - 0.5 and overlap > OVERLAP:
        raise NotSupported(
            f"bridge sums at most {MOST_LABELLINGS} labellings, and of the {np.exp(log_size):.0f} here some overlap "
            f"(share {overlap:.2g}): use smc."
        )
    log_evidence, error = _bridge(ours, theirs.ravel())
    if not np.isfinite(log_evidence):
        raise ValueError("the proposal and the posterior's draws have nothing in common: draw more, or use smc.")
    return Evidence(log_evidence - volume, error, overlap)


def _classes(problem, draws):
    """Class of each component, those whose exchange leaves the density of draws as it is (Known rows, prior, labels),
    and the standardised density of `_some` of the draws.
    """
    n_components = problem.spec.n_components
    some = jax.tree.map(_some, draws)
    pairs = list(combinations(range(n_components), 2))
    orders = _exchanges(n_components, pairs)
    n_tried = some.means.shape[0]
    grid = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(orders), *leaf.shape)), some)
    density = np.asarray(density_of(problem, permute(grid, np.repeat(orders[:, None], n_tried, axis=1))))
    tolerance = np.sqrt(np.finfo(density.dtype).eps) * (1.0 + np.abs(density[0]))
    same = np.all(np.abs(density[1:] - density[0]) <= tolerance, axis=1)
    classes = np.arange(n_components)
    for (i, j), is_same in zip(pairs, same, strict=True):
        if is_same:
            classes[j] = min(classes[i], classes[j])
    return classes, density[0]


def _exchanges(n_components, pairs):
    """The identity, and for each pair the order (K,) in which these two components are exchanged."""
    orders = np.tile(np.arange(n_components), (1 + len(pairs), 1))
    for row, (i, j) in enumerate(pairs, start=1):
        orders[row, [i, j]] = j, i
    return orders


def _some(leaf):
    """TRIED of the draws (C, S, ...), or as many as there are."""
    leaf = np.asarray(leaf)
    return leaf.reshape(-1, *leaf.shape[2:])[:: max(1, leaf.shape[1] // TRIED)][:TRIED]


def _check_density(ours, theirs, tolerance):
    if not np.all(np.abs(ours - theirs) <= tolerance * (1.0 + np.abs(ours))):
        raise ValueError(
            f"posterior.log_density is {theirs[0]:.6g} at a draw where this x and spec give {ours[0]:.6g}: pass the x, "
            "spec, labels and missing by which the draws were made."
        )


def _one_labelling(draws, log_density, classes):
    """Every draw with its components in the order of the draw of highest density, exchanged within classes only."""
    best = np.unravel_index(np.argmax(log_density), log_density.shape)
    cost = match_cost(draws, jax.tree.map(lambda leaf: leaf[best], draws))
    other = classes[:, None] != classes[None]
    far = 1.0 + len(classes) * np.max(cost, axis=(-2, -1), keepdims=True)
    return permute(draws, assign(np.where(other, far, cost)))


def _orders(classes):
    """Relabellings (G, K) within classes, the identity first, and the log of their number; too many: transpositions."""
    members = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    log_size = sum(lgamma(len(rows) + 1.0) for rows in members)
    if log_size > np.log(MOST_LABELLINGS) + 0.1:
        return _exchanges(len(classes), [pair for rows in members for pair in combinations(rows, 2)]), log_size
    orders = np.array([np.concatenate(new) for new in product(*map(permutations, members))])
    return orders[:, np.argsort(np.concatenate(members))], log_size


def _fit(u):
    """Mean and Cholesky root of the spread of unconstrained draws (C, S, P)."""
    flat = u.reshape(-1, u.shape[-1])
    if len(flat) < 10 * flat.shape[1] or not np.all(np.isfinite(flat)):
        raise ValueError(
            f"bridge needs finite draws, twice {10 * flat.shape[1]} or more of them; got {2 * len(flat)}: draw more."
        )
    return flat.mean(axis=0), np.linalg.cholesky(np.atleast_2d(np.cov(flat.T)))


@partial(jit, compiler_options=ONE_AT_A_TIME)
def _coordinates(problem, gmms):
    return jax.vmap(jax.vmap(partial(unconstrain, problem)))(gmms)


@partial(jit, static_argnames="n", compiler_options=ONE_AT_A_TIME)
def _propose(key, problem, mean, root, n):
    """Mixtures (1, n) from q₀."""
    key_normal, key_chi = jax.random.split(key)
    noise = jax.random.normal(key_normal, (n, mean.size), mean.dtype)
    squares = 2.0 * jax.random.gamma(key_chi, 0.5 * DOF, (n, 1), mean.dtype)
    u = mean + jnp.sqrt(DOF / squares) * (noise @ root.T)
    return jax.vmap(jax.vmap(lambda u: assemble(problem, constrain(problem, u)[0])))(u[None])


def _log_ratio(problem, gmms, orders, log_size, mean, root):
    """log p − log q at mixtures (C, S), both in constrained space; and the mean share of other labellings in q."""
    log_q, others = _log_proposal(problem, gmms, orders, mean, np.linalg.inv(root))
    log_p = np.asarray(density_of(problem, gmms), float)
    return log_p - (np.asarray(log_q, float) - log_size), float(np.mean(others))


@partial(jit, compiler_options=ONE_AT_A_TIME)
def _log_proposal(problem, gmms, orders, mean, whitener):
    """log Σ_g q₀(gθ), (C, S), and the share of all g but the first."""
    size = mean.size
    constant = jnp.sum(jnp.log(jnp.diagonal(whitener))) - 0.5 * size * np.log(DOF * np.pi)
    constant += gammaln(0.5 * (DOF + size)) - gammaln(0.5 * DOF)

    def one(order, gmm):
        u = unconstrain(problem, permute(gmm, order))
        z = whitener @ (u - mean)
        log_density = constant - 0.5 * (DOF + size) * jnp.log1p(z @ z / DOF)
        return log_density - constrain(problem, u)[1]

    logs = jax.lax.map(lambda order: jax.vmap(jax.vmap(partial(one, order)))(gmms), orders)
    total = logsumexp(logs, axis=0)
    return total, 1.0 - jnp.exp(logs[0] - total)


def _bridge(ours, theirs):
    """log p(x) from log p − log q at posterior draws (C, S) and at proposals (n,), and its standard error.

    Meng & Wong's iteration for the best h; Frühwirth-Schnatter (2004), section 3.3, for the error.
    """
    n_effective = min(_ess(ours), float(ours.size))
    log_odds = np.log(n_effective / theirs.size)  # of the draws' share s₁ in h
    log_ratio, step = np.median(ours), np.inf
    while abs(step) > 1e-10:  # a contraction
        top = np.mean(expit(theirs - log_ratio + log_odds))
        bottom = np.mean(expit(log_ratio - ours - log_odds))
        step = np.log(top / bottom) - log_odds
        log_ratio += step
    h_p, h_q = expit(theirs - log_ratio + log_odds), expit(log_ratio - ours - log_odds)
    variance = np.var(h_p) / np.mean(h_p) ** 2 / theirs.size + np.var(h_q) / np.mean(h_q) ** 2 / _ess(h_q)
    return float(log_ratio), float(np.sqrt(variance))


def _ess(draws):
    from arviz_stats.base import array_stats

    return float(array_stats.ess(draws, chain_axis=0, draw_axis=1, method="mean"))
