r"""Random truths: covariances Σ = A Aᵀ, Gaussians, mixtures, and mixtures whose separation is set beforehand.

All are pure functions of a key and of static sizes, so `jax.vmap` over keys gives many. Data from a truth come from
`gmm_jax.sample` (labels drawn anew) or from `sample_given_labels` with the counts of `fixed_counts`.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, structure
from ..mixture.checks import keyed
from ..mixture.programs import jit

RIDGE = 0.01  # of E[A Aᵀ]: what keeps a random covariance from being singular
JITTER = 0.25  # of the lattice's spacing: neighbours stay at least half a spacing apart


@keyed
@partial(jit, static_argnames="n_features")
def random_covariance(key: Key[Array, ""], n_features: int) -> Float[Array, "D D"]:
    r"""Σ = A Aᵀ + c (D/12) I with A uniform on (−1/2, 1/2)^{D×D}: the course's, but never singular.

    (D/12) I is the mean of A Aᵀ and c = 0.01. As A Aᵀ has no eigenvalue above D²/4, the smallest eigenvalue is at
    least c / (3D + c) of the largest, whatever the key: 1/601 for D = 2, 1/3001 for D = 10.
    """
    a = jax.random.uniform(key, (n_features, n_features), minval=-0.5, maxval=0.5)
    return a @ a.T + RIDGE * n_features / 12.0 * jnp.eye(n_features, dtype=a.dtype)


@keyed
@partial(jit, static_argnames="n_features")
def random_gaussian(
    key: Key[Array, ""], n_features: int, distance: float = 5.0
) -> tuple[Float[Array, "D"], Float[Array, "D D"]]:
    """(μ, Σ) as in the course: μ uniform on (0, distance)^D, Σ a random covariance."""
    key_mean, key_covariance = jax.random.split(key)
    mean = distance * jax.random.uniform(key_mean, (n_features,))
    return mean, random_covariance(key_covariance, n_features)


@keyed
@partial(jit, static_argnames=("n_components", "n_features", "covariance_type"))
def random_mixture(
    key: Key[Array, ""],
    n_components: int,
    n_features: int,
    *,
    distance: float = 5.0,
    covariance_type: str = "full",
    weights: Float[Array, "K"] | None = None,
) -> GMM:
    """K random Gaussians, as in the course; components may overlap as they please.

    Without `weights` φ is uniform on (1/2, 3/2) and normalised, so that no component is below 1 / (3K).
    """
    key_weights, key_gaussians = jax.random.split(key)
    keys = jax.random.split(key_gaussians, n_components)
    means, matrices = jax.vmap(lambda k: random_gaussian(k, n_features, distance))(keys)
    if weights is None:
        mass = jax.random.uniform(key_weights, (n_components,), minval=0.5, maxval=1.5)
        weights = mass / jnp.sum(mass)
    return _mixture(weights, means, matrices, covariance_type)


@keyed
@partial(jit, static_argnames=("n_components", "n_features", "covariance_type"))
def separated_mixture(
    key: Key[Array, ""],
    n_components: int,
    n_features: int,
    separation: float,
    *,
    covariance_type: str = "full",
    weights: Float[Array, "K"] | None = None,
) -> GMM:
    """Unit covariances, and the closest pair of means exactly `separation` standard deviations apart.

    Means stand on a jittered lattice, scaled, so every component has near neighbours, for any K and D. Weights are
    equal unless given.
    """
    lattice = _lattice(n_components, n_features)
    points = lattice + jax.random.uniform(key, lattice.shape, minval=-JITTER, maxval=JITTER)
    means = points * (separation / _closest(points))
    weights = jnp.full((n_components,), 1.0 / n_components) if weights is None else weights
    matrices = jnp.broadcast_to(jnp.eye(n_features), (n_components, n_features, n_features))
    return _mixture(weights, means, matrices, covariance_type)


def fixed_counts(weights: Float[np.ndarray, "K"], n: int) -> Int[np.ndarray, "K"]:
    """n·φ in whole numbers that sum to n: rounded down, the rest to the largest remainders. In NumPy."""
    weights = np.asarray(weights, float)
    expected = n * weights / weights.sum()  # float32 weights sum to 1 only nearly
    counts = np.floor(expected).astype(int)
    order = np.argsort(counts - expected, kind="stable")  # largest remainder first, ties to the lower index
    counts[order[: n - counts.sum()]] += 1
    return counts


def _mixture(weights, means, matrices, covariance_type):
    weights = jnp.asarray(weights, means.dtype)
    covariances = structure(covariance_type).from_dense(matrices, weights)
    return GMM(weights, means, covariances, covariance_type)


def _lattice(n_components, n_features):
    """The first K points of the smallest D-cube of whole numbers that has room for them: (K, D) in NumPy."""
    side = math.ceil(n_components ** (1.0 / n_features))
    return (np.arange(n_components)[:, None] // float(side) ** np.arange(n_features)) % side


def _closest(points):
    """The smallest distance of two rows; infinite for one row."""
    squared = jnp.sum((points[:, None, :] - points[None, :, :]) ** 2, axis=-1)
    return jnp.sqrt(jnp.min(jnp.where(jnp.eye(points.shape[0], dtype=bool), jnp.inf, squared)))
