"""Arguments of the wrong kind: one sentence that names the argument, the value and the remedy, at every entry."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from conftest import near, posterior_of, random_gmm
from gmm_jax import BayesianGaussianMixture, Fit, GaussianMixture, MixtureSpec, Prior, Status, bayes, em, judge

X = np.random.default_rng(0).standard_normal((40, 2))
SPEC, KEY = MixtureSpec(2), jax.random.key(0)
GMM = random_gmm(0, 2, 2, "full")
TINY = {"n_chains": 1, "n_warmup": 2, "n_draws": 2}
POSTERIOR = posterior_of(near(GMM, 0))
ENTRIES = {
    **{name: lambda key, name=name: getattr(bayes, name)(key, X, SPEC, **TINY)
       for name in ("nuts", "gibbs", "smc", "svi", "laplace", "telescoping")},
    "gibbs_batch": lambda key: bayes.gibbs_batch(key, X[None], SPEC, init=jax.tree.map(lambda a: a[None], GMM)),
    "sample": lambda key: bayes.sample(key, X, SPEC),
    "point_estimate": lambda key: bayes.point_estimate(key, POSTERIOR, SPEC),
    "bridge": lambda key: bayes.bridge(key, X, SPEC, POSTERIOR),
    "fit_posterior": lambda key: judge.fit_posterior(key, X, SPEC),
    "recovery": lambda key: judge.recovery(key, GMM, GMM),
    "divergences": lambda key: judge.divergences(key, GMM, GMM),
    "choose_components": lambda key: judge.choose_components(key, X, (1,)),
}  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        (7, r"got int 7: pass jax.random.key\(0\)"),
        (None, r"got NoneType None: pass jax.random.key\(0\)"),
        (np.random.default_rng(0), r"got a Generator: pass jax.random.key\(0\)"),
        (X, r"got a ndarray: pass jax.random.key\(0\)"),
        (jax.random.PRNGKey(0), "wrap_key_data"),
        (jax.random.split(KEY, 3), r"got an array of keys of shape \(3,\)"),
    ],
    ids=["integer", "None", "Generator", "data", "legacy", "many"],
)
def test_what_is_no_key_is_a_sentence(entry, key, remedy):
    with pytest.raises(ValueError, match="key must be a typed JAX key.*" + remedy):
        ENTRIES[entry](key)


@pytest.mark.parametrize("engine", ["nuts", "gibbs", "smc", "svi", "laplace"])
@pytest.mark.parametrize("spec", [3, None, {"n_components": 2}, X], ids=["3", "None", "dict", "data"])
def test_what_is_no_specification_is_a_sentence(engine, spec):
    with pytest.raises(ValueError, match=r"spec must be a MixtureSpec; got .*: pass MixtureSpec\(n_comp"):
        getattr(bayes, engine)(KEY, X, spec, **TINY)


def test_exchanged_arguments_are_a_sentence():
    with pytest.raises(ValueError, match="spec must be a MixtureSpec"):
        bayes.gibbs(KEY, SPEC, X)
    with pytest.raises(ValueError, match="spec must be a MixtureSpec"):
        judge.information_criteria(GMM, SPEC, X)
    with pytest.raises(ValueError, match="gmm must be a GMM or a result that holds one; got a ndarray"):
        judge.information_criteria(X, GMM, SPEC)
    with pytest.raises(ValueError, match="truth must be a GMM"):
        judge.recovery(KEY, GMM, X)
    with pytest.raises(ValueError, match="posterior must be a Posterior"):
        judge.relabel(GMM)
    with pytest.raises(ValueError, match="posterior must be a Posterior"):
        bayes.bridge(KEY, X, SPEC, GMM)
    with pytest.raises(ValueError, match="posterior must be a Posterior"):
        bayes.point_estimate(KEY, GMM, SPEC)
    with pytest.raises(ValueError, match="spec must be a MixtureSpec"):
        bayes.sample(KEY, SPEC, X)
    with pytest.raises(ValueError, match="init must be a GMM or None; got ndarray"):
        bayes.nuts(KEY, X, SPEC, init=X, **TINY)


def normal(loc, scale):
    return dist.Normal(np.full(2, loc), scale, validate_args=False).to_event(1)


BAD_PRIORS = {
    "an LKJ object": (lambda: {"correlation": dist.LKJ(2, 1.0)}, "prior.correlation must be a positive number"),
    "negative correlation": (lambda: {"correlation": -1.0}, "prior.correlation must be .*got -1.0"),
    "scale 0": (lambda: {"means": normal(0.0, 0.0)}, "prior.means has scale 0: it must be positive.*Known"),
    "scale inf": (lambda: {"means": normal(0.0, np.inf)}, "prior.means has scale inf: it must be finite"),
    "loc NaN": (lambda: {"means": normal(np.nan, 1.0)}, "prior.means has loc nan: it must be finite"),
    "Dirichlet(1, 0)": (
        lambda: {"weights": dist.Dirichlet(np.array([1.0, 0.0]), validate_args=False)},
        "prior.weights has concentration 0: it must be positive",
    ),
    "IW of nothing": (
        lambda: {"covariances": dist.InverseWishart(4.0, scale_tril=np.zeros((2, 2)), validate_args=False)},
        "prior.covariances has scale_tril 0",
    ),
    "HalfNormal(inf)": (
        lambda: {"scales": dist.HalfNormal(np.full(2, np.inf), validate_args=False).to_event(1)},
        "prior.scales has scale inf",
    ),
    "a number": (lambda: {"means": 3.0}, "prior.means must be a Distribution; got 3.0: pass a NumPyro distribution"),
}


@pytest.mark.parametrize("case", BAD_PRIORS)
@pytest.mark.parametrize("engine", ["nuts", "gibbs", "default_prior"])
def test_a_prior_that_is_none_is_a_sentence(engine, case):
    def call():
        spec = MixtureSpec(2, prior=Prior(**BAD_PRIORS[case][0]()))
        return (
            bayes.default_prior(X, spec) if engine == "default_prior" else getattr(bayes, engine)(KEY, X, spec, **TINY)
        )

    with pytest.raises(ValueError, match=BAD_PRIORS[case][1]):
        call()


def test_a_result_is_taken_where_its_mixture_is_wanted():
    restarts = em.fit_em_restarts(KEY, X, SPEC, n_restarts=2)
    plain = judge.recovery(KEY, restarts.best.gmm, GMM)
    for result in (restarts, restarts.best, Fit(restarts.best.gmm, None, None, Status.CONVERGED, {})):
        assert judge.recovery(KEY, result, GMM) == plain
    assert judge.mixing_distance(restarts, GMM) == plain["mixing_distance"]
    with pytest.raises(ValueError, match="fit has 1 features, where 2 are needed"):
        judge.recovery(KEY, random_gmm(0, 2, 1, "full"), GMM)
    with pytest.raises(ValueError, match="x has 3 columns, but the mixture has 2 features"):
        judge.recovery(KEY, GMM, GMM, x=np.zeros((5, 3)))


@pytest.mark.parametrize("estimator", [GaussianMixture, BayesianGaussianMixture])
@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (jax.random.key(0), "random_state must be an integer, RandomState or None, .*got a JAX key"),
        (np.random.default_rng(0), "random_state must be .*got a Generator: pass int"),
    ],
    ids=["key", "Generator"],
)
def test_a_random_state_of_another_kind_is_a_sentence(estimator, state, sentence):
    with pytest.raises(ValueError, match=sentence):
        estimator(2, random_state=state).fit(X)


class Frame:
    """As much of a data frame as is asked of it."""

    columns, dtypes = ("height", "name"), (np.dtype(float), np.dtype(object))

    def __array__(self, dtype=None, copy=None):
        return np.array([[1.0, "a"], [2.0, "b"]], object)

    def __getitem__(self, name):
        return np.array([1.0, 2.0]) if name == "height" else np.array(["a", "b"], object)


@pytest.mark.parametrize("estimator", [GaussianMixture, BayesianGaussianMixture])
def test_text_is_named(estimator):
    with pytest.raises(ValueError, match=r"X must hold real numbers; got .* in column name"):
        estimator(2).fit(Frame())
    with pytest.raises(ValueError, match=r"x must hold real numbers; got .* in column name"):
        bayes.gibbs(KEY, Frame(), SPEC)
    with pytest.raises(ValueError, match=r"X must be an array; got 'rows.csv': read the file first"):
        estimator(2).fit("rows.csv")


def test_approximations_are_not_read_by_r_hat():
    stats = {"pareto_k": np.array([0.3, 0.2]), "log_weight": np.full((2, 50), -np.log(50))}
    posterior = POSTERIOR._replace(stats=stats)
    fit = judge.summary(posterior, SPEC, chains=False)
    assert "R-hat" not in fit.info["reading"] + Status(fit.status).advice
    assert "Pareto k-hat 0.30" in fit.info["reading"]
    assert "mixing" not in fit.info
    assert "effective draws" in judge.summary(POSTERIOR, SPEC).info["reading"]


@pytest.mark.parametrize(
    "call",
    [
        lambda p: judge.relabel(p),
        lambda p: judge.diagnostics(p, SPEC),
        lambda p: judge.invariant_diagnostics(p, SPEC),
        lambda p: judge.leave_one_out(p, X),
        lambda p: judge.summary(p, SPEC),
        lambda p: bayes.pool(p),
        lambda p: bayes.corrected_moments(p),
        lambda p: bayes.bridge(KEY, X, SPEC, p),
    ],
)
@pytest.mark.parametrize("what", [GMM, None, X], ids=["a mixture", "None", "data"])
def test_what_is_no_posterior_is_a_sentence(call, what):
    with pytest.raises(ValueError, match="posterior must be a Posterior, as an engine of bayes returns it; got"):
        call(what)


def test_standard_errors_of_the_estimator_take_its_weights():
    """Each row twice is each row with weight two."""
    x = np.concatenate([X, X + 8.0])
    model = GaussianMixture(2, tol=1e-8, max_iter=500, random_state=0)
    twice = model.fit(np.repeat(x, 2, axis=0)).standard_errors(np.repeat(x, 2, axis=0))
    weighted = model.fit(x, sample_weight=np.full(80, 2.0)).standard_errors(x, sample_weight=np.full(80, 2.0))
    np.testing.assert_allclose(np.sort(weighted.means, axis=0), np.sort(twice.means, axis=0), rtol=1e-4)
    assert weighted.status == Status.CONVERGED


def test_missing_without_a_gap_relabels_by_allocations_as_without_and_with_one_says_so_before_it_samples(monkeypatch):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(30, 2)), 4.0 + rng.normal(size=(30, 2))])
    sizes = {"n_chains": 2, "n_warmup": 20, "n_draws": 20, "n_restarts": 2}

    def fit(missing):
        options = {"engine": "gibbs", "relabelling": "ecr", "missing": missing, **sizes}
        return judge.fit_posterior(jax.random.key(0), x, MixtureSpec(2), **options).fit

    without, fitted = fit(None), fit("marginalise")
    assert fitted.info["relabelling"] == "ecr"
    np.testing.assert_array_equal(fitted.point.means, without.point.means)
    x[0, 0] = np.nan
    monkeypatch.setattr(bayes, "starts_from_em", None)  # nothing is fitted
    with pytest.raises(ValueError, match="relabelling='ecr' looks at whole rows, and x has NaN"):
        fit("marginalise")
