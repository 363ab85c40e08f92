"""On equal terms, which program comes nearest to the truth, and for how many evaluations of component densities?

Each method twice: with its own defaults, and tuned. Tuned means the options, of a few, whose mean log KL from the truth
is least on problems and seeds of their own; what is reported comes from other problems and other seeds. The budget is
counted in evaluations of a component density at a sample (n·K in one pass over the data, a gradient counts three,
starts count) and, beside it, in seconds with and without compilation, which on a shared machine say less. k-means'
distances at the starts of scikit-learn and gmmx cannot be seen and are not counted. Every row records start,
reg_covar, tol and its meaning, threads, precision and whether the prior is ours; programs that are not installed have a
row that says how to get them.

Expected: tuned, the programs for maximum likelihood agree where starts are enough, in different numbers of evaluations;
the posterior mean is nearer to the truth where components overlap, at a hundred times the cost. Found: see
results/peers.
"""

import json
from pathlib import Path

import numpy as np

from gmm_jax.bench import plots
from gmm_jax.bench.runner import Cell, run
from gmm_jax.bench.study import Study
from gmm_jax.shell import experiment

SAMPLING = {"n_chains": 2, "n_warmup": 300, "n_draws": 500}
METHODS = {  # what is tried beside the defaults
    "em": ({"n_restarts": 10}, {"n_restarts": 10, "tol": 1e-6}, {"n_restarts": 200}),
    "sklearn_em": (
        {"n_init": 10},
        {"n_init": 10, "tol": 1e-6, "max_iter": 1000},
        {"n_init": 10, "init_params": "k-means++"},
    ),
    "gmmx": ({"tol": 1e-5, "max_iter": 1000}, {"n_init": 1}),
    "mclust": ({"tol": 1e-8},),
    "sklearn_bayes": (
        {"n_init": 10, "max_iter": 1000},
        {"n_init": 10, "max_iter": 1000, "weight_concentration_prior_type": "dirichlet_distribution"},
    ),
    "gibbs": (SAMPLING, SAMPLING | {"n_restarts": 10}),
    "nuts": (SAMPLING, SAMPLING | {"n_restarts": 10, "target_accept": 0.9}),
    "pymc_nuts": (SAMPLING,),
}
TUNING, REPORT = ("course_2d", "crossing"), ("unbalanced", "tight_inside_broad", "overlapping")
FIRST_TUNING_SEED = 1000  # far from those that are reported
KEPT = (
    *("problem", "case", "method", "seed", "n_samples", "status", "reason", "kl", "kl_se", "means_error"),
    *("covariances_error", "weights_error", "ari", "test_log_likelihood", "test_log_likelihood_se"),
    *("density_evaluations", "seconds", "seconds_trace", "seconds_compile", "seconds_run"),
    *("start", "reg_covar", "tol", "tol_is", "threads", "precision", "same_prior"),
)


def main(*, seeds: int = 3, tuning_seeds: int = 2, out: Path = Path("results"), smoke: bool = False) -> int:
    """One row a trial to out/peers, those of the tuning too; rows that are there already are kept.

    Args:
        seeds: data sets of each problem that is reported.
        tuning_seeds: data sets of each problem on which options are chosen.
        out: folder for results.
        smoke: two methods for maximum likelihood on one small data set, for tests.
    """
    methods, tuning, report = (("em", "mclust"), TUNING[:1], TUNING[:1]) if smoke else (METHODS, TUNING, REPORT)
    seeds, tuning_seeds = (1, 1) if smoke else (seeds, tuning_seeds)
    steps = sum((1 + len(METHODS[m])) * len(tuning) * tuning_seeds + 2 * len(report) * seeds for m in methods)
    options = {"seeds": seeds, "tuning_seeds": tuning_seeds}
    with Study(__doc__, "peers", out, options, steps=steps, seeds=seeds, smoke=smoke, keep=True) as study:
        for method in methods:
            for setting in ({}, *METHODS[method]):
                for cell in cells(method, setting, tuning, range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + tuning_seeds)):
                    trial(study, "tuning", cell)
            for name, setting in (("defaults", {}), ("tuned", best(study.rows, method))):
                for cell in cells(method, setting, report, range(seeds)):
                    trial(study, name, cell)
    reported = [row for row in study.rows if row["part"] != "tuning" or row["status"] == "NOT_SUPPORTED"]
    drawn = [row | {"method": f"{row['method']}, {row['part']}"} for row in reported if row.get("kl") is not None]
    for metric in ("kl", "density_evaluations"):
        plots.recovery(
            study.folder / f"{metric}.png", drawn, metric, report, list(dict.fromkeys(r["method"] for r in drawn))
        )
    return study.conclude(answer(reported))


def cells(method, setting, problems, seeds):
    """Trials with these options."""
    options = tuple(sorted(setting.items()))
    return [Cell(problem, method=method, options=options, seed=seed) for problem in problems for seed in seeds]


def trial(study, part, cell):
    """A row, unless it is there already; of a program that is not installed, the first says so for all."""
    options = json.dumps(dict(cell.options), sort_keys=True)
    head = {"part": part, "method": cell.method, "problem": cell.problem, "seed": cell.seed}
    for row in study.rows:
        if {name: row[name] for name in head} == head and json.dumps(row["options"], sort_keys=True) == options:
            return study.step()
        if (row["method"], row["status"]) == (cell.method, "NOT_SUPPORTED"):
            return study.step()
    found = run(cell).row
    return study.add(
        {"part": part}
        | {name: found[name] for name in KEPT if found.get(name) is not None}
        | {"options": dict(cell.options)}
    )


def best(rows, method):
    """The options with the least mean log KL in the tuning, cheaper ones where two are equal; {} where none ran."""
    scores = {}
    for row in rows:
        if (row["part"], row["method"]) == ("tuning", method):
            scores.setdefault(json.dumps(row["options"]), []).append((row.get("kl"), row.get("density_evaluations", 0)))
    known = {text: found for text, found in scores.items() if all(kl is not None and kl > 0.0 for kl, _ in found)}
    if not known:
        return {}
    return json.loads(min(known, key=lambda text: score(known[text])))


def score(found):
    """(mean log KL to two digits, evaluations)."""
    kl, cost = zip(*found, strict=True)
    return round(float(np.mean(np.log(kl))), 2), float(np.mean(cost))


def answer(rows):
    """Medians over problems and seeds, method by method."""
    parts = []
    for method, part in dict.fromkeys((row["method"], row["part"]) for row in rows):
        mine = [row for row in rows if (row["method"], row["part"]) == (method, part)]
        if mine[0]["status"] == "NOT_SUPPORTED":
            parts.append(f"{method} {mine[0]['reason']}")
            continue
        kl, cost, run_s, whole = (
            np.median([row[name] for row in mine if row.get(name) is not None] or [np.nan])
            for name in ("kl", "density_evaluations", "seconds_run", "seconds")
        )
        well = sum(row["status"] in ("CONVERGED", "SAMPLED") for row in mine)
        parts.append(
            f"{method} {part} {mine[0]['options'] or ''}: KL {kl:.3g} for {cost:.2g} evaluations ({run_s:.2g} s, with "
            f"compilation {whole:.2g} s; {well} of {len(mine)} ended well)"
        )
    return f"Medians over problems and seeds: {'; '.join(parts)}."


if __name__ == "__main__":
    experiment(main)
