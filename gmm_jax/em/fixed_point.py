"""The only loops: iterate a map θ ← step(θ) that should raise an objective, and say why it stopped.

The state that the map acts on carries its own objective, so the value that is returned belongs to the state that is
returned. A step whose result is at fault is not taken; the status says what was wrong with it.

A fit that has not begun has taken −1 steps: the next one evaluates its start, whatever that is worth.

A map with a chart is accelerated: each iteration evaluates one state, the plain step's or a bolder one. A bolder one
that lowers the objective, or is at fault, is rejected, which is no failure: the next step is plain. Where gains decide,
only plain steps can converge.

A step is `ask`, what to evaluate next, and `tell`, what has become of it. A loop outside (sums over a stream) takes the
two apart, with a map whose states are evaluated elsewhere.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..mixture import Status
from .acceleration import Chart, Memory, forget, propose

SETTLED = 1e-2  # gain in units of the rule from which on bold steps are tried: far from a maximum they end anywhere
STOPS = ("gain", "relative", "aitken", "gradient")


class Map(NamedTuple):
    """A map to iterate, step = evaluate ∘ image, and how its states are read: a state is `evaluate` of parameters."""

    image: Callable[[Any], Any]  # state -> parameters of the plain step; cheap
    evaluate: Callable[[Any], Any]  # parameters -> state; dear
    parameters: Callable[[Any], Any]  # state -> its parameters
    objective: Callable[[Any], Float[Array, ""]]  # state -> value, to be raised
    fault: Callable[[Any], Int[Array, ""]]  # state -> Status.RUNNING, or what is wrong with it
    gradient: Callable[[Any], Float[Array, "n_coordinates"]] | None = None  # state -> ∇objective, where it is asked for
    chart: Chart | None = None  # for accelerated iterations
    rounding: Callable[[Any], Float[Array, ""]] | None = None  # state -> by what factor its objective is less precise


class Rule(NamedTuple):
    """When to stop.

    stop: what is to fall to tol. "gain": |gain| / unit; "relative": |gain| / |objective|; "aitken": |gain| and the
    gain that is still to come, |gain|·ρ / (1 − ρ), ρ the ratio of the last two plain steps' gains; "gradient": its
    largest entry, divided by unit.
    """

    unit: Float[Array, ""]  # what gains are counted in: the number of samples where the objective is a sum over them
    tol: Float[Array, ""]  # 0 never stops
    monotone: Any  # bool: whether the map promises never to lower the objective
    max_iter: int
    stop: str = "gain"


class Progress(NamedTuple):
    """Where an iteration stands; `best` is the state to return."""

    state: Any
    best: Any
    value: Float[Array, ""]  # objective of state
    best_value: Float[Array, ""]  # objective of best
    peak: Float[Array, ""]  # highest objective so far; best is the latest state within rounding of it
    n_iter: Int[Array, ""]  # steps taken or rejected; −1 before the start was evaluated
    best_iter: Int[Array, ""]  # of them when best was last in hand
    status: Int[Array, ""]
    gain: Float[Array, ""]  # the last plain step's; 0 where the last step taken was none
    memory: Memory | None  # of accelerated iterations


def begin(state: Any, dtype, memory: Memory | None = None, shape: tuple[int, ...] = ()) -> Progress:
    """Before the first evaluation: of `state` only its parameters count, and the rest has the shapes of what follows.

    With leading axes of that shape for many. It is NumPy's, so nothing is compiled for it.
    """
    lowest, before = np.full(shape, -np.inf, dtype), np.full(shape, -1, np.int32)
    running, gain = np.full(shape, Status.RUNNING, np.int32), np.zeros(shape, dtype)
    return Progress(state, state, lowest, lowest, lowest, before, before, running, gain, memory)


def advance(mapping: Map, progress: Progress, rule: Rule, n_steps: int) -> tuple[Progress, Float[Array, "n_steps"]]:
    """At most n_steps more steps, that to the start included, and the objective after each (-inf: no step was taken).

    Under `vmap` one that has stopped waits unchanged for the others.
    """
    first, trace = progress.n_iter, jnp.full((n_steps,), -jnp.inf, progress.value.dtype)

    def running(carry):
        progress, _, n_calls = carry
        return (progress.status == Status.RUNNING) & (n_calls < n_steps)

    def body(carry):
        progress, trace, n_calls = carry
        after = _take_one(mapping, progress, rule)
        # a step that was not taken writes its predecessor's value again; before the first, out of bounds: nowhere
        place = trace.at[after.n_iter - first - 1]
        return after, place.set(after.value, mode="drop", wrap_negative_indices=False), n_calls + 1

    progress, trace, _ = jax.lax.while_loop(running, body, (progress, trace, jnp.zeros((), jnp.int32)))
    return progress, trace


def take_turns(
    mapping_of: Callable[[Int[Array, ""]], tuple[Map, Rule]],
    iterations: Progress,
    trace: Float[Array, "R C"],
    queue: Int[Array, "Q"],
    n_slots: int,
    n_steps: int,
    until: Int[Array, ""],
    n_rounds: Int[Array, ""],
) -> tuple[Progress, Float[Array, "R C"], Int[Array, ""]]:
    """Many iterations through few slots, for at most n_rounds rounds: when one has ended, the next takes its slot.

    Under `vmap` all would wait for the slowest; here only slots do, at the end.

    Args:
        mapping_of: the map and the rule of an iteration, by its number.
        iterations: leading axis; the last one has ended and stands for "none".
        trace: [iteration, i] takes the objective after step i, and -inf after the last one of a round: C is the number
            of steps to come and those of a round, or 0 where none is kept.
        queue: their numbers in the order in which they start, filled up with the last one, n_slots times at least.
        n_steps: in a round.
        until: a turn ends at this number of steps.

    Returns:
        iterations, trace, and the number of rounds.
    """
    last = iterations.n_iter.shape[0] - 1
    pack, unpack = _as_matrices(iterations)

    def one(i, progress):
        """Iteration i after the steps of a round, and its objective after each, -inf where it took none."""
        mapping, rule = mapping_of(i)

        def step(progress, _):
            moves = (progress.status == Status.RUNNING) & (progress.n_iter < until)
            after = _choose(moves, _take_one(mapping, progress, rule), progress)
            return after, jnp.where(after.n_iter > progress.n_iter, after.value, -jnp.inf)

        return jax.lax.scan(step, progress, None, length=n_steps)

    def busy(carry):
        _, _, slots, _, n = carry
        return jnp.any(slots != last) & (n < n_rounds)

    def body(carry):
        matrices, trace, slots, following, n = carry
        before = unpack([matrix[slots] for matrix in matrices])
        after, values = jax.vmap(one)(slots, before)
        matrices = [
            _put_rows(matrix, new, slots, jnp.zeros_like(slots))
            for matrix, new in zip(matrices, pack(after), strict=True)
        ]
        if trace.shape[1]:
            trace = _put_rows(trace, values, slots, before.n_iter + 1)
        ended = (after.status != Status.RUNNING) | (after.n_iter >= until)
        rank = jnp.cumsum(ended.astype(jnp.int32)) - 1
        slots = jnp.where(ended, queue[jnp.minimum(following + rank, queue.shape[0] - 1)], slots)
        return matrices, trace, slots, following + rank[-1] + 1, n + 1

    start = (pack(iterations), trace, queue[:n_slots], jnp.int32(n_slots), jnp.zeros((), jnp.int32))
    matrices, trace, _, _, n = jax.lax.while_loop(busy, body, start)
    return unpack(matrices), trace, n


def _as_matrices(tree):
    """(pack, unpack): of trees with one leading axis into a matrix for each dtype, a row each, and back.

    To put rows back where they came from takes an operation for each leaf and row, of which each costs the same.
    """
    leaves, structure = jax.tree.flatten(tree)
    dtypes = sorted({leaf.dtype for leaf in leaves}, key=str)

    def pack(tree):
        flat = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(tree)]
        return [jnp.concatenate([leaf for leaf in flat if leaf.dtype == dtype], axis=1) for dtype in dtypes]

    def unpack(matrices):
        ends, found = dict.fromkeys(dtypes, 0), []
        for leaf in leaves:
            matrix, begin = matrices[dtypes.index(leaf.dtype)], ends[leaf.dtype]
            ends[leaf.dtype] += math.prod(leaf.shape[1:])
            found.append(matrix[:, begin : ends[leaf.dtype]].reshape(-1, *leaf.shape[1:]))
        return jax.tree.unflatten(structure, found)

    return pack, unpack


def _put_rows(matrix, rows, which, columns):
    """The matrix with parts of these rows of it replaced, from these columns on: one by one, as a scatter is slower."""
    for i in range(rows.shape[0]):
        matrix = jax.lax.dynamic_update_slice(matrix, rows[i : i + 1], (which[i], columns[i]))
    return matrix


def resume(progress: Progress, status: int) -> Progress:
    """Progress that goes on where it stopped with that status."""
    waiting = progress.status == status
    return progress._replace(status=jnp.where(waiting, jnp.int32(Status.RUNNING), progress.status))


def ask(mapping: Map, progress: Progress) -> tuple[Any, Bool[Array, ""], Memory | None]:
    """The one state that this iteration evaluates, whether it is the plain step's, and what was remembered."""
    first, parameters = progress.n_iter < 0, mapping.parameters(progress.state)
    following, plain, memory = mapping.image(progress.state), jnp.ones((), bool), None
    if progress.memory is not None:
        proposal = propose(mapping.chart, mapping.gradient, progress.memory, progress.state, parameters, following)
        following, plain, memory = proposal
        memory = _choose(first, progress.memory, memory)
    return mapping.evaluate(_choose(first, parameters, following)), plain | first, memory


def tell(mapping: Map, progress: Progress, rule: Rule, new: Any, plain: Bool[Array, ""], memory: Memory | None):
    """Progress after the state that was asked for: taken, rejected, or at fault.

    A start is taken whatever it is worth, and its status says so; but for one that is too inexact to tell.
    """
    value = mapping.objective(new)
    gain = value - progress.value
    rounding = 64.0 * jnp.finfo(value.dtype).eps * (rule.unit + jnp.abs(progress.value))
    if mapping.rounding is not None:
        factor = jnp.maximum(mapping.rounding(new), mapping.rounding(progress.state))
        rounding *= jnp.maximum(factor, jnp.ones_like(factor))
    dropped = rule.monotone & (-gain > rounding)
    fault = mapping.fault(new)
    sound = (fault == Status.RUNNING) & jnp.isfinite(value)
    rejected = ~plain & ~(sound & (gain >= 0.0))
    first = (progress.n_iter < 0) & (fault >= Status.RUNNING)
    status = _select(
        [
            plain & (fault != Status.RUNNING),  # first: a failed Cholesky is why a value is not finite
            plain & ~jnp.isfinite(value),
            plain & dropped,
            ~rejected & _converged(mapping, new, gain, plain, progress, rule),
            progress.n_iter + 1 >= rule.max_iter,
        ],
        [fault, Status.NON_FINITE, Status.DECREASED, Status.CONVERGED, Status.MAX_ITER],
        Status.RUNNING,
    )
    counted = first | (status == Status.RUNNING) | (status == Status.CONVERGED) | (status == Status.MAX_ITER)
    taken = counted & ~rejected
    # within rounding the later state is the better one: on a flat top the highest value is an accident, and the state
    # that has it is only as good as the root of the rounding
    peak = jnp.where(taken, jnp.maximum(value, progress.peak), progress.peak)
    better = taken & (first | rule.monotone | (value >= peak - rounding))
    n_iter = progress.n_iter + counted.astype(jnp.int32)
    still_best = rejected & (progress.best_iter == progress.n_iter)
    return Progress(
        state=_choose(taken, new, progress.state),
        best=_choose(better, new, progress.best),
        value=jnp.where(taken, value, progress.value),
        best_value=jnp.where(better, value, progress.best_value),
        peak=peak,
        n_iter=n_iter,
        best_iter=jnp.where(better | still_best, n_iter, progress.best_iter),
        status=status,
        gain=jnp.where(taken, jnp.where(plain & ~first, gain, jnp.zeros_like(gain)), progress.gain),
        memory=_learn(memory, progress, gain, plain, taken, rejected, rule),
    )


def _take_one(mapping, progress, rule):
    return tell(mapping, progress, rule, *ask(mapping, progress))


def _is_small(gain, progress, rule):
    """Whether the gain itself is within tol."""
    unit = {"relative": jnp.abs(progress.value + gain), "aitken": jnp.ones_like(gain)}.get(rule.stop, rule.unit)
    return jnp.abs(gain) <= rule.tol * unit


def _converged(mapping, new, gain, plain, progress, rule):
    small = plain & _is_small(gain, progress, rule)
    if rule.stop == "gradient":
        small = jnp.max(jnp.abs(mapping.gradient(new))) <= rule.tol * rule.unit
    elif rule.stop == "aitken":
        ratio = jnp.where(gain == 0.0, jnp.zeros_like(gain), jnp.abs(gain) / jnp.abs(progress.gain))
        small &= (ratio < 1.0) & (jnp.abs(gain) * ratio <= rule.tol * (1.0 - ratio))
    return (rule.tol > 0.0) & small


def _learn(memory, progress, gain, plain, taken, rejected, rule):
    """After a rejection a plain step, and after a small gain as many as it takes to decide: Aitken's rule needs two.

    Plain ones as well until the gain is moderate.
    """
    if memory is None:
        return None
    undecided = ~plain | ((progress.gain == 0.0) & (rule.stop == "aitken"))
    to_decide = _is_small(gain, progress, rule) & undecided & (rule.tol > 0.0) & (rule.stop != "gradient")
    learnt = forget(memory, rejected)._replace(plain_next=rejected | to_decide | (gain > SETTLED * rule.unit))
    return _choose(taken | rejected, learnt, progress.memory)


def _select(conditions, statuses, default):
    return jnp.select(conditions, [jnp.asarray(s, jnp.int32) for s in statuses], jnp.asarray(default, jnp.int32))


def _choose(condition, a, b):
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), a, b)
