"""EM for rows that come by once: steps that decay, and the average of all iterates.

With s̄_t the mean sums of batch t under θ_{t−1}: S_t = (1 − γ_t) S_{t−1} + γ_t s̄_t, θ_t = m_step(S_t),
γ_t = (t + t₀)^−α with ½ < α < 1. The average of θ_1 … θ_T is as exact as maximum likelihood on all rows, to first order
(Polyak & Juditsky 1992, SIAM J. Control Optim. 30). Sums are moved along with the means that they are about, and never
taken about the origin.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..mixture import GMM, ONE_AT_A_TIME, Known, MixtureSpec, Status, project, standardise, validate_spec
from ..mixture.blocks import Blocks, ahead, cut, read_blocks
from ..mixture.checks import check_count, check_key
from ..mixture.covariance import positive, structure
from ..mixture.files import Keeper, checkpoint_path, digest, read_checkpoint
from ..mixture.moments import Moments, e_step, moved
from .fit import EMConfig, EMState, map_of
from .inputs import check_options, hold_known, starts_inward
from .m_step import m_step
from .restarts import search_on

BATCHES = 50  # steps taken by one call of a compiled program


class Online(NamedTuple):
    """The fit of one pass, in the units and dtype of the data."""

    gmm: GMM  # the average of the iterates: the estimate
    last: GMM  # the last iterate, which forgets: better where the rows drift
    predictive: float  # mean of log p(x_n | rows before it), nats: rows are scored before they are learnt from
    n_samples: float  # total weight of the rows
    status: Status  # MAX_ITER, or what is wrong with the last iterate
    message: str


class OnlineInterrupted(KeyboardInterrupt):
    """Ctrl-C during the pass: `.online` is the fit of the rows before it."""

    def __init__(self, online: Online):
        super().__init__("interrupted; the fit of the rows so far is in .online")
        self.online = online


def fit_em_online(
    key: Key[Array, ""],
    blocks: Blocks,
    spec: MixtureSpec,
    *,
    init: str | Callable | GMM = "kmeans++",
    n_restarts: int = 10,
    n_first: int = 10_000,
    batch_rows: int = 500,
    decay: float = 0.6,
    config: EMConfig = EMConfig(),
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> Online:
    """Online EM in one pass: `blocks` is called once, and no row is kept.

    The first n_first rows give centre and scale, and the best of n_restarts fits to them is where the steps begin, with
    t₀ = (their number) / batch_rows. Rows should come in random order: sorted ones mislead every one-pass method.

    Args:
        blocks: as in fit_em_restarts; it may be a source that can be read only once.
        init: as in fit_em_restarts, on the first rows; a GMM in the units of the data is where the steps begin.
        batch_rows: rows a step.
        decay: α, between ½ and 1; larger is calmer and slower.
        config: of the fits to the first rows; its reg_covar is that of every step.
        checkpoint: a file that is written every few seconds and at the end.
        resume: go on from that file: blocks() begins again with the rows that it then began with, and those that were
            learnt from are passed over. All other arguments are those it was written with.

    Raises:
        ValueError: bad data, spec or options; the sentence names block and row.
        OnlineInterrupted: at Ctrl-C during the pass.

    Reference:
        Cappé & Moulines (2009), On-line expectation-maximization algorithm for latent data models, JRSS B 71.
    """
    check_key(key)
    check_options(n_restarts, config)
    if not 0.5 < decay < 1.0:
        raise ValueError(f"decay must lie between 0.5 and 1, both excluded; got {decay!r}: 0.6 is a good start.")
    check_count(n_first, "n_first")
    check_count(batch_rows, "batch_rows")
    file = checkpoint_path(checkpoint, resume=resume)
    x, weight, rest = _head(read_blocks(blocks), n_first)
    spec = validate_spec(spec, x.shape[1])
    z, scaling = standardise(x, spec, weight)
    scaling = scaling._replace(constant=())  # a column may only begin by being constant
    if not isinstance(init, GMM):
        init = search_on(key, x, weight, None, spec, init=init, n_restarts=n_restarts, config=config).best.gmm
    start = jax.tree.map(lambda leaf: leaf[0].astype(z.dtype), starts_inward(init, spec, scaling, 1))
    weight = (np.ones(len(x)) if weight is None else weight).astype(z.dtype)
    numbers = scaling.ridge_inward(config.reg_covar), decay, np.sum(weight) / batch_rows
    settings = _Settings(scaling.known_inward(spec), *(np.asarray(value, z.dtype) for value in numbers))
    learnt = _Learnt(_begin(settings, start, z, weight), *np.zeros(3))
    marks = {"first rows": digest(z, weight), "spec or options": digest(settings, batch_rows), "start": digest(start)}
    keeper = Keeper(file, marks)
    if resume:
        learnt = read_checkpoint(file, learnt, marks)
    pieces = cut(((*rows, None) for rows in rest), scaling, batch_rows * BATCHES, z.dtype)
    learnt, interrupted = _learn(settings, learnt, islice(pieces, int(learnt.n_pieces), None), batch_rows, keeper)
    found = _found(settings, learnt, float(np.sum(weight, dtype=float)), spec, scaling)
    if interrupted:
        raise OnlineInterrupted(found)
    return found


# ---- the steps


class _Settings(NamedTuple):
    known: Known  # in standardised units, like all the rest
    ridge: Float[Array, "D"]
    decay: Float[Array, ""]  # α
    delay: Float[Array, ""]  # t₀


class _State(NamedTuple):
    gmm: GMM  # θ_t
    sums: Moments  # S_t, about the means of θ_t; the masses add up to 1
    average: GMM  # of θ_1 … θ_t
    n_steps: Float[Array, ""]  # t; a batch with fewer rows counts in proportion


class _Learnt(NamedTuple):
    """The state after the rows so far, and the score of those that came after the first."""

    state: _State
    score: Float[np.ndarray, ""]  # log-likelihood of the rows after the first, each before it was learnt from
    n_scored: Float[np.ndarray, ""]  # their total weight
    n_pieces: Float[np.ndarray, ""]  # pieces of BATCHES batches that are done


def _learn(settings, learnt, pieces, batch_rows, keeper):
    """All pieces, or as many as Ctrl-C lets come: what was learnt, and whether it came."""
    interrupted = True
    with suppress(KeyboardInterrupt):
        for block, counts, *_ in ahead(pieces):
            batches = block.reshape(-1, batch_rows, block.shape[1]), counts.reshape(-1, batch_rows)
            state, gained = _steps(settings, learnt.state, *batches)
            n_scored = learnt.n_scored + np.sum(counts, dtype=float)
            learnt = _Learnt(state, learnt.score + float(gained), n_scored, learnt.n_pieces + 1)
            keeper.keep(lambda learnt=learnt: learnt)
        interrupted = False
    keeper.keep(lambda: learnt, at_once=True)
    return learnt, interrupted


@jax.jit
def _begin(settings, start, z, weight):
    """S_0 and θ_0 from the first rows."""
    gmm = project(start, settings.known)
    sums = jax.tree.map(lambda leaf: leaf / jnp.sum(weight), e_step(gmm, z, weight, sums="exact"))
    return _State(gmm, sums, gmm, jnp.zeros((), z.dtype))


@partial(jax.jit, compiler_options=ONE_AT_A_TIME)
def _steps(settings, state, z: Float[Array, "T N D"], weight: Float[Array, "T N"]):
    """(state after T batches, log-likelihood of their rows, each batch under the mixture before it)."""

    def step(state, batch):
        rows, counts = batch
        total = jnp.sum(counts)
        part = total / counts.shape[0]  # of a batch: it makes the first whole one's step at most, which is below 1
        new = e_step(state.gmm, rows, counts, sums="exact")
        n_steps = state.n_steps + part
        kept = (1.0 - (jnp.maximum(n_steps, 1.0) + settings.delay) ** -settings.decay) ** part
        gain = (1.0 - kept) / positive(total)
        sums = jax.tree.map(lambda old, new: kept * old + gain * new, state.sums, new)
        gmm = m_step(sums, state.gmm, known=settings.known, reg_covar=settings.ridge)
        sums = moved(sums, gmm.covariance_type, gmm.means - state.gmm.means)
        average = jax.tree.map(lambda mean, leaf: mean + part / positive(n_steps) * (leaf - mean), state.average, gmm)
        return _State(gmm, sums, average, n_steps), new.log_likelihood

    state, gained = jax.lax.scan(step, state, (z, weight))
    return state, jnp.sum(gained)


@jax.jit
def _fault(settings, state, total):
    """The Status of the last iterate: RUNNING where nothing is wrong with it."""
    gmm = state.gmm
    sums = jax.tree.map(lambda leaf: leaf * total, state.sums)
    state = EMState(gmm, structure(gmm.covariance_type).whitener(gmm.covariances), sums, jnp.zeros_like(total))
    return map_of(lambda gmm: gmm, total, settings.known, EMConfig(), None)[0].fault(state)


# ---- before and after


def _head(rows, n_first):
    """(the first n_first rows, their weights or None, an iterator of all others)."""
    parts, n = [], 0
    while n < n_first and (part := next(rows, None)) is not None:
        parts.append(part)
        n += len(part[0])
    if not parts:
        raise ValueError("blocks() yields no rows of positive weight: it needs one for each sample.")
    x, weight = (None if some[0] is None else np.concatenate(some) for some in zip(*parts, strict=True))
    first, over = ((x[part], None if weight is None else weight[part]) for part in (slice(n_first), slice(n_first, n)))
    return *first, chain([over], rows)


def _found(settings, learnt, n_first, spec, scaling):
    state, n_scored, n_samples = learnt.state, float(learnt.n_scored), n_first + float(learnt.n_scored)
    predictive = float(learnt.score) / n_scored - scaling.log_volume if n_scored else float("nan")
    fault = int(_fault(settings, state, np.asarray(n_samples, settings.decay.dtype)))
    average, last = (hold_known(scaling.outward(gmm), spec) for gmm in (state.average, state.gmm))
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((average, last)))
    status = Status(fault) if fault else Status.MAX_ITER if finite else Status.NON_FINITE
    message = f"one pass over {n_samples:.10g} samples." if status.ok else f"{status.advice}."
    return Online(average, last, predictive, n_samples, status, message)
