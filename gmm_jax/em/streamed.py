"""EM on rows that need not fit into memory: one pass over them an iteration, and the answer of fit_em.

The loop runs on the host, around the same `ask` and `tell` as every other loop; only the sum is taken elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ..mixture import (
    GMM,
    Hyperparameters,
    Known,
    MixtureSpec,
    Moments,
    Status,
    Way,
    project,
    statistics_allowed,
    structure,
    validate_spec,
)
from .checkpoint import checkpoint_path, digest, read_checkpoint, write_checkpoint
from .fit import EMConfig, EMResult, EMState, map_of, result_of
from .fixed_point import Progress, ask, begin, tell
from .inputs import check_options, outward, starts_inward
from .optima import pick
from .restarts import Restarts, fit_em_restarts
from .sums import open_stream
from .survey import Blocks, survey

SECONDS_BETWEEN_CHECKPOINTS = 5.0


class Streamed(NamedTuple):
    """One fit to a stream, in the units and dtype of the data."""

    best: EMResult
    message: str  # how it ended, in a sentence: its status, and columns without spread
    n_samples: float  # total weight of the rows
    search: Restarts | None  # what was found on the sample, where the start was looked for


class StreamInterrupted(KeyboardInterrupt):
    """Ctrl-C during a streamed fit: `.streamed` holds the last iterate, with status RUNNING."""

    def __init__(self, streamed: Streamed):
        super().__init__("interrupted; the last iterate is in .streamed")
        self.streamed = streamed


def fit_em_stream(
    key: Key[Array, ""],
    blocks: Blocks,
    spec: MixtureSpec,
    *,
    init: str | Callable | GMM = "kmeans++",
    n_restarts: int = 10,
    n_sample: int = 10_000,
    config: EMConfig = EMConfig(),
    prior: Hyperparameters | None = None,
    block_rows: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> Streamed:
    """EM over blocks of rows, one pass an iteration, from the best of n_restarts fits to a sample of the rows.

    A first pass checks every value, finds centre and scale, and draws the sample; then all is as in fit_em_restarts,
    with the same statuses and the same rule of stopping. Sums are added in float64, also where data are float32.

    Args:
        blocks: a function without arguments that yields the same blocks (N_b, D) at every call, or pairs
            (block, weights of its rows); `problems.open_blocks(path)` makes one of a file.
        init: as in fit_em_restarts; it is tried on the sample. A GMM in the units of the data is where EM begins.
        n_sample: rows in the sample, drawn uniformly: all of them where there are no more.
        block_rows: rows that are summed at a time, by default a million numbers.
        checkpoint: a file that is written every few seconds and at the end, so that little is lost by a crash.
        resume: go on from that file. Data, spec, start and config must be those that it was written with, except
            config.max_iter. The answer is that of a fit that was never interrupted.
        progress: called after each iteration with its number and the mean log-likelihood of a sample.

    Raises:
        ValueError: bad data, spec or options; a stream that changes between passes; a checkpoint that belongs to
            another fit. The sentence names block, row or file.
        StreamInterrupted: at Ctrl-C during the iterations.
    """
    check_options(n_restarts, config)
    for name, value, least in (("n_sample", n_sample, spec.n_components), ("block_rows", block_rows or 1, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
    file = checkpoint_path(checkpoint, resume=resume)
    seen = survey(blocks, np.random.default_rng(np.asarray(jax.random.key_data(key))), n_sample)
    spec = validate_spec(spec, seen.columns.mean.size)
    stream = open_stream(blocks, seen, spec, block_rows)
    problem = _problem(stream, spec, config, prior)
    marks = _marks(key, seen, spec, config, prior, init, (n_restarts, n_sample))
    search = None
    if resume:
        journey = _resumed(read_checkpoint(file, _shape_of(problem, spec), marks), config)
    else:
        options = {"n_restarts": n_restarts, "config": config, "prior": prior}
        start, search = start_on(key, seen.sample, seen.sample_weight, spec, stream.scaling, init, **options)
        journey = _depart(stream, problem, start)

    def look(journey):
        if progress is not None:
            mean = journey.trace[-1] / seen.columns.n_samples
            progress(int(journey.progress.n_iter), float(mean - stream.scaling.log_volume))

    journey, interrupted = _travel(stream, problem, journey, look, partial(_keep, file, marks))
    found = _found(journey, stream, spec, config, search)
    if interrupted:
        raise StreamInterrupted(found)
    return found


# ---- the loop


class _Problem(NamedTuple):
    """What the map depends on beside the sums."""

    total: Float[Array, ""]  # number of samples
    known: Known  # in standardised units, like all the rest
    config: EMConfig
    prior: Hyperparameters | None


class _Journey(NamedTuple):
    progress: Progress
    trace: Float[np.ndarray, "n"]  # of the start and of every iteration so far
    exact: np.ndarray  # bool: whether sums are taken from deviations


def _depart(stream, problem, start):
    gmm, whitener = _place(problem, start)
    state = EMState(gmm, whitener, _sum(stream, gmm, whitener, "deviations"))
    progress = jax.tree.map(np.asarray, _begin(problem, state))
    return _Journey(progress, progress.value[None], np.asarray(not statistics_allowed(progress.value.dtype)))


def _travel(stream, problem, journey, look, keep):
    """To the end, or as far as Ctrl-C lets it: the journey, and whether it came."""
    kept = time.monotonic()
    try:
        while journey.progress.status == Status.RUNNING:
            journey = _iterate(stream, problem, journey)
            look(journey)
            if time.monotonic() - kept >= SECONDS_BETWEEN_CHECKPOINTS:
                keep(journey)
                kept = time.monotonic()
    except KeyboardInterrupt:
        keep(journey)
        return journey, True
    keep(journey)
    return journey, False


def _iterate(stream, problem, journey):
    """One pass over the rows. A step that statistics cannot take is taken again from deviations."""
    way = "deviations" if journey.exact else "statistics"
    gmm, whitener, plain, memory = _ask(problem, journey.progress, way=way)
    state = EMState(gmm, whitener, _sum(stream, gmm, whitener, way))
    progress = jax.tree.map(np.asarray, _tell(problem, journey.progress, state, plain, memory, way=way))
    trace = np.append(journey.trace[: progress.n_iter], progress.value)
    if progress.status == Status.NARROW:
        return _Journey(progress._replace(status=np.int32(Status.RUNNING)), trace, np.asarray(True))
    return _Journey(progress, trace, journey.exact)


def _sum(stream, gmm, whitener, way):
    return jax.tree.map(lambda leaf: leaf.astype(gmm.means.dtype), stream.moments(gmm, whitener, way))


def _map(problem, way):
    return map_of(lambda gmm: gmm, *problem, way)


@jax.jit
def _place(problem, start):
    """The start with known parts put in, and its whitener."""
    gmm = project(start, problem.known)
    return gmm, structure(gmm.covariance_type).whitener(gmm.covariances)


@jax.jit
def _begin(problem, state):
    mapping, rule = _map(problem, "deviations")
    return begin(mapping, state, rule)


@partial(jax.jit, static_argnames="way")
def _ask(problem, progress, way: Way):
    gmm, plain, memory = ask(_map(problem, way)[0], progress)
    return gmm, structure(gmm.covariance_type).whitener(gmm.covariances), plain, memory


@partial(jax.jit, static_argnames="way")
def _tell(problem, progress, state, plain, memory, way: Way):
    mapping, rule = _map(problem, way)
    return tell(mapping, progress, rule, state, plain, memory)


_result = jax.jit(result_of)


# ---- before and after


def _problem(stream, spec, config, prior):
    scaling, n_samples = stream.scaling, stream.survey.columns.n_samples
    if n_samples < spec.n_components:
        raise ValueError(
            f"{stream.survey.name} counts {n_samples:.6g} samples, fewer than n_components={spec.n_components}: lower "
            "n_components or add data."
        )
    dtype = jax.dtypes.canonicalize_dtype(scaling.dtype)
    ridge = scaling.ridge_inward(config.reg_covar).astype(dtype)
    return _Problem(
        np.asarray(n_samples, dtype),
        scaling.known_inward(spec),
        replace(config, reg_covar=ridge, tol=np.asarray(config.tol, dtype)),
        None if prior is None else scaling.prior_inward(prior, spec.covariance_type),
    )


def start_on(key, x, weight, spec, scaling, init, **options) -> tuple[GMM, Restarts | None]:
    """Where EM begins, standardised: `init` if it is a GMM, or the best of restarts on the rows x, and that search."""
    search = None
    if not isinstance(init, GMM):
        search = fit_em_restarts(key, x, spec, init=init, sample_weight=weight, **options)
        if not Status(int(search.best.status)).ok:
            raise ValueError(f"no start could be found on {len(x)} rows: {search.message}")
        init = search.best.gmm
    start = pick(starts_inward(init, spec, scaling, 1), 0)
    dtype = jax.dtypes.canonicalize_dtype(scaling.dtype)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), start), search


def _found(journey, stream, spec, config, search):
    scaling, n_samples = stream.scaling, stream.survey.columns.n_samples
    trace = np.full(config.max_iter + 1, np.nan, journey.trace.dtype)
    trace[: journey.trace.size] = journey.trace
    result = jax.tree.map(np.asarray, _result(journey.progress, trace))
    sentences = [Status(int(result.status)).advice, *scaling.remarks]
    result = outward(result, spec, scaling, n_samples * scaling.log_volume)
    return Streamed(result, "; ".join(sentences) + ".", n_samples, search)


# ---- checkpoints


def _keep(file, marks, journey):
    if file is not None:
        write_checkpoint(file, journey, marks)


def _marks(key, seen, spec, config, prior, init, search):
    """What a checkpoint belongs to, part by part."""
    options = replace(config, max_iter=0, reg_covar=0.0 if config.reg_covar is None else config.reg_covar)
    begun = init if isinstance(init, (str, GMM)) else getattr(init, "__qualname__", repr(init))
    return {
        "data": digest(seen.checksum, seen.columns.n_rows, seen.columns.low.size),
        "spec": digest(spec.n_components, spec.covariance_type, spec.known, prior),
        "config": digest(options, config.reg_covar is None),
        "key or start": digest(np.asarray(jax.random.key_data(key)), begun, search),
        "precision": str(jax.dtypes.canonicalize_dtype(seen.dtype)),
    }


def _shape_of(problem, spec):
    """A journey's structure, without its numbers."""
    n_features, dtype = problem.config.reg_covar.size, problem.total.dtype
    shape = structure(spec.covariance_type).shape(spec.n_components, n_features)
    mass, first, second = (np.zeros(s, dtype) for s in ((spec.n_components,), (spec.n_components, n_features), shape))
    gmm = GMM(mass, first, second, spec.covariance_type)
    progress = jax.eval_shape(_begin, problem, EMState(gmm, second, Moments(mass, first, second, problem.total)))
    return _Journey(progress, problem.total, problem.total)


def _resumed(journey, config):
    """A fit that came to its last iteration goes on where it is allowed more."""
    if journey.progress.n_iter > config.max_iter:
        raise ValueError(f"the checkpoint has {journey.progress.n_iter} iterations: config.max_iter must allow them.")
    more = journey.progress.status == Status.MAX_ITER and journey.progress.n_iter < config.max_iter
    status = np.int32(Status.RUNNING) if more else journey.progress.status
    return journey._replace(progress=journey.progress._replace(status=status))
