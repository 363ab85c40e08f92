"""A data set on its way in, wherever its rows lie: checked, centred and scaled, with its row annotations.

Starts are drawn here too; on their way out, fits are mapped back to the units of the data.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from ..mixture import GMM, Hyperparameters, MixtureSpec, free_parts, structure, validate, validate_spec
from ..mixture.annotations import Annotations, missing_groups, pad, pad_annotations, padded_size, same_size
from ..mixture.checks import check_count, check_type
from ..mixture.cores import QUICK_WORK, n_workers
from ..mixture.leaves import in_leaves
from ..mixture.many_starts import (
    draw_for_each,
    draw_starts,
    in_known_order,
    labelled_means,
    rows_for_starts,
    takes_n_rows,
)
from ..mixture.match import exchangeable
from ..mixture.moments import BLOCK_ROWS, work_of_step
from ..mixture.scaling import QUIET, Scaling, check_data, check_labels, check_sample_weight, standardise
from ..mixture.sources import open_source
from ..mixture.starts import start_function
from ..mixture.summary import covariance_of, sampled_rows
from .fit import EMConfig, EMResult
from .optima import pick

START_ROWS = 1 << 14  # starts are drawn from so many rows, chosen evenly from all
SPAN = 4  # sizes of data sets in one batch: up to so many times the smallest there is no question
COMPILATION = 1 << 26  # multiplications of one step that take as long, with all other steps, as programs to compile
MOST_NUMBERS = 1 << 24  # of the rows of a batch, 128 MiB of float64


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
    n_rows: int = 0  # that are there: in memory z is filled up

    @property
    def dtype(self) -> np.dtype:
        """That JAX computes in."""
        return jax.dtypes.canonicalize_dtype(self.scaling.dtype)


def prepare(x, spec, sample_weight, config, prior, *, labels=None, missing=None, n_fits=1, n_largest=0) -> Data:
    """Rows in memory, those of weight zero left out, filled up to the size of the programs that fit them.

    n_fits: of these rows and of others like them, the largest of which has n_largest rows.
    """
    names = tuple(map(str, getattr(x, "columns", ())))
    x = check_data(x, missing=missing)
    spec = validate_spec(spec, x.shape[1])
    weight = check_sample_weight(sample_weight, x.shape[0])
    labels = check_labels(labels, x.shape[0], spec.n_components)
    if weight is not None:
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
    spread = covariance_of(with_gaps, weight)
    of_starts = {
        "for_starts": rows_for_starts(with_gaps, spec.n_components),
        "means_of_labelled": labelled_means(with_gaps, labels, spec.n_components, weight),
    }
    z, groups = missing_groups(with_gaps, missing)
    n_rows, n_most = len(z), max(len(z), n_largest)
    size = padded_size(n_most, quick=work_of_step(n_fits, n_most, spec.n_components, x.shape[1]) <= QUICK_WORK)
    if groups is None:
        z, weight, labels = in_leaves(z, weight, labels, n_filled=size)
    annotations = pad_annotations(Annotations(weight, labels, groups), n_rows, size)
    n_samples = n_rows if weight is None else float(np.sum(weight))
    found = data_of(pad(z, size), annotations, spec, scaling, config, prior, n_samples, spread)
    return found._replace(n_rows=n_rows, **of_starts)


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
        inner=replace(spec, known=scaling.known_inward(spec)),
        spec=spec,
        scaling=scaling,
        config=replace(config, reg_covar=ridge, tol=np.asarray(config.tol, dtype)),
        prior=None if prior is None else scaling.prior_inward(prior, spec.covariance_type),
        n_samples=n_samples,
        volume=scaling.log_volume_of(n_samples, annotations),
    )


def open_data(key, x, spec: MixtureSpec, sample_weight, config, prior, labels, missing, n_sample, n_fits):
    """The data set wherever its rows lie, and their source, None where they are in memory."""
    seed = np.asarray(jax.random.key_data(key))
    rows, alike = {"sample_weight": sample_weight, "labels": labels}, (seed, spec, config, prior)
    source = open_source(x, spec.n_components, seed=seed, n_sample=max(START_ROWS, n_sample or 1), alike=alike, **rows)
    if source is None:
        data = prepare(x, spec, sample_weight, config, prior, labels=labels, missing=missing, n_fits=n_fits)
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


def prepare_many(
    keys, x, spec, config, prior, n_restarts, *, sample_weight=None, labels=None, missing=None
) -> list[dict[int, Data]]:
    """Data sets (P, N, D), or P of different size, in batches of one shape: number -> data.

    Rows that fill up the shorter ones count nowhere, and blocks of them are not computed: so one batch, and its
    programs, takes many sizes. There are weights, labels or gaps in all of a batch where some have any. A ValueError
    names the first data set at fault.
    """
    sizes, n_features = _sizes(keys, x, sample_weight, labels), np.shape(x[0])[-1]
    prior = [prior] * len(x) if isinstance(prior, Hyperparameters) or prior is None else prior
    batches = _of_like_size(sizes, n_features, n_restarts * spec.n_components * n_features**2)
    like, data = {}, []
    for batch in batches:
        of_batch = {"n_fits": n_restarts * len(batch), "n_largest": max(sizes[p] for p in batch)}
        like |= dict.fromkeys(batch, of_batch)
    for p, rows in enumerate(x):
        weight, of_rows = (None if given is None else np.asarray(given[p]) for given in (sample_weight, labels))
        try:
            data.append(prepare(rows, spec, weight, config, prior[p], labels=of_rows, missing=missing, **like[p]))
        except ValueError as error:
            raise ValueError(f"data set {p}: {error}") from error
    return [dict(zip(batch, _alike([data[p] for p in batch]), strict=True)) for batch in batches]


def _sizes(keys, x, sample_weight, labels):
    """Of many data sets, or a ValueError where there are no keys or row annotations for each."""
    if len(keys) != len(x) or not len(x):
        raise ValueError(f"x must hold one data set for each of {len(keys)} keys; it holds {len(x)}.")
    sizes = [len(rows) for rows in x]
    for name, given in (("sample_weight", sample_weight), ("labels", labels)):
        if given is not None and [np.shape(rows) for rows in given] != [(n,) for n in sizes]:
            shape = f"shape {np.shape(x)[:2]}" if len(set(sizes)) == 1 else f"the lengths {sizes}"
            raise ValueError(f"{name} must have {shape}, a number for each row of each data set.")
    return sizes


def _of_like_size(sizes, n_features, per_row):
    """Numbers of data sets in batches, large ones first, dealt out so that each core's share has all sizes.

    Small ones have a batch of their own where what they fill up would take more time or memory than a compilation.
    """
    order, sizes, batches = np.argsort(sizes, kind="stable")[::-1], np.asarray(sizes), []
    for place, p in enumerate(order):
        largest, rest = sizes[batches[-1][0]] if batches else np.inf, sizes[order[place:]]
        idle = np.sum(np.maximum(min(largest, BLOCK_ROWS) - rest, 0)) * per_row
        costly = idle > COMPILATION or rest.size * largest * n_features > MOST_NUMBERS
        if not batches or (SPAN * sizes[p] < largest and costly):
            batches.append([])
        batches[-1].append(int(p))
    return [[p for i in range(n_workers()) for p in batch[i :: n_workers()]] for batch in batches]


def _alike(data):
    some, size = any(d.annotations.labels is not None for d in data), len(data[0].z)
    weighted = any(d.annotations.weight is not None for d in data)
    groups = same_size([d.annotations.groups for d in data], [d.n_rows for d in data], data[0].z.shape[1])
    found = []
    for d, gaps in zip(data, groups, strict=True):
        weight, labels = d.annotations[:2]
        labels = np.full(size, -1, np.int32) if some and labels is None else labels
        weight = np.ones(size, d.dtype) if weighted and weight is None else weight
        found.append(d._replace(annotations=d.annotations._replace(weight=weight, labels=labels, groups=gaps)))
    return found


def starts_of_each(keys, data: Sequence[Data], init, n_restarts: int, programs_for: int) -> GMM:
    """Standardised starts (P, R), all at once, or where labels or gaps change what they are drawn from one by one."""
    first = data[0].annotations
    one_by_one = isinstance(init, GMM) or max(d.n_rows for d in data) > START_ROWS
    if one_by_one or not takes_n_rows(start_function(init)) or first.labels is not None or first.groups is not None:
        drawn = [starts_of(key, d, init, n_restarts) for key, d in zip(keys, data, strict=True)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
    inner = jax.tree.map(lambda *leaves: np.stack(leaves), *[d.inner for d in data])
    rows = np.stack([pad(d.for_starts, len(d.z)) for d in data])
    problem = (keys, rows, np.stack([d.annotations.n_rows for d in data]), inner)
    starts = draw_for_each(problem, start_function(init), n_restarts, programs_for)
    if data[0].inner.known.means is None and exchangeable(data[0].inner).all():
        return starts
    ordered = [apart(in_known_order(pick(starts, p), d.inner), d.inner) for p, d in enumerate(data)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *ordered)
