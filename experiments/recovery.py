"""How near does each method come to the truth, problem by problem?

Data: data sets from each named problem of `gmm_jax.problems` but one (TOO_LONG); the same for every method.
Estimands: the parameters, components paired with the truth's, and the density itself, which needs no pairing.
Methods: the oracle that knows the labels; EM from 20 starts; scikit-learn's EM and its variational posterior, each
    from 20 starts, else with its defaults; the posterior by `bayes.sample` under the default prior: the mixture nearest
    to its predictive density, and that density itself.
Performance: Kullback–Leibler divergence from the truth as a multiple of the oracle's on the same data set (geometric
    mean ± standard error over data sets); errors of means, covariances and weights; held-out log score; statuses.

Expected: all methods near the oracle where components are apart; the posterior nearer than EM where they overlap or
where samples are few. Found: see results/recovery.
"""

import json
from dataclasses import asdict

import numpy as np

from gmm_jax import problems
from gmm_jax.bench import Grid, run_grid
from gmm_jax.bench.compare import show
from gmm_jax.bench.store import MIXTURES, result_folder, write_rows
from gmm_jax.shell import experiment
from shared.cells import HERE, Here, groups
from shared.paired import paired_ratio

METHODS = {
    "oracle": {},
    "em": {"n_restarts": 20},
    "sklearn_em": {"n_init": 20},
    "sklearn_bayes": {"n_init": 20},
    "bayes": {"n_restarts": 20},
}
TOO_LONG = ("fifty_dimensional",)  # 3,977 free numbers and 3,000 samples: minutes a trial
LONG = (*MIXTURES, "landscape")  # columns that stay in the cells: they would be megabytes
WELL = ("CONVERGED", "SAMPLED")
SMOKE = {
    "oracle": {},
    "em": {"n_restarts": 4},
    "gibbs": {"n_chains": 2, "n_warmup": 50, "n_draws": 50, "n_restarts": 4},
}


def main(*, seeds: int = 20, place: Here = HERE) -> int:
    """Every method on every named problem; rows, pictures and report to out/recovery.

    The mixtures themselves and every optimum of EM stay in the folder's cells.

    Args:
        seeds: how many data sets a problem.
        place: where to; finished trials are kept.
    """
    methods = SMOKE if place.smoke else METHODS
    options = [f"{name}.{o}={json.dumps(value)}" for name, chosen in methods.items() for o, value in chosen.items()]
    names = ("course_2d",) if place.smoke else tuple(name for name in problems.names() if name not in TOO_LONG)
    grid = Grid(names, tuple(methods), tuple(options), seeds=1 if place.smoke else seeds)
    about = {"command": f"python experiments/recovery.py --seeds {seeds}", "config": {"grid": asdict(grid)}}
    about |= {"doc": __doc__, "answer": lambda rows: verdict(rows)[1]}
    cells = sorted(grid.cells(), key=lambda cell: cell.seed)  # so an early stop leaves whole data sets
    rows = run_grid("recovery", cells, results=place.out, **about)
    folder = result_folder(place.out, "recovery")
    code = show(folder, rows)
    write_rows(folder, [{name: value for name, value in row.items() if name not in LONG} for row in rows])
    return code


def verdict(rows):
    """True, and each method's divergence as a multiple of the oracle's, problem by problem and over all."""
    lines = []
    for method in (name for name in groups(rows, "method") if name != "oracle"):
        for what, column in (("", "kl"), ("predictive of ", "kl_predictive")):
            found = {p: paired_ratio(of_one, method, column=column) for p, of_one in groups(rows, "problem").items()}
            found = {p: ratio for p, ratio in found.items() if ratio is not None}
            if found:
                mine = [row for row in rows if row["method"] == method]
                doubtful = sum(row["status"] not in WELL for row in mine)
                worst = max(found, key=lambda p: found[p].value)
                middle = np.exp(np.mean([np.log(ratio.value) for ratio in found.values()]))
                lines.append(
                    f"{what}{method}: {middle:.2f} times over {len(found)} problems, {found[worst]} at worst "
                    f"({worst}); {doubtful} of {len(mine)} trials doubtful"
                )
    return True, "\n".join(["Divergence from the truth as a multiple of the oracle's, geometric means.", *lines])


if __name__ == "__main__":
    experiment(main)
