"""Which starts deserve more work: a race that stops fits, and swaps that make new ones of the best.

**Race.** Fits that cannot win, or that follow another, are not run to their end. Run short, look, keep, finish, in the
spirit of em-EM. A fit leaves when it is on the way to an optimum that another fit of its data set leads to (MERGED), or
when even twice the largest gain that any finished fit made from the same iteration on would leave it below the best
(DROPPED). A fixed random sample of fits never leaves: it calibrates that gain, and what is said of the basins rests on
it alone. Each data set has a race of its own; arrays are (P, R), data sets by starts.

**Swaps.** Where a component is missing in one place and one too many is in another, no step of EM mends it. New starts
are the best fit with one component put elsewhere: one whose samples the others explain best goes, to a sample that the
fit explains badly. After a short EM the best tenth is run to its end; what is worth more than the best fit takes its
place, until forty swaps in a row found nothing.

References:
    Biernacki, Celeux & Govaert (2003), Computational Statistics & Data Analysis 41, for em-EM.
    Zhao, Hautamäki, Kärkkäinen & Fränti (2012), Random swap EM algorithm for Gaussian mixture models, Pattern
    Recognition Letters 33.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ..mixture import GMM, MixtureSpec, Status, distinguished, free_parts, structure
from ..mixture.annotations import pad, padded_size
from ..mixture.gmm import deviations, log_joint_components_first
from .criterion import SAME_WORTH, Ranking
from .inputs import START_ROWS, Data
from .optima import pick, same_mixture
from .pool import CompiledFits

FIRST = 4  # iterations before the first look; the next looks are at 12, 36, ...
FACTOR = 3
LEADERS = 3  # fits, at most a tenth, that are finished after the first look: others must have what to fall short of
SETTLED = 1.0  # nats that a fit may still gain, by Aitken's estimate, if others are to follow it
SAFETY = 2.0  # times the largest gain seen that a fit is given credit for
SHORT = 20  # iterations after which swaps are compared
KEPT = 10  # one of so many is then run to its end
PATIENCE = 40  # swaps without success after which a search ends
MOST_ROUNDS = 50


def run_race(fits: CompiledFits, spec: MixtureSpec, worth: Callable[[], tuple], finish: Callable) -> None:
    """Run the fits until each has ended or left.

    `worth()` is by what fits are ranked, as they are, and which of them are spurious. `finish(fits, which, until)` runs
    fits to that iteration, without it to their end. The fits keep the objective at least after the iterations
    `kept_by_race`.
    """
    stays = np.isin(np.arange(fits.n_starts), calibration_sample(fits.n_starts))[None]
    finish(fits, fits.running, FIRST)
    _merge(fits, stays, spec, FIRST)
    finish(fits, np.flatnonzero(stays | _leaders(fits)))
    reached = FIRST
    while fits.running.size:
        _drop(fits, stays, reached, *worth())
        _merge(fits, stays, spec, reached)
        reached *= FACTOR
        finish(fits, fits.running, reached)


def kept_by_race(max_iter: int) -> Int[np.ndarray, "C"]:
    """The iterations whose objective a race reads: its looks, and the two before each."""
    looks = [0, FIRST]
    while looks[-1] < max_iter:
        looks.append(looks[-1] * FACTOR)
    near = np.unique(np.concatenate([np.array(looks) - back for back in range(3)]))
    return near[(near >= 0) & (near <= max_iter)]


def calibration_sample(n_starts: int) -> Int[np.ndarray, "C"]:
    """A twentieth of the fits, at least five or a tenth: the same fits for the same number of them."""
    size = max(1, min(5, n_starts // 10), n_starts // 20)
    return np.sort(np.random.default_rng(n_starts).permutation(n_starts)[:size])


def _by_data_set(fits, leaf):
    """(P·R, ...) as (P, R, ...)."""
    return leaf.reshape(-1, fits.n_starts, *leaf.shape[1:])


def _values(fits):
    """The objectives, -inf where a fit has none."""
    values = fits.look()[0].best_value
    return _by_data_set(fits, np.where(np.isfinite(values), values, -np.inf))


def _leaders(fits):
    rank = np.argsort(np.argsort(-_values(fits), axis=1, kind="stable"), axis=1)
    return rank < max(1, min(LEADERS, fits.n_starts // 10))


def _drop(fits, stays, reached, worth, spurious):
    state, values = fits.look()[0], _values(fits)
    status, n_iter = _by_data_set(fits, state.status), _by_data_set(fits, state.n_iter)
    finished = np.isin(status, (Status.CONVERGED, Status.MAX_ITER)) & (n_iter >= reached)
    gains = values - _by_data_set(fits, fits.values_after(reached))
    gained = np.max(np.where(finished & np.isfinite(gains), gains, -np.inf), axis=1, keepdims=True)
    worth, spurious = _by_data_set(fits, worth), _by_data_set(fits, spurious)
    best = np.where(finished & ~spurious, worth, -np.inf).max(axis=1, keepdims=True)
    hopeless = (status == Status.RUNNING) & ~stays & (worth + SAFETY * gained < best)
    fits.leave(hopeless.ravel(), Status.DROPPED)


def _merge(fits, stays, spec, reached):
    """CompiledFits that are all but at the same optimum follow the highest of them."""
    state, values = fits.look()[0], _values(fits)
    status = _by_data_set(fits, state.status)
    running, rows = status == Status.RUNNING, np.arange(len(status))
    if not running.any():
        return
    gmms = jax.tree.map(lambda leaf: _by_data_set(fits, leaf), state.best.gmm)
    leads = (running & (_remaining(fits, reached) <= SETTLED)) | (status == Status.CONVERGED)
    may_follow = running & ~stays
    follows = np.zeros(status.shape, bool)
    while (open_sets := leads.any(axis=1) & (may_follow & ~follows).any(axis=1)).any():
        leader = np.argmax(np.where(leads, values, -np.inf), axis=1)
        is_leader = (np.arange(fits.n_starts) == leader[:, None]) & open_sets[:, None]
        near = (may_follow & ~follows | leads) & open_sets[:, None] & ~is_leader
        near &= np.abs(values - values[rows, leader, None]) <= 2.0 * SETTLED
        same = same_mixture(gmms, jax.tree.map(lambda leaf, at=leader: leaf[rows, at], gmms), near, spec)
        follows |= same & may_follow
        leads &= ~(same | is_leader)
    fits.leave(follows.ravel(), Status.MERGED)


def _remaining(fits, reached):
    """Aitken's estimate of the gain still to come to a fit that runs, inf where gains do not shrink yet."""
    v, one, two = (_by_data_set(fits, fits.values_after(reached - back)) for back in range(3))
    gain, before = v - one, one - two
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = gain / before
        remaining = np.where((ratio >= 0.0) & (ratio < 1.0), gain * ratio / (1.0 - ratio), np.inf)
    return np.where(np.abs(gain) <= 1e-9 * np.abs(v), 0.0, remaining)


# ---- swaps


class Swapped(NamedTuple):
    """What swaps found: the best fit of each data set, where its gain is not 0."""

    state: tuple | None  # its progress and trace, leading axis P; None where no round was run
    gain: Float[np.ndarray, "P"]  # of the criterion, nats; 0 where nothing was found
    spent: Int[np.ndarray, "P"]  # iterations


def run_swaps(
    seeds: Sequence,
    data: Sequence[Data],
    ranking: Ranking,
    state,
    reason,
    begin: Callable[[GMM], CompiledFits],
    reasons_of: Callable[[tuple], np.ndarray],
) -> Swapped:
    """The best fits of the data sets after rounds of swaps, from those in `state`, equally many of each.

    `begin` makes fits of starts (P, R); `reason` is why a fit of `state` may not be called best, and `reasons_of` says
    it of the new ones. A data set whose fits have not converged, or that has fewer than two components that could go
    elsewhere, is left alone.
    """
    n_sets, n_fits = len(data), state.n_iter.size // len(data)
    shape = n_sets, n_fits

    def sound(state, reason):
        may = (reason == "") & (state.status == Status.CONVERGED)
        return np.where(may, ranking.worth(state.best.gmm, state.best_value, state.status), -np.inf).reshape(shape)

    worth = sound(state, reason)
    top, place = worth.max(axis=1), np.arange(n_sets) * n_fits + worth.argmax(axis=1)
    best, first, found, spent = pick(state.best.gmm, place), top.copy(), None, np.zeros(n_sets, int)
    movable = [movable_components(d) for d in data]
    open_sets = np.isfinite(top) & np.array([m.sum() > 1 for m in movable])
    idle = np.zeros(n_sets, int)
    draws = [np.random.default_rng([*seed.ravel().tolist(), 1]) for seed in seeds]
    for _ in range(MOST_ROUNDS):
        if not open_sets.any():
            break
        starts = [swaps(draws[p], pick(best, p), data[p], movable[p], n_fits) for p in range(n_sets)]
        fits = begin(jax.tree.map(lambda *leaves: np.stack(leaves), *starts))
        fits.leave(np.repeat(~open_sets, n_fits), Status.DROPPED)
        _to_the_end(fits, SHORT)
        now = fits.look()[0]
        early = ranking.worth(now.best.gmm, now.best_value, np.full(now.status.shape, Status.CONVERGED)).reshape(shape)
        early = np.where(np.isin(now.status, (Status.RUNNING, Status.CONVERGED)).reshape(shape), early, -np.inf)
        rank = np.argsort(np.argsort(-early, axis=1, kind="stable"), axis=1)
        dropped = (rank >= max(1, n_fits // KEPT)).ravel() & (now.status == Status.RUNNING)
        fits.leave(dropped, Status.DROPPED)
        _to_the_end(fits)
        now, trace = fits.final()
        spent += now.n_iter.reshape(shape).sum(axis=1)
        worth = sound(now, reasons_of((now, trace)))
        place = np.arange(n_sets) * n_fits + worth.argmax(axis=1)
        better = open_sets & (worth.max(axis=1) > top + SAME_WORTH)
        winners = pick((now, trace), place)
        found = winners if found is None else _where(better, winners, found)
        best, top = _where(better, winners[0].best.gmm, best), np.where(better, worth.max(axis=1), top)
        idle = np.where(better, 0, idle + n_fits)
        open_sets &= idle < PATIENCE
    gain = np.where(np.isfinite(first), top - np.where(np.isfinite(first), first, 0.0), 0.0)
    return Swapped(found, gain, spent)


def movable_components(data: Data) -> Bool[np.ndarray, "K"]:
    """Components of which nothing is known and that no label names: they can be put elsewhere."""
    _, means, covariances = free_parts(distinguished(data.inner, data.annotations.labels))
    named = np.zeros(means.shape, bool)
    if data.annotations.labels is not None:
        labels = np.asarray(data.annotations.labels)
        named[np.unique(labels[labels >= 0])] = True
    return means & (covariances if structure(data.inner.covariance_type).per_component else True) & ~named


def swaps(draw: np.random.Generator, gmm: GMM, data: Data, movable: Bool[np.ndarray, "K"], n: int) -> GMM:
    """n starts, leading axis: the standardised mixture with one component put at a sample, and weights made more even.

    A component goes with probability ∝ exp(−l_k / median l), l_k = −Σ log(1 − r_nk) what the likelihood loses without
    it, to a sample drawn ∝ 1/√p(x); there it has half the data's covariance · K^(−2/D), as a start has.
    """
    rows = data.for_starts
    rows = rows[:: -(-len(rows) // START_ROWS)]
    joint = np.asarray(_log_joint(gmm, pad(rows, padded_size(len(rows)))), float)[:, : len(rows)]
    log_prob = np.logaddexp.reduce(joint, axis=0)
    lost = -np.log1p(-np.minimum(np.exp(joint - log_prob), 1.0 - 1e-9)).sum(axis=1)
    leave = np.where(movable, np.exp(-lost / max(np.median(lost), 1e-9)), 0.0) + 1e-9 * movable
    arrive = np.exp(-0.5 * (log_prob - log_prob.min()))
    n_components, n_features = gmm.means.shape
    which = draw.choice(n_components, n, p=leave / leave.sum())
    to = rows[draw.choice(len(rows), n, p=arrive / arrive.sum())]
    means, one = np.repeat(gmm.means[None], n, axis=0), np.arange(n)
    means[one, which] = to
    covariances = np.repeat(np.asarray(gmm.covariances)[None], n, axis=0)
    if structure(gmm.covariance_type).per_component:
        spread = 0.5 * n_components ** (-2.0 / n_features) * data.spread
        own = np.diagonal(spread)
        covariances[one, which] = {"full": spread, "diag": own, "spherical": own.mean()}[gmm.covariance_type]
    weights = np.repeat(0.5 * np.asarray(gmm.weights)[None] + 0.5 / n_components, n, axis=0)
    return replace(gmm, weights=weights.astype(gmm.weights.dtype), means=means, covariances=covariances)


@jax.jit
def _log_joint(gmm, rows):
    return log_joint_components_first(gmm, deviations(gmm, rows))


def _to_the_end(fits, *until):
    while not fits.advance(fits.running, *until):
        pass


def _where(which, a, b):
    """Rows of `a` where `which`, of `b` elsewhere."""

    def choose(p, q):
        return np.where(which.reshape(-1, *[1] * (p.ndim - 1)), p, q)

    return jax.tree.map(choose, a, b)
