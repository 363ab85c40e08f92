"""Where iterations begin: a start is a pure function (key, x, spec) -> GMM, so `vmap` over keys gives many.

A callable of the same form is accepted wherever a name is. Known means are taken as the first centres; whoever
iterates from the start puts the other known parts in (`project`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from .covariance import structure
from .gmm import GMM
from .moments import moments
from .spec import MixtureSpec, put

LLOYD_STEPS = 25


def random(key: Key[Array, ""], x: Float[Array, "N D"], spec: MixtureSpec) -> GMM:
    """The course's start: μ ~ N(0, I), φ uniform and normalised, Σ = A Aᵀ with A uniform on (0, 1).

    It does not look at the data: meant for standardised ones. A Aᵀ can be nearly singular, as in the course.
    """
    key_means, key_weights, key_covariances = jax.random.split(key, 3)
    n_components, n_features = spec.n_components, x.shape[1]
    means = jax.random.normal(key_means, (n_components, n_features), x.dtype)
    mass = jax.random.uniform(key_weights, (n_components,), x.dtype, minval=jnp.finfo(x.dtype).tiny)
    a = jax.random.uniform(key_covariances, (n_components, n_features, n_features), x.dtype)
    weights = mass / jnp.sum(mass)
    covariances = structure(spec.covariance_type).from_dense(a @ jnp.swapaxes(a, -1, -2), weights)
    return GMM(weights, means, covariances, spec.covariance_type)


def random_points(key: Key[Array, ""], x: Float[Array, "N D"], spec: MixtureSpec) -> GMM:
    """K distinct rows of x as means, equal weights, the covariance of the data everywhere."""
    rows = jax.random.choice(key, x.shape[0], (spec.n_components,), replace=False)
    return _around(x, put(spec.known.means, x[rows]), spec)


def kmeans_plusplus(key: Key[Array, ""], x: Float[Array, "N D"], spec: MixtureSpec) -> GMM:
    """Centres drawn one by one with probability ∝ squared distance to the nearest; then as from_means.

    Reference:
        Arthur & Vassilvitskii (2007), k-means++: the advantages of careful seeding, SODA.
    """
    return from_means(x, _seed(key, x, spec), spec)


def kmeans(key: Key[Array, ""], x: Float[Array, "N D"], spec: MixtureSpec) -> GMM:
    """Lloyd's algorithm from k-means++ centres, a fixed number of steps; then as from_means."""

    def lloyd(means, _):
        one_hot = _one_hot(_nearest(x, means), means.shape[0], x.dtype)  # (K, N)
        count = jnp.sum(one_hot, axis=1)[:, None]
        moved = one_hot @ x / jnp.maximum(count, 1.0)
        return put(spec.known.means, jnp.where(count > 0.0, moved, means)), None

    means = jax.lax.scan(lloyd, _seed(key, x, spec), None, length=LLOYD_STEPS)[0]
    return from_means(x, means, spec)


def from_means(x: Float[Array, "N D"], means: Float[Array, "K D"], spec: MixtureSpec) -> GMM:
    """Each row goes to its nearest mean; then as from_labels, with the means kept."""
    labels = _nearest(x, means)
    start = from_labels(x, labels, spec)
    return GMM(start.weights, means, start.covariances, spec.covariance_type)


def from_labels(x: Float[Array, "N D"], labels: Int[Array, "N"], spec: MixtureSpec) -> GMM:
    """Weights, means and covariances of labelled rows.

    Each covariance is drawn towards the pooled one with the weight of D + 1 rows, and the pooled one by 1e-3 of the
    data's variances, so that small and empty groups are no obstacle. For the exact sums see `moments`.
    """
    n_samples, n_features = x.shape
    one_hot = _one_hot(labels, spec.n_components, x.dtype)
    count = jnp.sum(one_hot, axis=1)
    centre = jnp.mean(x, axis=0, keepdims=True)
    means = jnp.where(count[:, None] > 0.0, one_hot @ x / jnp.maximum(count, 1.0)[:, None], centre)
    eye = jnp.broadcast_to(jnp.eye(n_features, dtype=x.dtype), (spec.n_components, n_features, n_features))
    frame = GMM(count / n_samples, means, eye, "full")
    scatter = moments(frame, x.T[None] - means[:, :, None], one_hot, jnp.zeros(n_samples, x.dtype)).second
    pooled = jnp.sum(scatter, axis=0) / n_samples + 1e-3 * jnp.diag(_spread(x))
    borrowed = jnp.asarray(n_features + 1, x.dtype)
    matrices = (scatter + borrowed * pooled[None]) / (count + borrowed)[:, None, None]
    weights = (count + 1.0) / (n_samples + spec.n_components)
    covariances = structure(spec.covariance_type).from_dense(matrices, weights)
    return GMM(weights, means, covariances, spec.covariance_type)


STARTS = {"random": random, "random_points": random_points, "kmeans++": kmeans_plusplus, "kmeans": kmeans}


def start_function(init):
    """The start of that name, or the callable itself; a ValueError lists the names there are."""
    if callable(init):
        return init
    if init not in STARTS:
        raise ValueError(f"init must be one of {', '.join(STARTS)}, a callable or a GMM; got {init!r}.")
    return STARTS[init]


def _around(x, means, spec):
    n_components, n_features = means.shape
    deviation = x - jnp.mean(x, axis=0, keepdims=True)
    matrix = deviation.T @ deviation / x.shape[0] + 1e-6 * jnp.diag(_spread(x))
    weights = jnp.full((n_components,), 1.0 / n_components, x.dtype)
    matrices = jnp.broadcast_to(matrix, (n_components, n_features, n_features))
    return GMM(weights, means, structure(spec.covariance_type).from_dense(matrices, weights), spec.covariance_type)


def _spread(x):
    """(D,) variances; 1 for a constant column, so that no start is singular."""
    variances = jnp.var(x, axis=0)
    return jnp.where(variances > 0.0, variances, jnp.ones_like(variances))


def _seed(key, x, spec):
    """k-means++ centres, (K, D): known means first, then D² sampling for the free ones."""
    n_samples, n_components = x.shape[0], spec.n_components
    nearest = jnp.full((n_samples,), jnp.inf, x.dtype)
    known = jnp.full((n_components, x.shape[1]), jnp.nan, x.dtype)
    if spec.known.means is not None:
        known = jnp.asarray(spec.known.means, x.dtype)
        distances = _squared_distances(x, known)  # NaN to free rows
        nearest = jnp.min(jnp.where(jnp.isnan(distances), jnp.inf, distances), axis=0)
    is_known = ~jnp.isnan(known[:, 0])

    def choose(nearest, component):
        key, mean, fixed = component
        # with no centre yet, or all rows on centres, every row is as likely
        even = jnp.isinf(nearest[0]) | (jnp.sum(nearest) <= 0.0)
        odds = jnp.where(even, jnp.ones_like(nearest), nearest)
        steps = jnp.cumsum(odds)
        row = jnp.searchsorted(steps, jax.random.uniform(key, (), x.dtype) * steps[-1], side="right")
        centre = jnp.where(fixed, mean, x[jnp.minimum(row, n_samples - 1)])
        closer = jnp.minimum(nearest, _squared_distances(x, centre[None])[0])
        return jnp.where(fixed, nearest, closer), centre

    return jax.lax.scan(choose, nearest, (jax.random.split(key, n_components), known, is_known))[1]


def _squared_distances(x, means):
    """(K, N), one mean at a time."""
    columns = x.T  # sums over few features are fast where rows lie side by side
    return jax.lax.map(lambda mean: jnp.sum((columns - mean[:, None]) ** 2, axis=0), means)


def _nearest(x, means):
    return jnp.argmin(_squared_distances(x, means), axis=0)


def _one_hot(labels, n_components, dtype):
    """(K, N)."""
    return (labels[None, :] == jnp.arange(n_components, dtype=labels.dtype)[:, None]).astype(dtype)
