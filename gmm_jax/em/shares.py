"""Few fits of much data: one after another, the rows of each sum divided over all cores.

XLA's CPU backend keeps a compiled loop on one core, so a fit that is one program leaves the others idle. Here the loop
is the host's, and each core takes the sum over its share of the rows: a third of a millisecond more an iteration,
and the same answer to rounding.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from ..mixture import GMM, Annotations, Moments, Precision, Status, e_step
from ..mixture.cores import WIDE, begin_side_by_side, n_workers, program
from .fixed_point import Progress
from .host_loop import Journey, Problem, depart, iterations
from .inputs import Data
from .optima import pick

LEAST_WORK = 1 << 20  # N·K·(D + 1) from which sharing pays: about a millisecond an iteration on one core
PARTS = 10  # that cost as much on the host as LEAST_WORK on a core
SECONDS_BETWEEN_LOOKS = 0.1


def n_shares(data: Data, n_lanes: int) -> int:
    """Into how many parts the rows are best cut; 1 where lanes side by side are better, or values are missing.

    With T the time of an iteration on one core and c what a part costs on the host, an iteration of one lane takes
    T/p + cp in p parts, least at p² = T/c, and n_lanes of them should take less than the T of lanes side by side.
    """
    (n_samples, n_features), n_components = data.z.shape, data.spec.n_components
    work = n_samples * n_components * (n_features + 1) / LEAST_WORK
    if 2 * n_lanes > n_workers() or work < n_lanes**2 or data.annotations.groups is not None:
        return 1
    return min(n_workers(), int(np.sqrt(PARTS * work)))


@dataclass(frozen=True)
class Shares:
    """Standardised rows on the device, in parts, of which a core takes one."""

    parts: list[tuple]  # (z, weight, labels)
    programs: dict = field(default_factory=dict)  # way -> what sums one part

    def moments(self, gmm: GMM, whitener: Float[Array, "..."], sums: Precision) -> list[Moments]:
        """The sums over each part, about gmm.means, not waited for."""
        calls = [(gmm, whitener, *part) for part in self.parts]
        if sums not in self.programs:
            self.programs[sums] = program(_moments, calls[0], sums=sums)
        return begin_side_by_side([(self.programs[sums], call) for call in calls])


def share_out(z: Float[np.ndarray, "N D"], annotations: Annotations, n_parts: int) -> Shares:
    """Parts of one size, so that one program serves all: the last is filled up with rows of weight zero."""
    short = -len(z) % n_parts
    weight = np.ones(len(z), z.dtype) if short and annotations.weight is None else annotations.weight

    def parts_of(rows):
        if rows is None:
            return [None] * n_parts
        filled = np.concatenate([rows, np.zeros((short, *rows.shape[1:]), rows.dtype)]) if short else rows
        return np.split(filled, n_parts)

    return Shares(jax.device_put(list(zip(*map(parts_of, (z, weight, annotations.labels)), strict=True))))


@partial(jax.jit, static_argnames="sums", compiler_options=WIDE)  # so it is quicker, and keeps to its core
def _moments(gmm, whitener, z, weight, labels, sums: Precision) -> Moments:
    return e_step(gmm, z, weight, labels=labels, whitener=whitener, sums=sums)


@dataclass
class SharedLanes:
    """Lanes as `Lanes`, of one data set, of which one at a time is run."""

    shares: Shares
    problem: Problem
    journeys: list[Journey]
    computed: int = 0  # lane-iterations

    @property
    def n_lanes(self) -> int:
        return len(self.journeys)

    @property
    def kept(self) -> tuple:
        """What a checkpoint holds."""
        return self.journeys, np.asarray(self.computed)

    @kept.setter
    def kept(self, kept: tuple):
        self.journeys, self.computed = kept[0], int(kept[1])

    def look(self) -> tuple[Progress, Float[np.ndarray, "R T"]]:
        """All lanes in NumPy, and the objective after each iteration (NaN where a lane did not come)."""
        state = jax.tree.map(lambda *leaves: np.stack(leaves), *[journey.progress for journey in self.journeys])
        trace = np.full((self.n_lanes, self.problem.config.max_iter + 1), np.nan, state.value.dtype)
        for row, journey in zip(trace, self.journeys, strict=True):
            row[: journey.trace.size] = journey.trace
        return state, trace

    @property
    def running(self) -> Int[np.ndarray, "R"]:
        """The lanes that have not ended."""
        return np.array([i for i, j in enumerate(self.journeys) if int(j.progress.status) == Status.RUNNING], int)

    def advance(self, which: Int[np.ndarray, "R"]) -> bool:
        """These lanes, on to their end or to the next look: whether they are there."""
        begin = time.monotonic()
        for lane in which:
            for journey in iterations(self.shares, self.problem, self.journeys[lane]):
                self.journeys[lane] = journey
                self.computed += 1
                if time.monotonic() - begin >= SECONDS_BETWEEN_LOOKS:
                    return False
        return True


def begin_shared(data: Data, inits: GMM, n_parts: int) -> SharedLanes:
    """Lanes at their starts; `inits` has a leading axis."""
    total = np.asarray(data.n_samples, data.z.dtype)
    problem = jax.device_put(Problem(total, data.inner.known, data.config, data.prior))
    shares = share_out(data.z, data.annotations, n_parts)
    starts = [pick(inits, lane) for lane in range(len(inits.weights))]
    return SharedLanes(shares, problem, [depart(shares, problem, start) for start in starts])
