"""Missing at random: each row counts by what was seen of it. The oracle marginalises row by row in plain NumPy."""

import re

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import MixtureSpec, impute, log_prob, predict, responsibilities
from gmm_jax.em import EMConfig, fit_em, fit_em_restarts
from gmm_jax.mixture import e_step, missing_groups

N, K, D = 60, 2, 3
KEY = jax.random.key(0)
CONFIG = EMConfig(max_iter=30, tol=0.0)
OPTION = {"missing": "marginalise"}


def with_gaps(seed, covariance_type="full", share=0.3):
    """(mixture, rows of another like it with entries at random replaced by NaN); row 5 is wholly missing."""
    rng = np.random.default_rng(seed)
    x = oracles.random_data(rng, N, random_gmm(seed, K, D, covariance_type))
    x[rng.random(x.shape) < share] = np.nan
    x[5] = np.nan
    return random_gmm(seed + 1, K, D, covariance_type), x


def parts(gmm):
    weights, means, covariances, covariance_type = as_tuple(gmm)
    return weights, means, oracles.dense(covariances, covariance_type, *means.shape)


def brute_log_joint(gmm, x):
    """(N, K), one row and one component at a time."""
    weights, means, matrices = parts(gmm)
    joint = np.tile(np.log(weights), (len(x), 1))
    for n, row in enumerate(x):
        seen = ~np.isnan(row)
        for k in range(len(weights) if seen.any() else 0):
            matrix = matrices[k][np.ix_(seen, seen)]
            joint[n, k] += oracles.log_gaussian(row[None, seen], means[k, seen], matrix)[0]
    return joint


def brute_conditional(row, mean, matrix):
    """The row with E[x_u | x_o] in its gaps, and cov[x | x_o] (D, D)."""
    seen, gap = ~np.isnan(row), np.isnan(row)
    filled, covariance = np.where(seen, row, mean), np.zeros_like(matrix)
    slope = matrix[np.ix_(gap, seen)] @ np.linalg.inv(matrix[np.ix_(seen, seen)])
    filled[gap] += slope @ (row[seen] - mean[seen])
    covariance[np.ix_(gap, gap)] = matrix[np.ix_(gap, gap)] - slope @ matrix[np.ix_(seen, gap)]
    return filled, covariance


def brute_moments(gmm, x, sample_weight):
    """mass, first and dense second moments about the means, and the log-likelihood."""
    joint = brute_log_joint(gmm, x)
    log_p = np.logaddexp.reduce(joint, axis=1)
    r = np.exp(joint - log_p[:, None]) * sample_weight[:, None]
    _, means, matrices = parts(gmm)
    first, second = np.zeros((K, D)), np.zeros((K, D, D))
    for n, row in enumerate(x):
        for k in range(K):
            filled, covariance = brute_conditional(row, means[k], matrices[k])
            d = filled - means[k]
            first[k] += r[n, k] * d
            second[k] += r[n, k] * (np.outer(d, d) + covariance)
    return r.sum(axis=0), first, second, sample_weight @ log_p


def in_shape(second, covariance_type):
    """What the structure keeps of dense second moments."""
    diagonal = np.diagonal(second, axis1=1, axis2=2)
    shapes = {"full": second, "tied": second.sum(axis=0), "diag": diagonal, "spherical": diagonal.mean(axis=1)}
    return shapes[covariance_type]


@pytest.mark.parametrize("covariance_type", TYPES)
def test_sums_and_densities_agree_with_marginalising_row_by_row(covariance_type):
    gmm, x = with_gaps(3, covariance_type)
    weight = np.random.default_rng(0).uniform(0.0, 2.0, N)
    weight[7] = 0.0
    filled, groups = missing_groups(x, "marginalise")
    found = jax.jit(e_step)(gmm, filled, weight, groups=groups)
    mass, first, second, log_likelihood = brute_moments(gmm, x, weight)
    expected = (mass, first, in_shape(second, covariance_type), log_likelihood)
    assert_trees_close(tuple(found), expected)
    joint = brute_log_joint(gmm, x)
    total = np.logaddexp.reduce(joint, axis=1)
    assert_trees_close(np.asarray(log_prob(gmm, x, **OPTION)), total)
    assert_trees_close(np.asarray(responsibilities(gmm, x, **OPTION)), np.exp(joint - total[:, None]))
    np.testing.assert_array_equal(predict(gmm, x, **OPTION), np.argmax(joint, axis=1))


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_the_likelihood_rises_and_belongs_to_what_is_returned(covariance_type):
    gmm, x = with_gaps(3, covariance_type)
    found = fit_em(x, gmm, config=CONFIG, **OPTION)
    trace = np.asarray(found.trace)[: int(found.n_iter) + 1]
    assert np.all(np.diff(trace) > -1e-10 * np.abs(trace[1:]))
    total = np.logaddexp.reduce(brute_log_joint(found.gmm, x), axis=1).sum()
    np.testing.assert_allclose(found.log_likelihood, total, rtol=1e-10)


def test_nothing_missing_is_bit_for_bit_the_path_without_the_option():
    gmm, _ = with_gaps(3)
    x = oracles.random_data(np.random.default_rng(0), N, gmm)
    assert_trees_close(fit_em(x, gmm, config=CONFIG, **OPTION), fit_em(x, gmm, config=CONFIG), rtol=0.0, atol=0.0)
    spec = MixtureSpec(K)
    with_option, without = (fit_em_restarts(KEY, x, spec, n_restarts=2, **option) for option in (OPTION, {}))
    assert_trees_close(with_option.fits, without.fits, rtol=0.0, atol=0.0)
    assert missing_groups(x, "marginalise")[1] is None


@pytest.mark.slow
def test_integer_weights_are_repeated_rows_and_weight_zero_an_absent_one():
    gmm, x = with_gaps(3)
    count = np.random.default_rng(1).integers(0, 3, N)
    (once, groups), (often, more) = (missing_groups(data, "marginalise") for data in (x, np.repeat(x, count, axis=0)))
    assert_trees_close(e_step(gmm, once, count.astype(float), groups=groups), e_step(gmm, often, groups=more))


def test_a_row_of_which_nothing_was_seen_has_likelihood_one():
    gmm, x = with_gaps(3)
    filled, groups = missing_groups(x, "marginalise")
    without, fewer = missing_groups(np.delete(x, 5, axis=0), "marginalise")
    found, expected = e_step(gmm, filled, groups=groups), e_step(gmm, without, groups=fewer)
    assert_trees_close(found.log_likelihood, expected.log_likelihood)
    assert_trees_close(found.mass, expected.mass + gmm.weights)


def test_many_patterns_and_large_groups_are_only_other_ways_of_taking_the_sum(monkeypatch):
    """One group at a time is as good as all at once."""
    gmm, x = with_gaps(3)
    filled, groups = missing_groups(x, "marginalise")
    expected = e_step(gmm, filled, groups=groups)
    monkeypatch.setattr("gmm_jax.mixture.annotations.GROUP_NUMBERS", 1)
    assert_trees_close(e_step(gmm, filled, groups=groups), expected)
    assert np.sort(groups.rows[groups.rows >= 0]).tolist() == list(range(N))


@pytest.fixture(scope="module")
def restarts():
    _, x = with_gaps(3)
    return x, fit_em_restarts(KEY, x, MixtureSpec(K), n_restarts=4, config=EMConfig(max_iter=300), **OPTION)


def test_restarts_report_the_likelihood_of_what_was_seen_in_the_units_of_the_data(restarts):
    x, found = restarts
    total = np.logaddexp.reduce(brute_log_joint(found.best.gmm, x), axis=1).sum()
    np.testing.assert_allclose(found.best.log_likelihood, total, rtol=1e-10)


def test_a_fit_with_gaps_is_affine_equivariant(restarts):
    x, found = restarts
    scale, shift = np.array([1e-3, 1.0, 1e4]), np.array([5.0, -1e3, 0.0])
    moved = fit_em_restarts(
        KEY, x * scale + shift, MixtureSpec(K), n_restarts=4, config=EMConfig(max_iter=300), **OPTION
    )
    np.testing.assert_allclose((moved.best.gmm.means - shift) / scale, found.best.gmm.means, rtol=1e-6, atol=1e-6)
    volume = np.sum(~np.isnan(x), axis=0) @ np.log(scale)
    np.testing.assert_allclose(moved.best.log_likelihood + volume, found.best.log_likelihood, rtol=1e-9)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_imputation_is_the_mixture_of_the_components_conditional_expectations(covariance_type):
    gmm, x = with_gaps(3, covariance_type)
    found = impute(gmm, x)
    joint = brute_log_joint(gmm, x)
    r = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])
    _, means, matrices = parts(gmm)
    for n, row in enumerate(x):
        each = [brute_conditional(row, means[k], matrices[k]) for k in range(K)]
        mean = sum(r[n, k] * each[k][0] for k in range(K))
        offs = [filled - mean for filled, _ in each]
        covariance = sum(r[n, k] * (each[k][1] + np.outer(offs[k], offs[k])) for k in range(K))
        np.testing.assert_allclose(found.x[n], mean, atol=1e-10)
        np.testing.assert_allclose(found.covariances[n], covariance, atol=1e-10)
    np.testing.assert_allclose(found.standard_deviations**2, np.diagonal(found.covariances, axis1=1, axis2=2))
    assert np.all(found.standard_deviations[~np.isnan(x)] == 0.0)
    complete = np.nan_to_num(x)
    np.testing.assert_array_equal(impute(gmm, complete).x, complete)


def test_what_cannot_be_done_is_said_in_a_sentence():
    gmm, x = with_gaps(3)
    spec = MixtureSpec(K)
    cases = [
        ('row 0, column 2: drop or impute those rows, or fit with missing="marginalise".', x, {}),
        ("x column 1 holds no number, only NaN", np.where(np.arange(D) == 1, np.nan, x), OPTION),
        ("inf at row 0, column 0", np.where(np.arange(D) == 0, np.inf, x), OPTION),
        ("missing must be \"marginalise\" or None; got 'drop'", x, {"missing": "drop"}),
    ]
    cases[0] = (re.sub("row 0, column 2", "row {}, column {}".format(*np.argwhere(np.isnan(x))[0]), cases[0][0]), x, {})
    for sentence, data, option in cases:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            fit_em_restarts(KEY, data, spec, n_restarts=2, **option)
    with pytest.raises(ValueError, match="data set 0: x must be finite"):
        fit_em_restarts(KEY, x[None], spec, n_restarts=2)
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda x: fit_em(x, gmm, **OPTION))(x)
    with pytest.raises(ValueError, match=r"x must be \(N, 3\)"):
        impute(gmm, x[:, :2])


@pytest.mark.slow
def test_values_missing_at_random_cost_precision_but_no_bias():
    """x₁ is hidden where x₀ is large, which leaves out rows in earnest; the fit of complete rows is biased by that."""
    truth = random_gmm(0, K, D, "full", spread=6.0)
    order = EMConfig(max_iter=500, tol=1e-9)
    errors = {"marginalised": [], "complete rows": []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = oracles.random_data(rng, 500, truth)
        x[rng.permutation(np.argsort(x[:, 0])[250:])[:175], 1] = np.nan
        cases = {"marginalised": (x, OPTION), "complete rows": (x[~np.isnan(x).any(axis=1)], {})}
        for name, (rows, option) in cases.items():
            errors[name].append(
                np.asarray(fit_em(rows, truth, config=order, **option).gmm.weights)[0] - truth.weights[0]
            )
    mean = {name: np.mean(values) for name, values in errors.items()}
    error = {name: np.std(values, ddof=1) / np.sqrt(30) for name, values in errors.items()}
    assert abs(mean["marginalised"]) < 5.0 * error["marginalised"]
    assert abs(mean["complete rows"]) > 5.0 * error["complete rows"]
