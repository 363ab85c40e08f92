"""Lanes: EM from many starts on one or many data sets, advanced together as far as the host asks.

A lane is (data set, start). Each core takes pools of lanes, one compiled program for all pools, through a fixed number
of slots: when a lane ends, the next of its queue takes the slot, so that no slot waits while a lane does. Between two
calls the host may look, let lanes leave, show progress, or be interrupted: nothing computed is lost.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..mixture import GMM, ONE_AT_A_TIME, Status, Way, statistics_allowed
from ..mixture.moments import BLOCK_NUMBERS, BLOCK_ROWS
from .fit import em_map, first_state
from .fixed_point import Progress, begin, resume, take_turns

SLOT_NUMBERS = 1 << 16  # slots·K·rows: half a MiB of float64 for the responsibilities of a block
SMALL_PRODUCT = 400_000  # multiplications up to which a product was seen to stay on one core
LARGEST_POOL = 256  # lanes: the numbers of a pool are few beside the data that each iteration reads
TURNS = 4  # lanes a slot has at least, so that slots are seldom idle at the end
LOOK = 1 << 29  # multiplications between two looks from the host: about a tenth of a second


@dataclass
class Pool:
    """Some lanes, on the device, and at the end at least one that has ended: it stands for "no lane"."""

    lanes: Int[np.ndarray, "Q"]
    progress: Progress
    trace: Float[Array, "Q T"]


@dataclass
class Lanes:
    """Every lane as far as it has come. Lane i belongs to data set i // n_starts."""

    problem: tuple  # (z, known, Rows, config, prior), every leaf with a leading axis of data sets
    n_starts: int
    pools: list[Pool]
    exact: Bool[np.ndarray, "R"]  # lanes whose sums are taken from deviations
    left: Int[np.ndarray, "R"]  # a status given by the host to a lane that left, or RUNNING
    computed: int = 0  # lane-iterations that programs have computed, those of idle slots included
    programs: dict = field(default_factory=dict)  # compiled, by way and shape
    _seen: tuple | None = None

    @property
    def n_lanes(self) -> int:
        return self.exact.size

    def look(self) -> tuple[Progress, Float[np.ndarray, "R T"]]:
        """All lanes in NumPy, and the objective after each iteration (NaN after the last)."""
        if self._seen is None:
            back = np.argsort(np.concatenate([pool.lanes for pool in self.pools]))

            def gather(*leaves):
                kept = [np.asarray(leaf)[: p.lanes.size] for p, leaf in zip(self.pools, leaves, strict=True)]
                return np.concatenate(kept)[back]

            state = jax.tree.map(gather, *[pool.progress for pool in self.pools])
            status = np.where(state.status == Status.NARROW, np.int32(Status.RUNNING), state.status)
            status = np.where(self.left == Status.RUNNING, status, self.left).astype(np.int32)
            self._seen = state._replace(status=status), gather(*[pool.trace for pool in self.pools])
        return self._seen

    @property
    def running(self) -> Int[np.ndarray, "R"]:
        """The lanes that have not ended."""
        return np.flatnonzero(self.look()[0].status == Status.RUNNING)

    def leave(self, which: Bool[np.ndarray, "R"], status: Status) -> None:
        """These lanes are not run any further."""
        self.left[which], self._seen = status, None


def begin_lanes(problem: tuple, inits: GMM, *, keep_trace: bool = True) -> Lanes:
    """Lanes at their starts; `inits` has leading axes (data sets, starts)."""
    problem, inits = jax.device_put((problem, inits))
    n_lanes = inits.means.shape[0] * inits.means.shape[1]
    n_pools = max(min(n_workers(), n_lanes), -(-n_lanes // LARGEST_POOL))
    members = np.array_split(np.arange(n_lanes), n_pools)
    width = members[0].size + 1
    rows = tuple(np.concatenate([lanes, np.full(width - lanes.size, -1)]) for lanes in members)
    way = "statistics" if statistics_allowed(problem[0].dtype, problem[2].groups) else "deviations"
    begun = _begin(problem, inits, rows, way, keep_trace)
    exact = np.full(n_lanes, way == "deviations")
    for lanes, (progress, _) in zip(members, begun, strict=True):
        exact[lanes] |= np.asarray(progress.status)[: lanes.size] == Status.NARROW
    if way == "statistics" and exact.any():
        again = _begin(problem, inits, rows, "deviations", keep_trace)
        begun = [_choose_rows(exact[i] & (i >= 0), *both) for i, *both in zip(rows, again, begun, strict=True)]
    pools = [Pool(lanes, *state) for lanes, state in zip(members, begun, strict=True)]
    return Lanes(problem, inits.means.shape[1], pools, exact, np.full(n_lanes, Status.RUNNING, np.int32))


def _choose_rows(first, a, b):
    """Rows of `a` where `first`, of `b` elsewhere."""

    def choose(p, q):
        return np.where(first.reshape(-1, *[1] * (p.ndim - 1)), p, q)

    return jax.device_put(jax.tree.map(choose, a, b))


def advance_lanes(lanes: Lanes, which: Int[np.ndarray, "R"], until: int | None = None) -> bool:
    """These lanes, on to their iteration `until` (default: their end) or to the next look: whether they are there."""
    config = lanes.problem[3]
    until = config.max_iter if until is None else min(until, config.max_iter)
    chosen = np.zeros(lanes.n_lanes, bool)
    chosen[which] = True
    with_programs = [
        task
        for way, mask in (("statistics", chosen & ~lanes.exact), ("deviations", chosen & lanes.exact))
        for pool in lanes.pools
        if (task := _task(lanes, pool, way, mask, until)) is not None
    ]
    small = _products_are_small(lanes)
    runs = [_workers(n_workers() if small else 1).submit(_run, *task[1:]) for task in with_programs]
    for (pool, _, _), run in zip(with_programs, runs, strict=True):
        _take_in(lanes, pool, *run.result())
    state, _ = lanes.look()
    return not np.any((state.status == Status.RUNNING) & (state.n_iter < until) & chosen)


def n_workers() -> int:
    """Pools that run side by side: as many as there are cores for this process, one on an accelerator."""
    return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" and hasattr(os, "sched_getaffinity") else 1


@cache
def _workers(n):
    return ThreadPoolExecutor(n, thread_name_prefix="lanes")


def _run(program, arguments):
    return jax.block_until_ready(program(*arguments))


def _products_are_small(lanes):
    """Whether every product stays on its own core, so that programs may run side by side.

    XLA's CPU backend splits larger products over its threads: one such program keeps all cores busy. Two at a time also
    waited for each other for ever, at (100 000, 32, 16) and (3000, 50, 3) on two cores, when they still called LAPACK.
    """
    _, n_samples, n_features = lanes.problem[0].shape
    n_components = lanes.pools[0].progress.best.gmm.means.shape[-2]
    exact_rows = max(256, BLOCK_NUMBERS // (n_components * n_features))
    rows = min(n_samples, exact_rows if lanes.exact.any() else BLOCK_ROWS)
    per_row = n_components * (n_features + 1) * (n_features + 2) // 2
    return per_row * rows <= SMALL_PRODUCT


def _task(lanes, pool, way, chosen, until):
    """(pool, program, arguments), None where this pool has nothing to do that way."""
    n_lanes, width = pool.lanes.size, pool.progress.n_iter.size
    status, n_iter = (np.asarray(leaf)[:n_lanes] for leaf in (pool.progress.status, pool.progress.n_iter))
    active = np.isin(status, (Status.RUNNING, Status.NARROW)) & (lanes.left[pool.lanes] == Status.RUNNING)
    queue = np.flatnonzero(active & chosen[pool.lanes] & (n_iter < until))
    if not queue.size:
        return None
    _, n_samples, n_features = lanes.problem[0].shape
    n_components = pool.progress.best.gmm.means.shape[-2]
    per_slot = n_components * min(n_samples, BLOCK_ROWS)
    slots = max(1, min(SLOT_NUMBERS // per_slot, -(-(width - 1) // TURNS)))
    rounds = max(1, LOOK // (slots * n_components * n_samples * n_features * n_features))
    queue = np.concatenate([queue, np.full(width + slots - queue.size, width - 1)]).astype(np.int32)
    data_set = np.concatenate([pool.lanes, np.zeros(width - n_lanes, int)]) // lanes.n_starts
    orders = jax.device_put((queue, data_set, np.int32(until), np.int32(rounds)))
    arguments = (lanes.problem, pool.progress, pool.trace, *orders)
    key = (way, queue.shape, slots)
    if key not in lanes.programs:
        # compiled here, under the caller's settings of JAX, which belong to a thread; run in any
        lanes.programs[key] = _advance.lower(*arguments, way=way, slots=slots).compile()
    return pool, lanes.programs[key], arguments


def _take_in(lanes, pool, progress, trace, n_rounds, slots):
    pool.progress, pool.trace = progress, trace
    lanes.computed += int(n_rounds) * int(slots)
    lanes.exact[pool.lanes[np.asarray(progress.status)[: pool.lanes.size] == Status.NARROW]] = True
    lanes._seen = None


@partial(jax.jit, static_argnames=("way", "keep_trace"), compiler_options=ONE_AT_A_TIME)
def _begin(problem, inits, rows, way: Way, keep_trace):
    """The pools at their starts: for each its progress and its trace."""

    def one(problem, init):
        z, known, told, *_ = problem
        mapping, rule = em_map(*problem, way)
        return begin(mapping, first_state(z, init, known, told, way), rule)

    state = jax.vmap(jax.vmap(one, in_axes=(None, 0)))(problem, inits)
    state = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), state)

    def pool(rows):
        progress = jax.tree.map(lambda leaf: leaf[rows], state)
        trace = jnp.full((rows.size, problem[3].max_iter + 1 if keep_trace else 0), jnp.nan, progress.value.dtype)
        trace = trace.at[:, 0].set(progress.value) if keep_trace else trace
        return progress._replace(status=jnp.where(rows >= 0, progress.status, jnp.int32(Status.MAX_ITER))), trace

    return [pool(index) for index in rows]


@partial(jax.jit, static_argnames=("way", "slots"), compiler_options=ONE_AT_A_TIME)
def _advance(problem, progress, trace, queue, data_set, until: Int[Array, ""], rounds: Int[Array, ""], way: Way, slots):
    shared = jax.tree.map(lambda leaf: leaf[0], problem)
    many = problem[0].shape[0] > 1

    def mapping_of(lane):
        return em_map(*(jax.tree.map(lambda leaf: leaf[data_set[lane]], problem) if many else shared), way)

    progress = resume(progress, Status.NARROW)
    progress, trace, taken = take_turns(mapping_of, progress, trace, queue, slots, until, rounds)
    return progress, trace, taken, jnp.int32(slots)
