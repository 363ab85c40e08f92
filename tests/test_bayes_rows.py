"""Gaps and labels in the posterior: the density by plain NumPy, and two samplers of which one draws what is missing."""

import jax
import numpy as np
import pytest
from scipy import stats

import oracles
from conftest import as_tuple, assert_trees_close, near, posterior_of, random_gmm, scrambled
from gmm_jax import MixtureSpec, NotSupported, permute
from gmm_jax.bayes import bridge, gibbs, laplace, nuts, smc, svi
from gmm_jax.judge import RELABELLINGS, leave_one_out, relabel
from gmm_jax.mixture import Known, from_datatree

N, K, D = 60, 2, 2
KEY = jax.random.key(0)
SIZES = {"n_chains": 2, "n_warmup": 50, "n_draws": 50}
TRUTH = random_gmm(0, K, D, "diag")


def told_with(share):
    """(x with gaps, labels of that share of the rows, named as the truth names its components)."""
    rng = np.random.default_rng(1)
    which = rng.integers(0, K, N)
    x = TRUTH.means[which] + np.sqrt(TRUTH.covariances)[which] * rng.standard_normal((N, D))
    x[rng.random(x.shape) < 0.2] = np.nan
    return x, np.where(rng.random(N) < share, which, -1)


@pytest.fixture(scope="module")
def told():
    return told_with(0.3)


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


SLOWER = [pytest.param(engine, marks=pytest.mark.slow) for engine in (svi, laplace)]


@pytest.fixture(scope="module", params=[gibbs, nuts, *SLOWER], ids=lambda engine: engine.__name__)
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


def log_evidence(x, labels):
    """log p(what was seen of x, all labels) in closed form: each mean is normal, alone in its column and class."""
    total = np.sum(np.log(TRUTH.weights)[labels])
    for j, column in enumerate(x.T):
        seen = ~np.isnan(column)
        centre, scale = column[seen].mean(), column[seen].std()
        for k in range(K):
            values = column[seen & (labels == k)]
            covariance = TRUTH.covariances[k, j] * np.eye(values.size) + (2.0 * scale) ** 2
            total += stats.multivariate_normal.logpdf(values, np.full(values.size, centre), covariance)
    return total


@pytest.mark.slow
def test_the_evidence_is_of_what_was_seen_and_told():
    """With all labels the posterior is normal, and Laplace's evidence exact; a bridge has a standard error."""
    x, labels = told_with(1.0)
    told = {"labels": labels, "missing": "marginalise"}
    posterior = laplace(KEY, x, spec_of(), n_chains=2, n_draws=500, **told)
    np.testing.assert_allclose(posterior.stats["log_evidence"], log_evidence(x, labels), rtol=1e-8)
    found = bridge(KEY, x, spec_of(), posterior, **told)
    assert abs(found.log_evidence - log_evidence(x, labels)) < 4.0 * found.standard_error < 0.2
    with pytest.raises(ValueError, match="pass the x, spec, labels and missing by which the draws were made"):
        bridge(KEY, x, spec_of(), posterior, missing="marginalise")


@pytest.mark.parametrize("method", RELABELLINGS)
def test_components_that_labels_name_are_not_relabelled(method, x):
    """Of three components the first is named: draws that exchange the others are put right, and it stays in place."""
    rng = np.random.default_rng(0)
    orders = np.array([[0, 1, 2], [0, 2, 1]])[rng.integers(0, 2, (2, 10))]
    plain = posterior_of(near(random_gmm(0, 3, 2, "full"), 0, n_draws=10))
    named = plain._replace(draws=permute(plain.draws, orders), named=np.array([0]))
    found = relabel(named, method=method, x=x, climb=lambda gmms: gmms, reference=random_gmm(0, 3, 2, "full"))
    assert_trees_close(found.posterior.draws, plain.draws, rtol=0.0, atol=0.0)
    mixed = named._replace(draws=scrambled(plain.draws, 0)[0])
    kept = relabel(mixed, method=method, x=x, climb=lambda gmms: gmms)
    np.testing.assert_array_equal(kept.permutations[..., 0], 0)


def test_labels_are_kept_or_refused_by_what_reads_a_posterior(told, posterior):
    x, labels = told
    np.testing.assert_array_equal(posterior.named, np.arange(K))
    np.testing.assert_array_equal(from_datatree(posterior.to_datatree()).named, posterior.named)
    for refused in (
        lambda: leave_one_out(posterior, np.nan_to_num(x)),
        lambda: posterior.to_datatree(np.nan_to_num(x), log_likelihood=True),
        lambda: smc(KEY, np.nan_to_num(x), spec_of(), labels=labels),
        lambda: smc(KEY, x, spec_of(), missing="marginalise"),
    ):
        with pytest.raises(NotSupported, match="labels"):
            refused()


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
