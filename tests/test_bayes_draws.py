"""Draws to keep: ArviZ's groups on demand, and a file that comes back as it was or not at all."""

import jax
import numpy as np
import pytest

import oracles
from conftest import as_tuple, random_gmm
from gmm_jax import GMM, Posterior, Status
from gmm_jax.bench import store
from gmm_jax.bench.draws import read_draws, write_draws

C, S, K = 2, 30, 3
X = np.array([[-1.4, 0.3], [-0.9, -0.5], [0.3, 0.9], [1.1, 0.2], [2.1, 0.8]]) + 1e6  # an offset is nothing special


def posterior(covariance_type="full"):
    """Unlike draws about X, and statistics of every shape."""
    rng = np.random.default_rng(0)
    draws = [random_gmm(seed, K, 2, covariance_type) for seed in range(C * S)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves).reshape(C, S, *np.shape(leaves[0])), *draws)
    stacked = GMM(stacked.weights, stacked.means + 1e6, stacked.covariances, covariance_type)
    stats = {
        "diverging": rng.random((C, S)) < 0.5,
        "n_steps": rng.integers(1, 9, (C, S)),
        "step_size": rng.random(C),
        "of_four": rng.random((C, 4)),
    }
    return Posterior(stacked, rng.standard_normal((C, S)), stats, Status.DIVERGENT)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "spherical"])
def test_a_posterior_comes_back_from_disk_as_it_was(tmp_path, covariance_type):
    kept = posterior(covariance_type)
    path = tmp_path / "draws" / "a.nc"
    found = read_draws(path, write_draws(path, kept.to_datatree(X)))
    assert found.status == Status.DIVERGENT
    assert found.draws.covariance_type == covariance_type
    assert found.stats.keys() == kept.stats.keys()
    for ours, theirs in zip(jax.tree.leaves(kept[:3]), jax.tree.leaves(found[:3]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert [p.name for p in path.parent.iterdir()] == ["a.nc"]


def test_a_changed_bit_or_another_file_is_not_read(tmp_path):
    path = tmp_path / "a.nc"
    checksum = write_draws(path, posterior().to_datatree())
    content = path.read_bytes()
    for place in (10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(store.UnreadableResult, match=r"a\.nc: its content does not agree with its checksum"):
            read_draws(path, checksum)
    path.write_bytes(content[:-7])
    with pytest.raises(store.UnreadableResult, match="checksum"):
        read_draws(path, checksum)
    with pytest.raises(store.UnreadableResult, match="does not exist"):
        read_draws(tmp_path / "b.nc", checksum)


def test_log_likelihood_is_that_of_every_draw_and_sample():
    kept = posterior()
    tree = kept.to_datatree(X, log_likelihood=True)
    found = tree["log_likelihood"]["x"]
    assert found.dims == ("chain", "draw", "observation")
    for c, s in ((0, 0), (1, 7), (1, 29)):
        near = jax.tree.map(lambda leaf, c=c, s=s: leaf[c, s], kept.draws)
        near = GMM(near.weights, near.means - 1e6, near.covariances)
        expected = oracles.log_prob(as_tuple(near), X - 1e6)
        np.testing.assert_allclose(found[c, s], expected, rtol=1e-6)  # the offset costs seven digits of the data


def test_predictions_have_the_moments_of_the_mixtures():
    kept = posterior()
    x = np.concatenate([X] * 200)
    tree = kept.to_datatree(x, predictive_key=jax.random.key(0))
    found = tree["posterior_predictive"]["x"]
    assert found.dims == ("chain", "draw", "observation", "feature")
    weights, means = kept.draws.weights, kept.draws.means
    exact = np.einsum("csk,cskd->csd", weights, means)
    error = found.values.std(axis=2) / np.sqrt(len(x))
    assert np.all(np.abs(found.values.mean(axis=2) - exact) <= 5.0 * error)
    again = kept.to_datatree(x, predictive_key=jax.random.key(0))["posterior_predictive"]["x"]
    np.testing.assert_array_equal(found, again)


def test_groups_of_the_data_need_the_data():
    for options in ({"log_likelihood": True}, {"predictive_key": jax.random.key(0)}):
        with pytest.raises(ValueError, match="to_datatree needs x"):
            posterior().to_datatree(**options)
    assert set(posterior().to_datatree().children) == {"posterior", "sample_stats"}
