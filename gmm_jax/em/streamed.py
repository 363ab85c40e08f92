"""EM on rows that need not fit into memory: one pass over them an iteration, and the answer of fit_em."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from ..mixture import (
    GMM,
    Hyperparameters,
    MixtureSpec,
    Moments,
    Status,
    structure,
    validate_spec,
)
from ..mixture.files import Keeper, checkpoint_path, digest, read_checkpoint
from .fit import EMConfig, EMResult, result_of
from .host_loop import Journey, Problem, begin_journey, depart, iterations
from .inputs import check_options, outward, starts_inward
from .optima import pick
from .restarts import Restarts, fit_em_restarts
from .sums import open_stream
from .survey import Blocks, survey


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
        journey = depart(stream, problem, start)

    def look(journey):
        if progress is not None:
            mean = journey.trace[-1] / seen.columns.n_samples
            progress(int(journey.progress.n_iter), float(mean - stream.scaling.log_volume))

    journey, interrupted = _travel(stream, problem, journey, look, Keeper(file, marks))
    found = _found(journey, stream, spec, config, search)
    if interrupted:
        raise StreamInterrupted(found)
    return found


def _travel(stream, problem, begun, look, keeper):
    """To the end, or as far as Ctrl-C lets it: the journey, and whether it came."""
    journey, interrupted = begun, False
    try:
        for journey in iterations(stream, problem, begun):
            look(journey)
            keeper.keep(lambda journey=journey: journey)
    except KeyboardInterrupt:
        interrupted = True
    keeper.keep(lambda: journey, at_once=True)
    return journey, interrupted


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
    return Problem(
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
    parts = [Moments(mass, first, second, problem.total)]
    progress, asked = jax.eval_shape(partial(begin_journey, sums="exact"), problem, gmm, second, parts)
    return Journey(progress, asked, problem.total, problem.total)


def _resumed(journey, config):
    """A fit that came to its last iteration goes on where it is allowed more."""
    if journey.progress.n_iter > config.max_iter:
        raise ValueError(f"the checkpoint has {journey.progress.n_iter} iterations: config.max_iter must allow them.")
    more = journey.progress.status == Status.MAX_ITER and journey.progress.n_iter < config.max_iter
    status = np.int32(Status.RUNNING) if more else journey.progress.status
    return journey._replace(progress=journey.progress._replace(status=status))
