"""How many starts does a problem need, and how often does a race lose the best fit?

Data: several data sets from every named problem.
Estimands: the best optimum, spurious ones aside, that all starts together reach, and how likely one start reaches it.
Methods: EM from the same k-means++ starts twice: every fit runs to its end, and a race that drops fits.
Performance: share of runs in which the race's best fit is more than 1e-4 nats below that of all fits, with its upper
    95 % bound; iterations saved; starts needed for 99 %; optima seen, and the basin mass not seen (Good–Turing).

Expected: lost in at most 1 % of the runs, with fewer iterations where optima are many. Found: see
results/restarts.
"""

from functools import partial

import numpy as np

from gmm_jax import Status, em, problems
from gmm_jax.bench import plots
from gmm_jax.bench.runner import derive_key
from gmm_jax.judge.landscape import rows_of
from gmm_jax.shell import experiment
from shared.cells import RUN, Options, ask, groups, some_of

CONFIG = em.EMConfig(max_iter=5000, tol=1e-10)
LOST = 1e-4  # nats
MOST = 0.01  # share of runs that a race may lose
LARGE, TOO_LARGE = ("fifty_dimensional",), ("many_components",)  # cost as much as all others together


def main(
    *, names: tuple[str, ...] = (), seeds: int = 25, large_seeds: int = 1, restarts: int = 50, run: Options = RUN
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
    """All fits and the race on one data set; of the first one the landscape is drawn."""
    problem = problems.load(problem)
    x, _ = problem.sample(derive_key(seed, "data", problem.name))
    key = derive_key(seed, "method", "restarts")
    options = {"n_restarts": restarts, "config": CONFIG}
    whole = em.fit_em_restarts(key, x, problem.spec, **options)
    raced = em.fit_em_restarts(key, x, problem.spec, race=True, **options)
    optima, best = whole.optima, float(whole.best.log_likelihood)
    if seed == 0:
        plots.landscape(folder / f"{problem.name}.png", rows_of(optima, whole.fits.status, x))
    at_best = ~optima.spurious & (np.abs(optima.log_likelihood - best) <= LOST)
    share = int(optima.count[at_best].sum()) / restarts
    return {
        "n_samples": len(x),
        "status": Status(int(whole.best.status)).name,
        "optima": optima.count.size,
        "spurious": int(optima.spurious.sum()),
        "share_at_best": share,
        "starts_for_99": starts_for(share),
        "unseen": whole.effort.unseen.estimate,
        "unseen_upper": whole.effort.unseen.upper,
        "log_likelihood": best,
        "race_loses": best - float(raced.best.log_likelihood),
        "race_status": Status(int(raced.best.status)).name,
        "iterations": whole.effort.spent,
        "race_iterations": raced.effort.spent,
        "race_merged": raced.effort.merged,
        "race_dropped": raced.effort.dropped,
    }


def starts_for(share):
    """Starts of this kind after which the best optimum found here is reached with probability 0.99."""
    if share >= 0.99:
        return 1
    return int(np.ceil(np.log(0.01) / np.log1p(-share))) if share > 0.0 else None


def verdict(rows):
    """Whether the expectation is met, and the sentence with the numbers."""
    lost = sum(not row["race_loses"] <= LOST for row in rows)  # NaN is lost
    upper = 1.0 - 0.05 ** (1.0 / len(rows))
    bound = f" (none seen: at most {upper:.1%} with 95 % confidence)" if lost == 0 else ""
    saved = np.median([row["iterations"] / row["race_iterations"] for row in rows])
    needed = {
        name: np.median([row["starts_for_99"] or np.inf for row in mine])
        for name, mine in groups(rows, "problem").items()
    }
    many = sorted((name for name in needed if needed[name] > 10), key=lambda name: -needed[name])
    listed = ", ".join(f"{name} {needed[name]:.0f}" for name in many)
    said = f"more than 10 starts for 99 % (median): {listed}" if many else "10 starts do for 99 % on every problem"
    sentence = (
        f"The race lost the best fit in {lost} of {len(rows)} runs{bound}, with {saved:.1f} times fewer "
        f"iterations (median); {said}."
    )
    return lost <= MOST * len(rows), sentence


if __name__ == "__main__":
    experiment(main)
