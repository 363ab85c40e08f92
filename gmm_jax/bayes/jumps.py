"""Jumps between modes: what lets Gibbs cross where a posterior has several, and few parameters.

Every component is carried by the affine map that takes it in mode i to its place in mode j: φ'_k ∝ φ_k w_jk / w_ik,
μ'_k = m_jk + √(w_ik / w_jk) A_k (μ_k − m_ik), Σ'_k = A_k Σ_k A_kᵀ with A_k = L_jk L_ik⁻¹ of the modes' Cholesky
factors: what is typical of one mode becomes what is typical of the other, as far as spreads are those of the samples
that a mode's components hold. Which component is which is read from the mixture itself, and has to be the same when
read back. The map from j to i is then the inverse, so a pair that is drawn at random gives a Metropolis–Hastings step
with the map's Jacobian (Green 1995, Biometrika 82), which leaves the posterior as it is wherever the chain may be.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from ..em.optima import SAME_COST
from ..mixture import GMM, MixtureSpec, NotSupported, align, n_parameters, permute
from ..mixture.checks import check_type
from ..mixture.covariance import structure
from ..mixture.factor import cholesky, inverse_cholesky
from ..mixture.match import distance
from ..mixture.moments import Precision, e_step
from .model import Problem, site_values
from .starts import climber
from .target import log_prior

MOST_PARAMETERS = 50  # with 17 one proposal in 100 to 200 is accepted, with 79 none in 10,000
EVERY = 5  # sweeps from one jump to the next: it costs two sums over the data


def modes_of(starts, x, spec: MixtureSpec) -> GMM | None:
    """The distinct modes (leading axis) that EM reaches from EM's optima, in one labelling.

    None where there are fewer than two, or where jumps are not for: known parts, many parameters.
    """
    if not isinstance(starts, GMM) or np.ndim(starts.weights) < 2 or not _nothing_known(spec):
        return None
    if n_parameters(spec, np.shape(x)[1]) > MOST_PARAMETERS or len(distinct(starts, spec)) < 2:
        return None
    modes = distinct(climber(x, spec)(starts), spec)
    aligned = [align(mode, modes[0], spec) for mode in modes]
    return None if len(modes) < 2 else jax.tree.map(lambda *leaves: np.stack(leaves), *aligned)


def check_modes(modes, spec: MixtureSpec, n_features: int) -> None:
    """An error unless chains can jump between these mixtures."""
    check_type(modes, GMM, "modes", "a GMM with a leading axis")
    if not _nothing_known(spec):
        raise NotSupported("jumps between modes are for models of which nothing is known: leave modes out.")
    *leading, n_components, d = np.shape(modes.means)
    if len(leading) != 1 or leading[0] < 2:
        raise ValueError(f"modes must be at least two mixtures with one leading axis; got {tuple(leading)}.")
    if (modes.covariance_type, n_components, d) != (spec.covariance_type, spec.n_components, n_features):
        raise ValueError(
            f"modes must be {spec.covariance_type} mixtures of {spec.n_components} components in {n_features} "
            f"feature{'s' * (n_features > 1)}; got {modes.covariance_type} ones of {n_components} in {d}."
        )


def _nothing_known(spec):
    return all(part is None for part in (spec.known.weights, spec.known.means, spec.known.covariances))


def distinct(mixtures: GMM, spec: MixtureSpec) -> list[GMM]:
    """Those of mixtures (leading axis) that are no repetition of an earlier one."""
    found: list[GMM] = []
    for i in range(len(mixtures.weights)):
        one = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], mixtures)
        if all(distance(one, other, spec) >= SAME_COST for other in found):
            found.append(one)
    return found


def jump(key: Key[Array, ""], problem: Problem, modes: GMM, sums: Precision, gmm: GMM) -> tuple[GMM, Bool[Array, ""]]:
    """The mixture after a proposal from that of the modes (leading axis) that is nearest, and if it was accepted."""
    n_modes = modes.weights.shape[0]
    key_pair, key_accept = jax.random.split(key)
    i, order = _place(gmm, modes)
    j = (i + jax.random.randint(key_pair, (), 1, n_modes)) % n_modes
    start, end = (jax.tree.map(lambda leaf, place=place: leaf[place], modes) for place in (i, j))
    proposed, log_jacobian = carried(permute(gmm, order), start, end)
    proposed = permute(proposed, jnp.argsort(order))
    gain = _log_density(problem, proposed, sums) - _log_density(problem, gmm, sums) + log_jacobian
    back = _place(proposed, modes)
    comes_back = (back[0] == j) & jnp.all(back[1] == order)
    accepted = comes_back & (jnp.log(jax.random.uniform(key_accept, (), gain.dtype)) < gain)  # NaN is not
    return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), proposed, gmm), accepted


def carried(gmm: GMM, start: GMM, end: GMM) -> tuple[GMM, Float[Array, ""]]:
    """The mixture carried from one mode to the other, and the logarithm of the map's Jacobian in φ, μ and Σ."""
    kind, (n_components, n_features) = structure(gmm.covariance_type), gmm.means.shape
    one, other = (cholesky(kind.dense(mode.covariances, n_components, n_features)) for mode in (start, end))
    root = other @ inverse_cholesky(kind.dense(start.covariances, n_components, n_features))
    log_det = jnp.sum(jnp.log(_diagonal(other)) - jnp.log(_diagonal(one)), axis=-1)
    ratio = end.weights / start.weights
    weights = gmm.weights * ratio
    total, stretch = jnp.sum(weights), 1.0 / jnp.sqrt(ratio)
    off = (root @ (gmm.means - start.means)[:, :, None])[:, :, 0]
    dense = root @ kind.dense(gmm.covariances, n_components, n_features) @ jnp.swapaxes(root, -1, -2)
    leaf = {"full": dense, "tied": dense[0], "diag": _diagonal(dense), "spherical": dense[:, 0, 0]}
    power = {"full": n_features + 1, "tied": (n_features + 1) / n_components, "diag": 2, "spherical": 2 / n_features}
    log_jacobian = jnp.sum(jnp.log(ratio)) - n_components * jnp.log(total) + n_features * jnp.sum(jnp.log(stretch))
    log_jacobian += (1.0 + power[gmm.covariance_type]) * jnp.sum(log_det)
    means = end.means + stretch[:, None] * off
    return GMM(weights / total, means, leaf[gmm.covariance_type], gmm.covariance_type), log_jacobian


def _place(gmm, modes):
    """Which of the modes is nearest, and (K,) which component is which of its: in turn the nearest one that is left."""

    def one(mode):
        whitener = inverse_cholesky(structure(mode.covariance_type).dense(mode.covariances, *mode.means.shape))
        off = gmm.means[None] - mode.means[:, None]  # (K, K, D), of each component of the mode
        far = jnp.sum((off @ jnp.swapaxes(whitener, -1, -2)) ** 2, axis=-1)

        def take(left, row):
            nearest = jnp.argmin(jnp.where(left, row, jnp.inf))
            return left.at[nearest].set(False), (nearest, row[nearest])

        order, cost = jax.lax.scan(take, jnp.ones(far.shape[0], bool), far)[1]
        return order, jnp.sum(mode.weights * cost)

    orders, costs = jax.vmap(one)(modes)
    return jnp.argmin(costs), orders[jnp.argmin(costs)]


def _diagonal(matrices):
    return jnp.diagonal(matrices, axis1=-2, axis2=-1)


def _log_density(problem, gmm, sums):
    likelihood = e_step(gmm, problem.z, n_rows=problem.annotations.n_rows, sums=sums).log_likelihood
    return likelihood + log_prior(problem, site_values(problem, gmm))
