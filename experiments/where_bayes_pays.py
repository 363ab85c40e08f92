"""Where does EM suffice, where does a posterior pay, and what does it cost?

Data: mixtures of 2 to 8 components of equal weight in 1 to 10 dimensions, with 5 to 100 samples a free parameter (at
    most 8,000), evenly spread in K, D and log n; four of each size, one in each quarter of mean pairwise overlaps from
    0.001 to 0.3 on a log scale; one data set each.
Estimands: the density; every free number of φ, μ and Σ, components paired with the truth's.
Methods: GaussianMixture of 20 starts, converged, with transformed intervals; our BayesianGaussianMixture with its
    defaults, its point the mixture nearest to the posterior predictive density, with equal-tailed intervals;
    scikit-learn's GaussianMixture of 20 starts, converged and at its default tol of 1e-3, on one thread.
Performance: KL divergence from the truth on 32,768 draws of it as a multiple of EM's, geometric mean ± standard error
    over truths; coverage of 95 % intervals, all trials counted, and their lengths; the error of the reported standard
    error, from squared errors in its units, where no other pairing with the truth costs less than twice as much;
    seconds, while two processes share the machine.

Expected: the posterior's point at most 0.88 of EM's divergence, nearer the fewer samples and the larger the overlap;
coverage of its intervals between 93 and 97 % up to an overlap of 0.1. Found: see results/where_bayes_pays.
"""

import jax
import numpy as np

from gmm_jax import MixtureSpec, problems
from gmm_jax.bench.runner import derive_key
from gmm_jax.mixture import n_parameters
from gmm_jax.shell import experiment
from shared import pictures
from shared.cells import RUN, Options, ask
from shared.paired import paired_ratio
from shared.trials import median_seconds, trials
from shared.truths import draw

METHODS = ("em", "bayes", "sklearn_em", "sklearn_em_default_tol")
COMPONENTS, FEATURES, OVERLAP, SAMPLES, MOST = (2, 8), (1, 10), (0.001, 0.3), (5.0, 100.0), 8_000
OF_A_SIZE, SALT = 4, 18  # truths of each size; other random numbers than those of other experiments
SMALL = {"n_components": 2, "n_features": 2, "n_samples": 300}
EDGES = {"overlap": (0.01, 0.1), "samples_per_parameter": (15.0, 40.0)}  # of the classes that the answer names
DIMENSIONS = {(1, 3): "1 to 3 features", (4, 6): "4 to 6 features", (7, 10): "7 to 10 features"}
PEERS = {"converged": "sklearn_em", "at its default tol": "sklearn_em_default_tol"}
CLEAR, COVERAGE, MOST_RATIO, SUFFICES = 0.1, (0.93, 0.97), 0.88, 0.95


def main(*, sizes: int = 50, workers: int = 2, run: Options = RUN) -> int:
    """One row a truth and method to out/where_bayes_pays; exit code 3 where an expectation is not met.

    Args:
        sizes: how many; of each there are four truths, which need the same programs.
        workers: processes that share the sizes, as compiling and scikit-learn use one core.
        run: where to, and how much.
    """
    options = {"sizes": sizes, "workers": workers}
    cells, workers = ([{"size": 0, **SMALL}], 1) if run.smoke else (design(sizes), workers)
    about = {"seeds": OF_A_SIZE * sizes, "workers": workers, "draw": picture}
    return ask(__doc__, "where_bayes_pays", cells, compare, verdict, run, options, **about)


def design(sizes):
    """A cell a size: numbers of components, features and samples, by a sequence that fills their ranges evenly."""
    from scipy.stats.qmc import Halton

    cells = []
    for size, u in enumerate(Halton(3, rng=np.random.default_rng(SALT)).random(sizes).tolist()):
        k, d = whole(u[0], *COMPONENTS), whole(u[1], *FEATURES)
        free = n_parameters(MixtureSpec(k), d)
        n = round(geometric(u[2], SAMPLES[0] * free, min(SAMPLES[1] * free, MOST)))
        cells.append({"size": size, "n_components": k, "n_features": d, "n_samples": n})
    return cells


def whole(u, low, high):
    """A whole number of low, ..., high for u in [0, 1)."""
    return int(low + (high - low + 1) * u)


def geometric(u, low, high):
    """From low to high, even in its logarithm."""
    return low * (high / low) ** u


def compare(size, n_components, n_features, n_samples):
    """A row a truth and method: one truth in each quarter of the overlaps."""
    rng, rows = np.random.default_rng([size, SALT]), []
    per_parameter = n_samples / n_parameters(MixtureSpec(n_components), n_features)
    for quarter, u in enumerate(rng.random(OF_A_SIZE)):
        truth, overlap = size * OF_A_SIZE + quarter, geometric((quarter + u) / OF_A_SIZE, *OVERLAP)
        key_truth, key_test = (derive_key(truth, axis, "where_bayes_pays") for axis in ("truth", "test"))
        gmm = problems.mixture_with_overlap(key_truth, n_components, n_features, mean=overlap)
        x = draw(rng, jax.tree.map(lambda leaf: leaf[None], gmm), n_samples)[0]
        head = {"truth": truth, "overlap": overlap, "samples_per_parameter": per_parameter}
        rows += [head | row for row in trials(METHODS, key_test, x, gmm, seed=truth)]
    return rows


def picture(folder, rows):
    """The ratio of divergences at each truth's samples a parameter and overlap, a panel a range of dimensions."""
    panels = {}
    for (low, high), title in DIMENSIONS.items():
        mine = [row for row in rows if low <= row["n_features"] <= high]
        found = pairs(mine, "kl")
        ratio = over_em(mine, "bayes")
        title = title if ratio is None else f"{title}: {ratio}"
        panels[title] = [bayes | {"ratio": bayes["kl"] / em["kl"]} for em, bayes in found]
    axes = {"samples_per_parameter": "samples a free parameter", "overlap": "mean overlap of two components"}
    what = "KL(truth ‖ bayes) / KL(truth ‖ em)"
    pictures.ratios(folder / "where_bayes_pays.png", panels, axes, "ratio", what, size="n_components", edges=EDGES)


def over_em(rows, method, column="kl"):
    """Its divergence as a multiple of em's, or None where it is not known."""
    return paired_ratio(rows, method, "em", column, place=("truth",))


def pairs(rows, column):
    """(em's row, bayes' row) of every truth where both have a positive number in this column."""
    em, bayes = ({row["truth"]: row for row in rows if row["method"] == name} for name in ("em", "bayes"))
    both = ((em[truth], bayes[truth]) for truth in em if truth in bayes)
    return [pair for pair in both if all((row.get(column) or 0.0) > 0.0 for row in pair)]


def verdict(rows):
    """Whether the expectations are met, and the answer in words and numbers."""
    bayes = [row for row in rows if row["method"] == "bayes"]
    clear = [row for row in rows if row["overlap"] <= CLEAR]
    classes, ratio = by_class(rows), over_em(rows, "bayes")
    coverage = np.mean([row.get("coverage") or 0.0 for row in clear if row["method"] == "bayes"] or [np.nan])
    met = ratio is not None and ratio.value <= MOST_RATIO and COVERAGE[0] <= coverage <= COVERAGE[1]
    columns = {"its predictive": ("bayes", "kl_predictive")}
    columns |= {f"scikit-learn {how}": (name, "kl") for how, name in PEERS.items()}
    others = (f"{name} {over_em(rows, *column)}" for name, column in columns.items())
    doubtful = sum(row["status"] != "SAMPLED" for row in bayes)
    lines = [
        in_words(classes),
        f"Median seconds of a fit: {median_seconds(rows)}; {doubtful} of {len(bayes)} posteriors not mixed.",
        f"Divergence as a multiple of em's, {len(bayes)} truths: bayes {ratio}, {', '.join(others)}.",
        *(f"Of these at {name}: bayes {ratio}, {ratio.n} truths." for name, ratio in classes.items()),
    ]
    for where, some in ((f"overlap up to {CLEAR:g}", clear), ("all overlaps", rows)):
        of = {method: [row for row in some if row["method"] == method] for method in ("em", "bayes")}
        lines += [f"Intervals of {method}, {where}: {of_errors(mine)}." for method, mine in of.items()]
    return bool(met), "\n".join([*lines, f"Intervals of bayes are {lengths(rows)} as long as em's."])


def by_class(rows):
    """Class of overlap and samples a parameter, in words -> the ratio of bayes to em, where two truths or more are."""
    found = {}
    for row in rows:
        places = [int(np.searchsorted(edges, row[column], side="right")) for column, edges in EDGES.items()]
        found.setdefault(tuple(places), []).append(row)
    names = [[f"under {low:g}", f"{low:g} to {high:g}", f"over {high:g}"] for low, high in EDGES.values()]
    ratios = {place: over_em(mine, "bayes") for place, mine in sorted(found.items())}
    said = "overlap {} with {} samples a parameter"
    return {said.format(names[0][i], names[1][j]): ratio for (i, j), ratio in ratios.items() if ratio is not None}


def in_words(classes):
    """Where each method is the one to take."""
    enough = [name for name, ratio in classes.items() if ratio.value >= SUFFICES]
    little = f"a posterior gains less than {1.0 - SUFFICES:.0%}"
    if len(enough) == len(classes):
        return f"EM suffices: {little} everywhere."
    most = min(classes, key=lambda name: classes[name].value)
    where = f"EM suffices at {'; '.join(enough)}: there {little}; elsewhere it pays" if enough else "A posterior pays"
    return f"{where}, most at {most}: its divergence is {classes[most]} of EM's."


def of_errors(rows):
    """Coverage, and how far the reported standard errors are off: numbers ± Monte-Carlo standard errors over truths.

    The latter where components are paired with the truth's beyond doubt: of another pairing an error says nothing.
    """
    if len(rows) < 2:
        return "too few trials"
    hits = np.array([row.get("coverage") or 0.0 for row in rows], float)
    clear = [row for row in rows if not row.get("ambiguous", True)]
    squares = np.array([row["z_square"] for row in clear if np.isfinite(row.get("z_square") or np.nan)], float)
    said = f"coverage {hits.mean():.1%} ± {hits.std(ddof=1) / np.sqrt(hits.size):.1%} of {hits.size} trials"
    if squares.size < 2:
        return said
    mean = squares.mean()
    error = 0.5 * mean**-1.5 * squares.std(ddof=1) / np.sqrt(squares.size)
    off, typical = (1.0 / np.sqrt(square) - 1.0 for square in (mean, np.median(squares)))
    return (
        f"{said}; in the {squares.size} whose pairing with the truth is clear standard errors are {off:+.0%} ± "
        f"{error:.0%} off (at the median truth {typical:+.0%})"
    )


def lengths(rows):
    """Geometric mean ratio of the intervals' lengths, ± its standard error."""
    logs = [np.log(bayes["length"] / em["length"]) for em, bayes in pairs(rows, "length")]
    if len(logs) < 2:
        return "an unknown number of times"
    ratio = np.exp(np.mean(logs))
    return f"{ratio:.2f} ± {ratio * np.std(logs, ddof=1) / np.sqrt(len(logs)):.2f} times"


if __name__ == "__main__":
    experiment(main)
