"""How do error, coverage and efficiency depend on the number of samples?

Data: two problems of three components in two dimensions, one without overlap and one with much, at several n; without
    overlap and with 5,000 samples there are many more data sets, for the efficiency to two digits.
Estimands: φ, μ, Σ in free coordinates, components paired with the truth's.
Methods: EM from the best of four starts with transformed intervals; on some of the same data sets gibbs, its posterior
    mean with equal-tailed intervals.
Performance: efficiency tr(I·MSE)/p with its Monte-Carlo error and its share of bias, coverage of 95 % intervals, share
    of failures.

Expected: error·√n is constant and efficiency 1 once n is large; how large depends on the overlap. Without overlap, at
n = 5,000, the efficiency of EM lies in 0.97 to 1.03, that of the posterior mean within 0.02 + 3 standard errors of 1.
Found: see results/sample_size.
"""

import numpy as np

from gmm_jax import problems
from gmm_jax.shell import experiment
from shared import pictures
from shared import replications as many
from shared.cells import RUN, Options, ask, groups

PROBLEMS = ("well_separated", "overlapping")
SIZES = (100, 300, 1000, 5000, 20_000)
SEPARATED, LARGE = "well_separated", 5000  # of the headline
CHAIN = {"n_warmup": 100, "n_draws": 500, "thin": 2}
APART = {"n_warmup": 50, "n_draws": 500, "thin": 1}  # without overlap draws are all but independent
EM_WITHIN, POSTERIOR_WITHIN = 0.03, 0.02
PANELS = {
    "efficiency": "tr(I·MSE)/p; 1 at the bound",
    "coverage": "coverage of 95 % intervals",
    "scaled_error": "√n · root mean square error of μ",
    "kl": "KL from the truth, nats",
    "ambiguous": "share of ambiguous matches",
    "failed": "share of failures",
}


def main(
    *,
    replications: int = 250,
    posteriors: int = 20,
    headline: int = 4000,
    headline_posteriors: int = 1000,
    run: Options = RUN,
) -> int:
    """One row a problem, size and method to out/sample_size; exit code 3 where the expectation is not met.

    Args:
        replications: data sets of each problem and size.
        posteriors: data sets among them that gibbs sees too.
        headline: data sets of the well-separated problem with 5,000 samples.
        headline_posteriors: data sets among them that gibbs sees too.
        run: where to, and how much.
    """
    options = {"replications": replications, "posteriors": posteriors}
    options |= {"headline": headline, "headline_posteriors": headline_posteriors}
    few = (4, 2) if run.smoke else (replications, posteriors)
    places = [(SEPARATED, n) for n in (LARGE, SIZES[1])] if run.smoke else [(p, n) for n in SIZES for p in PROBLEMS]
    size = {(SEPARATED, LARGE): few if run.smoke else (headline, headline_posteriors)}
    names = ("problem", "n_samples", "data_sets", "posteriors")
    cells = [dict(zip(names, (*place, *size.get(place, few)), strict=True)) for place in places]
    return ask(__doc__, "sample_size", cells, one, verdict, run, options, seeds=headline, draw=draw)


def one(problem, n_samples, data_sets, posteriors):
    """A row a method."""
    chain = APART if problem == SEPARATED else CHAIN
    return [scaled(row) for row in many.study_of(problems.load(problem), n_samples, data_sets, posteriors, **chain)]


def draw(folder, rows):
    """Every number against n, a picture a problem."""
    looks = {
        "expected": {"efficiency": 1.0, "coverage": many.LEVEL},
        "logarithmic": ("n_samples", "efficiency", "kl"),
        "from_zero": ("ambiguous", "failed"),
    }
    for name, mine in groups(rows, "problem").items():
        pictures.curves(folder / f"{name}.png", mine, "n_samples", PANELS, **looks)


def scaled(row):
    """The row with error·√n, which is constant where the error is that of a regular estimator."""
    root = np.sqrt(row["n_samples"])
    error = {f"scaled_error{end}": root * row[f"rmse_means{end}"] for end in ("", "_se")}
    return row | error


def verdict(rows):
    """Whether the expectation is met, and the sentence with the numbers."""
    parts, met = [], True
    for row in rows:
        if (row["problem"], row["n_samples"]) != (SEPARATED, LARGE):
            continue
        value, se = row["efficiency"], row["efficiency_se"]
        within = EM_WITHIN if row["method"] == "em" else POSTERIOR_WITHIN + 3.0 * se
        met &= abs(value - 1.0) <= within
        parts.append(
            f"{row['method']} {value:.3f} ± {se:.3f} (of which bias {row['bias']:.3f}; coverage {row['coverage']:.1%}; "
            f"{row['replications']} data sets)"
        )
    lost = max(row["failed"] for row in rows)
    head = f"Without overlap, n = {LARGE}: efficiency of {'; of '.join(parts)}."
    lines = [f"{head} At most {lost:.1%} of the fits of a row failed."]
    for (name, method), mine in sorted(groups(rows, "problem", "method").items()):
        each = [
            f"{r['efficiency']:.3g} ± {r['efficiency_se']:.2g} / {r['coverage']:.1%} at {r['n_samples']}" for r in mine
        ]
        lines.append(f"{name}, {method}: efficiency / coverage {', '.join(each)}")
    return bool(met), "\n".join(lines)


if __name__ == "__main__":
    experiment(main)
