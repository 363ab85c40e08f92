"""Gibbs on many data sets at once: the posterior of each is that of gibbs alone, and mistakes are sentences."""

import jax
import numpy as np
import pytest

from gmm_jax import MixtureSpec, align, bayes, em, problems

PROBLEM = problems.load("well_separated")
KEY = jax.random.key(5)


def two_data_sets(n=60):
    return np.stack([PROBLEM.sample(jax.random.key(seed), n)[0] for seed in range(2)])


def starts(p):
    return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], p, axis=0), PROBLEM.truth)


@pytest.mark.parametrize(
    ("x", "p", "options", "sentence"),
    [
        (two_data_sets()[0], 2, {}, r"x must be \(P, N, D\), one block a data set; got shape \(60, 2\): use x\[None\]"),
        (two_data_sets(), 3, {}, "init holds 3 starts for 2 data sets"),
        (two_data_sets(), 2, {"thin": 0}, "thin must be a positive integer; got 0"),
        (np.where(np.arange(2)[:, None, None] == 1, np.nan, two_data_sets()), 2, {}, "data set 1: x"),
    ],
)
def test_mistakes_are_sentences(x, p, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        bayes.gibbs_batch(KEY, x, PROBLEM.spec, init=starts(p), **options)


def test_many_starts_want_a_key_for_each_data_set():
    with pytest.raises(ValueError, match=r"x must hold one data set for each of 3 keys; it holds 2"):
        em.fit_em_restarts(jax.random.split(KEY, 3), two_data_sets(), MixtureSpec(3))


@pytest.mark.slow
def test_each_posterior_is_that_of_gibbs_alone():
    """Means within 5 standard errors of two runs of 2,000 draws, which are nearly independent here."""
    x = two_data_sets()
    draws = bayes.gibbs_batch(KEY, x, PROBLEM.spec, init=starts(2), n_warmup=100, n_draws=2000, thin=2)
    alone = bayes.gibbs(KEY, x[1], PROBLEM.spec, n_chains=1, n_draws=2000, init=PROBLEM.truth).draws
    mine, other = (
        align(jax.tree.map(lambda leaf, i=i: leaf[i], gmms), PROBLEM.truth) for i, gmms in ((1, draws), (0, alone))
    )
    for name in ("weights", "means", "covariances"):
        a, b = (np.asarray(getattr(gmms, name)) for gmms in (mine, other))
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 500)  # 500 effective draws at least
        assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 5.0 * error)
