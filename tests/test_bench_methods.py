"""Conformance: what every file in bench/methods promises, for whatever files there are.

A fit of a sampler compiles for many seconds, so in every run of the suite one specification, with something known,
serves all promises; the fits with nothing known are slow tests (tests of the engines have them too).
"""

from functools import cache

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, near, posterior_of, scrambled
from gmm_jax import GMM, MixtureSpec, NotSupported, Status, permute
from gmm_jax.bench import conformance, methods
from gmm_jax.bench.conformance import TRUTH, D, K, Subject
from gmm_jax.bench.methods._posterior import as_fit


@pytest.fixture(scope="module")
def easy():
    return conformance.easy_data()


@pytest.fixture(scope="module")
def subject():
    """name -> the method, whose fits are made once; skipped where it is another's program that is not there."""
    return cache(lambda name: Subject(methods.load(name)))


OURS = ("em", "gibbs", "laplace", "numpyro_nuts", "nuts", "oracle", "svi")  # these treat every specification


def keeps(promise, subject, *more):
    """The promise is kept, or another's program says why it cannot be asked."""
    try:
        promise(subject, *more)
    except NotSupported as reason:
        if subject.method.name in OURS:
            raise
        pytest.skip(str(reason))


def fit(name, spec, **more):
    return Subject(methods.load(name)).fit(spec, **more)


@pytest.mark.parametrize("promise", conformance.PROMISES)
@pytest.mark.parametrize("name", methods.available())
def test_every_method_keeps_every_promise(name, promise, subject):
    keeps(conformance.PROMISES[promise], subject(name))


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", ["full", "spherical"])
@pytest.mark.parametrize("name", methods.available())
def test_every_method_answers_with_nothing_known(name, covariance_type, subject):
    keeps(conformance.answers, subject(name), MixtureSpec(K, covariance_type))


@pytest.mark.parametrize(
    "relabelling", ["pivot", "ecr", "ecr-iterative", "stephens", pytest.param("modes", marks=pytest.mark.slow)]
)
def test_a_posterior_is_summarised_in_one_labelling_by_any_relabelling(relabelling, easy):
    """Where components are apart, all agree on the draws as they were before scrambling."""
    draws = near(TRUTH, 0, n_chains=2, n_draws=250)
    density = np.where(np.arange(500) == 0, 1.0, 0.0).reshape(2, 250)
    mixed, orders = scrambled(draws, 1)
    found = as_fit(posterior_of(mixed, density), MixtureSpec(K), x=easy[0], relabelling=relabelling)
    expected = jax.tree.map(
        lambda leaf: leaf.mean(axis=(0, 1)), permute(draws, np.broadcast_to(orders[0, 0], orders.shape))
    )
    np.testing.assert_allclose(found.point.means, expected.means, rtol=1e-12)
    assert found.info["relabelling"] == relabelling
    assert found.info["mixing"] == "mixed"
    assert "labels" not in found.info


def test_ambiguous_labels_and_stuck_chains_stand_in_the_answer(easy):
    equal = GMM(np.full(K, 1 / K), np.zeros((K, D)), np.stack([np.eye(D)] * K))
    assert "labels are ambiguous" in as_fit(posterior_of(near(equal, 0)), MixtureSpec(K), x=easy[0]).info["labels"]
    draws = near(TRUTH, 0, n_chains=2, n_draws=250)
    apart = GMM(draws.weights, draws.means + np.array([0.0, 1.0]).reshape(2, 1, 1, 1), draws.covariances)
    found = as_fit(posterior_of(apart), MixtureSpec(K), x=easy[0])
    assert found.info["mixing"] == "stuck"
    assert found.status == Status.UNMIXED


def test_the_oracle_needs_labels(easy):
    with pytest.raises(NotSupported, match="oracle needs the labels"):
        methods.load("oracle").fit(jax.random.key(0), easy[0], MixtureSpec(K))
    for labels in (easy[1][:5], easy[1] + 1, easy[1] - 0.5):
        with pytest.raises(ValueError, match="labels must"):
            methods.load("oracle").fit(jax.random.key(0), easy[0], MixtureSpec(K), labels=labels)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_oracle_is_the_m_step_at_the_labels(covariance_type, easy):
    x, labels = easy
    found = fit("oracle", MixtureSpec(K, covariance_type)).point
    r = np.eye(K)[labels]
    frame = (np.ones(K) / K, np.zeros((K, D)), None, covariance_type)
    weights, means, covariances, _ = oracles.m_step(r, x, frame)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-10)
    np.testing.assert_allclose(found.means, means, rtol=1e-10)
    np.testing.assert_allclose(found.covariances, covariances, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_svi_delta_has_a_point_and_no_uncertainty():
    found = fit("svi", MixtureSpec(K), guide="delta", n_warmup=200)
    assert found.standard_errors is None
    assert found.draws.log_density.shape == (1, 1)
    assert found.status == Status.SAMPLED


@pytest.mark.slow
def test_samplers_start_where_em_fails():
    """K = n: the likelihood is unbounded and EM collapses, but the posterior is proper."""
    x = np.array([[0.0, 0.0], [1.0, 2.0], [5.0, 1.0]])
    found = methods.load("gibbs").fit(jax.random.key(0), x, MixtureSpec(3), n_restarts=4, n_chains=2, n_warmup=50)
    assert np.all(np.isfinite(found.point.means))
    assert found.status in (Status.SAMPLED, Status.UNMIXED)


# ---- the registry


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(ValueError, match=r"method 'gibs' does not exist .did you mean 'gibbs'"):
        methods.load("gibs")


def test_numbers_are_asked_for_where_the_default_is_one():
    for value in ("five", None, True, 2.5):
        with pytest.raises(ValueError, match="option 'n_restarts' of method 'em' takes a whole number, like 50"):
            fit("em", MixtureSpec(K), n_restarts=value)
    with pytest.raises(ValueError, match="option 'tol' of method 'em' takes a number"):
        fit("em", MixtureSpec(K), tol="small")


NEW = '''"""The data's own mean, K times: a method in one file."""
import numpy as np
from gmm_jax import GMM, Fit, Status


def fit(key, x, spec, *, value=0.0):
    k, d = spec.n_components, x.shape[1]
    point = GMM(np.full(k, 1 / k), np.tile(x.mean(0) + value, (k, 1)), np.tile(np.cov(x.T), (k, 1, 1)))
    return Fit(point, None, None, Status.CONVERGED, {})
'''


def test_a_new_file_is_a_new_method(tmp_path, monkeypatch, easy):
    (tmp_path / "mean_only.py").write_text(NEW)
    (tmp_path / "_shared.py").write_text("raise RuntimeError('never imported')\n")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.delitem(__import__("sys").modules, f"{methods.__name__}.mean_only", raising=False)
    assert "mean_only" in methods.available()
    assert "_shared" not in methods.available()
    method = methods.load("mean_only")
    assert method.summary == "The data's own mean, K times: a method in one file."
    assert method.options == {"value": 0.0}
    np.testing.assert_allclose(fit("mean_only", MixtureSpec(K), value=1.0).point.means[0], easy[0].mean(0) + 1.0)
    assert fit("mean_only", MixtureSpec(K), value=np.nan).status == Status.NON_FINITE  # whatever the method says
