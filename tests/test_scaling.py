"""The way in and the way out of standardised units. (What check_data refuses is tested in test_restarts.)"""

import jax
import numpy as np
import pytest

from conftest import EPS, assert_trees_close, random_gmm
from gmm_jax import MixtureSpec, affine, log_prob
from gmm_jax.mixture import check_data, impute, match_cost, standard_units, standardise

SCALES = np.array([1e-3, 1e5])


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_inward_and_outward_undo_each_other_and_keep_densities(covariance_type, x):
    data = x * (SCALES if covariance_type != "spherical" else 1e5) + 1e4
    z, scaling = standardise(data, MixtureSpec(3, covariance_type))
    gmm = random_gmm(5, 3, 2, covariance_type)
    outer = scaling.outward(gmm)
    assert_trees_close(scaling.inward(outer), gmm, rtol=1e-8, atol=1e-8)  # an offset of 1e7 standard deviations
    assert_trees_close(log_prob(outer, data), log_prob(gmm, z) - scaling.log_volume, rtol=1e-7)


def test_each_feature_has_mean_zero_and_sd_one_but_spherical_one_common_sd(x):
    z, _ = standardise(x * SCALES, MixtureSpec(2, "full"))
    np.testing.assert_allclose([z.mean(axis=0), z.std(axis=0)], [[0, 0], [1, 1]], atol=20 * EPS)
    z, scaling = standardise(x * SCALES, MixtureSpec(2, "spherical"))
    assert scaling.scale[0] == scaling.scale[1]
    np.testing.assert_allclose(np.mean(z.var(axis=0)), 1.0, rtol=20 * EPS)


def test_weights_weigh_in_centre_and_scale(x):
    weight = np.random.default_rng(0).integers(1, 5, len(x)).astype(float)
    weighted = standardise(x, MixtureSpec(2), weight)[1]
    repeated = standardise(np.repeat(x, weight.astype(int), axis=0), MixtureSpec(2))[1]
    np.testing.assert_allclose(weighted.centre, repeated.centre, rtol=1e-13)
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-13)


@pytest.mark.parametrize("value", [0.0, 0.1, -123456789.1, 1e200])
def test_a_constant_column_is_zero_with_scale_one(value, x):
    data = np.stack([x[:, 0], np.full(len(x), value)], axis=1)
    z, scaling = standardise(data, MixtureSpec(2))
    assert scaling.constant == (1,)
    assert scaling.scale[1] == 1.0
    assert scaling.centre[1] == value
    np.testing.assert_array_equal(z[:, 1], 0.0)


def test_what_is_left_of_a_constant_column_is_rounding(x):
    jitter = 0.3 * (1 + EPS * np.resize([0, 1, -1], len(x)))
    z, scaling = standardise(np.stack([x[:, 0], jitter], axis=1), MixtureSpec(2))
    assert scaling.constant == (1,)
    np.testing.assert_array_equal(z[:, 1], 0.0)


@pytest.mark.parametrize(
    ("given", "kept"), [(np.float32, np.float32), (np.float64, np.float64), (np.float16, np.float32), (int, np.float64)]
)
def test_dtypes_that_are_computed_with(given, kept):
    assert check_data(np.arange(6).reshape(3, 2).astype(given)).dtype == kept


def test_read_only_and_strided_data_are_not_touched(x):
    frozen = x[::2].copy()
    frozen.flags.writeable = False
    standardise(check_data(frozen), MixtureSpec(2))
    np.testing.assert_array_equal(frozen, x[::2])


def test_an_absolute_ridge_is_mapped_in(x):
    _, scaling = standardise(x * SCALES, MixtureSpec(2, "full"))
    gmm = random_gmm(5, 3, 2, "full")
    ridge = np.array([3.0, 5.0])
    added = scaling.outward(gmm).covariances + np.diag(ridge)
    inner = scaling.inward(affine(scaling.outward(gmm), 1.0)).covariances + np.diag(scaling.ridge_inward(ridge))
    np.testing.assert_allclose(scaling.outward(gmm).covariances * 0 + added, inner * np.outer(*[scaling.scale] * 2))


COARSE = {
    "float32 at 1e8": (lambda u: (1e8 + 5.0 * u).astype(np.float32), "float32"),
    "float32 at 1e8, wider": (lambda u: (1e8 + 20.0 * u).astype(np.float32), "float32"),
    "whole numbers above 2^53": (lambda u: (2**60 + 100.0 * u).astype(np.int64), "float64"),
}


@pytest.mark.parametrize("case", COARSE)
def test_a_spread_below_the_resolution_of_the_dtype_is_named(case, x):
    made, dtype = COARSE[case]
    column = made(np.random.default_rng(0).standard_normal(60))
    data = check_data(np.stack([(x[:, 0]).astype(column.dtype), column], axis=1))
    (remark,) = standardise(data, MixtureSpec(2))[1].remarks
    assert f"x varies in column(s) 1 by less than a few steps of {dtype}" in remark


def test_ordinary_offsets_are_resolved_and_constant_columns_are_said_to_be_constant(x):
    fine = (x + 1e6).astype(np.float32)
    assert standardise(fine, MixtureSpec(2))[1].remarks == []
    (remark,) = standardise(np.stack([x[:, 0], np.full(len(x), 1e8)], axis=1), MixtureSpec(2))[1].remarks
    assert remark.startswith("x is constant in column(s) 1,")


def test_the_floating_point_errors_of_the_caller_are_none_of_ours(x):
    """Harmless under- and overflows, wherever NumPy computes: the answers are those without np.seterr."""
    scaled = np.stack([x[:, 0] * 1e-140, x[:, 1] * 1e140], axis=1)
    gaps = np.where(np.arange(60)[:, None] == 0, [[np.nan, 0.0]], scaled)

    def all_of_it():
        z, scaling = standardise(gaps, MixtureSpec(3))
        gmm = scaling.outward(random_gmm(0, 3, 2, "full"))
        tiny = jax.tree.map(lambda leaf: leaf * 1e-200, random_gmm(0, 3, 2, "diag"))
        inner = standard_units(gmm, np.float32)[0]
        return z, gmm, scaling.inward(gmm), match_cost(gmm, gmm), match_cost(tiny, tiny), inner, impute(gmm, gaps)

    expected = all_of_it()
    with np.errstate(all="raise"):
        found = all_of_it()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_beyond_the_compute_dtype_stay_finite(x):
    _, scaling = standardise((x * 1e-10).astype(np.float32), MixtureSpec(2))
    far = scaling.rows_inward(np.array([[1e30, -1e35]], np.float32))
    assert np.isfinite(far).all()
