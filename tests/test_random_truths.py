"""Random truths: the data's law, which trials there are, what a trial says, and what the answers conclude of rows."""

import jax
import numpy as np
import pytest

import readme
from gmm_jax import GMM, BayesianGaussianMixture, Posterior, Status, problems
from gmm_jax.mixture import permute
from shared import trials
from shared.paired import paired_ratio
from shared.truths import draw, random_truths

EXPERIMENTS = readme.experiments()
SIX, WHERE = EXPERIMENTS["random_truths"], EXPERIMENTS["where_bayes_pays"]
KEY = jax.random.key(5)


def test_samples_have_the_mean_and_covariance_of_their_truth():
    rng = np.random.default_rng(2)
    truths, n = random_truths(rng, 3, 4, 2), 20_000
    xs = draw(rng, truths, n)
    for weights, means, covariances, x in zip(truths.weights, truths.means, truths.covariances, xs, strict=True):
        mean = weights @ means
        within, between = np.einsum("k,kij->ij", weights, covariances), (means - mean).T @ np.diag(weights)
        covariance = within + between @ (means - mean)
        assert np.all(np.abs(x.mean(axis=0) - mean) < 5.0 * np.sqrt(np.diag(covariance) / n))
        squares = np.einsum("ni,nj->nij", x - mean, x - mean)
        assert np.all(np.abs(squares.mean(axis=0) - covariance) < 5.0 * squares.std(axis=0) / np.sqrt(n))


def fitted(truth, order, sd):
    """A posterior of 2,000 draws, normal about the truth's numbers with these sds, its components in another order."""
    rng = np.random.default_rng(0)
    point, spread = permute(truth, order), permute(sd, order)
    about = jax.tree.map(lambda m, s: m + s * rng.standard_normal((2, 1000, *m.shape)), point, spread)
    model = BayesianGaussianMixture(truth.n_components)
    model.posterior_ = Posterior(about, np.zeros((2, 1000)), {}, Status.SAMPLED)
    for name in ("weights", "means", "covariances"):
        vars(model).update({f"{name}_": getattr(point, name), f"{name}_sd_": getattr(spread, name)})
    return model


def test_intervals_are_judged_in_the_order_of_the_truth():
    truth = jax.tree.map(lambda leaf: leaf[0], random_truths(np.random.default_rng(1), 1, 3, 2))
    sd = GMM(*(np.full(np.shape(leaf), 1e-3) for leaf in (truth.weights, truth.means, truth.covariances)))
    model = fitted(truth, np.array([2, 0, 1]), sd)
    found = trials.intervals_of(model, np.zeros((1, 2)), truth)
    assert (found["coverage"], found["z_square"], found["ambiguous"]) == (1.0, 0.0, False)
    assert found["length"] == pytest.approx(2.0 * 1.96e-3, rel=0.1)  # 2,000 draws leave an error of 2 % to each length
    model.posterior_.draws.means[...] += 0.1  # 6 of 18 free numbers are 100 sds off
    model.means_ = model.means_ + 0.1
    found = trials.intervals_of(model, np.zeros((1, 2)), truth)
    assert found["coverage"] == pytest.approx(12 / 18)
    assert found["z_square"] == pytest.approx(100.0**2 * 6 / 18)


def test_a_method_that_raises_is_a_row_with_the_reason():
    truth = jax.tree.map(lambda leaf: leaf[0], random_truths(np.random.default_rng(1), 1, 2, 1))
    rows = trials.trials(trials.METHODS, KEY, np.array([[0.0], [np.nan], [1.0]]), truth, seed=0)
    assert [row["method"] for row in rows] == list(trials.METHODS)
    assert all(row["status"] == "FAILED" and "NaN" in row["reason"] for row in rows)
    assert not any("kl" in row for row in rows)


def test_the_design_keeps_its_ranges_and_the_first_of_more_sizes_are_the_same():
    cells = WHERE.design(50)
    assert WHERE.design(15) == cells[:15]
    for cell in cells:
        free = cell["n_components"] * (1 + cell["n_features"] * (cell["n_features"] + 3) // 2) - 1
        assert 5 * free - 1 <= cell["n_samples"] <= min(100 * free + 1, 8_000)
    assert {cell["n_components"] for cell in cells} == set(range(2, 9))
    assert {cell["n_features"] for cell in cells} == set(range(1, 11))


def test_each_size_has_a_truth_in_each_quarter_of_the_overlaps(monkeypatch):
    seen = []
    monkeypatch.setattr(
        WHERE, "trials", lambda methods, key, x, truth, seed: seen.append((x, truth)) or [{"seed": seed}]
    )
    rows = WHERE.compare(3, 2, 1, 40)
    assert [(row["truth"], row["seed"]) for row in rows] == [(12 + i, 12 + i) for i in range(4)]
    ends = 0.001 * 300.0 ** np.linspace(0.0, 1.0, 5)
    for row, (x, truth), low, high in zip(rows, seen, ends[:-1], ends[1:], strict=True):
        assert low <= row["overlap"] <= high
        assert problems.overlap(truth).mean == pytest.approx(row["overlap"], rel=1e-5)
        assert (x.shape, row["samples_per_parameter"]) == ((40, 1), 40 / 5)


SECONDS = {"seconds_run": 1.0, "seconds_trace": 0.0, "seconds_compile": 0.0}


def six_rows(**times):
    """Three truths of one size, whose divergences are these multiples of 0.1, 0.2 and 0.4."""
    size = dict(zip(SIX.SIZE, SIX.SIZES[0], strict=True))
    rows = [
        size | {"truth": truth, "method": method, "kl": much * 0.1 * 2**truth, "status": "CONVERGED"} | SECONDS
        for truth in range(3)
        for method, much in times.items()
    ]
    return [
        row | {"status": "SAMPLED", "kl_predictive": row["kl"]} if row["method"] == "bayes" else row for row in rows
    ]


@pytest.mark.parametrize(
    ("em", "bayes", "early", "met"),
    [(1.0, 0.7, 1.0, True), (1.04, 0.7, 1.0, False), (1.0, 0.85, 1.0, False), (1.0, 0.7, 0.8, False)],
)
def test_the_posterior_is_compared_with_the_better_of_the_two_and_em_with_the_converged(em, bayes, early, met):
    rows = six_rows(em=em, em_default_tol=em, bayes=bayes, sklearn_em=1.0, sklearn_em_default_tol=early)
    found, said = SIX.verdict(rows)
    assert found == met
    assert f"bayes {bayes / min(1.0, early):.2f} ± 0.00 of the better" in said


def test_a_size_without_answers_meets_nothing():
    found, said = SIX.verdict(six_rows(em=1.0, bayes=0.5, sklearn_em=1.0, sklearn_em_default_tol=1.0))
    assert not found
    assert "too few answers" in said


def where_rows(ratio, coverage):
    """Six truths, each in another class but two, at these ratios; half of them with clear components."""
    rows = []
    for truth, overlap in enumerate([0.005, 0.005, 0.05, 0.05, 0.2, 0.2]):
        head = {"truth": truth, "n_features": 2, "n_components": 3, "overlap": overlap, "samples_per_parameter": 50.0}
        for method, much in {"em": 1.0, "bayes": ratio[truth // 2], "sklearn_em": 1.0}.items():
            row = head | {"method": method, "kl": 0.1 * much * (1 + truth), "status": "SAMPLED"} | SECONDS
            ours = {"coverage": coverage, "z_square": 4.0 + truth % 2, "length": much, "kl_predictive": 0.1}
            ours |= {"ambiguous": False}
            rows.append(row if method == "sklearn_em" else row | ours)
    return rows


@pytest.mark.parametrize(
    ("ratio", "coverage", "met"),
    [((0.99, 0.8, 0.6), 0.95, True), ((0.99, 0.8, 0.6), 0.9, False), ((0.99, 0.97, 0.9), 0.95, False)],
)
def test_it_says_where_em_suffices_and_where_the_posterior_pays(ratio, coverage, met):
    found, said = WHERE.verdict(where_rows(ratio, coverage))
    assert found == met
    first = said.splitlines()[0]
    at = "overlap {} with over 40 samples a parameter"
    assert (at.format("under 0.01") in first.partition("elsewhere")[0]) == (ratio[0] >= 0.95)
    assert f"most at {at.format('over 0.1')}: its divergence is {ratio[2]:.2f} ± 0.00" in first
    middle = np.exp(np.mean(np.log(ratio)))
    assert f"6 truths: bayes {middle:.2f}" in said


def test_a_trial_without_an_answer_covers_nothing():
    rows = where_rows((0.9, 0.8, 0.6), 1.0)
    assert "coverage 100.0%" in WHERE.of_errors([row for row in rows if row["method"] == "bayes"])
    for row in rows[:3]:  # one of six truths
        row.update(status="FAILED", kl=None, coverage=None, z_square=None, length=None)
    rows[-2].update(ambiguous=True, z_square=1e9)  # of the last truth, whose error says nothing
    said = WHERE.of_errors([row for row in rows if row["method"] == "bayes"])
    assert f"coverage {5 / 6:.1%}" in said
    assert "of 6 trials; in the 4 whose pairing with the truth is clear" in said
    assert f"standard errors are {1 / np.sqrt((2 * 5 + 2 * 4) / 4) - 1:+.0%}" in said


def test_a_paired_ratio_is_of_rows_that_agree_in_the_columns_asked_for():
    rows = [{"truth": t, "method": m, "kl": kl} for t in (0, 1) for m, kl in (("em", 1.0), ("bayes", 2.0 + t))]
    assert paired_ratio(rows, "bayes", "em", place=("truth",)).value == pytest.approx(np.sqrt(6.0))
