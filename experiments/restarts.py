"""How many starts does a problem need, and do swaps of components reach what starts do not?

Data: several data sets from every named problem.
Estimands: the best optimum by the criterion, spurious ones aside, and how likely one start reaches the best of all.
Methods: EM from many independent k-means++ starts; EM from a tenth of them, the best of which goes on by swaps.
Performance: nats of the criterion by which swaps end above or below the best of all starts, the iterations of both, and
    the KL divergence of both from the truth; starts needed for 99 %; optima seen, and the basin mass not seen
    (Good–Turing).

Expected: swaps end lower in at most 1 of 15 runs, with fewer iterations. Found: see results/restarts.
"""

from functools import partial

import numpy as np

from gmm_jax import Status, em, problems
from gmm_jax.bench import plots
from gmm_jax.bench.runner import derive_key
from gmm_jax.judge import divergences
from gmm_jax.judge.landscape import rows_of
from gmm_jax.shell import experiment
from shared.cells import RUN, Options, ask, groups, some_of

CONFIG = em.EMConfig(max_iter=5000, tol=1e-10)
SAME = 1e-4  # nats of log-likelihood within which fits are at one optimum
LOST, MOST = 0.1, 1 / 15  # nats of the criterion that count as lower, and the share of runs in which that may be
FEWER = 10  # so many times fewer starts are followed by swaps
LARGE, TOO_LARGE = ("many_components",), ("fifty_dimensional",)  # cost as much as all others together


def main(
    *, names: tuple[str, ...] = (), seeds: int = 3, large_seeds: int = 1, restarts: int = 200, run: Options = RUN
) -> int:
    """One row a data set to out/restarts; exit code 3 where the expectation is not met.

    Args:
        names: problems; none for all but the largest.
        seeds: data sets of each problem.
        large_seeds: data sets of each of the problems that cost most.
        restarts: starts on each data set.
        run: where to, and how much.
    """
    options = {"names": names, "seeds": seeds, "large_seeds": large_seeds, "restarts": restarts}
    names = some_of(names, problems.names(), "names") if names else [n for n in problems.names() if n not in TOO_LARGE]
    names, seeds, restarts = (("course_2d",), 1, 8) if run.smoke else (names, seeds, restarts)
    most = {name: large_seeds if name in LARGE + TOO_LARGE else seeds for name in names}
    # all problems in turn, so that a run cut short has some of each
    places = [(name, seed) for seed in range(max(most.values())) for name in most if seed < most[name]]
    cells = [{"problem": name, "seed": seed, "restarts": restarts} for name, seed in places]
    measure = partial(one, folder=run.out / "restarts")
    return ask(__doc__, "restarts", cells, measure, verdict, run, options, seeds=seeds)


def one(problem, seed, restarts, folder):
    """All starts and swaps on one data set; of the first one the landscape is drawn."""
    problem = problems.load(problem)
    key_x, key = derive_key(seed, "data", problem.name), derive_key(seed, "method", "restarts")
    x, _ = problem.sample(key_x)
    alone = em.fit_em_restarts(key, x, problem.spec, n_restarts=restarts, config=CONFIG, swaps=False)
    fewer = max(restarts // FEWER, 1)
    swapped = em.fit_em_restarts(key, x, problem.spec, n_restarts=fewer, config=CONFIG, swaps=True)
    optima, best = alone.optima, float(alone.best.log_likelihood)
    if seed == 0:
        plots.landscape(folder / f"{problem.name}.png", rows_of(optima, alone.fits.status, x))
    at_best = ~optima.spurious & (np.abs(optima.log_likelihood - best) <= SAME)
    share = int(optima.count[at_best].sum()) / restarts
    ranks = [em.criterion(x, found.best.gmm, problem.spec) for found in (alone, swapped)]
    kl, swaps_kl = (divergences(key_x, problem.truth, found.best.gmm).kl for found in (alone, swapped))
    return {
        "n_samples": len(x),
        "n_components": problem.spec.n_components,
        "status": Status(int(alone.best.status)).name,
        "optima": optima.count.size,
        "spurious": int(optima.spurious.sum()),
        "share_at_best": share,
        "starts_for_99": starts_for(share),
        "unseen": alone.effort.unseen.estimate,
        "unseen_upper": alone.effort.unseen.upper,
        "log_likelihood": best,
        "kl": kl,
        "iterations": alone.effort.spent,
        "swaps_status": Status(int(swapped.best.status)).name,
        "swaps_gain": ranks[1] - ranks[0],
        "swaps_kl": swaps_kl,
        "swaps_iterations": swapped.effort.spent,
    }


def starts_for(share):
    """Starts of this kind after which the best optimum found here is reached with probability 0.99."""
    if share >= 0.99:
        return 1
    return int(np.ceil(np.log(0.01) / np.log1p(-share))) if share > 0.0 else None


def verdict(rows):
    """Whether the expectation is met, and the sentence with the numbers."""
    lost = sum(not row["swaps_gain"] >= -LOST for row in rows)  # NaN is lost
    won = sum(row["swaps_gain"] > LOST for row in rows)
    saved = np.median([row["iterations"] / row["swaps_iterations"] for row in rows])
    nearer = np.exp(np.mean([np.log(row["swaps_kl"] / row["kl"]) for row in rows]))
    needed = {
        name: np.median([row["starts_for_99"] or np.inf for row in mine])
        for name, mine in groups(rows, "problem").items()
    }
    many = sorted((name for name in needed if needed[name] > 10), key=lambda name: -needed[name])
    listed = ", ".join(f"{name} {needed[name]:.0f}" for name in many)
    said = f"more than 10 starts for 99 % (median): {listed}" if many else "10 starts do for 99 % on every problem"
    sentence = (
        f"Swaps from a tenth of the starts ended above the best of all starts in {won}, below it in {lost} of "
        f"{len(rows)} runs, with {saved:.1f} times fewer iterations (median) and {nearer:.2f} of its KL divergence "
        f"from the truth (geometric mean); {said}."
    )
    return lost <= MOST * len(rows), sentence


if __name__ == "__main__":
    experiment(main)
