"""How many effective draws a second does each sampler give, and how much of it is the likelihood, how much the driver?

Data: course_2d, Case II, the default prior; every program gets the same data sets and the same start, EM's optimum.
Estimands: effective draws a second of 4 chains: the smallest of bulk and tail over all free numbers after relabelling
    and the log density, over the seconds of a whole run, warm-up included, once programs are compiled.
Methods: nuts and gibbs; NumPyro on the tutorial's likelihood and on our model, PyMC with nutpie, and JAGS, each at the
    best of its documented settings, which were tried on data sets of their own.
Performance: medians over data sets, and ratios; a run with R-hat above 1.01 is a failure.

Parts, each alone or together (--parts sweep samplers ...); what is measured is not measured again. sweep: the settings
of each peer. samplers: the draws. cold: nuts and gibbs from a process's start to a diagnosed posterior, compilation
counted, with the cache empty and filled. sweeps: a Gibbs sweep over an EM iteration at n = 100,000, d = 2, K = 8.

Expected: nuts at least 20 times NumPyro's MCMC and 8 times PyMC with nutpie; cold 15 s, 6 s with the cache filled; a
sweep at most 3 iterations. Found: see results/speed_bayes.
"""

import json
import tempfile
from functools import partial

import jax
import numpy as np

from gmm_jax import MixtureSpec, bayes
from gmm_jax.bench.workers import Lost, in_processes
from gmm_jax.shell import configure_jax, experiment
from shared.cells import RUN, Options, groups, some_of
from speed.iterations import standardised_problem
from speed.processes import run_program
from speed.programs import ITERATIONS
from speed.ratios import ONE_FIT, compare, interleave, seconds_of
from speed.samplers import SAMPLERS, Job, devices_for, measure, named
from speed.table import measure_parts

SIZE = {"n_chains": 4, "n_warmup": 500, "n_draws": 1000}
SMOKE_SIZE = {"n_chains": 2, "n_warmup": 20, "n_draws": 100}
PROBLEM = "course_2d"
OURS = ("nuts", "gibbs")
FIRST_TUNING_SEED = 1000  # far from those that are reported
MOST_SECONDS = 600.0  # of one sampler on one data set
LEAST = {"NumPyro, tutorial": 20.0, "PyMC with nutpie": 8.0}  # times their effective draws a second
MOST_COLD, MOST_SWEEP = {"empty": 15.0, "filled": 6.0}, 3.0


def main(
    *,
    parts: tuple[str, ...] = (),
    samplers: tuple[str, ...] = (),
    seeds: int = 10,
    slow_seeds: int = 4,
    tuning_seeds: int = 1,
    starts: int = 3,
    pairs: int = 5,
    run: Options = RUN,
) -> int:
    """Measure, and write rows at once to out/speed_bayes; exit code 3 where an expectation is not met.

    Args:
        parts: which, none for all.
        samplers: which, none for all.
        seeds: data sets of the comparison.
        slow_seeds: data sets that JAGS and NumPyro on our model see.
        tuning_seeds: data sets on which settings are chosen.
        starts: cold starts of each program.
        pairs: interleaved pairs of a Gibbs sweep and an iteration of EM.
        run: where to, and how much.
    """
    sizes = {"seeds": seeds, "slow_seeds": slow_seeds, "tuning_seeds": tuning_seeds, "starts": starts, "pairs": pairs}
    options = {"parts": parts, "samplers": samplers, **sizes}
    parts = some_of(parts, PARTS, "parts") if parts or not run.smoke else ("samplers",)
    samplers = some_of(samplers, SAMPLERS, "samplers") if samplers or not run.smoke else ("gibbs",)
    sizes = dict.fromkeys(sizes, 1) if run.smoke else sizes
    return measure_parts(__doc__, "speed_bayes", PARTS, parts, sizes, verdict, run, options, samplers, seeds=seeds)


# ---- parts


def sweep(table, samplers, *, tuning_seeds, **_):
    """Every setting of each sampler that has more than one."""
    for name in samplers:
        settings = SAMPLERS[name].settings
        for setting in settings if len(settings) > 1 else ():
            measure_missing(table, "sweep", name, setting, range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + tuning_seeds))


def compared(table, samplers, *, seeds, slow_seeds, **_):
    """Each sampler at the best of its settings."""
    for name in samplers:
        n = min(seeds, slow_seeds) if SAMPLERS[name].slow else seeds
        measure_missing(table, "samplers", name, best(table.rows, name), range(n))


def measure_missing(table, part, name, setting, seeds):
    """The rows that are missing, one for each data set, in a process of their own."""
    size = SMOKE_SIZE if table.smoke else SIZE
    jobs = [Job(name, setting, PROBLEM, seed, size) for seed in seeds]
    jobs = [job for job in jobs if table.lacks(part, case_of(job))]
    if not jobs:
        return
    options = {"timeout": MOST_SECONDS, "prepare": partial(configure_jax, devices_for(jobs[0]))}
    for place, row in in_processes(measure, jobs, 1, **options):
        lost = isinstance(row, Lost)
        row = named(jobs[place]) | {"status": "failed", "reason": row.reason} if lost else row
        table.put(part, case_of(jobs[place]), [row])


def case_of(job):
    """What a row is known by."""
    row = named(job)
    return f"{row['method']} {row['setting']} seed {row['seed']}"


def best(rows, name):
    """The setting with the highest median of effective draws a second in the sweep, where every run mixed."""
    found = {}
    for row in rows:
        if (row["part"], row["method"]) == ("sweep", name):
            text = row["setting"] if isinstance(row["setting"], str) else json.dumps(row["setting"], sort_keys=True)
            found.setdefault(text, []).append(row.get("effective_per_second"))
    good = {text: np.median(values) for text, values in found.items() if None not in values}
    return json.loads(max(good, key=good.get)) if good else dict(SAMPLERS[name].settings[0])


COLD = """
import json, sys
from gmm_jax.shell import configure_jax
configure_jax(json.loads(sys.argv[2]))
from speed.samplers import cold
cold(sys.argv[1])
"""
COLD_FIT = """
import json, sys
from gmm_jax.shell import configure_jax
configure_jax()
import jax
from gmm_jax import problems
from gmm_jax.bench import methods
problem = problems.load(sys.argv[2])
x, _ = problem.sample(jax.random.key(0))
found = methods.load(sys.argv[1]).fit(jax.random.key(1), x, problem.spec, **json.loads(sys.argv[3]))
print(json.dumps({"status": found.status.name, "r_hat": found.info["r_hat"]}))
"""


def cold(table, samplers, *, starts, **_):
    """Our samplers' programs, and the whole methods, which find their starts and summarise the draws."""
    size = SMOKE_SIZE if table.smoke else SIZE
    programs = {}
    for name in (name for name in OURS if name in samplers):
        job = Job(name, best(table.rows, name), PROBLEM, 0, size)
        programs[name] = partial(run_program, COLD, [json.dumps(job), json.dumps(devices_for(job))])
        programs[f"fit with {name}"] = partial(run_program, COLD_FIT, [name, PROBLEM, json.dumps(size)])
    for name, program in programs.items():
        if table.lacks("cold", name):
            table.put("cold", name, cold_rows(name, program, starts))


def cold_rows(name, program, n):
    """A row for each start: with an empty cache, and then with what that start has left."""
    rows = []
    try:
        for _ in range(n):
            with tempfile.TemporaryDirectory() as cache:
                for state in ("empty", "filled"):
                    seconds, said = program(cache)
                    row = {"method": name, "cache": state, "seconds": seconds} | json.loads(said)
                    if row.get("effective_per_second") is not None:
                        row["effective_per_second"] = row["effective_draws"] / seconds
                    rows.append(row)
    except OSError as error:
        return [{"method": name, "status": "failed", "reason": str(error)}]
    return rows


def sweeps(table, _, *, pairs, **__):
    """A sweep alone, and a draw, which has its log density too, beside an EM iteration from the same mixture."""
    n, d, k = (1000, 2, 3) if table.smoke else (100_000, 2, 8)
    case, few, many = f"n={n} d={d} K={k}", 250, 750  # multiples of a chunk: one program
    if not table.lacks("sweeps", case):
        return
    x, start = standardised_problem(n, d, k)
    key, spec = jax.random.key(0), MixtureSpec(k)

    def seconds(n_warmup, n_draws):
        size = {"n_chains": 1, "n_warmup": n_warmup, "n_draws": n_draws}
        return seconds_of(lambda: bayes.gibbs(key, x, spec, init=start, **size).log_density)

    step = many - few
    calls = {
        "gibbs, a sweep": lambda: (seconds(many - 1, 1) - seconds(few - 1, 1)) / step,
        "gibbs, a draw": lambda: (seconds(1, many - 1) - seconds(1, few - 1)) / step,
        "EM": ITERATIONS[ONE_FIT].make(x, start, 0.0, 4 if table.smoke else 40),
    }
    interleave(calls, 1)  # compiles
    rows = compare(interleave(calls, pairs), ["EM"], {}, n=n, d=d, k=k)
    table.put("sweeps", case, rows)


PARTS = {"sweep": sweep, "samplers": compared, "cold": cold, "sweeps": sweeps}


# ---- what was found


def verdict(rows):
    """Whether what was measured meets the expectations, and the sentence with the numbers."""
    judged = [judge(rows) for judge in (verdict_samplers, verdict_cold, verdict_sweeps)]
    return all(met for met, _ in judged), "\n".join(said for _, said in judged if said)


def verdict_samplers(rows):
    """Medians and quartiles over data sets, and nuts' and gibbs' multiples of the others."""
    mine = [row for row in rows if row["part"] == "samplers"]
    parts, per_second = [], {}
    for name, runs in groups(mine, "method").items():
        good = {row["seed"]: row["effective_per_second"] for row in runs if row.get("effective_per_second") is not None}
        per_second[name] = good
        if not good:
            parts.append(f"{name}: {runs[0].get('reason') or 'every run unmixed'}")
            continue
        low, middle, high = np.quantile(list(good.values()), (0.25, 0.5, 0.75))
        bad = f", {len(runs) - len(good)} of {len(runs)} failed" if len(good) < len(runs) else ""
        parts.append(f"{name} {middle:.0f} ({low:.0f} to {high:.0f}{bad})")
    if not parts:
        return True, ""
    said, met = f"Effective draws a second, median and quartiles over data sets: {', '.join(parts)}", True
    for ours in OURS:
        ratios = {name: times(per_second, ours, name) for name in per_second if name not in OURS}
        known = {name: value for name, value in ratios.items() if value is not None}
        if known:
            said += f"\n{ours} gives " + "; ".join(f"{value:.3g} times {name}" for name, value in known.items())
        if ours == "nuts":
            met = all(known.get(name, least) >= least for name, least in LEAST.items())
    return met, said


def times(per_second, ours, name):
    """Median over data sets of our effective draws a second over another's; None where no pair mixed."""
    mine, theirs = per_second.get(ours, {}), per_second[name]
    both = [mine[seed] / theirs[seed] for seed in mine.keys() & theirs.keys()]
    return float(np.median(both)) if both else None


def verdict_cold(rows):
    """Medians over starts."""
    mine = [row for row in rows if row["part"] == "cold" and row.get("seconds") is not None]
    parts, met = [], True
    for name, of_one in groups(mine, "method").items():
        runs = groups(of_one, "cache")
        seconds = {state: float(np.median([row["seconds"] for row in found])) for state, found in runs.items()}
        draws = [row["effective_per_second"] for row in runs["empty"] if row.get("effective_per_second") is not None]
        worth = f", {np.median(draws):.3g} effective draws a second" if draws else ""
        parts.append(f"{name} {seconds['empty']:.1f} s, {seconds['filled']:.1f} s with the cache filled{worth}")
        if name.startswith("fit with"):
            met &= all(seconds[state] <= most for state, most in MOST_COLD.items())
    return met, f"Cold, compilation counted: {'; '.join(parts)}" if parts else ""


def verdict_sweeps(rows):
    """Seconds of a sweep over those of an iteration."""
    mine = [row for row in rows if row["part"] == "sweeps" and row.get("ratio") is not None]
    said = "; ".join(f"{row['method']} {row['ratio']:.2f} EM iterations ({row['case']})" for row in mine)
    met = all(row["ratio"] <= MOST_SWEEP for row in mine if row["method"] == "gibbs, a sweep")
    return met, f"{said}." if said else ""


if __name__ == "__main__":
    experiment(main)
