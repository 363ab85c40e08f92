"""How many optima has a mixture's likelihood, how often is the best reached, and which may not be believed?

Data: course_2d and real data sets, each with one or several K.
Estimands: the optima of the likelihood, the same up to a permutation of components, and the share of starts at each.
Methods: EM from random rows of the data as centres, every start kept, to its end, then on to the point where the
    gradient vanishes, so that plateaus are not counted as optima.
Performance: shares ± their Monte-Carlo standard error; which optima are inadmissible, and why; starts that end nowhere.

Expected: few optima where clusters are few and apart; where components are many, or more than there are clusters, tens,
the highest of which hold a handful of samples and may not be called best. Found: see results/landscape.
"""

from pathlib import Path

import numpy as np

from gmm_jax import MixtureSpec, em, problems
from gmm_jax.bench import landscape, plots, report
from gmm_jax.bench.runner import derive_key
from gmm_jax.bench.study import Study
from gmm_jax.judge.landscape import curvature, polished, rows_of
from gmm_jax.shell import experiment

CONFIG = em.EMConfig(max_iter=5000, tol=1e-10)
CASES = (  # a data set and K, or a named problem
    ("course_2d", None),
    ("iris", 3),
    ("galaxies_roeder", 5),
    ("galaxies_roeder", 6),
    ("round_clusters", None),
    ("overlapping", None),
)
SMOKE = (("course_2d", None),)


def main(*, restarts: int = 1000, out: Path = Path("results"), smoke: bool = False) -> int:
    """One row an optimum of each case to out/landscape, a picture and a table a case.

    Args:
        restarts: random starts of each case.
        out: folder for results.
        smoke: 8 starts of one case, for tests.
    """
    cases, restarts = (SMOKE, 8) if smoke else (CASES, restarts)
    console = report.console()
    with Study(__doc__, "landscape", out, {"restarts": restarts}, steps=len(cases), smoke=smoke) as study:
        for name, n_components in cases:
            mine = one(name, n_components, restarts)
            study.add(*mine)
            plots.landscape(study.folder / f"{mine[0]['case']}.png", mine)
            report.print_table(console, f"{mine[0]['case']}, {restarts} starts", landscape.table(mine))
    return study.conclude(answer(study.rows))


def one(name, n_components, restarts):
    """The rows of one data set, or of one sample of a named problem."""
    if n_components is None:
        problem = problems.load(name)
        x, spec = problem.sample(derive_key(0, "data", name))[0], problem.spec
    else:
        x, spec = problems.datasets.load(name)[0], MixtureSpec(n_components)
    key = derive_key(0, "method", name)
    found = em.fit_em_restarts(key, x, spec, n_restarts=restarts, init="random_points", config=CONFIG)
    optima = polished(key, x, spec, found)
    case = {"case": f"{name}_K{spec.n_components}", "n_samples": len(x), "stopped_at": int(found.optima.count.size)}
    rows = [case | row for row in rows_of(optima, found.fits.status, x, spec)]
    for row, curved in zip(rows, curvature(optima, x, spec), strict=False):
        row["curvature"] = curved
    return rows


def answer(rows):
    """Case by case: optima, those that may be believed, how often the best of these is reached, and what lies above."""
    parts = []
    for case in dict.fromkeys(row["case"] for row in rows):
        mine = [row for row in rows if row["case"] == case]
        optima = [row for row in mine if row["optimum"] is not None]
        sound = [row for row in optima if not row["spurious"]]
        above = [row for row in optima if row["gap"] < 0.0]
        where = f"{case}: EM stopped at {mine[0]['stopped_at']} places, which are {len(optima)} optima"
        if not sound:
            parts.append(f"{where}, all inadmissible")
            continue
        best, others = sound[0], np.sum([row["share"] for row in above])
        parts.append(
            f"{where}, {len(sound)} of them admissible; the best of these is reached by {best['share']:.1%} "
            f"± {best['share_se']:.1%} of the starts, and {len(above)} inadmissible ones above it by {others:.1%}"
        )
    return "\n".join(["Where EM ended.", *parts])


if __name__ == "__main__":
    experiment(main)
