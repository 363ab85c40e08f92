"""Simulation-based calibration: if (θ, x) come from the prior and the model, θ ranks uniformly among posterior draws.

Of L independent draws, the number that lie below the truth is uniform on 0, ..., L for every scalar quantity. Of N
simulations S_i = #{ranks < i} is then Binomial(N, i / (L + 1)), and (S_1, ..., S_L) is a Markov chain, so that the
probability of staying within bounds at all i is a recursion: bands and p-values are exact, ties of counts included.

Reference:
    Talts, Betancourt, Simpson, Vehtari & Gelman (2018), Validating Bayesian inference algorithms with simulation-based
    calibration, arXiv 1804.06788; Säilynoja, Bürkner & Vehtari (2022), Graphical test for discrete uniformity and its
    applications in goodness-of-fit evaluation and multiple sample comparison, Statistics and Computing 32.
"""

from __future__ import annotations

from functools import cache

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from scipy.stats import binom

from gmm_jax.mixture.checks import check_key

HALVINGS = 40


def ranks(
    key: Key[Array, ""], truth: Float[np.ndarray, "N Q"], draws: Float[np.ndarray, "N L Q"]
) -> Int[np.ndarray, "N Q"]:
    """How many of a simulation's L draws lie below its truth, for each of Q quantities: 0, ..., L.

    Draws that equal the truth (probabilities that round to 0 or 1 do) are put below or above at random.
    """
    check_key(key)
    truth, draws = np.asarray(truth, float), np.asarray(draws, float)
    if truth.shape != draws.shape[:1] + draws.shape[2:]:
        raise ValueError(f"draws must have shape (N, L, Q) where truth has {truth.shape}; got {draws.shape}.")
    bad = ~np.isfinite(truth) | ~np.isfinite(draws).all(axis=1)
    if bad.any():
        n, q = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"quantity {q} of simulation {n} is not finite: a failed run has no rank, leave it out.")
    below, equal = np.sum(draws < truth[:, None], axis=1), np.sum(draws == truth[:, None], axis=1)
    return below + np.floor(np.asarray(jax.random.uniform(key, below.shape)) * (equal + 1)).astype(int)


def counts_below(ranks: Int[np.ndarray, "N"], n_draws: int) -> Int[np.ndarray, "L"]:
    """S_i, the number of ranks below i, for i = 1, ..., L."""
    return np.cumsum(np.bincount(ranks, minlength=n_draws + 1))[:-1]


@cache
def uniform_band(n_simulations: int, n_draws: int, level: float = 0.99) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (L,), (L,) within which S_i stays at all i at once with probability of at least `level`.

    At each i they leave out the same probability in both tails, as much as `level` allows. For Q quantities at once
    take 1 − (1 − level) / Q, which holds however they depend on each other.
    """
    tails = _tails(n_simulations, n_draws)
    low, high = np.log(1.0 - level) - np.log(n_draws), 0.0  # Bonferroni's bound is always wide enough
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        enough = _probability_within(tails > np.exp(middle)) >= level
        low, high = (middle, high) if enough else (low, middle)
    inside = tails > np.exp(low)
    band = np.argmax(inside, axis=1), n_simulations - np.argmax(inside[:, ::-1], axis=1)
    for side in band:
        side.flags.writeable = False
    return band


def uniform_p_value(ranks: Int[np.ndarray, "N"], n_draws: int) -> float:
    """The probability that uniform ranks leave the band just wide enough for these: small where they are not uniform.

    It is at most 1 − level exactly where the counts leave `uniform_band` at that level.
    """
    tails = _tails(len(ranks), n_draws)
    seen = tails[np.arange(n_draws), counts_below(ranks, n_draws)]
    return max(float(1.0 - _probability_within(tails > seen.min())), 0.0)


@cache
def _tails(n_simulations, n_draws) -> Float[np.ndarray, "L S"]:
    """Twice the smaller tail probability of S_i = s, s = 0, ..., N, the value itself included."""
    chances = np.arange(1, n_draws + 1)[:, None] / (n_draws + 1)
    s = np.arange(n_simulations + 1)
    tails = 2.0 * np.minimum(binom.cdf(s, n_simulations, chances), binom.sf(s - 1, n_simulations, chances))
    tails.flags.writeable = False
    return tails


def _probability_within(inside: Bool[np.ndarray, "L S"]) -> float:
    """P(inside[i, S_i] for all i): given S_i = s, S_{i+1} − s is Binomial(N − s, 1 / (L + 1 − i))."""
    n_draws, n_simulations = inside.shape[0], inside.shape[1] - 1
    state, mass = np.zeros(1, int), np.ones(1)
    for i in range(n_draws):
        new = np.flatnonzero(inside[i])
        mass = mass @ binom.pmf(new - state[:, None], (n_simulations - state)[:, None], 1.0 / (n_draws + 1 - i))
        state = new
    return float(mass.sum())
