r"""How far two mixtures are apart without pairing their components: also where they have not equally many.

Densities p and q are compared by Monte Carlo, with the error; mixing measures Σ_k φ_k δ_(μ_k, Σ_k) exactly.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..bayes.checks import check_width, host_mixture
from ..mixture import GMM, log_prob, sample, structure
from ..mixture.checks import check_key
from ..mixture.predictive import predictive
from ..mixture.scaling import standard_units

N_DRAWS = 10_000


class Divergences(NamedTuple):
    """Of the densities p and q, each with its Monte-Carlo standard error; all ()."""

    kl: Float[Array, ""]  # E_p[log p − log q], nats; may be negative within its error
    kl_se: Float[Array, ""]
    hellinger: Float[Array, ""]  # √(1 − ∫ √(p q)), in [0, 1]
    hellinger_se: Float[Array, ""]
    l1: Float[Array, ""]  # ∫ |p − q|, in [0, 2]: twice the total variation
    l1_se: Float[Array, ""]


def divergences(key: Key[Array, ""], p: GMM, q: GMM, n_draws: int = N_DRAWS) -> Divergences:
    r"""Kullback–Leibler divergence, Hellinger and L1 distance by Monte Carlo, from n_draws of each of p and q.

    Under m = (p + q)/2, with r = log p − log q, they are ∫ |p − q| = E_m[2 |tanh(r/2)|] and 1 − ∫ √(p q) =
    E_m[1 − sech(r/2)]: bounded, and without error where p = q. NaN in, NaN out. Neither changes with units, and the
    computation is in those in which p has mean 0 and variances 1.
    """
    return _divergences(check_key(key), *_in_units_of_first(p, q), n_draws)


@partial(jax.jit, static_argnames="n_draws")
def _divergences(key, p, q, n_draws):
    key_p, key_q = jax.random.split(key)
    log_ratio = _log_ratio(key_p, p, q, n_draws), _log_ratio(key_q, q, p, n_draws)
    square, square_se = _mean_of_both(lambda r: 1.0 - 1.0 / jnp.cosh(0.5 * r), log_ratio)
    hellinger = jnp.sqrt(square)
    l1, l1_se = _mean_of_both(lambda r: 2.0 * jnp.abs(jnp.tanh(0.5 * r)), log_ratio)
    # d√h = dh / 2√h; at 0 there is neither
    hellinger_se = jnp.where(hellinger == 0.0, 0.0, square_se / (2.0 * jnp.where(hellinger == 0.0, 1.0, hellinger)))
    return Divergences(*_mean(log_ratio[0]), hellinger, hellinger_se, l1, l1_se)


def kl_divergence(key: Key[Array, ""], p: GMM, q: GMM, n_draws: int = N_DRAWS):
    r"""KL(p ‖ q) = E_p[log p(x) − log q(x)] in nats, by Monte Carlo.

    Returns:
        (value, standard_error), both (). The value may be negative within its error.

    Reference:
        Hershey & Olsen (2007), Approximating the KL divergence between Gaussian mixture models, ICASSP.
    """
    return _kl_divergence(check_key(key), *_in_units_of_first(p, q), n_draws)


@partial(jax.jit, static_argnames="n_draws")
def _kl_divergence(key, p, q, n_draws):
    return _mean(_log_ratio(key, p, q, n_draws))


def log_score(gmm: GMM, x: Float[Array, "N D"]) -> tuple[float, float]:
    """Mean of log p over data that the mixture was not fitted to, nats a sample: (value, standard error)."""
    gmm = host_mixture(gmm, "gmm")
    values = predictive(jax.tree.map(lambda leaf: leaf[None], gmm), check_width(x, "x", gmm)).log_density
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def mixing_distance(p: GMM, q: GMM) -> float:
    r"""Wasserstein-2 distance of the mixing measures, units of x: how far weight must move, whole components at a time.

    The cost of moving N(μ, A) to N(ν, B) is the Bures–Wasserstein distance squared, |μ − ν|² + tr(A + B −
    2 (A^½ B A^½)^½); the plan is the exact solution of the linear programme. It bounds the Wasserstein-2 distance of
    the densities from above. NaN where a number is not finite.

    Reference:
        Delon & Desolneux (2020), A Wasserstein-type distance in the space of Gaussian mixture models, SIAM J. Imaging
        Sci. 13.
    """
    p = host_mixture(p, "p")
    q = host_mixture(q, "q", like=p)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((p, q))):
        return np.nan
    cost = np.sum((p.means[:, None] - q.means[None]) ** 2, axis=-1) + _bures(p, q)
    return float(np.sqrt(_transport(p.weights / p.weights.sum(), q.weights / q.weights.sum(), cost)))


def dense_covariances(gmm: GMM) -> Float[np.ndarray, "*batch K D D"]:
    """Covariance matrices of mixtures of any structure."""
    return structure(gmm.covariance_type).dense(np.asarray(gmm.covariances), *np.shape(gmm.means)[-2:])


def variances_of(gmm: GMM) -> Float[np.ndarray, "K D"]:
    """Variances of a diagonal or spherical mixture in NumPy."""
    return np.broadcast_to(np.asarray(gmm.covariances).reshape(len(gmm.means), -1), gmm.means.shape)


def _bures(p, q):
    """min |A^½ − B^½ U|² over rotations U for every pair, (K, K′): the same trace, without cancellation."""
    if {p.covariance_type, q.covariance_type} <= {"diag", "spherical"}:
        sds = [np.sqrt(variances_of(g)) for g in (p, q)]
        return np.sum((sds[0][:, None] - sds[1][None]) ** 2, axis=-1)
    root_a, root_b = (_root(dense_covariances(each)) for each in (p, q))
    left, _, right = np.linalg.svd(root_a[:, None] @ root_b[None])
    turned = root_b[None] @ np.swapaxes(left @ right, -1, -2)
    return np.sum((root_a[:, None] - turned) ** 2, axis=(-2, -1))


def _root(matrices):
    values, vectors = np.linalg.eigh(matrices)
    return (vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def _transport(source, target, cost):
    """min Σ π_ij cost_ij over plans π ≥ 0 with these margins."""
    from scipy.optimize import linprog

    rows, columns = (
        np.kron(np.eye(source.size), np.ones(target.size)),
        np.kron(np.ones(source.size), np.eye(target.size)),
    )
    largest = max(float(cost.max()), np.finfo(float).tiny)  # the solver's tolerances are absolute
    # one equation follows from the others, and might contradict them by rounding
    plan = linprog(cost.ravel() / largest, A_eq=np.concatenate([rows, columns[:-1]]), b_eq=np.r_[source, target[:-1]])
    if plan.status != 0:
        raise ArithmeticError(f"the transport problem of two mixtures was not solved: {plan.message}")
    return largest * max(float(plan.fun), 0.0)


@np.errstate(all="ignore")
def _in_units_of_first(p, q):
    """Both where p has mean 0 and variances 1, in float64 NumPy, or as they are under a transformation of JAX."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((p, q))):
        return p, q
    p = host_mixture(p, "p")
    q = host_mixture(q, "q", like=p)
    scaling = standard_units(p, float)[1]
    if p.covariance_type != "spherical" and q.covariance_type == "spherical":
        scaling = scaling._replace(scale=np.full(scaling.scale.shape, np.sqrt(np.mean(scaling.scale**2))))
    dtype = jax.dtypes.canonicalize_dtype(float)
    return tuple(jax.tree.map(lambda leaf: leaf.astype(dtype), scaling.inward(gmm)) for gmm in (p, q))


def _log_ratio(key, p, q, n_draws):
    x, _ = sample(key, p, n_draws)
    return log_prob(p, x) - log_prob(q, x)


def _mean(values):
    return jnp.mean(values), jnp.std(values, ddof=1) / np.sqrt(values.size)


def _mean_of_both(function, halves):
    """Mean and error under (p + q)/2, as many draws from each."""
    (a, a_se), (b, b_se) = (_mean(function(half)) for half in halves)
    return 0.5 * (a + b), 0.5 * jnp.hypot(a_se, b_se)
