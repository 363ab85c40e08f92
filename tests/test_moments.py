"""The sum: e_step against the formulas, and that it is a sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax.mixture import Moments, e_step


def test_e_step_is_the_formula(mixture, x):
    assert_trees_close(e_step(mixture, x), Moments(*oracles.moments(as_tuple(mixture), x)))


def test_weighted_e_step_is_the_weighted_formula(mixture, x):
    weight = np.random.default_rng(0).uniform(0.1, 3.0, len(x))
    assert_trees_close(e_step(mixture, x, weight), Moments(*oracles.moments(as_tuple(mixture), x, weight)))


def test_halves_add_up_to_the_whole(mixture, x):
    halves = jax.tree.map(jnp.add, e_step(mixture, x[:30]), e_step(mixture, x[30:]))
    assert_trees_close(halves, e_step(mixture, x))


@pytest.mark.parametrize("block_size", [7, 60, 1000])
def test_blocks_of_any_size_give_the_same_sums(x, block_size):
    gmm = random_gmm(5, 3, 2, "full")
    weight = np.random.default_rng(0).uniform(0.1, 3.0, len(x))
    assert_trees_close(e_step(gmm, x, block_size=block_size), e_step(gmm, x))
    assert_trees_close(e_step(gmm, x, weight, block_size=block_size), e_step(gmm, x, weight))


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
