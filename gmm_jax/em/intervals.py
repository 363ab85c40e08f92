"""Intervals of every entry of a mixture, on the scale of the entries and on one where they have no bounds."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..mixture import GMM, MixtureSpec, Status, free_entries, free_parts, structure
from .fit import EMResult
from .uncertainty import asymptotics_at, standardised


class Bounds(NamedTuple):
    """Lower and upper ends, entry by entry; both the value itself where known."""

    lower: GMM
    upper: GMM


class Intervals(NamedTuple):
    """Intervals of every entry of φ, μ and Σ; NaN where the status is not CONVERGED."""

    raw: Bounds  # estimate ± z·standard error
    transformed: Bounds  # on the scale of logit φ and log-Cholesky Σ, transformed back; μ as in raw
    status: Status


def intervals(
    x: Float[Array, "N D"],
    result: EMResult,
    spec: MixtureSpec,
    *,
    level: float = 0.95,
    method: str = "observed",
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
) -> Intervals:
    """Intervals that cover each entry with probability `level` in large samples, on two scales.

    raw is symmetric, and may leave the parameter space. transformed stays within: for φ_k it is symmetric in logit φ_k;
    an entry of Σ is moved to its ends along the direction of log-Cholesky space in which it and its error change (for
    a variance of diag or spherical, and for Σ_11, that is the interval of its logarithm). `labels` and `missing` are
    those of the fit.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1); got {level!r}: 0.95 is usual.")
    at = standardised(x, result, spec, labels, missing)
    found = asymptotics_at(at, method)
    z = NormalDist().inv_cdf(0.5 + 0.5 * level)

    def bounds(end):
        ends = (at.scaling.outward(end(at, found, s * z)) for s in (-1.0, 1.0))
        # what has no error is itself, to the last digit
        ends = [jax.tree.map(_unless_sure, found.standard_errors, result.gmm, e) for e in ends]
        return Bounds(jax.tree.map(np.minimum, *ends), jax.tree.map(np.maximum, *ends))

    return Intervals(bounds(_raw), bounds(_transformed), found.status)


def _unless_sure(error, value, end):
    return np.where(error == 0.0, np.asarray(value, end.dtype), end)


def _raw(at, found, z):
    return jax.tree.map(lambda value, error: value + z * error, at.gmm, found.standard_errors)


def _transformed(at, found, z):
    """The mixture whose every entry is moved by z of its errors, on the scale where it has no bounds."""
    raw, weights, errors = _raw(at, found, z), np.asarray(at.gmm.weights, float), found.standard_errors
    with np.errstate(divide="ignore", invalid="ignore"):  # φ = 1 of one component
        odds = np.log(weights) - np.log1p(-weights) + z * errors.weights / (weights * (1.0 - weights))
        raw = replace(raw, weights=1.0 / (1.0 + np.exp(-odds)))
    if at.gmm.covariance_type in ("diag", "spherical"):
        return replace(raw, covariances=at.gmm.covariances * np.exp(z * errors.covariances / at.gmm.covariances))
    free = free_entries(at.gmm, free_parts(at.spec)[2])
    if not free[0].size:
        return raw
    i, j = np.tril_indices(at.z.shape[1])
    n_free = free[0].size // i.size
    # free Σ come last in θ, matrix after matrix
    block = found.covariance[-free[0].size :, -free[0].size :].reshape(n_free, i.size, n_free, i.size)
    matrices = np.array(at.gmm.covariances, float).reshape(-1, *at.gmm.covariances.shape[-2:])
    which = np.flatnonzero(free_parts(at.spec)[2])[: len(matrices)]
    blocks = np.moveaxis(np.diagonal(block, axis1=0, axis2=2), -1, 0)
    ends = np.asarray(_log_cholesky_ends(matrices[which], blocks, z))
    matrices[which[:, None], i[None], j[None]] = matrices[which[:, None], j[None], i[None]] = ends
    return replace(raw, covariances=matrices.reshape(at.gmm.covariances.shape))


@jax.jit
def _log_cholesky_ends(matrices, blocks, z):
    """(M, T): each entry i ≥ j of M matrices, moved by z of its errors along η ↦ η + z cov(η, Σ_ij) / se(Σ_ij)."""
    full, (i, j) = structure("full"), np.tril_indices(matrices.shape[-1])

    def entries(logs):
        return full.from_logs(logs, 1, matrices.shape[-1])[0, i, j]

    def logs(entries):
        lower = jnp.zeros(matrices.shape[1:], entries.dtype).at[i, j].set(entries)
        return full.to_logs(lower.at[j, i].set(entries))

    def ends(matrix, block):
        there = matrix[i, j]
        steps = jax.jacobian(logs)(there) @ block / jnp.sqrt(jnp.diagonal(block))[None, :]
        return jnp.diagonal(jax.vmap(lambda step: entries(logs(there) + z * step))(steps.T))

    return jax.vmap(ends)(matrices, blocks)
