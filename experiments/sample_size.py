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

from pathlib import Path

import numpy as np
from shared import replications as many

from gmm_jax import problems
from gmm_jax.bench import plots
from gmm_jax.bench.study import Study
from gmm_jax.shell import experiment

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
    out: Path = Path("results"),
    smoke: bool = False,
) -> int:
    """One row a problem, size and method to out/sample_size; exit code 3 where the expectation is not met.

    Args:
        replications: data sets of each problem and size.
        posteriors: data sets among them that gibbs sees too.
        headline: data sets of the well-separated problem with 5,000 samples.
        headline_posteriors: data sets among them that gibbs sees too.
        out: folder for results.
        smoke: 4 data sets of one problem at two sizes, for tests.
    """
    options = {"replications": replications, "posteriors": posteriors, "headline": headline}
    options |= {"headline_posteriors": headline_posteriors}
    plan = [(name, n, replications, posteriors) for n in SIZES for name in PROBLEMS]
    plan[plan.index((SEPARATED, LARGE, replications, posteriors))] = (SEPARATED, LARGE, headline, headline_posteriors)
    if smoke:
        plan = [(SEPARATED, n, 4, 2) for n in (LARGE, SIZES[1])]
    with Study(__doc__, "sample_size", out, options, steps=len(plan), seeds=headline, smoke=smoke) as study:
        for name, n, *sizes in plan:
            chain = APART if name == SEPARATED else CHAIN
            study.add(*map(scaled, many.study_of(problems.load(name), n, *sizes, **chain)))
    looks = {
        "expected": {"efficiency": 1.0, "coverage": many.LEVEL},
        "logarithmic": ("n_samples", "efficiency", "kl"),
        "from_zero": ("ambiguous", "failed"),
    }
    for name in dict.fromkeys(row["problem"] for row in study.rows):
        mine = [row for row in study.rows if row["problem"] == name]
        plots.curves(study.folder / f"{name}.png", mine, "n_samples", PANELS, **looks)
    met, sentence = verdict(study.rows)
    return study.conclude(sentence, met=met)


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
    for name in dict.fromkeys(row["problem"] for row in rows):
        for method in ("em", "gibbs"):
            mine = [r for r in rows if (r["problem"], r["method"]) == (name, method)]
            said = ", ".join(
                f"{r['efficiency']:.3g} ± {r['efficiency_se']:.2g} / {r['coverage']:.1%} at {r['n_samples']}"
                for r in mine
            )
            lines.append(f"{name}, {method}: efficiency / coverage {said}")
    return bool(met), "\n".join(lines)


if __name__ == "__main__":
    experiment(main)
