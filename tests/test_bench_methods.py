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
from gmm_jax import GMM, Fit, Known, MixtureSpec, NotSupported, Posterior, Status, permute
from gmm_jax.bench import methods
from gmm_jax.bench.methods._posterior import as_fit

QUICK = {"n_restarts": 4, "n_chains": 2, "n_warmup": 200, "n_draws": 250}
K, D = 2, 2
# φ so unequal that, where φ is known, swapped labels lie 30 log 3 nats lower: too low for a chain to start there
TRUTH = GMM(np.array([0.75, 0.25]), np.array([[-2.0, 0.0], [2.0, 1.0]]), np.stack([np.eye(D), 0.5 * np.eye(D)]))
KNOWN = Known(weights=TRUTH.weights, covariances=np.stack([TRUTH.covariances[0], np.full((D, D), np.nan)]))
PARTLY_KNOWN = MixtureSpec(K, known=KNOWN)


@pytest.fixture(scope="module")
def easy():
    """(60, 2) and labels: two groups that hardly overlap."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [45, 15])
    return TRUTH.means[labels] + rng.standard_normal((60, D)) * np.sqrt([1.0, 0.5])[labels][:, None], labels


def fit(name, easy, spec, seed=0, **more):
    """The method at quick sizes; labels where it wants them."""
    x, labels = easy
    method = methods.load(name)
    options = {option: value for option, value in QUICK.items() if option in method.options}
    if "labels" in method.options:
        options["labels"] = labels
    return method.fit(jax.random.key(seed), x, spec, **options | more)


@pytest.mark.parametrize("name", methods.available())
def test_a_method_says_what_it_is_and_which_options_it_has(name):
    method = methods.load(name)
    assert method.name == name
    assert method.summary.endswith((".", ")"))
    assert all(isinstance(option, str) for option in method.options)


@pytest.fixture(scope="module")
def partly_known(easy):
    """name -> its fit of PARTLY_KNOWN, made once."""
    return cache(lambda name: fit(name, easy, PARTLY_KNOWN))


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(PARTLY_KNOWN, id="partly known"),
        pytest.param(MixtureSpec(K), id="full", marks=pytest.mark.slow),
        pytest.param(MixtureSpec(K, "spherical"), id="spherical", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", methods.available())
def test_every_method_answers_the_easy_problem(name, spec, easy, partly_known):
    covariance_type = spec.covariance_type
    found = partly_known(name) if spec is PARTLY_KNOWN else fit(name, easy, spec)
    assert isinstance(found, Fit)
    assert isinstance(found.status, Status)
    assert found.status.ok or found.status in (Status.UNMIXED, Status.UNRELIABLE)  # few draws, or a crude guide
    shapes = {"weights": (K,), "means": (K, D), "covariances": (K, D, D) if covariance_type == "full" else (K,)}
    for leaf, shape in shapes.items():
        value = getattr(found.point, leaf)
        assert np.shape(value) == shape
        assert np.asarray(value).dtype == np.float64
        if found.standard_errors is not None:
            errors, known = getattr(found.standard_errors, leaf), getattr(spec.known, leaf)
            assert np.shape(errors) == shape
            np.testing.assert_array_equal(np.asarray(errors) > 0.0, True if known is None else np.isnan(known))
        if found.draws is not None:
            assert isinstance(found.draws, Posterior)
            assert getattr(found.draws.draws, leaf).shape[2:] == shape
    assert found.point.covariance_type == covariance_type
    order = np.argsort(np.asarray(found.point.means)[:, 0])
    np.testing.assert_allclose(np.asarray(found.point.means)[order], TRUTH.means, atol=1.0)
    np.testing.assert_allclose(np.asarray(found.point.weights)[order], TRUTH.weights, atol=0.2)


@pytest.mark.parametrize("name", methods.available())
def test_same_key_same_answer(name, easy, partly_known):
    first, again = partly_known(name), fit(name, easy, PARTLY_KNOWN)
    for leaf in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(getattr(first.point, leaf), getattr(again.point, leaf))
    assert first.status == again.status


@pytest.mark.parametrize("name", methods.available())
def test_every_method_honours_what_is_known(name, partly_known):
    found = partly_known(name)
    np.testing.assert_allclose(found.point.weights, TRUTH.weights, rtol=1e-12)
    np.testing.assert_allclose(np.asarray(found.point.covariances)[0], TRUTH.covariances[0], rtol=1e-12, atol=1e-12)
    if found.standard_errors is not None:
        assert np.all(np.asarray(found.standard_errors.weights) == 0.0)
        assert np.all(np.asarray(found.standard_errors.covariances)[0] == 0.0)
        assert np.all(np.asarray(found.standard_errors.means) > 0.0)


@pytest.mark.parametrize("name", methods.available())
def test_an_unknown_option_names_the_nearest(name, easy):
    options = [option for option in methods.load(name).options if option != "progress"]
    misspelt = options[0] + "x"
    with pytest.raises(ValueError, match=f"no option '{misspelt}'.*did you mean '{options[0]}'"):
        fit(name, easy, MixtureSpec(K), **{misspelt: 1})


@pytest.mark.parametrize("name", methods.available())
def test_bad_data_and_bad_specifications_are_sentences(name, easy):
    x, labels = easy
    for bad in (np.where(np.arange(60)[:, None] == 3, np.nan, x), x[:1]):
        with pytest.raises(ValueError, match=r"row 3|n_components=2 is more than the 1 rows"):
            fit(name, (bad, labels[: len(bad)]), MixtureSpec(K))
    with pytest.raises(ValueError, match=r"known.weights must sum to 1"):
        fit(name, easy, MixtureSpec(K, known=Known(weights=np.array([0.6, 0.6]))))
    with pytest.raises(ValueError, match="covariance_type must be one of"):
        fit(name, easy, MixtureSpec(K, "round"))


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
    found = fit("oracle", easy, MixtureSpec(K, covariance_type)).point
    r = np.eye(K)[labels]
    frame = (np.ones(K) / K, np.zeros((K, D)), None, covariance_type)
    weights, means, covariances, _ = oracles.m_step(r, x, frame)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-10)
    np.testing.assert_allclose(found.means, means, rtol=1e-10)
    np.testing.assert_allclose(found.covariances, covariances, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_svi_delta_has_a_point_and_no_uncertainty(easy):
    found = fit("svi", easy, MixtureSpec(K), guide="delta", n_warmup=200)
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


def test_numbers_are_asked_for_where_the_default_is_one(easy):
    for value in ("five", None, True, 2.5):
        with pytest.raises(ValueError, match="option 'n_restarts' of method 'em' takes a whole number, like 50"):
            fit("em", easy, MixtureSpec(K), n_restarts=value)
    with pytest.raises(ValueError, match="option 'tol' of method 'em' takes a number"):
        fit("em", easy, MixtureSpec(K), tol="small")


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
    np.testing.assert_allclose(fit("mean_only", easy, MixtureSpec(K), value=1.0).point.means[0], easy[0].mean(0) + 1.0)
    assert fit("mean_only", easy, MixtureSpec(K), value=np.nan).status == Status.NON_FINITE  # whatever the method says
