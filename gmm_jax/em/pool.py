"""Many fits on one or many data sets in memory, advanced by compiled loops as far as the host asks.

Each core takes pools of fits, one program for all pools, through a fixed number of slots: when a fit ends, the next of
its queue takes the slot, so that no slot waits while a fit does. Between two calls the host may look, leave fits where
they are, show progress, or be interrupted: nothing computed is lost. Fits begin on fast sums, and go on with exact ones
where those are too inexact.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..mixture import GMM, WIDE, MixtureSpec, Moments, Status, structure
from ..mixture.cores import QUICK_WORK, n_workers, on_another_core, program, side_by_side
from ..mixture.empty import known_empty, with_empty
from ..mixture.moments import BLOCK_ROWS, work_of_step
from ..mixture.programs import jit
from .fit import INEXACT, EMState, em_map, not_begun
from .fixed_point import Progress, resume, take_turns
from .optima import pick
from .sums import Fits, go_on

SLOT_NUMBERS = 1 << 14  # slots·K·rows of a block: enough that overheads are small, and few slots wait at the end
MOST_SLOTS = 8  # more do not make an iteration of a fit cheaper, and wait at the end
EXACT_SLOTS = 2  # the same of exact sums, which are often those of a few fits
LARGEST_POOL = 1024  # fits: enough that few slots wait for the slowest
STEPS = 4  # of few samples, that a fit takes before its slot may change hands: handing over costs as much as one
TURNS = 3  # fits a slot has at least, so that slots are seldom idle at the end
ONE_POOL = 1 << 17  # multiplications of one step of all fits, up to which a second core costs more than it saves
FEW_FITS = 32  # up to so many share programs with other fits; what takes many is asked for its speed
LOOK = 1 << 29  # multiplications between two looks from the host: about a tenth of a second

_met: set = set()  # shapes of fits whose programs were compiled in this process


@dataclass
class Pool:
    """Some fits, on the device, and at the end at least one that has ended: it stands for "no fit"."""

    members: Int[np.ndarray, "Q"]
    progress: Progress
    trace: Float[Array, "Q C"]


@dataclass
class CompiledFits(Fits):
    """Every fit as far as it has come. Fit i belongs to data set i // n_starts."""

    problem: tuple  # (z, known, Annotations, config, prior), every leaf with a leading axis of data sets
    n_starts: int
    pools: list[Pool]
    exact: Bool[np.ndarray, "R"]  # fits whose sums are exact
    n_real: int  # components of the mixtures; the programs may be for more, see `compiled_fits`
    n_a_pool: int  # fits of the largest pool, on which the number of slots depends
    computed: int
    _seen: tuple | None = None

    @property
    def n_components(self) -> int:
        return self.pools[0].progress.best.gmm.means.shape[-2]

    @property
    def n_fits(self) -> int:
        return self.exact.size

    def look(self) -> tuple[Progress, Float[np.ndarray, "R C"]]:
        """All fits in NumPy, and their traces where kept: the objective after each iteration, NaN after the last."""
        if self._seen is None:
            state, trace, *_ = self.kept
            status = np.where(state.status == INEXACT, np.int32(Status.RUNNING), state.status)
            state = state._replace(status=status, best=_without_empty(state.best, self.n_real))
            self._seen = state, np.where(np.isneginf(trace), np.nan, trace)
        return self._seen

    def exactly(self, which: Int[np.ndarray, "R"], best: EMState) -> tuple[EMState, Float[np.ndarray, "R"]]:
        """The best states of these fits with exact sums, and their objectives."""
        gmm, (width, n_kept) = with_empty(pick(best.gmm, which), self.n_components), self.pools[0].trace.shape
        parts = np.array_split(np.arange(which.size), -(-which.size // (width - 1)))
        pools = [_pool(which[part], pick(gmm, part), width, n_kept, self.problem[3]) for part in parts]
        fits = replace(self, pools=pools, exact=np.ones(self.n_fits, bool), _seen=None)
        while not fits.advance(which, until=0):
            pass
        state, _ = fits.look()
        return state.best, state.best_value

    @property
    def kept(self) -> tuple:
        """What a checkpoint holds, fit by fit: it does not depend on how many cores there are."""
        progress, trace = _one_by_one(self.pools)
        return progress, trace[:, : trace.shape[1] - STEPS], self.exact, np.asarray(self.computed)

    @kept.setter
    def kept(self, kept: tuple):
        progress, trace, self.exact, computed = kept
        progress = go_on(progress, self.problem[3].max_iter)
        more = ((0, 0), (0, self.pools[0].trace.shape[1] - trace.shape[1]))
        trace = np.pad(trace, more, constant_values=-np.inf)
        for pool in self.pools:

            def put(now, kept, pool=pool):
                return np.concatenate([kept[pool.members], np.asarray(now)[pool.members.size :]])

            state = jax.tree.map(put, (pool.progress, pool.trace), (progress, trace))
            pool.progress, pool.trace = jax.device_put(state)
        self.computed, self._seen = int(computed), None

    def advance(self, which: Int[np.ndarray, "R"], until: int | None = None) -> bool:
        """These fits, on to iteration `until` (default: their end) or to the next look: whether they are there."""
        config = self.problem[3]
        until = config.max_iter if until is None else min(until, config.max_iter)
        chosen = np.zeros(self.n_fits, bool)
        chosen[which] = True
        for exact in (False, True):
            # exact sums wait until no fit is left with fast ones: a few at a time would leave most slots idle
            mask = chosen & (self.exact == exact)
            tasks = [task for pool in self.pools if (task := _task(self, pool, exact, mask, until)) is not None]
            if tasks:
                break
        answers = side_by_side([task[1:] for task in tasks], n_workers())
        for (pool, *_), answer in zip(tasks, answers, strict=True):
            pool.progress, pool.trace, computed = answer
            self.computed += int(computed)
            status = np.asarray(pool.progress.status)[: pool.members.size]
            self.exact[pool.members[status == INEXACT]] = True
        self._seen = None
        state, _ = self.look()
        chosen = chosen[np.concatenate([pool.members for pool in self.pools])]
        return not np.any((state.status == Status.RUNNING) & (state.n_iter < until) & chosen)


def compiled_fits(problem: tuple, starts: GMM, *, traces: bool = True, n_components: int = 0) -> CompiledFits:
    """Fits that stand at their starts, which have leading axes (data sets, starts).

    n_components: programs are compiled for so many, if starts have no more, and the others stay empty.
    """
    n_real = starts.n_components
    n_fits = starts.weights[..., 0].size
    quick = work_of_step(n_fits, problem[0].shape[1], n_real, starts.n_features) <= QUICK_WORK
    if quick and n_fits <= FEW_FITS:
        n_components = max(n_components, n_real + n_real % 2)
    if n_components >= n_real and problem[4] is None:
        z, known, *others = problem
        problem = (z, known_empty(known, pick(starts, (slice(None), 0)), n_components), *others)
        starts = with_empty(starts, n_components)
    problem = jax.device_put(problem)
    n_starts, max_iter = starts.means.shape[1], problem[3].max_iter
    starts = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), starts)
    n_kept = max_iter + 1 + STEPS if traces else 0
    work = work_of_step(n_fits, problem[0].shape[1], starts.n_components, starts.n_features)
    n_pools = 1 if work <= ONE_POOL else max(min(n_workers(), n_fits), -(-n_fits // LARGEST_POOL))
    members = np.array_split(np.arange(n_fits), n_pools)
    width = members[0].size + 1
    if width <= MOST_SLOTS and work <= QUICK_WORK:
        width = max(4, 1 << (width - 1).bit_length())  # one program for several numbers of starts
    pools = [_pool(fits, pick(starts, fits), width, n_kept, problem[3]) for fits in members]
    exact = np.full(n_fits, problem[2].groups is not None)
    return CompiledFits(problem, n_starts, pools, exact, n_real, members[0].size, -n_fits)


def _pool(members, starts, width, n_kept, config):
    """A pool of fits that have not begun, filled up to one width."""
    filled = np.minimum(np.arange(width), members.size - 1)
    progress = not_begun(pick(starts, filled), config)
    status = np.where(np.arange(width) < members.size, progress.status, np.int32(Status.MAX_ITER))
    trace = np.full((width, n_kept), -np.inf, progress.value.dtype)
    return Pool(members, progress._replace(status=status), trace)


def compile_ahead(problem: tuple, n_starts: int, spec: MixtureSpec, **options) -> None:
    """Begins to compile what takes longest of such fits on another core, where it is new, while starts are drawn."""
    (n_sets, _, n_features), dtype, kind = problem[0].shape, problem[0].dtype, structure(spec.covariance_type)
    leading, shapes = (n_sets, n_starts), tuple(leaf.shape for leaf in jax.tree.leaves(problem))
    met = leading, shapes, dtype, spec.n_components, jax.tree.structure((problem, spec)), tuple(options.values())
    if n_workers() == 1 or met in _met:
        return
    _met.add(met)
    whole = {"weights": (spec.n_components,), "means": (spec.n_components, n_features)}
    whole["covariances"] = kind.shape(*whole["means"])
    like = GMM(
        **{name: np.zeros((*leading, *shape), dtype) for name, shape in whole.items()},
        covariance_type=spec.covariance_type,
    )

    def compile_it():
        fits = compiled_fits(problem, like, **options)
        _task(fits, fits.pools[0], False, np.ones(fits.n_fits, bool), problem[3].max_iter)

    on_another_core(compile_it)


def _without_empty(states: EMState, n_components: int) -> EMState:
    """States, leading axis, without components that stand only in the programs."""
    if states.gmm.n_components == n_components:
        return states
    per_component = structure(states.gmm.covariance_type).per_component

    def first(tree):
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:, :n_components], tree)

    def of_covariance(leaf):
        return first(leaf) if per_component else np.asarray(leaf)

    gmm, whitener, moments, kappa_squared = states
    gmm = replace(gmm, weights=first(gmm.weights), means=first(gmm.means), covariances=of_covariance(gmm.covariances))
    mass, shift, second, log_likelihood = moments
    moments = Moments(first(mass), first(shift), of_covariance(second), np.asarray(log_likelihood))
    return EMState(gmm, of_covariance(whitener), moments, np.asarray(kappa_squared))


def _one_by_one(pools):
    """(progress, trace) of all fits in NumPy."""

    def gather(*leaves):
        return np.concatenate([np.asarray(leaf)[: p.members.size] for p, leaf in zip(pools, leaves, strict=True)])

    return jax.tree.map(gather, *[(pool.progress, pool.trace) for pool in pools])


def _task(fits, pool, exact, chosen, until):
    """(pool, program, arguments), None where this pool has nothing to do by such sums."""
    n_fits, width = pool.members.size, pool.progress.n_iter.size
    status, n_iter = (np.asarray(leaf)[:n_fits] for leaf in (pool.progress.status, pool.progress.n_iter))
    active = (status == Status.RUNNING) | (status == INEXACT)
    queue = np.flatnonzero(active & chosen[pool.members] & (n_iter < until))
    if not queue.size:
        return None
    _, n_samples, n_features = fits.problem[0].shape
    n_components = fits.n_components
    per_slot = n_components * min(n_samples, BLOCK_ROWS)
    # one program takes sums either way; those of many data sets would copy their rows for it in every step
    either = fits.problem[0].shape[0] == 1 and fits.n_fits <= FEW_FITS
    sums = "either" if either else "exact" if exact else "fast"
    most = EXACT_SLOTS if sums == "exact" else MOST_SLOTS
    slots = max(1, min(SLOT_NUMBERS // per_slot, most, -(-fits.n_a_pool // TURNS)))
    work = slots * n_components * n_samples * n_features * n_features
    steps = STEPS if STEPS * work <= LOOK else 1
    rounds = max(1, LOOK // (steps * work))
    queue = np.concatenate([queue, np.full(width + slots - queue.size, width - 1)]).astype(np.int32)
    data_set = np.concatenate([pool.members, np.zeros(width - n_fits, int)]) // fits.n_starts
    orders = (queue, data_set, np.int32(until), np.int32(rounds), np.bool_(exact))
    arguments = (fits.problem, pool.progress, pool.trace, *orders)
    of_all = work_of_step(fits.n_fits, n_samples, n_components, n_features)
    compiled_for = "quick" if of_all <= QUICK_WORK or until == 0 else "speed"
    static = {"sums": sums, "slots": slots, "steps": steps}
    return pool, program(_advance, arguments, compiled_for=compiled_for, **static), arguments


@partial(jit, static_argnames=("sums", "slots", "steps"), compiler_options=WIDE)
def _advance(problem, progress, trace, queue, data_set, until, rounds, exact, sums, slots, steps):
    of_fit = _problem_of(problem, data_set)

    def mapping_of(i):
        return em_map(*of_fit(i), exact if sums == "either" else sums)

    progress = resume(progress, INEXACT)
    progress, trace, taken = take_turns(mapping_of, progress, trace, queue, slots, steps, until, rounds)
    return progress, trace, taken * (slots * steps)


def _problem_of(problem, data_set):
    """Fit -> its data set; a single one is not copied for each fit."""
    if problem[0].shape[0] == 1:
        shared = jax.tree.map(lambda leaf: leaf[0], problem)
        return lambda i: shared
    return lambda i: jax.tree.map(lambda leaf: leaf[data_set[i]], problem)
