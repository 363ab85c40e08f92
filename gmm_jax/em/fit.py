"""EM from one start, and its history: pure, jittable, vmappable; nothing is validated or scaled here.

ℓ(θ) = Σ_n log Σ_k φ_k N(x_n | μ_k, Σ_k) is raised by θ ← m_step(e_step(θ, x)).
"""

from dataclasses import field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..mixture import Annotations, Hyperparameters, Known, Status, project, structure
from ..mixture.annotations import filled_up, total_count
from ..mixture.checks import check_count, check_type, tree_dataclass
from ..mixture.forks import check_process
from ..mixture.gmm import GMM, deviations, given
from ..mixture.moments import FastMoments, Moments, kappa_squared, kappa_squared_limit, moments, take_sums
from ..mixture.programs import jit
from .acceleration import Chart, from_coordinates, gradient, start_memory, to_coordinates
from .fixed_point import STOPS, Map, Progress, Rule, advance, begin, resume
from .m_step import log_prior, m_step

ACCELERATIONS = ("auto", "none", "lbfgs")
INEXACT = -1  # beside the Status of a fit on its way: the next step is not for fast sums
ITERATED = 1e5  # the most κ² of sums that a fit iterates on: their errors, of 2e-11 or in float32 1e-2, are averaged
UNNOTICED = 1e-3  # times κ²: how much less precise a likelihood is than 64 eps of it allow for


@tree_dataclass
class EMConfig:
    """When EM stops, how it is regularised, and whether it is accelerated.

    stop: what is to fall to tol. "gain": the gain in mean log-likelihood per sample, nats. "relative": the gain as a
    part of the log-likelihood. "aitken": the log-likelihood that is still to be gained, nats, as the last two plain
    steps foretell it. "gradient": the largest entry of the gradient of the mean log-likelihood, where log φ, the means
    and the log-Cholesky factors of the covariances are the coordinates.
    acceleration: "none", or "lbfgs": quasi-Newton steps on top of EM, each at the price of one E-step. "auto" is that
    where `fit_em_restarts` goes on with swaps and tol is not 0, and "none" everywhere else.
    """

    max_iter: int = field(default=1000, metadata={"static": True})
    tol: float = 1e-8  # see stop; 0 never stops
    reg_covar: float | Float[Array, "D"] | None = None  # squared units of x; None: 0, at entry points 1e-6·variance
    acceleration: str = field(default="auto", metadata={"static": True})
    stop: str = field(default="gain", metadata={"static": True})

    def __post_init__(self):
        check_count(self.max_iter, "config.max_iter", 0)
        for name, choices in (("acceleration", ACCELERATIONS), ("stop", STOPS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"config.{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}.")


class EMResult(NamedTuple):
    """One EM fit. The likelihood belongs to the mixture that is returned."""

    gmm: GMM
    log_likelihood: Float[Array, ""]  # sum over samples, nats
    trace: Float[Array, "max_iter_plus_1"]  # trace[0] of the start, trace[n_iter] == log_likelihood, NaN after
    n_iter: Int[Array, ""]  # E-steps after the first: M-steps, or with acceleration steps taken or rejected
    status: Int[Array, ""]  # a Status


class EMState(NamedTuple):
    """A mixture together with its factor and its sums, so that each is computed once."""

    gmm: GMM
    whitener: Float[Array, "..."]  # of the covariances: what _fault looks at
    moments: Moments
    kappa_squared: Float[Array, ""]  # how many times larger their rounding errors may be than those of exact sums, or 0


def accurate(state: EMState) -> Bool[Array, "..."]:
    """Whether the sums of a state are good enough to be returned: that they keep three quarters of the digits."""
    return state.kappa_squared <= kappa_squared_limit(state.kappa_squared.dtype, 0.75)


def fit_em(
    x: Float[Array, "N D"],
    init: GMM,
    *,
    known: Known = Known(),
    sample_weight: Float[Array, "N"] | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
    config: EMConfig = EMConfig(),
    prior: Hyperparameters | None = None,
) -> EMResult:
    """EM from one start, until what config.stop names falls to config.tol.

    `init` is projected onto `known` first. With reg_covar = 0 the likelihood never falls; with reg_covar > 0 EM is not
    monotone, and the best iterate is returned. A rejected step of accelerated EM repeats its predecessor in the trace.
    Statuses: CONVERGED, MAX_ITER; DECREASED, COLLAPSED (see `Status`) and NON_FINITE return the last iterate before the
    fault. x should be centred and scaled, as the entry points do.

    With a prior (of the semi-conjugate family, in the units of x: `bayes.hyperparameters`) the log posterior is raised
    instead, and `trace` holds log-likelihood + log prior, up to a constant: the cure for components that collapse onto
    few samples (Fraley & Raftery 2007, J. Classification 24). `log_likelihood` stays the likelihood.

    With labels (-1: unknown) component k is class k: a labelled row counts for its component alone, with the density
    φ_k N(x_n | μ_k, Σ_k). With missing="marginalise" a NaN in x is an entry that is missing at random, and each row has
    the density of what was seen of it; NaN are looked for in NumPy, so not under jit or vmap.

    References:
        Dempster, Laird & Rubin (1977), JRSS B 39; Ghahramani & Jordan (1994), NIPS 6, for missing values.
    """
    check_process()
    init, x, groups = _checked(x, init, known, config, missing)
    x, rows = filled_up(x, Annotations(sample_weight, labels, groups))
    result = _fit(x, init, known, rows, config, prior)
    return result._replace(trace=ended(result.trace, result.n_iter))


def _checked(x, init, known, config, missing=None):
    """(start, rows, their groups), or a ValueError that names the argument of another kind or size."""
    check_type(config, EMConfig, "config", "EMConfig(max_iter=1000)")
    check_type(known, Known, "known", "Known(weights, means, covariances)")
    return given(init, x, missing, name="init")


@jit
def _fit(x, init, known, rows, config, prior):
    rows = rows._replace(weight=None if rows.weight is None else jnp.asarray(rows.weight, x.dtype))
    exact, rule = em_map(x, known, rows, config, prior, "exact")
    progress = not_begun(jax.tree.map(lambda leaf: jnp.asarray(leaf, x.dtype), init), config)
    step, trace = np.arange(config.max_iter + 1, dtype=np.int32), None
    if rows.groups is None:
        fast, _ = em_map(x, known, rows, config, prior, "fast")
        progress, trace = advance(fast, progress, rule, step.size)
        progress = resume(progress, INEXACT)
    n_fast = progress.n_iter
    progress, last = advance(exact, progress, rule, step.size)
    trace = last if trace is None else jnp.where(step <= n_fast, trace, last[step - n_fast - 1])
    best = progress.best
    if rows.groups is None:
        best = jax.lax.cond(accurate(best), lambda: best, lambda: _state(best.gmm, x, rows, "exact"))
    trace = trace.at[progress.best_iter].set(exact.objective(best))
    return result_of(progress._replace(best=best), trace)


def iterates(
    x: Float[Array, "N D"],
    init: GMM,
    *,
    n_iter: int,
    known: Known = Known(),
    sample_weight: Float[Array, "N"] | None = None,
    config: EMConfig = EMConfig(),
) -> GMM:
    """The start and the first n_iter iterates, as one GMM with leading axis n_iter + 1: for pictures and animation."""
    init, x, _ = _checked(x, init, known, config)
    return _iterates(x, init, check_count(n_iter, "n_iter", 0), known, sample_weight, config)


@partial(jit, static_argnames="n_iter")
def _iterates(x, init, n_iter, known, sample_weight, config):
    sample_weight = None if sample_weight is None else jnp.asarray(sample_weight, x.dtype)
    mapping, _ = em_map(x, known, Annotations(sample_weight), config, None, "exact")
    start = project(jax.tree.map(lambda leaf: jnp.asarray(leaf, x.dtype), init), known)
    return jax.lax.scan(lambda gmm, _: (mapping.image(mapping.evaluate(gmm)), gmm), start, None, length=n_iter + 1)[1]


@jit
def fit_labelled(x: Float[Array, "N D"], labels: Int[Array, "N"], start: GMM, *, known: Known = Known()) -> GMM:
    """The maximum-likelihood mixture of labelled rows: one M-step from one-hot responsibilities.

    `start` gives the structure and the point about which the sums are taken; its values do not matter. This is the
    oracle: what no method without labels can be expected to beat.
    """
    one_hot = (labels[None, :] == jnp.arange(start.weights.shape[0], dtype=labels.dtype)[:, None]).astype(x.dtype)
    d = deviations(start, x)
    return m_step(moments(start, d, one_hot, jnp.zeros(x.shape[0], x.dtype)), start, known=known)


def not_begun(start: GMM, config: EMConfig) -> Progress:
    """A fit that stands at its start, or many where that has leading axes; known parts are put in as it begins."""
    (*shape, n_components, n_features), dtype = start.means.shape, start.means.dtype
    mass, first, second = (np.zeros(leaf.shape, dtype) for leaf in (start.weights, start.means, start.covariances))
    none, memory, kind = np.full(shape, -np.inf, dtype), None, structure(start.covariance_type)
    if config.acceleration == "lbfgs":
        n_matrices = n_components if kind.per_component else 1
        n_coordinates = n_components * (1 + n_features) + n_matrices * kind.n_parameters(n_features)
        memory = start_memory(n_coordinates, dtype, tuple(shape))
    state = EMState(start, second, Moments(mass, first, second, none), np.zeros(shape, dtype))
    return begin(state, dtype, memory, tuple(shape))


def em_map(x, known, rows, config, prior, sums) -> tuple[Map, Rule]:
    """EM as a map for fixed_point: EMState -> EMState, its objective ℓ (+ log prior), its faults, and when to stop.

    By way of "fast" it stops with INEXACT before a step whose sums have a κ² above ITERATED; "exact" takes any. As in
    `take_sums`, whether they are exact may be a number.
    """
    total = total_count(rows, x.shape[0], x.dtype)
    return map_of(lambda gmm: _state(gmm, x, rows, sums), total, known, config, prior)


def map_of(evaluate, total, known, config, prior) -> tuple[Map, Rule]:
    """The same wherever the sum is taken: `evaluate` is GMM -> EMState, `total` the number of samples.

    Where a loop outside takes the sum, evaluate is the identity: `ask` then gives the mixture to take it under.
    """
    ridge = jnp.asarray(0.0 if config.reg_covar is None else config.reg_covar, total.dtype)

    def image(state: EMState) -> GMM:
        return m_step(state.moments, state.gmm, known=known, reg_covar=ridge, prior=prior)

    def objective(state: EMState):
        likelihood = state.moments.log_likelihood
        return likelihood if prior is None else likelihood + log_prior(state.gmm, known, state.whitener, prior)

    def unflatten(vector, state: EMState) -> GMM:
        return project(from_coordinates(vector, state.gmm), known)

    mapping = Map(
        image=image,
        evaluate=evaluate,
        parameters=lambda state: project(state.gmm, known),
        objective=objective,
        fault=lambda state: _fault(state, known, may_be_empty=prior is not None),
        gradient=lambda state: gradient(state.gmm, state.whitener, state.moments, known, ridge, prior),
        rounding=lambda state: UNNOTICED * state.kappa_squared,
    )
    if config.acceleration == "lbfgs":
        mapping = mapping._replace(chart=Chart(to_coordinates, unflatten))
    rule = Rule(
        unit=total,
        tol=jnp.asarray(config.tol, total.dtype),
        monotone=jnp.all(ridge == 0.0),
        max_iter=config.max_iter,
        stop=config.stop,
    )
    return mapping, rule


def ended(trace: Float[Array, "... T"], n_iter: Int[Array, "..."]) -> Float[Array, "... T"]:
    """The trace with NaN after the last iteration; no compiled program makes one, so that jax_debug_nans may be on."""
    place = np.arange(trace.shape[-1], dtype=np.int32)
    if isinstance(trace, jax.core.Tracer):
        return jnp.where(place <= n_iter[..., None], trace, jnp.asarray(jnp.nan, trace.dtype))
    trace = np.asarray(trace)
    return jax.device_put(np.where(place <= np.asarray(n_iter)[..., None], trace, np.asarray(np.nan, trace.dtype)))


def result_of(progress: Progress, trace: Float[Array, "max_iter_plus_1"]) -> EMResult:
    """What an iteration ended with; later entries of the trace than the best iterate's become -inf, see `ended`."""
    kept = jnp.arange(trace.shape[0], dtype=progress.best_iter.dtype) <= progress.best_iter
    best, trace = progress.best, jnp.where(kept, trace, -jnp.inf)
    return EMResult(best.gmm, best.moments.log_likelihood, trace, progress.best_iter, progress.status)


def _state(gmm, x, rows, sums):
    whitener = structure(gmm.covariance_type).whitener(gmm.covariances)
    return state_of(gmm, whitener, take_sums(gmm, whitener, x, rows, sums))


def state_of(gmm: GMM, whitener: Float[Array, "..."], sums: Moments | FastMoments) -> EMState:
    """A mixture with its sums, and what these are worth."""
    return EMState(gmm, whitener, Moments(*sums[:4]), kappa_squared(gmm, whitener, sums))


def _fault(state, known, *, may_be_empty):
    """COLLAPSED: a Cholesky fails, a free Σ_k is numerically singular, or a component to be estimated has mass < 1.

    INEXACT: sums from statistics keep too few digits to tell, and nothing is said about a collapse.
    """
    gmm, mass = state.gmm, state.moments.mass
    kind = structure(gmm.covariance_type)
    rcond = kind.rcond(gmm.covariances, state.whitener)
    factored = jnp.all(jnp.isfinite(state.whitener))
    free_means = _free(known.means, mass)
    free_covariances = _free(known.covariances, mass) if kind.per_component else _free(known.covariances, mass[:1])
    singular = ~(rcond >= 100.0 * jnp.finfo(rcond.dtype).eps)  # NaN counts as singular
    needed = free_means | free_covariances if kind.per_component else free_means  # all samples make a tied Σ
    empty = (mass < 1.0) & needed
    collapsed = ~factored | jnp.any(singular & free_covariances)
    collapsed = collapsed if may_be_empty else collapsed | jnp.any(empty)
    fault = jnp.where(collapsed, jnp.int32(Status.COLLAPSED), jnp.int32(Status.RUNNING))
    return jnp.where(state.kappa_squared <= ITERATED, fault, jnp.int32(INEXACT))


def _free(known, mass):
    """(K,) bool: components whose part is free."""
    if known is None:
        return jnp.ones(mass.shape, bool)
    return jnp.isnan(jnp.reshape(known, (mass.shape[0], -1))[:, 0])
