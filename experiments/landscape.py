"""How many optima has a mixture's likelihood, how often is the best reached, and which may not be believed?

Data: course_2d and real data sets, each with one or several K.
Estimands: the optima of the likelihood, the same up to a permutation of components, and the share of starts at each.
Methods: EM from random rows of the data as centres, every start kept, to its end, then on to the point where the
    gradient vanishes, so that plateaus are not counted as optima.
Performance: share of starts at each ± its Monte-Carlo standard error; which optima are spurious, and why; starts that
    end nowhere.

Expected: few optima where clusters are few and apart; where components are many, or more than there are clusters, tens,
the highest of which hold a handful of samples and may not be called best. Found: see results/landscape.
"""

import numpy as np

from gmm_jax import MixtureSpec, em, problems
from gmm_jax.bench import landscape, plots, report
from gmm_jax.bench.runner import derive_key
from gmm_jax.judge.landscape import rows_of
from gmm_jax.shell import experiment
from shared.cells import RUN, Options, ask, groups
from shared.stationary import curvature, polished

CONFIG = em.EMConfig(max_iter=5000, tol=1e-10)
CASES = {  # a data set and K, or a named problem
    "course_2d_K2": ("course_2d", None),
    "iris_K3": ("iris", 3),
    "galaxies_roeder_K5": ("galaxies_roeder", 5),
    "galaxies_roeder_K6": ("galaxies_roeder", 6),
    "round_clusters_K4": ("round_clusters", None),
    "overlapping_K3": ("overlapping", None),
}


def main(*, restarts: int = 1000, run: Options = RUN) -> int:
    """One row an optimum of each case to out/landscape, a picture and a table a case.

    Args:
        restarts: random starts of each case.
        run: where to, and how much.
    """
    names, n_starts = (list(CASES)[:1], 8) if run.smoke else (list(CASES), restarts)
    cells = [{"case": name, "restarts": n_starts} for name in names]
    return ask(__doc__, "landscape", cells, one, verdict, run, {"restarts": restarts}, draw=draw)


def draw(folder, rows):
    """A picture and a table a case."""
    for case, mine in groups(rows, "case").items():
        plots.landscape(folder / f"{case}.png", mine)
        report.print_table(report.console(), case, landscape.table(mine))


def one(case, restarts):
    """The rows of one data set, or of one sample of a named problem."""
    name, n_components = CASES[case]
    if n_components is None:
        problem = problems.load(name)
        x, spec = problem.sample(derive_key(0, "data", name))[0], problem.spec
    else:
        x, spec = problems.datasets.load(name)[0], MixtureSpec(n_components)
    key = derive_key(0, "method", name)
    found = em.fit_em_restarts(key, x, spec, n_restarts=restarts, init="random_points", config=CONFIG, swaps=False)
    optima = polished(key, x, spec, found)
    about = {"n_samples": len(x), "stopped_at": int(found.optima.count.size)}
    rows = [about | row for row in rows_of(optima, found.fits.status, x)]
    for row, curved in zip(rows, curvature(optima, x, spec), strict=False):
        row["curvature"] = curved
    return rows


def verdict(rows):
    """True, and case by case: optima, those that may be believed, how often their best is reached, what lies above."""
    parts = []
    for case, mine in groups(rows, "case").items():
        optima = [row for row in mine if row["optimum"] is not None]
        sound = [row for row in optima if not row["spurious"]]
        above = [row for row in optima if row["gap"] < 0.0]
        where = f"{case}: EM stopped at {mine[0]['stopped_at']} places, which are {len(optima)} optima"
        if not sound:
            parts.append(f"{where}, all spurious")
            continue
        best, others = sound[0], np.sum([row["share"] for row in above])
        parts.append(
            f"{where}, {len(sound)} of them not spurious; the best of these is reached by {best['share']:.1%} "
            f"± {best['share_se']:.1%} of the starts, and {len(above)} spurious ones above it by {others:.1%}"
        )
    return True, "\n".join(["Where EM ended.", *parts])


if __name__ == "__main__":
    experiment(main)
