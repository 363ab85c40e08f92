"""Many starts on many data sets of one shape: every lane of every data set kept, and all advanced together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ..mixture import Hyperparameters, MixtureSpec
from ..mixture.starts import start_function
from .fit import EMConfig
from .lanes import advance_lanes, begin_lanes
from .restarts import Restarts, _check_options, _prepare, _stack, found_by


def fit_em_restarts_batch(
    keys: Key[Array, " P"],
    x: Float[Array, "P N D"],
    spec: MixtureSpec,
    *,
    n_restarts: int = 50,
    init: str | Callable = "kmeans++",
    config: EMConfig = EMConfig(),
    priors: Sequence[Hyperparameters] | None = None,
) -> list[Restarts]:
    """`fit_em_restarts` with keys[p] on x[p], one after another, but all at once: the same answers to rounding.

    Where only the best fit of each data set is wanted, `fit_em_batch` keeps less. Of effort.wasted, lane-iterations of
    idle slots, each data set has a share in proportion to what it spent.

    Args:
        priors: one for each data set, as the default one depends on the data.

    Raises:
        ValueError: as fit_em_restarts, for the first data set at fault, which is named.
    """
    _check_options(n_restarts, config)
    if np.ndim(x) != 3 or len(x) != len(keys) or not len(x):
        raise ValueError(f"x must be (P, N, D), one block for each of {len(keys)} keys; got shape {np.shape(x)}.")
    priors = [None] * len(x) if priors is None else priors
    data = [_member(one, spec, config, prior, p) for p, (one, prior) in enumerate(zip(x, priors, strict=True))]
    problem = _stack(data)
    inner = jax.tree.map(lambda *leaves: np.stack(leaves), *[d.inner for d in data])
    inits = _draw(keys, problem[0], inner, start_function(init), n_restarts)
    lanes = begin_lanes(problem, inits)
    while not advance_lanes(lanes, np.arange(lanes.n_lanes)):
        pass
    state, trace = lanes.look()
    spent = max(int(state.n_iter.sum()), 1)
    found = []
    for p, of_one in enumerate(data):
        mine = slice(p * n_restarts, (p + 1) * n_restarts)
        part = jax.tree.map(lambda leaf, mine=mine: leaf[mine], state)
        starts = jax.tree.map(lambda leaf, p=p: leaf[p], inits)
        computed = lanes.computed * int(part.n_iter.sum()) // spent
        found.append(found_by(part, trace[mine], of_one, starts, computed))
    return found


def _member(x, spec, config, prior, p):
    try:
        return _prepare(x, spec, None, config, prior)
    except ValueError as error:
        raise ValueError(f"data set {p}: {error}") from error


@partial(jax.jit, static_argnames=("start", "n_restarts"))
def _draw(keys, z, inner, start, n_restarts):
    """Starts (P, R): those of data set p are drawn as from keys[p] alone."""

    def of_one(key, z, inner):
        return jax.vmap(start, in_axes=(0, None, None))(jax.random.split(key, n_restarts), z, inner)

    return jax.vmap(of_one)(keys, z, inner)
