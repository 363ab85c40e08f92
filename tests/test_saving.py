"""What is saved comes back: the same record to the last bit, or one sentence on what is wrong with the file."""

import json

import jax
import numpy as np
import pytest

import gmm_jax
from gmm_jax import (
    GMM,
    BayesianGaussianMixture,
    Fit,
    GaussianMixture,
    Known,
    MixtureSpec,
    Posterior,
    Status,
    em,
    problems,
)


@pytest.fixture(scope="module")
def x():
    return problems.load("course_2d").sample(jax.random.key(0), n=100)[0]


@pytest.fixture(scope="module")
def found(x):
    return em.fit_em_restarts(jax.random.key(1), x, MixtureSpec(2), n_restarts=3)


def same(a, b):
    """Equal in type and in every leaf, also where there are NaN and texts."""
    assert type(a) is type(b) or (np.isscalar(a) and np.isscalar(b)) or hasattr(b, "dtype")
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            same(left, right)
    elif hasattr(a, "__dict__") and not hasattr(a, "dtype"):
        same(vars(a), vars(b))
    else:
        left, right = np.asarray(a), np.asarray(b)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_a_result_comes_back_to_the_last_bit(found, x, tmp_path):
    known = Known(weights=np.array([0.3, np.nan]))
    fit = Fit(found.best.gmm, None, found.best.gmm, Status.UNMIXED, {"r_hat": np.inf, "rows": [{"a": 1, "b": None}]})
    for value in (found.best.gmm, found.best, found, fit, MixtureSpec(2, known=known), np.arange(3), "text", None):
        path = gmm_jax.save(tmp_path / "x.npz", value)
        same(gmm_jax.load(path), value)


def test_draws_come_back(x, found, tmp_path):
    many = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (2, 10, *np.shape(leaf))), found.best.gmm)
    density = np.random.default_rng(0).standard_normal((2, 10))
    drawn = Posterior(many, density, {"n_steps": np.arange(20).reshape(2, 10)}, Status.SAMPLED)
    back = gmm_jax.load(gmm_jax.save(tmp_path / "x.npz", drawn))
    same(back, drawn)
    np.testing.assert_array_equal(back.log_predictive(x), drawn.log_predictive(x))


def test_estimators_come_back_fitted(x, tmp_path):
    model = GaussianMixture(2, random_state=0).fit(x)
    back = gmm_jax.load(gmm_jax.save(tmp_path / "x.npz", model))
    np.testing.assert_array_equal(back.predict_proba(x), model.predict_proba(x))
    assert back.get_params() == model.get_params()
    assert gmm_jax.load(gmm_jax.save(tmp_path / "x.npz", BayesianGaussianMixture(3))).n_components == 3


def test_json_is_a_mixture_for_people_and_other_programs(found, tmp_path):
    gmm = found.best.gmm
    path = gmm_jax.save(tmp_path / "m.json", gmm)
    same(GMM(**json.loads(path.read_text())["gmm"]), gmm)
    same(gmm_jax.load(path), gmm)
    fit = Fit(gmm, None, gmm, Status.CONVERGED, {"log_likelihood": -1.5})
    same(gmm_jax.load(gmm_jax.save(path, fit)), fit)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_damaged_file_is_one_sentence(suffix, found, tmp_path):
    path = gmm_jax.save(tmp_path / f"m{suffix}", found.best.gmm)
    content = path.read_bytes()
    for damaged in (content[:100], content[:-30], b"", b"[1]", b"PK", b'{"schema": 1, "gmm": {"weights": 3}}', b"\xff"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"m{suffix} is no whole result of gmm_jax"):
            gmm_jax.load(path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SCHEMA", 2, "written by version 0.1.0 in schema 2, this reads 1"),
        ("__version__", "0.10.0", "written by version 0.10.0, which is newer"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_another_schema_and_a_newer_version_are_refused(name, value, said, suffix, found, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(f"gmm_jax.saving.{name}", value)
        path = gmm_jax.save(tmp_path / f"m{suffix}", found.best.gmm)
    with pytest.raises(ValueError, match=said):
        gmm_jax.load(path)


def test_a_file_cannot_name_what_is_no_record(found, tmp_path):
    for tag in ("bench.store.json", "os.system", "mixture.predict", "..mixture.GMM"):
        about = json.dumps({"schema": 1, "version": "0", "result": {"type": tag, "fields": {}}})
        np.savez(tmp_path / "m.npz", about=about)
        with pytest.raises(ValueError, match="no whole result"):
            gmm_jax.load(tmp_path / "m.npz")


def test_what_cannot_be_saved_is_named(found, tmp_path):
    fit = Fit(found.best.gmm, None, None, Status.CONVERGED, {"f": [len]})
    with pytest.raises(ValueError, match=r"Fit.info\['f'\]\[0\] is a builtin_function_or_method"):
        gmm_jax.save(tmp_path / "x.npz", fit)
    with pytest.raises(ValueError, match=r"\.npz or \.json; got 'x.pkl'"):
        gmm_jax.save(tmp_path / "x.pkl", fit)
    with pytest.raises(ValueError, match=r"use \.npz"):
        gmm_jax.save(tmp_path / "x.json", found)
    assert list(tmp_path.iterdir()) == []
