"""Conformance: what every file in bench/methods promises, for whatever files there are.

A fit of a sampler compiles for many seconds, so in every run of the suite one specification, with something known,
serves all promises; the fits with nothing known are slow tests (tests of the engines have them too).
"""

import itertools
import sys
from functools import cache

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, near, posterior_of, random_gmm, scrambled
from gmm_jax import GMM, MixtureSpec, NotSupported, Status, judge, log_prob, permute
from gmm_jax.bayes.diagnostics import diagnostics_of, quantities
from gmm_jax.bench import conformance, methods
from gmm_jax.bench.conformance import TRUTH, D, K, Subject
from gmm_jax.bench.methods import _peers
from gmm_jax.em import EMConfig, fit_em
from gmm_jax.mixture import Hyperparameters
from shared.nutpie_starts import variables


@pytest.fixture(scope="module")
def easy():
    return conformance.easy_data()


@pytest.fixture(scope="module")
def subject():
    """name -> the method, whose fits are made once; skipped where it is another's program that is not there."""
    return cache(lambda name: Subject(methods.load(name)))


OURS = ("bayes", "em", "gibbs", "laplace", "nuts", "oracle", "smc", "svi")  # treat every spec


IN_EVERY_RUN = (
    "em",
    "gibbs",
    "nuts",
    "oracle",
    "sklearn_em",
)  # the others are slow tests here
EACH = [name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.slow) for name in methods.available()]


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
@pytest.mark.parametrize("name", EACH)
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
    found = judge.summary(posterior_of(mixed, density), MixtureSpec(K), x=easy[0], relabelling=relabelling)
    expected = jax.tree.map(
        lambda leaf: leaf.mean(axis=(0, 1)), permute(draws, np.broadcast_to(orders[0, 0], orders.shape))
    )
    np.testing.assert_allclose(found.point.means, expected.means, rtol=1e-12)
    assert found.info["relabelling"] == relabelling
    assert found.info["mixing"] == "mixed"
    assert "labels" not in found.info


def test_ambiguous_labels_and_stuck_chains_stand_in_the_answer(easy):
    equal = GMM(np.full(K, 1 / K), np.zeros((K, D)), np.stack([np.eye(D)] * K))
    found = judge.summary(posterior_of(near(equal, 0)), MixtureSpec(K), x=easy[0])
    assert "labels are ambiguous" in found.info["labels"]
    draws = near(TRUTH, 0, n_chains=2, n_draws=250)
    apart = GMM(draws.weights, draws.means + np.array([0.0, 1.0]).reshape(2, 1, 1, 1), draws.covariances)
    found = judge.summary(posterior_of(apart), MixtureSpec(K), x=easy[0])
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


def test_gibbs_on_a_ladder_says_what_it_cost_and_what_arrived(easy):
    size = {"n_restarts": 2, "n_chains": 1, "n_warmup": 50, "n_draws": 50}
    fit = methods.load("gibbs").fit
    plain, tempered = (fit(jax.random.key(0), easy[0], MixtureSpec(K), n_temperatures=n, **size).info for n in (1, 3))
    assert tempered["density_evaluations"] - plain["density_evaluations"] == 2 * 100 * len(easy[0]) * K
    assert "arrivals" not in plain
    assert 0 <= tempered["arrivals"] <= 50


# ---- the registry


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(ValueError, match=r"method 'gibs' does not exist .did you mean 'gibbs'"):
        methods.load("gibs")


def test_numbers_are_asked_for_where_the_default_is_one():
    for value in ("five", True, 2.5):
        with pytest.raises(ValueError, match="option 'n_restarts' of method 'em' takes a whole number, like 20"):
            fit("em", MixtureSpec(K), n_restarts=value)
    with pytest.raises(ValueError, match="option 'max_iter' of method 'em' takes a whole number"):
        fit("em", MixtureSpec(K), max_iter=None)
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


# ---- other people's programs


def test_what_is_not_installed_says_how_to_get_it(monkeypatch, tmp_path):
    """NotSupported, which the runner turns into a row."""
    monkeypatch.setattr(_peers, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    needs = {"sklearn_em": "scikit-learn", "sklearn_bayes": "scikit-learn", "gmmx": "gmmx scikit-learn"}
    for name, packages in (needs | {"pymc_nuts": "pymc nutpie"}).items():
        with pytest.raises(methods.Unavailable, match=f"^unavailable: pip install {packages}$"):
            fit(name, MixtureSpec(K))
    with pytest.raises(methods.Unavailable, match=r"unavailable: install R, then in it install\.packages\('mclust'"):
        fit("mclust", MixtureSpec(K))


@pytest.mark.parametrize("name", ["em", "sklearn_em", "sklearn_bayes", "gmmx", "gibbs", "nuts"])
def test_a_row_says_on_which_terms_its_method_ran(name, subject):
    if name == "gmmx":
        pytest.importorskip("gmmx")
    info = subject(name).first[1].info
    assert {"start", "reg_covar", "tol", "tol_is", "threads", "precision", "same_prior"} <= info.keys()
    assert info["density_evaluations"] > 0


def test_sklearn_takes_one_pass_an_iteration_and_one_at_the_end(easy):
    info = fit("sklearn_em", MixtureSpec(K)).info
    assert info["density_evaluations"] == (info["n_iter"] + 1) * len(easy[0]) * K


@pytest.mark.slow
def test_sklearn_tuned_to_the_end_is_em():
    """From one start to a tolerance of nothing, both stand at one optimum."""
    ours = fit("em", MixtureSpec(K), n_restarts=4, reg_covar=0.0, tol=1e-12)
    theirs = fit("sklearn_em", MixtureSpec(K), n_init=4, reg_covar=0.0, tol=1e-12, max_iter=2000)
    assert theirs.info["log_likelihood"] == pytest.approx(ours.info["log_likelihood"], rel=1e-9)


def test_peers_refuse_what_they_cannot_know():
    for name in ("sklearn_em", "sklearn_bayes", "gmmx", "mclust"):
        with pytest.raises(NotSupported, match=f"{name} cannot know weights and covariances"):
            fit(name, conformance.PARTLY_KNOWN)
    with pytest.raises(NotSupported, match="gmmx has no tied covariances, only full, diag"):
        fit("gmmx", MixtureSpec(K, "tied"))


@pytest.mark.slow
def test_pymc_has_the_posterior_of_gibbs(easy):
    """Means of all free numbers within five standard errors of the difference."""
    size = {"n_chains": 2, "n_warmup": 300, "n_draws": 1000}
    try:
        theirs = methods.load("pymc_nuts").fit(jax.random.key(1), easy[0], MixtureSpec(K), **size)
    except methods.Unavailable as reason:
        pytest.skip(str(reason))
    ours = methods.load("gibbs").fit(jax.random.key(2), easy[0], MixtureSpec(K), **size)
    theirs = judge.relabel(theirs.draws, reference=ours.point, spec=MixtureSpec(K)).posterior
    a, b = (quantities(draws, MixtureSpec(K)) for draws in (theirs.draws, ours.draws.draws))
    errors = [diagnostics_of(found).mcse_mean for found in (a, b)]
    gaps = [abs(a[q].mean() - b[q].mean()) for q in a]
    assert np.all(np.array(gaps) <= 5.0 * np.hypot(*errors))


def mixture_of_variables(found, hyper, covariance_type):
    """What PyMC's model makes of its variables, in NumPy: Λ = T Tᵀ, T = M A, M Mᵀ = C⁻¹."""
    means = hyper.loc + found["means"] @ np.linalg.inv(np.linalg.cholesky(hyper.precision))
    if covariance_type in ("diag", "spherical"):
        return GMM(found["weights"], means, found["covariances"], covariance_type)
    bartlett = np.sqrt(found["squares"])[..., None] * np.eye(means.shape[-1])
    bartlett[..., *np.tril_indices(means.shape[-1], -1)] = found["below"]
    root = found["size_root"] if "size_root" in found else np.linalg.cholesky(hyper.size)
    factor = np.linalg.inv(root).swapaxes(-1, -2)[..., None, :, :] @ bartlett
    covariances = np.linalg.inv(factor @ factor.swapaxes(-1, -2))
    covariances = covariances[..., 0, :, :] if covariance_type == "tied" else covariances
    return GMM(found["weights"], means, covariances, covariance_type)


@pytest.mark.parametrize("size_dof", [None, 4.0])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_pymcs_variables_are_those_of_the_mixture_and_back(covariance_type, size_dof):
    n_features = 3
    gmm = jax.tree.map(np.asarray, random_gmm(0, K, n_features, covariance_type))
    matrix = covariance_type in ("full", "tied")
    size = np.diag([1.0, 0.5, 2.0]) + 0.1 if matrix else np.ones(n_features)
    hyper = Hyperparameters(np.ones(K), np.arange(3.0), np.diag([1.0, 4.0, 0.5]) + 0.1, 5.0, size, size_dof)
    found = {name: np.asarray(v)[None, None] for name, v in variables(gmm, hyper).items()}
    if size_dof is not None and matrix:  # begins at its mean
        np.testing.assert_allclose(found["size_squares"][0, 0], np.full((1, n_features), size_dof))
        found["size_root"] = np.linalg.cholesky(size)[None, None]
    back = mixture_of_variables(found, hyper, covariance_type)
    for leaf in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(back, leaf)[0, 0], getattr(gmm, leaf), rtol=1e-10, atol=1e-12)


RSCRIPT = """#!{python}
import csv, sys
import numpy as np
x = np.array(list(csv.reader(open(sys.argv[4]))), float)
assert sys.argv[5:7] == ["2", "EEE"]
print("0.75 0.25")
print(*np.r_[x[:45].mean(0), x[45:].mean(0)])
print(*np.r_[np.cov(x[:45].T).ravel("F"), np.cov(x[:45].T).ravel("F")])
print("-123.5")
print("7")
print("6.1")
"""


def test_what_rscript_says_is_read_by_columns(tmp_path, monkeypatch, easy):
    """A stand-in for R that answers in the format of the program, as R would print its arrays."""
    program = tmp_path / "Rscript"
    program.write_text(RSCRIPT.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = fit("mclust", MixtureSpec(K, "tied"))
    np.testing.assert_allclose(found.point.means, [easy[0][:45].mean(0), easy[0][45:].mean(0)], rtol=1e-12)
    np.testing.assert_allclose(found.point.covariances, np.cov(easy[0][:45].T), rtol=1e-12)
    assert found.info["log_likelihood"] == -123.5
    assert found.info["density_evaluations"] == 7 * len(easy[0]) * K
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such thing')\n")
    with pytest.raises(RuntimeError, match="Rscript ended with 1: no such thing"):
        fit("mclust", MixtureSpec(K))
    program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    with pytest.raises(TimeoutError, match="mclust took longer than the option timeout"):
        fit("mclust", MixtureSpec(K), timeout=0.1)


@pytest.mark.parametrize(
    ("covariance_type", "d", "k"),
    [("full", 2, 2)]
    + [pytest.param(*more, marks=pytest.mark.slow) for more in itertools.product(TYPES, (1, 3), (1, 3))],
)
def test_mclust_means_its_parameters_as_we_do(covariance_type, d, k):
    """Its log-likelihood is ours at its solution, and from there EM has nothing left to gain."""
    x = np.hstack([conformance.easy_data()[0], np.random.default_rng(1).standard_normal((conformance.N, 1))])[:, :d]
    spec = MixtureSpec(k, covariance_type)
    try:
        found = methods.load("mclust").fit(jax.random.key(0), x, spec, tol=1e-12)
    except methods.Unavailable as reason:
        pytest.skip(str(reason))
    says = found.info["log_likelihood"]
    assert float(np.sum(log_prob(found.point, x))) == pytest.approx(says, rel=1e-8)
    climbed = fit_em(x, found.point, config=EMConfig(reg_covar=0.0, max_iter=50, tol=0.0))
    assert float(climbed.log_likelihood) == pytest.approx(says, rel=1e-8)
