r"""The mixture p(x) = Σ_k φ_k N(x | μ_k, Σ_k), its densities, and what can be done to it.

All densities are log densities through Cholesky factors, for one mixture; `jax.vmap` gives many.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from .annotations import Annotations, condition, groups_at_once, missing_groups, strike_out, ungroup
from .covariance import HALF_LOG_TWO_PI, structure, whitened_log_joint
from .factor import last_axes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GMM:
    r"""Gaussian mixture p(x) = Σ_k φ_k N(x | μ_k, Σ_k).

    The shape of `covariances` follows covariance_type: full (K, D, D), tied (D, D), diag (K, D), spherical (K,).
    Leading axes (restarts, chains, draws, ...) may stand in front of every leaf. The constructor checks nothing,
    because JAX rebuilds it with batched leaves; `validate` does.
    """

    weights: Float[Array, "*batch K"]  # φ, on the simplex
    means: Float[Array, "*batch K D"]  # μ, units of the data
    covariances: Float[Array, "*batch ..."]  # Σ, squared units of the data
    covariance_type: str = field(default="full", metadata={"static": True})

    @property
    def n_components(self) -> int:
        return self.means.shape[-2]

    @property
    def n_features(self) -> int:
        return self.means.shape[-1]


def log_joint_components_first(gmm: GMM, deviations: Float[Array, "K D N"], whitener=None) -> Float[Array, "K N"]:
    """log φ_k + log N(x_n | μ_k, Σ_k) from the deviations x_n − μ_k: the one place where the density is written.

    `whitener` is the structure's whitener of gmm.covariances, for callers that take many blocks of rows.
    """
    kind = structure(gmm.covariance_type)
    whitener = kind.whitener(gmm.covariances) if whitener is None else whitener
    return whitened_log_joint(gmm.weights, log_normalisers(gmm, whitener), kind.whiten(whitener, deviations))


def log_normalisers(gmm: GMM, whitener: Float[Array, "..."]) -> Float[Array, "K"]:
    """−½ log |2π Σ_k|, broadcastable to (K,)."""
    n_features = gmm.means.shape[-1]
    return structure(gmm.covariance_type).half_log_precision(whitener, n_features) - n_features * HALF_LOG_TWO_PI


def deviations(gmm: GMM, x: Float[Array, "N D"]) -> Float[Array, "K D N"]:
    """x_n − μ_k, components first."""
    return x.T[None, :, :] - gmm.means[:, :, None]


def log_joint(gmm: GMM, x: Float[Array, "N D"], *, missing: str | None = None) -> Float[Array, "N K"]:
    """log φ_k + log N(x_n | μ_k, Σ_k), nats; NaN where a Σ_k is not positive definite, or an entry of x is NaN.

    With missing="marginalise" it is the density of what is not NaN in each row (see `rows`), and so in `log_prob`,
    `responsibilities` and `predict`. NaN are looked for in NumPy, so not under jit, vmap or grad.
    """
    x, groups = missing_groups(x, missing)
    return log_joint_of_rows(gmm, x, Annotations(groups=groups))


@jax.jit
def log_joint_of_rows(gmm: GMM, x: Float[Array, "N D"], rows: Annotations) -> Float[Array, "N K"]:
    """log_joint of what was seen of each row; −inf where its label says that it is another component."""
    if rows.groups is None:
        joint = log_joint_components_first(gmm, deviations(gmm, x))
    else:
        joint = _log_joint_of_groups(gmm, x, rows.groups).T
    return strike_out(joint, rows.labels).T


def _log_joint_of_groups(gmm, x, groups):
    def one(group):
        members, seen = group
        return condition(gmm, jnp.take(x, members, axis=0), seen)[0].T  # (B, K)

    joint = jax.lax.map(one, tuple(groups), batch_size=groups_at_once(groups, gmm))
    return ungroup(groups, joint, x.shape[0])


@jax.jit
def log_prob_of_rows(gmm: GMM, x: Float[Array, "N D"], rows: Annotations) -> Float[Array, "N"]:
    """log p(x_n) of what was seen; of a labelled row jointly with its label, log φ_k N(x_n | μ_k, Σ_k)."""
    return logsumexp(log_joint_of_rows(gmm, x, rows), axis=-1)


def log_prob(gmm: GMM, x: Float[Array, "N D"], *, missing: str | None = None) -> Float[Array, "N"]:
    """log p(x_n) of each sample, nats per unit volume of the data (of what was seen of them: see log_joint)."""
    x, groups = missing_groups(x, missing)
    return log_prob_of_rows(gmm, x, Annotations(groups=groups))


def responsibilities(gmm: GMM, x: Float[Array, "N D"], *, missing: str | None = None) -> Float[Array, "N K"]:
    """p(component k | x_n): rows sum to one. `missing` as in log_joint."""
    return _responsibilities(gmm, *missing_groups(x, missing))


@jax.jit
def _responsibilities(gmm, x, groups):
    return jax.nn.softmax(log_joint_of_rows(gmm, x, Annotations(groups=groups)), axis=-1)


def predict(gmm: GMM, x: Float[Array, "N D"], *, missing: str | None = None) -> Int[Array, "N"]:
    """The most probable component of each sample (the lowest index on a tie). `missing` as in log_joint."""
    return _predict(gmm, *missing_groups(x, missing))


@jax.jit
def _predict(gmm, x, groups):
    return jnp.argmax(log_joint_of_rows(gmm, x, Annotations(groups=groups)), axis=-1)


@partial(jax.jit, static_argnames="n")
def sample(key: Key[Array, ""], gmm: GMM, n: int) -> tuple[Float[Array, "n D"], Int[Array, "n"]]:
    """n independent samples and the components that made them, labels drawn for every sample anew."""
    key_labels, key_noise = jax.random.split(key)
    labels = jax.random.categorical(key_labels, jnp.log(gmm.weights), shape=(n,))
    return sample_given_labels(key_noise, gmm, labels), labels


@jax.jit
def sample_given_labels(key: Key[Array, ""], gmm: GMM, labels: Int[Array, "N"]) -> Float[Array, "N D"]:
    """One sample from component labels[n] for every n."""
    n_components, n_features = gmm.means.shape
    matrices = structure(gmm.covariance_type).dense(gmm.covariances, n_components, n_features)
    noise = jax.random.normal(key, (labels.shape[0], n_features), gmm.means.dtype)

    def place(x, component):  # one component at a time: no (N, D, D) array
        k, mean, cholesky = component
        return jnp.where((labels == k)[:, None], mean[None, :] + noise @ cholesky.T, x), None

    components = (jnp.arange(n_components, dtype=labels.dtype), gmm.means, jnp.linalg.cholesky(matrices))
    return jax.lax.scan(place, jnp.zeros_like(noise), components)[0]


def permute(gmm: GMM, order: Int[Array, "*batch K"]) -> GMM:
    """The same mixture with component order[j] in place j; leading axes of order and leaves must agree."""
    kind = structure(gmm.covariance_type)
    permuted = replace(gmm, weights=_take(gmm.weights, order, 1), means=_take(gmm.means, order, 2))
    if not kind.per_component:
        return permuted
    return replace(permuted, covariances=_take(gmm.covariances, order, len(kind.shape(1, 1))))


def affine(gmm: GMM, scale, shift=0.0) -> GMM:
    """The mixture of scale · x + shift.

    `scale` is a number, a vector (D,), or for full and tied a matrix (D, D); spherical takes a number only.
    Leading axes of the mixture are kept; NumPy leaves stay NumPy.
    """
    xp = np if isinstance(gmm.means, np.ndarray) else jnp
    scale, shift = xp.asarray(scale, gmm.means.dtype), xp.asarray(shift, gmm.means.dtype)
    shift = last_axes(shift * xp.ones(gmm.n_features, shift.dtype), gmm.means.ndim)
    if scale.ndim == 2:
        if gmm.covariance_type not in ("full", "tied"):
            raise ValueError(f"affine with a matrix needs covariance_type full or tied; got {gmm.covariance_type!r}.")
        matrix = scale
        return replace(gmm, means=gmm.means @ matrix.T + shift, covariances=matrix @ gmm.covariances @ matrix.T)
    if gmm.covariance_type == "spherical" and scale.ndim == 1 and np.ptp(np.asarray(scale)) != 0.0:
        raise ValueError("affine of a spherical mixture needs one common scale; got a vector with different entries.")
    scale = scale * xp.ones(gmm.n_features, scale.dtype)
    return replace(
        gmm,
        means=gmm.means * last_axes(scale, gmm.means.ndim) + shift,
        covariances=structure(gmm.covariance_type).rescale(gmm.covariances, scale),
    )


def validate(gmm: GMM, *, name: str = "gmm", n_features: int | None = None) -> GMM:
    """The mixture itself, or a ValueError with one sentence: which leaf, which component, what to try."""
    names = ("weights", "means", "covariances")
    weights, means, covariances = (real_array(getattr(gmm, leaf), f"{name}.{leaf}") for leaf in names)
    kind = structure(gmm.covariance_type)
    if means.ndim != 2:
        raise ValueError(f"{name}.means must have shape (K, D); got {means.shape}.")
    n_components, width = means.shape
    if n_features is not None and width != n_features:
        raise ValueError(f"{name}.means has {width} features, but the data have {n_features}.")
    if weights.shape != (n_components,):
        raise ValueError(f"{name}.weights must have shape ({n_components},), one a component; got {weights.shape}.")
    expected = kind.shape(n_components, width)
    if covariances.shape != expected:
        raise ValueError(
            f"{name}.covariances must have shape {expected} for covariance_type {gmm.covariance_type!r} with "
            f"{n_components} components and {width} features; got {covariances.shape}."
        )
    for leaf, values in zip(names, (weights, means, covariances), strict=True):
        if not np.all(np.isfinite(values)):
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise ValueError(f"{name}.{leaf} must be finite; got {values[where]} at index {where}.")
    if np.any(weights < 0.0):
        k = int(np.argmin(weights))
        raise ValueError(f"{name}.weights must not be negative; got {weights[k]:.6g} for component {k}.")
    total = float(np.sum(weights))
    if abs(total - 1.0) > max(1e-6, 1e3 * np.finfo(np.result_type(weights, np.float32)).eps):
        raise ValueError(f"{name}.weights must sum to 1, got {total:.6f}; for counts pass weights / weights.sum().")
    check_positive_definite(covariances, gmm.covariance_type, name=f"{name}.covariances")
    return gmm


def real_array(value, name) -> np.ndarray:
    """The value as an array of real numbers in NumPy, or a ValueError that names it."""
    try:
        array = np.asarray(value)
    except ValueError:  # NumPy's sentence on ragged lists does not say whose they are
        raise ValueError(f"{name} must be an array; got rows of different lengths or kinds.") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must hold real numbers; got dtype {array.dtype}: convert or drop what is no number.")
    return array


def check_positive_definite(covariances, covariance_type, *, name):
    """A ValueError that names the first covariance that is not symmetric positive definite."""
    if covariance_type in ("diag", "spherical"):
        if np.any(covariances <= 0.0):
            where = tuple(int(i) for i in np.argwhere(covariances <= 0.0)[0])
            raise ValueError(f"{name} holds variances, which are positive; got {covariances[where]:.6g} at {where}.")
        return
    matrices = covariances if covariances.ndim == 3 else covariances[None]
    for k, matrix in enumerate(matrices):
        place = f"component {k}" if covariance_type == "full" else "the shared covariance"
        scale = np.max(np.abs(matrix))
        if np.max(np.abs(matrix - matrix.T)) > 1e-5 * scale:
            raise ValueError(f"{name} must be symmetric; {place} is not: use (S + S.T) / 2.")
        smallest = float(np.min(np.linalg.eigvalsh(matrix.astype(float))))
        if not smallest > 0.0:
            raise ValueError(
                f"{name} must be positive definite; {place} has smallest eigenvalue {smallest:.3g}: "
                "add a small multiple of the identity."
            )


def _take(leaf, order, trailing):
    xp = np if isinstance(leaf, np.ndarray) else jnp
    index = xp.reshape(xp.asarray(order), xp.shape(order) + (1,) * (trailing - 1))
    return xp.take_along_axis(leaf, index, axis=leaf.ndim - trailing)
