"""EM whose sum is taken over the devices of one process, or over many processes and hosts (jax.distributed).

The loop of fit_em runs on every device over the rows that lie there; an iteration adds the moments of all devices once,
packed into one vector, and each takes the same step from the same sums. So all agree on when to stop, and that they do
is what keeps them from waiting for each other for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Key

from ..mixture import (
    GMM,
    ONE_AT_A_TIME,
    Annotations,
    Hyperparameters,
    MixtureSpec,
    Precision,
    Status,
    check_data,
    check_labels,
    check_sample_weight,
    e_step,
    fast_sums_allowed,
    project,
    structure,
    validate_spec,
)
from ..mixture.files import checkpoint_path, digest, read_checkpoint, write_checkpoint
from .fit import EMConfig, EMState, map_of
from .fixed_point import Progress, advance, begin, resume
from .inputs import Data, check_options, check_total, data_of, starts_of
from .ranks import (
    agree,
    check_mesh,
    counting,
    gather,
    means_of_labelled,
    mesh_of,
    put_rows,
    put_whole,
    rows_per_device,
    sample_rows,
    summarise,
)
from .restarts import Interrupted, Restarts, restarts_of

START_ROWS = 1 << 14  # starts are drawn from so many rows, chosen evenly from all
CHUNK = 100  # iterations of one program at most
LOOK = 1 << 32  # multiplications of a device between two looks from the host: about a second


def fit_em_sharded(
    key: Key[Array, ""],
    x: Float[Array, "n D"],
    spec: MixtureSpec,
    *,
    n_restarts: int = 50,
    init: str | Callable | GMM = "kmeans++",
    sample_weight: Float[Array, "n"] | None = None,
    labels: Int[Array, "n"] | None = None,
    config: EMConfig = EMConfig(),
    prior: Hyperparameters | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[int, int, float], None] | None = None,
) -> Restarts:
    """`fit_em_restarts` of all rows of all ranks, where x are this rank's; the same answer on every rank.

    Ranks may hold different numbers of rows (see `local_rows`); every other argument is the same on all. Without
    jax.distributed there is one rank, and x is divided over its devices. On CPUs give each process one device: programs
    that add over several devices of one process can wait for each other for ever.

    Args:
        init: as for fit_em_restarts. Starts are drawn from START_ROWS rows if there are more; from fewer they are those
            of fit_em_restarts with the same key.
        labels: as for fit_em_restarts, of this rank's rows; None on a rank that knows none.
        mesh: of `mesh_of`. With several groups each takes its part of the restarts, and ranks that stand in the same
            column of the mesh pass the same rows.
        checkpoint: a file in which rank 0 keeps where the fit stands, every second or so.
        resume: go on from that file. All arguments, and the ranks and their rows, must be those it was written with.
        progress: called on every rank, as for fit_em_restarts.

    Raises:
        ValueError: as fit_em_restarts, and on every rank where one rank's arguments are at fault or differ.
    """
    mesh = mesh_of() if mesh is None else check_mesh(mesh)
    data, n_rows, about = _prepare(key, x, spec, sample_weight, labels, config, prior, n_restarts, init, mesh)
    inits = _starts(key, data, init, n_restarts, n_rows)
    lanes = begin_sharded(data, inits, n_rows, mesh)
    file = _go_on(lanes, checkpoint, about, resume=resume)
    judged = data._replace(annotations=Annotations(labels=_named(data.means_told)))  # alike on all ranks
    try:
        while lanes.running.any():
            lanes.advance()
            if file is not None and jax.process_index() == 0:
                write_checkpoint(file, lanes.kept, about)
            if progress is not None:
                values = lanes.progress.best_value
                best = np.where(np.isfinite(values), values, -np.inf).max()
                progress(int(np.sum(~lanes.running)), lanes.n_lanes, float(best - data.volume))
    except KeyboardInterrupt:
        raise Interrupted(restarts_of(*lanes.look(), judged, inits, lanes.computed)) from None
    return restarts_of(*lanes.look(), judged, inits, lanes.computed)


@dataclass
class ShardedLanes:
    """Every restart as far as it has come, the same on all ranks, in NumPy; the rows lie on the devices."""

    problem: tuple  # (z, known, Annotations, config, prior): rows divided over "data", the rest on every device
    mesh: Mesh
    n_lanes: int  # others follow, which fill up the groups of the mesh and have ended
    limit: int  # iterations from one look to the next
    progress: Progress
    trace: Float[np.ndarray, "R T"]
    exact: Bool[np.ndarray, "R"]  # lanes whose sums are taken from deviations
    computed: int = 0

    def look(self) -> tuple[Progress, Float[np.ndarray, "R T"]]:
        """All lanes, and the objective after each iteration (NaN after the last)."""
        state, trace = jax.tree.map(lambda leaf: leaf[: self.n_lanes], (self.progress, self.trace))
        status = np.where(state.status == Status.NARROW, np.int32(Status.RUNNING), state.status)
        return state._replace(status=status), trace

    @property
    def running(self) -> Bool[np.ndarray, "R"]:
        """Which lanes have not ended."""
        return self.look()[0].status == Status.RUNNING

    @property
    def kept(self):
        """What a checkpoint holds."""
        return self.progress, self.trace, self.exact

    @kept.setter
    def kept(self, kept):
        self.progress, self.trace, self.exact = kept

    def advance(self) -> None:
        """Some iterations on, by the way that most running lanes wait for first."""
        active = np.isin(self.progress.status, (Status.RUNNING, Status.NARROW))
        sums = "fast" if np.any(active & ~self.exact) else "exact"
        chosen = active & (self.exact == (sums == "exact"))
        limits = np.where(chosen, self.limit, 0).astype(np.int32)
        before = self.progress.n_iter
        state = put_whole(self.mesh, (self.progress, limits))
        # nothing else may run before it has ended: two programs that add over devices can wait for each other
        state, values = jax.block_until_ready(_advance(self.problem, *state, mesh=self.mesh, sums=sums))
        self.progress, values = jax.tree.map(np.asarray, (state, values))
        taken = self.progress.n_iter - before
        self.computed += int(taken.max()) * self.n_lanes
        lane, step = np.nonzero(np.arange(values.shape[1]) < taken[:, None])
        self.trace[lane, before[lane] + 1 + step] = values[lane, step]
        self.exact = self.exact | (chosen & (self.progress.status == Status.NARROW))


def begin_sharded(data: Data, inits: GMM, n_rows: list[int], mesh: Mesh) -> ShardedLanes:
    """Lanes at their starts, the rows of all ranks on their devices."""
    n_lanes, n_groups = len(inits.weights), mesh.shape["restart"]
    inits = jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], -n_lanes % n_groups, axis=0)]), inits)
    m, (dtype, n_features) = rows_per_device(mesh, n_rows), (data.z.dtype, data.z.shape[1])
    weight = np.ones(len(data.z), dtype) if data.annotations.weight is None else data.annotations.weight
    z, *told = (None if rows is None else put_rows(mesh, rows, m) for rows in (data.z, weight, data.annotations.labels))
    known, config, prior = put_whole(mesh, (data.inner.known, data.config, data.prior))
    problem = (z, known, Annotations(*told), config, prior)
    ways = ("fast", "exact") if fast_sums_allowed(dtype) else ("exact",)
    state, exact = None, np.full(len(inits.weights), len(ways) == 1)
    for sums in ways:
        begun = jax.block_until_ready(_begin(problem, put_whole(mesh, inits), mesh=mesh, sums=sums))
        begun = jax.tree.map(np.asarray, begun)
        state = begun if state is None else jax.tree.map(partial(_choose, exact), begun, state)
        exact = exact | (state.status == Status.NARROW)
        if not exact.any():
            break
    extra = np.arange(len(exact)) >= n_lanes
    state = state._replace(status=np.where(extra, np.int32(Status.MAX_ITER), state.status))
    trace = np.full((len(exact), data.config.max_iter + 1), np.nan, dtype)
    trace[:, 0] = state.value
    work = len(exact) // n_groups * data.inner.n_components * m * n_features**2
    return ShardedLanes(problem, mesh, n_lanes, max(1, min(CHUNK, LOOK // work)), state, trace, exact)


def _prepare(key, x, spec, sample_weight, labels, config, prior, n_restarts, init, mesh):
    """This rank's rows, standardised as all rows together ask for; the rows of each rank; what a checkpoint is of."""
    problem, weight = None, None
    try:
        check_options(n_restarts, config)
        x = check_data(x)
        spec = validate_spec(spec, x.shape[1])
        weight = _check_weight(sample_weight, x.shape[0])
        labels = check_labels(labels, x.shape[0], spec.n_components)
        if weight is not None:
            used = weight > 0.0
            x, weight, labels = x[used], weight[used], None if labels is None else labels[used]
    except ValueError as error:
        problem = str(error)
    facts = {
        "number of columns or dtype in x": "" if problem else f"{x.shape[1]} {x.dtype}",
        "spec": (spec.n_components, spec.covariance_type, spec.known),
        "config": config,
        "prior": prior,
        "init": f"{init.__module__}.{init.__qualname__}" if callable(init) else init,
        "n_restarts": n_restarts,
        "key": jax.random.key_data(key),
        "setting of jax_enable_x64": str(jax.dtypes.canonicalize_dtype(np.float64)),
        "mesh": str(dict(mesh.shape)),
    }
    n_rows = agree(problem, {} if problem else facts, count=0 if problem else len(x))
    counts = counting(mesh)
    counted = [n if counts_too else 0 for n, counts_too in zip(n_rows, counts, strict=True)]
    if sum(counted) < spec.n_components:
        raise ValueError(f"n_components={spec.n_components} is more than the {sum(counted)} rows of x on all ranks.")
    here = counts[jax.process_index()]
    n_samples, scaling, spread = summarise(x, weight, spec, counts=here)
    check_total(np.array([n_samples]), spec.n_components)
    z = scaling.rows_inward(x)
    means = means_of_labelled(z, labels, spec.n_components, weight, counts=here)
    if means is not None and labels is None:
        labels = np.full(len(z), -1, np.int32)
    data = data_of(z, Annotations(weight, labels), spec, scaling, config, prior, n_samples, spread)._replace(means_told=means)
    about = {name: digest(value) for name, value in facts.items()}
    return data, counted, about | {"data": digest((n_rows, scaling.centre, spread, means))}


def _named(means_told):
    """The components that labels name."""
    return None if means_told is None else np.flatnonzero(~np.isnan(means_told[:, 0]))


def _check_weight(sample_weight, n_rows):
    """As check_sample_weight; but this rank's rows may all be absent, if other ranks have some."""
    if sample_weight is not None and np.shape(sample_weight) == (n_rows,) and not np.any(sample_weight):
        return np.zeros(n_rows)
    return check_sample_weight(sample_weight, n_rows)


def _starts(key, data, init, n_restarts, n_rows):
    """The same starts on every rank, from an even choice of all rows."""
    if isinstance(init, GMM):
        return starts_of(key, data, init, n_restarts)
    chosen, n_all = np.arange(sum(n_rows)), sum(n_rows)
    if n_all > START_ROWS:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        chosen = np.sort(rng.choice(n_all, START_ROWS, replace=False, shuffle=False))
    return starts_of(key, data._replace(for_starts=sample_rows(data.z, n_rows, chosen)), init, n_restarts)


def _go_on(lanes, checkpoint, about, *, resume):
    """The path of the checkpoint, once rank 0 has written the first; or has read it, and told all what it says."""
    problem, file, kept = None, None, lanes.kept
    if jax.process_index() == 0:
        try:
            file = checkpoint_path(checkpoint, resume=resume)
            if resume:
                kept = read_checkpoint(file, kept, about)
            elif file is not None:
                write_checkpoint(file, kept, about)
        except ValueError as error:
            problem = str(error)
        except OSError as error:
            problem = f"checkpoint {checkpoint}: {error.strerror}."
    agree(problem, {})
    if resume:
        lanes.kept = jax.tree.map(lambda leaf: gather(leaf)[0].copy(), kept)
    return file


def _choose(first, a, b):
    return np.where(first.reshape(-1, *[1] * (np.ndim(a) - 1)), a, b)


# ---- on the devices

PROBLEM = (P("data"), P(), P("data"), P(), P())  # z, known, Annotations, config, prior


@partial(jax.jit, static_argnames=("mesh", "sums"), compiler_options=ONE_AT_A_TIME)
def _begin(problem, inits, mesh, sums: Precision):
    """Zero steps taken from each start."""

    def here(problem, inits):
        mapping, rule, evaluate = _map(problem, sums)

        def one(init):
            init = jax.tree.map(lambda leaf: jnp.asarray(leaf, problem[0].dtype), init)
            return begin(mapping, evaluate(project(init, problem[1])), rule)

        return _to_all(jax.vmap(one)(inits))

    return _on_all(here, mesh, (PROBLEM, P("restart")))(problem, inits)


@partial(jax.jit, static_argnames=("mesh", "sums"), compiler_options=ONE_AT_A_TIME)
def _advance(problem, progress, limits, mesh, sums: Precision):
    """At most `limits` steps more of each lane, and the objective after each."""

    def here(problem, progress, limits):
        mapping, rule, _ = _map(problem, sums)
        progress = jax.vmap(lambda lane, limit: _wake(lane, limit > 0))(progress, limits)
        return _to_all(jax.vmap(lambda lane, limit: advance(mapping, lane, rule, CHUNK, limit))(progress, limits))

    return _on_all(here, mesh, (PROBLEM, P("restart"), P("restart")))(problem, progress, limits)


def _wake(lane, chosen):
    awake = resume(lane, Status.NARROW)
    return awake._replace(status=jnp.where(chosen, awake.status, lane.status))


def _map(problem, sums):
    """EM as a map whose sum is over all devices of the group, its rule, and the evaluation of a mixture."""
    z, known, told, config, prior = problem

    def evaluate(gmm):
        whitener = structure(gmm.covariance_type).whitener(gmm.covariances)
        moments = e_step(gmm, z, told.weight, labels=told.labels, whitener=whitener, sums=sums)
        return EMState(gmm, whitener, _everywhere(moments))

    return *map_of(evaluate, _everywhere(jnp.sum(told.weight)), known, config, prior, sums), evaluate


def _everywhere(sums):
    """The sums of all devices that divide the rows, packed into one vector on their way."""
    packed, unpack_sums = ravel_pytree(sums)
    return unpack_sums(jax.lax.psum(packed, "data"))


def _to_all(tree):
    """The lanes of every group, one after the other, on every device."""
    return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, "restart", tiled=True), tree)


def _on_all(function, mesh, specs):
    # what comes out is the same everywhere, but that is more than the type system of shard_map can see
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
