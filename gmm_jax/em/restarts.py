"""Many starts at once, every lane kept: the best optimum, and the landscape of the others.

Entry points: they check, centre and scale the data, run the lanes, judge the optima, and map everything back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import (
    GMM,
    Hyperparameters,
    MixtureSpec,
    Status,
    distinguished,
)
from ..mixture.files import Keeper, checkpoint_path, digest, read_checkpoint
from .fit import EMConfig, EMResult, result_of
from .inputs import Data, check_options, outward, prepare, stack, starts_of
from .lanes import Lanes, begin_lanes
from .m_step import m_step
from .optima import Optima, Unseen, distinct, eligible, pick, reasons, unseen
from .race import calibration_sample
from .race import race as run_race
from .shares import SharedLanes, begin_shared, n_shares


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
    fits: EMResult  # every start's fit, leading axis R
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
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
    config: EMConfig = EMConfig(),
    prior: Hyperparameters | None = None,
    race: bool = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[int, int, float], None] | None = None,
) -> Restarts:
    """EM from n_restarts starts on every core, many at a time, or few on much data one by one; every lane is kept.

    x is checked, centred and scaled here in float64, and everything is mapped back: fits are affine equivariant, and
    config.reg_covar=None means 1e-6 of each feature's variance. Eligible for best are lanes that CONVERGED or reached
    MAX_ITER; among them an admissible one (see `inadmissible`) is preferred, because a mixture's likelihood is
    unbounded. If no lane is eligible, best is the highest finite lane with its failing status.

    Args:
        init: a name (random, random_points, kmeans++, kmeans), a start function (key, x, spec) -> GMM that sees
            standardised data, or a GMM in the units of the data (one, or with a leading axis for each restart).
        sample_weight: counts a row so many times; rows of weight 0 are left out.
        labels: the component of each row, -1 where unknown: component k is then class k, and starts have its mean at
            that of its labelled rows. `match` and relabelling would undo this order: leave components as they are.
        missing: "marginalise" takes NaN in x as missing at random: each row has the density of what was seen of it.
            None: NaN is an error.
        prior: raise the log posterior under this prior, in the units of x (`bayes.hyperparameters`): see fit_em. Lanes
            are then ranked by it, and no optimum is called spurious: none is singular.
        race: stop lanes that follow another (status MERGED) or are too low to win (DROPPED): the same best fit sooner,
            but a thinner landscape. `optima` count only lanes that were run to their end. Lanes that are run one by one
            do not race.
        checkpoint: a file that is written every few seconds and at the end. Not for a race, which looks at lanes and
            keeps none.
        resume: go on from that file; all other arguments are those it was written with. The answer is that of a fit
            that was never interrupted.
        progress: called between chunks with (lanes done, lanes, best log-likelihood so far, -inf if none is finite).

    Raises:
        Interrupted: at Ctrl-C during the iterations, with every lane as far as it came.
        ValueError: bad data, spec, weights or options; the sentence names argument, value, place and remedy.
    """
    check_options(n_restarts, config)
    file = checkpoint_path(checkpoint, resume=resume)
    if race and file is not None:
        raise ValueError("a race keeps no checkpoint: leave checkpoint out, or race.")
    data = prepare(x, spec, sample_weight, config, prior, labels=labels, missing=missing)
    inits = starts_of(key, data, init, n_restarts)
    if (division := n_shares(data, n_restarts)) > 1:
        lanes, race = begin_shared(data, inits, division), False
    else:
        lanes = begin_lanes(stack([data]), jax.tree.map(lambda leaf: leaf[None], inits))
    keeper = Keeper(file, {} if file is None else _marks(data, inits, division))
    if resume:
        lanes.kept = read_checkpoint(file, lanes.kept, keeper.fingerprint)
    interrupted = run_lanes(lanes, [data], race=race, progress=progress, keep=keeper.keep)
    found = restarts_of(*lanes.look(), data, inits, lanes.computed, raced=race)
    if interrupted:
        raise Interrupted(found)
    return found


def _marks(data, inits, division):
    """What a checkpoint belongs to, part by part; `division`: of each sum among cores."""
    return {
        "data": digest(data.z, data.annotations),
        "spec or options": digest(data.inner.known, data.config, data.prior),
        "starts": digest(inits),
        "number of cores": digest(division),
    }


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during restarts: `.restarts` holds every lane as far as it came."""

    def __init__(self, restarts: Restarts):
        super().__init__("interrupted; the lanes as far as they came are in .restarts")
        self.restarts = restarts


def run_lanes(lanes: Lanes | SharedLanes, data: Sequence[Data], *, race: bool, progress=None, keep=None) -> bool:
    """All lanes to their end, or as far as Ctrl-C lets them: whether it came. `keep` is a Keeper's."""
    keep = Keeper(None, {}).keep if keep is None else keep

    def finish(lanes, which, *until):
        done = False
        while not done:
            done = lanes.advance(which, *until)
            keep(lambda: lanes.kept)
            if progress is not None:
                values = lanes.look()[0].best_value
                best = np.where(np.isfinite(values), values, -np.inf).max()
                progress(lanes.n_lanes - lanes.running.size, lanes.n_lanes, float(best - data[0].volume))

    def admissible():
        if data[0].prior is not None:
            return np.ones(lanes.n_lanes, bool)
        return reasons(lanes.look()[0].best.gmm, None, data[0].inner, *spread_of_lanes(lanes, data)) == ""

    try:
        if race:
            run_race(lanes, distinguished(data[0].inner, data[0].annotations.labels), admissible, finish)
        finish(lanes, lanes.running)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    keep(lambda: lanes.kept, at_once=True)
    return interrupted


def spread_of_lanes(lanes, data):
    """The covariance of each lane's data set, (P·R, D, D), and its total weight, (P·R, 1)."""
    each = np.repeat(np.arange(len(data)), lanes.n_starts)
    return np.stack([d.spread for d in data])[each], np.array([d.n_samples for d in data])[each, None]


@jax.jit
def results_of(state, traces, known):
    """Results, and the mixtures one EM step on without a ridge: the sums are there, so it costs no pass over data."""

    def one(lane, trace, known):
        return result_of(lane, trace), m_step(lane.best.moments, lane.best.gmm, known=known)

    return jax.vmap(one)(state, traces, known)


def restarts_of(state, trace, data, inits, computed, *, raced=False) -> Restarts:
    """What the lanes of one data set found, in its units; `computed` lane-iterations went into them."""
    n_lanes = state.n_iter.size
    known = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (n_lanes, *leaf.shape)), data.inner.known)
    results, after = jax.tree.map(np.asarray, results_of(state, trace, known))
    ranked = results._replace(log_likelihood=state.best_value)  # with a prior, the log posterior
    lane, of_fit = distinct(ranked, distinguished(data.inner, data.annotations.labels), data.n_samples)
    gmms = pick(results.gmm, lane)
    reason = np.full(lane.shape, "", object)
    if data.prior is None:
        reason = reasons(gmms, pick(after, lane), data.inner, data.spread, data.n_samples)
    spurious = reason != ""
    best = _best_lane(ranked, lane[~spurious], lane)
    results = outward(results, data.spec, data.scaling, data.volume)
    count = np.bincount(of_fit[of_fit >= 0], minlength=lane.size)
    log_likelihood = results.log_likelihood[lane]
    optima = Optima(pick(results.gmm, lane), log_likelihood, count, spurious, reason, lane, of_fit)
    flagged = not np.any(lane[~spurious] == best)
    spent = int(state.n_iter.sum())
    effort = _effort(spent, computed, results, of_fit[calibration_sample(n_lanes)] if raced else of_fit)
    why = "" if not flagged or not lane.size else str(reason[0])
    message = _message(results, best, data.scaling, why)
    starts = jax.tree.map(np.asarray, data.scaling.outward(inits))
    return Restarts(pick(results, best), results, optima, message, effort, starts)


def _best_lane(lanes, admissible, optima):
    """The first optimum that is admissible, or else any, or else the highest finite lane."""
    for candidates in (admissible, optima):
        if candidates.size:
            return int(candidates[0])
    finite = np.isfinite(lanes.log_likelihood)
    return int(np.argmax(np.where(finite, lanes.log_likelihood, -np.inf)))


def _effort(spent, computed, results, of_fit):
    status = results.status
    return Effort(
        spent=spent,
        wasted=computed - spent,
        finished=int(np.sum(~np.isin(status, (Status.MERGED, Status.DROPPED, Status.RUNNING)))),
        merged=int(np.sum(status == Status.MERGED)),
        dropped=int(np.sum(status == Status.DROPPED)),
        unseen=unseen(of_fit),
    )


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
