"""The only loop: iterate a map θ ← step(θ) that should raise an objective, and say why it stopped.

The state that the map acts on carries its own objective, so the value that is returned belongs to the state that is
returned. A step whose result is at fault is not taken; the status says what was wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..mixture import Status


class Map(NamedTuple):
    """A map to iterate, and how its states are read."""

    step: Callable[[Any], Any]  # state -> state
    objective: Callable[[Any], Float[Array, ""]]  # state -> value, to be raised
    fault: Callable[[Any], Int[Array, ""]]  # state -> Status.RUNNING, or what is wrong with it


class Rule(NamedTuple):
    """When to stop."""

    unit: Float[Array, ""]  # what gains are counted in: the number of samples where the objective is a sum over them
    tol: Float[Array, ""]  # converged where |gain| ≤ tol·unit; 0 never stops on gain
    monotone: Any  # bool: whether the map promises never to lower the objective
    max_iter: int


class Progress(NamedTuple):
    """Where an iteration stands; `best` is the state to return."""

    state: Any
    best: Any
    value: Float[Array, ""]  # objective of state
    best_value: Float[Array, ""]  # objective of best
    peak: Float[Array, ""]  # highest objective so far; best is the latest state within rounding of it
    n_iter: Int[Array, ""]  # steps taken
    best_iter: Int[Array, ""]  # steps taken to reach best
    status: Int[Array, ""]


def begin(mapping: Map, state: Any, rule: Rule) -> Progress:
    """Zero steps taken: a start that is already at fault has its final status."""
    value = mapping.objective(state)
    zero = jnp.zeros((), jnp.int32)
    done = Status.MAX_ITER if rule.max_iter == 0 else Status.RUNNING
    fault = mapping.fault(state)
    status = _select([fault != Status.RUNNING, ~jnp.isfinite(value)], [fault, Status.NON_FINITE], done)
    return Progress(state, state, value, value, value, zero, zero, status)


def advance(mapping: Map, progress: Progress, rule: Rule, n_steps: int) -> tuple[Progress, Float[Array, "n_steps"]]:
    """At most n_steps more steps, and the objective after each (NaN where no step was taken).

    Under `vmap` a lane that has stopped waits unchanged for the others.
    """
    empty = jnp.full((n_steps,), jnp.nan, progress.value.dtype)
    if n_steps == 0:
        return progress, empty

    def running(carry):
        progress, _, i = carry
        return (progress.status == Status.RUNNING) & (i < n_steps)

    def body(carry):
        progress, trace, i = carry
        after = _take_one(mapping, progress, rule)
        taken = after.n_iter > progress.n_iter
        return after, trace.at[i].set(jnp.where(taken, after.value, jnp.nan)), i + 1

    progress, trace, _ = jax.lax.while_loop(running, body, (progress, empty, jnp.zeros((), jnp.int32)))
    return progress, trace


def _take_one(mapping, progress, rule):
    new = mapping.step(progress.state)
    value = mapping.objective(new)
    gain = value - progress.value
    rounding = 64.0 * jnp.finfo(value.dtype).eps * (rule.unit + jnp.abs(progress.value))
    dropped = rule.monotone & (-gain > rounding)
    fault = mapping.fault(new)
    status = _select(
        [
            fault != Status.RUNNING,  # first: a failed Cholesky is why a value is not finite
            ~jnp.isfinite(value),
            dropped,
            (rule.tol > 0.0) & (jnp.abs(gain) <= rule.tol * rule.unit),
            progress.n_iter + 1 >= rule.max_iter,
        ],
        [fault, Status.NON_FINITE, Status.DECREASED, Status.CONVERGED, Status.MAX_ITER],
        Status.RUNNING,
    )
    taken = (status == Status.RUNNING) | (status == Status.CONVERGED) | (status == Status.MAX_ITER)
    # within rounding the later state is the better one: on a flat top the highest value is an accident, and the state
    # that has it is only as good as the root of the rounding
    peak = jnp.where(taken, jnp.maximum(value, progress.peak), progress.peak)
    better = taken & (rule.monotone | (value >= peak - rounding))
    n_iter = progress.n_iter + taken.astype(jnp.int32)
    return Progress(
        state=_choose(taken, new, progress.state),
        best=_choose(better, new, progress.best),
        value=jnp.where(taken, value, progress.value),
        best_value=jnp.where(better, value, progress.best_value),
        peak=peak,
        n_iter=n_iter,
        best_iter=jnp.where(better, n_iter, progress.best_iter),
        status=status,
    )


def _select(conditions, statuses, default):
    return jnp.select(conditions, [jnp.asarray(s, jnp.int32) for s in statuses], jnp.asarray(default, jnp.int32))


def _choose(condition, a, b):
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), a, b)
