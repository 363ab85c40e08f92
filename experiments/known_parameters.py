"""What is it worth to know φ, Σ or a whole component, in the error of the means?

Data: named problems, the same data sets for every case.
Estimands: the means that are free in every case, components paired with the truth's.
Methods: EM from the best of some starts with nothing known, φ, Σ, both (Case I), or the first component known.
Performance: root mean square error as a share of that with nothing known, ± its Monte-Carlo standard error; as a
    multiple of the Cramér–Rao bound of the same case; share of fits that failed.

Expected: next to nothing where components are apart; up to a factor 2 where they overlap; errors near the bound.
Found: see results/known_parameters.
"""

import jax
import numpy as np

from gmm_jax import align, em, problems
from gmm_jax.bench.runner import derive_key
from gmm_jax.mixture import free_parts
from gmm_jax.shell import experiment
from shared.bounds import cramer_rao
from shared.cells import RUN, Options, ask, groups

PROBLEMS = ("well_separated", "course_2d", "overlapping")
EVERYTHING = ("weights", "means", "covariances")
CASES = {  # fields of the truth that are known, and of which components
    "nothing": ((), None),
    "φ": (("weights",), None),
    "Σ": (("covariances",), None),
    "φ and Σ (Case I)": (("weights", "covariances"), None),
    "component 1": (EVERYTHING, (0,)),
}
CONFIG = em.EMConfig(max_iter=2000, tol=1e-9)
OTHERS = 1  # means are compared from this component on: the first is known in one case


def main(*, replications: int = 200, restarts: int = 10, run: Options = RUN) -> int:
    """One row a problem and case to out/known_parameters.

    Args:
        replications: data sets of each problem.
        restarts: k-means++ starts on each.
        run: where to, and how much.
    """
    options = {"replications": replications, "restarts": restarts}
    names, known = (PROBLEMS[1:2], list(CASES)[::3]) if run.smoke else (PROBLEMS, list(CASES))
    size = {"replications": 4, "restarts": 2} if run.smoke else options
    cells = [{"problem": name, "known": case, **size} for name in names for case in known]
    return ask(__doc__, "known_parameters", cells, one, verdict, run, options, seeds=replications)


def one(problem, known, replications, restarts):
    """The errors of the means of all components but the first, over all data sets."""
    fields, components = CASES[known]
    problem = problems.load(problem)
    keys = [derive_key(seed, "data", problem.name) for seed in range(replications)]
    xs = np.stack([problem.sample(key, counts="multinomial")[0] for key in keys])
    spec, truth = problem.knowing(*fields, components=components), problem.truth
    found = em.fit_em_restarts(derive_key(0, "method", known), xs, spec, n_restarts=restarts, config=CONFIG)
    ok = np.isin(found.best.status, (1, 2)) & (found.reason == "")
    fits = jax.tree.map(lambda leaf: np.asarray(leaf)[ok], found.best.gmm)
    square = np.mean((align(fits, truth, spec).means - truth.means)[:, OTHERS:] ** 2, axis=(1, 2))
    mean, error = float(np.mean(square)), float(np.std(square, ddof=1) / np.sqrt(square.size))
    bound = cramer_rao(derive_key(0, "bound", problem.name), truth, spec, n_samples=xs.shape[1])
    least = bound.standard_errors.means[OTHERS:][free_parts(spec)[1][OTHERS:]]
    return {
        "n_samples": xs.shape[1],
        "failed": int(np.sum(~ok)),
        "rmse_means": np.sqrt(mean),
        "rmse_means_se": 0.5 * error / np.sqrt(mean),
        "bound_means": float(np.sqrt(np.mean(least**2))),
    }


def verdict(rows):
    """True, and by which factor each kind of knowledge shrinks the error, problem by problem."""
    parts = []
    for name, of_one in groups(rows, "problem").items():
        mine = {row["known"]: row for row in of_one}
        base = mine["nothing"]["rmse_means"]
        gains = ", ".join(
            f"{case} {row['rmse_means'] / base:.2f} ± {row['rmse_means_se'] / base:.2f}"
            for case, row in mine.items()
            if case != "nothing"
        )
        near = max(row["rmse_means"] / row["bound_means"] for row in mine.values())
        parts.append(f"{name}: {gains} (at most {near:.2f} times the Cramér–Rao bound)")
    missed = [row for row in rows if row["rmse_means"] > 2.0 * row["bound_means"]]
    warning = (
        " Far above the bound: what is known then tells components apart, and where they overlap this much the "
        "likelihood itself is often higher with them exchanged; with nothing known they are paired after the fit."
    )
    lost = max(row["failed"] / row["replications"] for row in rows)
    head = "Root mean square error of the means ± its Monte-Carlo error, as a share of that with nothing known"
    return True, "\n".join([f"{head}; at most {lost:.1%} of a case's fits failed.{warning if missed else ''}", *parts])


if __name__ == "__main__":
    experiment(main)
