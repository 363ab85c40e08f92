"""Where does EM suffice, where does a posterior pay, and what does it cost?

Data: mixtures of 2 to 8 components of equal weight in 1 to 10 dimensions, with a mean pairwise overlap of 0.001 to 0.3
    and 5 to 100 samples a free parameter (both even in their logarithm; at most 8,000 samples), all four evenly spread;
    one data set each.
Estimands: the density; every free number of φ, μ and Σ, components paired with the truth's.
Methods: GaussianMixture of 20 starts, converged, with transformed intervals; our BayesianGaussianMixture with its
    defaults, its point the mixture nearest to the posterior predictive density, with equal-tailed intervals;
    scikit-learn's GaussianMixture of 20 starts, converged and at its default tol of 1e-3, on one thread.
Performance: KL divergence from the truth on 32,768 draws of it as a multiple of EM's, geometric mean ± standard error
    over truths; coverage of 95 % intervals, all trials counted, and their lengths; the error of the reported standard
    error, from squared errors in its units; seconds.

Expected: the posterior's point at most 0.88 of EM's divergence, nearer the fewer samples and the larger the overlap;
coverage of its intervals between 93 and 97 % up to an overlap of 0.1. Found: see results/where_bayes_pays.
"""

from functools import partial

import jax
import numpy as np

from gmm_jax import MixtureSpec, problems
from gmm_jax.bench.runner import derive_key
from gmm_jax.mixture import n_parameters
from gmm_jax.shell import experiment
from shared import pictures
from shared.cells import RUN, Options, ask, groups
from shared.paired import paired_ratio
from shared.trials import median_seconds, trials
from shared.truths import draw

METHODS = ("em", "bayes", "sklearn_em", "sklearn_em_default_tol")
COMPONENTS, FEATURES, OVERLAP, SAMPLES, MOST = (2, 8), (1, 10), (0.001, 0.3), (5.0, 100.0), 8_000
EDGES = {"overlap": (0.01, 0.1), "samples_per_parameter": (15.0, 40.0)}  # of the classes that the answer names
DIMENSIONS = {(1, 3): "1 to 3 features", (4, 6): "4 to 6 features", (7, 10): "7 to 10 features"}
CLEAR, COVERAGE, MOST_RATIO, SUFFICES = 0.1, (0.93, 0.97), 0.88, 0.95
AT = ("truth",)


def main(*, truths: int = 200, run: Options = RUN) -> int:
    """One row a truth and method to out/where_bayes_pays; exit code 3 where an expectation is not met.

    Args:
        truths: mixtures; the first of more are the same.
        run: where to, and how much.
    """
    cells = design(truths)
    if run.smoke:
        cells = [cell | {"n_components": 2, "n_features": 2, "n_samples": 40 + 20 * cell["truth"]} for cell in cells[:2]]
    options = {"truths": truths}
    return ask(__doc__, "where_bayes_pays", cells, compare, verdict, run, options, seeds=truths, draw=picture)


def design(truths):
    """A cell a truth: sizes, overlap and samples by a sequence that fills their four ranges evenly."""
    from scipy.stats.qmc import Halton

    cells = []
    for truth, u in enumerate(Halton(4, rng=np.random.default_rng(18)).random(truths)):
        (k, d), (overlap, share) = between(u[:2], COMPONENTS, FEATURES), u[2:]
        free = n_parameters(MixtureSpec(k), d)
        low, high = SAMPLES[0] * free, min(SAMPLES[1] * free, MOST)
        size = {"n_components": k, "n_features": d, "n_samples": round(low * (high / low) ** share)}
        cells.append({"truth": truth, **size, "overlap": float(f"{OVERLAP[0] * (OVERLAP[1] / OVERLAP[0]) ** overlap:.3g}")})
    return cells


def between(u, *ranges):
    """Whole numbers of these ranges, both ends with them, from numbers of the unit interval."""
    return [int(low + (high - low + 1) * one) for one, (low, high) in zip(u, ranges, strict=True)]


def compare(truth, n_components, n_features, n_samples, overlap):
    """A row a method."""
    key = derive_key(truth, "truth", "where_bayes_pays")
    gmm = problems.mixture_with_overlap(key, n_components, n_features, mean=overlap)
    x = draw(np.random.default_rng([truth, 18]), jax.tree.map(lambda leaf: leaf[None], gmm), n_samples)[0]
    about = {"samples_per_parameter": n_samples / n_parameters(MixtureSpec(n_components), n_features)}
    rows = trials(METHODS, derive_key(truth, "test", "where_bayes_pays"), x, gmm, seed=truth)
    return [about | row for row in rows]


def picture(folder, rows):
    """The ratio of divergences at each truth's overlap and samples a parameter, a panel a range of dimensions."""
    panels = {}
    for (low, high), title in DIMENSIONS.items():
        mine = [row for row in rows if low <= row["n_features"] <= high]
        ratio = paired_ratio(mine, "bayes", "em", place=AT)
        panels[title if ratio is None else f"{title}: {ratio}"] = [
            {**bayes, "ratio": bayes["kl"] / em["kl"]} for em, bayes in pairs(mine, "kl")
        ]
    axes = {"samples_per_parameter": "samples a free parameter", "overlap": "mean overlap of two components"}
    what = "KL(truth ‖ bayes) / KL(truth ‖ em)"
    pictures.ratios(folder / "where_bayes_pays.png", panels, axes, "ratio", what, size="n_components", edges=EDGES)


def pairs(rows, column):
    """(em's row, bayes' row) of every truth where both have a positive number in this column."""
    by = {method: {row["truth"]: row for row in of_one} for method, of_one in groups(rows, "method").items()}
    em, bayes = (by.get(method, {}) for method in ("em", "bayes"))
    both = [(em[truth], bayes[truth]) for truth in em if truth in bayes]
    return [pair for pair in both if all((row.get(column) or np.nan) > 0.0 for row in pair)]


def verdict(rows):
    """Whether the expectations are met, and the answer in words and numbers."""
    of = {method: [row for row in rows if row["method"] == method] for method in METHODS}
    over_all, classes = paired_ratio(rows, "bayes", "em", place=AT), by_class(rows)
    suffices = [name for name, ratio in classes.items() if ratio.value >= SUFFICES]
    pays = sorted((name for name in classes if name not in suffices), key=lambda name: classes[name].value)
    clear = {m: [row for row in of[m] if row["overlap"] <= CLEAR] for m in ("em", "bayes")}
    coverage = np.mean([row.get("coverage", 0.0) for row in clear["bayes"]] or [np.nan])
    doubtful = sum(row["status"] != "SAMPLED" for row in of["bayes"])
    lines = [
        f"EM suffices, within 5 % of the posterior's divergence or nearer, at {'; '.join(suffices) or 'none'}. "
        f"A posterior pays at {'; '.join(pays) or 'none'} (in the order of what it gains). It costs, medians: "
        f"{median_seconds(rows)}; {doubtful} of {len(of['bayes'])} posteriors not mixed.",
        f"Divergence as a multiple of em's, {len(of['em'])} truths: "
        + "; ".join(
            f"{name} {paired_ratio(rows, method, 'em', column, AT)}"
            for name, method, column in (
                ("bayes", "bayes", "kl"),
                ("its predictive", "bayes", "kl_predictive"),
                ("scikit-learn converged", "sklearn_em", "kl"),
                ("scikit-learn at its default tol", "sklearn_em_default_tol", "kl"),
            )
        ),
        *(f"{name}: {ratio}, {ratio.n} truths" for name, ratio in classes.items()),
        *(f"{method} up to an overlap of {CLEAR:g}: {of_errors(mine)}" for method, mine in clear.items()),
        *(f"{method} at all overlaps: {of_errors(of[method])}" for method in clear),
        f"Intervals of bayes are {lengths(rows)} times as long as em's (geometric mean, where both have some).",
    ]
    met = over_all is not None and over_all.value <= MOST_RATIO and COVERAGE[0] <= coverage <= COVERAGE[1]
    return bool(met), "\n".join(lines)


def by_class(rows):
    """Class of overlap and samples a parameter, in words -> the ratio of bayes to em, where at least two truths are."""
    found = {}
    for row in rows:
        name = ", ".join(within(row[column], column) for column in ("overlap", "samples_per_parameter"))
        found.setdefault(name, []).append(row)
    ratios = {name: paired_ratio(mine, "bayes", "em", place=AT) for name, mine in sorted(found.items())}
    return {name: ratio for name, ratio in ratios.items() if ratio is not None}


def within(value, column):
    """The class of a number in words."""
    low, high = EDGES[column]
    what = column.replace("_", " ").replace("per", "a")
    return f"{what} " + (f"below {low:g}" if value < low else f"from {high:g}" if value >= high else f"{low:g} to {high:g}")


def of_errors(rows):
    """Coverage, and how far the reported standard error is off, over truths ± Monte-Carlo standard error."""
    if len(rows) < 2:
        return "too few trials"
    hits = np.array([row.get("coverage", 0.0) for row in rows], float)
    squares = np.array([row["z_square"] for row in rows if np.isfinite(row.get("z_square") or np.nan)], float)
    none = sum(not np.isfinite(row.get("length") or np.nan) for row in rows)
    said = f"coverage {hits.mean():.1%} ± {hits.std(ddof=1) / np.sqrt(hits.size):.1%}, {none} of {hits.size} without intervals"
    if squares.size < 2:
        return said
    typical = 1.0 / np.sqrt(np.median(squares)) - 1.0
    mean = squares.mean()
    off, error = 1.0 / np.sqrt(mean) - 1.0, 0.5 * mean**-1.5 * squares.std(ddof=1) / np.sqrt(squares.size)
    return f"{said}; standard error {off:+.1%} ± {error:.1%} off, at the median truth {typical:+.1%}"


def lengths(rows):
    """Geometric mean ratio of the lengths, ± its standard error."""
    logs = [np.log(bayes["length"] / em["length"]) for em, bayes in pairs(rows, "length")]
    if len(logs) < 2:
        return "nan"
    return f"{np.exp(np.mean(logs)):.2f} ± {np.exp(np.mean(logs)) * np.std(logs, ddof=1) / np.sqrt(len(logs)):.2f}"


if __name__ == "__main__":
    experiment(main)
