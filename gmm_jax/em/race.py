"""A race: lanes that cannot win, or that follow another, are not run to their end.

Run short, look, keep, finish, in the spirit of em-EM (Biernacki, Celeux & Govaert 2003, Computational Statistics & Data
Analysis 41). A lane leaves when it is on the way to an optimum that another lane leads to (MERGED), or when even twice
the largest gain that any finished lane made from the same iteration on would leave it below the best (DROPPED). A fixed
random sample of lanes never leaves: it calibrates that gain, and what is said of the basins rests on it alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from ..mixture import MixtureSpec, Status
from .lanes import Lanes
from .optima import same_optimum

FIRST = 15  # iterations before the first look; the next looks are at 60, 240, ...
LEADERS = 3  # lanes that are finished after the first look, so that the others have something to fall short of
SETTLED = 0.1  # nats that a lane may still gain, by Aitken's estimate, where it is merged
SAFETY = 2.0  # times the largest gain seen that a lane is given credit for


def race(lanes: Lanes, spec: MixtureSpec, admissible: Callable[[], Bool[np.ndarray, "R"]], finish: Callable) -> None:
    """Run the lanes of one data set until each has ended or left.

    `finish(lanes, which, until)` runs lanes to that iteration, None: to their end.
    """
    sample = calibration_sample(lanes.n_lanes)
    stays = np.isin(np.arange(lanes.n_lanes), sample)
    finish(lanes, lanes.running, FIRST)
    _merge(lanes, stays, spec)
    highest = np.argsort(-_values(lanes), kind="stable")[:LEADERS]
    finish(lanes, np.union1d(sample, highest), None)
    reached = FIRST
    while lanes.running.size:
        _drop(lanes, stays, reached, admissible())
        _merge(lanes, stays, spec)
        reached *= 4
        finish(lanes, lanes.running, reached)


def calibration_sample(n_lanes: int) -> Int[np.ndarray, "R"]:
    """A twentieth of the lanes, at least five: the same lanes for the same number of them."""
    return np.sort(np.random.default_rng(n_lanes).permutation(n_lanes)[: max(5, n_lanes // 20)])


def _values(lanes):
    values = lanes.look()[0].best_value
    return np.where(np.isfinite(values), values, -np.inf)


def _drop(lanes, stays, reached, admissible):
    (state, trace), values = lanes.look(), _values(lanes)
    finished = np.isin(state.status, (Status.CONVERGED, Status.MAX_ITER)) & (state.n_iter >= reached)
    if not (finished & admissible).any():
        return
    gained = values[finished] - trace[finished, reached]
    best = values[finished & admissible].max()
    hopeless = (state.status == Status.RUNNING) & ~stays & (values + SAFETY * np.nanmax(gained) < best)
    lanes.leave(hopeless, Status.DROPPED)


def _merge(lanes, stays, spec):
    (state, trace), values = lanes.look(), _values(lanes)
    running = state.status == Status.RUNNING
    left = (running | (state.status == Status.CONVERGED)) & (_remaining(state, trace) <= SETTLED)
    follows = np.zeros(lanes.n_lanes, bool)
    while (left & running & ~stays).any():
        leader = int(np.argmax(np.where(left, values, -np.inf)))
        near = left & (values >= values[leader] - 2.0 * SETTLED)
        same = same_optimum(state.best.gmm, values, leader, near, spec)
        follows |= same & ~stays & running & (np.arange(lanes.n_lanes) != leader)
        left &= ~same
    lanes.leave(follows, Status.MERGED)


def _remaining(state, trace):
    """Aitken's estimate of the gain still to come, inf where gains do not shrink yet."""
    if trace.shape[1] < 3:
        return np.full(len(trace), np.inf)
    v = np.take_along_axis(trace, np.maximum(state.n_iter, 2)[:, None] - np.arange(3), axis=1)
    gain, before = v[:, 0] - v[:, 1], v[:, 1] - v[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = gain / before
        remaining = np.where((ratio >= 0.0) & (ratio < 1.0), gain * ratio / (1.0 - ratio), np.inf)
    return np.where(np.abs(gain) <= 1e-9 * np.abs(v[:, 0]), 0.0, remaining)
