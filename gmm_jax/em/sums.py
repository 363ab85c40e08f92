"""Where the sum is taken: one small class a place, all with the same `moments`, so that one driver serves them all.

Standardised rows lie in memory, where each core sums a part of them; in blocks that are read anew in every pass; on the
devices of a sharded `jax.Array`; or on the workers of a Dask cluster, from which a few kB of moments travel. Sums of
blocks are added in float64 whatever the data. m_step sees no difference.

`HostedFits` loop on the host around any of them, one pass over the rows for an iteration of all fits. They begin on
fast sums, and go on with exact ones where those are too inexact.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from ..mixture import GMM, Annotations, Moments, Precision, Scaling, Status, structure
from ..mixture.annotations import pad, padded_size
from ..mixture.blocks import ahead, cut, rows_in_block
from ..mixture.cores import ONE_AT_A_TIME, WIDE, begin_side_by_side, n_workers, program
from ..mixture.leaves import in_leaves
from ..mixture.moments import take_sums
from ..mixture.programs import jit
from ..mixture.sources import Cluster, Sharded, Stream, rows_of_part
from ..mixture.spec import Hyperparameters, Known
from .acceleration import Memory
from .fit import INEXACT, EMConfig, EMState, accurate, map_of, not_begun, state_of
from .fixed_point import Progress, ask, resume, tell
from .optima import pick

Request = tuple[GMM, Float[Array, "..."], Precision]  # a mixture, its whitener, and how the sum is to be taken

LEAST_WORK = 1 << 20  # N·K·(D + 1) from which threads pay: about a millisecond an iteration on one core
SECONDS_BETWEEN_LOOKS = 0.1
PARTS = 10  # that cost as much on the host as LEAST_WORK on a core


class Sums(Protocol):
    """Standardised rows, wherever they lie."""

    def moments(self, requests: Sequence[Request]) -> list[Sequence[Moments]]:
        """For each mixture the sums about its means, in one pass over the rows.

        Each answer is in parts, which together are all the rows, and need not be ready yet.
        """


def sums_of(source: Stream | Sharded | Cluster, scaling: Scaling, block_rows: int | None = None) -> Sums:
    """The sums over the rows of a source; block_rows: that are summed at a time, by default a million numbers."""
    dtype = jax.dtypes.canonicalize_dtype(scaling.dtype)
    if isinstance(source, Sharded):
        shards = {start: in_leaves(scaling.rows_inward(x), *rows) for start, (x, *rows) in source.shards.items()}
        source, (_, weighted, labelled) = replace(source, shards=shards), next(iter(shards.values()))
        z = source.put(lambda shard: shard[0])
        weight = None if weighted is None else source.put(lambda shard: shard[1].astype(dtype))
        return ShardedSums(z, weight, None if labelled is None else source.put(lambda shard: shard[2]), source.mesh)
    n_rows = max(source.held) if isinstance(source, Cluster) else source.summary.n_rows
    size = rows_in_block(n_rows, scaling.centre.size, block_rows)
    if isinstance(source, Stream):
        return StreamedSums(source, scaling, size, dtype)
    import dask

    blocks = dask.delayed(partial(_blocks_of_part, scaling=scaling, size=size, dtype=dtype))
    some = [part for part, n in zip(source.parts, source.held, strict=True) if n]
    return DaskSums(dask.persist(*[blocks(part) for part in some]))


# ---- in memory


def n_parts(n_samples: int, n_features: int, n_components: int, n_fits: int) -> int:
    """Into how many parts the rows are best cut; 1 where fits side by side are better.

    With T the time of an iteration on one core and c what a part costs on the host, an iteration of one fit takes
    T/p + cp in p parts, least at p² = T/c, and n_fits of them should take less than the T of fits side by side.
    """
    work = n_samples * n_components * (n_features + 1) / LEAST_WORK
    if 2 * n_fits > n_workers() or work < n_fits**2:
        return 1
    return min(n_workers(), int(np.sqrt(PARTS * work)))


@dataclass(frozen=True)
class ThreadedSums:
    """Rows on the device, in parts of which a core takes one.

    XLA's CPU backend keeps a compiled loop on one core, so a fit that is one program leaves the others idle. With the
    loop on the host an iteration takes a third of a millisecond more, and every core works on it.
    """

    parts: list[tuple]  # (z, weight, labels, number of rows)
    programs: dict = field(default_factory=dict)  # Precision -> what sums one part

    def moments(self, requests: Sequence[Request]) -> list[list[Moments]]:
        """The sums over each part."""
        return [self._of_one(*request) for request in requests]

    def _of_one(self, gmm, whitener, sums):
        calls = [(gmm, whitener, *part) for part in self.parts]
        if sums not in self.programs:
            self.programs[sums] = program(block_moments, calls[0], sums=sums)
        return begin_side_by_side([(self.programs[sums], call) for call in calls])


def in_parts(z: Float[np.ndarray, "N D"], annotations: Annotations, n_parts: int) -> ThreadedSums:
    """Parts of like numbers of rows, filled up to one size of programs."""
    weight, labels, _, n_rows = annotations
    n_rows = len(z) if n_rows is None else int(n_rows)
    share = -(-n_rows // n_parts)
    parts = []
    for start in range(0, n_rows, share):
        rows, size = slice(start, min(start + share, n_rows)), padded_size(share)
        of_rows = (None if leaf is None else pad(leaf[rows], size) for leaf in (z, weight, labels))
        parts.append((*of_rows, np.int32(rows.stop - start)))
    return ThreadedSums(jax.device_put(parts))


@partial(jit, static_argnames="sums", compiler_options=WIDE)  # so it is quicker, and keeps to its core
def block_moments(gmm: GMM, whitener, z, weight, labels, n_rows=None, *, sums: Precision) -> Moments:
    """The sums over one block of rows, of which the first n_rows are there."""
    return take_sums(gmm, whitener, z, Annotations(weight, labels, n_rows=n_rows), sums)


# ---- in blocks


@dataclass(frozen=True)
class StreamedSums:
    """Rows that are read in every pass, the next block while this one is summed."""

    stream: Stream
    scaling: Scaling
    block_rows: int
    dtype: np.dtype

    def moments(self, requests: Sequence[Request]) -> list[list[Moments]]:
        """The sums of one pass, in float64 NumPy."""
        return sum_blocks(ahead(cut(self.stream.rows(), self.scaling, self.block_rows, self.dtype)), requests)


def sum_blocks(blocks: Iterable, requests: Sequence[Request]) -> list[list[Moments]]:
    """The sums over blocks as `cut` makes them, in float64 NumPy: one part each."""
    totals, last = [None] * len(requests), [None] * len(requests)
    for z, weight, labels, all_count in blocks:
        counts = None if all_count else weight
        for i, (gmm, whitener, sums) in enumerate(requests):
            part = block_moments(gmm, whitener, z, counts, labels, sums=sums)
            totals[i], last[i] = _add(totals[i], last[i]), part  # the one before, while this one is computed
    return [[_add(*both)] for both in zip(totals, last, strict=True)]


def _add(total, part):
    if part is None:
        return total
    part = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), part)
    return part if total is None else jax.tree.map(np.add, total, part)


# ---- on devices


@dataclass(frozen=True)
class ShardedSums:
    """Rows on the devices of one or many processes: each device sums its own, and one vector is added over all."""

    z: Float[Array, "N D"]  # divided over the mesh's axis "rows", as the others are
    weight: Float[Array, "N"] | None
    labels: Int[Array, "N"] | None
    mesh: Mesh

    def moments(self, requests: Sequence[Request]) -> list[list[Moments]]:
        """The sums of all devices, the same on every process."""
        found = []
        for gmm, whitener, sums in requests:
            mixture = jax.tree.map(np.asarray, (gmm, whitener))
            total = _over_devices(*mixture, self.z, self.weight, self.labels, mesh=self.mesh, sums=sums)
            # nothing else may run before it has ended: two programs that add over devices can wait for each other
            found.append([jax.tree.map(np.asarray, jax.block_until_ready(total))])
        return found


@partial(jax.jit, static_argnames=("mesh", "sums"), compiler_options=ONE_AT_A_TIME)
def _over_devices(gmm, whitener, z, weight, labels, mesh, sums: Precision):
    def here(gmm, whitener, z, weight, labels):
        packed, unpack = ravel_pytree(take_sums(gmm, whitener, z, Annotations(weight, labels), sums))
        return unpack(jax.lax.psum(packed, "rows"))

    rows = P("rows")
    # what comes out is the same everywhere, but that is more than the type system of shard_map can see
    summed = jax.shard_map(here, mesh=mesh, in_specs=(P(), P(), rows, rows, rows), out_specs=P(), check_vma=False)
    return summed(gmm, whitener, z, weight, labels)


# ---- on a cluster


@dataclass(frozen=True)
class DaskSums:
    """Rows in the memory of Dask's workers, standardised and cut into blocks; what a lost worker held is made anew."""

    parts: Sequence  # persisted: a list of blocks each

    def moments(self, requests: Sequence[Request]) -> list[list[Moments]]:
        """The sums over each part, each taken where the part lies."""
        import dask

        requests = [(*jax.tree.map(np.asarray, mixture), sums) for *mixture, sums in requests]
        x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
        take = dask.delayed(partial(_on_worker, requests=requests, x64=x64), pure=False)
        found = dask.compute(*[take(part) for part in self.parts])
        return [[part[i] for part in found] for i in range(len(requests))]


def _on_worker(blocks, requests, x64):
    with jax.enable_x64(x64):
        return [part for (part,) in sum_blocks(blocks, requests)]


def _blocks_of_part(part, scaling, size, dtype):
    blocks = cut([rows_of_part(part)], scaling, size, dtype)
    return [(*in_leaves(*rows), all_count) for *rows, all_count in blocks]


# ---- the loop


class Fits:
    """What the driver asks of fits, besides `look` and `advance`: they lie in one row, data set by data set."""

    computed: int  # iterations that were computed, those of idle slots included and starts left out

    @property
    def running(self) -> Int[np.ndarray, "R"]:
        """The fits that have not ended."""
        return np.flatnonzero(self.look()[0].status == Status.RUNNING)

    def final(self) -> tuple[Progress, Float[np.ndarray, "R C"]]:
        """What `look` gives, with exact sums for the best states of fits that have ended, where theirs are inexact."""
        state, trace = self.look()
        n_iter, best_iter = (np.maximum(leaf, 0) for leaf in (state.n_iter, state.best_iter))
        state = state._replace(n_iter=n_iter, best_iter=best_iter)
        which = np.flatnonzero((state.status != Status.RUNNING) & ~accurate(state.best))
        if not which.size:
            return state, trace
        exact, place, trace = self.exactly(which, state.best), np.arange(self.n_fits), trace.copy()
        trace[which] = np.where(trace[which] == state.best_value[which, None], exact[1][:, None], trace[which])
        place[which] = self.n_fits + np.arange(which.size)
        both = jax.tree.map(lambda *leaves: np.concatenate(leaves)[place], (state.best, state.best_value), exact)
        return state._replace(best=both[0], best_value=both[1]), trace


class Problem(NamedTuple):
    """What EM's map depends on beside the sums, in standardised units."""

    total: Float[Array, ""]  # number of samples
    known: Known
    config: EMConfig
    prior: Hyperparameters | None


class Asked(NamedTuple):
    """The mixture that the coming iteration evaluates, and what `tell` needs to know of it."""

    gmm: GMM
    whitener: Float[Array, "..."]
    plain: Bool[Array, ""]
    memory: Memory | None


class FitState(NamedTuple):
    """How far one fit has come."""

    progress: Progress
    asked: Asked
    trace: Float[np.ndarray, "n"]  # of the start and of every iteration so far; empty before the start was evaluated
    exact: np.ndarray  # bool: whether its sums are exact


def go_on(progress: Progress, max_iter: int) -> Progress:
    """Progress from a checkpoint: what came to its last iteration goes on where it is allowed more now."""
    if np.max(progress.n_iter) > max_iter:
        raise ValueError(f"the checkpoint has {np.max(progress.n_iter)} iterations: config.max_iter must allow them.")
    more = (progress.status == Status.MAX_ITER) & (progress.n_iter < max_iter)
    return progress._replace(status=np.where(more, np.int32(Status.RUNNING), progress.status))


@dataclass
class HostedFits(Fits):
    """Fits of one data set, one iteration of all of them for each pass over the rows."""

    sums: Sums
    problem: Problem
    states: list[FitState]
    computed: int

    @property
    def n_fits(self) -> int:
        return len(self.states)

    @property
    def kept(self) -> tuple:
        """What a checkpoint holds."""
        return self.states, np.asarray(self.computed)

    @kept.setter
    def kept(self, kept: tuple):
        max_iter = self.problem.config.max_iter
        self.states = [state._replace(progress=go_on(state.progress, max_iter)) for state in kept[0]]
        self.computed = int(kept[1])

    def look(self) -> tuple[Progress, Float[np.ndarray, "R T"]]:
        """All fits in NumPy, and the objective after each iteration (NaN where a fit did not come)."""
        state = jax.tree.map(lambda *leaves: np.stack(leaves), *[state.progress for state in self.states])
        trace = np.full((self.n_fits, self.problem.config.max_iter + 1), np.nan, state.value.dtype)
        for row, of_fit in zip(trace, self.states, strict=True):
            row[: of_fit.trace.size] = of_fit.trace
        return state, trace

    def advance(self, which: Int[np.ndarray, "R"]) -> bool:
        """These fits, on to their end or to the next look: whether they are there."""
        begin = time.monotonic()
        while active := [i for i in which if int(self.states[i].progress.status) == Status.RUNNING]:
            states = [self.states[i] for i in active]
            requests = [(*state.asked[:2], "exact" if state.exact else "fast") for state in states]
            for i, parts in zip(active, self.sums.moments(requests), strict=True):
                self.states[i] = step(self.problem, self.states[i], parts)
            self.computed += len(active)
            if time.monotonic() - begin >= SECONDS_BETWEEN_LOOKS:
                return False
        return True

    def exactly(self, which: Int[np.ndarray, "R"], best: EMState) -> tuple[EMState, Float[np.ndarray, "R"]]:
        """The best states of these fits with exact sums, and their objectives."""
        states = [start_of(self.problem, pick(best.gmm, i)) for i in which]
        sums = self.sums.moments([(*state.asked[:2], "exact") for state in states])
        found = [step(self.problem, *both).progress for both in zip(states, sums, strict=True)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *[(p.state, p.value) for p in found])


def hosted_fits(sums: Sums, problem: Problem, starts: GMM) -> HostedFits:
    """Fits that stand at their starts, which have a leading axis."""
    problem, n_fits = jax.device_put(problem), len(starts.weights)
    return HostedFits(sums, problem, [start_of(problem, pick(starts, i)) for i in range(n_fits)], -n_fits)


def start_of(problem: Problem, start: GMM) -> FitState:
    """A fit that has not begun."""
    progress = not_begun(start, problem.config)
    return FitState(progress, _first(problem, progress), np.zeros(0, start.means.dtype), np.zeros((), bool))


def step(problem: Problem, state: FitState, parts) -> FitState:
    """One iteration on, with the sums that were asked for; a step that fast sums cannot take is asked for again."""
    progress, asked, inexact = _step(problem, state.progress, state.asked, parts)
    n_steps = int(progress.n_iter)
    trace = np.append(state.trace[:n_steps], np.asarray(progress.value))[: n_steps + 1]
    return FitState(progress, asked, trace, state.exact | np.asarray(inexact))


@jax.jit
def _first(problem, progress) -> Asked:
    """What is evaluated first."""
    return _ask(map_of(_outside, *problem)[0], progress)


@jax.jit
def _step(problem, progress, asked, parts) -> tuple[Progress, Asked, Bool[Array, ""]]:
    """Progress with these sums of what was asked for, what to evaluate next, and whether the sums were too inexact."""
    mapping, rule = map_of(_outside, *problem)
    progress = tell(mapping, progress, rule, _state(asked.gmm, asked.whitener, parts), asked.plain, asked.memory)
    inexact = progress.status == INEXACT
    progress = resume(progress, INEXACT)
    return progress, _ask(mapping, progress), inexact


def _state(gmm, whitener, parts):
    dtype = gmm.means.dtype
    sums = jax.tree.map(lambda *leaves: sum(leaf.astype(dtype) for leaf in leaves), *parts)
    return state_of(gmm, whitener, sums)


def _ask(mapping, progress):
    gmm, plain, memory = ask(mapping, progress)
    return Asked(gmm, structure(gmm.covariance_type).whitener(gmm.covariances), plain, memory)


def _outside(gmm: GMM) -> GMM:
    """The map's `evaluate`, where the sum is taken outside: the mixture to take it under."""
    return gmm
