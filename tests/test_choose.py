"""How many components: every criterion has its columns, none is merged, and what cannot be chosen is a sentence."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from gmm_jax import MixtureSpec, Prior, bayes
from gmm_jax.judge import choices, choose_components

KEY = jax.random.key(0)
TWO = np.concatenate([np.random.default_rng(0).normal(c, 1.0, (75, 1)) for c in (-4.0, 4.0)])
FEW = {"n_restarts": 5, "n_bootstrap": 19, "n_draws": 500}


@pytest.fixture(scope="module")
def rows():
    return choose_components(KEY, TWO, (1, 2), criteria=("information",), **FEW)


@pytest.mark.slow
def test_two_groups_far_apart_are_two_components(rows):
    assert [row["n_components"] for row in rows] == [1, 2]
    assert choices(rows) == {"bic": 2, "icl": 2}


@pytest.mark.slow
def test_the_row_of_a_k_does_not_depend_on_the_others(rows):
    for row in rows:
        assert choose_components(KEY, TWO, (row["n_components"],), criteria=("information",), **FEW) == [row]


@pytest.mark.slow
def test_a_p_value_counts_the_data_itself(rows):
    """As one more outcome under the null: no bootstrap statistic is as large as that of 1 against 2."""
    (row,) = choose_components(KEY, TWO, (1,), criteria=("bootstrap",), **FEW)
    assert row["bootstrap_p"] == 1.0 / (20 - row["bootstrap_failed"])
    gain = 2.0 * (rows[1]["log_likelihood"] - rows[0]["log_likelihood"])
    assert row["bootstrap_statistic"] == pytest.approx(gain, abs=1e-3)


def test_progress_counts_the_numbers_of_components():
    calls = []
    options = {"criteria": ("information",), "n_restarts": 2, "progress": lambda *now: calls.append(now)}
    choose_components(KEY, TWO[::5], (1, 3, 2), **options)
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_each_criterion_chooses_for_itself():
    rows = [
        {"n_components": 1, "bic": 5.0, "icl": 3.0, "elpd_loo": -9.0, "bootstrap_p": 0.01, "log_evidence": None},
        {"n_components": 2, "bic": 4.0, "icl": 6.0, "elpd_loo": -7.0, "bootstrap_p": 0.05, "log_evidence": None},
        {"n_components": 3, "bic": None, "icl": 9.0, "elpd_loo": -6.0, "bootstrap_p": 0.30, "log_evidence": None},
    ]
    expected = {"bic": 2, "icl": 1, "elpd_loo": 3, "log_evidence": None, "bootstrap_p": 3}
    assert choices(rows) == expected
    assert choices(rows[:2])["bootstrap_p"] is None
    untested = [rows[0], rows[1] | {"bootstrap_p": None}, rows[2]]
    assert choices(untested)["bootstrap_p"] is None, "2 is neither kept nor rejected, so that 3 is not the smallest"


def test_the_default_prior_of_data_spread_twice_as_far_has_doubled_scales():
    spec = MixtureSpec(2)
    once, twice = (
        bayes.hyperparameters(bayes.default_prior(x, spec), "full") for x in (TWO, TWO + (TWO - TWO.mean(axis=0)))
    )
    np.testing.assert_allclose(twice.loc, once.loc, atol=1e-12)
    np.testing.assert_allclose(twice.precision, once.precision / 4.0)
    np.testing.assert_allclose(twice.size, 4.0 * once.size)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"ks": ()}, "ks must name each number of components once"),
        ({"ks": (2, 2)}, r"ks must name each number of components once, and at least one; got \[2, 2\]"),
        ({"ks": (1, 200)}, "n_components=200 is more than the 150 rows"),
        ({"ks": (1,), "criteria": ("waic",)}, "criteria must be among information, loo, .*; got waic"),
        ({"ks": (2,), "prior": Prior(weights=dist.Dirichlet(np.ones(2)))}, "prior.weights has an event for one K"),
    ],
)
def test_bad_arguments_are_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        choose_components(KEY, TWO, **arguments)


@pytest.mark.slow
def test_every_criterion_finds_two_groups_far_apart_and_the_evidences_agree():
    rows = choose_components(KEY, TWO, (1, 2, 3), refit=True, **FEW)
    assert set(choices(rows).values()) == {2}
    for row in rows:
        gap = row["log_evidence"] - row["log_evidence_bridge"]
        assert abs(gap) < 4.0 * np.hypot(row["log_evidence_se"], row["log_evidence_bridge_se"])
        assert row["evidence_prior"] == "from the data"
        assert np.isfinite(row["log_evidence_doubled"])
        assert row["loo_unreliable"] == 0
    assert sum(row["occupied_probability"] for row in rows) == pytest.approx(1.0)


@pytest.mark.slow
def test_the_probability_of_each_k_does_not_depend_on_which_are_asked_for():
    """But for the prior over Σ, which is that for the largest K asked for."""
    columns = ("telescoping_probability", "telescoping_occupied")
    some, more = (choose_components(KEY, TWO, ks, criteria=("telescoping",), **FEW) for ks in ((1, 3), (1, 2, 3)))
    assert [[row[c] for c in columns] for row in some] == [[row[c] for c in columns] for row in more[::2]]
    assert choices(more) == {"telescoping_probability": 2, "telescoping_occupied": 2}
    assert 0.8 < sum(row["telescoping_probability"] for row in more) < 1.0


@pytest.mark.slow
def test_occupied_components_of_one_normal_are_one():
    rows = choose_components(KEY, TWO[:75], range(5)[1:], criteria=("occupied",), n_draws=1000)
    probabilities = [row["occupied_probability"] for row in rows]
    assert sum(probabilities) == pytest.approx(1.0)
    assert np.argmax(probabilities) == 0
