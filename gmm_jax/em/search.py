"""A race: fits that cannot win, or that follow another, are not run to their end.

Run short, look, keep, finish, in the spirit of em-EM (Biernacki, Celeux & Govaert 2003, Computational Statistics & Data
Analysis 41). A fit leaves when it is on the way to an optimum that another fit of its data set leads to (MERGED), or
when even twice the largest gain that any finished fit made from the same iteration on would leave it below the best
(DROPPED). A fixed random sample of fits never leaves: it calibrates that gain, and what is said of the basins rests on
it alone. Each data set has a race of its own; arrays are (P, R), data sets by starts.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Int

from ..mixture import MixtureSpec, Status
from .optima import same_mixture
from .pool import CompiledFits

FIRST = 4  # iterations before the first look; the next looks are at 12, 36, ...
FACTOR = 3
LEADERS = 3  # fits, at most a tenth, that are finished after the first look: others must have what to fall short of
SETTLED = 1.0  # nats that a fit may still gain, by Aitken's estimate, if others are to follow it
SAFETY = 2.0  # times the largest gain seen that a fit is given credit for


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
