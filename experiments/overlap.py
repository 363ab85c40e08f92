"""How do error, coverage, efficiency and the share of ambiguous matches depend on the overlap of the components?

Data: random truths of three components in two dimensions, whose mean pairwise overlap is what was asked for; the
    arrangement stays while the overlap grows.
Estimands: φ, μ, Σ in free coordinates, components paired with the truth's.
Methods: EM from the best of four starts with transformed intervals; on some of the same data sets gibbs, its posterior
    mean with equal-tailed intervals.
Performance: efficiency tr(I·MSE)/p (1 at the Cramér–Rao bound), coverage of 95 % intervals, share of ambiguous matches,
    share of failures; means over truths, ± Monte-Carlo standard errors over data sets.

Expected: below an overlap of 0.03 efficiency 1, coverage 95 % and no ambiguous match; above, EM's error exceeds the
bound and its intervals cover less, and the posterior, which has a prior, does better on both. Found: see
results/overlap.
"""

import numpy as np

from gmm_jax import MixtureSpec, problems
from gmm_jax.bench.runner import derive_key
from gmm_jax.shell import experiment
from shared import pictures
from shared import replications as many
from shared.cells import RUN, Options, ask, groups

OVERLAPS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3)
N_COMPONENTS, N_FEATURES, N_SAMPLES = 3, 2, 2000
CHAIN = {"n_warmup": 200, "n_draws": 600, "thin": 3}
EASY, HARD = 0.03, 0.1  # overlaps up to which, and from which on, something is expected
PANELS = {
    "efficiency": "tr(I·MSE)/p; 1 at the bound",
    "coverage": "coverage of 95 % intervals",
    "kl": "KL from the truth, nats",
    "rmse_means": "root mean square error of μ",
    "ambiguous": "share of ambiguous matches",
    "failed": "share of failures",
}


def main(*, truths: int = 3, replications: int = 200, posteriors: int = 40, run: Options = RUN) -> int:
    """One row a truth, overlap and method to out/overlap; exit code 3 where the expectation is not met.

    Args:
        truths: arrangements of means and covariances.
        replications: data sets of each truth at each overlap.
        posteriors: data sets among them that gibbs sees too.
        run: where to, and how much.
    """
    options = {"truths": truths, "replications": replications, "posteriors": posteriors}
    overlaps, truths = (OVERLAPS[2:5:2], 1) if run.smoke else (OVERLAPS, truths)
    size = {"data_sets": 4, "posteriors": 2} if run.smoke else {"data_sets": replications, "posteriors": posteriors}
    cells = [{"overlap": overlap, "truth": truth, **size} for truth in range(truths) for overlap in overlaps]
    return ask(__doc__, "overlap", cells, one, verdict, run, options, seeds=replications, draw=draw)


def one(overlap, truth, data_sets, posteriors):
    """A row a method."""
    found = many.study_of(problem_with(truth, overlap), N_SAMPLES, data_sets, posteriors, **CHAIN)
    return [{"line": truth} | row for row in found]


def draw(folder, rows):
    """Every number against the overlap."""
    looks = {
        "expected": {"efficiency": 1.0, "coverage": many.LEVEL},
        "logarithmic": ("overlap", "efficiency", "kl", "rmse_means"),
        "from_zero": ("ambiguous", "failed"),
    }
    pictures.curves(folder / "overlap.png", rows, "overlap", PANELS, **looks)


def problem_with(truth, overlap):
    """A problem whose arrangement is drawn by `truth` alone."""
    key = derive_key(truth, "truth", "overlap")
    gmm = problems.mixture_with_overlap(key, N_COMPONENTS, N_FEATURES, mean=overlap)
    about = f"three components with a mean overlap of {overlap:g}"
    name = f"overlap_{truth}_{overlap:g}"
    return problems.Problem(name, about, gmm, MixtureSpec(N_COMPONENTS), N_SAMPLES, "as was asked for")


def verdict(rows):
    """Whether the expectation is met, and the sentence with the numbers."""
    parts, met = [], True
    for overlap, mine in groups(rows, "overlap").items():
        means = {method: over_truths(of_one) for method, of_one in groups(mine, "method").items()}
        said = [
            f"{method} efficiency {found['efficiency']:.3g} ± {found['efficiency_se']:.2g}, coverage "
            f"{found['coverage']:.1%} ± {found['coverage_se']:.1%}, ambiguous {found['ambiguous']:.1%}, failed "
            f"{found['failed']:.1%}"
            for method, found in means.items()
        ]
        parts.append(f"{overlap:g}: {'; '.join(said)} ({means['gibbs']['effective_draws']:.0f} effective draws)")
        if overlap <= EASY:
            for found in means.values():
                met &= abs(found["efficiency"] - 1.0) <= 0.05 + 3.0 * found["efficiency_se"]
                met &= abs(found["coverage"] - many.LEVEL) <= 0.01 + 3.0 * found["coverage_se"]
                met &= found["ambiguous"] == 0.0
        if overlap >= HARD:
            met &= all(means["gibbs"][name] < means["em"][name] for name in ("efficiency", "kl"))
    vague = "Where gibbs has few effective draws its chains were too short, and the numbers are not the posterior's."
    return bool(met), "\n".join([f"By mean overlap, means over truths. {vague}", *parts])


def over_truths(mine):
    """Every number's mean over truths, and the standard error of that mean."""
    names = [name for name, value in mine[0].items() if isinstance(value, float)]
    values = {name: np.array([row.get(name, np.nan) for row in mine], float) for name in names}
    return {
        name: np.sqrt(np.sum(value**2)) / len(value) if name.endswith("_se") else np.mean(value)
        for name, value in values.items()
    }


if __name__ == "__main__":
    experiment(main)
