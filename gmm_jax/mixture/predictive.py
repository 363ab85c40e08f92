"""Mean density of M mixtures, an estimate (M = 1) or a posterior's draws: p(x) = 1/M Σ_m p(x | θ_m).

With it the mean of their responsibilities, p(k | x). Both are computed in standardised units, so that float32 holds
seconds since 1970 too, and in float64 on the host for rows so far away that every density underflows.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .annotations import check_missing, padded_size
from .covariance import structure
from .empty import with_empty
from .forks import check_process
from .gmm import GMM, log_joint
from .programs import jit
from .scaling import Scaling, standard_units

BLOCK_NUMBERS = 1 << 22  # K·D·rows of one block of densities: 32 MiB of float64
FEW_ROWS = (512, 4096)  # of a block, up to which there are no other sizes
ROUNDING = 1e-3  # nats of a log density, above which rows are taken in float64 and apart
FARTHEST = 1e150  # sds: beyond it responsibilities are at their limit


class Predictive(NamedTuple):
    """Of each row, in the units of the data; float64 in NumPy."""

    log_density: Float[np.ndarray, "N"]  # log p(x_n), nats
    responsibilities: Float[np.ndarray, "N K"]  # p(k | x_n): rows sum to one, also where the density underflows


@np.errstate(all="ignore")
def predictive(gmms: GMM, x: Float[Array, "N D"], *, missing: str | None = None) -> Predictive:
    """Log of the mean density and mean responsibilities of rows under mixtures with one leading axis.

    With missing="marginalise" what is NaN in a row is summed out.
    """
    check_process()
    check_missing(missing)
    x = np.asarray(x)
    inner, scaling = pooled_units(gmms, np.result_type(x.dtype, np.asarray(gmms.means).dtype))
    z = (x.astype(float) - scaling.centre) / scaling.scale
    narrow = z.astype(inner.means.dtype)  # what float32 cannot hold is infinite, and far
    if missing is not None and np.isnan(z).any():
        return _with_gaps(gmms, x) if len(gmms.weights) > 1 else _of_what_was_seen(inner, narrow, scaling, missing)
    rows = _block_rows(min(len(z), BLOCK_NUMBERS // math.prod(np.shape(gmms.means)[1:])))
    n_components, blocks = inner.n_components, []
    if rows in FEW_ROWS:  # few programs: every other number of components has those of the next
        inner = with_empty(inner, n_components + n_components % 2)
    for i in range(0, len(z), rows):
        padded = np.pad(narrow[i : i + rows], ((0, max(0, i + rows - len(z))), (0, 0)))
        blocks.append(jax.tree.map(np.asarray, _mean_over_mixtures(inner, padded)))
    log_density, p = (np.concatenate(part)[: len(z)].astype(float) for part in zip(*blocks, strict=True))
    p = p[:, :n_components]
    lowest = -ROUNDING / np.finfo(narrow.dtype).eps
    far = ~((log_density > lowest) & np.isfinite(p).all(axis=1)) & np.isfinite(z).all(axis=1)
    if far.any():
        exact = scaling.inward(gmms)
        log_density[far], p[far] = _of_far_rows(exact, z[far])
    return Predictive(log_density - scaling.log_volume, p)


def pooled_units(gmms: GMM, dtype) -> tuple[GMM, Scaling]:
    """The mixtures (M, ...) in units in which all together have mean 0 and variances 1, and the map back."""
    weights, means, covariances = (np.asarray(leaf, float) for leaf in (gmms.weights, gmms.means, gmms.covariances))
    if structure(gmms.covariance_type).per_component:
        kind, covariances = gmms.covariance_type, covariances.reshape(-1, *covariances.shape[2:])
    else:
        kind, covariances = "full", np.repeat(covariances, weights.shape[1], axis=0)
    one = GMM(weights.ravel() / len(weights), means.reshape(-1, means.shape[2]), covariances, kind)
    return standard_units(one, dtype, gmms)


def _block_rows(n):
    """Few shapes, and for many rows few that fill up."""
    return next((rows for rows in FEW_ROWS if rows >= n), padded_size(n))


@jit
def _mean_over_mixtures(mixtures: GMM, z: Float[Array, "N D"]):
    """log mean_m p(z_n | θ_m) and mean_m p(k | z_n, θ_m), one mixture at a time."""

    def add(sums, gmm):
        joint = log_joint(gmm, z).T  # sums over rows of one component after the other are a third quicker
        highest = jnp.max(joint, axis=0, keepdims=True)
        ratios = jnp.exp(joint - highest)
        total = jnp.sum(ratios, axis=0, keepdims=True)
        return (jnp.logaddexp(sums[0], (highest + jnp.log(total))[0]), sums[1] + ratios / total), None

    n_mixtures, n_components = mixtures.weights.shape
    nothing = jnp.full(z.shape[0], -jnp.inf, z.dtype), jnp.zeros((n_components, z.shape[0]), z.dtype)
    (log_sum, r), _ = jax.lax.scan(add, nothing, mixtures)
    return log_sum - math.log(n_mixtures), r.T / n_mixtures


def _of_what_was_seen(mixtures, z, scaling, missing):
    joint = np.asarray(log_joint(jax.tree.map(lambda leaf: leaf[0], mixtures), z, missing=missing), float)
    log_density = np.logaddexp.reduce(joint, axis=1)
    return Predictive(log_density - ~np.isnan(z) @ np.log(scaling.scale), np.exp(joint - log_density[:, None]))


def _with_gaps(gmms, x):
    """Rows in which the same was seen, together: under the mixtures of these features."""
    seen = ~np.isnan(x)
    log_density, p = np.zeros(len(x)), np.zeros((len(x), gmms.n_components))
    for features in np.unique(seen, axis=0):
        rows = (seen == features).all(axis=1)
        if features.any():
            log_density[rows], p[rows] = predictive(_of_features(gmms, features), x[np.ix_(rows, features)])
        else:
            p[rows] = np.mean(gmms.weights, axis=0)
    return Predictive(log_density, p)


def _of_features(gmms, features):
    covariances = np.asarray(gmms.covariances)
    if gmms.covariance_type != "spherical":
        covariances = covariances[..., features]
    if gmms.covariance_type in ("full", "tied"):
        covariances = covariances[..., features, :]
    return replace(gmms, means=np.asarray(gmms.means)[..., features], covariances=covariances)


def _of_far_rows(gmms, z):
    """Both of rows anywhere, in float64 NumPy: with z = s u the log joint is C + s B − ½ s² A, and A comes first."""
    log_sum, total = np.full(len(z), -np.inf), 0.0
    size = np.maximum(np.max(np.abs(z), axis=1, keepdims=True), 1.0)
    u, s = z / size, np.minimum(size, FARTHEST)
    for m in range(len(gmms.weights)):
        weights, means = gmms.weights[m], gmms.means[m]
        a, pull, log_normaliser = _quadratic(gmms.covariances[m], gmms.covariance_type, means, u)
        least = np.where(weights > 0.0, a, np.inf).min(axis=1, keepdims=True)
        higher = np.where(weights > 0.0, a - least, 1.0)
        c = np.log(weights) + log_normaliser - 0.5 * np.sum(pull * means, axis=1)
        rest = -0.5 * higher * s**2 + s * (u @ pull.T) + c
        log_density = np.logaddexp.reduce(rest, axis=1)
        total = total + np.exp(rest - log_density[:, None])
        log_sum = np.logaddexp(log_sum, log_density - 0.5 * least[:, 0] * size[:, 0] ** 2)
    return log_sum - math.log(len(gmms.weights)), total / len(gmms.weights)


def _quadratic(covariances, covariance_type, means, u):
    """uᵀ Σ_k⁻¹ u (n, K), Σ_k⁻¹ μ_k (K, D), and −½ log |2π Σ_k| (K,)."""
    n_components, n_features = means.shape
    if covariance_type in ("diag", "spherical"):
        precision = 1.0 / np.broadcast_to(covariances.reshape(n_components, -1), means.shape)
        a, pull, log_det = u**2 @ precision.T, precision * means, np.sum(np.log(precision), axis=1)
    else:
        precision = np.linalg.inv(structure(covariance_type).dense(covariances, n_components, n_features))
        a = np.einsum("nd,kde,ne->nk", u, precision, u)
        pull, log_det = np.einsum("kde,ke->kd", precision, means), np.linalg.slogdet(precision)[1]
    return a, pull, 0.5 * (log_det - n_features * math.log(2.0 * math.pi))
