"""Gaps and labels in the posterior: the density by plain NumPy, and two samplers of which one draws what is missing."""

import jax
import numpy as np
import pytest
from scipy import stats

import oracles
from conftest import as_tuple, random_gmm
from gmm_jax import MixtureSpec
from gmm_jax.bayes import gibbs, nuts
from gmm_jax.mixture import Known

N, K, D = 60, 2, 2
KEY = jax.random.key(0)
SIZES = {"n_chains": 2, "n_warmup": 50, "n_draws": 50}
TRUTH = random_gmm(0, K, D, "diag")


@pytest.fixture(scope="module")
def told():
    """(x with gaps, labels of a few rows, named as the truth names its components)."""
    rng = np.random.default_rng(1)
    which = rng.integers(0, K, N)
    x = TRUTH.means[which] + np.sqrt(TRUTH.covariances)[which] * rng.standard_normal((N, D))
    x[rng.random(x.shape) < 0.2] = np.nan
    return x, np.where(rng.random(N) < 0.3, which, -1)


def spec_of():
    """Weights and variances known: the means are what is sampled."""
    return MixtureSpec(K, "diag", Known(weights=TRUTH.weights, covariances=TRUTH.covariances))


def brute_log_density(gmm, x, labels):
    """Σ_n log p(what was seen of x_n, and its label if known), of a diagonal mixture."""
    weights, means, variances, _ = as_tuple(gmm)
    seen = ~np.isnan(x)
    each = np.where(seen[:, None], stats.norm.logpdf(np.nan_to_num(x)[:, None], means, np.sqrt(variances)), 0.0)
    joint = np.log(weights) + each.sum(axis=-1)
    struck = (labels[:, None] >= 0) & (labels[:, None] != np.arange(K))
    return np.logaddexp.reduce(np.where(struck, -np.inf, joint), axis=1).sum()


@pytest.fixture(scope="module", params=[gibbs, nuts], ids=lambda engine: engine.__name__)
def posterior(request, told):
    x, labels = told
    return request.param(KEY, x, spec_of(), labels=labels, missing="marginalise", **SIZES)


def test_the_log_density_is_of_what_was_seen_and_told(posterior, told):
    x, labels = told
    columns = [column[~np.isnan(column)] for column in x.T]
    centre, scale = np.array([c.mean() for c in columns]), np.array([c.std() for c in columns])
    for s in (0, 30):
        gmm = jax.tree.map(lambda leaf, s=s: leaf[1, s], posterior.draws)
        prior = stats.norm.logpdf(gmm.means, centre, 2.0 * scale).sum()
        expected = brute_log_density(gmm, x, labels) + prior
        np.testing.assert_allclose(posterior.log_density[1, s], expected, rtol=1e-8)


def test_draws_keep_the_classes_in_place(posterior):
    """Every draw of every chain, so that no relabelling is needed."""
    distance = ((posterior.draws.means[..., :, None, :] - TRUTH.means) ** 2).sum(-1)
    np.testing.assert_array_equal(np.argmin(distance, axis=-1), np.broadcast_to(np.arange(K), (2, 50, K)))


def test_a_wrong_label_is_refused(told):
    x, labels = told
    with pytest.raises(ValueError, match="row 3 has 2"):
        gibbs(KEY, x, spec_of(), labels=np.where(np.arange(N) == 3, 2, labels), missing="marginalise", **SIZES)
    with pytest.raises(ValueError, match='fit with missing="marginalise"'):
        nuts(KEY, x, spec_of(), **SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_drawing_what_is_missing_and_summing_it_out_give_one_posterior(covariance_type):
    """Means of the draws within five standard errors, those of the difference, by batch means."""
    truth, rng = random_gmm(0, K, 3, covariance_type), np.random.default_rng(3)
    x = oracles.random_data(rng, 150, truth)
    labels = np.where(rng.random(150) < 0.2, np.argmax(oracles.log_joint(as_tuple(truth), x), axis=1), -1)
    x[rng.random(x.shape) < 0.3] = np.nan
    given = {"labels": labels, "missing": "marginalise", "n_chains": 4}
    spec = MixtureSpec(K, covariance_type)
    a = nuts(KEY, x, spec, n_warmup=500, n_draws=1000, **given)
    b = gibbs(KEY, x, spec, n_warmup=500, n_draws=4000, **given)

    def summary(posterior):
        batches = posterior.draws.means.reshape(4, 10, -1, K, 3).mean(axis=2).reshape(40, K, 3)
        return batches.mean(axis=0), batches.std(axis=0, ddof=1) / np.sqrt(40)

    (mean_a, error_a), (mean_b, error_b) = summary(a), summary(b)
    assert np.all(np.abs(mean_a - mean_b) < 5.0 * np.hypot(error_a, error_b))
