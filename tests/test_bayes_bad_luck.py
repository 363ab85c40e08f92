"""Bad input and bad luck: every engine answers with a sentence or with a status that is not ok, and it ends."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from gmm_jax import Known, MixtureSpec, NotSupported, Prior, Status, bayes
from gmm_jax.bayes.importance import K_HAT_LIMIT, weighted

KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((12, 1)) + np.repeat([[-4.0], [4.0]], 6, axis=0)
SIZES = {"n_chains": 2, "n_warmup": 50, "n_draws": 50}
ENGINES = ("nuts", "gibbs", "smc", "svi", "laplace", "telescoping")
TOO_FAR = MixtureSpec(2, "spherical", Known(means=np.full((2, 1), 1e200)))  # no float64 holds its densities
TOO_NARROW = MixtureSpec(2, "spherical", Known(covariances=np.full(2, 1e-12)))  # every row contradicts every other


@pytest.mark.parametrize("engine", ENGINES)
def test_more_components_than_rows_are_a_sentence(engine):
    with pytest.raises(ValueError, match="n_components=13 is more than the 12 rows of x"):
        getattr(bayes, engine)(KEY, X, MixtureSpec(13), **SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_known_and_cannot_be_is_not_finite(engine):
    assert getattr(bayes, engine)(KEY, X, TOO_FAR, **SIZES).status == Status.NON_FINITE


@pytest.mark.parametrize(
    ("engine", "status"),
    [
        ("smc", Status.UNRELIABLE),  # it would go on for 10¹² steps
        pytest.param("svi", Status.UNRELIABLE, marks=pytest.mark.slow),
        pytest.param("nuts", Status.DIVERGENT, marks=pytest.mark.slow),
    ],
)
def test_what_is_known_and_contradicts_the_data_is_not_ok(engine, status):
    sizes = SIZES | ({"n_warmup": 0} if engine == "nuts" else {"n_warmup": 5})  # no warm-up: steps are far too long
    posterior = getattr(bayes, engine)(KEY, X, TOO_NARROW, **sizes)
    assert posterior.status == status
    if engine == "smc":
        assert np.all(np.isnan(posterior.stats["log_evidence"]))
        assert np.isnan(bayes.pool(posterior).log_evidence)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("prior", "sentence"),
    [
        (Prior(means=dist.Uniform(np.full(1, -3.0), 3.0).to_event(1)), "prior.means.*every real number; Uniform"),
        (Prior(scales=dist.Uniform(0.0, 0.5)), "prior.scales.*every positive number; Uniform has bounds"),
    ],
)
def test_a_prior_with_bounds_is_refused(engine, prior, sentence):
    with pytest.raises(NotSupported, match=sentence):
        getattr(bayes, engine)(KEY, X, MixtureSpec(2, "spherical", prior=prior), **SIZES)


@pytest.mark.parametrize("sd", [10.0, 1e3, 1e11])
@pytest.mark.parametrize("n_draws", [50, 1000])
def test_weights_of_which_one_is_everything_are_not_reliable(sd, n_draws):
    log_ratio = sd * np.random.default_rng(1).standard_normal((2, n_draws))
    stats, status = weighted(log_ratio)
    assert np.all(stats["pareto_k"] > K_HAT_LIMIT)
    assert status == Status.UNRELIABLE
