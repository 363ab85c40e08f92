r"""Laplace's approximation: a Gaussian at each mode of the posterior, in unconstrained coordinates.

With û a mode of log p(u | x), Jacobian included, and −H its Hessian there (P × P),
p(u | x) ≈ N(û, H⁻¹) and log p(x) ≈ log p(x, û) + ½ P log 2π − ½ log |H| + log(labellings).

The climb runs on the host, one start after another: L-BFGS, then Newton's steps in a region of trust.

Reference:
    Tierney & Kadane (1986), Accurate approximations for posterior moments and marginal densities, JASA 81.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, Posterior
from ..mixture.free import each_direction
from ..mixture.match import distance, distinguished, exchangeable, match_cost
from ..mixture.programs import jit
from .importance import weighted
from .model import Problem
from .target import begin, finish, log_posterior, read_draws

POLISH = 50  # Newton's steps at most; from the end of L-BFGS a few are enough
DECREMENT = 1e-4  # nats: what Newton's next step would still gain at what counts as a mode
SAME = 1e-4  # match cost between two finds of one mode, and of two components that coincide


def laplace(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_chains: int = 4,
    n_warmup: int = 300,
    n_draws: int = 1000,
    init: GMM | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
) -> Posterior:
    """Independent draws from Laplace's approximation at the posterior mode that each chain's start leads to.

    Args:
        n_warmup: steps of L-BFGS at most; the polish comes after them.
        init: None for EM's optima in turn, one GMM to start around it, or a GMM with a leading axis of n_chains:
            give distinct optima of EM to have every mode they lead to.
        labels: the component of each row, -1 where unknown: component k is then class k, which relabelling leaves.
        missing: "marginalise" takes NaN in x as missing at random; the density is of what was seen.

    Returns:
        Posterior; stats by chain: mode, the same number where chains found the same mode up to its labels;
        log_evidence_of_mode, which counts the n_labellings copies of that mode that exchanging components makes (right
        where they do not overlap); log_evidence, the sum over the distinct modes found, and log_evidence_corrected,
        the same by importance sampling; pareto_k; and by draw log_weight, for `corrected_moments`. Status UNRELIABLE
        where a k̂ is above 0.7, NON_FINITE where a start led to no mode: that chain is NaN.
    """
    problem, scaling, first, key = begin(key, x, spec, init, n_chains, n_warmup, n_draws, labels, missing)
    first = np.asarray(first)
    modes = jax.tree.map(lambda *parts: np.stack(parts), *(_climb(problem, u, n_warmup) for u in first))
    # on the host: the compiler takes seconds over normal numbers
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    noise = rng.standard_normal((n_chains, 1 + n_draws, first.shape[1]))
    noise[:, 0] = 0.0  # the mode itself
    flat = modes.position[:, None] + np.einsum("cpq,csq->csp", modes.root, noise)
    read = read_draws(problem, flat.astype(problem.z.dtype))
    centres = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], read[0])
    draws, log_density, log_p = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 1:], read)
    log_ratio = log_p.astype(float) - _log_normaliser(modes)[:, None] + 0.5 * np.sum(noise[:, 1:] ** 2, axis=-1)
    stats, status = weighted(log_ratio)
    stats |= _evidence(problem, modes, centres, log_ratio)
    for name in ("log_evidence_of_mode", "log_evidence", "log_evidence_corrected"):
        stats[name] = stats[name] - scaling.log_volume_of(problem.n_samples, problem.annotations)
    return finish(problem, scaling, draws, log_density, stats, status)


class Mode(NamedTuple):
    """A mode of the log posterior; NaN throughout where none was found."""

    position: Float[np.ndarray, "n_coordinates"]  # flat, unconstrained
    height: Float[np.ndarray, ""]  # log p(x, û)
    root: Float[np.ndarray, "n_coordinates n_coordinates"]  # R with R Rᵀ = H⁻¹
    half_log_precision: Float[np.ndarray, ""]  # ½ log |H|


def _climb(problem, start, n_steps) -> Mode:
    from scipy.optimize import minimize

    def fall(u):
        height, slope = _height(problem, u.astype(start.dtype))
        if not np.isfinite(height):  # a step too far: as low as can be, so that it is taken back
            return np.inf, np.zeros_like(u)
        return -float(height), -np.asarray(slope, float)

    def curvature(u):
        return -np.asarray(_hessian(problem, u.astype(start.dtype)), float)

    n_samples, eps = problem.n_samples, float(np.finfo(start.dtype).eps)
    u = np.asarray(start, float)
    if n_steps:
        u = minimize(fall, u, jac=True, method="L-BFGS-B", options={"maxiter": n_steps, "gtol": 1e-6}).x
    if not np.isfinite(fall(u)[0]):
        return _no_mode(len(u))
    options = {"maxiter": POLISH, "gtol": math.sqrt(eps * n_samples)}
    end = minimize(fall, u, jac=True, hess=curvature, method="trust-exact", options=options)
    return _gaussian(end.x, -end.fun, end.jac, curvature(end.x))


def _gaussian(position, height, slope, precision) -> Mode:
    """The Gaussian at a point, if that is a mode: slope zero, and the precision positive definite."""
    from scipy.linalg import solve_triangular

    try:
        cholesky = np.linalg.cholesky(precision)
    except np.linalg.LinAlgError:
        return _no_mode(len(position))
    whitener = solve_triangular(cholesky, np.eye(len(position)), lower=True)
    if not 0.5 * np.sum((whitener @ slope) ** 2) <= DECREMENT:
        return _no_mode(len(position))
    return Mode(position, height, whitener.T, np.sum(np.log(np.diag(cholesky))))


def _no_mode(n_coordinates):
    return Mode(np.full(n_coordinates, np.nan), np.nan, np.full((n_coordinates, n_coordinates), np.nan), np.nan)


@partial(jit, compiler_options=ONE_AT_A_TIME)
def _height(problem, u):
    return jax.value_and_grad(partial(log_posterior, problem))(u)


@partial(jit, compiler_options=ONE_AT_A_TIME)
def _hessian(problem, u):
    slope = jax.grad(partial(log_posterior, problem))
    columns = each_direction(lambda v: jax.jvp(slope, (u,), (v,))[1], u)
    return 0.5 * (columns + columns.T)


def _log_normaliser(modes: Mode):
    """log N(û | û, H⁻¹) of each mode."""
    return modes.half_log_precision - 0.5 * modes.position.shape[-1] * math.log(2.0 * math.pi)


# ---- evidence


def _evidence(problem, modes: Mode, gmms: GMM, log_ratio):
    """Of each chain's mode, and of all distinct modes together; (C,) each."""
    from scipy.special import logsumexp

    n_chains, n_draws = log_ratio.shape
    found = np.isfinite(modes.height)
    mode = _distinct(gmms, found, distinguished(problem.spec, problem.annotations.labels))
    each = (jax.tree.map(lambda leaf, c=c: leaf[c], gmms) for c in range(n_chains))
    labellings = np.array([n_labellings(problem, gmm) for gmm in each])
    of_mode = modes.height - _log_normaliser(modes) + np.log(labellings)
    corrected = logsumexp(log_ratio, axis=1) - math.log(n_draws) + np.log(labellings)
    chains = [np.flatnonzero(mode == m) for m in np.unique(mode[found])]
    total = logsumexp([of_mode[c[0]] for c in chains]) if chains else np.nan
    mended = logsumexp([logsumexp(corrected[c]) - math.log(c.size) for c in chains]) if chains else np.nan
    return {
        "mode": mode,
        "n_labellings": labellings,
        "log_evidence_of_mode": of_mode,
        "log_evidence": np.full(n_chains, total),
        "log_evidence_corrected": np.full(n_chains, mended),
    }


def _distinct(gmms: GMM, found, spec):
    """A number for each chain's mode, the chain's own or that of the first chain with the same mode up to labels."""
    mode = np.arange(len(found))
    for c in np.flatnonzero(found):
        apart = distance(gmms, jax.tree.map(lambda leaf, c=c: leaf[c], gmms), spec)
        same = np.flatnonzero(found & (apart <= SAME))
        mode[c] = mode[same].min(initial=c)
    return mode


def n_labellings(problem: Problem, gmm: GMM) -> int:
    """How many copies of a mode the exchange of components makes: K!, or fewer.

    Components are exchanged if what is known of them and the prior are the same for both, and no label names them;
    components that coincide are the same copy.
    """
    import numpyro.distributions as dist

    spec, prior = distinguished(problem.spec, problem.annotations.labels), problem.prior
    alike = exchangeable(spec)
    if problem.n_sites[0]:
        if not isinstance(prior.weights, dist.Dirichlet):
            return 1  # nothing says that such a prior treats components alike
        concentration = np.where(problem.free[0], np.asarray(prior.weights.concentration), 0.0)
        alike &= concentration[:, None] == concentration
    kinds = np.argmax(alike, axis=1)
    coincide = match_cost(gmm, gmm) <= SAME
    copies = 1
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        twins = np.unique(coincide[np.ix_(members, members)], axis=0, return_counts=True)[1]
        copies *= math.factorial(members.size) // math.prod(math.factorial(int(n)) for n in twins)
    return copies
