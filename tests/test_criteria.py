"""Information criteria against their formulas, leave-one-out prediction against the normal model's closed form."""

import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, posterior_of, random_gmm
from gmm_jax import GMM, MixtureSpec
from gmm_jax.judge import information_criteria, leave_one_out

N_PARAMETERS = {"full": 17, "tied": 11, "diag": 14, "spherical": 11}  # K = 3, D = 2
PRIOR_VARIANCE = 25.0


@pytest.mark.parametrize("covariance_type", TYPES)
def test_information_criteria_are_their_formulas(covariance_type, x):
    gmm = random_gmm(5, 3, 2, covariance_type)
    found = information_criteria(gmm, x, MixtureSpec(3, covariance_type))
    log_likelihood, r = oracles.log_likelihood(as_tuple(gmm), x), oracles.responsibilities(as_tuple(gmm), x)
    p = N_PARAMETERS[covariance_type]
    bic = -2.0 * log_likelihood + p * np.log(len(x))
    expected = {
        "log_likelihood": log_likelihood,
        "n_parameters": p,
        "aic": -2.0 * log_likelihood + 2.0 * p,
        "bic": bic,
        "icl": bic - 2.0 * np.sum(np.log(r.max(axis=1))),
    }
    assert found == pytest.approx(expected, rel=1e-10)


def test_icl_is_bic_where_components_do_not_overlap():
    gmm = GMM(np.full(2, 0.5), np.array([[-50.0], [50.0]]), np.ones((2, 1, 1)))
    found = information_criteria(gmm, np.array([[-50.0], [49.0], [51.0]]), MixtureSpec(2))
    assert found["icl"] == found["bic"]


def mean_given(x):
    """Mean and variance of μ given samples of N(μ, 1) and μ ~ N(0, 25)."""
    variance = 1.0 / (len(x) + 1.0 / PRIOR_VARIANCE)
    return variance * x.sum(), variance


def draws_of_the_mean(x, seed):
    mean, variance = mean_given(x)
    means = mean + np.sqrt(variance) * np.random.default_rng(seed).standard_normal((2, 2000, 1, 1))
    return posterior_of(GMM(np.ones((2, 2000, 1)), means, np.ones((2, 2000, 1, 1, 1))))


def exact_terms(x):
    """log N(x_n | m, 1 + v) with m and v from all other rows."""
    mean, variance = np.array([mean_given(np.delete(x, n)) for n in range(len(x))]).T
    return -0.5 * np.log(2.0 * np.pi * (1.0 + variance)) - 0.5 * (x - mean) ** 2 / (1.0 + variance)


def test_leave_one_out_is_exact_for_the_normal_model():
    x = np.random.default_rng(0).standard_normal(30)
    found, exact = leave_one_out(draws_of_the_mean(x, 1), x[:, None]), exact_terms(x)
    assert not found.unreliable.any()
    np.testing.assert_allclose(found.pointwise, exact, atol=0.01)  # weights vary by 20 %, over 4,000 draws
    assert found.elpd == pytest.approx(found.pointwise.sum())
    assert found.standard_error == pytest.approx(np.sqrt(30) * found.pointwise.std(ddof=1))


def test_a_row_on_which_draws_differ_beyond_all_weights_is_flagged():
    """log N(x | μ, 1) of draws of μ differs by thousands of nats: k̂ of such weights is not small, it is infinite."""
    x = np.append(np.random.default_rng(0).standard_normal(10), 1e4)
    assert leave_one_out(draws_of_the_mean(x[:10], 1), x[:, None]).pareto_k[10] == np.inf


def test_a_row_that_decides_alone_is_flagged_and_refitted():
    x = np.array([0.0, 0.5, -0.4, 12.0])
    posterior = draws_of_the_mean(x, 2)
    assert leave_one_out(posterior, x[:, None]).unreliable[3]
    asked = []

    def refit(n):
        asked.append(n)
        return draws_of_the_mean(np.delete(x, n), n)

    found = leave_one_out(posterior, x[:, None], refit=refit)
    assert asked == np.flatnonzero(found.refitted).tolist()
    assert not found.unreliable.any()
    spread = 12.0 * np.sqrt(1.0 / 3.0)  # sd over draws of log N(12 | μ, 1): the mean of its exponential is far out
    assert abs(found.pointwise[3] - exact_terms(x)[3]) < spread
