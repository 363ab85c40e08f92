"""Standard errors against a Hessian in plain NumPy, closed forms, and what is known or undefined."""

from pathlib import Path

import jax
import numpy as np
import pytest
from test_m_step import make_known

import oracles
from conftest import as_tuple, assert_trees_close, random_gmm
from gmm_jax import GMM, Known, MixtureSpec, NotSupported, Status, permute, responsibilities
from gmm_jax.em import EMConfig, EMResult, asymptotics, bootstrap, fit_em, fit_em_restarts, intervals, standard_errors
from gmm_jax.mixture import free_parts
from gmm_jax.problems import datasets, load


def fitted(gmm):
    return EMResult(gmm, None, None, None, None)


def maximum(x, covariance_type, known):
    """From the truth that made x, so that the maximum is an inner one; NumPy leaves."""
    init = random_gmm(0, 3, 2, "full")
    covariances = {"full": init.covariances, "tied": np.eye(2), "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    start = GMM(init.weights, init.means, covariances[covariance_type], covariance_type)
    return jax.tree.map(np.asarray, fit_em(x, start, known=known, config=EMConfig(tol=1e-14)).gmm)


FREE = ("free", "free", "free")
SLOW = [pytest.param(t, FREE, marks=pytest.mark.slow) for t in ("diag", "spherical")]  # a program of seconds each


@pytest.mark.parametrize(
    ("covariance_type", "choices"),
    [("full", FREE), ("tied", FREE), *SLOW, ("full", ("one", "one", "one")), ("tied", ("all", "one", "free"))],
)
def test_standard_errors_are_the_inverse_observed_information(covariance_type, choices, x):
    known = Known(**make_known(random_gmm(0, 3, 2, covariance_type), choices))
    spec = MixtureSpec(3, covariance_type, known)
    gmm = maximum(x, covariance_type, known)
    errors = standard_errors(x, fitted(gmm), spec)
    for name, got, want in zip(
        ("weights", "means", "covariances"),
        as_tuple(errors)[:3],
        oracles.standard_errors(as_tuple(gmm), x, *free_parts(spec)),
        strict=True,
    ):
        assert np.isfinite(want).all()
        assert want.shape == got.shape
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9, err_msg=name)  # of the difference: step² = 1e-10


def test_one_gaussian_has_the_textbook_errors(x):
    """se(μ_i) = √(Σ_ii/n), se(Σ_ij) = √((Σ_ij² + Σ_ii Σ_jj)/n) at the maximum."""
    s = np.cov(x.T, bias=True)
    gmm = GMM(np.ones(1), x.mean(axis=0)[None], s[None])
    errors = standard_errors(x, fitted(gmm), MixtureSpec(1))
    v = np.diag(s)
    np.testing.assert_allclose(errors.means[0], np.sqrt(v / len(x)), rtol=1e-10)
    np.testing.assert_allclose(errors.covariances[0], np.sqrt((s**2 + np.outer(v, v)) / len(x)), rtol=1e-10)
    np.testing.assert_array_equal(errors.weights, 0.0)


def test_what_is_known_has_no_error_and_last_weights_are_as_sure_as_first(x):
    gmm = maximum(x, "full", Known())
    known = Known(means=gmm.means[:2], covariances=gmm.covariances[:2])
    spec = MixtureSpec(2, "full", known)
    two = GMM(np.array([0.4, 0.6]), *(np.array(leaf) for leaf in (known.means, known.covariances)))
    before = asymptotics(x, fitted(two), spec)  # goes to the maximum by itself
    two = jax.tree.map(np.asarray, fit_em(x, two, known=known, config=EMConfig(tol=1e-14)).gmm)
    errors = standard_errors(x, fitted(two), spec)
    assert_trees_close(before.standard_errors, errors, rtol=1e-4)
    assert_trees_close(before.gmm, two, rtol=1e-3)
    assert before.gained > 0.01
    assert "nats above it" in before.message
    assert errors.weights[0] == errors.weights[1] > 0
    assert not errors.means.any()
    assert not errors.covariances.any()


def test_errors_scale_with_the_data(x):
    gmm = maximum(x, "full", Known())
    base = standard_errors(x, fitted(gmm), MixtureSpec(3))
    moved = GMM(gmm.weights, gmm.means * 1e-8 + 1.0, gmm.covariances * 1e-16)
    errors = standard_errors(x * 1e-8 + 1.0, fitted(moved), MixtureSpec(3))
    # an offset of 1e8 standard deviations leaves eight digits of the data, and about seven of the errors
    np.testing.assert_allclose(errors.weights, base.weights, rtol=1e-5)
    np.testing.assert_allclose(errors.means, base.means * 1e-8, rtol=1e-5)
    np.testing.assert_allclose(errors.covariances, base.covariances * 1e-16, rtol=1e-5)


def test_where_there_is_no_maximum_errors_are_nan(x):
    """Two equal components: the information is singular."""
    s = np.cov(x.T, bias=True)
    gmm = GMM(np.array([0.5, 0.5]), np.stack([x.mean(axis=0)] * 2), np.stack([s, s]))
    errors = standard_errors(x, fitted(gmm), MixtureSpec(2))
    assert np.isnan(errors.means).all()


def test_an_unknown_method_is_a_sentence(x):
    with pytest.raises(ValueError, match=r"method must be one of observed, .*; got 'guess'"):
        standard_errors(x, fitted(random_gmm(0, 3, 2, "full")), MixtureSpec(3), method="guess")


def test_a_key_is_for_bootstraps_only(x):
    gmm = fitted(random_gmm(0, 3, 2, "full"))
    with pytest.raises(ValueError, match=r"key is for the bootstraps; .*leave it out"):
        standard_errors(x, gmm, MixtureSpec(3), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"key is for the bootstraps; .*pass jax.random.key"):
        standard_errors(x, gmm, MixtureSpec(3), method="bootstrap")
    with pytest.raises(ValueError, match="n_resamples must be an integer of at least 2; got 1"):
        bootstrap(jax.random.key(0), x, gmm, MixtureSpec(3), n_resamples=1)
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\); got 95"):
        intervals(x, gmm, MixtureSpec(3), level=95)


def one_gaussian(x):
    s = np.cov(x.T, bias=True)
    return GMM(np.ones(1), x.mean(axis=0)[None], s[None])


def test_the_sandwich_of_one_gaussian_holds_its_fourth_moments(x):
    """cov(Σ̂_ij) = (E[(x−μ)_i² (x−μ)_j²] − Σ_ij²) / n whatever the distribution; the mean's errors are as before."""
    gmm = one_gaussian(x)
    errors = standard_errors(x, fitted(gmm), MixtureSpec(1), method="sandwich")
    square = (x - x.mean(axis=0)) ** 2
    fourth = square.T @ square / len(x)
    np.testing.assert_allclose(errors.covariances[0], np.sqrt((fourth - gmm.covariances[0] ** 2) / len(x)), rtol=1e-8)
    np.testing.assert_allclose(errors.means[0], np.sqrt(np.diag(gmm.covariances[0]) / len(x)), rtol=1e-10)


def test_boundaries_are_a_status_and_no_number(x):
    gmm = maximum(x, "full", Known())
    weights = np.array([0.5 / len(x), 0.4, 0.6 - 0.5 / len(x)])
    found = asymptotics(x, fitted(GMM(weights, gmm.means, gmm.covariances)), MixtureSpec(3))
    assert found.status == Status.BOUNDARY
    assert np.isnan(found.covariance).all()
    flat = gmm.covariances.copy()
    flat[0] = np.outer([1.0, 1.0], [1.0, 1.0]) + 1e-15 * np.eye(2)
    assert asymptotics(x, fitted(GMM(gmm.weights, gmm.means, flat)), MixtureSpec(3)).status == Status.BOUNDARY
    twice = jax.tree.map(lambda leaf: np.repeat(leaf, 3, axis=0), one_gaussian(x))
    twice = GMM(np.full(3, 1 / 3), twice.means, twice.covariances)
    found = intervals(x, fitted(twice), MixtureSpec(3))
    assert found.status == Status.SINGULAR
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(found.raw))


def test_intervals_are_the_errors_on_each_scale(x):
    """φ and Σ_11 by their own formulas; and every short interval is as long as its error says, on any scale."""
    gmm = maximum(x, "full", Known())
    errors = standard_errors(x, fitted(gmm), MixtureSpec(3))
    raw, moved, status = intervals(x, fitted(gmm), MixtureSpec(3))
    assert status == Status.CONVERGED
    z = 1.959963984540054
    for leaf in ("weights", "means", "covariances"):
        value, error = getattr(gmm, leaf), getattr(errors, leaf)
        np.testing.assert_allclose(getattr(raw.upper, leaf), value + z * error, rtol=1e-10)
        np.testing.assert_allclose(getattr(raw.lower, leaf), value - z * error, rtol=1e-9, atol=1e-12)
    odds = np.log(gmm.weights / (1 - gmm.weights)) + z * errors.weights / gmm.weights / (1 - gmm.weights)
    np.testing.assert_allclose(moved.upper.weights, 1 / (1 + np.exp(-odds)), rtol=1e-10)
    first, error = gmm.covariances[:, 0, 0], errors.covariances[:, 0, 0]
    np.testing.assert_allclose(moved.lower.covariances[:, 0, 0], first * np.exp(-z * error / first), rtol=1e-8)
    assert np.all(np.diagonal(moved.lower.covariances, axis1=1, axis2=2) > 0.0)
    assert np.all((moved.lower.weights > 0.0) & (moved.upper.weights < 1.0))
    short = intervals(x, fitted(gmm), MixtureSpec(3), level=1e-4).transformed  # of z = 1.3e-4: second order is 1e-4
    length = jax.tree.map(lambda low, high: (high - low) / (2 * 1.2533141406e-4), short.lower, short.upper)
    for leaf in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(length, leaf), getattr(errors, leaf), rtol=1e-4)


@pytest.mark.parametrize(
    ("covariance_type", "choices"),
    [
        ("full", ("one", "one", "one")),
        ("tied", ("all", "one", "free")),
        pytest.param("diag", FREE, marks=pytest.mark.slow),
    ],
)
def test_intervals_of_the_known_are_the_known(covariance_type, choices, x):
    known = Known(**make_known(random_gmm(0, 3, 2, covariance_type), choices))
    spec = MixtureSpec(3, covariance_type, known)
    gmm = maximum(x, covariance_type, known)
    errors = standard_errors(x, fitted(gmm), spec)
    for ends in intervals(x, fitted(gmm), spec)[:2]:
        for leaf in ("weights", "means", "covariances"):
            value, error = getattr(gmm, leaf), getattr(errors, leaf)
            low, high = getattr(ends.lower, leaf), getattr(ends.upper, leaf)
            np.testing.assert_array_equal(low[error == 0.0], value[error == 0.0])
            np.testing.assert_array_equal(high[error == 0.0], value[error == 0.0])
            assert np.all((low < value) & (value < high) | (error == 0.0))


@pytest.fixture(scope="module")
def two(x):
    start = GMM(np.array([0.5, 0.5]), np.array([[-2.0, -2.0], [3.0, 2.0]]), np.stack([4.0 * np.eye(2)] * 2))
    return jax.tree.map(np.asarray, fit_em(x, start, config=EMConfig(tol=1e-14)).gmm)


def test_the_bootstrap_follows_components_and_not_their_order(x, two):
    spec, options = MixtureSpec(2), {"n_resamples": 40, "config": EMConfig(max_iter=100)}
    one = bootstrap(jax.random.key(0), x, fitted(two), spec, **options)
    other = bootstrap(jax.random.key(0), x, fitted(permute(two, np.array([1, 0]))), spec, **options)
    assert_trees_close(permute(other.standard_errors, np.array([1, 0])), one.standard_errors, rtol=1e-6)
    assert one.gmms.means.shape == (40, 2, 2)
    np.testing.assert_allclose(one.standard_errors.weights[0], one.standard_errors.weights[1], rtol=1e-10)
    twins = GMM(np.array([0.5, 0.5]), np.stack([x.mean(axis=0)] * 2), np.stack([np.cov(x.T, bias=True)] * 2))
    alike = bootstrap(jax.random.key(0), x, fitted(twins), spec, **options)
    assert alike.ambiguous.all()
    assert "40 had an ambiguous match" in alike.message


def test_a_component_that_no_resample_has_is_lost(x, two):
    """It sits on one row, which most resamples of the other rows leave alone or lack."""
    lonely = np.concatenate([x, [[60.0, 60.0]]])[1:]
    gmm = GMM(np.array([0.98, 0.02]), np.stack([x.mean(axis=0), [60.0, 60.0]]), np.stack([np.cov(x.T), np.eye(2)]))
    known = Known(covariances=np.stack([np.full((2, 2), np.nan), np.eye(2)]))
    found = bootstrap(jax.random.key(0), lonely, fitted(gmm), MixtureSpec(2, known=known), n_resamples=40)
    share = found.lost.mean()
    expected = (1 - 1 / len(lonely)) ** len(lonely)  # of resamples without that row
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / 40)
    assert f"{found.lost.sum()} lost a component" in found.message


PUBLISHED = Path(__file__).parent / "references"


def published(name):
    """(x, spec): A2 of posteriordb, course_2d with 2,000 samples, and A1 of SAS, a component of which has 3 points."""
    if name == "a2":
        return np.load(PUBLISHED / "low_dim_gauss_mix.npz", allow_pickle=False)["y"][:, None], MixtureSpec(2)
    if name == "course_2d":
        problem = load("course_2d")
        return problem.sample(jax.random.key(5), 2000, counts="multinomial")[0], problem.spec
    known = Known(covariances=np.full((5, 1, 1), 0.9025))
    return datasets.load("galaxies_roeder")[0] / 1000.0, MixtureSpec(5, "full", known)


@pytest.mark.slow
@pytest.mark.parametrize("parametric", [False, True])
@pytest.mark.parametrize("name", ["a2", "course_2d", "a1"])
def test_bootstraps_agree_with_the_information_where_components_are_large(name, parametric):
    x, spec = published(name)
    exact = EMConfig(max_iter=5000, tol=1e-13, reg_covar=0.0)
    best = fit_em_restarts(jax.random.key(0), x, spec, n_restarts=20, config=exact).best
    observed = standard_errors(x, best, spec)
    found = bootstrap(jax.random.key(1), x, best, spec, n_resamples=2000, parametric=parametric)
    ratios = np.concatenate(
        [
            np.ravel(b / np.where(e == 0.0, 1.0, e))[np.ravel(e > 0.0)]
            for b, e in zip(as_tuple(found.standard_errors)[:3], as_tuple(observed)[:3], strict=True)
        ]
    )
    if name == "a1":
        assert found.lost.sum() > 100
        assert np.abs(ratios - 1.0).max() > 0.1
        assert "lost a component" in found.message
    else:
        assert not found.lost.any()
        assert not found.ambiguous.any()
        np.testing.assert_allclose(ratios, 1.0, atol=0.1)


def test_a_fit_that_stopped_early_has_the_errors_of_the_maximum(x):
    """As scikit-learn's tol leaves it. The errors are a GMM for every function of JAX, and say how they came about."""
    spec = MixtureSpec(3)
    early = fit_em_restarts(jax.random.key(0), x, spec, n_restarts=3, config=EMConfig(tol=1e-3))
    late = fit_em_restarts(jax.random.key(0), x, spec, n_restarts=3, config=EMConfig(tol=1e-13, reg_covar=0.0))
    errors, exact = standard_errors(x, early, spec), standard_errors(x, late.best, spec)
    assert (errors.status, exact.status) == (Status.CONVERGED, Status.CONVERGED)
    assert "nats above it" in errors.message
    assert exact.message == "the fit is at its maximum."
    assert_trees_close(errors, exact, rtol=1e-2)
    assert np.isfinite(jax.tree.map(lambda e, m: e + m, errors, early.best.gmm).means).all()


def test_errors_that_cannot_be_had_come_with_a_reason(x):
    twice = np.column_stack([x, x[:, 0]])
    best = fit_em_restarts(jax.random.key(0), twice, MixtureSpec(2), n_restarts=2).best
    errors = standard_errors(twice, best, MixtureSpec(2))
    assert np.isnan(errors.means).all()
    assert errors.status != Status.CONVERGED
    assert "column(s) 0, 2 of x are linearly dependent" in errors.message


@pytest.mark.parametrize("method", ["observed", "sandwich"])
def test_a_row_of_weight_two_counts_as_two_rows(method, x, two):
    weight = np.resize([1.0, 2.0, 0.0], len(x))
    repeated = np.repeat(x, weight.astype(int), axis=0)
    spec, options = MixtureSpec(2), {"n_restarts": 1, "init": two, "config": EMConfig(tol=1e-12)}
    best = fit_em_restarts(jax.random.key(0), x, spec, sample_weight=weight, **options).best
    errors = standard_errors(x, best, spec, method=method, sample_weight=weight)
    assert_trees_close(errors, standard_errors(repeated, best, spec, method=method), rtol=1e-10)
    found = intervals(x, best, spec, method=method, sample_weight=weight)
    assert_trees_close(found, intervals(repeated, best, spec, method=method), rtol=1e-10)


def test_a_result_of_other_data_is_refused(x, two):
    """Whatever it is that differs: rows, weights, labels; or the specification."""
    weight, labels, spec = np.resize([1.0, 3.0], len(x)), np.resize([0, -1, -1], len(x)), MixtureSpec(2)
    best = fit_em_restarts(jax.random.key(0), x, spec, n_restarts=1, init=two).best
    for other, rows in ((x + 1.0, {}), (x, {"sample_weight": weight}), (x, {"labels": labels})):
        for function in (standard_errors, intervals):
            with pytest.raises(ValueError, match="pass the x, sample_weight, labels and missing that made the fit"):
                function(other, best, spec, **rows)
        with pytest.raises(ValueError, match="result has the log-likelihood"):
            bootstrap(jax.random.key(0), other, best, spec, n_resamples=2, **rows)
    with pytest.raises(ValueError, match=r"result has .* \(2, 2, 'full'\), but spec and x have \(3, 2, 'full'\)"):
        standard_errors(x, best, MixtureSpec(3))
    with pytest.raises(ValueError, match="result must be a GMM or a result that holds one; got a int"):
        standard_errors(x, 3, spec)


@pytest.mark.slow
def test_the_bootstrap_draws_rows_with_their_labels_and_weights(x, two):
    """Standard errors of one Gaussian's mean are √(s² / Σw); a label keeps its row's component."""
    weight = np.random.default_rng(0).uniform(0.5, 3.0, len(x))
    options = {"n_restarts": 1, "sample_weight": weight}
    one = fit_em_restarts(jax.random.key(0), x, MixtureSpec(1), **options).best
    found = bootstrap(jax.random.key(1), x, one, MixtureSpec(1), n_resamples=400, sample_weight=weight)
    variance = np.average((x - one.gmm.means) ** 2, axis=0, weights=weight)
    # each row comes Poisson(w) times: the variance of the mean is Σ w (x − μ)² / (Σ w)²
    np.testing.assert_allclose(found.standard_errors.means[0], np.sqrt(variance / weight.sum()), rtol=5 / np.sqrt(800))
    labels = np.argmax(responsibilities(two, x), axis=1)
    best = fit_em_restarts(jax.random.key(0), x, MixtureSpec(2), n_restarts=1, labels=labels).best
    errors = standard_errors(x, best, MixtureSpec(2), method="bootstrap", key=jax.random.key(2), labels=labels)
    weights = np.asarray(best.gmm.weights)
    np.testing.assert_allclose(errors.weights, np.sqrt(weights * (1 - weights) / len(x)), rtol=5 / np.sqrt(2000))
    assert errors.status == Status.CONVERGED
    with pytest.raises(NotSupported, match="samples complete rows, each counted once, without labels"):
        bootstrap(jax.random.key(1), x, best, MixtureSpec(2), parametric=True, labels=labels)
