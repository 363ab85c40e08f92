"""The posterior of K against all partitions of eight rows; with K fixed, the posterior of that mixture."""

from functools import cache
from math import lgamma

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from test_bayes_evidence import ALPHA, MEAN, MEANS, RATE, SD, SHAPE, X, assert_exact
from test_bayes_references import mcse

from gmm_jax import Known, MixtureSpec, NotSupported, Prior, bayes
from gmm_jax.bayes.telescoping import beta_negative_binomial, log_sizes

KEY, N = jax.random.key(0), len(X)
PRIOR = Prior(means=MEANS, covariances=dist.InverseGamma(SHAPE, RATE))
SPEC = MixtureSpec(N, "spherical", prior=PRIOR)


def partitions(n):
    """All partitions of n rows, as labels in order of first appearance."""
    if n == 0:
        return [()]
    return [(*head, label) for head in partitions(n - 1) for label in range(max(head, default=-1) + 2)]


@cache
def log_block(rows):
    """log p of these rows in one component, σ² on 160 points as in the other exact test."""
    logs = np.linspace(-6.0, 16.0, 160)
    variances, x = np.exp(logs), X[list(rows), 0]
    log_prior = SHAPE * np.log(RATE) - SHAPE * logs - RATE / variances + np.log(logs[1] - logs[0])
    precision = 1.0 / SD**2 + len(x) / variances
    mean = (MEAN / SD**2 + x.sum() / variances) / precision
    squares = np.sum(x**2) / variances + MEAN**2 / SD**2 - precision * mean**2
    log_at = -0.5 * (len(x) * np.log(2 * np.pi * variances) + np.log(SD**2 * precision) + squares) + log_prior
    return np.logaddexp.reduce(log_at)


def exact(log_prior, gamma):
    """P(K | x) and P(K₊ | x) for K = 0, ..., N, all partitions summed."""
    joint = np.zeros((N + 1, N + 1))
    for labels in partitions(N):
        blocks = [tuple(np.flatnonzero(np.array(labels) == k)) for k in range(max(labels) + 1)]
        log_x, filled = sum(log_block(rows) for rows in blocks), len(blocks)
        for k in range(filled, N + 1):
            g = gamma[k - 1]
            log_p = log_prior[k - 1] + lgamma(k + 1) - lgamma(k - filled + 1) + lgamma(k * g) - lgamma(N + k * g)
            joint[k, filled] += np.exp(log_x + log_p + sum(lgamma(len(rows) + g) - lgamma(g) for rows in blocks))
    joint /= joint.sum()
    return joint.sum(axis=1), joint.sum(axis=0)


@pytest.mark.parametrize("gamma", [np.full(N, 1.0), 2.0 / np.arange(1, N + 1)], ids=["static", "dynamic"])
def test_the_posterior_of_k_is_that_of_all_partitions(gamma):
    found = bayes.telescoping(KEY, X, SPEC, concentration=gamma, n_draws=6000)
    for counts, truth in zip(
        (found.n_components, found.occupied), exact(beta_negative_binomial(np.arange(N)), gamma), strict=True
    ):
        p, error = found.probabilities(counts)
        for k in np.flatnonzero(truth > 1e-3):
            assert abs(p[k] - truth[k]) <= 4.0 * mcse((counts == k).astype(float)), k
        assert p.sum() == pytest.approx(1.0)
        assert np.all(error < 0.05)
    beyond = np.arange(N) >= found.n_components[..., None]
    assert np.all((found.draws.weights == 0.0) == beyond)
    assert np.all(found.occupied <= found.n_components)


@pytest.mark.parametrize(("dtype", "n"), [(np.float64, 20), (np.float32, 100_000)])
def test_a_partitions_probability_by_k_is_the_formula(dtype, n):
    """Also for many rows in float32, where log Γ(n) alone is off by more than the answer may be."""
    counts, gamma = np.array([n // 2, n - n // 2 - 1, 1, 0, 0]), 3.0 / np.arange(1, 6)
    found = np.asarray(log_sizes(counts.astype(dtype), gamma.astype(dtype)))
    assert found.dtype == dtype

    def filled(g):
        return sum(lgamma(c + g) - lgamma(g) for c in counts[:3])

    exact = [
        lgamma(k + 1) - lgamma(k - 2) + lgamma(k * g) - lgamma(n + k * g) + filled(g)
        for k, g in zip((3, 4, 5), gamma[2:].tolist(), strict=True)
    ]
    assert np.all(np.isneginf(found[:2]))
    size = np.abs(found[2:]).max()  # of the terms' sum, about 20 nats here
    tolerance = max(1e-6, 16.0 * np.finfo(dtype).eps * (1.0 + size))  # JAX's log B is its asymptotic series, to 1e-6
    np.testing.assert_allclose(np.diff(found[2:]), np.diff(exact), rtol=0.0, atol=tolerance)


@pytest.mark.slow
def test_with_k_fixed_it_draws_what_gibbs_draws():
    spec = MixtureSpec(2, "spherical", prior=PRIOR)
    found = bayes.telescoping(KEY, X, spec, components=[0.0, 1.0], concentration=ALPHA[0], n_draws=6000)
    assert np.all(found.n_components == 2)
    assert_exact(found, "free", mcse)


def test_the_prior_of_k_is_the_published_one():
    n = np.arange(50)
    np.testing.assert_allclose(beta_negative_binomial(n), log_pmf_by_quadrature(n))
    assert np.exp(beta_negative_binomial(np.arange(100_000))).sum() == pytest.approx(1.0, abs=1e-6)


def log_pmf_by_quadrature(n):
    """∫ (1 − p)^n p Beta(p | 4, 3) dp, by SciPy's quadrature."""
    from scipy.integrate import quad
    from scipy.stats import beta

    return np.log([quad(lambda p, k=k: (1 - p) ** k * p * beta(4, 3).pdf(p), 0, 1)[0] for k in n])


@pytest.mark.parametrize(
    ("options", "spec", "sentence"),
    [
        ({"concentration": 0.0}, SPEC, "concentration must be positive"),
        ({"concentration": np.ones(3)}, SPEC, "one for each K to 8"),
        ({"components": np.ones(3)}, SPEC, "components must be p.K. for K = 1 to 8"),
        ({"components": np.zeros(N)}, SPEC, "not all 0"),
        ({}, MixtureSpec(2, prior=Prior(weights=dist.Dirichlet(np.ones(2)))), "leave it out and give concentration"),
        ({}, MixtureSpec(9), "n_components=9 is more than the 8 rows"),
    ],
)
def test_bad_arguments_are_a_sentence(options, spec, sentence):
    with pytest.raises(ValueError, match=sentence):
        bayes.telescoping(KEY, X, spec, **options)


def test_components_that_are_told_apart_cannot_come_and_go():
    for known in (Known(weights=np.array([0.5, np.nan])), Known(means=np.array([[0.0], [np.nan]]))):
        with pytest.raises(NotSupported, match=r"weights|means"):
            bayes.telescoping(KEY, X, MixtureSpec(2, known=known))
    with pytest.raises(NotSupported, match="semi-conjugate"):
        bayes.telescoping(KEY, X, MixtureSpec(2, prior=Prior(means=dist.StudentT(4.0, np.zeros(1), 1.0).to_event(1))))
