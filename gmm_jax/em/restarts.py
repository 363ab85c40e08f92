"""Many starts at once, every lane kept: the best optimum, and the landscape of the others.

Entry points: they check, centre and scale the data, run the lanes, judge the optima, and map everything back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import (
    GMM,
    Hyperparameters,
    MixtureSpec,
    Scaling,
    Status,
    check_data,
    check_sample_weight,
    standardise,
    validate,
    validate_spec,
)
from ..mixture.starts import start_function
from .fit import EMConfig, EMResult, result_of
from .lanes import advance_lanes, begin_lanes
from .m_step import m_step
from .optima import Optima, Unseen, distinct, eligible, pick, reasons, unseen
from .race import calibration_sample
from .race import race as run_race


class Effort(NamedTuple):
    """What a search cost, and what became of its lanes."""

    spent: int  # lane-iterations that moved a lane
    wasted: int  # lane-iterations computed for lanes that had ended and waited
    finished: int  # lanes run to their end
    merged: int  # lanes that left a race because they followed another
    dropped: int  # lanes that left a race because they were too low
    unseen: Unseen


class Restarts(NamedTuple):
    """What many restarts found, in the units and dtype of the data."""

    best: EMResult  # highest lane that is eligible and not spurious; see fit_em_restarts
    lanes: EMResult  # every lane, leading axis R
    optima: Optima
    message: str  # how it ended, in a sentence: the status of the best lane, and columns without spread
    effort: Effort
    starts: GMM  # where each lane began, leading axis R


def fit_em_restarts(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_restarts: int = 50,
    init: str | Callable | GMM = "kmeans++",
    sample_weight: Float[Array, "N"] | None = None,
    config: EMConfig = EMConfig(),
    prior: Hyperparameters | None = None,
    race: bool = False,
    progress: Callable[[int, int, float], None] | None = None,
) -> Restarts:
    """EM from n_restarts starts, many at a time on every core; every lane is kept.

    x is checked, centred and scaled here in float64, and everything is mapped back: fits are affine equivariant, and
    config.reg_covar=None means 1e-6 of each feature's variance. Eligible for best are lanes that CONVERGED or reached
    MAX_ITER; among them an admissible one (see `inadmissible`) is preferred, because a mixture's likelihood is
    unbounded. If no lane is eligible, best is the highest finite lane with its failing status.

    Args:
        init: a name (random, random_points, kmeans++, kmeans), a start function (key, x, spec) -> GMM that sees
            standardised data, or a GMM in the units of the data (one, or with a leading axis for each restart).
        sample_weight: counts a row so many times; rows of weight 0 are left out.
        prior: raise the log posterior under this prior, in the units of x (`bayes.hyperparameters`): see fit_em. Lanes
            are then ranked by it, and no optimum is called spurious: none is singular.
        race: stop lanes that follow another (status MERGED) or are too low to win (DROPPED): the same best fit sooner,
            but a thinner landscape. `optima` count only lanes that were run to their end.
        progress: called between chunks with (lanes done, lanes, best log-likelihood so far, -inf if none is finite).

    Raises:
        ValueError: bad data, spec, weights or options; the sentence names argument, value, place and remedy.
    """
    check_options(n_restarts, config)
    data = _prepare(x, spec, sample_weight, config, prior)
    inits = starts_of(key, data, init, n_restarts)
    lanes = begin_lanes(_stack([data]), jax.tree.map(lambda leaf: leaf[None], inits))
    interrupted = _run(lanes, data, race, progress)
    found = restarts_of(lanes, data, inits, race)
    if interrupted:
        raise Interrupted(found)
    return found


class Batch(NamedTuple):
    """The best fit of each of many data sets, in their units; leading axis P, and (P, R) for lanes."""

    best: EMResult  # without a trace: trace is (P, 0)
    log_likelihood: Float[np.ndarray, "P R"]
    status: Int[np.ndarray, "P R"]
    n_iter: Int[np.ndarray, "P R"]
    reason: np.ndarray  # (P,) of str: why the best one is inadmissible all the same, "" where it is not


def fit_em_batch(
    key: Key[Array, ""],
    x: Float[Array, "P N D"],
    spec: MixtureSpec,
    *,
    n_restarts: int = 10,
    init: str | Callable = "kmeans++",
    sample_weight: Float[Array, "P N"] | None = None,
    config: EMConfig = EMConfig(),
) -> Batch:
    """`fit_em_restarts` on many data sets of one shape, as simulation studies and bootstraps need them.

    Data sets of different sizes are filled up to one shape with rows of weight zero, which may hold anything.

    Raises:
        ValueError: as fit_em_restarts, for the first data set at fault, which is named.
    """
    check_options(n_restarts, config)
    x = np.asarray(x)
    if x.ndim != 3 or not len(x):
        raise ValueError(f"x must be (P, N, D), one block a data set; got shape {x.shape}: use x[None] for one.")
    if sample_weight is not None and np.shape(sample_weight) != x.shape[:2]:
        raise ValueError(f"sample_weight must have shape {x.shape[:2]}; got {np.shape(sample_weight)}.")
    data = [_member(x, spec, sample_weight, config, p) for p in range(len(x))]
    problem = _stack(data)
    inner = jax.tree.map(lambda *leaves: np.stack(leaves), *[d.inner for d in data])
    inits = _draw_batch(key, problem[0], inner, start_function(init), n_restarts)
    lanes = begin_lanes(problem, inits, keep_trace=False)
    while not advance_lanes(lanes, np.arange(lanes.n_lanes)):
        pass
    return _batch(lanes, data)


def _member(x, spec, sample_weight, config, p):
    """Data set p; rows of weight zero take copies of the others, so that starts can be drawn from any row."""
    rows, weight = x[p], None if sample_weight is None else np.asarray(sample_weight[p], float)
    try:
        if weight is not None:
            check_sample_weight(weight, len(rows))
            used = np.flatnonzero(weight > 0.0)
            rows = np.where((weight > 0.0)[:, None], rows, rows[used[np.arange(len(rows)) % used.size]])
        return _prepare(rows, spec, weight, config, None, keep_rows=True)
    except ValueError as error:
        raise ValueError(f"data set {p}: {error}") from error


@partial(jax.jit, static_argnames=("start", "n_restarts"))
def _draw_batch(key, z, inner, start, n_restarts):
    keys = jax.random.split(key, (z.shape[0], n_restarts))
    return jax.vmap(jax.vmap(start, in_axes=(0, None, None)))(keys, z, inner)


def _batch(lanes, data):
    """The best lane of each data set: highest among admissible, else among eligible, else among finite ones."""
    shape = (len(data), lanes.n_starts)
    state, trace = lanes.look()
    each = np.repeat(np.arange(len(data)), lanes.n_starts)
    known = jax.tree.map(lambda *leaves: np.stack(leaves)[each], *[d.inner.known for d in data])
    results, after = jax.tree.map(np.asarray, _finish(state, trace, known))
    spread = np.stack([d.spread for d in data])[each]
    n_samples = np.array([d.n_samples for d in data])[each, None]
    reason = reasons(results.gmm, after, data[0].inner, spread, n_samples).reshape(shape)
    usable = eligible(results).reshape(shape)
    value = np.where(np.isfinite(state.best_value), state.best_value, -np.inf).reshape(shape)
    best = np.lexsort((value, 2 * (usable & (reason == "")) + usable), axis=-1)[:, -1]
    chosen = np.arange(len(data)) * lanes.n_starts + best
    best = [outward(pick(results, lane), d.spec, d.scaling, d.n_samples) for lane, d in zip(chosen, data, strict=True)]
    volume = np.array([d.volume for d in data])[:, None]
    return Batch(
        jax.tree.map(lambda *leaves: np.stack(leaves), *best),
        results.log_likelihood.reshape(shape) - volume,
        results.status.reshape(shape),
        state.n_iter.reshape(shape),
        reason[np.arange(len(data)), chosen % lanes.n_starts],
    )


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during restarts: `.restarts` holds every lane as far as it came."""

    def __init__(self, restarts: Restarts):
        super().__init__("interrupted; the lanes as far as they came are in .restarts")
        self.restarts = restarts


class Data(NamedTuple):
    """A data set on its way in."""

    z: np.ndarray  # (N, D), centred and scaled
    weight: np.ndarray | None
    inner: MixtureSpec  # known parts in the units of z
    spec: MixtureSpec
    scaling: object
    config: EMConfig
    prior: Hyperparameters | None
    n_samples: float  # total weight
    spread: np.ndarray  # covariance of z, (D, D)

    @property
    def volume(self):
        """What the log-likelihood of z exceeds that of x by."""
        return self.n_samples * self.scaling.log_volume


def _prepare(x, spec, sample_weight, config, prior, *, keep_rows=False):
    x = check_data(x)
    spec = validate_spec(spec, x.shape[1])
    weight = check_sample_weight(sample_weight, x.shape[0])
    if weight is not None:
        if not keep_rows:
            x, weight = x[weight > 0.0], weight[weight > 0.0]
        check_total(weight, spec.n_components)
    x = check_data(x, n_components=spec.n_components)
    z, scaling = standardise(x, spec, weight)
    n_samples = z.shape[0] if weight is None else float(np.sum(weight))
    spread = np.cov(z.T, bias=True, aweights=weight).reshape(z.shape[1], -1)
    return data_of(z, weight, spec, scaling, config, prior, n_samples, spread)


def data_of(z, weight, spec, scaling, config, prior, n_samples, spread) -> Data:
    """Standardised rows, with all that was said about them in the units of the data standardised too."""
    ridge = scaling.ridge_inward(config.reg_covar).astype(z.dtype)
    config = replace(config, reg_covar=ridge, tol=np.asarray(config.tol, z.dtype))
    inner = replace(spec, known=scaling.known_inward(spec))
    weight = None if weight is None else weight.astype(z.dtype)
    prior = None if prior is None else scaling.prior_inward(prior, spec.covariance_type)
    return Data(z, weight, inner, spec, scaling, config, prior, n_samples, spread)


def _stack(data):
    """Data sets of one shape as the problem of `begin_lanes`."""
    problems = [(d.z, d.inner.known, d.weight, d.config, d.prior) for d in data]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *problems)


def check_options(n_restarts: int, config: EMConfig) -> None:
    """A ValueError that names the option that is out of its range."""
    for name, value, least in (("n_restarts", n_restarts, 1), ("config.max_iter", config.max_iter, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
    if not (np.ndim(config.tol) == 0 and 0.0 <= config.tol < np.inf):
        raise ValueError(f"config.tol must be finite and not negative; got {config.tol!r}: 0 never stops on gain.")


def check_total(weight, n_components):
    """A ValueError where the weights count less than a row for each component."""
    if np.sum(weight) < n_components:
        raise ValueError(
            f"sample_weight counts rows, but sums to {np.sum(weight):.6g}, less than n_components={n_components}: "
            "multiply it by len(x) / sample_weight.sum(), or lower n_components."
        )


def starts_of(key, data, init, n_restarts):
    """Standardised starts with leading axis R."""
    if not isinstance(init, GMM):
        return _draw_starts(key, data.z, data.inner, start_function(init), n_restarts)
    starts = starts_inward(init, data.inner, data.scaling, n_restarts)
    return jax.tree.map(lambda leaf: leaf.astype(data.z.dtype), starts)


def starts_inward(init: GMM, inner: MixtureSpec, scaling: Scaling, n_restarts: int) -> GMM:
    """Starts in the units of the data, checked and standardised; leading axis R also where one is for all."""
    if init.covariance_type != inner.covariance_type:
        raise ValueError(f"init has covariance_type {init.covariance_type!r}, but spec has {inner.covariance_type!r}.")
    leaves = jax.tree.map(np.asarray, init)
    batched = leaves if leaves.means.ndim == 3 else jax.tree.map(lambda leaf: leaf[None], leaves)
    if batched.n_components != inner.n_components:
        raise ValueError(f"init has {batched.n_components} components, but spec has {inner.n_components}.")
    for r in range(batched.means.shape[0]):
        validate(pick(batched, r), name="init", n_features=scaling.centre.size)
    if batched.means.shape[0] not in (1, n_restarts):
        raise ValueError(f"init holds {batched.means.shape[0]} starts, but n_restarts={n_restarts}: make them agree.")
    tiled = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (n_restarts, *leaf.shape[1:])), batched)
    return scaling.inward(tiled)


@partial(jax.jit, static_argnames=("start", "n_restarts"))
def _draw_starts(key, z, inner, start, n_restarts):
    return jax.vmap(start, in_axes=(0, None, None))(jax.random.split(key, n_restarts), z, inner)


def _run(lanes, data, race, progress):
    """All lanes to their end, or as far as Ctrl-C lets them: whether it came."""

    def finish(lanes, which, until):
        done = False
        while not done:
            done = advance_lanes(lanes, which, until)
            if progress is not None:
                values = lanes.look()[0].best_value
                best = np.where(np.isfinite(values), values, -np.inf).max()
                progress(lanes.n_lanes - lanes.running.size, lanes.n_lanes, float(best - data.volume))

    def admissible():
        gmms = lanes.look()[0].best.gmm
        if data.prior is not None:
            return np.ones(lanes.n_lanes, bool)
        return reasons(gmms, None, data.inner, data.spread, data.n_samples) == ""

    try:
        if race:
            run_race(lanes, data.inner, admissible, finish)
        finish(lanes, lanes.running, None)
    except KeyboardInterrupt:
        return True
    return False


@jax.jit
def _finish(state, traces, known):
    """Results, and the mixtures one EM step on without a ridge: the sums are there, so it costs no pass over data."""

    def one(lane, trace, known):
        return result_of(lane, trace), m_step(lane.best.moments, lane.best.gmm, known=known)

    return jax.vmap(one)(state, traces, known)


def restarts_of(lanes, data, inits, raced) -> Restarts:
    """What the lanes have found, judged, and mapped back to the units of the data."""
    state, trace = lanes.look()
    known = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (lanes.n_lanes, *leaf.shape)), data.inner.known)
    results, after = jax.tree.map(np.asarray, _finish(state, trace, known))
    ranked = results._replace(log_likelihood=state.best_value)  # with a prior, the log posterior
    lane, of_lane = distinct(ranked, data.inner, data.n_samples)
    gmms = pick(results.gmm, lane)
    reason = np.full(lane.shape, "", object)
    if data.prior is None:
        reason = reasons(gmms, pick(after, lane), data.inner, data.spread, data.n_samples)
    spurious = reason != ""
    best = _best_lane(ranked, lane[~spurious], lane)
    results = outward(results, data.spec, data.scaling, data.n_samples)
    count = np.bincount(of_lane[of_lane >= 0], minlength=lane.size)
    log_likelihood = results.log_likelihood[lane]
    optima = Optima(pick(results.gmm, lane), log_likelihood, count, spurious, reason, lane, of_lane)
    flagged = not np.any(lane[~spurious] == best)
    effort = _effort(lanes, results, of_lane[calibration_sample(lanes.n_lanes)] if raced else of_lane)
    why = "" if not flagged or not lane.size else str(reason[0])
    message = _message(results, best, data.scaling, why)
    starts = jax.tree.map(np.asarray, data.scaling.outward(jax.tree.map(np.asarray, inits)))
    return Restarts(pick(results, best), results, optima, message, effort, starts)


def _best_lane(lanes, admissible, optima):
    """The first optimum that is admissible, or else any, or else the highest finite lane."""
    for candidates in (admissible, optima):
        if candidates.size:
            return int(candidates[0])
    finite = np.isfinite(lanes.log_likelihood)
    return int(np.argmax(np.where(finite, lanes.log_likelihood, -np.inf)))


def _effort(lanes, results, of_lane):
    status, spent = results.status, int(lanes.look()[0].n_iter.sum())
    return Effort(
        spent=spent,
        wasted=lanes.computed - spent,
        finished=int(np.sum(~np.isin(status, (Status.MERGED, Status.DROPPED, Status.RUNNING)))),
        merged=int(np.sum(status == Status.MERGED)),
        dropped=int(np.sum(status == Status.DROPPED)),
        unseen=unseen(of_lane),
    )


def outward(lanes: EMResult, spec: MixtureSpec, scaling: Scaling, n_samples: float) -> EMResult:
    """Lanes in the units of the data: each sample's log density loses Σ_j log s_j."""
    volume = n_samples * scaling.log_volume
    return lanes._replace(
        gmm=hold_known(scaling.outward(lanes.gmm), spec),
        log_likelihood=(lanes.log_likelihood - volume).astype(scaling.dtype),
        trace=(lanes.trace - volume).astype(scaling.dtype),
    )


def hold_known(gmm: GMM, spec: MixtureSpec) -> GMM:
    """A mixture in NumPy with its known numbers to the last digit, where scaling has rounded them."""
    known = {name: value for name, value in vars(spec.known).items() if value is not None}
    held = {name: np.where(np.isnan(v), getattr(gmm, name), v.astype(gmm.means.dtype)) for name, v in known.items()}
    return replace(gmm, **held)


def _message(lanes, best, scaling, why):
    status = Status(int(lanes.status[best]))
    left = np.isin(lanes.status, (Status.MERGED, Status.DROPPED))
    failed = int(np.sum(~eligible(lanes) & ~left))
    sentences = [status.advice]
    if failed and failed < lanes.status.size:
        sentences.append(f"{failed} of {lanes.status.size} lanes failed")
    if why == "not stationary":
        sentences.append("no optimum is stationary without regularisation: lower reg_covar or n_components")
    elif why:
        sentences.append(f"every eligible optimum is spurious (the best has a {why}): lower n_components")
    sentences += scaling.remarks
    return "; ".join(sentences) + "."
