"""Row annotations: weights (how often a row counts), labels (its component), gaps (what of it was not seen).

A row of which only the features o were seen has the density Σ_k φ_k N(x_o | μ_k,o, Σ_k,oo): where values are missing at
random, that is all that it says (Rubin 1976, Biometrika 63). A row that is known to come from component k has the
density φ_k N(x | μ_k, Σ_k).

References:
    Ghahramani & Jordan (1994), Supervised learning from incomplete data via an EM approach, NIPS 6; Little & Rubin
    (2019), Statistical Analysis with Missing Data, ch. 11.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .covariance import HALF_LOG_TWO_PI, structure, whitened_log_joint

MARGINALISE = "marginalise"
LARGEST_GROUP = 512  # rows
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


def same_size(many: list[Groups | None], n_samples: int, n_features: int) -> list[Groups | None]:
    """Groups of many data sets of (n_samples, n_features) filled up to one shape; None where none of them has any."""
    if all(groups is None for groups in many):
        return many
    many = [_groups(np.ones((n_samples, n_features), bool)) if groups is None else groups for groups in many]
    n_groups, size = (max(groups.rows.shape[axis] for groups in many) for axis in (0, 1))

    def fill(groups):
        short = n_groups - len(groups.rows)
        rows = np.pad(groups.rows, ((0, short), (0, size - groups.rows.shape[1])), constant_values=-1)
        return Groups(rows, np.pad(groups.seen, ((0, short), (0, 0)), constant_values=True))

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
