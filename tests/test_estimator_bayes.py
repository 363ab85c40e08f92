"""BayesianGaussianMixture: predictions are means over draws, what is in doubt is said, scikit-learn's checks pass."""

import os
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

import oracles
from conftest import as_tuple, near, posterior_of, random_gmm, scrambled
from gmm_jax import GMM, BayesianGaussianMixture, GaussianMixture, Known, Prior, Status, align, judge
from gmm_jax.bayes.point import predictive_rows
from gmm_jax.mixture import NotSupported

sklearn = pytest.importorskip("sklearn", reason="the tests compare with scikit-learn")
ConvergenceWarning = sklearn.exceptions.ConvergenceWarning

SIZE = {"engine": "gibbs", "n_chains": 2, "n_warmup": 50, "n_draws": 200, "n_init": 4}


def fitted(x, **options):
    """A fit that may be in doubt; the tests of warnings do without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return BayesianGaussianMixture(**{"random_state": 0, **SIZE, **options}).fit(x)


@pytest.fixture
def given(monkeypatch):
    """posterior -> the estimator, unfitted, whose engine draws just that."""

    def estimator(posterior, *, only_a_mode=False, **options):
        def drawn(key, x, spec, *, engine, relabelling="pivot"):
            fit = judge.summary(posterior, spec, x=x, relabelling=relabelling)
            fit = fit._replace(standard_errors=None) if only_a_mode else fit
            return judge.PosteriorFit(fit, posterior, None)

        monkeypatch.setattr(judge, "fit_posterior", drawn)
        return BayesianGaussianMixture(posterior.draws.n_components, random_state=0, **options)

    return estimator


@pytest.fixture(scope="module")
def fit(x):
    return fitted(x, n_components=3)


def draws_of(fit):
    """Every draw in a list, as the oracles take mixtures."""
    draws = fit.posterior_.draws
    flat = [leaf.reshape(-1, *leaf.shape[2:]) for leaf in (draws.weights, draws.means, draws.covariances)]
    return [(*leaves, draws.covariance_type) for leaves in zip(*flat, strict=True)]


def test_predictions_are_means_over_draws(fit, x):
    draws = draws_of(fit)
    assert len(draws) == 400
    density = np.mean([np.exp(oracles.log_prob(gmm, x)) for gmm in draws], axis=0)
    r = np.mean([oracles.responsibilities(gmm, x) for gmm in draws], axis=0)
    np.testing.assert_allclose(fit.score_samples(x), np.log(density), rtol=1e-11)
    np.testing.assert_allclose(fit.predict_proba(x), r, atol=1e-12)
    np.testing.assert_array_equal(fit.predict(x), r.argmax(axis=1))
    assert fit.score(x) == pytest.approx(np.log(density).mean(), rel=1e-11)


def test_the_estimate_predicts_better_than_the_mean_of_the_draws_whose_spread_are_its_errors(fit):
    """By the posterior predictive's own law, at rows that the estimate has not seen."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), fit.posterior_.draws)
    rows = predictive_rows(jax.random.key(7), flat, 10_000)
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), flat)
    gain = oracles.log_prob(as_tuple(fit.mixture_), rows) - oracles.log_prob(as_tuple(mean), rows)
    assert gain.mean() > 5 * gain.std() / np.sqrt(len(gain))
    for name in ("weights", "means", "covariances"):
        draws = getattr(fit.posterior_.draws, name)
        np.testing.assert_allclose(getattr(fit, f"{name}_sd_"), draws.std(axis=(0, 1)), rtol=1e-12)
    table = fit.diagnostics_
    assert len(table.names) == 3 + 3 * 2 + 3 * 3 + 1
    assert (fit.rhat_, fit.ess_) == (table.r_hat.max(), table.ess_bulk.min())


def test_float32_data_have_the_same_posterior_in_float32(fit, x):
    """Sorted weights, which have no labels, within 5 Monte-Carlo errors of each other."""
    single = fitted(x.astype(np.float32), n_components=3)
    answers = [single.means_, single.weights_sd_, single.posterior_.draws.covariances]
    answers += [single.score_samples(x.astype(np.float32)), single.predict_proba(x.astype(np.float32))]
    assert {answer.dtype for answer in answers} == {np.dtype(np.float32)}
    means, errors = [], []
    for posterior in (single.posterior_, fit.posterior_):
        ordered = np.sort(posterior.draws.weights, axis=-1)
        means.append(ordered.mean(axis=(0, 1)))
        errors.append(ordered.std(axis=(0, 1)) / np.sqrt(fit.ess_))
    assert np.all(np.abs(means[0] - means[1]) < 5 * np.hypot(*errors))


def test_the_predictive_density_of_one_gaussian_is_that_of_the_closed_form(given, x):
    """Of μ ~ N(m, V) a posteriori and known Σ a new row is N(m, V + Σ).

    Within 5 standard errors, which for the mean of M densities are their sd over √M.
    """
    variance, v, n_draws = np.array([2.0, 0.5]), np.array([0.5, 1.0]), 2000
    means = x.mean(axis=0) + np.sqrt(v) * np.random.default_rng(0).standard_normal((4, n_draws // 4, 1, 2))
    weights, covariances = np.ones((4, n_draws // 4, 1)), np.diag(variance) + np.zeros((4, n_draws // 4, 1, 2, 2))
    known = Known(weights=np.ones(1), covariances=np.diag(variance)[None])
    one = given(posterior_of(GMM(weights, means, covariances)), known=known).fit(x)
    np.testing.assert_array_equal(one.covariances_sd_, np.zeros((1, 2, 2)))
    np.testing.assert_array_equal(one.weights_sd_, [0.0])
    predictive = oracles.log_prob((np.ones(1), x.mean(axis=0)[None], np.diag(v + variance)[None], "full"), x)
    densities = np.exp([oracles.log_prob(gmm, x) for gmm in draws_of(one)])
    error = densities.std(axis=0) / densities.mean(axis=0) / np.sqrt(n_draws)
    assert np.all(np.abs(one.score_samples(x) - predictive) < 5 * error)


def test_one_draw_predicts_as_the_mixture_that_it_is(given, x):
    """A posterior that is one mixture, and EM's door at that mixture, say the same."""
    gmm = random_gmm(0, 3, 2, "full")
    draws = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (2, 4, *leaf.shape)), gmm)
    with pytest.warns(ConvergenceWarning):
        bayesian = given(posterior_of(draws)).fit(x)
    plain = GaussianMixture(3)
    plain.weights_, plain.means_, plain.covariances_ = gmm.weights, gmm.means, gmm.covariances
    plain.n_features_in_ = 2
    np.testing.assert_allclose(bayesian.score_samples(x), plain.score_samples(x), rtol=1e-12)
    np.testing.assert_allclose(bayesian.predict_proba(x), plain.predict_proba(x), atol=1e-13)


def test_every_sampled_row_has_a_draw_of_its_own(given, x):
    """Half of the draws at −100 and half at +100: of n rows a binomial number, within 5 sds, lies on either side."""
    places = np.repeat([-100.0, 100.0], 5)[None, :, None, None] + np.zeros((2, 10, 1, 2))
    draws = GMM(np.ones((2, 10, 1)), places, np.ones((2, 10, 1, 2, 2)) * np.eye(2))
    with pytest.warns(ConvergenceWarning):
        estimator = given(posterior_of(draws)).fit(x)
    rows, labels = estimator.sample(1000)
    assert rows.shape == (1000, 2)
    np.testing.assert_array_equal(labels, 0)
    assert abs(np.sum(rows[:, 0] > 0) - 500) < 5 * np.sqrt(250)
    inner = rows - np.where(rows > 0, 100.0, -100.0)
    assert abs(inner.var() - 1.0) < 5 * np.sqrt(2 / 2000)


def test_labels_of_samples_are_sorted_and_frequent_as_the_draws_weights(fit):
    _, labels = fit.sample(4000)
    assert np.all(np.diff(labels) >= 0)
    p = fit.posterior_.draws.weights.mean(axis=(0, 1))
    assert np.all(np.abs(np.bincount(labels, minlength=3) / 4000 - p) < 5 * np.sqrt(p * (1 - p) / 4000))


def test_scrambled_labels_are_put_right_and_chains_that_agree_do_not_warn(given, x):
    truth = random_gmm(0, 3, 2, "full")
    draws, _ = scrambled(near(truth, 1, n_chains=4, n_draws=400), 2)
    estimator = given(posterior_of(draws)).fit(x)
    assert (estimator.converged_, estimator.status_) == (True, Status.SAMPLED)
    assert estimator.rhat_ < 1.01
    assert estimator.ess_ > 400
    assert np.all(estimator.means_sd_ < 0.1)
    np.testing.assert_allclose(np.sort(estimator.weights_), np.sort(truth.weights), atol=0.02)


def test_chains_that_are_stuck_are_a_warning(given, x):
    halves = [near(random_gmm(seed, 3, 2, "full"), 1, n_chains=1, n_draws=400) for seed in (0, 3)]
    draws = jax.tree.map(lambda *leaves: np.concatenate(leaves), *halves)
    with pytest.warns(ConvergenceWarning, match="may not be used as it is: .*some are stuck in another mode"):
        estimator = given(posterior_of(draws)).fit(x)
    assert (estimator.converged_, estimator.status_) == (False, Status.UNMIXED)


def test_labels_that_mean_nothing_are_a_warning(given, x):
    one = random_gmm(0, 1, 2, "full")
    twice = GMM(np.full(2, 0.5), np.repeat(one.means, 2, axis=0), np.repeat(one.covariances, 2, axis=0))
    with pytest.warns(UserWarning, match="labels are ambiguous"):
        estimator = given(posterior_of(near(twice, 1, n_chains=4, n_draws=400, noise=0.3))).fit(x)
    assert "labels are ambiguous" in estimator.message_


def test_too_few_draws_are_a_warning(x, fit):
    with pytest.warns(ConvergenceWarning, match="R-hat above 1.01 or ESS below 400"):
        again = BayesianGaussianMixture(3, random_state=0, **SIZE).fit(x)
    assert again.status_ == Status.UNMIXED
    np.testing.assert_array_equal(again.means_, fit.means_)  # the same seed, the same answer


def test_by_default_chains_go_on_until_they_have_mixed(x):
    x = x[:, :1] + np.repeat([0.0, 30.0], [40, 20])[:, None]
    estimator = BayesianGaussianMixture(2, random_state=0, n_init=4).fit(x)
    assert (estimator.status_, estimator.converged_) == (Status.SAMPLED, True)
    assert "mixed (gibbs" in estimator.message_
    np.testing.assert_allclose(np.sort(estimator.weights_), [1 / 3, 2 / 3], atol=0.05)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "em"}, "engine must be one of auto, gibbs, nuts, smc, svi, laplace; got 'em'"),
        ({"engine": "auto"}, "engine 'auto' has no option 'n_warmup'; it has n_chains, n_draws, max_passes, budget"),
        ({"engine": "svi"}, "engine 'svi' has no option 'n_chains'.*it has n_warmup, n_draws"),
        ({"engine_options": {"step": 1}}, "engine 'gibbs' has no option 'step'"),
        ({"n_draws": 0}, "n_draws must be"),
        ({"n_init": 0}, "n_restarts must be"),
        ({"relabelling": "best"}, "relabelling must be one of pivot"),
        ({"covariance_type": "round"}, "covariance_type must be one of"),
        ({"prior": 3.0}, "prior must be a Prior; got 3.0"),
        ({"known": 3.0}, "known must be a Known; got 3.0"),
        ({"known": Known(weights=[0.5, 0.6])}, r"known.weights must (have|sum)"),
        ({"n_components": 61}, "n_components=61 is more than the 60 rows"),
    ],
)
def test_what_cannot_be_is_a_sentence(options, sentence, x):
    with pytest.raises(ValueError, match=sentence):
        BayesianGaussianMixture(**{"n_components": 3, **SIZE, **options}).fit(x)


def test_what_was_seen_of_rows_is_fitted_and_predicted():
    labels = np.repeat([0, 1], 60)
    x = np.random.default_rng(0).standard_normal((120, 2)) + np.array([[0.0, 0.0], [6.0, -4.0]])[labels]
    gaps = np.where(np.arange(x.size).reshape(x.shape) % 11 == 0, np.nan, x)
    with pytest.raises(ValueError, match=r"X contains NaN, the first at row 0, column 0: .* or pass missing="):
        BayesianGaussianMixture(2).fit(gaps)
    whole, fit = (fitted(rows, n_components=2, missing="marginalise") for rows in (x, gaps))
    np.testing.assert_allclose(align(fit.mixture_, whole.mixture_).means, whole.means_, atol=0.2)
    found = fit.predict(gaps)
    assert max(np.mean(found == labels), np.mean(found != labels)) > 0.98
    np.testing.assert_allclose(fit.score_samples(gaps), fit.posterior_.log_predictive(gaps, missing="marginalise"))
    with pytest.raises(NotSupported, match="smc has neither labels nor missing values"):
        fitted(gaps, n_components=2, engine="smc", n_warmup=None, n_init=None, missing="marginalise")


def test_a_mode_is_no_posterior(given, x):
    estimator = given(posterior_of(near(random_gmm(0, 2, 2, "full"), 1)), only_a_mode=True)
    with pytest.raises(ValueError, match="auto with these options gives a mode and no posterior"):
        estimator.fit(x)


def test_a_clone_has_the_same_parameters():
    import numpyro.distributions as dist

    prior = Prior(means=dist.Normal(0.0, np.ones(2)).to_event(1))
    estimator = BayesianGaussianMixture(2, prior=prior, known=Known(weights=np.array([0.3, np.nan])), engine="nuts")
    again = sklearn.base.clone(estimator)
    assert again.engine == "nuts"
    np.testing.assert_array_equal(again.known.weights, estimator.known.weights)
    np.testing.assert_array_equal(again.prior.means.base_dist.scale, np.ones(2))


def test_some_of_scikit_learns_checks_pass():
    from test_estimator import FEW_CHECKS, conform

    assert conform(BayesianGaussianMixture(**SIZE), FEW_CHECKS) == []


ALL_CHECKS = """
import test_estimator
from gmm_jax import BayesianGaussianMixture
print(test_estimator.conform(BayesianGaussianMixture(engine='gibbs', n_chains=2, n_warmup=20, n_draws=30, n_init=4)))
"""


@pytest.mark.slow
def test_all_of_scikit_learns_checks_pass():
    from test_estimator import python

    path = os.pathsep.join(str(p) for p in (Path(__file__).parents[1], Path(__file__).parent))
    assert python(ALL_CHECKS, PYTHONPATH=path).strip().splitlines()[-1] == "[]"


WITHOUT = """
import sys, warnings
sys.modules["sklearn"] = None
import numpy as np
from gmm_jax import BayesianGaussianMixture
x = np.random.default_rng(0).standard_normal((60, 2)) + 1e6
model = BayesianGaussianMixture(random_state=0, n_init=4)
assert repr(model) == "BayesianGaussianMixture(n_init=4, random_state=0)"
model.fit(x)
assert np.all(np.abs(model.means_[0] - x.mean(axis=0)) < 5 * model.means_sd_[0] / np.sqrt(model.ess_) + 1e-2)
assert model.converged_ and model.means_.dtype == model.score_samples(x).dtype == np.float64
print("as it should be")
"""


@pytest.mark.slow
def test_it_works_without_scikit_learn_and_without_float64():
    from test_estimator import python

    assert python(WITHOUT).strip() == "as it should be"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["nuts", "smc", "svi", "laplace"])
def test_every_engine_agrees_with_gibbs(engine, x):
    """Means of well separated groups within 5 standard errors of the difference, sds within a factor of 1.3."""
    x = x[:, :1] + np.repeat([0.0, 30.0], [40, 20])[:, None]
    gibbs = BayesianGaussianMixture(2, random_state=0).fit(x)
    other = BayesianGaussianMixture(2, engine=engine, random_state=1).fit(x)
    order = [np.argsort(fit.means_[:, 0]) for fit in (gibbs, other)]
    error = 5 * gibbs.means_sd_[order[0]] * np.sqrt(1.0 / gibbs.ess_ + 1.0 / other.ess_)
    assert np.all(np.abs(gibbs.means_[order[0]] - other.means_[order[1]]) < error)
    ratio = other.means_sd_[order[1]] / gibbs.means_sd_[order[0]]
    assert np.all((ratio > 1 / 1.3) & (ratio < 1.3))
