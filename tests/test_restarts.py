"""Many starts: the same as one by one, affine equivariant, and honest about data that defeat it."""

import os
import subprocess
import sys
from functools import partial

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import GMM, GaussianMixture, MixtureSpec, Status, affine, align
from gmm_jax.em import EMConfig, Interrupted, fit_em, fit_em_restarts, pool
from gmm_jax.mixture import Known, standardise
from gmm_jax.mixture.starts import kmeans_plusplus

KEY = jax.random.key(0)
HUNDRED = EMConfig(max_iter=100, tol=0.0, reg_covar=0.0)


def restarts(x, covariance_type="full", n_components=2, known=Known(), **options):
    options = {"n_restarts": 4, "config": EMConfig(max_iter=100), **options}
    return fit_em_restarts(KEY, x, MixtureSpec(n_components, covariance_type, known), **options)


@pytest.fixture(scope="module")
def blobs():
    """(400, 2): two groups 4 standard deviations apart, scales near one."""
    rng = np.random.default_rng(7)
    return np.concatenate([rng.standard_normal((250, 2)), np.array([4.0, 0.0]) + rng.standard_normal((150, 2))])


@pytest.mark.parametrize("covariance_type", ["full"])
def test_restarts_are_a_loop_of_single_fits(covariance_type, x):
    """In standardised units fit_em does the same to the same starts, to the last fit."""
    spec = MixtureSpec(3, covariance_type)
    starts = [random_gmm(seed, 3, 2, covariance_type) for seed in range(4)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    together = restarts(x, covariance_type, 3, init=stacked, config=EMConfig(max_iter=100, tol=1e-6))
    z, scaling = standardise(x, spec)
    for i, start in enumerate(starts):
        config = EMConfig(max_iter=100, tol=1e-6, reg_covar=np.full(2, 1e-6))
        alone = jax.tree.map(np.asarray, fit_em(z, scaling.inward(start), config=config))
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together.fits)
        assert (one.status, one.n_iter) == (alone.status, alone.n_iter)
        assert_trees_close(one.gmm, scaling.outward(alone.gmm), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(one.log_likelihood, oracles.log_likelihood(as_tuple(one.gmm), x), rtol=1e-12)
        assert one.trace[one.n_iter] == one.log_likelihood


@pytest.mark.parametrize("criterion", ["evidence", "likelihood"])
def test_best_is_what_the_criterion_prefers_and_the_optima_account_for_every_fit(x, criterion):
    """scikit-learn #10869: lower_bound_ was that of the last restart."""
    found = restarts(x, "full", 3, n_restarts=20, criterion=criterion)
    ok = np.isin(found.fits.status, (Status.CONVERGED, Status.MAX_ITER))
    clean = ~found.optima.spurious
    first = found.optima.fit[clean][np.argmax(found.optima.criterion[clean])]
    assert found.best.log_likelihood == found.fits.log_likelihood[first]
    if criterion == "likelihood":
        np.testing.assert_allclose(found.optima.criterion, found.optima.log_likelihood, rtol=1e-12)
    assert found.optima.count.sum() == ok.sum() == np.sum(found.optima.of_fit >= 0)
    assert np.all(np.diff(found.optima.log_likelihood) <= 0)
    for m, i in enumerate(found.optima.fit):
        assert found.optima.of_fit[i] == m
        assert found.optima.count[m] == np.sum(found.optima.of_fit == m)


def test_permuted_starts_reach_one_optimum(x):
    start = random_gmm(0, 3, 2, "full")
    orders = [[0, 1, 2], [1, 2, 0], [2, 1, 0], [0, 2, 1]]
    stacked = GMM(*(np.stack([np.asarray(leaf)[o] for o in orders]) for leaf in as_tuple(start)[:3]))
    found = restarts(x, "full", 3, init=stacked)
    assert found.optima.count.tolist() == [4]


def test_the_order_of_rows_does_not_matter(x, blobs):
    start = random_gmm(3, 2, 2, "full")
    shuffled = blobs[np.random.default_rng(0).permutation(400)]
    a, b = (restarts(data, init=start, config=HUNDRED).best for data in (blobs, shuffled))
    assert_trees_close(a.gmm, b.gmm, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", ["full"])
def test_integer_weights_are_repeated_rows_and_zero_an_absent_one(covariance_type, x):
    weight = np.random.default_rng(3).integers(0, 4, len(x))
    start = random_gmm(5, 3, 2, covariance_type)
    options = {"init": start, "config": EMConfig(max_iter=100, tol=0.0)}
    weighted = restarts(x, covariance_type, 3, sample_weight=weight, **options)
    repeated = restarts(np.repeat(x, weight, axis=0), covariance_type, 3, **options)
    assert_trees_close(weighted.best, repeated.best)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize(
    ("scale", "offset"), [(1.0, 1e4), (1.0, 1e6), (1.0, 1e8), (1e-4, 0.0), (1e-8, 0.0), (-1e20, 0.0), (1e-8, 1.0)]
)
def test_float64_fits_are_affine_equivariant(covariance_type, scale, offset, blobs):
    """fit(aX + b) = a fit(X) + b; gmr #9, scikit-learn's absolute reg_covar, and its ValueError at offset 1e8."""
    base = restarts(blobs, covariance_type, config=EMConfig(max_iter=100, tol=0.0)).best
    moved = restarts(scale * blobs + offset, covariance_type, config=EMConfig(max_iter=100, tol=0.0)).best
    back = align(affine(affine(moved.gmm, 1.0, -offset), 1.0 / scale), base.gmm)
    grain = np.finfo(float).eps * max(1.0, abs(offset / scale))  # what rounding did to the data
    assert_trees_close(back, align(base.gmm, base.gmm), rtol=100 * grain + 1e-10, atol=100 * grain + 1e-10)
    volume = 400 * 2 * np.log(abs(scale))
    np.testing.assert_allclose(moved.log_likelihood + volume, base.log_likelihood, rtol=100 * grain + 1e-10)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize(
    ("scale", "offset"), [(1.0, 0.0), (1.0, 1e4), (1.0, 1e6), (1e-4, 0.0), (1e-8, 0.0), (1e15, 0.0)]
)
def test_float32_data_are_fitted_as_well_as_float64_copies_of_them(covariance_type, scale, offset, blobs):
    """gmmx: NaN and converged=True at offset 1e4, and a crash of every float32 fit while x64 is on."""
    narrow = (scale * blobs + offset).astype(np.float32)
    a = restarts(narrow, covariance_type, config=EMConfig(max_iter=100, tol=0.0)).best
    b = restarts(narrow.astype(float), covariance_type, config=EMConfig(max_iter=100, tol=0.0)).best
    assert {leaf.dtype for leaf in jax.tree.leaves(a.gmm)} == {np.dtype(np.float32)}
    assert a.log_likelihood.dtype == a.trace.dtype == np.float32
    a, eps = align(a.gmm, b.gmm), np.finfo(np.float32).eps
    np.testing.assert_allclose(a.weights, b.gmm.weights, atol=1e3 * eps)
    np.testing.assert_allclose(a.means / scale, b.gmm.means / scale, atol=1e3 * eps + eps * abs(offset))
    np.testing.assert_allclose(a.covariances / scale**2, b.gmm.covariances / scale**2, atol=2e3 * eps)


def zoo(name, x):
    """Data of one shape that defeat a fit, all (400, 2)."""
    x = x.copy()
    if name == "constant column":
        x[:, 1] = 0.1
    elif name == "constant column far away":
        x[:, 1] = 123456789.1
    elif name == "constant":
        x[:] = [3.0, -1e5]
    elif name == "two points":
        x[:] = np.where(np.arange(400)[:, None] < 150, 1.0, -2.0)
    elif name == "collinear":
        x[:, 1] = 2.0 * x[:, 0] + 1.0
    elif name == "outlier":
        x[0] = 1e6
    elif name == "duplicates":
        x[:] = np.repeat(x[::20], 20, axis=0)
    return x


ZOO = ["constant column", "constant column far away", "constant", "two points", "collinear", "outlier", "duplicates"]


def assert_honest(found):
    """No fit whose status is a success holds anything but a proper, finite mixture."""
    for i in np.flatnonzero(np.isin(found.fits.status, (Status.CONVERGED, Status.MAX_ITER))):
        gmm = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i], float), found.fits.gmm)
        assert np.isfinite(found.fits.log_likelihood[i])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gmm))
        np.testing.assert_allclose(gmm.weights.sum(), 1.0, rtol=1e-6)
        matrices = oracles.dense(gmm.covariances, gmm.covariance_type, *gmm.means.shape)
        assert np.all(np.linalg.eigvalsh(matrices) > 0)
    assert not np.any(found.fits.status == Status.RUNNING)
    assert found.message.endswith(".")


@pytest.mark.parametrize(("dtype", "reg_covar"), [(np.float64, None), (np.float64, 0.0), (np.float32, None)])
@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("name", ZOO)
def test_degenerate_data_are_never_a_false_success(name, covariance_type, dtype, reg_covar, blobs):
    if dtype == np.float32 and covariance_type in ("tied", "spherical"):
        return  # saves two compilations
    data = zoo(name, blobs).astype(dtype)
    config = EMConfig(max_iter=100, reg_covar=None if reg_covar is None else np.zeros(2))
    found = restarts(data, covariance_type, config=config)
    assert_honest(found)
    if name.startswith("constant column"):
        assert "column(s) 1" in found.message
        if reg_covar is None and dtype == np.float64:  # in float32 the ridge is below the floor of the condition
            assert found.best.status in (Status.CONVERGED, Status.MAX_ITER)
            np.testing.assert_allclose(found.best.gmm.means[:, 1], data[0, 1], rtol=1e-6)
            np.testing.assert_allclose(sorted(found.best.gmm.means[:, 0]), [0, 4], atol=0.5)
    if name == "constant":
        assert "column(s) 0, 1" in found.message
    if reg_covar == 0.0 and name in ("constant column", "collinear") and covariance_type in ("full", "tied"):
        assert set(found.fits.status.tolist()) == {Status.COLLAPSED}


@pytest.mark.parametrize(
    ("n", "d", "k", "covariance_type"),
    [pytest.param(30, 50, 2, "full", marks=pytest.mark.slow), (2, 2, 2, "full"), (1, 1, 1, "diag")],
)
def test_fewer_rows_than_numbers_is_never_a_false_success(n, d, k, covariance_type):
    found = restarts(np.random.default_rng(0).standard_normal((n, d)), covariance_type, k)
    assert_honest(found)
    if k > 1 and n == k:
        assert found.best.status == Status.COLLAPSED or "spurious" in found.message


@pytest.mark.parametrize("made", ["copy", "sum", "offset"])
@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_features_that_are_linearly_dependent_are_named(blobs, covariance_type, made):
    third = {"copy": 2.0 * blobs[:, 0], "sum": blobs @ [1.0, -3.0], "offset": 1e6 + blobs[:, 0]}[made]
    named = "0, 1, 2" if made == "sum" else "0, 2"
    found = restarts(np.column_stack([blobs, third]), covariance_type)
    assert f"x is linearly dependent in columns {named}: " in found.message
    many = restarts(np.column_stack([blobs, third])[None], covariance_type)
    assert many.reason[0] == found.optima.reason[found.optima.of_fit[0]] == ""
    assert "dependent" not in restarts(np.column_stack([blobs, third]), "diag").message
    assert "dependent" not in restarts(blobs, covariance_type).message


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_constant_feature_makes_no_optimum_spurious(blobs, covariance_type):
    x = np.column_stack([blobs, np.full(len(blobs), 3.0)])
    found, many = restarts(x, covariance_type), restarts(np.stack([x, 2.0 * x]), covariance_type)
    assert found.optima.reason[found.optima.of_fit[0]] == ""
    assert many.reason.tolist() == ["", ""]
    assert "x is constant in column(s) 2," in found.message


def test_columns_of_a_data_frame_are_named(blobs):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(blobs, columns=["height", "weight"]).assign(double=2.0 * blobs[:, 0], fixed=3.0)
    assert "x is constant in column(s) 'fixed'," in restarts(frame).message
    fitted = GaussianMixture(2, random_state=0).fit(frame.drop(columns="fixed"))
    for message in (restarts(frame).message, fitted.message_):
        assert "x is linearly dependent in columns 'height', 'double'" in message


def test_a_component_on_three_close_rows_is_flagged_and_not_best(blobs):
    """Its likelihood is higher, and means nothing."""
    data = blobs.copy()
    data[:3] = [1.0, 3.0] + 1e-6 * blobs[:3]
    tight = GMM(np.array([0.01, 0.99]), np.array([[1.0, 3.0], [1.5, 0.0]]), np.stack([1e-10 * EYES[0], 4 * EYES[1]]))
    split = GMM(np.array([0.5, 0.5]), np.array([[0.0, 0.0], [4.0, 0.0]]), np.stack([np.eye(2)] * 2))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), tight, split, split, split)
    found = restarts(data, init=stacked, config=EMConfig(max_iter=100, reg_covar=0.0))
    assert found.fits.log_likelihood[0] > found.fits.log_likelihood[1]
    assert found.optima.spurious.tolist() == [True, False]
    assert found.optima.count.tolist() == [1, 3]
    assert found.best.log_likelihood == found.fits.log_likelihood[1]


def test_every_fit_may_fail_and_best_says_how(blobs):
    """scikit-learn #18216: UnboundLocalError when every restart diverged."""
    known = Known(weights=np.array([3e-37, 1.0]), covariances=np.stack([np.eye(2)] * 2))
    found = restarts(blobs, known=known)
    assert found.best.status == Status.COLLAPSED
    assert found.optima.fit.size == 0
    assert "collapsed" in found.message


def test_ctrl_c_keeps_the_fits_as_far_as_they_came(blobs, monkeypatch):
    looks = []

    def stop(done, n_fits, best):
        looks.append(done)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(pool, "LOOK", 1)  # one round between two looks
    monkeypatch.setattr(pool, "n_workers", lambda: 1)
    with pytest.raises(Interrupted) as caught:
        restarts(blobs, config=EMConfig(max_iter=100, tol=0.0), progress=stop)
    fits = caught.value.restarts.fits
    assert np.all(fits.status == Status.RUNNING)
    assert fits.n_iter.tolist() == [1, 1, 0, 0]  # four fits take turns in two slots
    assert np.isneginf(fits.log_likelihood[2:]).all()  # they have not begun
    for i in range(2):
        gmm = jax.tree.map(lambda leaf, i=i: leaf[i], fits.gmm)
        np.testing.assert_allclose(fits.log_likelihood[i], oracles.log_likelihood(as_tuple(gmm), blobs), rtol=1e-12)
        assert fits.trace[i, fits.n_iter[i]] == fits.log_likelihood[i]


def test_ctrl_c_before_any_fit_has_begun_gives_the_starts(blobs, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "side_by_side", stop)
    with pytest.raises(Interrupted) as caught:
        restarts(blobs)
    found = caught.value.restarts
    assert np.all(found.fits.status == Status.RUNNING)
    assert np.isneginf(found.fits.log_likelihood).all()
    assert (found.fits.n_iter == 0).all()
    assert found.effort.wasted == 0
    assert_trees_close(found.fits.gmm, found.starts, rtol=1e-12, atol=1e-12)


def test_a_resumed_search_is_the_uninterrupted_one_whatever_the_cores(blobs, tmp_path, monkeypatch):
    calls, config = [], EMConfig(max_iter=100, tol=0.0)

    def stop(done, n_fits, best):
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(pool, "LOOK", 1)
    monkeypatch.setattr(pool, "n_workers", lambda: 1)
    keep = {"checkpoint": tmp_path / "fit.npz", "config": config}
    with pytest.raises(Interrupted):
        restarts(blobs, progress=stop, **keep)
    monkeypatch.setattr(pool, "LOOK", 1 << 29)
    monkeypatch.setattr(pool, "n_workers", lambda: 2)
    whole, resumed = restarts(blobs, config=config), restarts(blobs, resume=True, **keep)
    assert_trees_close(resumed.fits, whole.fits, rtol=1e-12, atol=1e-12)
    assert_trees_close(resumed.effort.spent, whole.effort.spent)
    assert_trees_close(restarts(blobs, resume=True, **keep).fits, resumed.fits, rtol=0.0, atol=0.0)  # at its end
    with pytest.raises(ValueError, match="belongs to another fit, whose data were different"):
        restarts(blobs + 1e-9, resume=True, **keep)
    with pytest.raises(ValueError, match="is there already"):
        restarts(blobs, **keep)


def test_progress_tells_the_likelihood_in_the_units_of_the_data(blobs):
    seen = []
    found = restarts(1e-3 * blobs, progress=lambda *now: seen.append(now))
    assert seen[-1][:2] == (4, 4)
    np.testing.assert_allclose(seen[-1][2], found.fits.log_likelihood.max(), rtol=1e-12)


def test_max_iter_zero_returns_the_start(blobs):
    start = random_gmm(3, 2, 2, "full", spread=1.0)
    found = restarts(blobs, init=start, config=EMConfig(max_iter=0))
    assert (found.best.status, found.best.n_iter) == (Status.MAX_ITER, 0)
    assert_trees_close(found.best.gmm, start)


@pytest.mark.parametrize("prepare", [lambda x: x.tolist(), np.asfortranarray, lambda x: x[::-1][::-1], np.round])
def test_any_container_of_numbers_will_do(prepare, blobs):
    data = prepare(blobs)
    integers = np.asarray(data).astype(int) if prepare is np.round else data
    assert_trees_close(restarts(data).best, restarts(integers).best)


def test_float64_data_while_x64_is_off_come_back_as_float64_numpy():
    """In a process of its own, because x64 is a setting of the whole process."""
    program = """
import warnings; warnings.simplefilter("error")
import jax, numpy as np
from gmm_jax import GMM, Known, MixtureSpec, align, match
from gmm_jax.em import EMConfig, fit_em_restarts, standard_errors
rng = np.random.default_rng(7)
x = np.concatenate([rng.standard_normal((250, 2)), [4.0, 0.0] + rng.standard_normal((150, 2))])
for scale, offset in ((1.0, 0.0), (1.0, 1e8), (1e20, 0.0), (1e-30, 0.0)):
    matrices = scale**2 * np.stack([np.eye(2)] * 2)
    known = Known(covariances=np.where(np.arange(2)[:, None, None] == 1, matrices, np.nan))
    spec = MixtureSpec(2, known=known)
    found = fit_em_restarts(jax.random.key(0), scale * x + offset, spec, n_restarts=4, config=EMConfig(max_iter=200))
    assert found.best.status == 1, found.message
    assert all(type(leaf) is np.ndarray and leaf.dtype == np.float64 for leaf in jax.tree.leaves(found.best.gmm))
    assert np.array_equal(found.best.gmm.covariances[1], matrices[1])
    truth = GMM(np.array([0.375, 0.625]), np.array([[4.0, 0], [0, 0]]) * scale + offset, matrices)
    got = align(found.best.gmm, truth)
    assert np.all(np.abs(got.means - truth.means) < 0.3 * scale), got.means
    errors = standard_errors(scale * x + offset, found.best, spec)
    assert np.all(errors.means / scale < 0.2) and np.all(errors.means > 0) and errors.means.dtype == np.float64
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


GOOD = np.random.default_rng(0).standard_normal((20, 2))
EYES = np.stack([np.eye(2)] * 2)


def with_entry(value, row, column):
    x = GOOD.copy()
    x[row, column] = value
    return x


@pytest.mark.parametrize(
    ("x", "spec", "options", "words"),
    [
        (with_entry(np.nan, 3, 1), {}, {}, ["x must be finite", "nan", "row 3", "column 1", "drop or impute"]),
        (with_entry(-np.inf, 0, 0), {}, {}, ["x must be finite", "-inf", "row 0", "column 0"]),
        (GOOD[:, 0], {}, {}, ["x must be two-dimensional", "(20,)", "reshape(-1, 1)"]),
        (GOOD[None, None], {}, {}, ["x must be two-dimensional", "(1, 1, 20, 2)"]),
        (GOOD[:0], {}, {}, ["not empty", "(0, 2)"]),
        (GOOD.astype(object), {}, {}, ["x must hold real numbers", "object"]),
        (GOOD.astype(str), {}, {}, ["x must hold real numbers", "<U"]),
        (GOOD.astype(complex), {}, {}, ["x must hold real numbers", "complex128"]),
        ([[1.0, 2.0], [3.0]], {}, {}, ["x must be", "different lengths"]),
        (1e200 * GOOD, {}, {}, ["x column 0", "float64 cannot hold", "rescale"]),
        (1.7e308 * np.sign(GOOD), {}, {}, ["x column 0", "float64 cannot hold", "rescale"]),
        ((1e20 * GOOD).astype(np.float32), {}, {}, ["x column 0", "float32 cannot hold", "pass float64"]),
        ((1e-25 * GOOD).astype(np.float32), {}, {}, ["x column 0", "float32 cannot hold", "pass float64"]),
        (GOOD, {"n_components": 21}, {}, ["n_components=21", "20 rows of x", "lower n_components"]),
        (GOOD, {"n_components": 0}, {}, ["n_components must be a positive integer", "0"]),
        (GOOD, {"n_components": "2"}, {}, ["n_components must be a positive integer", "'2'"]),
        (GOOD, {"covariance_type": "round"}, {}, ["covariance_type must be one of full, tied", "'round'"]),
        (GOOD, {"known": Known(weights=[0.5, 0.6])}, {}, ["known.weights must sum to 1", "1.1", "weights.sum()"]),
        (GOOD, {"known": Known(weights=[-0.5, 1.5])}, {}, ["known.weights must not be negative", "component 0"]),
        (GOOD, {"known": Known(weights=[1.0, np.nan])}, {}, ["known.weights sum to 1.0", "lower"]),
        (GOOD, {"known": Known(weights=[1.0])}, {}, ["known.weights must have shape (2,)", "(1,)"]),
        (GOOD, {"known": Known(means=[[0, np.nan], [1, 1]])}, {}, ["known.means of component 0", "partly NaN"]),
        (GOOD, {"known": Known(means=[[0, 0], [1, np.inf]])}, {}, ["known.means must be finite", "(1, 1)"]),
        (GOOD, {"known": Known(means=[["a", "b"], ["c", "d"]])}, {}, ["known.means must hold real numbers"]),
        (GOOD, {"known": Known(means=[[1, 2], [3]])}, {}, ["known.means", "different lengths"]),
        (GOOD, {"known": Known(covariances=EYES[0])}, {}, ["known.covariances must have shape (2, 2, 2)", "(2, 2)"]),
        (GOOD, {"known": Known(covariances=-EYES)}, {}, ["positive definite", "component 0", "-1", "identity"]),
        (GOOD, {"known": Known(covariances=EYES + np.eye(2, k=1))}, {}, ["symmetric", "component 0", "(S + S.T) / 2"]),
        (
            GOOD,
            {"covariance_type": "tied", "known": Known(covariances=[[np.nan, 1], [1, 1]])},
            {},
            ["known.covariances", "whole or not at all"],
        ),
        (
            GOOD,
            {"covariance_type": "diag", "known": Known(covariances=[[1, 1], [0, 1]])},
            {},
            ["known.covariances", "positive", "(1, 0)"],
        ),
        (GOOD, {}, {"init": "best"}, ["init must be one of random", "'best'"]),
        (GOOD, {}, {"init": GMM([0.5, 0.5], GOOD[:2, :1], np.ones((2, 1, 1)))}, ["init.means has 1 features", "2"]),
        (GOOD, {}, {"init": GMM([0.5, 0.6], GOOD[:2], EYES)}, ["init.weights must sum to 1", "1.1"]),
        (GOOD, {}, {"init": GMM([0.5, 0.5], GOOD[:2], -EYES)}, ["init.covariances", "positive definite"]),
        (GOOD, {}, {"init": GMM([0.5, 0.5], GOOD[:2] * np.nan, EYES)}, ["init.means must be finite", "(0, 0)"]),
        (GOOD, {}, {"init": GMM([0.5, 0.5], GOOD[:2], EYES[0], "tied")}, ["init has covariance_type 'tied'", "'full'"]),
        (GOOD, {}, {"init": GMM(np.ones(3) / 3, GOOD[:3], np.stack([np.eye(2)] * 3))}, ["init has 3 components", "2"]),
        (GOOD, {}, {"init": GOOD[:2]}, ["init must be a name, a GMM or a start function; got ndarray of shape (2, 2)"]),
        (GOOD, {}, {"config": {"max_iter": 3}}, ["config must be a EMConfig; got dict", "EMConfig("]),
        (GOOD, {}, {"n_restarts": 0}, ["n_restarts must be a positive integer", "0"]),
        (GOOD, {}, {"n_restarts": 2.5}, ["n_restarts must be a positive integer", "2.5"]),
        (GOOD, {}, {"config": EMConfig(tol=float("nan"))}, ["config.tol", "nan"]),
        (GOOD, {}, {"config": EMConfig(tol=-1e-3)}, ["config.tol", "-0.001"]),
        (GOOD, {}, {"config": EMConfig(reg_covar=-1.0)}, ["reg_covar must be finite and not negative", "-1.0"]),
        (GOOD, {}, {"config": EMConfig(reg_covar=np.ones(3))}, ["reg_covar", "(2,)", "(3,)"]),
        (GOOD, {}, {"sample_weight": np.ones(3)}, ["sample_weight must have shape (20,)", "(3,)"]),
        (GOOD, {}, {"sample_weight": -np.ones(20)}, ["sample_weight must be finite, not negative", "row 0", "-1.0"]),
        (GOOD, {}, {"sample_weight": np.zeros(20)}, ["sample_weight", "not all zero"]),
        (GOOD, {}, {"sample_weight": np.full(20, 0.05)}, ["sample_weight", "sums to 1", "n_components=2", "multiply"]),
        (GOOD, {}, {"sample_weight": 9.0 * (np.arange(20) == 4)}, ["n_components=2", "1 row of x"]),
    ],
)
def test_bad_input_is_one_sentence_that_names_argument_value_place_and_remedy(x, spec, options, words):
    with pytest.raises(ValueError) as caught:
        fit_em_restarts(KEY, x, MixtureSpec(**{"n_components": 2, **spec}), **{"n_restarts": 2, **options})
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence


def test_options_of_em_are_checked_where_they_are_written():
    for options, sentence in (
        ({"acceleration": "bfgs"}, "config.acceleration must be one of auto, none, lbfgs; got 'bfgs'"),
        ({"stop": "never"}, "config.stop must be one of gain, relative, aitken, gradient; got 'never'"),
        ({"max_iter": -1}, "config.max_iter must be an integer of at least 0; got -1"),
        ({"max_iter": 10.0}, "config.max_iter must be an integer"),
    ):
        with pytest.raises(ValueError, match=sentence):
            EMConfig(**options)


@pytest.mark.parametrize("key", [0, None, np.random.default_rng(0), np.zeros(2, np.uint32)])
def test_what_is_no_key_is_refused_with_a_remedy(key, blobs):
    with pytest.raises(ValueError, match=r"key must be a typed JAX key; got .*: pass jax.random.key\(0\)"):
        fit_em_restarts(key, blobs, MixtureSpec(2))


def test_what_is_no_spec_is_refused_with_a_remedy(blobs):
    for spec in (3, None, {"n_components": 3}):
        with pytest.raises(ValueError, match=r"spec must be a MixtureSpec; got .*: pass MixtureSpec\(n_components=3\)"):
            fit_em_restarts(KEY, blobs, spec)


def test_a_start_function_may_be_any_callable(blobs):
    """Also one without a name of its own, such as a partial."""
    named = fit_em_restarts(KEY, blobs, MixtureSpec(3), n_restarts=2, init=kmeans_plusplus)
    partly = fit_em_restarts(KEY, blobs, MixtureSpec(3), n_restarts=2, init=partial(kmeans_plusplus))
    np.testing.assert_array_equal(partly.fits.log_likelihood, named.fits.log_likelihood)
