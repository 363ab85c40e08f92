"""Many starts at once, every lane kept: the best optimum, and the landscape of the others.

A host driver over a flat list of lanes. All lanes run in one `vmap`, in jitted chunks of iterations, so that progress
can be shown and Ctrl-C loses nothing that was computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ..mixture import (
    GMM,
    MixtureSpec,
    Status,
    assign,
    check_data,
    check_sample_weight,
    free_parts,
    match_cost,
    standardise,
    structure,
    validate,
    validate_spec,
)
from ..mixture.starts import start_function
from .fit import EMConfig, EMResult, em_map, first_state, result_of
from .fixed_point import advance, begin

CHUNK = 50  # iterations between two looks from the host
COMPACT_FROM = 1 << 21  # N·K·D·lanes from which lanes that have stopped are worth a smaller program
SAME_COST = 1e-3  # two optima are one where their matched components differ by less than this in total


class Optima(NamedTuple):
    """The distinct optima up to permutation, highest likelihood first; only lanes that ended CONVERGED or MAX_ITER."""

    gmm: GMM  # leading axis: optima
    log_likelihood: Float[np.ndarray, "M"]
    count: Int[np.ndarray, "M"]  # lanes that reached it
    spurious: Bool[np.ndarray, "M"]  # near-singular or tiny component: an artefact of the unbounded likelihood
    lane: Int[np.ndarray, "M"]  # its best lane
    of_lane: Int[np.ndarray, "R"]  # which optimum each lane reached, -1 for none


class Restarts(NamedTuple):
    """What many restarts found, in the units and dtype of the data."""

    best: EMResult  # highest lane that is eligible and not spurious; see fit_em_restarts
    lanes: EMResult  # every lane, leading axis R
    optima: Optima
    message: str  # how it ended, in a sentence: the status of the best lane, and columns without spread


def fit_em_restarts(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    n_restarts: int = 50,
    init: str | Callable | GMM = "kmeans++",
    sample_weight: Float[Array, "N"] | None = None,
    config: EMConfig = EMConfig(),
    progress: Callable[[int, int, float], None] | None = None,
) -> Restarts:
    """EM from n_restarts starts in one vmap; every lane is kept.

    x is checked, centred and scaled here in float64, and everything is mapped back: fits are affine equivariant, and
    config.reg_covar=None means 1e-6 of each feature's variance. Eligible for best are lanes that CONVERGED or reached
    MAX_ITER; among them one without a spurious component is preferred, because a mixture's likelihood is unbounded. If
    no lane is eligible, best is the highest finite lane with its failing status.

    Args:
        init: a name (random, random_points, kmeans++, kmeans), a start function (key, x, spec) -> GMM that sees
            standardised data, or a GMM in the units of the data (one, or with a leading axis for each restart).
        sample_weight: counts a row so many times; rows of weight 0 are left out.
        progress: called between chunks with (lanes done, lanes, best log-likelihood so far, -inf if none is finite).

    Raises:
        ValueError: bad data, spec, weights or options; the sentence names argument, value, place and remedy.
    """
    x = check_data(x)
    spec = validate_spec(spec, x.shape[1])
    weight = check_sample_weight(sample_weight, x.shape[0])
    _check_options(n_restarts, config)
    if weight is not None:
        x, weight = x[weight > 0.0], weight[weight > 0.0]
        _check_total(weight, spec.n_components)
    x = check_data(x, n_components=spec.n_components)
    z, scaling = standardise(x, spec, weight)
    inner = replace(spec, known=scaling.known_inward(spec))
    inits = _starts(key, z, inner, scaling, init, n_restarts)
    weight = None if weight is None else weight.astype(z.dtype)
    ridge = scaling.ridge_inward(config.reg_covar).astype(z.dtype)
    problem = (z, inner.known, weight, replace(config, reg_covar=ridge))
    n_effective = z.shape[0] if weight is None else float(np.sum(weight))
    lanes, interrupted = _run(problem, inits, progress, n_effective * scaling.log_volume)
    data_covariance = np.cov(z.T, bias=True, aweights=weight).reshape(z.shape[1], -1)
    spurious = _is_spurious(lanes.gmm, inner, data_covariance, n_effective)
    optima = _landscape(lanes, spurious, inner, n_effective)
    best = _best_lane(lanes, spurious)
    lanes = _outward(lanes, scaling, n_effective, spec.known)
    optima = optima._replace(gmm=_pick(lanes.gmm, optima.lane), log_likelihood=lanes.log_likelihood[optima.lane])
    found = Restarts(_pick(lanes, best), lanes, optima, _message(lanes, best, scaling, bool(spurious[best])))
    if interrupted:
        raise Interrupted(found)
    return found


def _check_options(n_restarts, config):
    for name, value, least in (("n_restarts", n_restarts, 1), ("config.max_iter", config.max_iter, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
    if not (np.ndim(config.tol) == 0 and 0.0 <= config.tol < np.inf):
        raise ValueError(f"config.tol must be finite and not negative; got {config.tol!r}: 0 never stops on gain.")


def _check_total(weight, n_components):
    if np.sum(weight) < n_components:
        raise ValueError(
            f"sample_weight counts rows, but sums to {np.sum(weight):.6g}, less than n_components={n_components}: "
            "multiply it by len(x) / sample_weight.sum(), or lower n_components."
        )


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during restarts: `.restarts` holds every lane as far as it came."""

    def __init__(self, restarts: Restarts):
        super().__init__("interrupted; the lanes as far as they came are in .restarts")
        self.restarts = restarts


def _starts(key, z, inner, scaling, init, n_restarts):
    """Standardised starts with leading axis R."""
    if not isinstance(init, GMM):
        return _draw_starts(key, z, inner, start_function(init), n_restarts)
    if init.covariance_type != inner.covariance_type:
        raise ValueError(f"init has covariance_type {init.covariance_type!r}, but spec has {inner.covariance_type!r}.")
    leaves = jax.tree.map(np.asarray, init)
    batched = leaves if leaves.means.ndim == 3 else jax.tree.map(lambda leaf: leaf[None], leaves)
    if batched.n_components != inner.n_components:
        raise ValueError(f"init has {batched.n_components} components, but spec has {inner.n_components}.")
    for r in range(batched.means.shape[0]):
        validate(jax.tree.map(lambda leaf, r=r: leaf[r], batched), name="init", n_features=z.shape[1])
    if batched.means.shape[0] not in (1, n_restarts):
        raise ValueError(f"init holds {batched.means.shape[0]} starts, but n_restarts={n_restarts}: make them agree.")
    tiled = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (n_restarts, *leaf.shape[1:])), batched)
    return jax.tree.map(lambda leaf: leaf.astype(z.dtype), scaling.inward(tiled))


@partial(jax.jit, static_argnames=("start", "n_restarts"))
def _draw_starts(key, z, inner, start, n_restarts):
    return jax.vmap(start, in_axes=(0, None, None))(jax.random.split(key, n_restarts), z, inner)


def _run(problem, inits, progress, volume):
    """All lanes to their end, or as far as Ctrl-C lets them; standardised, in NumPy.

    Under vmap a lane that has stopped costs as much as one that runs. So where the data are large, the lanes still
    running move to a program of half as many lanes (a quarter, ...) once they fit in.
    """
    z, config = problem[0], problem[3]
    state = _begin(problem, inits)
    every = jax.tree.map(np.array, state)  # all lanes, as far as they have come
    n_lanes, size = every.value.size, min(CHUNK, config.max_iter)
    trace = np.full((n_lanes, config.max_iter + 1), np.nan, every.value.dtype)
    trace[:, 0] = every.value
    active = np.arange(n_lanes)  # the lanes in the program
    interrupted = False
    try:
        for start in range(1, config.max_iter + 1, CHUNK):
            after, steps = _advance(problem, state, size)
            steps = np.asarray(steps)  # waits here, so that Ctrl-C leaves state and trace in step
            state, seen = after, min(size, config.max_iter + 1 - start)
            trace[active, start : start + seen] = steps[:, :seen]
            running = np.asarray(state.status) == Status.RUNNING
            _put_lanes(every, active, state)
            if progress is not None:
                values = np.where(np.isfinite(every.best_value), every.best_value, -np.inf)
                progress(n_lanes - int(running.sum()), n_lanes, float(values.max() - volume))
            if not running.any():
                break
            keep = _fewer_lanes(running, z.size * inits.means.shape[1])
            if keep.size < active.size:
                active = active[keep]
                state = _pick(every, active)
    except KeyboardInterrupt:
        interrupted = True
    return jax.tree.map(np.asarray, _finish(every, trace)), interrupted


def _fewer_lanes(running, numbers_per_lane):
    """Positions to go on with: all, or a half, a quarter, ... of them that holds every running lane."""
    size = running.size
    while size > 1 and running.sum() <= size // 2 and numbers_per_lane * size >= COMPACT_FROM:
        size //= 2
    return np.arange(running.size) if size == running.size else np.argsort(~running, kind="stable")[:size]


def _put_lanes(every, active, state):
    """Write the lanes of the program back among all lanes."""
    for leaf, part in zip(jax.tree.leaves(every), jax.tree.leaves(state), strict=True):
        leaf[active] = np.asarray(part)


@jax.jit
def _begin(problem, inits):
    z, known, weight, config = problem

    def one(init):
        mapping, rule = em_map(z, known, weight, config)
        return begin(mapping, first_state(z, init, known, weight), rule)

    return jax.vmap(one)(inits)


@partial(jax.jit, static_argnames="n_steps")
def _advance(problem, state, n_steps):
    mapping, rule = em_map(*problem)
    return jax.vmap(lambda lane: advance(mapping, lane, rule, n_steps))(state)


@jax.jit
def _finish(state, traces):
    return jax.vmap(result_of)(state, traces)


def _is_spurious(gmms, inner, data_covariance, n_samples):
    """(R,) bool: some free component has n·φ ≤ D + 1, or an eigenvalue of S⁻¹Σ_k below 1e-3 and n·φ < 10(D + 1).

    Affine invariant, after Hathaway (1985), Annals of Statistics 13; a tight component that many samples support is
    real.
    """
    n_features = data_covariance.shape[0]
    _, free_means, free_covariances = free_parts(inner)
    matrices = np.asarray(_matrices(gmms), float)
    values, vectors = np.linalg.eigh(data_covariance)
    root = vectors / np.sqrt(np.maximum(values, 1e-12))  # whitens S; directions without spread are left out
    matrices = np.where(np.isfinite(matrices), matrices, 0.0)
    smallest = np.linalg.eigvalsh(root.T @ matrices @ root)[..., 0]  # (R, K)
    count = n_samples * np.asarray(gmms.weights, float)
    tiny = (count <= n_features + 1) & (free_means | free_covariances)
    narrow = (smallest < 1e-3) & (count < 10 * (n_features + 1)) & free_covariances
    return (tiny | narrow).any(axis=1)


@jax.jit
def _matrices(gmms):
    """(R, K, D, D)."""
    dense = structure(gmms.covariance_type).dense
    return jax.vmap(lambda gmm: dense(gmm.covariances, *gmm.means.shape))(gmms)


def _eligible(lanes):
    usable = np.isin(lanes.status, (Status.CONVERGED, Status.MAX_ITER, Status.RUNNING))
    return usable & np.isfinite(lanes.log_likelihood)


def _best_lane(lanes, spurious):
    eligible = _eligible(lanes)
    finite = np.isfinite(lanes.log_likelihood)
    for candidates in (eligible & ~spurious, eligible, finite, np.ones_like(finite)):
        if candidates.any():
            return int(np.argmax(np.where(candidates, lanes.log_likelihood, -np.inf)))
    raise AssertionError("the last candidates are all lanes")


def _landscape(lanes, spurious, inner, n_samples):
    """Distinct optima: walk down the likelihood, and give each lane to the first optimum that it equals."""
    log_likelihood = np.asarray(lanes.log_likelihood, float)
    left = _eligible(lanes)
    of_lane = np.full(left.shape, -1)
    found = []
    while left.any():
        lane = int(np.argmax(np.where(left, log_likelihood, -np.inf)))
        cost = match_cost(lanes.gmm, _pick(lanes.gmm, lane), inner)
        total = np.take_along_axis(cost, assign(cost)[:, None, :], axis=1).sum(axis=(1, 2))
        near = np.abs(log_likelihood - log_likelihood[lane]) <= 1e-3 * n_samples
        same = left & near & (total < SAME_COST)
        same[lane] = True
        of_lane[same] = len(found)
        found.append(lane)
        left &= ~same
    chosen = np.array(found, int)
    count = np.array([int(np.sum(of_lane == i)) for i in range(len(found))], int)
    return Optima(_pick(lanes.gmm, chosen), log_likelihood[chosen], count, spurious[chosen], chosen, of_lane)


def _pick(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _outward(lanes, scaling, n_samples, known):
    """Lanes in the units of the data: each sample's log density loses Σ_j log s_j; known numbers to the last digit."""
    volume = n_samples * scaling.log_volume
    gmm = scaling.outward(lanes.gmm)
    held = {name: value.astype(scaling.dtype) for name, value in vars(known).items() if value is not None}
    held = {name: np.where(np.isnan(value), getattr(gmm, name), value) for name, value in held.items()}
    return lanes._replace(
        gmm=replace(gmm, **held),
        log_likelihood=(lanes.log_likelihood - volume).astype(scaling.dtype),
        trace=(lanes.trace - volume).astype(scaling.dtype),
    )


def _message(lanes, best, scaling, spurious):
    status = Status(int(lanes.status[best]))
    failed = int(np.sum(~_eligible(lanes)))
    sentences = [status.advice]
    if failed and failed < lanes.status.size:
        sentences.append(f"{failed} of {lanes.status.size} lanes failed")
    if spurious:
        sentences.append("every eligible optimum has a tiny or near-singular component: lower n_components")
    if scaling.constant:
        columns = ", ".join(str(j) for j in scaling.constant)
        sentences.append(f"x is constant in column(s) {columns}, whose variance is not identified: drop them")
    return "; ".join(sentences) + "."
