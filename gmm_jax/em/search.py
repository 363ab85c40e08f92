"""Swaps: the best fit goes on with one component put elsewhere.

Where a component is missing in one place and one too many is in another, no step of EM mends it, and with many
components few starts are free of it. New starts are the best fit with one component put elsewhere: one whose samples
the others explain best goes, to a sample that the fit explains badly. After a short EM the best quarter is run to its
end if it may pass the best fit; what is worth more takes its place, until three hundred swaps in a row found nothing.

References:
    Zhao, Hautamäki, Kärkkäinen & Fränti (2012), Random swap EM algorithm for Gaussian mixture models, Pattern
    Recognition Letters 33.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ..mixture import GMM, MixtureSpec, Status, distinguished, free_parts, structure
from ..mixture.annotations import pad, padded_size
from ..mixture.gmm import deviations, log_joint_components_first
from ..mixture.programs import jit
from .criterion import SAME_WORTH, Judged, Ranking
from .inputs import START_ROWS, Data
from .optima import choose, pick
from .pool import CompiledFits

FEWEST_COMPONENTS = 4  # with fewer, starts find the best optimum by themselves
N_STARTS, N_STARTS_SWAPPED = 50, 20  # by default: alone, and where swaps follow; who asks for fewer wants no search
EASY = 1 / 3  # share of the starts that lead to the best optimum above which fewer swaps are tried
SHORT = 10  # iterations after which swaps are compared
KEPT = 4  # one of so many then goes on
PATIENCE, LITTLE = 300, 100  # swaps without success after which a search ends, and where starts agree
MOST_ROUNDS = 50


class Search(NamedTuple):
    """How fits are run and ranked: arguments of `fit_em_restarts`."""

    criterion: str
    swaps: bool
    traces: bool
    programs_for: int
    progress: Callable[[int, int, float], None] | None


class Swapped(NamedTuple):
    """What swaps found: the best fit of each data set, of value -inf where it is no better than the best start."""

    best: Judged  # M = P
    gain: Float[np.ndarray, "P"]  # of the criterion, nats; 0 where nothing was found
    spent: Int[np.ndarray, "P"]  # iterations


def starts_and_swaps(spec: MixtureSpec, init, n_restarts: int | None, *, swaps: bool | None) -> tuple[int, bool]:
    """From how many starts to fit, and whether swaps follow: what was said, or the default where nothing was."""
    given = isinstance(init, GMM)
    if n_restarts is None and given:
        n_restarts = 1 if np.ndim(init.means) == 2 else len(init.means)
    if swaps is None:
        enough = n_restarts is None or (isinstance(n_restarts, (int, np.integer)) and n_restarts >= N_STARTS_SWAPPED)
        swaps = spec.n_components >= FEWEST_COMPONENTS and enough and not given
    return (N_STARTS_SWAPPED if swaps else N_STARTS) if n_restarts is None else n_restarts, swaps


def run_swaps(
    keys,
    ranking: Ranking,
    judged: Judged,
    begin: Callable[[GMM], CompiledFits],
    judge: Callable[[CompiledFits], Judged],
    progress: Callable[[int, int, float], None] | None = None,
) -> Swapped | None:
    """The best fits of the data sets after rounds of swaps, from those that were run, equally many of each.

    `begin` makes fits of starts (P, R). A data set is left alone where no sound fit has converged, or fewer than two
    components could go elsewhere; None where that is so of all. That many starts agree says little: they may all have
    missed what one in twenty finds.
    """
    data = ranking.data
    n_sets, n_fits = len(data), judged.value.size // len(data)
    first_of_set = np.arange(n_sets) * n_fits

    def best_of_each(fits: Judged) -> Judged:
        worth = np.where(fits.results.status == Status.CONVERGED, fits.sound, -np.inf)
        place = worth.reshape(n_sets, n_fits).argmax(axis=1)
        return pick(fits._replace(worth=worth), first_of_set + place)

    best = best_of_each(judged)
    first, movable = best.worth, [movable_components(d) for d in data]
    at_best = judged.sound.reshape(n_sets, n_fits) >= first[:, None] - SAME_WORTH
    open_sets = np.isfinite(first) & np.array([m.sum() > 1 for m in movable])
    easy = at_best.sum(axis=1) > max(1, EASY * n_fits)
    if not open_sets.any():
        return None
    idle, spent = np.where(easy, PATIENCE - LITTLE, 0), np.zeros(n_sets, int)
    draws = [np.random.default_rng([*np.asarray(jax.random.key_data(key)).ravel().tolist(), 1]) for key in keys]

    def starts_of(p):
        gmm = pick(best.results.gmm, p)
        if open_sets[p]:
            return swaps(draws[p], gmm, data[p], movable[p], n_fits)
        return jax.tree.map(lambda leaf: np.repeat(leaf[None], n_fits, axis=0), gmm)  # not run

    for _ in range(MOST_ROUNDS):
        fits = begin(jax.tree.map(lambda *leaves: np.stack(leaves), *map(starts_of, range(n_sets))))
        _run_promising(fits, ranking, open_sets, best.sound)
        swapped = judge(fits)
        spent += swapped.n_iter.reshape(n_sets, n_fits).sum(axis=1)
        found = best_of_each(swapped)
        better = open_sets & (found.worth > best.worth + SAME_WORTH)
        best = choose(better, found, best)
        if progress is not None:
            progress(judged.value.size, judged.value.size, float(best.value.max() - data[0].volume))
        idle = np.where(better, 0, idle + n_fits)
        open_sets &= idle < PATIENCE
        if not open_sets.any():
            break
    gain = np.subtract(best.worth, first, where=np.isfinite(first), out=np.zeros(n_sets))
    return Swapped(best._replace(value=np.where(gain > 0.0, best.value, -np.inf)), gain, spent)


def _run_promising(fits: CompiledFits, ranking: Ranking, open_sets, top: Float[np.ndarray, "P"]) -> None:
    """Run fits as long as they may pass the best of their data set.

    After a short run it is one of four; from then on, those which are above it if they gain once more what they have
    gained since the last look, each twice as late as the one before.
    """
    n_iter, shape = SHORT, (-1, fits.n_starts)

    def worth():
        now = fits.look()[0]
        all_of_them = ranking.worth(now.best.gmm, now.best_value, np.full(now.status.shape, Status.CONVERGED))
        return np.where(np.isin(now.status, (Status.RUNNING, Status.CONVERGED)), all_of_them, -np.inf).reshape(shape)

    def run(which):
        while not fits.advance(np.flatnonzero(which), n_iter):
            pass

    run(np.repeat(open_sets, fits.n_starts))
    now = worth()
    rank = np.argsort(np.argsort(-now, axis=1, kind="stable"), axis=1)
    which = open_sets[:, None] & (rank < max(1, fits.n_starts // KEPT)) & np.isfinite(now)
    while which.any():
        n_iter, before = 2 * n_iter, now
        run(which.ravel())
        now = worth()
        running = (fits.look()[0].status == Status.RUNNING).reshape(shape)
        gained = np.where(which, now, 0.0) - np.where(which, before, 0.0)
        which &= running & (now + gained > top[:, None])


def movable_components(data: Data) -> Bool[np.ndarray, "K"]:
    """Components of which nothing is known and that no label names: they can be put elsewhere."""
    _, means, covariances = free_parts(distinguished(data.inner, data.annotations.labels))
    named = np.zeros(means.shape, bool)
    if data.annotations.labels is not None:
        labels = np.asarray(data.annotations.labels)
        named[np.unique(labels[labels >= 0])] = True
    return means & (covariances if structure(data.inner.covariance_type).per_component else True) & ~named


def swaps(draw: np.random.Generator, gmm: GMM, data: Data, movable: Bool[np.ndarray, "K"], n: int) -> GMM:
    """n starts, leading axis: the standardised mixture with one component put at a sample, and weights made more even.

    A component goes with probability ∝ exp(−l_k / median l), l_k = −Σ log(1 − r_nk) what the likelihood loses without
    it, to a sample drawn ∝ 1/√p(x); there it has half the data's covariance · K^(−2/D), as a start has.
    """
    rows = data.for_starts
    rows = rows[:: -(-len(rows) // START_ROWS)]
    joint = np.asarray(_log_joint(gmm, pad(rows, padded_size(len(rows), quick=True))), float)[:, : len(rows)]
    log_prob = np.logaddexp.reduce(joint, axis=0)
    lost = -np.log1p(-np.minimum(np.exp(joint - log_prob), 1.0 - 1e-9)).sum(axis=1)
    leave = np.where(movable, np.exp(-lost / max(np.median(lost), 1e-9)), 0.0) + 1e-9 * movable
    arrive = np.exp(-0.5 * (log_prob - log_prob.min()))
    n_components, n_features = gmm.means.shape
    which = draw.choice(n_components, n, p=leave / leave.sum())
    to = rows[draw.choice(len(rows), n, p=arrive / arrive.sum())]
    means, one = np.repeat(gmm.means[None], n, axis=0), np.arange(n)
    means[one, which] = to
    covariances = np.repeat(np.asarray(gmm.covariances)[None], n, axis=0)
    if structure(gmm.covariance_type).per_component:
        spread = 0.5 * n_components ** (-2.0 / n_features) * data.spread
        own = np.diagonal(spread)
        covariances[one, which] = {"full": spread, "diag": own, "spherical": own.mean()}[gmm.covariance_type]
    weights = np.repeat(0.5 * np.asarray(gmm.weights)[None] + 0.5 / n_components, n, axis=0)
    return replace(gmm, weights=weights.astype(gmm.weights.dtype), means=means, covariances=covariances)


@jit
def _log_joint(gmm, rows):
    return log_joint_components_first(gmm, deviations(gmm, rows))
