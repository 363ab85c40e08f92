"""Which criterion finds the number of components, and how far must components lie apart for it?

Data: data sets from two equal unit normals on the line, 2, 3 and 4 standard deviations apart.
Estimands: the number of components that each criterion prefers among K = 1, 2, 3.
Methods: every criterion of `judge.choose`, with full covariances and, for the posterior, the default prior.
Performance: share of data sets in which K = 2 is chosen, with its Monte-Carlo standard error; how often the bootstrap
    test rejects a true K = 2 at 5 %.

Expected: at 4 standard deviations every criterion is right in at least three of four; at 2, where the density has one
mode, bic, icl and evidence prefer one component. The bootstrap test rejects K = 2 at 5 % in 3 to 7 %, as far as the
number of data sets can tell. Found: see results/choose_k.
"""

from functools import partial
from math import sqrt

import numpy as np

from gmm_jax import GMM, sample
from gmm_jax.bench.runner import derive_key
from gmm_jax.judge.choose import SIGNIFICANT, choices, choose_components
from gmm_jax.shell import experiment
from shared.cells import RUN, Options, ask, groups

SEPARATIONS = (2.0, 3.0, 4.0)
N_SAMPLES, KS, TRUE = 150, (1, 2, 3), 2
CRITERIA = ("information", "loo", "evidence", "bridge", "bootstrap", "occupied", "telescoping")
ENOUGH = 0.75


def main(*, data_sets: int = 200, n_bootstrap: int = 39, draws: int = 500, workers: int = 2, run: Options = RUN) -> int:
    """One row a data set and K to out/choose_k; exit code 3 where an expectation is not met.

    Args:
        data_sets: how many at each separation.
        n_bootstrap: data sets of each bootstrap.
        draws: of each of four chains.
        workers: processes that share the data sets, as chains use one core.
        run: where to, and how much.
    """
    options = {"data_sets": data_sets, "n_bootstrap": n_bootstrap, "draws": draws, "workers": workers}
    data_sets, workers, separations = (1, 1, SEPARATIONS[-1:]) if run.smoke else (data_sets, workers, SEPARATIONS)
    size = {"n_bootstrap": n_bootstrap, "n_draws": draws}
    # all separations in turn, so that a run cut short has some of each
    cells = [{"separation": apart, "seed": seed, **size} for seed in range(data_sets) for apart in separations]
    measure = partial(compare, criteria=CRITERIA[:1], ks=KS[:2]) if run.smoke else compare
    return ask(__doc__, "choose_k", cells, measure, verdict, run, options, seeds=data_sets, workers=workers)


def compare(separation, seed, criteria=CRITERIA, ks=KS, **size):
    """A row for each K on one data set."""
    truth = GMM(np.full(2, 0.5), np.array([[0.0], [separation]]), np.ones((2, 1, 1)))
    x = np.asarray(sample(derive_key(seed, "data", "choose_k", str(separation)), truth, N_SAMPLES)[0])
    key = derive_key(seed, "method", "choose_k", str(separation))
    return choose_components(key, x, ks, criteria=criteria, n_restarts=5, **size)


def verdict(rows):
    """Whether the expectations are met, and the sentence with the numbers."""
    parts, met = [], True
    for separation, mine in sorted(groups(rows, "separation").items()):
        chosen = [choices(of_one) for of_one in groups(mine, "seed").values()]
        right = {name: np.mean([one[name] == TRUE for one in chosen]) for name in chosen[0]}
        met &= separation < SEPARATIONS[-1] or min(right.values()) >= ENOUGH
        error = max(sqrt(p * (1 - p) / len(chosen)) for p in right.values())
        said = ", ".join(f"{name} {share:.2f}" for name, share in right.items())
        p = [r["bootstrap_p"] for r in mine if r["n_components"] == TRUE and r.get("bootstrap_p") is not None]
        size = f"; the bootstrap rejects K = {TRUE} in {np.mean(np.array(p) <= SIGNIFICANT):.2f}" if p else ""
        parts.append(f"{separation:g} sd apart ({len(chosen)} data sets, standard errors to {error:.2f}): {said}{size}")
    return met, "\n".join([f"Share of data sets in which K = {TRUE} is chosen.", *parts])


if __name__ == "__main__":
    experiment(main)
