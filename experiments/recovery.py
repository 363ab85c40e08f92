"""How near does each method come to the truth, problem by problem?

Data: two data sets from each named problem of `gmm_jax.problems`, easy and hard; the same for every method.
Estimands: the parameters, components paired with the truth's, and the density itself, which needs no pairing.
Methods: the oracle that knows the labels, EM from 20 starts, mean-field SVI, Gibbs sampling, NUTS; the default prior.
    NUTS and SVI are left out where a run would take hours (TOO_LONG).
Performance: Kullback–Leibler divergence from the truth with its Monte-Carlo error (medians over data sets, as a
    multiple of the oracle's); errors of means, covariances and weights; held-out log score; statuses of all trials.

Expected: all methods near the oracle where components are apart; the posterior mean better than EM where they overlap;
SVI as near but with standard deviations that are too small. Found: see results/recovery.
"""

import json
from dataclasses import asdict

import numpy as np

from gmm_jax import problems
from gmm_jax.bench import Grid, run_grid
from gmm_jax.bench.compare import show
from gmm_jax.bench.store import result_folder
from gmm_jax.shell import experiment
from shared.cells import HERE, Here, groups

METHODS = {
    "oracle": {},
    "em": {"n_restarts": 20},
    "svi": {"n_warmup": 1000, "n_restarts": 10},
    "gibbs": {"n_warmup": 1000, "n_draws": 4000, "n_restarts": 10},
    "nuts": {"n_warmup": 300, "n_draws": 500, "n_restarts": 10},
}
# with 119 parameters and 4000 samples, or 3977 and 3000, a gradient is slow and trajectories are long
TOO_LONG = {"nuts": ("many_components", "fifty_dimensional"), "svi": ("fifty_dimensional",)}
NEAR, WELL = 1.5, ("CONVERGED", "SAMPLED")
SMOKE = {
    "oracle": {},
    "em": {"n_restarts": 4},
    "gibbs": {"n_chains": 2, "n_warmup": 50, "n_draws": 50, "n_restarts": 4},
}


def main(*, seeds: int = 2, place: Here = HERE) -> int:
    """Every method on every named problem; rows, pictures and report to out/recovery.

    Args:
        seeds: how many data sets a problem.
        place: where to; finished trials are kept.
    """
    methods = SMOKE if place.smoke else METHODS
    options = [f"{name}.{o}={json.dumps(value)}" for name, chosen in methods.items() for o, value in chosen.items()]
    names = ("course_2d",) if place.smoke else problems.names()
    grid = Grid(names, tuple(methods), tuple(options), seeds=1 if place.smoke else seeds)
    cells = [cell for cell in grid.cells() if cell.problem not in TOO_LONG.get(cell.method, ())]
    about = {"command": f"python experiments/recovery.py --seeds {seeds}", "config": {"grid": asdict(grid)}}
    about |= {"doc": __doc__, "answer": lambda rows: verdict(rows)[1]}
    rows = run_grid("recovery", cells, results=place.out, **about)
    return show(result_folder(place.out, "recovery"), rows)


def verdict(rows):
    """True, and on how many problems each method's median divergence is near the oracle's, and how its trials ended."""
    lines = []
    least = {problem: median(mine) for problem, mine in groups(of(rows, "oracle"), "problem").items()}
    for method in (name for name in METHODS if name != "oracle"):
        mine = of(rows, method)
        medians = {problem: median(of_one) for problem, of_one in groups(mine, "problem").items()}
        ratios = [value / least[p] for p, value in medians.items() if None not in (value, least.get(p))]
        if ratios:
            known = [row for row in mine if row.get("kl") is not None]
            error = np.median([row["kl_se"] / row["kl"] for row in known])
            doubtful = sum(row["status"] not in WELL for row in known)
            lines.append(
                f"{method}: on {sum(ratio <= NEAR for ratio in ratios)} of {len(ratios)} problems, "
                f"{np.median(ratios):.2f} times in the median and {max(ratios):.3g} at worst; of {len(mine)} trials "
                f"{len(mine) - len(known)} without an answer and {doubtful} doubtful; Monte-Carlo error of a "
                f"divergence {error:.0%}"
            )
    return True, "\n".join([f"Median KL from the truth within {NEAR:g} times the oracle's.", *lines])


def of(rows, method):
    """The trials of one method."""
    return [row for row in rows if row["method"] == method]


def median(rows):
    """Median divergence over seeds, None without an answer."""
    values = [row["kl"] for row in rows if row.get("kl") is not None]
    return float(np.median(values)) if values else None


if __name__ == "__main__":
    experiment(main)
