"""Labels partly known: a labelled row belongs to its component alone, and component k is class k."""

import re

import jax
import numpy as np
import pytest

import oracles
from conftest import as_tuple, assert_trees_close, random_gmm
from gmm_jax import MixtureSpec, NotSupported, permute
from gmm_jax.em import (
    EMConfig,
    fit_em,
    fit_em_restarts,
    fit_labelled,
    spurious,
    standard_errors,
)
from gmm_jax.mixture import Annotations, Known, e_step, missing_groups
from gmm_jax.mixture.gmm import log_prob_of_rows

N, K, D = 60, 3, 2
KEY = jax.random.key(0)
CONFIG = EMConfig(max_iter=30, tol=0.0)


def some_labels(x, n_known=20, seed=0):
    """(N,): the nearest of three centres for some rows, -1 for the others."""
    centres = random_gmm(0, K, D, "full").means
    labels = np.argmin(((x[:, None] - centres) ** 2).sum(-1), axis=1)
    known = np.random.default_rng(seed).permutation(N)[:n_known]
    return np.where(np.isin(np.arange(N), known), labels, -1)


@pytest.mark.parametrize("sums", ["fast", "exact"])
def test_a_labelled_row_counts_for_its_component_alone(x, sums):
    gmm, labels = random_gmm(5, K, D, "full"), some_labels(x)
    joint = oracles.log_joint(as_tuple(gmm), x)
    joint[(labels[:, None] >= 0) & (labels[:, None] != np.arange(K))] = -np.inf
    log_p = np.logaddexp.reduce(joint, axis=1)
    found = jax.jit(e_step, static_argnames="sums")(gmm, x, labels=labels, sums=sums)
    np.testing.assert_allclose(found.log_likelihood, log_p.sum(), rtol=1e-12)
    np.testing.assert_allclose(found.mass, np.exp(joint - log_p[:, None]).sum(axis=0), rtol=1e-10)
    np.testing.assert_allclose(log_prob_of_rows(gmm, x, Annotations(labels=labels)), log_p, rtol=1e-10)


@pytest.mark.parametrize("covariance_type", ["full", "spherical"])
def test_with_all_labels_known_one_step_is_the_labelled_fit(x, covariance_type):
    start, labels = random_gmm(5, K, D, covariance_type), some_labels(x, N)
    step = fit_em(x, start, labels=labels, config=EMConfig(max_iter=1, tol=0.0))
    assert_trees_close(step.gmm, fit_labelled(x, labels, start))


def test_no_label_known_is_bit_for_bit_the_path_without(x):
    spec, nothing = MixtureSpec(K), np.full(N, -1)
    with_labels, without = (fit_em_restarts(KEY, x, spec, n_restarts=2, **o) for o in ({"labels": nothing}, {}))
    assert_trees_close(with_labels.fits, without.fits, rtol=0.0, atol=0.0)


def test_other_names_for_the_classes_are_the_same_components_in_another_order(x):
    labels, order = some_labels(x), np.array([2, 0, 1])
    start = random_gmm(0, K, D, "full")
    renamed = np.where(labels >= 0, np.argsort(order)[labels], -1)
    found = fit_em(x, permute(start, order), labels=renamed, config=CONFIG)
    plain = fit_em(x, start, labels=labels, config=CONFIG)
    assert_trees_close(found.gmm, permute(jax.tree.map(np.asarray, plain.gmm), order), rtol=1e-8)


def test_labels_raise_the_likelihood_monotonically_also_with_gaps_and_weights(x):
    labels, weight = some_labels(x), np.random.default_rng(1).uniform(0.5, 2.0, N)
    gaps = np.where(np.random.default_rng(2).random(x.shape) < 0.2, np.nan, x)
    start = random_gmm(0, K, D, "full")
    found = fit_em(gaps, start, labels=labels, sample_weight=weight, missing="marginalise", config=CONFIG)
    trace = np.asarray(found.trace)[: int(found.n_iter) + 1]
    assert np.all(np.diff(trace) > -1e-10 * np.abs(trace[1:]))
    filled, groups = missing_groups(gaps, "marginalise")
    density = log_prob_of_rows(found.gmm, filled, Annotations(None, labels, groups))
    np.testing.assert_allclose(weight @ density, found.log_likelihood, rtol=1e-10)


def test_a_few_labels_say_which_component_is_which(x):
    """Whatever the names: the best restart has class k in place k."""
    labels = some_labels(x, 15)
    for order in (np.arange(K), np.array([1, 2, 0])):
        renamed = np.where(labels >= 0, order[labels], -1)
        found = fit_em_restarts(KEY, x, MixtureSpec(K), n_restarts=2, labels=renamed)
        own = np.array([x[renamed == k].mean(axis=0) for k in range(K)])
        distance = ((np.asarray(found.best.gmm.means)[:, None] - own[None]) ** 2).sum(-1)
        np.testing.assert_array_equal(np.argmin(distance, axis=1), np.arange(K))


def test_many_data_sets_at_once_are_each_as_alone(x):
    """One with labels, one with gaps, one with neither: all are given the same shape."""
    gaps = np.where(np.random.default_rng(2).random(x.shape) < 0.2, np.nan, x)
    many, labels = np.stack([x, gaps, x[::-1]]), np.full((3, N), -1)
    labels[0] = some_labels(x)
    keys, options = jax.random.split(KEY, 3), {"n_restarts": 2, "config": CONFIG, "missing": "marginalise"}
    found = fit_em_restarts(keys, many, MixtureSpec(K), labels=labels, traces=True, **options)
    best = fit_em_restarts(KEY, many, MixtureSpec(K), labels=labels, traces=True, **options)
    for p, here in enumerate(found):
        alone = fit_em_restarts(keys[p], many[p], MixtureSpec(K), labels=labels[p], **options)
        assert_trees_close(here.fits, alone.fits, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(best.log_likelihood[p], alone.fits.log_likelihood, rtol=1e-10)
    with pytest.raises(ValueError, match=r"data set 1: x must be finite"):
        fit_em_restarts(KEY, many, MixtureSpec(K))
    with pytest.raises(ValueError, match=r"labels must have shape \(3, 60\)"):
        fit_em_restarts(KEY, many, MixtureSpec(K), labels=labels[0], missing="marginalise")


def test_a_labelled_optimum_is_stationary_for_who_knows_the_labels(x):
    """Labels against the data, of a third of the rows: without them another mixture is most likely."""
    labels, spec = some_labels(x, 20), MixtureSpec(K)
    labels = np.where(labels >= 0, (labels + np.arange(N) % 2) % K, -1)
    best = fit_em_restarts(KEY, x, spec, n_restarts=2, labels=labels, config=EMConfig(tol=1e-10)).best.gmm
    assert spurious(x, best, spec, labels=labels) == ""
    assert spurious(x, best, spec) == "not stationary"


def test_bad_labels_are_named_by_their_row(x):
    labels = some_labels(x)
    cases = [
        ("row 4 has 3", np.where(np.arange(N) == 4, K, labels)),
        ("row 7 has 0.5", np.where(np.arange(N) == 7, 0.5, labels)),
        ("row 2 has -2", np.where(np.arange(N) == 2, -2, labels)),
        ("row 9 has nan", np.where(np.arange(N) == 9, np.nan, labels)),
        (f"labels must have shape ({N},)", labels[:-1]),
        ("labels must hold real numbers", np.array(["a"] * N)),
    ]
    for sentence, wrong in cases:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            fit_em_restarts(KEY, x, MixtureSpec(K), n_restarts=2, labels=wrong)


def test_starts_lie_in_the_order_of_what_is_known():
    """Three groups of 36, 15 and 9 rows far apart, told apart by φ, or φ and Σ: most starts find them."""
    rng = np.random.default_rng(0)
    centres, sds = np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 12.0]]), np.array([1.0, 2.0, 0.7])
    which = np.repeat(np.arange(K), [36, 15, 9])
    x = centres[which] + sds[which, None] * rng.standard_normal((N, D))
    weights, variances = np.array([36, 15, 9]) / N, sds**2
    for order in (np.array([1, 2, 0]), np.array([2, 1, 0])):
        for parts_known in ({"weights"}, {"weights", "covariances"}):
            parts = {"weights": weights[order], "covariances": variances[order]}
            known = Known(**{name: parts[name] for name in parts_known})
            found = fit_em_restarts(KEY, x, MixtureSpec(K, "spherical", known), n_restarts=8)
            np.testing.assert_allclose(found.best.gmm.means, [x[which == k].mean(axis=0) for k in order], atol=0.2)
            assert found.optima.count[0] >= 6


def test_standard_errors_know_of_labels_and_gaps(x):
    """Where every label is known they have a closed form: √(Σ_jj / n_kj) of a mean, with n_kj the entries seen."""
    labels = some_labels(x, N)
    gaps = np.where(np.random.default_rng(2).random(x.shape) < 0.2, np.nan, x)
    options = {"labels": labels, "missing": "marginalise"}
    best = fit_em(gaps, random_gmm(0, K, D, "diag"), config=EMConfig(max_iter=200, tol=1e-13), **options)
    errors = standard_errors(gaps, best, MixtureSpec(K, "diag"), **options)
    count = np.array([np.sum(~np.isnan(gaps[labels == k]), axis=0) for k in range(K)])
    weights, variances = np.asarray(best.gmm.weights), np.asarray(best.gmm.covariances)
    np.testing.assert_allclose(errors.means, np.sqrt(variances / count), rtol=1e-4)
    np.testing.assert_allclose(errors.covariances, np.sqrt(2.0 / count) * variances, rtol=1e-4)
    np.testing.assert_allclose(errors.weights, np.sqrt(weights * (1.0 - weights) / N), rtol=1e-6)
    with pytest.raises(NotSupported, match="samples complete rows, each counted once, without labels"):
        standard_errors(gaps, best, MixtureSpec(K, "diag"), method="parametric_bootstrap", key=KEY, **options)
