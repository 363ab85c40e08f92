"""Relabelling by every method against brute force over all K! orders."""

import itertools

import jax
import numpy as np
import pytest

import oracles
from conftest import TYPES, as_tuple, near, posterior_of, random_gmm, scrambled
from gmm_jax import GMM, Known, MixtureSpec, em, judge, permute
from gmm_jax.judge import allocations
from gmm_jax.judge.allocations import ECR, ITERATIVE, STEPHENS, Allocations, settle
from gmm_jax.judge.relabel import AMBIGUOUS, RELABELLINGS
from gmm_jax.mixture import e_step, match_cost

K, D = 3, 2
BY_METHOD = pytest.mark.parametrize("method", RELABELLINGS)


def to_nearest(*modes):
    """A climb that needs no data: each mixture goes to the mode whose matched cost is least, in its own labelling."""

    def climb(gmms):
        costs = np.stack([match_cost(gmms, mode) for mode in modes])  # (modes, M, K, K)
        reached = []
        for m in range(costs.shape[1]):
            orders = [oracles.cheapest_permutation(cost[m].T) for cost in costs]  # component of the mode, for each own
            totals = [cost[m, range(len(order)), order].sum() for cost, order in zip(costs, orders, strict=True)]
            best = int(np.argmin(totals))
            reached.append(permute(modes[best], orders[best]))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *reached)

    return climb


def relabelled(method, posterior, x, reference, **options):
    return judge.relabel(posterior, method=method, x=x, reference=reference, climb=to_nearest(reference), **options)


def each(draws):
    """The draws one by one, as the oracles take them."""
    return [as_tuple(jax.tree.map(lambda leaf, at=at: leaf[at], draws)) for at in np.ndindex(draws.weights.shape[:2])]


def shares(draws, x):
    """(M, N, K) responsibilities by the oracle."""
    return np.array([oracles.responsibilities(gmm, x) for gmm in each(draws)])


def costs_when_labelled(method, draws, x, permutations):
    """(M, K, K) under the reference that belongs to these permutations, by the oracle."""
    p = shares(draws, x)
    permuted = np.take_along_axis(p, permutations.reshape(len(p), 1, -1), axis=2)
    if method == "stephens":
        return np.array([oracles.stephens_cost(one, permuted.mean(axis=0)) for one in p])
    return np.array([oracles.ecr_cost(one, oracles.ecr_representative(permuted)) for one in p])


def totals(costs, permutations):
    orders = permutations.reshape(len(costs), -1)
    return np.array([cost[order, range(len(order))].sum() for cost, order in zip(costs, orders, strict=True)])


def overlapping(n_components):
    """Draws in scrambled labellings that scatter so much that it is often close."""
    gmm = random_gmm(0, n_components, D, "full")
    return gmm, scrambled(near(gmm, 1, n_draws=20, noise=0.8), 2)[0]


@pytest.mark.parametrize("covariance_type", TYPES)
def test_pivot_undoes_any_scrambling_of_every_structure(covariance_type):
    gmm = random_gmm(0, K, D, covariance_type)
    draws = near(gmm, 1)
    mixed, _ = scrambled(draws, 2)
    found = judge.relabel(posterior_of(mixed), reference=gmm)
    for leaf in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(getattr(found.posterior.draws, leaf), getattr(draws, leaf))


@BY_METHOD
def test_every_method_undoes_any_scrambling(method, x):
    gmm = random_gmm(0, K, D, "full")
    draws = near(gmm, 1, n_draws=20)
    mixed, orders = scrambled(draws, 2)
    found = relabelled(method, posterior_of(mixed), x, gmm)
    np.testing.assert_array_equal(found.posterior.draws.means, draws.means)
    back = np.take_along_axis(orders, found.permutations, -1)
    np.testing.assert_array_equal(back, np.broadcast_to(range(K), back.shape))
    assert found.method == method
    assert found.note == ""


def test_without_a_reference_all_draws_follow_the_densest():
    draws = near(random_gmm(0, K, D, "full"), 1)
    mixed, _ = scrambled(draws, 2)
    log_density = np.random.default_rng(3).standard_normal((2, 50))
    log_density[0, 0] = np.nan  # never the pivot
    pivot = np.unravel_index(np.nanargmax(log_density), log_density.shape)
    found = judge.relabel(posterior_of(mixed, log_density))
    np.testing.assert_array_equal(found.permutations[pivot], np.arange(K))
    order = np.array([np.argmin(np.abs(draws.means[pivot] - mean).sum(-1)) for mean in mixed.means[pivot]])
    np.testing.assert_array_equal(found.posterior.draws.means, permute(draws, np.broadcast_to(order, (2, 50, K))).means)


@pytest.mark.parametrize("n_components", [2, K, 6])
@BY_METHOD
def test_every_labelling_is_the_cheapest_of_all(method, n_components, x):
    """With the reference held fixed: brute force over K!, with the oracle's costs."""
    gmm, draws = overlapping(n_components)
    found = relabelled(method, posterior_of(draws), x, gmm)
    if method == "pivot":
        costs = np.array([oracles.match_cost(one, as_tuple(gmm)) for one in each(draws)])
    elif method == "modes":
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)
        modes = jax.tree.map(lambda leaf: leaf[None], to_nearest(gmm)(flat))
        costs = np.array([oracles.match_cost(one, as_tuple(gmm)) for one in each(modes)])
    elif method == "ecr":
        reference = oracles.responsibilities(as_tuple(gmm), x).argmax(axis=1)
        costs = np.array([oracles.ecr_cost(one, reference) for one in shares(draws, x)])
    else:
        costs = costs_when_labelled(method, draws, x, found.permutations)
    orders = itertools.permutations(range(n_components))
    least = np.min([costs[:, list(order), range(n_components)].sum(axis=1) for order in orders], axis=0)
    paid = totals(costs, found.permutations)
    np.testing.assert_allclose(paid, least, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.objective, paid.mean(), rtol=1e-9, atol=1e-12)


def settled_with_a_record(criterion, found, start):
    """A fixed point, and the objective at each step on the way."""
    record = []

    def cost_of(permutations):
        cost = found.cost_of(criterion, permutations)
        record.append(np.mean(allocations.chosen(cost, permutations)))
        return cost

    return settle(cost_of, start), record


@pytest.mark.parametrize("criterion", [ECR, STEPHENS], ids=["ecr", "stephens"])
def test_no_step_raises_the_objective_and_the_last_changes_nothing(criterion, x):
    steps = 0
    for seed in range(5):
        draws, orders = scrambled(near(random_gmm(0, 6, D, "full"), seed, n_chains=1, n_draws=40, noise=0.8), seed)
        found = Allocations(jax.tree.map(lambda leaf: leaf[0], draws), x, MixtureSpec(6))
        end, record = settled_with_a_record(criterion, found, orders[0])
        assert np.all(np.diff(record) <= 0.0)
        again, _ = settled_with_a_record(criterion, found, end.permutations)
        np.testing.assert_array_equal(again.permutations, end.permutations)
        steps = max(steps, len(record))
    assert steps >= 4  # the law was tried


@pytest.mark.parametrize("n_components", [2, K])
@pytest.mark.parametrize("method", ITERATIVE)
def test_no_other_labelling_has_a_lower_objective(method, n_components, x):
    gmm, draws = overlapping(n_components)
    posterior = posterior_of(draws)
    own = relabelled(method, posterior, x, gmm)
    others = {other: relabelled(other, posterior, x, gmm).permutations for other in RELABELLINGS}
    others["identity"] = np.broadcast_to(range(n_components), own.permutations.shape)
    for other, permutations in others.items():
        value = totals(costs_when_labelled(method, draws, x, permutations), permutations).mean()
        assert own.objective <= value * (1.0 + 1e-12), other
    assert any(not np.array_equal(own.permutations, permutations) for permutations in others.values())


def test_probabilities_computed_anew_in_every_pass_give_the_same(x, monkeypatch):
    gmm, draws = overlapping(K)
    held = {method: relabelled(method, posterior_of(draws), x, gmm) for method in ITERATIVE}
    monkeypatch.setattr(allocations, "HELD_NUMBERS", 0)
    for method, expected in held.items():
        found = relabelled(method, posterior_of(draws), x, gmm)
        np.testing.assert_array_equal(found.permutations, expected.permutations)
        np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-12)


@pytest.mark.parametrize("method", ITERATIVE)
def test_location_and_scale_of_the_data_do_not_matter(method, x):
    gmm, draws = overlapping(K)
    scale, shift = 1e-6, 1e3
    expected = relabelled(method, posterior_of(draws), x, gmm)
    moved, reference = (GMM(m.weights, scale * m.means + shift, scale**2 * m.covariances) for m in (draws, gmm))
    found = relabelled(method, posterior_of(moved), scale * x + shift, reference)
    np.testing.assert_array_equal(found.permutations, expected.permutations)


@BY_METHOD
def test_components_so_far_apart_that_probabilities_are_zero_are_no_trouble(method):
    far = GMM(np.full(K, 1 / K), 1e4 * np.arange(K)[:, None] * np.ones(D), np.stack([np.eye(D)] * K))
    x = np.repeat(far.means, 20, axis=0)
    mixed, orders = scrambled(near(far, 1, n_draws=20), 2)
    found = relabelled(method, posterior_of(mixed), x, far)
    back = np.take_along_axis(orders, found.permutations, -1)
    np.testing.assert_array_equal(back, np.broadcast_to(range(K), back.shape))
    assert np.isfinite(found.objective)
    assert found.decided == 1.0


@BY_METHOD
def test_equal_components_are_called_ambiguous(method, x):
    equal = GMM(np.full(K, 1 / K), np.zeros((K, D)), np.stack([np.eye(D)] * K))
    found = relabelled(method, posterior_of(near(equal, 1, n_draws=20)), x, equal)
    assert found.decided < AMBIGUOUS
    assert "labels are ambiguous" in found.note


@BY_METHOD
def test_only_components_with_the_same_known_rows_are_exchanged(method, x):
    gmm = random_gmm(0, K, D, "full")
    mixed, _ = scrambled(near(gmm, 1, n_draws=20), 2)
    covariances = np.array(gmm.covariances)
    covariances[1:] = covariances[1]
    first_differs = MixtureSpec(K, known=Known(covariances=covariances))
    permutations = relabelled(method, posterior_of(mixed), x, gmm, spec=first_differs).permutations
    assert np.all(permutations[..., 0] == 0)
    assert np.any(permutations[..., 1] == 2)
    all_differ = MixtureSpec(K, known=Known(covariances=np.array(gmm.covariances)))
    permutations = relabelled(method, posterior_of(mixed), x, gmm, spec=all_differ).permutations
    np.testing.assert_array_equal(permutations, np.broadcast_to(range(K), permutations.shape))


@BY_METHOD
def test_one_component_has_one_labelling(method, x):
    gmm = random_gmm(0, 1, D, "full")
    found = relabelled(method, posterior_of(near(gmm, 1, n_draws=20)), x, gmm)
    assert not found.permutations.any()
    assert found.decided == 1.0


def test_draws_of_another_mode_get_the_labels_of_the_nearest_pairing():
    """Two modes that are no permutations of each other: in the second, one component has moved."""
    one = random_gmm(0, K, D, "full")
    means = np.array(one.means)
    means[2] += 1.0
    two = GMM(one.weights, means, one.covariances)
    mixed, orders = scrambled(near(two, 1, n_draws=20), 2)
    found = judge.relabel(posterior_of(mixed), method="modes", reference=one, climb=to_nearest(one, two))
    back = np.take_along_axis(orders, found.permutations, -1)
    np.testing.assert_array_equal(back, np.broadcast_to(range(K), back.shape))
    assert found.objective > 0.01  # the distance of the modes
    assert (
        judge.relabel(posterior_of(mixed), method="modes", reference=two, climb=to_nearest(one, two)).objective < 1e-9
    )


def test_em_is_a_climb(x):
    """All draws and the reference climb in one vmap; each draw gets the labels of the optimum that it reaches."""

    @jax.jit
    @jax.vmap
    def climb(gmm):
        return jax.lax.fori_loop(0, 300, lambda _, g: em.m_step(e_step(g, x, sums="exact"), g), gmm)

    start = random_gmm(0, K, D, "full")
    mixed, orders = scrambled(near(start, 1, n_draws=5), 2)
    found = judge.relabel(posterior_of(mixed), method="modes", reference=start, climb=climb)
    back = np.take_along_axis(orders, found.permutations, -1)
    np.testing.assert_array_equal(back, np.broadcast_to(range(K), back.shape))
    assert found.objective < 1e-6 < judge.relabel(posterior_of(mixed), reference=start).objective


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "sort"}, "method must be one of pivot, ecr, ecr-iterative, stephens, modes; got 'sort'"),
        ({"method": "ecr"}, "method 'ecr' compares allocations of samples: pass x"),
        ({"method": "stephens"}, "method 'stephens' compares allocations of samples: pass x"),
        ({"method": "modes"}, "method 'modes' climbs to the modes .*: pass x"),
        ({"method": "ecr", "x": np.zeros((5, 3))}, "x has 3 columns, but the draws have 2 features"),
        ({"method": "modes", "climb": lambda gmms: jax.tree.map(lambda leaf: leaf[0], gmms)}, "climb must return"),
    ],
)
def test_bad_arguments_are_sentences(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        judge.relabel(posterior_of(near(random_gmm(0, K, D, "full"), 1)), **options)


@pytest.mark.parametrize("method", ["ecr", "stephens"])
def test_a_broken_draw_is_named(method, x):
    draws = near(random_gmm(0, K, D, "full"), 1, n_draws=20)
    means = np.array(draws.means)
    means[1, 7, 0] = np.nan
    with pytest.raises(ValueError, match="no probabilities in chain 1, draw 7"):
        judge.relabel(posterior_of(GMM(draws.weights, means, draws.covariances)), method=method, x=x)
