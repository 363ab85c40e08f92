"""Many starts for a fit, drawn in one compiled program, and set in the order that suits what is known."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from .annotations import QUICK_SIZES, pad, padded_size
from .cores import divide, in_batches, on_each, together
from .covariance import structure
from .gmm import GMM, permute
from .match import assign, exchangeable
from .spec import Known, MixtureSpec, put
from .starts import LLOYD_STEPS, kmeans, kmeans_plusplus

DRAWN_AT_ONCE = 256  # starts, on an accelerator
FEWEST_ROWS = 512  # that a program is compiled for: with fewer it would not be faster
FEW_NUMBERS = 1 << 17  # K·N·D·starts, times Lloyd's steps, up to which drawing takes a hundredth of its compilation
PLACING_NUMBERS = 1 << 20  # K²·D²·starts at a time: 8 MiB of float64
START_ROWS = 20  # complete rows for each component, for starts to do without the incomplete ones


def draw_starts(
    key: Key[Array, ""], x: Float[Array, "N D"], spec: MixtureSpec, start: Callable, n_starts: int, labelled=None
) -> GMM:
    """n_starts starts, leading axis: means of labelled components from `labelled_means`, the rest in the order that
    suits what is known best.
    """
    if labelled is None:
        return in_known_order(_draw(key, x, spec, start, n_starts), spec)
    held = labelled if spec.known.means is None else np.where(np.isnan(spec.known.means), labelled, spec.known.means)
    # the start then looks for the other means elsewhere
    starts = _draw(key, x, replace(spec, known=replace(spec.known, means=held)), start, n_starts)
    starts = replace(starts, means=np.where(np.isnan(labelled), starts.means, labelled))
    return in_known_order(starts, spec, ~np.isnan(labelled[:, 0]))


def _draw(key, x, spec, start, n_starts):
    rows, n_rows = rows_of_start(start, x)
    even = spec.n_components + spec.n_components % 2 if len(rows) <= QUICK_SIZES[-1] else 0
    asked = _with_far_means(spec, start, even, x)
    keys, compiled_for = jax.random.split(key, n_starts), _compiled_for(start, n_starts, rows, asked)
    parts = [keys] if compiled_for == "once" else divide(keys)
    found = on_each(_draw_of, parts, rows, n_rows, asked, compiled_for=compiled_for, start=start)
    return _without_far_means(together(found, n_starts), spec.n_components)


def _with_far_means(spec, start, n_components, x):
    """The spec with so many components, so that several numbers of them share a program; as it is where none can.

    The means of those at the end are then known, and lie where no row comes: they stay without any. Leading axes of x
    are those of what is known.
    """
    shared = start in (kmeans, kmeans_plusplus) and structure(spec.covariance_type).per_component
    if not shared or n_components < spec.n_components:
        return spec
    shape = (*x.shape[:-2], n_components, x.shape[-1])
    means = np.full(shape, np.inf, x.dtype)
    means[..., : spec.n_components, :] = np.nan if spec.known.means is None else spec.known.means
    return MixtureSpec(n_components, spec.covariance_type, Known(means=means))


def _without_far_means(starts, n_components):
    if starts.n_components == n_components:
        return starts
    lead = (slice(None),) * (starts.weights.ndim - 1)
    weights, means, covariances = (leaf[*lead, :n_components] for leaf in jax.tree.leaves(starts))
    return GMM(weights / weights.sum(axis=-1, keepdims=True), means, covariances, starts.covariance_type)


def draw_for_each(problem: tuple, start: Callable, n_starts: int, programs_for: int = 0) -> GMM:
    """(P, n_starts) starts of data sets: (key, filled rows, their number, spec), each with a leading axis.

    programs_for: programs are compiled for so many components, if there are no more.
    """
    keys, rows, n_rows, spec = problem
    asked = _with_far_means(spec, start, programs_for, rows)
    how = {"compiled_for": _compiled_for(start, n_starts, rows, asked), "start": start, "n_starts": n_starts}
    starts = together(on_each(_draw_for_each, divide((keys, rows, n_rows, asked)), **how), len(rows))
    return _without_far_means(starts, spec.n_components)


def _compiled_for(start, n_starts, rows, spec):
    """What a program is compiled for that draws so many starts."""
    work = n_starts * rows.size * spec.n_components * (LLOYD_STEPS if start is kmeans else 1)
    return "once" if work <= FEW_NUMBERS else "quick"


@partial(jax.jit, static_argnames="start")
def _draw_of(keys, x, n_rows, spec, start):
    return starts_from(keys, x, n_rows, spec, start)


@partial(jax.jit, static_argnames=("start", "n_starts"))
def _draw_for_each(problem, start, n_starts):
    def of_one(problem):
        key, x, n_rows, spec = problem
        return starts_from(jax.random.split(key, n_starts), x, n_rows, spec, start)

    return in_batches(of_one, problem, 1 if jax.default_backend() == "cpu" else DRAWN_AT_ONCE // n_starts)


def starts_from(keys: Key[Array, "R"], x: Float[Array, "N D"], n_rows, spec: MixtureSpec, start: Callable) -> GMM:
    """A start for each key, inside a compiled program; n_rows is None where the function does not take it."""
    counted = {} if n_rows is None else {"n_rows": n_rows}

    def one(key):
        return start(key, x, spec, **counted)

    # on a CPU many at a time take longer to compile, and all wait for the slowest
    starts = jax.lax.map(one, keys) if jax.default_backend() == "cpu" else jax.vmap(one)(keys)
    _check_start(starts, spec, x.shape[1])
    return starts


def rows_of_start(start: Callable, x: Float[np.ndarray, "n D"]) -> tuple:
    """(rows, their number) as that start function wants them: filled up where it takes a number of rows, else None."""
    if not takes_n_rows(start):
        return x, None
    return pad(x, padded_size(max(len(x), FEWEST_ROWS), quick=True)), np.int32(len(x))


def takes_n_rows(start: Callable) -> bool:
    """Whether a start function takes n_rows, so that it may be given rows of zeros that fill up."""
    try:
        return "n_rows" in inspect.signature(start).parameters
    except (TypeError, ValueError):
        return False


def _check_start(starts, spec, n_features):
    """A ValueError, while a start function is traced, where what it returns is no mixture of that size."""
    means = (spec.n_components, n_features)
    shapes = (means[:1], means, structure(spec.covariance_type).shape(*means))
    found = [leaf.shape[1:] for leaf in jax.tree.leaves(starts)]
    if not isinstance(starts, GMM) or starts.covariance_type != spec.covariance_type or tuple(found) != shapes:
        raise ValueError(
            f"a start function must return a GMM of type {spec.covariance_type!r} with weights, means and covariances "
            f"of shapes {shapes}; got {type(starts).__name__} with {tuple(found)}."
        )


def in_known_order(starts: GMM, spec: MixtureSpec, fixed: Bool[np.ndarray, "K"] | None = None) -> GMM:
    """Starts (leading axis R) whose components stand where what is known of that place suits them best.

    A start does not know that component 2 is the one with φ = 0.1, say; from the wrong order EM would have to carry
    whole components past each other, and seldom does. Component i in place j, with the known parts of j put in, costs
    its rows' expected −log φ_j N(x | μ_j, Σ_j); the cheapest assignment is taken. `fixed` ones stay where they are.
    """
    if exchangeable(spec).all():
        return starts
    cost = np.asarray(_placing_costs(starts, spec.known), float)
    cost = np.where(np.isfinite(cost), cost, np.finfo(np.float32).max)
    if fixed is not None:
        moves = (fixed[:, None] | fixed[None, :]) & ~np.eye(fixed.size, dtype=bool)
        cost = np.where(moves, np.finfo(np.float32).max, cost)
    order = assign(cost)
    moving = np.ones(spec.n_components, bool) if fixed is None else ~fixed
    for alike in np.unique(exchangeable(spec), axis=0):  # places that cost the same keep their components' order
        places = np.flatnonzero(alike & moving)
        order[:, places] = np.sort(order[:, places], axis=1)
    return permute(jax.tree.map(np.asarray, starts), order)


@jax.jit
def _placing_costs(starts, known):
    """(R, K, K): cost[i, j] of component i in place j."""
    kind, size = structure(starts.covariance_type), starts.means.shape[1:]
    if not kind.per_component:
        starts = replace(starts, covariances=kind.dense(starts.covariances, *size), covariance_type="full")
        held = None if known.covariances is None else kind.dense(known.covariances, *size)
        known = replace(known, covariances=held)
    at_once = PLACING_NUMBERS // (size[0] * starts.covariances[0].size)
    return in_batches(partial(_placing_cost, known), starts, at_once)


def _placing_cost(known, gmm):
    kind, (n_components, n_features) = structure(gmm.covariance_type), gmm.means.shape

    def in_place(leaf, own):
        """(K², ...): of each pair i, j the known part of j, or that of component i."""
        own = jnp.broadcast_to(own[:, None], (n_components, *own.shape))
        own = own if leaf is None else put(jnp.broadcast_to(leaf[None], own.shape), own)
        return own.reshape(-1, *own.shape[2:])

    whitener = kind.whitener(in_place(known.covariances, gmm.covariances))
    off = in_place(None, gmm.means) - in_place(known.means, gmm.means)
    one, none = jnp.ones(off.shape[:1], off.dtype), jnp.zeros_like(off)
    scatter = kind.estimate(one, in_place(None, gmm.covariances), none, off)  # Σ_i + off offᵀ
    fit = kind.half_log_precision(whitener, n_features) - 0.5 * kind.trace(whitener, scatter, n_features)
    log_weights = jnp.log(in_place(known.weights, gmm.weights))
    return -gmm.weights[:, None] * (log_weights + fit).reshape(n_components, n_components)


def labelled_means(
    z: Float[np.ndarray, "N D"], labels: Int[np.ndarray, "N"] | None, n_components: int, weight=None
) -> Float[np.ndarray, "K D"] | None:
    """Mean of each component's labelled rows, NaN without any; of standardised data, in NumPy.

    NaN in z is left out; a feature of which nothing was seen takes the mean of all rows, 0.
    """
    if labels is None:
        return None
    weight = np.ones(len(z)) if weight is None else np.asarray(weight, float)
    one_hot = (labels[None] == np.arange(n_components)[:, None]) * weight
    seen = ~np.isnan(z)
    means = one_hot @ np.where(seen, z, 0.0) / np.maximum(one_hot @ seen, np.finfo(float).tiny)
    return np.where((one_hot.sum(axis=1) > 0.0)[:, None], means, np.nan).astype(z.dtype)


def rows_for_starts(z: Float[np.ndarray, "N D"], n_components: int) -> Float[np.ndarray, "n D"]:
    """Rows of standardised data without NaN: the complete ones where they are many, else all, means for NaN.

    Filled rows lie where there are none, which is bad for a centre; too few rows are worse.
    """
    unseen = np.isnan(z)
    if not unseen.any():
        return z
    complete = ~unseen.any(axis=1)
    return z[complete] if complete.sum() >= START_ROWS * n_components else np.nan_to_num(z)
