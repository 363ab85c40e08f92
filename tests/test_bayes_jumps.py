"""Jumps between modes: the map and its Jacobian, the exact posterior still, and chains that cross."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bayes_evidence import SPECS, X, assert_exact
from test_bayes_references import mcse

from conftest import TYPES, random_gmm
from gmm_jax import GMM, Known, MixtureSpec, NotSupported, bayes, problems
from gmm_jax.bayes.jumps import carried, modes_of
from gmm_jax.bench.runner import derive_key

K, D = 3, 2


def entries(covariance_type):
    """Places of a covariance leaf that say all of it."""
    return {"full": np.tril_indices(D), "tied": np.tril_indices(D)}.get(covariance_type)


def flat(gmm):
    places = entries(gmm.covariance_type)
    leaf = gmm.covariances if places is None else gmm.covariances[(..., *places)]
    return jnp.concatenate([gmm.weights[:-1], gmm.means.ravel(), leaf.ravel()])


def whole(numbers, like):
    places, size = entries(like.covariance_type), K - 1 + K * D
    weights = jnp.concatenate([numbers[: K - 1], 1.0 - jnp.sum(numbers[: K - 1], keepdims=True)])
    leaf = numbers[size:]
    if places is None:
        covariances = leaf.reshape(like.covariances.shape)
    else:
        leaf = leaf.reshape(*like.covariances.shape[:-2], len(places[0]))
        covariances = jnp.zeros(like.covariances.shape).at[(..., *places)].set(leaf)
        covariances = covariances.at[(..., *places[::-1])].set(leaf)
    return GMM(weights, numbers[K - 1 : size].reshape(K, D), covariances, like.covariance_type)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_mixture_is_carried_there_and_back_with_the_jacobian_of_the_map(covariance_type):
    gmm, start, end = (random_gmm(seed, K, D, covariance_type) for seed in (1, 2, 3))
    there, log_jacobian = jax.jit(carried)(gmm, start, end)
    back, log_back = carried(there, end, start)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12), back, gmm)
    np.testing.assert_allclose(log_back, -log_jacobian, rtol=1e-9)
    slopes = jax.jacfwd(lambda numbers: flat(carried(whole(numbers, gmm), start, end)[0]))(flat(gmm))
    np.testing.assert_allclose(np.linalg.slogdet(slopes)[1], log_jacobian, rtol=1e-8)
    reached, _ = carried(start, start, end)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12), reached, end)


def test_gibbs_with_jumps_has_the_exact_posterior():
    """Whatever the mixtures are between which it jumps."""
    two = np.array([[0.5, 0.5], [0.7, 0.3]]), np.array([[[-1.0], [1.5]], [[0.2], [2.5]]])
    modes = GMM(*two, np.array([[0.5, 0.8], [1.0, 1.2]]), "spherical")
    posterior = bayes.gibbs(jax.random.key(5), X, SPECS["free"], n_draws=8000, modes=modes)
    assert np.all(posterior.stats["jumps"] > 50)
    assert_exact(posterior, "free", mcse)


def test_modes_are_distinct_and_only_where_jumps_help():
    x = np.asarray(problems.load("overlapping").sample(derive_key(12, "data", "overlapping"))[0])
    spec = MixtureSpec(3)
    starts, _ = bayes.starts.starts_from_em(jax.random.key(0), x, spec, 4)
    modes = modes_of(starts, x, spec)
    assert 2 <= len(modes.weights) <= 4
    assert modes_of(None, x, spec) is None
    assert modes_of(jax.tree.map(lambda leaf: leaf[:1], starts), x, spec) is None
    assert modes_of(starts, x, MixtureSpec(3, known=Known(weights=np.full(3, 1 / 3)))) is None


def test_modes_of_another_model_are_a_sentence():
    modes = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), random_gmm(0, 2, 1, "full"))
    with pytest.raises(ValueError, match="modes must be spherical mixtures of 2 components in 1 feature"):
        bayes.gibbs(jax.random.key(0), X, SPECS["free"], modes=modes)
    with pytest.raises(ValueError, match="modes must be at least two"):
        bayes.gibbs(jax.random.key(0), X, MixtureSpec(2), modes=random_gmm(0, 2, 1, "full"))
    with pytest.raises(NotSupported, match="nothing is known"):
        bayes.gibbs(jax.random.key(0), X, MixtureSpec(2, known=Known(weights=np.full(2, 0.5))), modes=modes)


@pytest.mark.slow
def test_chains_that_would_stay_in_their_modes_mix():
    """Without jumps R-hat is 1.08 after 1.5 million passes."""
    x = np.asarray(problems.load("overlapping").sample(derive_key(5, "data", "overlapping"))[0])
    posterior = bayes.sample(derive_key(5, "method", "bayes", "Case II"), x, MixtureSpec(3))
    assert posterior.status.ok, posterior.message
    assert posterior.stats["jumps"].min() > 20
