"""Row annotations: weights (how often a row counts), labels (its component), gaps (what of it was not seen).

Each new shape is a program to compile, so entry points fill rows up to one of a few sizes, four to an octave, and fewer
for what runs for less than a compilation takes; how many rows there are is a number that is no part of the shape. Rows
that fill up are zeros, and count nowhere.

A row of which only the features o were seen has the density Σ_k φ_k N(x_o | μ_k,o, Σ_k,oo): where values are missing at
random, that is all that it says (Rubin 1976, Biometrika 63). A row that is known to come from component k has the
density φ_k N(x | μ_k, Σ_k).

References:
    Ghahramani & Jordan (1994), Supervised learning from incomplete data via an EM approach, NIPS 6; Little & Rubin
    (2019), Statistical Analysis with Missing Data, ch. 11.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .covariance import HALF_LOG_TWO_PI, structure, whitened_log_joint
from .programs import make_room

MARGINALISE = "marginalise"
LARGEST_GROUP = 512  # rows
MOST_FILLED = 1 << 16  # rows that `filled_up` copies
SIZES = (32, 38, 45, 54, 64)  # of rows, times a power of two
QUICK_SIZES = (512, 4096, 8192)  # of rows of a quick run: blocks that are empty cost nothing
GROUP_SIZES = tuple(range(1, 17))  # of groups, the same
GROUP_NUMBERS = 1 << 18  # K·D·(rows + D) of the groups that are taken at once


class Groups(NamedTuple):
    """Rows that miss the same features, some at a time: their factorisations are shared."""

    rows: Int[Array, "M B"]  # where they stand in x; -1 fills up
    seen: Bool[Array, "M D"]


class Annotations(NamedTuple):
    """Weights, labels and gaps of the rows; None: there are none."""

    weight: Float[Array, "N"] | None = None  # counts it so many times
    labels: Int[Array, "N"] | None = None  # its component, -1 where unknown
    groups: Groups | None = None  # what of it was seen
    n_rows: Int[Array, ""] | None = None  # rows that are there, the first ones; None: all


def padded_size(n: int, sizes: tuple[int, ...] = SIZES, *, quick: bool = False) -> int:
    """The least size of at least n rows that programs are compiled for: at most a fifth more, unless it is quick."""
    if quick and n <= QUICK_SIZES[-1]:
        return min(size for size in QUICK_SIZES if size >= n)
    octave = max(0, int(n - 1).bit_length() - int(sizes[-1] - 1).bit_length())
    return min(size << octave for size in sizes if size << octave >= n)


def pad(rows: np.ndarray | None, n_rows: int, fill=0) -> np.ndarray | None:
    """An array with so many rows, of which the new ones hold `fill`; None stays None."""
    if rows is None or len(rows) == n_rows:
        return rows
    padded = np.full((n_rows, *rows.shape[1:]), fill, rows.dtype)
    padded[: len(rows)] = rows
    return padded


def pad_annotations(rows: Annotations, n: int, n_rows: int) -> Annotations:
    """Those of n rows for arrays that are filled up to n_rows."""
    groups = rows.groups
    if groups is not None:
        size = padded_size(len(groups.rows), GROUP_SIZES)
        groups = Groups(pad(groups.rows, size, -1), pad(groups.seen, size, True))
    return Annotations(pad(rows.weight, n_rows), pad(rows.labels, n_rows, -1), groups, np.asarray(n, np.int32))


def filled_up(x: Float[Array, "N D"], rows: Annotations) -> tuple[Float[Array, "n D"], Annotations]:
    """Rows and their annotations in a size that programs are compiled for.

    As they are while they are traced, on several devices, or so many that they take longer than a compiler; what does
    not fit together is left to whoever uses it.
    """
    of_rows = [leaf for leaf in (x, rows.weight, rows.labels) if leaf is not None]
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((x, rows)))
    if traced or not 0 < len(x) <= MOST_FILLED or any(np.shape(leaf)[:1] != x.shape[:1] for leaf in of_rows):
        return x, rows
    if isinstance(x, jax.Array) and len(x.devices()) > 1:
        return x, rows
    make_room()
    size = padded_size(len(x), quick=True)
    host = [None if leaf is None else np.asarray(leaf) for leaf in (x, *rows[:2])]
    return pad(host[0], size), pad_annotations(Annotations(*host[1:], rows.groups), len(x), size)


def there(n: int, n_rows: Int[Array, ""] | None) -> Bool[Array, "n"]:
    """Which of n rows do not merely fill up."""
    place = jnp.arange(n, dtype=jnp.int32)
    return place < (n if n_rows is None else n_rows)


def counts(rows: Annotations, n: int, dtype) -> Float[Array, "n"] | None:
    """How often each of n rows counts; None: once each."""
    if rows.n_rows is None:
        return rows.weight
    once = there(n, rows.n_rows)
    return once.astype(dtype) if rows.weight is None else jnp.where(once, rows.weight, jnp.zeros_like(rows.weight))


def total_count(rows: Annotations, n: int, dtype) -> Float[Array, ""]:
    """Σ of the counts of n rows: the number of samples."""
    if rows.weight is not None:
        return jnp.sum(counts(rows, n, dtype))
    return jnp.asarray(n if rows.n_rows is None else rows.n_rows, dtype)


def missing_groups(x, missing: str | None) -> tuple[Float[Array, "N D"], Groups | None]:
    """(x with zeros for NaN, its groups) in NumPy; x as it is, and None, where nothing is missing or may be."""
    check_missing(missing)
    if missing is None:
        return x, None
    if isinstance(x, jax.core.Tracer):
        raise ValueError('missing="marginalise" looks for NaN in NumPy: call it outside of jit, vmap and grad.')
    unseen = np.isnan(np.asarray(x))
    if not unseen.any():
        return x, None
    return np.where(unseen, 0.0, x).astype(x.dtype), _groups(~unseen)


def put_gaps(x: Float[np.ndarray, "N D"], groups: Groups | None) -> Float[np.ndarray, "N D"]:
    """x with NaN where nothing was seen, in NumPy: undoes missing_groups."""
    if groups is None:
        return x
    seen = np.ones(x.shape, bool)
    group, place = np.nonzero(groups.rows >= 0)
    seen[groups.rows[group, place]] = groups.seen[group]
    return np.where(seen, x, np.asarray(np.nan, x.dtype))


def check_missing(missing) -> None:
    """A ValueError unless it is "marginalise" or None."""
    if missing not in (MARGINALISE, None):
        raise ValueError(f'missing must be "{MARGINALISE}" or None; got {missing!r}.')


def _groups(seen):
    """Groups of the size that costs least: a small one leaves no place empty, a large one factorises seldom."""
    patterns, of_row, count = np.unique(seen, axis=0, return_inverse=True, return_counts=True)
    of_row = of_row.reshape(-1)  # NumPy 2.0 kept the axis
    sizes = 2 ** np.arange(int(np.log2(LARGEST_GROUP)) + 1)
    size = int(min(sizes, key=lambda size: np.sum(-(-count // size)) * (size + seen.shape[1])))
    members = np.split(np.argsort(of_row, kind="stable"), np.cumsum(count)[:-1])
    rows = [np.pad(part, (0, -part.size % size), constant_values=-1).reshape(-1, size) for part in members]
    n_groups = [len(part) for part in rows]
    return Groups(np.concatenate(rows).astype(np.int32), np.repeat(patterns, n_groups, axis=0))


def same_size(many: list[Groups | None], n_samples: list[int], n_features: int) -> list[Groups | None]:
    """Groups of many data sets of so many rows filled up to one shape; None where none of them has any."""
    if all(groups is None for groups in many):
        return many
    many = [groups or _groups(np.ones((n, n_features), bool)) for groups, n in zip(many, n_samples, strict=True)]
    n_groups, size = (max(groups.rows.shape[axis] for groups in many) for axis in (0, 1))

    def fill(groups):
        wider = np.pad(groups.rows, ((0, 0), (0, size - groups.rows.shape[1])), constant_values=-1)
        return Groups(pad(wider, n_groups, -1), pad(groups.seen, n_groups, True))

    return [fill(groups) for groups in many]


def groups_at_once(groups: Groups, gmm) -> int:
    """How many groups' factorisations and deviations are held at a time."""
    n_components, n_features = gmm.means.shape
    return max(1, GROUP_NUMBERS // (n_components * n_features * (groups.rows.shape[1] + n_features)))


def condition(gmm, x: Float[Array, "B D"], seen: Bool[Array, "D"]):
    """Given the seen features of rows that lack the others.

    Returns:
        log φ_k + log N(x_o | μ_k,o, Σ_k,oo), (K, B); the deviations from μ_k with expectations where unseen, (K, D, B);
        and the covariance of the unseen given the seen, in the shape of gmm.covariances, 0 where seen (spherical: the
        mean over all features, which is what its sums want).
    """
    d = jnp.where(seen[None, :, None], x.T[None] - gmm.means[:, :, None], jnp.zeros((), x.dtype))
    z, half_log_precision, filled, leftover = structure(gmm.covariance_type).condition(gmm.covariances, seen, d)
    n_seen = jnp.sum(seen.astype(x.dtype))
    return whitened_log_joint(gmm.weights, half_log_precision - n_seen * HALF_LOG_TWO_PI, z), filled, leftover


def strike_out(joint: Float[Array, "K N"], labels: Int[Array, "N"] | None) -> Float[Array, "K N"]:
    """Log joint densities, −inf for every component but the known one where a row's label is known."""
    if labels is None:
        return joint
    k = jnp.arange(joint.shape[0], dtype=labels.dtype)[:, None]
    return jnp.where((labels[None] < 0) | (labels[None] == k), joint, jnp.asarray(-jnp.inf, joint.dtype))


def ungroup(groups: Groups, values: Float[Array, "M B ..."], n_samples: int) -> Float[Array, "N ..."]:
    """Values of the groups' rows, in the order of x."""
    place = jnp.where(groups.rows < 0, n_samples, groups.rows).reshape(-1)
    shape = values.shape[2:]
    return jnp.zeros((n_samples, *shape), values.dtype).at[place].set(values.reshape(-1, *shape), mode="drop")
