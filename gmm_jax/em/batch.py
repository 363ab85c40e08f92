"""Many starts on each of many data sets of one shape, all advanced together.

Simulation studies, bootstraps and sweeps need them. `fit_em_batch` keeps the best fit of each data set,
`fit_em_restarts_batch` every lane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import Hyperparameters, MixtureSpec, check_sample_weight, exchangeable
from ..mixture.annotations import same_size
from ..mixture.cores import divide, on_each, together
from ..mixture.starts import in_known_order, start_function
from .fit import EMConfig, EMResult
from .inputs import check_options, outward, prepare, stack, starts_of
from .lanes import begin_lanes
from .optima import eligible, pick, reasons
from .race import kept_by_race
from .restarts import Restarts, restarts_of, results_of, run_lanes, spread_of_lanes

DRAWN_AT_ONCE = 256  # starts: their distances to rows stay in the cache


class Batch(NamedTuple):
    """The best fit of each of many data sets, in their units; leading axis P, and (P, R) for lanes."""

    best: EMResult  # without a trace: trace is (P, 0)
    log_likelihood: Float[np.ndarray, "P R"]
    status: Int[np.ndarray, "P R"]
    n_iter: Int[np.ndarray, "P R"]
    reason: np.ndarray  # (P,) of str: why the best one is inadmissible all the same, "" where it is not


def fit_em_batch(
    key: Key[Array, ""],
    x: Float[Array, "P N D"],
    spec: MixtureSpec,
    *,
    n_restarts: int = 10,
    init: str | Callable = "kmeans++",
    sample_weight: Float[Array, "P N"] | None = None,
    labels: Int[Array, "P N"] | None = None,
    missing: str | None = None,
    config: EMConfig = EMConfig(),
    race: bool = False,
) -> Batch:
    """`fit_em_restarts` on many data sets of one shape, as simulation studies and bootstraps need them.

    Data sets of different sizes are filled up to one shape with rows of weight zero, which may hold anything. With
    race=True each data set has a race of its own, and lanes that left it have status MERGED or DROPPED.

    Args:
        labels, missing: as for fit_em_restarts, labels of each data set.

    Raises:
        ValueError: as fit_em_restarts, for the first data set at fault, which is named.
    """
    check_options(n_restarts, config)
    x = np.asarray(x)
    if x.ndim != 3 or not len(x):
        raise ValueError(f"x must be (P, N, D), one block a data set; got shape {x.shape}: use x[None] for one.")
    if sample_weight is not None and np.shape(sample_weight) != x.shape[:2]:
        raise ValueError(f"sample_weight must have shape {x.shape[:2]}; got {np.shape(sample_weight)}.")
    told = _told(x, labels, missing)
    data = _alike([_member(x, spec, sample_weight, config, None, p, told) for p in range(len(x))])
    problem = stack(data)
    inits = _starts(jax.random.split(key, len(data)), problem[0], data, init, n_restarts)
    lanes = begin_lanes(problem, inits, keep=kept_by_race(config.max_iter))
    if run_lanes(lanes, data, race=race):
        raise KeyboardInterrupt
    return _best_of_each(lanes, data)


def fit_em_restarts_batch(
    keys: Key[Array, " P"],
    x: Float[Array, "P N D"],
    spec: MixtureSpec,
    *,
    n_restarts: int = 50,
    init: str | Callable = "kmeans++",
    labels: Int[Array, "P N"] | None = None,
    missing: str | None = None,
    config: EMConfig = EMConfig(),
    priors: Sequence[Hyperparameters] | None = None,
) -> list[Restarts]:
    """`fit_em_restarts` with keys[p] on x[p], one after another, but all at once: the same answers to rounding.

    Of effort.wasted, lane-iterations of idle slots, each data set has a share in proportion to what it spent.

    Args:
        labels, missing: as for fit_em_restarts, labels of each data set.
        priors: one for each data set, as the default one depends on the data.

    Raises:
        ValueError: as fit_em_restarts, for the first data set at fault, which is named.
    """
    check_options(n_restarts, config)
    if np.ndim(x) != 3 or len(x) != len(keys) or not len(x):
        raise ValueError(f"x must be (P, N, D), one block for each of {len(keys)} keys; got shape {np.shape(x)}.")
    priors = [None] * len(x) if priors is None else priors
    told = _told(np.asarray(x), labels, missing)
    data = _alike([_member(x, spec, None, config, prior, p, told) for p, prior in enumerate(priors)])
    problem = stack(data)
    inits = _starts(keys, problem[0], data, init, n_restarts)
    lanes = begin_lanes(problem, inits)
    if run_lanes(lanes, data, race=False):
        raise KeyboardInterrupt
    state, trace = lanes.look()
    spent = max(int(state.n_iter.sum()), 1)
    found = []
    for p, of_one in enumerate(data):
        mine = slice(p * n_restarts, (p + 1) * n_restarts)
        part = pick(state, mine)
        computed = lanes.computed * int(part.n_iter.sum()) // spent
        found.append(restarts_of(part, trace[mine], of_one, pick(inits, p), computed))
    return found


def _told(x, labels, missing):
    """What is told of the rows of each data set, as options of `prepare`."""
    if labels is not None and np.shape(labels) != x.shape[:2]:
        raise ValueError(f"labels must have shape {x.shape[:2]}, -1 where unknown; got {np.shape(labels)}.")
    return [{"labels": None if labels is None else labels[p], "missing": missing} for p in range(len(x))]


def _alike(data):
    """The same data sets, with labels or gaps in all of them where some have any: a program is for one shape."""
    some, shape = any(d.annotations.labels is not None for d in data), data[0].z.shape
    unknown = np.full(shape[0], -1, np.int32) if some else None
    labels = [unknown if d.annotations.labels is None else d.annotations.labels for d in data]
    groups = same_size([d.annotations.groups for d in data], *shape)
    told = [d.annotations._replace(labels=one, groups=gaps) for d, one, gaps in zip(data, labels, groups, strict=True)]
    return [d._replace(annotations=rows) for d, rows in zip(data, told, strict=True)]


def _starts(keys, z, data, init, n_restarts):
    """Standardised starts (P, R), all at once, or where labels or gaps change what they are drawn from one by one."""
    if data[0].annotations.labels is None and data[0].annotations.groups is None:
        return _draw(jax.vmap(partial(jax.random.split, num=n_restarts))(keys), z, data, start_function(init))
    drawn = [starts_of(key, d, init, n_restarts) for key, d in zip(keys, data, strict=True)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)


def _member(x, spec, sample_weight, config, prior, p, told):
    """Data set p; rows of weight zero take copies of the others, so that starts can be drawn from any row."""
    rows, weight = x[p], None if sample_weight is None else np.asarray(sample_weight[p], float)
    try:
        if weight is not None:
            check_sample_weight(weight, len(rows))
            used = np.flatnonzero(weight > 0.0)
            rows = np.where((weight > 0.0)[:, None], rows, rows[used[np.arange(len(rows)) % used.size]])
        return prepare(rows, spec, weight, config, prior, keep_rows=True, **told[p])
    except ValueError as error:
        raise ValueError(f"data set {p}: {error}") from error


def _best_of_each(lanes, data):
    """The best lane of each data set: highest among admissible, else among eligible, else among finite ones."""
    shape = (len(data), lanes.n_starts)
    state = lanes.look()[0]
    each = np.repeat(np.arange(len(data)), lanes.n_starts)
    known = jax.tree.map(lambda *leaves: np.stack(leaves)[each], *[d.inner.known for d in data])
    results, after = jax.tree.map(np.asarray, results_of(state, np.zeros((lanes.n_lanes, 0)), known))
    reason = reasons(results.gmm, after, data[0].inner, *spread_of_lanes(lanes, data)).reshape(shape)
    usable = eligible(results).reshape(shape)
    value = np.where(np.isfinite(state.best_value), state.best_value, -np.inf).reshape(shape)
    best = np.lexsort((value, 2 * (usable & (reason == "")) + usable), axis=-1)[:, -1]
    chosen = np.arange(len(data)) * lanes.n_starts + best
    best = [outward(pick(results, lane), d.spec, d.scaling, d.volume) for lane, d in zip(chosen, data, strict=True)]
    volume = np.array([d.volume for d in data])[:, None]
    return Batch(
        jax.tree.map(lambda *leaves: np.stack(leaves), *best),
        results.log_likelihood.reshape(shape) - volume,
        results.status.reshape(shape),
        state.n_iter.reshape(shape),
        reason[np.arange(len(data)), chosen % lanes.n_starts],
    )


def _draw(keys, z, data, start):
    """Standardised starts, one a key, (P, R): a program for each core."""
    inner = jax.tree.map(lambda *leaves: np.stack(leaves), *[d.inner for d in data])
    starts = together(on_each(_draw_starts, divide((keys, z, inner)), start=start), len(z))
    if exchangeable(data[0].inner).all():
        return starts
    ordered = [in_known_order(pick(starts, p), d.inner) for p, d in enumerate(data)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *ordered)


@partial(jax.jit, static_argnames="start")
def _draw_starts(problem, start):
    def of_one(problem):
        keys, z, inner = problem
        return jax.vmap(start, in_axes=(0, None, None))(keys, z, inner)

    return jax.lax.map(of_one, problem, batch_size=max(1, DRAWN_AT_ONCE // problem[0].shape[1]))
