"""The sum: e_step against the formulas, and that it is a sum."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import mixture as package
from gmm_jax.mixture import (
    Annotations,
    MixtureSpec,
    Moments,
    free_coordinates,
    missing_groups,
    static_masks,
    structure,
)
from gmm_jax.mixture.gmm import log_prob_of_rows
from gmm_jax.mixture.moments import kappa_squared, log_likelihood, take_sums

# one program instead of one for each of its operations
e_step = jax.jit(package.e_step, static_argnames=("block_size", "sums"))


def test_e_step_is_the_formula(mixture, x):
    assert_trees_close(e_step(mixture, x), Moments(*oracles.moments(as_tuple(mixture), x)))


def test_weighted_e_step_is_the_weighted_formula(mixture, x):
    weight = np.random.default_rng(0).uniform(0.1, 3.0, len(x))
    assert_trees_close(e_step(mixture, x, weight), Moments(*oracles.moments(as_tuple(mixture), x, weight)))


def test_halves_add_up_to_the_whole(mixture, x):
    halves = jax.tree.map(jnp.add, e_step(mixture, x[:30]), e_step(mixture, x[30:]))
    assert_trees_close(halves, e_step(mixture, x))


@pytest.mark.parametrize("sums", ["exact", "fast"])
@pytest.mark.parametrize("block_size", [7, 60, 1000])
def test_blocks_of_any_size_give_the_same_sums(x, block_size, sums):
    gmm = random_gmm(5, 3, 2, "full")
    weight = np.random.default_rng(0).uniform(0.1, 3.0, len(x))
    assert_trees_close(e_step(gmm, x, block_size=block_size, sums=sums), e_step(gmm, x))
    assert_trees_close(e_step(gmm, x, weight, block_size=block_size, sums=sums), e_step(gmm, x, weight))


@pytest.mark.parametrize("sums", ["exact", "fast"])
@pytest.mark.parametrize("n_features", [1, 5])  # below and above where factorisations are written out
@pytest.mark.parametrize("covariance_type", TYPES)
def test_both_ways_take_the_sum_of_the_formula(covariance_type, n_features, sums):
    gmm = random_gmm(2, 3, n_features, covariance_type)
    x = np.random.default_rng(1).standard_normal((40, n_features))
    weight = np.random.default_rng(0).uniform(0.1, 3.0, len(x))
    expected = Moments(*oracles.moments(as_tuple(gmm), x, weight))
    assert_trees_close(e_step(gmm, x, weight, sums=sums), expected)


@pytest.mark.parametrize("exact", [True, False])
def test_one_program_takes_sums_either_way_and_says_what_they_are_worth(mixture, x, exact):
    whitener = structure(mixture.covariance_type).whitener(mixture.covariances)
    take = jax.jit(lambda sums: take_sums(mixture, whitener, x, Annotations(), sums))
    found, one_way = take(exact), take_sums(mixture, whitener, x, Annotations(), "exact" if exact else "fast")
    assert_trees_close(found[:4], one_way[:4], rtol=1e-12, atol=1e-12)
    worth = kappa_squared(mixture, whitener, found)
    assert worth == 0.0 if exact else worth > 0.0
    np.testing.assert_allclose(worth, kappa_squared(mixture, whitener, one_way), rtol=1e-9)


@pytest.mark.parametrize("sums", ["exact", "fast"])
@pytest.mark.parametrize("block_size", [7, 1000])
def test_uniforms_send_each_row_whole_to_the_component_of_its_share(x, block_size, sums):
    """By inversion of what the oracle says of r, as np.searchsorted would choose."""
    gmm, labels = random_gmm(5, 3, 2, "full"), np.where(np.arange(len(x)) % 5 == 0, 1, -1)
    u = np.random.default_rng(2).uniform(size=len(x))
    r = oracles.responsibilities(as_tuple(gmm), x)
    r = np.where(labels[:, None] >= 0, np.eye(3)[labels], r)
    chosen = np.eye(3)[[np.searchsorted(np.cumsum(row), at, side="right") for row, at in zip(r, u, strict=True)]]
    found = e_step(gmm, x, labels=labels, uniforms=u, block_size=block_size, sums=sums)
    residuals = x[:, None] - np.asarray(gmm.means)
    np.testing.assert_array_equal(found.mass, chosen.sum(axis=0))
    np.testing.assert_allclose(found.first, np.einsum("nk,nkd->kd", chosen, residuals), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        found.second, np.einsum("nk,nki,nkj->kij", chosen, residuals, residuals), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_far_from_the_origin_are_summed_as_well_as_near_ones(covariance_type, offset):
    """Statistics about the origin would lose (offset / sd)² in precision: wrong from 1e6 on."""
    near = random_gmm(2, 3, 2, covariance_type, spread=1.0)
    x = np.random.default_rng(1).standard_normal((40, 2))
    far = replace(near, means=near.means + offset)
    expected = Moments(*oracles.moments(as_tuple(near), x))
    for sums in (None, "fast", "exact"):
        assert_trees_close(e_step(far, x + offset, sums=sums), expected, rtol=1e-8, atol=1e-8)


def test_a_row_of_weight_zero_is_absent_even_where_its_density_is_not_finite(mixture, x):
    wild = np.concatenate([x, [[1e200, -1e200]]])
    weight = np.append(np.ones(len(x)), 0.0)
    assert_trees_close(e_step(mixture, wild, weight), e_step(mixture, x))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_far_rows_keep_finite_responsibilities(covariance_type):
    """The notebook's densities underflow beyond about 38 standard deviations; logs do not."""
    gmm = random_gmm(5, 3, 2, covariance_type)
    sums = e_step(gmm, np.array([[1e6, 1e6]]))
    assert np.isfinite(sums.log_likelihood)
    np.testing.assert_allclose(np.sum(sums.mass), 1.0, rtol=1e-12)


@pytest.mark.parametrize("told", ["nothing", "labels and gaps"])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_likelihood_and_its_derivatives_are_those_of_the_density(x, covariance_type, told):
    """Fisher's identity for the first derivative, and the second along a direction through the sums."""
    gmm, rng = jax.tree.map(jnp.asarray, random_gmm(5, 3, 2, covariance_type)), np.random.default_rng(3)
    z, rows = x, Annotations()
    if told != "nothing":
        z, groups = missing_groups(np.where(rng.random(x.shape) < 0.3, np.nan, x), "marginalise")
        rows = Annotations(labels=np.where(np.arange(len(x)) % 5 == 0, 1, -1), groups=groups)
    theta, unpack = free_coordinates(gmm, static_masks(MixtureSpec(3, covariance_type)))
    direction = rng.standard_normal(theta.shape)

    def of(function):
        slope = jax.value_and_grad(lambda theta: function(unpack(theta)))
        return jax.jit(lambda theta: jax.jvp(slope, (theta,), (direction,)))(theta)

    found = of(lambda gmm: log_likelihood(gmm, z, rows))
    assert_trees_close(found, of(lambda gmm: jnp.sum(log_prob_of_rows(gmm, z, rows))), rtol=1e-9, atol=1e-8)


def test_the_likelihood_has_no_derivative_in_the_data(x):
    gmm = random_gmm(5, 3, 2, "full")
    with pytest.raises(NotImplementedError, match="differentiate log_prob"):
        jax.grad(lambda x: log_likelihood(gmm, x, Annotations()))(jnp.asarray(x))
