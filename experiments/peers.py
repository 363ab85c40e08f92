"""On equal terms, which program comes nearest to the truth, and for how many evaluations of component densities?

Data: ten data sets each of three named problems; samplers see fewer. Options are chosen on other problems and seeds.
Estimands: the density of the truth, which needs no pairing of components.
Methods: each program twice: with its own defaults, and tuned, with those options, of a few, whose mean log distance is
    least on the data sets for tuning. Every row records start, reg_covar, tol and its meaning, threads, precision and
    whether the prior is ours; programs that are not installed have a row that says how to get them.
Performance: Hellinger distance as a share of that of em's defaults on the same data sets (geometric mean ± Monte-Carlo
    error); trials without an answer or with a doubtful one. The budget is counted in evaluations of a component density
    at a sample (n·K in one pass over the data, a gradient counts three, starts count) and, beside it, in seconds of a
    fit and seconds of compilation, which on a shared machine say less. k-means' distances and hierarchical clustering
    at the starts of scikit-learn, gmmx and mclust cannot be seen and are not counted; they are in the seconds, and so
    is R's start.

Expected: tuned, the programs for maximum likelihood agree where starts are enough, in different numbers of evaluations;
the posterior mean is nearer to the truth where components overlap, at a hundred times the cost. Found: see
results/peers.
"""

import json

import numpy as np

from gmm_jax.bench.runner import Cell
from gmm_jax.bench.runner import run as run_cell
from gmm_jax.shell import experiment
from shared import pictures
from shared.cells import RUN, Options, groups, open_study, some_of

SAMPLING = {"n_chains": 2, "n_warmup": 300, "n_draws": 500}
LIKELIHOOD = {  # what is tried beside the defaults
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
}
SAMPLERS = {
    "gibbs": (SAMPLING, SAMPLING | {"n_restarts": 10}),
    "nuts": (SAMPLING,),
    "pymc_nuts": (SAMPLING,),
}
METHODS = LIKELIHOOD | SAMPLERS
TUNING, REPORT = ("course_2d", "crossing"), ("unbalanced", "tight_inside_broad", "overlapping")
FIRST_TUNING_SEED = 1000  # far from those that are reported
WELL = ("CONVERGED", "SAMPLED")
KEPT = (
    *("problem", "case", "method", "seed", "n_samples", "n_components", "status", "reason", "hellinger"),
    *("hellinger_se", "kl", "kl_se", "means_error", "covariances_error", "weights_error", "ari"),
    *("test_log_likelihood", "test_log_likelihood_se", "density_evaluations"),
    *("seconds", "seconds_trace", "seconds_compile", "seconds_run"),
    *("start", "reg_covar", "tol", "tol_is", "threads", "precision", "same_prior"),
)


def main(
    *,
    methods: tuple[str, ...] = tuple(METHODS),
    seeds: int = 10,
    sampler_seeds: int = 2,
    tuning_seeds: int = 3,
    run: Options = RUN,
) -> int:
    """One row a trial to out/peers, those of the tuning too.

    Args:
        methods: which of them are run; the answer is about all whose rows are there.
        seeds: data sets of each problem that is reported.
        sampler_seeds: how many of them samplers see; they are tuned on one data set of each problem.
        tuning_seeds: data sets of each problem on which options are chosen.
        run: where to, and how much.
    """
    methods = some_of(methods, METHODS, "methods")
    options = {"methods": methods, "seeds": seeds, "sampler_seeds": sampler_seeds, "tuning_seeds": tuning_seeds}
    tuning, report = TUNING, REPORT
    if run.smoke:
        methods, tuning, report, seeds, tuning_seeds = ("em", "mclust"), TUNING[:1], TUNING[:1], 1, 1
    sizes = {m: (sampler_seeds, 1) if m in SAMPLERS else (seeds, tuning_seeds) for m in methods}
    steps = sum((1 + len(METHODS[m])) * len(tuning) * t + 2 * len(report) * s for m, (s, t) in sizes.items())
    with open_study(__doc__, "peers", run, options, steps=steps, seeds=seeds) as study:
        study.rows = [row for row in study.rows if not (run.fresh and row["method"] in methods)]
        for method, (n_seeds, n_tuning) in sizes.items():
            for setting in ({}, *METHODS[method]):
                for cell in cells(method, setting, tuning, range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + n_tuning)):
                    trial(study, "tuning", cell)
            for name, setting in (("defaults", {}), ("tuned", best(study.rows, method))):
                for cell in cells(method, setting, report, range(n_seeds)):
                    trial(study, name, cell)
    reported = reported_of(study.rows)
    places = [place for problem in report for place in frontier(reported, problem)]
    titles = {problem: f"{problem.replace('_', ' ')}: Hellinger distance" for problem in report}
    pictures.curves(study.folder / "peers.png", places, AXIS, titles, logarithmic=(AXIS, *report))
    met, sentence = verdict(study.rows)
    return study.conclude(sentence, met=met)


AXIS = "density_evaluations"


def cells(method, setting, problems, seeds):
    """Trials with these options."""
    options = tuple(sorted(setting.items()))
    return [Cell(problem, method=method, options=options, seed=seed) for problem in problems for seed in seeds]


def trial(study, part, cell):
    """A row, unless it is there already; of a program that is not installed, the first says so for all.

    Where the tuned options are the defaults, the row is that of the defaults.
    """
    head = {"method": cell.method, "problem": cell.problem, "seed": cell.seed, "options": dict(cell.options)}
    same = [row for row in study.rows if {name: row[name] for name in head} == head]
    missing = any((row["method"], row["status"]) == (cell.method, "NOT_SUPPORTED") for row in study.rows)
    if missing or part in {row["part"] for row in same}:
        return study.step()
    if same:
        return study.add(same[0] | {"part": part})
    found = run_cell(cell).row
    return study.add(
        {"part": part}
        | {name: found[name] for name in KEPT if found.get(name) is not None}
        | {"options": dict(cell.options)}
    )


def best(rows, method):
    """The options with the least mean log distance in the tuning, cheaper ones where two are equal to two digits.

    Options with which a trial had no answer are not chosen; {} where none ran.
    """
    scores = {}
    for row in rows:
        if (row["part"], row["method"]) == ("tuning", method):
            scores.setdefault(json.dumps(row["options"]), []).append(row)
    known = {text: found for text, found in scores.items() if len(answered(found)) == len(found)}
    if not known:
        return {}
    return json.loads(min(known, key=lambda text: (round(mean_log(known[text])[0], 2), median(known[text], AXIS))))


def answered(rows):
    """The trials that have an answer, whatever its status."""
    return [row for row in rows if row.get("hellinger") is not None and np.isfinite(row["hellinger"])]


def mean_log(rows, less=None):
    """Mean over data sets of the log distance, and its Monte-Carlo standard error for these problems.

    `less` are rows whose log distances on the same data sets are subtracted first; those without such a row are left
    out. The error is NaN where a problem has one data set only.
    """
    there = None if less is None else {(row["problem"], row["seed"]): np.log(row["hellinger"]) for row in less}
    gaps = {}
    for row in rows:
        place = row["problem"], row["seed"]
        if there is None or place in there:
            gap = np.log(row["hellinger"]) - (0.0 if there is None else there[place])
            gaps.setdefault(row["problem"], []).append(gap)
    n = sum(map(len, gaps.values()))
    squares = [len(each) * np.var(each, ddof=1) if len(each) > 1 else np.nan for each in gaps.values()]
    return float(np.sum([np.sum(each) for each in gaps.values()]) / n), float(np.sqrt(np.sum(squares)) / n)


def median(rows, name):
    """Of what rows have; NaN where none has it."""
    return float(np.median([row[name] for row in rows if row.get(name) is not None] or [np.nan]))


def frontier(rows, problem):
    """For the picture: geometric mean distance and median evaluations of each method, defaults and tuned."""
    places = []
    of_problem = [row for row in rows if row["problem"] == problem]
    for (method, _), trials in groups(of_problem, "method", "part").items():
        if mine := answered(trials):
            log, error = mean_log(mine)
            distance = {problem: np.exp(log), f"{problem}_se": np.exp(log) * error}
            places.append({"method": method, AXIS: median(mine, AXIS)} | distance)
    return places


def reported_of(rows):
    """All but the tuning."""
    return [row for row in rows if row["part"] != "tuning" or row["status"] == "NOT_SUPPORTED"]


def verdict(rows):
    """True, and geometric mean distances over those of em's defaults on the same data sets, problem by problem."""
    rows = reported_of(rows)
    ours = answered(row for row in rows if (row["method"], row["part"]) == ("em", "defaults"))
    parts = []
    missing = [method for method in METHODS if method not in {row["method"] for row in rows}]
    for (method, part), mine in groups(rows, "method", "part").items():
        if mine[0]["status"] == "NOT_SUPPORTED":
            parts.append(f"{method} {mine[0]['reason']}")
        else:
            parts.append(f"{method} {part}{sentence_of(mine, ours)}")
    about = "Hellinger distance from the truth as a share of that of em's defaults on the same data sets"
    later = f" Not run yet: {', '.join(missing)}." if missing else ""
    return True, "\n".join([f"{about} (geometric mean ± Monte-Carlo error), and what a fit cost.{later}", *parts])


def sentence_of(rows, ours):
    """The share, the cost, and how many trials had no answer or a doubtful one."""
    known = answered(rows)
    options = ", ".join(f"{name} {value}" for name, value in rows[0]["options"].items())
    head = f" ({options})" if options else ""
    compiling = max(row["seconds_trace"] + row["seconds_compile"] for row in rows)
    cost = f"{median(rows, AXIS):.2g} evaluations, {median(rows, 'seconds_run'):.2g} s, and {compiling:.2g} s compiling"
    doubtful = sum(row["status"] not in WELL for row in known)
    ended = f"of {len(rows)} {len(rows) - len(known)} without an answer, {doubtful} doubtful"
    relative = []
    for problem, mine in groups(known, "problem").items():
        log, error = mean_log(mine, less=ours)
        known_to = f" ± {np.exp(log) * error:.2f}" if np.isfinite(error) else " on one data set"
        relative.append(f"{problem} {np.exp(log):.2f}{known_to}")
    return f"{head}: {', '.join(relative)} for {cost}; {ended}" if relative else f"{head}: {ended}"


if __name__ == "__main__":
    experiment(main)
