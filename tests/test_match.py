"""Pairing whole components: against all K! permutations, under ties, far offsets and what the spec allows."""

import itertools
import sys

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, assert_trees_close, random_gmm
from gmm_jax import GMM, Known, MixtureSpec, affine, align, match, match_cost, permute


def test_cost_is_the_formula(mixture):
    other = random_gmm(6, 3, 2, mixture.covariance_type)
    assert_trees_close(match_cost(mixture, other), oracles.match_cost(as_tuple(mixture), as_tuple(other)))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_cost_is_the_formula_with_many_features_too(covariance_type, monkeypatch):
    """Also one by one, and where one of them is no covariance: that one alone costs more than any pairing of others."""
    p, q = random_gmm(3, 3, 6, covariance_type), random_gmm(6, 3, 6, covariance_type)
    expected = oracles.match_cost(as_tuple(p), as_tuple(q))
    many = jax.tree.map(lambda leaf: np.stack([leaf] * 5), p)
    monkeypatch.setattr(sys.modules[match.__module__], "COST_NUMBERS", 2 * 3**2 * 6**2)
    assert_trees_close(match_cost(many, q), np.stack([expected] * 5))
    if covariance_type == "full":
        signs = np.where(np.arange(3) == 1, -1.0, 1.0)[:, None, None]
        broken = GMM(p.weights, p.means, signs * q.covariances[[0, 0, 0]])
        found = match_cost(broken, q)
        assert np.all(found[1] > 3.0 * found[[0, 2]].max())


def test_a_reference_for_each_leading_index_is_the_loop():
    gmms, references = ([random_gmm(seed, 3, 2, "full") for seed in seeds] for seeds in (range(6), range(10, 12)))
    many = jax.tree.map(lambda *leaves: np.stack(leaves).reshape(2, 3, *leaves[0].shape), *gmms)
    each = jax.tree.map(lambda *leaves: np.stack(leaves), *references)
    loop = [match_cost(gmm, references[i // 3]) for i, gmm in enumerate(gmms)]
    assert_trees_close(match_cost(many, each), np.stack(loop).reshape(2, 3, 3, 3))


def test_cost_does_not_change_with_units(mixture):
    other = random_gmm(6, 3, 2, mixture.covariance_type)
    moved = [affine(gmm, 1e-8, 1e-3) for gmm in (mixture, other)]
    assert_trees_close(match_cost(*moved), match_cost(mixture, other), rtol=1e-8)


@pytest.mark.parametrize("n_components", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("seed", range(3))
def test_match_is_the_best_of_all_permutations(n_components, seed):
    p = random_gmm(seed, n_components, 2, "full", spread=1.0)
    q = random_gmm(seed + 100, n_components, 2, "full", spread=1.0)
    cost = oracles.match_cost(as_tuple(p), as_tuple(q))
    np.testing.assert_array_equal(match(p, q), oracles.cheapest_permutation(cost))


@pytest.mark.parametrize("n_components", [2, 4, 100])
def test_a_shuffled_mixture_is_put_back(n_components):
    gmm = random_gmm(3, n_components, 2, "full", spread=10.0)
    order = np.random.default_rng(0).permutation(n_components)
    assert_trees_close(align(permute(gmm, order), gmm), gmm)


def test_ties_end_in_some_permutation():
    one = random_gmm(3, 1, 2, "full")
    same = GMM(np.full(4, 0.25), *(np.repeat(leaf, 4, axis=0) for leaf in as_tuple(one)[1:3]))
    assert sorted(match(same, same)) == [0, 1, 2, 3]


def test_equal_means_are_told_apart_by_covariances_and_equal_gaussians_by_weights():
    centre, eye = np.zeros((2, 2)), np.eye(2)
    by_covariance = GMM(np.array([0.5, 0.5]), centre, np.stack([eye, 9 * eye]))
    by_weight = GMM(np.array([0.2, 0.8]), centre, np.stack([eye, eye]))
    for gmm in (by_covariance, by_weight):
        np.testing.assert_array_equal(match(permute(gmm, np.array([1, 0])), gmm), [1, 0])


def test_leading_axes_are_matched_one_by_one(mixture):
    orders = np.array([list(itertools.permutations(range(3)))[i] for i in range(6)]).reshape(2, 3, 3)
    many = permute(jax.tree.map(lambda leaf: np.broadcast_to(leaf, (2, 3, *leaf.shape)), mixture), orders)
    found = match(many, mixture)
    assert found.shape == (2, 3, 3)
    np.testing.assert_array_equal(found, np.argsort(orders, axis=-1))
    aligned = align(many, mixture)
    for i, j in np.ndindex(2, 3):
        assert_trees_close(jax.tree.map(lambda leaf, at=(i, j): leaf[at], aligned), mixture)


@pytest.mark.parametrize("distance", [1.0, 1e4, 1e9])
def test_with_a_spec_only_identical_known_rows_are_exchanged(distance):
    """However dear the allowed pairing is: costs of far components exceed any fixed number."""
    reference = random_gmm(3, 4, 2, "full")
    far = GMM(reference.weights, reference.means + distance, reference.covariances)
    means = np.array([[0.0, 0], [0, 0], [1, 1], [np.nan] * 2])
    spec = MixtureSpec(4, "full", Known(means=means))
    allowed = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool)
    shuffled = permute(far, np.array([1, 3, 2, 0]))
    cost = oracles.match_cost(as_tuple(shuffled), as_tuple(reference))
    found = match(shuffled, reference, spec)
    assert allowed[found, np.arange(4)].all()
    if distance < 1e4:  # dearer costs are equal to rounding
        np.testing.assert_array_equal(found, oracles.cheapest_permutation(cost, allowed))


def test_known_tied_covariances_forbid_nothing():
    gmm = random_gmm(3, 2, 2, "tied")
    spec = MixtureSpec(2, "tied", Known(covariances=gmm.covariances))
    np.testing.assert_array_equal(match(permute(gmm, np.array([1, 0])), gmm, spec), [1, 0])


def test_a_mixture_that_is_not_finite_gets_some_permutation():
    gmm = random_gmm(3, 3, 2, "full")
    broken = GMM(gmm.weights, gmm.means * np.array([[1.0], [np.nan], [1.0]]), gmm.covariances)
    np.testing.assert_array_equal(match(broken, gmm), [0, 1, 2])


def test_mixtures_of_different_sizes_are_a_sentence():
    with pytest.raises(ValueError, match=r"same size; got \(3, 2\) and \(2, 2\)"):
        match(random_gmm(0, 3, 2, "full"), random_gmm(0, 2, 2, "full"))
