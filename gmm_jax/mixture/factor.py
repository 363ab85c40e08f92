"""Products of many small matrices at once, and their factorisations, leading axes kept, without LAPACK.

jaxlib divides a batch of LAPACK's factorisations among the threads of XLA's CPU backend and waits for them on one of
these threads, so that two batches at once can wait for each other for ever.
"""

import jax
import jax.numpy as jnp

UNROLL = 4  # up to so many features a factorisation is cheaper written out than called for


def last_axes(array, ndim):
    """The same array with ones in front of its shape: broadcasting that is seen."""
    return array.reshape((1,) * (ndim - array.ndim) + array.shape)


def outer(a, b):
    """a bᵀ over the last axis."""
    return a[..., :, None] * b[..., None, :]


def product(a, b):
    """a b as a sum: a library call for each of many small matrices costs more than its arithmetic."""
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def cholesky(covariances):
    """L with Σ = L Lᵀ, leading axes kept; NaN where Σ is not positive definite."""
    if covariances.shape[-1] <= UNROLL:
        return _stack(_cholesky_unrolled(covariances))
    return jnp.swapaxes(_eliminate(covariances)[0], -1, -2)


def inverse_cholesky(covariances):
    """L⁻¹ with Σ = L Lᵀ, leading axes kept; not finite where Σ is not positive definite."""
    if covariances.shape[-1] <= UNROLL:
        return _inverse_cholesky_unrolled(covariances)
    return _eliminate(covariances)[1]


def _eliminate(covariances):
    """(Lᵀ, L⁻¹) by elimination: L⁻¹ [Σ I] = [Lᵀ L⁻¹], a column at a time."""
    n = covariances.shape[-1]
    eye = jnp.broadcast_to(jnp.eye(n, dtype=covariances.dtype), covariances.shape)
    index = jnp.arange(n)[:, None]

    def column(j, rows):
        row = jax.lax.dynamic_index_in_dim(rows, j, axis=-2, keepdims=True)
        row = row / jnp.sqrt(jax.lax.dynamic_index_in_dim(row, j, axis=-1, keepdims=True))
        factors = jax.lax.dynamic_index_in_dim(rows, j, axis=-1, keepdims=True)
        pivot = jax.lax.dynamic_index_in_dim(row, j, axis=-1, keepdims=True)
        below = last_axes(index > j, rows.ndim)
        own = last_axes(index == j, rows.ndim)
        reduced = jnp.where(below, rows - (factors / pivot) * row, rows)
        return jnp.where(own, row, reduced)

    rows = jax.lax.fori_loop(0, n, column, jnp.concatenate([covariances, eye], axis=-1))
    return jnp.triu(rows[..., :n]), rows[..., n:]


def _cholesky_unrolled(covariances):
    """Its entries, written out: a library call for each of many small matrices costs more than its arithmetic."""
    n = covariances.shape[-1]
    lower = [[jnp.zeros_like(covariances[..., 0, 0])] * n for _ in range(n)]
    for j in range(n):
        below = [covariances[..., i, j] - sum(lower[i][k] * lower[j][k] for k in range(j)) for i in range(j, n)]
        lower[j][j] = jnp.sqrt(below[0])
        for i in range(j + 1, n):
            lower[i][j] = below[i - j] / lower[j][j]
    return lower


def _inverse_cholesky_unrolled(covariances):
    n = covariances.shape[-1]
    lower = _cholesky_unrolled(covariances)
    inverse = [[jnp.zeros_like(covariances[..., 0, 0])] * n for _ in range(n)]
    for j in range(n):
        inverse[j][j] = 1.0 / lower[j][j]
        for i in range(j + 1, n):
            inverse[i][j] = -sum(lower[i][k] * inverse[k][j] for k in range(j, i)) / lower[i][i]
    return _stack(inverse)


def _stack(entries):
    return jnp.stack([jnp.stack(row, axis=-1) for row in entries], axis=-2)
