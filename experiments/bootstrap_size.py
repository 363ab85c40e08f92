"""How often does the bootstrap test of K against K + 1 components reject a true K?

Data: data sets of 150 from one normal, and from two equal unit normals on the line, 3 and 4 standard deviations apart.
Estimands: the size of the test at a nominal 5 %.
Methods: the criterion `bootstrap` of `judge.choose`.
Performance: share of data sets in which the true K is rejected, with its Monte-Carlo standard error.

Expected: of one normal in 5 %, as the statistic of data from any normal has the same law, so that the data's is one of
n_bootstrap + 1 that could be exchanged; of two normals in 3 to 7 %, where they lie far enough apart for the fit that
stands for them to be near them. Found: see results/bootstrap_size.

Reference:
    McLachlan (1987), Applied Statistics 36.
"""

from math import sqrt
from pathlib import Path

import numpy as np

from gmm_jax import GMM, sample
from gmm_jax.bench.runner import derive_key
from gmm_jax.bench.study import Study
from gmm_jax.judge.choose import SIGNIFICANT, choose_components
from gmm_jax.shell import experiment

NULLS = {"one normal": (1, 0.0), "two, 4 sd apart": (2, 4.0), "two, 3 sd apart": (2, 3.0)}
N_SAMPLES = 150
WITHIN = (0.03, 0.07)


def main(*, data_sets: int = 400, n_bootstrap: int = 39, out: Path = Path("results"), smoke: bool = False) -> int:
    """One row a null and data set to out/bootstrap_size; exit code 3 where a share is surely outside 3 to 7 %.

    Data sets that are in out/bootstrap_size already are kept, so that an interrupted command goes on.

    Args:
        data_sets: how many of each null.
        n_bootstrap: data sets of each bootstrap; the test has its level where (n_bootstrap + 1) / 20 is whole.
        out: folder for results.
        smoke: one data set of one normal, for tests.
    """
    options = {"data_sets": data_sets, "n_bootstrap": n_bootstrap}
    nulls, data_sets = (list(NULLS)[:1], 1) if smoke else (list(NULLS), data_sets)
    steps = data_sets * len(nulls)
    with Study(__doc__, "bootstrap_size", out, options, steps=steps, seeds=data_sets, smoke=smoke, keep=True) as study:
        there = {(row["null"], row["seed"]) for row in study.rows}
        for seed in range(data_sets):  # all nulls in turn, so that a run cut short has some of each
            for null in nulls:
                if (null, seed) not in there:
                    study.add(tested(null, seed, n_bootstrap))
    met, sentence = verdict(study.rows)
    return study.conclude(sentence, met=met)


def tested(null, seed, n_bootstrap):
    """The row of one data set."""
    k, separation = NULLS[null]
    truth = GMM(np.full(k, 1.0 / k), separation * np.arange(k)[:, None], np.ones((k, 1, 1)))
    x = np.asarray(sample(derive_key(seed, "data", "bootstrap_size", null), truth, N_SAMPLES)[0])
    key, how = derive_key(seed, "method", "bootstrap_size", null), {"n_restarts": 5, "n_bootstrap": n_bootstrap}
    (row,) = choose_components(key, x, (k,), criteria=("bootstrap",), **how)
    return {"null": null, "seed": seed, **row}


def verdict(rows):
    """Whether no share is surely outside, and the sentence with the numbers."""
    parts, met = [], True
    for null in dict.fromkeys(row["null"] for row in rows):
        found = [row["bootstrap_p"] for row in rows if row["null"] == null]
        p = np.array([value for value in found if value is not None])
        share = np.mean(p <= SIGNIFICANT)
        error = sqrt(SIGNIFICANT * (1 - SIGNIFICANT) / max(len(p), 1))
        met &= WITHIN[0] - 2.0 * error <= share <= WITHIN[1] + 2.0 * error
        without = f", {len(found) - len(p)} more without an admissible fit" if len(p) < len(found) else ""
        parts.append(f"{null}: {share:.3f} of {len(p)} (standard error at 5 %: {error:.3f}{without})")
    return bool(met), "Share of data sets in which the true K is rejected at 5 %: " + "; ".join(parts) + "."


if __name__ == "__main__":
    experiment(main)
