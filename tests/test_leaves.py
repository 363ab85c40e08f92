"""Sums from statistics about the means of leaves: as exact as they say, wherever rows lie and in whatever order."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from conftest import EPS, TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import GMM, MixtureSpec, Status
from gmm_jax.em import EMConfig, fit_em, fit_em_restarts
from gmm_jax.em.fit import ITERATED
from gmm_jax.mixture import Annotations, structure
from gmm_jax.mixture.leaves import in_leaves, leaf_order
from gmm_jax.mixture.moments import kappa_squared, kappa_squared_limit, take_sums

N, K, D = 3000, 3, 3
KEY = jax.random.key(0)


def narrow(covariance_type, factor=3e-3, spread=3.0):
    """A mixture with one component (where Σ is shared, all of them) whose smallest sd is `factor` times itself."""
    gmm = random_gmm(1, K, D, covariance_type, spread)
    if covariance_type == "spherical":
        return replace(gmm, covariances=gmm.covariances * np.array([factor**2, 1.0, 1.0]))
    if covariance_type == "diag":
        return replace(gmm, covariances=gmm.covariances * np.where(np.arange(K * D) == 0, factor**2, 1.0).reshape(K, D))
    values, vectors = np.linalg.eigh(gmm.covariances)
    values[(..., 0) if covariance_type == "tied" else (0, 0)] *= factor**2
    return replace(gmm, covariances=np.einsum("...ij,...j,...kj->...ik", vectors, values, vectors))


def sums_with_kappa(gmm, x, weight=None, labels=None):
    whitener = structure(gmm.covariance_type).whitener(jnp.asarray(gmm.covariances))
    found = take_sums(gmm, whitener, jnp.asarray(x), Annotations(weight, labels), "fast")
    return jax.tree.map(np.asarray, found), float(kappa_squared(gmm, whitener, found))


def in_80_bits(gmm, x, weight, labels):
    """Mass, first and second moments, log-likelihood and Cholesky factors, in long double."""
    matrices = oracles.dense(gmm.covariances, gmm.covariance_type, K, D).astype(np.longdouble)
    factors, joint = [], np.empty((len(x), K), np.longdouble)
    for k in range(K):
        z = (x.astype(np.longdouble) - gmm.means[k]).T.copy()
        lower, log_det = matrices[k].copy(), np.longdouble(0.0)
        for j in range(D):  # Cholesky by columns, and forward substitution on the way
            lower[j:, j] /= np.sqrt(lower[j, j])
            lower[j + 1 :, j + 1 :] -= np.outer(lower[j + 1 :, j], lower[j + 1 :, j])
            z[j] /= lower[j, j]
            z[j + 1 :] -= lower[j + 1 :, j, None] * z[j]
            log_det += np.log(lower[j, j])
        factors.append(np.tril(lower))
        joint[:, k] = np.log(np.longdouble(gmm.weights[k])) - 0.5 * (z * z).sum(0) - log_det
    joint -= 0.5 * D * np.log(2.0 * np.pi)
    joint[(labels[:, None] >= 0) & (labels[:, None] != np.arange(K))] = -np.inf
    top = joint.max(axis=1)
    log_p = top + np.log(np.exp(joint - top[:, None]).sum(axis=1))
    r, d = weight[:, None] * np.exp(joint - log_p[:, None]), x[:, None] - gmm.means.astype(np.longdouble)
    first, second = np.einsum("nk,nki->ki", r, d), np.einsum("nk,nki,nkj->kij", r, d, d)
    return r.sum(axis=0), first, second, weight @ log_p, np.stack(factors)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_rounding_errors_are_within_what_the_sums_say_of_themselves(covariance_type):
    """eps κ² of the mass, in units of each sd; one component has κ² of 1e6 about the origin."""
    gmm, rng = narrow(covariance_type), np.random.default_rng(2)
    x = oracles.random_data(rng, N, gmm)
    weight = rng.integers(0, 3, N).astype(float)
    labels = np.where(np.arange(N) % 5 == 0, np.argmax(oracles.log_joint(as_tuple(gmm), x), axis=1), -1)
    mass, first, second, log_likelihood, lower = in_80_bits(gmm, x, weight, labels)
    shape = {"full": second, "tied": second.sum(axis=0), "diag": np.einsum("kii->ki", second)}
    second = shape.get(covariance_type, np.einsum("kii->k", second) / D)
    whitener, total = np.linalg.inv(lower.astype(float)), np.sum(mass) if covariance_type == "tied" else mass
    for rows in ((x, weight, labels), in_leaves(x, weight, labels)):
        found, kappa = sums_with_kappa(gmm, *rows)
        assert kappa > 1e3
        bound = 2.0 * D * EPS * kappa
        off = oracles.dense(np.asarray(found.second) - second, covariance_type, K, D).astype(float)
        off = np.abs(np.einsum("kia,kab,kjb->kij", whitener, off, whitener)).max(axis=(1, 2))
        off_first = np.abs(np.einsum("kij,kj->ki", whitener, (np.asarray(found.first) - first).astype(float)))
        assert abs(found.log_likelihood - log_likelihood) <= bound * np.sum(weight)
        assert np.all(np.abs(found.mass - mass) <= bound * mass)
        assert np.all(off_first.max(axis=1) <= bound * mass)
        assert np.all(off <= bound * total)


def test_the_order_of_rows_changes_nothing_beyond_rounding():
    gmm, rng = narrow("full"), np.random.default_rng(2)
    x, weight = oracles.random_data(rng, N, gmm), rng.uniform(0.5, 2.0, N)
    options = {"init": gmm, "config": EMConfig(max_iter=10, tol=0.0)}
    labels, order = np.where(np.arange(N) % 7 == 0, np.arange(N) % K, -1), rng.permutation(N)
    one = fit_em_restarts(KEY, x, MixtureSpec(K), sample_weight=weight, labels=labels, **options)
    rows = {"sample_weight": weight[order], "labels": labels[order]}
    assert_trees_close(fit_em_restarts(KEY, x[order], MixtureSpec(K), **rows, **options).best, one.best, rtol=1e-9)


def test_leaves_are_all_rows_and_each_is_near_its_centre():
    """Sixteen leaves of evenly spread rows have a sixteenth of the variance."""
    x = np.random.default_rng(0).uniform(size=(16 * 512, 2))
    order = leaf_order(x)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(x)))
    assert np.mean(np.var(x[order].reshape(16, 512, 2), axis=1)) < 1.1 / 16 * np.var(x)
    np.testing.assert_array_equal(leaf_order(x[:512]), np.arange(512))
    filled = leaf_order(x[:7000], n_filled=8192)
    assert np.mean(np.var(x[filled[:6656]].reshape(13, 512, 2), axis=1)) < 1.5 / 13 * np.var(x)


def centred(gmm, dtype):
    """Rows of a mixture in leaves, and the mixture, about the mean of all."""
    x = oracles.random_data(np.random.default_rng(2), N, gmm)
    gmm = replace(gmm, means=gmm.means - x.mean(axis=0))
    return jax.tree.map(lambda leaf: leaf.astype(dtype), (gmm, in_leaves(x - x.mean(axis=0))[0]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_groups_far_apart_and_narrow_components_are_for_statistics(dtype):
    """In float64 from the first to the last iteration, in float32 but for the last; κ² of the origin is above 1e3."""
    apart = GMM(np.full(K, 1 / K), 40.0 * np.eye(K), np.stack([np.eye(D)] * K))
    for gmm in (apart, narrow("full", 3e-2)):
        gmm, z = centred(gmm, dtype)
        assert np.max(np.sum(gmm.means**2, axis=1) / np.linalg.eigvalsh(gmm.covariances)[:, 0]) > 1e3
        kappa = sums_with_kappa(gmm, z)[1]
        assert kappa < ITERATED
        assert dtype == np.float32 or kappa < kappa_squared_limit(dtype, 0.75)


@pytest.mark.parametrize("place", ["in memory", "one program", "in blocks"])
def test_the_likelihood_that_is_returned_is_exact_where_iterations_were_not(place):
    """Without correlations, with which the likelihood of a Σ of this condition is itself inexact."""
    gmm, z = centred(narrow("diag", 6e-3), np.float64)
    assert 1e4 < sums_with_kappa(gmm, z)[1] < ITERATED
    config = EMConfig(max_iter=3, tol=0.0, reg_covar=0.0)
    if place == "one program":
        found = fit_em(z, gmm, config=config)
    else:
        x = z if place == "in memory" else lambda: iter(np.array_split(z, 5))
        found = fit_em_restarts(KEY, x, MixtureSpec(K, "diag"), init=gmm, config=config).best
    assert found.status == Status.MAX_ITER
    exact = oracles.log_likelihood(as_tuple(jax.tree.map(np.asarray, found.gmm)), z)
    np.testing.assert_allclose(found.log_likelihood, exact, rtol=3e-15)
    assert found.trace[found.n_iter] == found.log_likelihood
