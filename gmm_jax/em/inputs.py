"""A data set on its way in, wherever its rows lie: checked, centred and scaled, with its row annotations.

Starts are drawn here too; on their way out, fits are mapped back to the units of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ..mixture import GMM, Hyperparameters, MixtureSpec, free_parts, structure, validate, validate_spec
from ..mixture.annotations import Annotations, missing_groups, same_size
from ..mixture.checks import check_count, check_type
from ..mixture.cores import divide, on_each, together
from ..mixture.match import exchangeable
from ..mixture.scaling import QUIET, Scaling, check_data, check_labels, check_sample_weight, standardise
from ..mixture.sources import open_source
from ..mixture.starts import draw_starts, in_known_order, labelled_means, rows_for_starts, start_function
from ..mixture.summary import sampled_rows
from .fit import EMConfig, EMResult
from .optima import pick

START_ROWS = 1 << 14  # starts are drawn from so many rows, chosen evenly from all
DRAWN_AT_ONCE = 256  # starts: their distances to rows stay in the cache


class Data(NamedTuple):
    """A data set on its way in."""

    z: Float[np.ndarray, "N D"] | None  # centred and scaled, 0 where missing; None where rows are not in memory
    annotations: Annotations  # of rows in memory, else of those that labels name
    for_starts: Float[np.ndarray, "n D"]  # rows of z that starts are drawn from
    means_of_labelled: Float[np.ndarray, "K D"] | None
    spread: Float[np.ndarray, "D D"]  # covariance of z
    inner: MixtureSpec  # known parts in the units of z
    spec: MixtureSpec
    scaling: Scaling
    config: EMConfig
    prior: Hyperparameters | None
    n_samples: float  # total weight
    volume: float  # what the log-likelihood of z exceeds that of x by
    sample: tuple | None = None  # (x, weights, labels) of some rows in the units of the data, where they were asked for
    fingerprint: tuple | None = None  # of rows that are not in memory
    n_rows: int = 0

    @property
    def dtype(self) -> np.dtype:
        """That JAX computes in."""
        return jax.dtypes.canonicalize_dtype(self.scaling.dtype)


def prepare(x, spec, sample_weight, config, prior, *, labels=None, missing=None, keep_rows=False) -> Data:
    """Rows in memory; those of weight zero are left out, unless all data sets must keep one shape."""
    names = tuple(map(str, getattr(x, "columns", ())))
    x = check_data(x, missing=missing)
    spec = validate_spec(spec, x.shape[1])
    weight = check_sample_weight(sample_weight, x.shape[0])
    labels = check_labels(labels, x.shape[0], spec.n_components)
    if weight is not None:
        if not keep_rows:
            used = weight > 0.0
            x, weight, labels = x[used], weight[used], None if labels is None else labels[used]
        if (total := float(np.sum(weight))) < spec.n_components:
            raise ValueError(
                f"sample_weight counts rows, but sums to {total:.6g}, less than n_components={spec.n_components}: "
                "multiply it by len(x) / sample_weight.sum(), or lower n_components."
            )
    x = check_data(x, n_components=spec.n_components, missing=missing)
    with_gaps, scaling = standardise(x, spec, weight)
    scaling = scaling._replace(names=names)
    z, groups = missing_groups(with_gaps, missing)
    annotations = Annotations(weight, labels, groups)
    n_samples = z.shape[0] if weight is None else float(np.sum(weight))
    return data_of(z, annotations, spec, scaling, config, prior, n_samples, _spread(with_gaps, weight))._replace(
        for_starts=rows_for_starts(with_gaps, spec.n_components),
        means_of_labelled=labelled_means(with_gaps, labels, spec.n_components, weight),
    )


def data_of(z, annotations, spec, scaling, config, prior, n_samples, spread) -> Data:
    """Standardised rows, with all that was said about them in the units of the data standardised too."""
    dtype = jax.dtypes.canonicalize_dtype(scaling.dtype)
    weight, ridge = annotations.weight, scaling.ridge_inward(config.reg_covar).astype(dtype)
    return Data(
        z=z,
        annotations=annotations._replace(weight=None if weight is None else weight.astype(dtype)),
        for_starts=z,
        means_of_labelled=None,
        spread=spread,
        n_rows=0 if z is None else len(z),
        inner=replace(spec, known=scaling.known_inward(spec)),
        spec=spec,
        scaling=scaling,
        config=replace(config, reg_covar=ridge, tol=np.asarray(config.tol, dtype)),
        prior=None if prior is None else scaling.prior_inward(prior, spec.covariance_type),
        n_samples=n_samples,
        volume=scaling.log_volume_of(n_samples, annotations),
    )


def open_data(key, x, spec: MixtureSpec, sample_weight, config, prior, labels, missing, n_sample):
    """The data set wherever its rows lie, and their source, None where they are in memory."""
    seed = np.asarray(jax.random.key_data(key))
    rows, alike = {"sample_weight": sample_weight, "labels": labels}, (seed, spec, config, prior)
    most = max(START_ROWS, n_sample or 1)
    source = open_source(x, spec.n_components, seed=seed, n_sample=most, alike=alike, **rows)
    if source is None:
        data = prepare(x, spec, sample_weight, config, prior, labels=labels, missing=missing)
        if len(data.for_starts) > START_ROWS:  # the same rows as of a stream
            data = data._replace(for_starts=data.for_starts[sampled_rows(seed, len(data.for_starts), START_ROWS)])
        if n_sample is None:
            return data, None
        given = check_data(x, missing="marginalise"), sample_weight, labels
        used = np.arange(len(x)) if sample_weight is None else np.flatnonzero(np.asarray(sample_weight) > 0.0)
        rows = used[sampled_rows(seed, used.size, n_sample)]
        return data._replace(sample=tuple(None if c is None else np.asarray(c)[rows] for c in given)), None
    if missing is not None:
        raise ValueError(f"missing={missing!r} is for rows in memory: pass an array, or drop rows with NaN.")
    summary = source.summary
    spec = validate_spec(spec, summary.mean.size)
    if summary.n_samples < spec.n_components:
        raise ValueError(
            f"{source.name} counts {summary.n_samples:.6g} samples, fewer than n_components={spec.n_components}: lower "
            "n_components or add data."
        )
    scaling, rows = summary.scaling(spec, source.dtype), Annotations(labels=summary.labels)
    means, spread = summary.labelled_means(scaling), summary.covariance(scaling)
    data = data_of(None, rows, spec, scaling, config, prior, summary.n_samples, spread)
    return data._replace(
        for_starts=scaling.rows_inward(source.sample(START_ROWS)[0]),
        means_of_labelled=None if means is None else means.astype(data.dtype),
        sample=None if n_sample is None else source.sample(n_sample),
        fingerprint=source.fingerprint,
        n_rows=summary.n_rows,
    ), source


def _spread(z, weight):
    """Covariance of z, (D, D), whose mean is 0: of two features in the rows that have both, where some are NaN."""
    seen = ~np.isnan(z)
    filled = np.where(seen, z, 0.0).astype(float)
    weight = np.ones((len(z), 1)) if weight is None else np.asarray(weight, float)[:, None]
    total = np.sum(weight) if seen.all() else np.maximum(seen.T @ (weight * seen), np.finfo(float).tiny)
    return filled.T @ (weight * filled) / total


def check_options(n_restarts: int, config: EMConfig, **least: tuple) -> None:
    """A ValueError that names the option that is out of its range; others as name=(value, least), None: not given."""
    check_type(config, EMConfig, "config", "EMConfig(max_iter=1000)")
    for name, (value, smallest) in {"n_restarts": (n_restarts, 1), **least}.items():
        if value is not None:
            check_count(value, name, smallest)
    if np.ndim(config.tol) or np.asarray(config.tol).dtype.kind not in "fiu" or not 0.0 <= config.tol < np.inf:
        raise ValueError(f"config.tol must be finite and not negative; got {config.tol!r}: 0 never stops on gain.")


def starts_of(key, data: Data, init, n_restarts: int) -> GMM:
    """Standardised starts with leading axis R."""
    if isinstance(init, GMM):
        starts = starts_inward(init, data.inner, data.scaling, n_restarts)
        return jax.tree.map(lambda leaf: leaf.astype(data.dtype), starts)
    rows = data.for_starts
    if len(rows) > START_ROWS:
        rows = rows[sampled_rows(np.asarray(jax.random.key_data(key)), len(rows), START_ROWS)]
    drawn = draw_starts(key, rows, data.inner, start_function(init), n_restarts, data.means_of_labelled)
    return apart(jax.tree.map(np.asarray, drawn), data.inner)


def apart(starts: GMM, spec: MixtureSpec) -> GMM:
    """Starts (leading axis) of which no two components are equal where their covariances are free.

    EM keeps equal components equal for ever, which is a saddle point: k-means++ makes them where means that are known
    are the same. Their variances are stretched by factors from 1/4 to 4, and they share their weight evenly: all rows
    went to the first of them.
    """
    if spec.known.means is None:
        return starts
    known = np.asarray(spec.known.means)
    same = (known[:, None] == known[None]).all(axis=-1)
    weights = np.where(same.any(axis=1), starts.weights @ (same / np.maximum(same.sum(axis=1), 1)).T, starts.weights)
    starts = replace(starts, weights=weights.astype(starts.weights.dtype))
    if not structure(spec.covariance_type).per_component:
        return starts
    same = same & free_parts(spec)[2]
    size, rank = same.sum(axis=1), np.tril(same, -1).sum(axis=1)
    factor = np.where(size > 1, 4.0 ** (2.0 * rank / np.maximum(size - 1, 1) - 1.0), 1.0)
    factor = factor.reshape(-1, *[1] * (starts.covariances.ndim - 2)).astype(starts.covariances.dtype)
    return replace(starts, covariances=starts.covariances * factor)


def starts_inward(init: GMM, inner: MixtureSpec, scaling: Scaling, n_restarts: int, name="n_restarts") -> GMM:
    """Starts in the units of the data, checked and standardised; leading axis R also where one is for all."""
    if init.covariance_type != inner.covariance_type:
        raise ValueError(f"init has covariance_type {init.covariance_type!r}, but spec has {inner.covariance_type!r}.")
    leaves = jax.tree.map(np.asarray, init)
    batched = leaves if leaves.means.ndim == 3 else jax.tree.map(lambda leaf: leaf[None], leaves)
    if batched.n_components != inner.n_components:
        raise ValueError(f"init has {batched.n_components} components, but spec has {inner.n_components}.")
    for r in range(batched.means.shape[0]):
        validate(jax.tree.map(lambda leaf, r=r: leaf[r], batched), name="init", n_features=scaling.centre.size)
    if batched.means.shape[0] not in (1, n_restarts):
        raise ValueError(f"init holds {batched.means.shape[0]} starts, but {name}={n_restarts}: make them agree.")
    tiled = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (n_restarts, *leaf.shape[1:])), batched)
    return scaling.inward(tiled)


@QUIET
def outward(fits: EMResult, spec: MixtureSpec, scaling: Scaling, volume: float) -> EMResult:
    """Fits in the units of the data, in which log-likelihoods are less by `volume` (`Scaling.log_volume_of`)."""
    return fits._replace(
        gmm=hold_known(scaling.outward(fits.gmm), spec),
        log_likelihood=(fits.log_likelihood - volume).astype(scaling.dtype),
        trace=(fits.trace - volume).astype(scaling.dtype),
    )


def hold_known(gmm: GMM, spec: MixtureSpec) -> GMM:
    """A mixture in NumPy with its known numbers to the last digit, where scaling has rounded them."""
    known = {name: value for name, value in vars(spec.known).items() if value is not None}
    held = {name: np.where(np.isnan(v), getattr(gmm, name), v.astype(gmm.means.dtype)) for name, v in known.items()}
    return replace(gmm, **held)


# ---- many data sets


def stack(data: Sequence[Data]) -> tuple:
    """Data sets of one shape as the problem of `compiled_fits`."""
    problems = [(d.z, d.inner.known, d.annotations, d.config, d.prior) for d in data]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *problems)


def stack_data(keys, x, spec, config, prior, sample_weight=None, labels=None, missing=None) -> list[Data]:
    """Data sets (P, N, D), or P of different size, in one shape; a ValueError names the first at fault.

    Rows that fill up the shorter ones weigh nothing, and there are labels or gaps in all where some have any.
    """
    if len(keys) != len(x) or not len(x):
        raise ValueError(f"x must hold one data set for each of {len(keys)} keys; it holds {len(x)}.")
    sizes = [len(rows) for rows in x]
    for name, given in (("sample_weight", sample_weight), ("labels", labels)):
        if given is not None and [np.shape(rows) for rows in given] != [(n,) for n in sizes]:
            shape = f"shape {np.shape(x)[:2]}" if len(set(sizes)) == 1 else f"the lengths {sizes}"
            raise ValueError(f"{name} must have {shape}, a number for each row of each data set.")
    if isinstance(prior, Hyperparameters) or prior is None:
        prior = [prior] * len(x)
    data = []
    for p, rows in enumerate(x):
        weight, of_rows = (None if given is None else np.asarray(given[p]) for given in (sample_weight, labels))
        try:
            rows, weight, of_rows = _filled(check_data(rows, missing=missing), weight, of_rows, max(sizes))
            data.append(prepare(rows, spec, weight, config, prior[p], labels=of_rows, missing=missing, keep_rows=True))
        except ValueError as error:
            raise ValueError(f"data set {p}: {error}") from error
    return _alike(data)


def _filled(x, weight, labels, n_rows):
    """Rows of weight zero, and those that are wanting, take copies of the others: starts are drawn from any row."""
    if weight is None and len(x) == n_rows:
        return x, weight, labels
    weight = np.ones(len(x)) if weight is None else check_sample_weight(weight, len(x))
    counts, used = np.pad(weight, (0, n_rows - len(x))), np.flatnonzero(weight > 0.0)
    source = np.where(counts > 0.0, np.arange(n_rows), used[np.arange(n_rows) % used.size])
    return x[source], counts, None if labels is None else labels[source]


def _alike(data):
    some, shape = any(d.annotations.labels is not None for d in data), data[0].z.shape
    weighted = any(d.annotations.weight is not None for d in data)
    groups = same_size([d.annotations.groups for d in data], *shape)
    found = []
    for d, gaps in zip(data, groups, strict=True):
        weight, labels, _ = d.annotations
        labels = np.full(shape[0], -1, np.int32) if some and labels is None else labels
        weight = np.ones(shape[0], d.dtype) if weighted and weight is None else weight
        found.append(d._replace(annotations=Annotations(weight, labels, gaps)))
    return found


def starts_of_each(keys, data: Sequence[Data], init, n_restarts: int) -> GMM:
    """Standardised starts (P, R), all at once, or where labels or gaps change what they are drawn from one by one."""
    first = data[0].annotations
    many_rows = len(data[0].for_starts) > START_ROWS
    if isinstance(init, GMM) or many_rows or first.labels is not None or first.groups is not None:
        drawn = [starts_of(key, d, init, n_restarts) for key, d in zip(keys, data, strict=True)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
    keys = jax.vmap(partial(jax.random.split, num=n_restarts))(keys)
    inner = jax.tree.map(lambda *leaves: np.stack(leaves), *[d.inner for d in data])
    problem = (keys, np.stack([d.for_starts for d in data]), inner)
    starts = together(on_each(_draw_starts, divide(problem), start=start_function(init)), len(data))
    if data[0].inner.known.means is None and exchangeable(data[0].inner).all():
        return starts
    ordered = [apart(in_known_order(pick(starts, p), d.inner), d.inner) for p, d in enumerate(data)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *ordered)


@partial(jax.jit, static_argnames="start")
def _draw_starts(problem, start):
    def of_one(problem):
        keys, z, inner = problem
        return jax.vmap(start, in_axes=(0, None, None))(keys, z, inner)

    return jax.lax.map(of_one, problem, batch_size=max(1, DRAWN_AT_ONCE // problem[0].shape[1]))
