"""What the Bayesian methods share: starts from EM's optima, and a posterior read as a Fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ... import bayes, em, judge
from ...mixture import (
    GMM,
    ONE_AT_A_TIME,
    Fit,
    MixtureSpec,
    Posterior,
    Status,
    check_data,
    free_parts,
    standardise,
    structure,
    validate_spec,
)
from ._peers import em_evaluations, terms

NEAR = 10.0  # nats: optima lower than this below the best carry no posterior mass worth a chain
CLIMB_TOL = 1e-9  # gain in mean log-likelihood at which a climb to a mode ends
CLIMB_NUMBERS = 1 << 22  # N·D·K·draws that climb at a time


def em_starts(key, x, spec: MixtureSpec, n_chains: int, n_restarts: int) -> tuple[GMM | None, int]:
    """A start for each chain, the best EM optimum and the distinct ones within 10 nats of it in turn; and their cost.

    Chains that start in different optima and stay there are seen by R-hat; had all started in one, it would be blind.
    None where EM failed: a posterior can be proper where the likelihood has no maximum. The cost is in component
    densities.
    """
    restarts = em.fit_em_restarts(key, x, spec, n_restarts=n_restarts)
    cost = em_evaluations(restarts, x, spec)
    if not Status(int(restarts.best.status)).ok:
        return None, cost
    best = jax.tree.map(lambda leaf: leaf[None], restarts.best.gmm)
    optima = restarts.optima
    real = ~optima.spurious & (optima.log_likelihood >= restarts.best.log_likelihood - NEAR)
    near = jax.tree.map(lambda leaf: leaf[real], optima.gmm) if real.any() else best
    order = np.arange(n_chains) % near.means.shape[0]
    return jax.tree.map(lambda leaf: leaf[order], near), cost


def check_relabelling(name: str) -> None:
    """Before anything is sampled: a ValueError where there is no such method."""
    if name not in judge.RELABELLINGS:
        raise ValueError(f"relabelling must be one of {', '.join(judge.RELABELLINGS)}; got {name!r}.")


def as_fit(
    posterior: Posterior,
    spec: MixtureSpec,
    *,
    x: Float[np.ndarray, "N D"] | None = None,
    relabelling: str = "pivot",
    mixing: bool = True,
) -> Fit:
    """Relabelled draws, their mean as the point, their sds as standard errors, and the worst of the diagnostics.

    x is for co-clustering, and for relabelling by allocations or modes.
    """
    climb = climb_posterior(x, spec) if relabelling == "modes" else None
    relabelled = judge.relabel(posterior, method=relabelling, x=x, spec=spec, climb=climb)
    point, sds = mean_and_sd(relabelled.posterior.draws, spec)
    info = {
        "relabelling": relabelled.method,
        "relabelling_objective": relabelled.objective,
        "decided": relabelled.decided,
        "mean_log_density": float(np.mean(posterior.log_density)),
    }
    if relabelled.note:
        info["labels"] = relabelled.note
    status = Status(posterior.status)
    if mixing:
        found = judge.mixing(posterior, relabelled, spec, x)
        info |= {"mixing": found.verdict, "mixing_reason": found.reason} | found.after.worst
        info |= {
            "r_hat_before_relabelling": found.before.worst["r_hat"],
            "r_hat_label_invariant": found.invariant.worst["r_hat"],
        }
        status = found.after.status if status == Status.SAMPLED else status
    return Fit(point, relabelled.posterior, sds, status, info)


def climb_posterior(x, spec: MixtureSpec) -> Callable[[GMM], GMM]:
    """EM to the posterior's modes from mixtures with one leading axis: what relabelling by modes asks for.

    NotSupported where the prior is not semi-conjugate, which EM's M-step needs.
    """
    x = check_data(x, n_components=spec.n_components)
    spec = validate_spec(spec, x.shape[1])
    z, scaling = standardise(x, spec)
    prior = bayes.hyperparameters(bayes.default_prior(x, spec), spec.covariance_type)
    prior = scaling.prior_inward(prior, spec.covariance_type)
    known = scaling.known_inward(spec)

    def climb(gmms):
        inner = jax.tree.map(lambda leaf: leaf.astype(z.dtype), scaling.inward(gmms))
        return scaling.outward(jax.tree.map(np.asarray, _climb(z, inner, known, prior)))

    return climb


@partial(jax.jit, compiler_options=ONE_AT_A_TIME)
def _climb(z, gmms, known, prior):
    prior = jax.tree.map(lambda leaf: jnp.asarray(leaf, z.dtype), prior)

    def one(gmm):
        return em.fit_em(z, gmm, known=known, prior=prior, config=em.EMConfig(tol=CLIMB_TOL)).gmm

    return jax.lax.map(one, gmms, batch_size=max(1, CLIMB_NUMBERS // (z.size * gmms.n_components)))


GRADIENT = 3  # component densities that a gradient of one costs, as is usually counted


def on_terms(answer: Fit, x, n_restarts: int, cost: int, passes: float, threads="XLA's own", precision=None) -> Fit:
    """The answer with what it cost, `cost` of starts and `passes` over the data, and on which terms it ran.

    precision: by default that of the answer.
    """
    each = len(x) * answer.point.n_components
    info = {"density_evaluations": int(cost + passes * each)} | terms(
        start=f"EM's optima, best of {n_restarts} by kmeans++",
        reg_covar="none",
        tol=None,
        tol_is="none: it samples",
        threads=threads,
        precision=precision or str(answer.point.means.dtype),
        same_prior="yes",
    )
    return answer._replace(info=answer.info | info)


def gradients(posterior: Posterior, n_warmup: int) -> float:
    """Passes over the data that NUTS' gradients amount to; steps of warm-up, which are not kept, as many as others."""
    n_chains, n_draws = posterior.log_density.shape
    return GRADIENT * float(np.mean(posterior.stats["n_steps"])) * n_chains * (n_draws + n_warmup)


def trajectories(posterior: Posterior) -> dict[str, float]:
    """What NUTS did, in two numbers."""
    stats = posterior.stats
    return {"divergences": int(np.sum(stats["diverging"])), "leapfrog_steps": float(np.mean(stats["n_steps"]))}


def correction(answer: Fit) -> dict[str, float]:
    """k̂ of one chain of an approximation, and what importance weights change in the free numbers of its Fit.

    shift: the largest change of a mean, in sds; spread: the largest ratio of an sd after to before.
    """
    after = bayes.corrected_moments(answer.draws)
    found = {"pareto_k": float(answer.draws.stats["pareto_k"][0]), "shift": 0.0, "spread": 0.0}
    for leaf in ("weights", "means", "covariances"):
        mean, sd = (np.asarray(getattr(gmm, leaf), float) for gmm in (answer.point, answer.standard_errors))
        free = sd > 0.0
        if free.any():
            new_mean, new_sd = (getattr(gmm, leaf)[0][free] for gmm in after)
            found["shift"] = max(found["shift"], float(np.max(np.abs(new_mean - mean[free]) / sd[free])))
            found["spread"] = max(found["spread"], float(np.max(new_sd / sd[free])))
    return found


def mean_and_sd(draws: GMM, spec: MixtureSpec) -> tuple[GMM, GMM]:
    """Mean and sd over (chains, draws); the sd of what is known is exactly 0."""
    point = jax.tree.map(lambda leaf: np.mean(leaf, axis=(0, 1)), draws)
    sds = jax.tree.map(lambda leaf: np.std(leaf, axis=(0, 1)), draws)
    weights, means, covariances = free_parts(spec)
    if weights.sum() == 1:
        weights = np.zeros_like(weights)  # determined by the known ones
    per_component = structure(spec.covariance_type).per_component
    spread = covariances.reshape(-1, *(1,) * (sds.covariances.ndim - 1)) if per_component else covariances.any()
    return point, replace(
        sds, weights=sds.weights * weights, means=sds.means * means[:, None], covariances=sds.covariances * spread
    )
