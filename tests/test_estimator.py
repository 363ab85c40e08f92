"""GaussianMixture: scikit-learn's own checks, the same path as its EM, and what is added to it."""

import inspect
import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import GaussianMixture, Known, Status, log_prob, problems
from gmm_jax.mixture.starts import random_points

ADDED = {"known", "missing"}
REPEATS = np.array([2] * 20 + [0] * 20 + [1] * 20)

sklearn = pytest.importorskip("sklearn", reason="the tests compare with scikit-learn")


def precisions(gmm):
    matrices = gmm.covariance_type in ("full", "tied")
    return np.linalg.inv(gmm.covariances) if matrices else 1.0 / gmm.covariances


def started(covariance_type="full", **options):
    """Arguments of either program: a start, and 20 M-steps whatever they gain (20 everywhere: one program serves)."""
    start = random_gmm(0, 3, 2, covariance_type)
    given = {"weights_init": start.weights, "means_init": start.means, "precisions_init": precisions(start)}
    return {"n_components": 3, "covariance_type": covariance_type, "max_iter": 20, "tol": 0.0, **given, **options}


def fitted(x, sample_weight=None, **options):
    """Our fit; that tol=0 does not converge is meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        return GaussianMixture(**options).fit(x, sample_weight=sample_weight)


@pytest.fixture(scope="module")
def fit(x):
    return fitted(x, **started())


def test_the_constructor_is_scikit_learns():
    from sklearn.mixture import GaussianMixture as Theirs

    ours, theirs = inspect.signature(GaussianMixture).parameters, inspect.signature(Theirs).parameters
    assert set(ours) - set(theirs) == ADDED
    for name, parameter in theirs.items():
        assert (ours[name].kind, ours[name].default) == (parameter.kind, parameter.default), name


@pytest.mark.parametrize("reg_covar", [1e-6, 1e-3])
@pytest.mark.parametrize(
    "covariance_type", [*TYPES[::2], *(pytest.param(name, marks=pytest.mark.slow) for name in TYPES[1::2])]
)
def test_as_many_steps_from_the_same_start_are_scikit_learns(covariance_type, reg_covar, x):
    from sklearn.mixture import GaussianMixture as Theirs

    options = started(covariance_type, reg_covar=reg_covar)
    ours = fitted(x, **options)
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        theirs = Theirs(**{**options, "max_iter": ours.n_iter_}).fit(x)
    assert ours.n_iter_ == 20 or reg_covar > 1e-6  # with a large ridge EM is not monotone, and the best iterate is kept
    np.testing.assert_allclose(ours.score(x), theirs.score(x), rtol=0, atol=1e-9)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-10, err_msg=name)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


def test_the_bounds_belong_to_the_parameters_that_are_returned(fit, x):
    _, trace = oracles.em(as_tuple(random_gmm(0, 3, 2, "full")), x, 20, reg_covar=1e-6)
    np.testing.assert_allclose(fit.lower_bounds_, np.array(trace[1:]) / 60, rtol=0, atol=1e-11)
    assert fit.lower_bounds_[-1] == fit.lower_bound_
    np.testing.assert_allclose(fit.lower_bound_, fit.score(x), rtol=0, atol=1e-11)


def test_densities_and_criteria_are_those_of_the_definition(fit, x):
    gmm = as_tuple(fit.mixture_)
    joint, log_prob, r = oracles.log_joint(gmm, x), oracles.log_prob(gmm, x), oracles.responsibilities(gmm, x)
    np.testing.assert_allclose(fit.score_samples(x), log_prob, rtol=1e-12)
    np.testing.assert_allclose(fit.predict_proba(x), r, atol=1e-12)
    np.testing.assert_array_equal(fit.predict(x), joint.argmax(axis=1))
    n_parameters = 2 + 3 * 2 + 3 * 3
    np.testing.assert_allclose(fit.aic(x), -2 * log_prob.sum() + 2 * n_parameters, rtol=1e-12)
    np.testing.assert_allclose(fit.bic(x), -2 * log_prob.sum() + n_parameters * np.log(60), rtol=1e-12)
    np.testing.assert_allclose(fit.icl(x), -2 * joint.max(axis=1).sum() + n_parameters * np.log(60), rtol=1e-12)


def test_densities_are_taken_block_by_block(fit, x, monkeypatch):
    whole = fit.score_samples(np.tile(x, (20, 1)))
    monkeypatch.setattr("gmm_jax.mixture.predictive.BLOCK_NUMBERS", 256)
    np.testing.assert_allclose(fit.score_samples(np.tile(x, (20, 1))), whole, rtol=1e-13)


def test_integer_weights_repeat_rows_and_zero_leaves_them_out(x):
    weighted = fitted(x, REPEATS, **started())
    repeated = fitted(np.repeat(x, REPEATS, axis=0), **started())
    assert_trees_close(weighted.mixture_, repeated.mixture_, rtol=1e-10, atol=1e-10)
    for criterion in ("score", "aic", "bic", "icl"):
        plain = getattr(repeated, criterion)(np.repeat(x, REPEATS, axis=0))
        np.testing.assert_allclose(getattr(weighted, criterion)(x, sample_weight=REPEATS), plain, rtol=1e-10)
    np.testing.assert_allclose(weighted.lower_bound_, repeated.lower_bound_, rtol=1e-10)


def test_parts_of_the_start_may_be_given_and_the_rest_is_the_starts(x):
    means = random_gmm(0, 3, 2, "full").means
    start = fitted(x, n_components=3, means_init=means, max_iter=0, random_state=0)
    np.testing.assert_allclose(start.means_, means, rtol=1e-12)
    plain = fitted(x, n_components=3, max_iter=0, random_state=0)
    order, plainly = np.argsort(start.weights_), np.argsort(plain.weights_)
    np.testing.assert_allclose(start.covariances_[order], plain.covariances_[plainly], rtol=1e-10)
    np.testing.assert_allclose(start.weights_[order], plain.weights_[plainly], rtol=1e-10)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_the_rest_of_a_start_takes_the_order_of_the_parts_that_are_given(order):
    """Their own precisions in any order give the start again in that order, and the fit takes as many iterations."""
    x = np.concatenate([s * np.random.default_rng(0).standard_normal((60, 2)) + 30 * s for s in (1.0, 3.0, 9.0)])
    plain = fitted(x, n_components=3, covariance_type="diag", max_iter=0, random_state=0)
    given = {"precisions_init": plain.precisions_[order], "covariance_type": "diag", "random_state": 0}
    start = fitted(x, n_components=3, max_iter=0, **given)
    np.testing.assert_allclose(start.means_, plain.means_[order], rtol=1e-10)
    np.testing.assert_allclose(start.weights_, plain.weights_[order], rtol=1e-10)
    free = fitted(x, n_components=3, covariance_type="diag", random_state=0)
    assert fitted(x, n_components=3, **given).n_iter_ == free.n_iter_


def test_every_restart_is_kept_and_a_seed_repeats_it(x):
    options = {"n_components": 3, "n_init": 4, "max_iter": 20, "init_params": random_points, "random_state": 3}
    one, two = fitted(x, **options), fitted(x, **options)
    assert one.restarts_.fits.log_likelihood.shape == (4,)
    assert_trees_close(one.mixture_, two.mixture_, rtol=0, atol=0)
    assert one.lower_bound_ * 60 == pytest.approx(float(one.restarts_.best.log_likelihood), rel=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("init_params", ["random", "random_from_data", "random_points", "k-means++", "kmeans++"])
def test_every_start_leads_to_a_fit(init_params, x):
    fit = GaussianMixture(3, n_init=4, init_params=init_params, random_state=0, max_iter=500).fit(x)
    assert fit.status_ == Status.CONVERGED


def test_a_random_state_moves_on(x):
    rng = np.random.RandomState(0)
    options = {"n_components": 3, "init_params": "random_points", "max_iter": 0, "random_state": rng}
    assert np.any(fitted(x, **options).means_ != fitted(x, **options).means_)


def test_random_responsibilities_start_near_the_mean_of_the_data(x):
    """A mean of N rows with uniform weights lies within 5 of its standard errors, sd·√(1/3N)."""
    start = fitted(x, n_components=3, init_params="random", max_iter=0, random_state=0)
    error = x.std(axis=0) / np.sqrt(3 * len(x))
    assert np.all(np.abs(start.means_ - x.mean(axis=0)) < 5 * error)
    np.testing.assert_allclose(start.weights_.sum(), 1.0, rtol=1e-12)


def test_warm_start_goes_on_where_it_stopped(x):
    fit = fitted(x, **started(warm_start=True))
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        fit.fit(x)
    after, _ = oracles.em(as_tuple(random_gmm(0, 3, 2, "full")), x, 40, reg_covar=1e-6)
    np.testing.assert_allclose(fit.means_, after[1], rtol=1e-8)
    for other, rows in (({"n_components": 2}, x), ({"covariance_type": "tied"}, x), ({}, x[:, :1])):
        with pytest.raises(ValueError, match="goes on from what was fitted, 3 components of type 'full' in 2 features"):
            fit.set_params(**other).fit(rows)
        fit.set_params(n_components=3, covariance_type="full")


@pytest.mark.slow
def test_what_is_known_is_held_and_not_counted(x):
    means = np.array([[0.0, 1.0], [np.nan, np.nan], [np.nan, np.nan]])
    held = fitted(x, n_components=3, max_iter=20, known=Known(means=means), random_state=0)
    np.testing.assert_array_equal(held.means_[0], means[0])
    assert held.bic(x) + 2 * 60 * held.score(x) == pytest.approx((17 - 2) * np.log(60))


def test_reg_covar_is_absolute_and_says_where_it_is_large(x):
    small = x * np.array([1.0, 1e-3])
    with pytest.warns(UserWarning, match=r"1 % of the variance of column\(s\) 1 \("):
        fitted(small, n_components=3, max_iter=20, random_state=0)
    a, b = np.array([1e3, 1e-3]), np.array([1e3, -7.0])
    one = fitted(x, n_components=3, max_iter=20, reg_covar="relative", random_state=0)
    two = fitted(x * a + b, n_components=3, max_iter=20, reg_covar="relative", random_state=0)
    np.testing.assert_allclose(two.means_, one.means_ * a + b, rtol=1e-8)
    np.testing.assert_allclose(two.score(x * a + b), one.score(x) - np.log(a).sum(), rtol=1e-8)


def test_failure_is_an_error_and_stopping_early_a_warning(x):
    two_points = np.repeat([[0.0, 0.0], [1.0, 1.0]], 30, axis=0)
    options = {"n_components": 3, "max_iter": 20, "random_state": 0}
    with pytest.raises(ValueError, match=r"ill-defined empirical covariance.*collapsed"):
        GaussianMixture(**options, reg_covar=0.0).fit(two_points)
    with pytest.warns(sklearn.exceptions.ConvergenceWarning, match=r"did not converge.*a component collapsed"):
        given = GaussianMixture(**started(reg_covar=0.0)).fit(two_points)
    assert given.status_ == Status.COLLAPSED
    assert np.isfinite(given.score(two_points))
    with pytest.warns(sklearn.exceptions.ConvergenceWarning, match=r"did not converge.*max_iter"):
        early = GaussianMixture(**options, tol=0.0).fit(x)
    assert (early.converged_, early.status_) == (False, Status.MAX_ITER)
    late = GaussianMixture(**options, tol=0.01).fit(x)
    assert (late.converged_, late.status_) == (True, Status.CONVERGED)
    assert "converged" in late.message_
    assert 0 < late.n_iter_ < 20


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"weights_init": [0.5, 0.6, 0.1]}, "The parameter 'weights' should be normalized"),
        ({"weights_init": [0.5, 0.5]}, r"should have the shape of \(3,\), but got \(2,\)"),
        ({"weights_init": [1.5, -0.5, 0.0]}, r"should be in the range \[0, 1\]"),
        ({"means_init": np.full((3, 2), np.nan)}, "'means' should be finite"),
        ({"precisions_init": -np.ones((3, 2, 2))}, "'full precision' should be symmetric, positive-definite"),
        ({"covariance_type": "diag", "precisions_init": -np.ones((3, 2))}, "'diag precision' should be positive"),
        ({"n_init": 0}, "n_init must be a positive integer; got 0"),
        ({"max_iter": 1.5}, "max_iter must be an integer"),
        ({"tol": -1.0}, "tol must be finite and not negative"),
        ({"reg_covar": "large"}, "reg_covar must be a number or 'relative'; got 'large'"),
        ({"reg_covar": None}, "reg_covar must be a number or 'relative'; got None"),
        ({"reg_covar": -1.0}, "reg_covar must be finite and not negative"),
        ({"init_params": lambda key, x, spec: 3}, r"must return a GMM of type 'full' .* of shapes \(\(3,\), \(3, 2\)"),
        ({"init_params": "best"}, "init_params must be one of .*kmeans.*; got 'best'"),
        ({"random_state": "now"}, "cannot be used to seed|must be an integer"),
        ({"n_components": 61}, "Expected n_samples >= n_components"),
    ],
)
def test_what_cannot_be_is_a_sentence(options, sentence, x):
    with pytest.raises(ValueError, match=sentence):
        GaussianMixture(**{"n_components": 3, **options}).fit(x)


def test_a_number_of_samples_is_whole(fit):
    with pytest.raises(ValueError, match=r"n_samples must be an integer; got 2\.5"):
        fit.sample(2.5)


def test_samples_are_those_of_the_mixture(fit):
    """Means of 4000 samples a component on average, within 5 standard errors; frequencies are not fixed."""
    fit = sklearn.base.clone(fit).set_params(max_iter=0).fit(fit.means_.repeat(20, axis=0))
    samples, labels = fit.set_params(random_state=1).sample(12_000)
    assert np.all(np.diff(labels) >= 0)
    for k in range(3):
        rows = samples[labels == k]
        error = np.sqrt(np.diag(fit.covariances_[k]) / len(rows))
        np.testing.assert_array_less(np.abs(rows.mean(axis=0) - fit.means_[k]), 5 * error)
        p = fit.weights_[k]
        assert abs(len(rows) / 12_000 - p) < 5 * np.sqrt(p * (1 - p) / 12_000)


@pytest.mark.slow
def test_standard_errors_of_one_component_are_sd_over_root_n(x):
    one = fitted(x, reg_covar=0.0, tol=1e-10, max_iter=20)
    np.testing.assert_allclose(one.standard_errors(x).means[0], x.std(axis=0) / np.sqrt(60), rtol=1e-8)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_go_in_and_their_names_are_kept(library, fit, x):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({"height": x[:, 0], "width": x[:, 1]})
    from_frame = fitted(frame, **started())
    assert list(from_frame.feature_names_in_) == ["height", "width"]
    assert_trees_close(from_frame.mixture_, fit.mixture_, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(from_frame.predict(frame), fit.predict(x))


@pytest.mark.slow
def test_it_lives_in_pipelines_and_grid_searches(x):
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), GaussianMixture(max_iter=20, random_state=0))
    grid = {"gaussianmixture__n_components": [1, 2]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(x)
    assert search.best_params_ == {"gaussianmixture__n_components": 2}
    assert search.predict(x).shape == (60,)


def test_a_clone_has_the_same_parameters():
    known = Known(weights=np.array([0.3, np.nan]))
    assert_trees_close(sklearn.base.clone(GaussianMixture(2, known=known)).known, known)


FEW_CHECKS = (
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_valid_tag_types",
    "check_set_params",
    "check_get_params_invariance",
    "check_estimators_unfitted",
    "check_complex_data",
    "check_estimator_sparse_array",
)


def conform(estimator, names=None):
    """What scikit-learn's checks of these names say that did not pass."""
    from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

    if names is None:
        done = check_estimator(estimator, on_fail=None, on_skip=None)
        return [(c["check_name"], repr(c["exception"])) for c in done if c["status"] not in ("passed", "skipped")]
    checks = {check.func.__name__: partial(check, e) for e, check in estimator_checks_generator(estimator)}
    return [(name, error) for name in names if (error := checks[name]()) is not None]


def test_some_of_scikit_learns_checks_pass():
    assert conform(GaussianMixture(), FEW_CHECKS) == []


def python(program, **environment):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT = """
import os, sys, warnings
sys.modules["sklearn"] = None
import numpy as np
import gmm_jax
from gmm_jax import GaussianMixture
x = np.random.default_rng(0).standard_normal((60, 2)) + 1e6
model = GaussianMixture(n_components=1, random_state=0)
try:
    model.predict(x)
except (ValueError, AttributeError) as error:
    assert "is not fitted yet" in str(error)
assert model.get_params()["tol"] == 1e-3
assert model.set_params(tol=1e-4).tol == 1e-4
assert repr(model) == "GaussianMixture(random_state=0, tol=0.0001)"
model.fit(x)
np.testing.assert_allclose(model.means_[0], x.mean(axis=0), rtol=1e-13)
np.testing.assert_allclose(model.covariances_[0], np.cov(x.T, bias=True) + 1e-6 * np.eye(2), rtol=1e-5, atol=1e-6)
np.testing.assert_allclose(model.score(x), model.lower_bound_, rtol=1e-5)
answers = [model.weights_, model.means_, model.covariances_, model.precisions_cholesky_, model.predict_proba(x),
           model.score_samples(x), model.sample(3)[0]]
assert all(type(a) is np.ndarray and a.dtype == np.float64 for a in answers), [a.dtype for a in answers]
try:
    model.predict(x[:, :1])
except ValueError as error:
    assert "expecting 2 features" in str(error)
import jax
assert not jax.config.jax_enable_x64
print("as it should be")
"""


def test_it_works_without_scikit_learn_and_without_float64():
    assert python(WITHOUT).strip() == "as it should be"


ALL_CHECKS = """
import jax
import test_estimator
from gmm_jax import GaussianMixture
jax.config.update("jax_enable_x64", {x64})  # after conftest, which says True
print(test_estimator.conform(GaussianMixture()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("x64", [True, False])
def test_all_of_scikit_learns_checks_pass(x64):
    path = os.pathsep.join(str(p) for p in (Path(__file__).parents[1], Path(__file__).parent))
    assert python(ALL_CHECKS.format(x64=x64), PYTHONPATH=path).strip().splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_million_rows_are_scored_as_the_oracle_scores_them():
    import jax

    problem = problems.load("course_2d")
    x, _ = problem.sample(jax.random.key(0), 1_000_000)
    x = np.asarray(x)
    model = GaussianMixture(2, random_state=0, tol=1e-8, max_iter=500).fit(x[:20_000])
    assert model.score(x) == pytest.approx(oracles.log_likelihood(as_tuple(model.mixture_), x) / len(x), rel=1e-12)


def test_gaps_and_labels_are_for_the_estimator_what_they_are_for_em(x):
    gaps = np.where(np.random.default_rng(0).random(x.shape) < 0.2, np.nan, x)
    labels = np.where(np.arange(60) < 12, np.argmax(GaussianMixture(3, random_state=0).fit(x).predict_proba(x), 1), -1)
    model = GaussianMixture(3, random_state=0, tol=1e-6, missing="marginalise").fit(gaps, labels=labels)
    assert model.__sklearn_tags__().input_tags.allow_nan
    assert not GaussianMixture().__sklearn_tags__().input_tags.allow_nan
    np.testing.assert_allclose(model.score_samples(gaps), log_prob(model.mixture_, gaps, missing="marginalise"))
    named = [k for k in range(3) if np.any(labels == k)]
    own = np.array([x[labels == k].mean(axis=0) for k in named])
    np.testing.assert_array_equal(np.argmin(((own[:, None] - model.means_) ** 2).sum(-1), axis=1), named)
    with pytest.raises(ValueError, match=r"X contains NaN, the first at row .* or pass missing=.marginalise"):
        GaussianMixture(3).fit(gaps)


@pytest.mark.parametrize("missing", [None, "marginalise"])
def test_what_is_masked_is_missing_and_never_its_filler(missing, x):
    masked = np.ma.array(np.where(x > 2.0, 1e6, x), mask=x > 2.0)
    model = GaussianMixture(2, random_state=0, missing=missing, max_iter=500)
    if missing is None:
        with pytest.raises(ValueError, match="X contains NaN"):
            model.fit(masked)
    else:
        plain = GaussianMixture(2, random_state=0, missing=missing, max_iter=500).fit(np.where(x > 2.0, np.nan, x))
        np.testing.assert_array_equal(model.fit(masked).means_, plain.means_)
        np.testing.assert_array_equal(model.predict_proba(masked), plain.predict_proba(masked.filled(np.nan)))


def test_byte_order_is_no_dtype(x):
    model = GaussianMixture(2, random_state=0, max_iter=500)
    swapped = model.fit(x.astype(">f4"))
    assert swapped.means_.dtype == swapped.score_samples(x.astype(">f4")).dtype == np.float32
    np.testing.assert_array_equal(
        swapped.means_, GaussianMixture(2, random_state=0, max_iter=500).fit(x.astype("f4")).means_
    )
