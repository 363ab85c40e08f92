"""Covariance structures: one small class each, called by the verbs of the maths.

Σ_k = L_k L_kᵀ enters densities only through the whitener W_k = L_k⁻¹: z = W_k (x − μ_k) is standard normal.
Deviations are components first, (K, D, N): the sums over n are then plain matrix products.

A Gaussian is also an exponential family: log N(c + y | c + d_k, Σ_k) is a constant, plus a linear and a quadratic part
in the statistics [1, y, y_i y_j] of a row about any centre c. Densities of all components are then one matrix product,
and so are the sums that EM needs: statistics first, (S, K), which `moved` takes to other centres.

A new structure is one class with these verbs and one entry in STRUCTURES.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from .factor import cholesky, inverse_cholesky, last_axes, outer, product

# math, not np: a NumPy float64 would make float32 data float64 when x64 is on
HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def positive(mass):
    """The mass as a divisor: 1 where there is none, so that 0 / 0 is 0."""
    return jnp.where(mass > 0.0, mass, jnp.ones_like(mass))


def whitened_log_joint(weights, log_normalisers, z):
    """log φ_k + log N, (K, N), from whitened deviations z and −½ log |2π Σ_k|."""
    return (jnp.log(weights) + log_normalisers)[:, None] - 0.5 * jnp.sum(z * z, axis=1)


class Full:
    """One covariance matrix a component: (K, D, D)."""

    per_component = True
    name_of_each = "full"

    def shape(self, n_components, n_features):
        """Shape of the whole covariances leaf."""
        return (n_components, n_features, n_features)

    def n_parameters(self, n_features):
        """Free numbers in one component's covariance (in the shared one where it is shared)."""
        return n_features * (n_features + 1) // 2

    def whitener(self, covariances):
        """W with W Σ Wᵀ = I; NaN where Σ is not positive definite."""
        return inverse_cholesky(covariances)

    def whiten(self, whitener, deviations):
        """z = W (x − μ): (K, D, N)."""
        return jnp.matmul(whitener, deviations)

    def half_log_precision(self, whitener, n_features):
        """−½ log |Σ_k|, broadcastable to (K,)."""
        return jnp.sum(jnp.log(jnp.diagonal(whitener, axis1=-2, axis2=-1)), axis=-1)

    def scatter(self, responsibilities, deviations):
        """Σ_n r_kn (x_n − m_k)(x_n − m_k)ᵀ: (K, D, D)."""
        return jnp.einsum("kin,kjn->kij", responsibilities[:, None, :] * deviations, deviations)

    def condition(self, covariances, seen, deviations):
        """What the features `seen` (D,) say of the others: (z, ½ log-precision of the seen, deviations, leftover Σ).

        `deviations` are 0 where unseen; there the new ones are expectations, and their covariance is the leftover, of
        the structure's shape. W is the whitener of Σ with the rows and columns of the unseen replaced by those of I.
        """
        seen_row, seen_column = seen[:, None], seen[None, :]
        eye = jnp.eye(seen.size, dtype=covariances.dtype)

        def entries(mask, otherwise):
            return jnp.where(last_axes(mask, covariances.ndim), covariances, last_axes(otherwise, covariances.ndim))

        whitener = self.whitener(entries(seen_row & seen_column, eye))
        z = self.whiten(whitener, deviations)
        cross = entries(~seen_row & seen_column, jnp.zeros_like(eye))  # Σ_us
        gain = jnp.matmul(cross, jnp.swapaxes(whitener, -1, -2))
        explained = jnp.matmul(gain, jnp.swapaxes(gain, -1, -2))
        leftover = entries(~seen_row & ~seen_column, jnp.zeros_like(eye)) - explained
        log_precision = self.half_log_precision(whitener, seen.size)
        return z, log_precision, deviations + self.whiten(gain, z), leftover

    def weigh(self, mass, covariances):
        """mass_k Σ_k, in the shape of scatter: what rows with that covariance add to it."""
        return mass.reshape(-1, *(1,) * (covariances.ndim - 1)) * covariances

    def statistics(self, columns):
        """[1, x, x_i x_j for i ≤ j] of the columns x of (D, N): (S, N)."""
        with_one = jax.lax.optimization_barrier(jnp.concatenate([jnp.ones_like(columns[:1]), columns]))
        i, j = np.triu_indices(columns.shape[0] + 1)
        return with_one[i] * with_one[j]

    def products(self, a, b):
        """a_i b_j, in the shape in which `statistics` has the squares, of a and b of (D, N)."""
        i, j = np.triu_indices(a.shape[0])
        return a[i] * b[j]

    def quadratic(self, whitener, n_components, n_features):
        """Coefficients of the squares in log N(x | μ_k, Σ_k): (K, number of squares)."""
        i, j = np.triu_indices(n_features)
        precision = jnp.sum(whitener[..., :, i] * whitener[..., :, j], axis=-2)  # Wᵀ W, entries i ≤ j
        factor = jnp.asarray(np.where(i == j, -0.5, -1.0), precision.dtype)[None]
        return jnp.broadcast_to(precision, (n_components, i.size)) * factor

    def linear(self, white, whitener):
        """Coefficients Wᵀ (W d) of y, from W d: (K, D)."""
        return jnp.sum(jnp.broadcast_to(whitener, (*white.shape, white.shape[-1])) * white[..., :, None], axis=-2)

    def white_means(self, means, whitener):
        """W μ: (K, D)."""
        return jnp.sum(jnp.broadcast_to(whitener, (*means.shape, means.shape[-1])) * means[..., None, :], axis=-1)

    def second(self, squares):
        """Σ_n r_kn y_i y_j of all entries, in the shape of scatter, from summed statistics (number of squares, K)."""
        n_features = math.isqrt(2 * squares.shape[0])
        position = np.zeros((n_features, n_features), int)
        i, j = np.triu_indices(n_features)
        position[i, j] = position[j, i] = np.arange(i.size)
        return squares.T[:, position]

    def squared_norm(self, squares, n_features):
        """Σ_n r_kn |y_n|², (K,), from the same."""
        i, j = np.triu_indices(n_features)
        return jnp.sum(squares[np.flatnonzero(i == j)], axis=0)

    def estimate(self, mass, second, s, d):
        """Σ = second/mass − s dᵀ − d sᵀ + d dᵀ with d = μ_new − m; what a component without mass gets means nothing."""
        return second / positive(mass)[:, None, None] - outer(s, d) - outer(d, s) + outer(d, d)

    def with_prior(self, covariances, mass, dof, size, n_features):
        """The mode of mass samples with scatter mass·Σ and a prior IW(dof, size) (variances: IG(dof, size))."""
        mass = mass[:, None, None]
        return (mass * covariances + size[None]) / (mass + dof + n_features + 1.0)

    def log_prior(self, whitener, dof, size):
        """log density of IW(dof, size) at each Σ_k, (K,) or (), up to a constant."""
        n_features = size.shape[-1]
        trace = self.trace(whitener, last_axes(size, whitener.ndim), n_features)
        return (dof + n_features + 1.0) * self.half_log_precision(whitener, n_features) - 0.5 * trace

    def inverse(self, covariances):
        """Σ⁻¹, of the structure's shape; also of one covariance."""
        whitener = inverse_cholesky(covariances)
        return jnp.sum(outer(whitener, whitener), axis=-3)

    def log_power(self, rate, shape):
        """log |rate|^(−shape/2) (variances: rate^(−shape), summed over features), for one covariance; ()."""
        return shape * jnp.sum(jnp.log(jnp.diagonal(inverse_cholesky(rate))))

    def add_to_diagonal(self, covariances, ridge):
        """Σ + diag(ridge), ridge (D,)."""
        return covariances + jnp.broadcast_to(jnp.diag(ridge), covariances.shape)

    def rescale(self, covariances, scale):
        """Covariances of scale · x, scale (D,); leading axes kept, NumPy in is NumPy out."""
        return covariances * last_axes(outer(scale, scale), covariances.ndim)

    def rcond(self, covariances, whitener):
        """1 / (max_j Σ_jj · max_j (Σ⁻¹)_jj), (K,) or (): 1/cond where Σ is diagonal, at most D² times it else.

        Without a matrix product: on the CPU one that runs beside the E-step's can starve it for ever.
        """
        return 1.0 / (jnp.max(self.variances(covariances), axis=-1) * jnp.max(self.precisions(whitener), axis=-1))

    def variances(self, covariances):
        """The diagonal of Σ: (..., K, D), (..., D) where shared, (..., K, 1) where spherical; JAX's or NumPy's."""
        return covariances.diagonal(axis1=-2, axis2=-1)

    def precisions(self, whitener):
        """The diagonal of Σ⁻¹, of the same shape."""
        return jnp.sum(whitener * whitener, axis=-2)

    def trace(self, whitener, scatter, n_features):
        """tr Σ⁻¹ S, broadcastable to (K,), for S of the structure's shape."""
        precision = jnp.sum(outer(whitener, whitener), axis=-3)  # Wᵀ W
        return jnp.sum(precision * scatter, axis=(-2, -1))

    def to_logs(self, covariances):
        """Log-Cholesky: entries i ≥ j of L, row by row, the diagonal's logs; leading axes kept."""
        i, j = np.tril_indices(covariances.shape[-1])
        entries = cholesky(covariances)[..., i, j]
        on_diagonal = last_axes(jnp.asarray(i == j), entries.ndim)
        return jnp.where(on_diagonal, jnp.log(jnp.where(on_diagonal, entries, 1.0)), entries)

    def from_logs(self, logs, n_components, n_features):
        """The structure's covariances from a vector of their logs."""
        i, j = np.tril_indices(n_features)
        shape = self.shape(n_components, n_features)
        logs = logs.reshape(*shape[:-2], i.size)
        position = np.zeros((n_features, n_features), int)
        position[i, j] = np.arange(i.size)
        logs = logs[..., position]
        masks = np.tri(n_features, dtype=bool), np.eye(n_features, dtype=bool)
        below, diagonal = (last_axes(jnp.asarray(mask), logs.ndim) for mask in masks)
        lower = jnp.where(diagonal, jnp.exp(jnp.where(diagonal, logs, 0.0)), jnp.where(below, logs, 0.0))
        return jnp.sum(lower[..., :, None, :] * lower[..., None, :, :], axis=-1)

    def slopes(self, whitener, scatter, mass, n_features):
        """Derivatives of Σ_k mass_k log |W_k| − ½ tr W_k S_k W_kᵀ with respect to what `to_logs` gives."""
        transposed = jnp.swapaxes(whitener, -1, -2)
        lower = product(transposed, product(whitener, product(scatter, transposed)))  # ∂/∂L, below its diagonal
        i, j = np.tril_indices(n_features)
        on_diagonal = last_axes(jnp.asarray(i == j), lower.ndim - 1)
        roots = jnp.where(on_diagonal, whitener[..., i, j], 1.0)
        count = mass[:, None] if self.per_component else jnp.sum(mass)
        return lower[..., i, j] / roots - jnp.where(on_diagonal, count, 0.0)

    def dense(self, covariances, n_components, n_features):
        """The same covariances as (..., K, D, D) matrices, of JAX or of NumPy as they are."""
        return covariances

    @property
    def each(self):
        """The structure without what components or features share: full, or diag where Σ is diagonal."""
        return STRUCTURES[self.name_of_each]

    def pool(self, each, weights):
        """The structure's covariances nearest to those of each component, which have the shape of `self.each`."""
        return each

    def from_dense(self, matrices, weights):
        """The structure's covariances nearest to (K, D, D) matrices, pooled by weights where shared."""
        return self.pool(matrices, weights)


class Tied(Full):
    """One covariance matrix for all components: (D, D)."""

    per_component = False

    def shape(self, n_components, n_features):
        return (n_features, n_features)

    def whiten(self, whitener, deviations):
        return jnp.einsum("ij,kjn->kin", whitener, deviations)

    def scatter(self, responsibilities, deviations):
        return jnp.einsum("kin,kjn->ij", responsibilities[:, None, :] * deviations, deviations)

    def weigh(self, mass, covariances):
        return jnp.sum(mass) * covariances

    def second(self, squares):
        return super().second(jnp.sum(squares, axis=1, keepdims=True))[0]

    def estimate(self, mass, second, s, d):
        shift = outer(s, d) + outer(d, s) - outer(d, d)
        return (second - jnp.einsum("k,kij->ij", mass, shift)) / positive(jnp.sum(mass))

    def with_prior(self, covariances, mass, dof, size, n_features):
        mass = jnp.sum(mass)
        return (mass * covariances + size) / (mass + dof + n_features + 1.0)

    def dense(self, covariances, n_components, n_features):
        ones = np.ones((n_components, 1, 1), covariances.dtype)
        return covariances[..., None, :, :] * last_axes(ones, covariances.ndim + 1)

    def pool(self, each, weights):
        return jnp.einsum("k,kij->ij", weights / jnp.sum(weights), each)


class Diag(Full):
    """One variance a feature and component: (K, D)."""

    name_of_each = "diag"

    def shape(self, n_components, n_features):
        return (n_components, n_features)

    def n_parameters(self, n_features):
        return math.prod(self.shape(1, n_features))

    def whitener(self, covariances):
        return 1.0 / jnp.sqrt(covariances)

    def whiten(self, whitener, deviations):
        return whitener.reshape(len(deviations), -1, 1) * deviations

    def half_log_precision(self, whitener, n_features):
        return jnp.sum(jnp.log(whitener), axis=-1)

    def scatter(self, responsibilities, deviations):
        return jnp.einsum("kn,kin->ki", responsibilities, deviations * deviations)

    def condition(self, covariances, seen, deviations):
        each = jnp.broadcast_to(self.variances(covariances), (len(deviations), seen.size))
        whitener = self.whitener(jnp.where(seen[None], each, jnp.ones_like(each)))
        leftover = self.pool(jnp.where(seen[None], jnp.zeros_like(each), each), None)
        return self.whiten(whitener, deviations), jnp.sum(jnp.log(whitener), axis=-1), deviations, leftover

    def statistics(self, columns):
        """[1, x, x²], (1 + 2D, N), or [1, x, |x|² / D], (2 + D, N), where spherical."""
        return jnp.concatenate([jnp.ones_like(columns[:1]), columns, self.products(columns, columns)])

    def products(self, a, b):
        return a * b

    def quadratic(self, whitener, n_components, n_features):
        precision = self.precisions(whitener)
        return -0.5 * (n_features // precision.shape[-1]) * precision

    def linear(self, white, whitener):
        return self.white_means(white, whitener)

    def white_means(self, means, whitener):
        return whitener.reshape(len(means), -1) * means

    def second(self, squares):
        return squares.T

    def squared_norm(self, squares, n_features):
        return (n_features // squares.shape[0]) * jnp.sum(squares, axis=0)

    def estimate(self, mass, second, s, d):
        return second / positive(mass)[:, None] - 2.0 * s * d + d * d

    def with_prior(self, covariances, mass, dof, size, n_features):
        half = 0.5 * mass[:, None]
        return (half * covariances + size[None]) / (half + dof[None] + 1.0)

    def log_prior(self, whitener, dof, size):
        precision = whitener * whitener
        return jnp.sum((dof + 1.0)[None] * jnp.log(precision) - size[None] * precision, axis=-1)

    def inverse(self, covariances):
        return 1.0 / covariances

    def log_power(self, rate, shape):
        return -jnp.sum(shape * jnp.log(rate))

    def add_to_diagonal(self, covariances, ridge):
        return covariances + ridge[None]

    def rescale(self, covariances, scale):
        return covariances * last_axes(scale * scale, covariances.ndim)

    def variances(self, covariances):
        return covariances

    def precisions(self, whitener):
        return self.variances(whitener * whitener)

    def trace(self, whitener, scatter, n_features):
        return jnp.sum(whitener * whitener * scatter, axis=-1)

    def to_logs(self, covariances):
        return jnp.log(covariances)

    def from_logs(self, logs, n_components, n_features):
        return jnp.exp(logs).reshape(self.shape(n_components, n_features))

    def slopes(self, whitener, scatter, mass, n_features):
        excess = whitener * whitener * scatter - mass.reshape(-1, *(1,) * (scatter.ndim - 1))
        return 0.5 * (n_features // math.prod(scatter.shape[1:])) * excess

    def dense(self, covariances, n_components, n_features):
        variances, eye = self.variances(covariances), np.eye(n_features, dtype=covariances.dtype)
        return variances[..., None] * last_axes(eye, variances.ndim + 1)

    def from_dense(self, matrices, weights):
        return self.pool(jnp.diagonal(matrices, axis1=-2, axis2=-1), weights)


class Spherical(Diag):
    """One variance a component: (K,)."""

    def shape(self, n_components, n_features):
        return (n_components,)

    def half_log_precision(self, whitener, n_features):
        return n_features * jnp.log(whitener)

    def scatter(self, responsibilities, deviations):
        return jnp.einsum("kn,kn->k", responsibilities, jnp.mean(deviations * deviations, axis=1))

    def products(self, a, b):
        return jnp.mean(a * b, axis=0, keepdims=True)

    def second(self, squares):
        return squares[0]

    def estimate(self, mass, second, s, d):
        return second / positive(mass) + jnp.mean(d * d - 2.0 * s * d, axis=-1)

    def with_prior(self, covariances, mass, dof, size, n_features):
        half = 0.5 * n_features * mass
        return (half * covariances + size) / (half + dof + 1.0)

    def log_prior(self, whitener, dof, size):
        precision = whitener * whitener
        return (dof + 1.0) * jnp.log(precision) - size * precision

    def add_to_diagonal(self, covariances, ridge):
        return covariances + jnp.mean(ridge)

    def rescale(self, covariances, scale):
        return covariances * scale[0] ** 2  # one common scale: see Scaling

    def variances(self, covariances):
        return covariances[..., None]

    def trace(self, whitener, scatter, n_features):
        return n_features * whitener * whitener * scatter

    def pool(self, each, weights):
        return jnp.mean(each, axis=-1)


STRUCTURES = {"full": Full(), "tied": Tied(), "diag": Diag(), "spherical": Spherical()}


def structure(covariance_type):
    """The structure of that name; a ValueError lists the names there are."""
    if not isinstance(covariance_type, str) or covariance_type not in STRUCTURES:
        raise ValueError(f"covariance_type must be one of {', '.join(STRUCTURES)}; got {covariance_type!r}.")
    return STRUCTURES[covariance_type]
