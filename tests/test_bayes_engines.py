"""What engines promise beside the right posterior: keys, which options and priors they take, diagnostics, ArviZ."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import logsumexp
from test_bayes_references import COVARIANCE, ENGINES, SMALL

from gmm_jax import GMM, Known, MixtureSpec, NotSupported, Posterior, Prior, Status, bayes, judge

PRIOR = Prior(
    means=dist.MultivariateNormal(np.zeros(2), 9.0 * np.eye(2)),
    covariances=dist.InverseWishart(6.0, scale_matrix=np.eye(2)),
)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_same_key_same_draws_and_another_key_others(engine):
    spec = MixtureSpec(2, "full", Known(covariances=np.stack([COVARIANCE, COVARIANCE])))
    first, again, other = (ENGINES[engine](jax.random.key(s), SMALL, spec, n_warmup=100, n_draws=50) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.draws.means, again.draws.means)
    np.testing.assert_array_equal(first.log_density, again.log_density)
    assert not np.any(first.draws.means == other.draws.means)
    assert first.log_density.shape == (4, 50)


@pytest.mark.parametrize("n_temperatures", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_gibbs_gives_each_draw_the_density_of_its_own_mixture(n_temperatures):
    """The likelihood is a by-product of the sweep that begins at the draw."""
    spec = MixtureSpec(2, prior=PRIOR)
    size = {"n_chains": 2, "n_warmup": 3, "n_draws": 20}
    posterior = bayes.gibbs(jax.random.key(0), SMALL, spec, **size, n_temperatures=n_temperatures)
    for c, s in ((0, 0), (1, 7), (1, 19)):
        gmm = jax.tree.map(lambda leaf, c=c, s=s: leaf[c, s], posterior.draws)
        normal = stats.multivariate_normal
        joint = [normal.logpdf(SMALL, m, v) for m, v in zip(gmm.means, gmm.covariances, strict=True)]
        likelihood = logsumexp(np.log(gmm.weights) + np.transpose(joint), axis=1).sum()
        prior = normal.logpdf(gmm.means, np.zeros(2), 9.0 * np.eye(2)).sum()  # Dirichlet(1, 1) has log density 0
        prior += sum(stats.invwishart.logpdf(v, 6.0, np.eye(2)) for v in gmm.covariances)
        np.testing.assert_allclose(posterior.log_density[c, s], likelihood + prior, rtol=1e-8)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"n_chains": 0}, "n_chains must be a positive integer; got 0"),
        ({"n_chains": True}, "n_chains must be a positive integer"),
        ({"n_draws": 2.5}, "n_draws must be a positive integer; got 2.5"),
        ({"n_warmup": -1}, "n_warmup must be (a positive integer|an integer of at least 0); got -1"),
        ({"init": GMM(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])}, "init has 1 components, but spec has 2"),
        ({"init": GMM(np.ones(3) / 3, np.zeros((3, 2)), np.stack([np.eye(2)] * 3))}, "init has 3 components"),
        ({"init": GMM(np.ones(2) / 2, np.zeros((2, 3)), np.stack([np.eye(3)] * 2))}, "3 features, but the data have 2"),
        ({"init": GMM(np.ones(2) / 2, np.zeros((2, 2)), np.ones((2, 2)), "diag")}, "covariance_type 'diag'"),
        ({"init": "kmeans++"}, "init must be a GMM or None"),
        (
            {"init": GMM(np.ones((3, 2)) / 2, np.zeros((3, 2, 2)), np.stack([np.stack([np.eye(2)] * 2)] * 3))},
            "init holds 3 starts, but n_chains=4",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["nuts", "gibbs", "svi", "laplace"])
def test_bad_options_are_a_sentence(engine, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        getattr(bayes, engine)(jax.random.key(0), SMALL, MixtureSpec(2), **options)


def test_particular_options_are_checked():
    with pytest.raises(ValueError, match="target_accept must lie between 0 and 1"):
        bayes.nuts(jax.random.key(0), SMALL, MixtureSpec(2), target_accept=1.0)
    with pytest.raises(ValueError, match="max_depth must be a positive integer"):
        bayes.nuts(jax.random.key(0), SMALL, MixtureSpec(2), max_depth=0)
    with pytest.raises(ValueError, match="guide must be one of normal, multivariate, low_rank, delta"):
        bayes.svi(jax.random.key(0), SMALL, MixtureSpec(2), guide="nromal")
    with pytest.raises(ValueError, match="n_warmup must be a positive integer"):
        bayes.svi(jax.random.key(0), SMALL, MixtureSpec(2), n_warmup=0)
    known = Known(np.ones(2) / 2, np.zeros((2, 2)), np.stack([np.eye(2)] * 2))
    with pytest.raises(ValueError, match="leaves nothing to infer"):
        bayes.gibbs(jax.random.key(0), SMALL, MixtureSpec(2, known=known))


LOGISTIC_NORMAL = dist.TransformedDistribution(
    dist.Normal(np.zeros(1), 1.0).to_event(1), dist.transforms.StickBreakingTransform()
)


@pytest.mark.parametrize(
    ("prior", "field"),
    [
        (Prior(means=dist.StudentT(4.0, np.zeros(2), 1.0).to_event(1)), "means"),
        (Prior(scales=dist.HalfNormal(1.0).expand([2]).to_event(1)), "scales"),
        (Prior(weights=LOGISTIC_NORMAL), "weights"),
    ],
)
def test_gibbs_says_which_prior_it_cannot_use(prior, field):
    with pytest.raises(NotSupported, match=f"{field}.*nuts"):
        bayes.gibbs(jax.random.key(0), SMALL, MixtureSpec(2, prior=prior))


@pytest.mark.slow
def test_nuts_without_warm_up_keeps_its_first_step_size():
    spec = MixtureSpec(2, "full", Known(covariances=np.stack([COVARIANCE, COVARIANCE])))
    posterior = bayes.nuts(jax.random.key(0), SMALL, spec, n_warmup=0, n_draws=50)
    np.testing.assert_allclose(posterior.stats["step_size"], 1.0 / np.sqrt(len(SMALL)))


def test_chains_stuck_in_different_modes_are_unmixed():
    """Four far clusters and three components: which two are merged never changes, so chains disagree for ever."""
    corners = 40.0 * np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    x = (corners[:, None] + np.random.default_rng(0).standard_normal((4, 15, 2))).reshape(60, 2)
    left = np.stack([corners[[0, 1]].mean(0), corners[2], corners[3]])  # the two on the left are merged
    right = np.stack([corners[[2, 3]].mean(0), corners[0], corners[1]])
    means = np.stack([left, right])
    init = GMM(np.tile([0.5, 0.25, 0.25], (2, 1)), means, np.broadcast_to(20.0 * np.eye(2), (2, 3, 2, 2)), "full")
    spec = MixtureSpec(3)
    posterior = bayes.gibbs(jax.random.key(0), x, spec, n_chains=2, init=init)
    after = judge.diagnostics(judge.relabel(posterior, spec=spec).posterior, spec)
    invariant = judge.invariant_diagnostics(posterior, spec)
    assert after.worst["r_hat"] > 1.01
    assert invariant.worst["r_hat"] > 1.01
    assert posterior.status == Status.SAMPLED  # an engine cannot know
    assert judge.summary(posterior, spec).status == Status.UNMIXED


def test_datatree_has_arvizs_groups_and_dims():
    means = np.random.default_rng(0).standard_normal((4, 50, 2, 2))
    draws = GMM(np.full((4, 50, 2), 0.5), means, np.broadcast_to(COVARIANCE, (4, 50, 2, 2, 2)))
    posterior = Posterior(draws, means.sum((-2, -1)), {"occupied": np.full((4, 50), 2)}, Status.SAMPLED)
    tree = posterior.to_datatree(SMALL)
    assert tree["posterior"]["weights"].dims == ("chain", "draw", "component")
    assert tree["posterior"]["means"].dims == ("chain", "draw", "component", "feature")
    assert tree["posterior"]["covariances"].dims == ("chain", "draw", "component", "feature", "feature_2")
    assert tree["observed_data"]["x"].dims == ("observation", "feature")
    np.testing.assert_array_equal(tree["sample_stats"]["lp"], posterior.log_density)
