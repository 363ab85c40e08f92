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

from math import sqrt
from pathlib import Path

import numpy as np

from gmm_jax import GMM, sample
from gmm_jax.bench.runner import derive_key
from gmm_jax.bench.study import Study
from gmm_jax.bench.workers import answers
from gmm_jax.judge.choose import SIGNIFICANT, choices, choose_components
from gmm_jax.shell import configure_jax, experiment

SEPARATIONS = (2.0, 3.0, 4.0)
N_SAMPLES, KS, TRUE = 150, (1, 2, 3), 2
CRITERIA = ("information", "loo", "evidence", "bridge", "bootstrap", "occupied", "telescoping")
ENOUGH = 0.75


def main(
    *,
    data_sets: int = 200,
    n_bootstrap: int = 39,
    draws: int = 500,
    workers: int = 2,
    out: Path = Path("results"),
    smoke: bool = False,
) -> int:
    """One row a data set and K to out/choose_k; exit code 3 where an expectation is not met.

    Data sets that are in out/choose_k already are kept, so that an interrupted command goes on.

    Args:
        data_sets: how many at each separation.
        n_bootstrap: data sets of each bootstrap.
        draws: of each of four chains.
        workers: processes that share the data sets, as chains use one core.
        out: folder for results.
        smoke: one data set, the criteria of one fit and two K, for tests.
    """
    options = {"data_sets": data_sets, "n_bootstrap": n_bootstrap, "draws": draws, "workers": workers}
    data_sets, workers, separations = (1, 1, SEPARATIONS[-1:]) if smoke else (data_sets, workers, SEPARATIONS)
    criteria, ks = (CRITERIA[:1], KS[:2]) if smoke else (CRITERIA, KS)
    how = {"criteria": criteria, "n_restarts": 5, "n_bootstrap": n_bootstrap, "n_draws": draws}
    steps = data_sets * len(separations)
    with Study(__doc__, "choose_k", out, options, steps=steps, seeds=data_sets, smoke=smoke, keep=True) as study:
        there = {(row["separation"], row["seed"]) for row in study.rows}
        # all separations in turn, so that a run cut short has some of each
        jobs = [(separation, seed, ks, how) for seed in range(data_sets) for separation in separations]
        jobs = [job for job in jobs if job[:2] not in there]
        for rows in answers(compare, jobs, workers, prepare=configure_jax):
            study.add(*rows)
    study.rows.sort(key=lambda row: (row["seed"], row["separation"], row["n_components"]))
    met, sentence = verdict(study.rows)
    return study.conclude(sentence, met=met)


def compare(job):
    """A row for each K on one data set."""
    separation, seed, ks, how = job
    truth = GMM(np.full(2, 0.5), np.array([[0.0], [separation]]), np.ones((2, 1, 1)))
    x = np.asarray(sample(derive_key(seed, "data", "choose_k", str(separation)), truth, N_SAMPLES)[0])
    rows = choose_components(derive_key(seed, "method", "choose_k", str(separation)), x, ks, **how)
    return [{"separation": separation, "seed": seed, **row} for row in rows]


def verdict(rows):
    """Whether the expectations are met, and the sentence with the numbers."""
    parts, met = [], True
    for separation in dict.fromkeys(row["separation"] for row in rows):
        mine = [row for row in rows if row["separation"] == separation]
        chosen = [choices([r for r in mine if r["seed"] == seed]) for seed in dict.fromkeys(r["seed"] for r in mine)]
        shares = {name: np.mean([one[name] == TRUE for one in chosen]) for name in chosen[0]}
        met &= separation < SEPARATIONS[-1] or min(shares.values()) >= ENOUGH
        error = max(sqrt(p * (1 - p) / len(chosen)) for p in shares.values())
        said = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
        p = [r["bootstrap_p"] for r in mine if r["n_components"] == TRUE and r.get("bootstrap_p") is not None]
        size = f"; the bootstrap rejects K = {TRUE} in {np.mean(np.array(p) <= SIGNIFICANT):.2f}" if p else ""
        parts.append(f"{separation:g} sd apart ({len(chosen)} data sets, standard errors to {error:.2f}): {said}{size}")
    return met, "\n".join([f"Share of data sets in which K = {TRUE} is chosen.", *parts])


if __name__ == "__main__":
    experiment(main)
