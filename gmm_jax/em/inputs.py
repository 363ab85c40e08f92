"""A data set on its way in: checked, centred and scaled, with all that is told of it in the same units.

Starts are drawn here too; on their way out, lanes are mapped back to the units of the data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from ..mixture import (
    GMM,
    Annotations,
    Hyperparameters,
    MixtureSpec,
    Scaling,
    check_data,
    check_labels,
    check_sample_weight,
    missing_groups,
    standardise,
    validate,
    validate_spec,
)
from ..mixture.starts import draw_starts, labelled_means, rows_for_starts, start_function
from .fit import EMConfig, EMResult


class Data(NamedTuple):
    """A data set on its way in."""

    z: np.ndarray  # (N, D), centred and scaled, 0 where not seen
    annotations: Annotations
    for_starts: np.ndarray  # (n, D), rows of z that starts are drawn from
    means_of_labelled: np.ndarray | None  # (K, D), of labelled rows
    spread: np.ndarray  # (D, D), covariance of z
    inner: MixtureSpec  # known parts in the units of z
    spec: MixtureSpec
    scaling: object
    config: EMConfig
    prior: Hyperparameters | None
    n_samples: float  # total weight
    volume: float  # what the log-likelihood of z exceeds that of x by


def prepare(x, spec, sample_weight, config, prior, *, labels=None, missing=None, keep_rows=False) -> Data:
    """Checked and standardised; rows of weight zero are left out, unless all data sets must keep one shape."""
    x = check_data(x, missing=missing)
    spec = validate_spec(spec, x.shape[1])
    weight = check_sample_weight(sample_weight, x.shape[0])
    labels = check_labels(labels, x.shape[0], spec.n_components)
    if weight is not None:
        if not keep_rows:
            used = weight > 0.0
            x, weight, labels = x[used], weight[used], None if labels is None else labels[used]
        check_total(weight, spec.n_components)
    x = check_data(x, n_components=spec.n_components, missing=missing)
    with_gaps, scaling = standardise(x, spec, weight)
    z, groups = missing_groups(with_gaps, missing)
    told = Annotations(weight, labels, groups)
    n_samples, spread = z.shape[0] if weight is None else float(np.sum(weight)), _spread(with_gaps, weight)
    data = data_of(z, told, spec, scaling, config, prior, n_samples, spread)
    return data._replace(
        for_starts=rows_for_starts(with_gaps, spec.n_components),
        means_of_labelled=labelled_means(with_gaps, labels, spec.n_components, weight),
    )


def data_of(z, told, spec, scaling, config, prior, n_samples, spread) -> Data:
    """Standardised rows, with all that was said about them in the units of the data standardised too."""
    ridge = scaling.ridge_inward(config.reg_covar).astype(z.dtype)
    return Data(
        z=z,
        annotations=told._replace(weight=None if told.weight is None else told.weight.astype(z.dtype)),
        for_starts=z,
        means_of_labelled=None,
        spread=spread,
        inner=replace(spec, known=scaling.known_inward(spec)),
        spec=spec,
        scaling=scaling,
        config=replace(config, reg_covar=ridge, tol=np.asarray(config.tol, z.dtype)),
        prior=None if prior is None else scaling.prior_inward(prior, spec.covariance_type),
        n_samples=n_samples,
        volume=scaling.log_volume_of(n_samples, told),
    )


def _spread(z, weight):
    """Covariance of z, (D, D), whose mean is 0: of two features in the rows that have both, where some are NaN."""
    seen = ~np.isnan(z)
    filled = np.where(seen, z, 0.0).astype(float)
    weight = np.ones((len(z), 1)) if weight is None else np.asarray(weight, float)[:, None]
    total = np.sum(weight) if seen.all() else np.maximum(seen.T @ (weight * seen), np.finfo(float).tiny)
    return filled.T @ (weight * filled) / total


def stack(data) -> tuple:
    """Data sets of one shape as the problem of `begin_lanes`."""
    problems = [(d.z, d.inner.known, d.annotations, d.config, d.prior) for d in data]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *problems)


def check_options(n_restarts: int, config: EMConfig) -> None:
    """A ValueError that names the option that is out of its range."""
    for name, value, least in (("n_restarts", n_restarts, 1), ("config.max_iter", config.max_iter, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}.")
    if not (np.ndim(config.tol) == 0 and 0.0 <= config.tol < np.inf):
        raise ValueError(f"config.tol must be finite and not negative; got {config.tol!r}: 0 never stops on gain.")


def check_total(weight, n_components: int) -> None:
    """A ValueError where the weights count less than a row for each component."""
    if np.sum(weight) < n_components:
        raise ValueError(
            f"sample_weight counts rows, but sums to {np.sum(weight):.6g}, less than n_components={n_components}: "
            "multiply it by len(x) / sample_weight.sum(), or lower n_components."
        )


def starts_of(key, data: Data, init, n_restarts: int) -> GMM:
    """Standardised starts with leading axis R."""
    if not isinstance(init, GMM):
        drawn = draw_starts(key, data.for_starts, data.inner, start_function(init), n_restarts, data.means_of_labelled)
        return jax.tree.map(np.asarray, drawn)
    starts = starts_inward(init, data.inner, data.scaling, n_restarts)
    return jax.tree.map(lambda leaf: leaf.astype(data.z.dtype), starts)


def starts_inward(init: GMM, inner: MixtureSpec, scaling: Scaling, n_restarts: int) -> GMM:
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
        raise ValueError(f"init holds {batched.means.shape[0]} starts, but n_restarts={n_restarts}: make them agree.")
    tiled = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (n_restarts, *leaf.shape[1:])), batched)
    return scaling.inward(tiled)


def outward(lanes: EMResult, spec: MixtureSpec, scaling: Scaling, volume: float) -> EMResult:
    """Lanes in the units of the data, in which log-likelihoods are less by `volume` (`Scaling.log_volume_of`)."""
    return lanes._replace(
        gmm=hold_known(scaling.outward(lanes.gmm), spec),
        log_likelihood=(lanes.log_likelihood - volume).astype(scaling.dtype),
        trace=(lanes.trace - volume).astype(scaling.dtype),
    )


def hold_known(gmm: GMM, spec: MixtureSpec) -> GMM:
    """A mixture in NumPy with its known numbers to the last digit, where scaling has rounded them."""
    known = {name: value for name, value in vars(spec.known).items() if value is not None}
    held = {name: np.where(np.isnan(v), getattr(gmm, name), v.astype(gmm.means.dtype)) for name, v in known.items()}
    return replace(gmm, **held)
