"""EM whose sum is taken outside of the step's program: over a stream of rows, or by all cores side by side.

The loop runs on the host, around the same `ask` and `tell` as every other loop: one small program an iteration tells
what has become of the last mixture and asks for the next, and `moments` takes the sum under it, wherever the rows are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from ..mixture import GMM, Hyperparameters, Known, Moments, Precision, Status, fast_sums_allowed, project, structure
from .acceleration import Memory
from .fit import EMConfig, EMState, map_of
from .fixed_point import Progress, ask, begin, resume, tell


class Sums(Protocol):
    """Rows in standardised units, wherever they are."""

    def moments(self, gmm: GMM, whitener: Float[Array, "..."], sums: Precision) -> Sequence[Moments]:
        """The sums about gmm.means over parts of the rows, which together are all; they need not be ready yet."""


class Problem(NamedTuple):
    """What the map depends on beside the sums."""

    total: Float[Array, ""]  # number of samples
    known: Known  # in standardised units, like all the rest
    config: EMConfig
    prior: Hyperparameters | None


class Asked(NamedTuple):
    """What the coming iteration evaluates, and what `tell` needs to know of it."""

    gmm: GMM
    whitener: Float[Array, "..."]
    plain: Bool[Array, ""]
    memory: Memory | None


class Journey(NamedTuple):
    """How far one fit has come."""

    progress: Progress
    asked: Asked
    trace: Float[np.ndarray, "n"]  # of the start and of every iteration so far
    exact: np.ndarray  # bool: whether sums are taken from deviations


def depart(sums: Sums, problem: Problem, start: GMM) -> Journey:
    """Zero iterations from this start, known parts put in."""
    gmm, whitener = _place(problem, start)
    ways = ("fast", "exact") if fast_sums_allowed(gmm.means.dtype) else ("exact",)
    for way in ways:
        progress, asked = begin_journey(problem, gmm, whitener, sums.moments(gmm, whitener, way), sums=way)
        if int(progress.status) != Status.NARROW:
            break
    return Journey(progress, asked, np.asarray(progress.value)[None], np.asarray(way == "exact"))


def iterations(sums: Sums, problem: Problem, journey: Journey) -> Iterator[Journey]:
    """The journey after each further iteration, one sum each, until it has ended.

    A step that statistics cannot take is taken again from deviations.
    """
    while int(journey.progress.status) == Status.RUNNING:
        asked, way = journey.asked, "exact" if journey.exact else "fast"
        parts = sums.moments(asked.gmm, asked.whitener, way)
        progress, asked, narrow = _turn(problem, journey.progress, asked, parts, sums=way)
        trace = np.append(journey.trace[: int(progress.n_iter)], np.asarray(progress.value))
        journey = Journey(progress, asked, trace, journey.exact | np.asarray(narrow))
        yield journey


@jax.jit
def _place(problem, start):
    """The start with known parts put in, and its whitener."""
    gmm = project(start, problem.known)
    return gmm, structure(gmm.covariance_type).whitener(gmm.covariances)


@partial(jax.jit, static_argnames="sums")
def begin_journey(problem: Problem, gmm: GMM, whitener, parts: Sequence[Moments], sums: Precision) -> tuple[Progress, Asked]:
    """Zero iterations, and what the first one evaluates."""
    mapping, rule = map_of(_outside, *problem, sums)
    progress = begin(mapping, _state(gmm, whitener, parts), rule)
    return progress, _asked(mapping, progress)


@partial(jax.jit, static_argnames="sums")
def _turn(problem, progress, asked, parts, sums: Precision) -> tuple[Progress, Asked, Bool[Array, ""]]:
    """Progress with these sums of what was asked for, what to evaluate next, and whether the sums were too inexact."""
    mapping, rule = map_of(_outside, *problem, sums)
    state = _state(asked.gmm, asked.whitener, parts)
    progress = tell(mapping, progress, rule, state, asked.plain, asked.memory)
    narrow = progress.status == Status.NARROW
    progress = resume(progress, Status.NARROW)
    return progress, _asked(mapping, progress), narrow


def _state(gmm, whitener, parts):
    dtype = gmm.means.dtype
    return EMState(gmm, whitener, jax.tree.map(lambda *leaves: sum(leaf.astype(dtype) for leaf in leaves), *parts))


def _asked(mapping, progress):
    gmm, plain, memory = ask(mapping, progress)
    return Asked(gmm, structure(gmm.covariance_type).whitener(gmm.covariances), plain, memory)


def _outside(gmm: GMM) -> GMM:
    """The map's `evaluate`, where the sum is taken outside: the mixture to take it under."""
    return gmm
