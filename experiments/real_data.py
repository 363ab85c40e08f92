"""Are published fits of real data found again from random starts, and are they the best there is?

Data: data sets of the literature, in the units of the publication.
Estimands: the log-likelihood in nats of the best optimum that is not spurious of a printed specification.
Methods: ours, and scikit-learn with the same number of starts, its answer judged by the same rule.
Performance: the difference from what was printed, whose last digit is the measure; no sampling, so no Monte-Carlo
    error.

Expected: ours never below what was published, and above it where the published fit had stopped early. Found: see
results/real_data.
"""

import numpy as np

from gmm_jax import GMM, Known, MixtureSpec, Status, em, log_prob
from gmm_jax.bench import methods
from gmm_jax.bench.runner import derive_key
from gmm_jax.problems import datasets
from gmm_jax.shell import experiment
from shared.cells import RUN, Options, ask

CONFIG = em.EMConfig(max_iter=5000, tol=1e-12, reg_covar=0.0)
KNOWN_VARIANCES = MixtureSpec(5, known=Known(covariances=np.full((5, 1, 1), 0.9025)))
CASES = {  # data set, unit, columns, specification, published log-likelihood, its last digit
    "SAS, PROC FMM, getting started": ("galaxies_roeder", 1000.0, (0,), KNOWN_VARIANCES, -206.1, 0.05),
    "mclust vignette, V,3": ("galaxies_mass", 1000.0, (0,), MixtureSpec(3), -203.1792, 5e-5),
    "mclust vignette, E,2": ("acidity", 1.0, (0,), MixtureSpec(2, "tied"), -185.9493, 5e-5),
    "mclust vignette, EEE,3": ("faithful", 1.0, (0, 1), MixtureSpec(3, "tied"), -1126.326, 5e-4),
    "mixtools vignette, recomputed": ("faithful", 1.0, (1,), MixtureSpec(2), -1034.00175, 5e-6),
    "recomputed, K = 2": ("iris", 1.0, (0, 1, 2, 3), MixtureSpec(2), -214.354704, 5e-7),
    "recomputed, K = 3": ("iris", 1.0, (0, 1, 2, 3), MixtureSpec(3), -180.185477, 5e-7),
}


def main(*, restarts: int = 50, run: Options = RUN) -> int:
    """One row a case to out/real_data; exit code 3 where ours lies below what was published.

    Args:
        restarts: starts of ours, k-means++, and of scikit-learn, k-means.
        run: where to, and how much.
    """
    sources, n_starts = (list(CASES)[4:5], 5) if run.smoke else (list(CASES), restarts)
    cells = [{"source": source, "restarts": n_starts} for source in sources]
    return ask(__doc__, "real_data", cells, one, verdict, run, {"restarts": restarts})


def one(source, restarts):
    """Ours, what was published, and scikit-learn's where it can fit the case."""
    name, unit, columns, spec, published, digit = CASES[source]
    x = datasets.load(name)[0][:, list(columns)] / unit
    key = derive_key(0, "method", name, str(spec.n_components))
    found = em.fit_em_restarts(key, x, spec, n_restarts=restarts, config=CONFIG)
    sound = ~found.optima.spurious
    return {
        "data": name,
        "n_samples": len(x),
        "n_features": x.shape[1],
        "n_components": spec.n_components,
        "covariance_type": spec.covariance_type,
        "known": "variances" if spec.known.covariances is not None else "",
        "published": published,
        "published_digit": digit,
        "status": Status(int(found.best.status)).name,
        "log_likelihood": float(found.best.log_likelihood),
        "optima": int(sound.sum()),
        "spurious": int((~sound).sum()),
        "share_at_best": int(found.optima.count[sound][:1].sum()) / restarts,
    } | sklearn_of(key, x, spec, restarts)


def sklearn_of(key, x, spec, restarts):
    """The log-likelihood of scikit-learn's best of as many starts, and why it is spurious where it is."""
    try:
        point = methods.load("sklearn_em").fit(key, x, spec, n_init=restarts, tol=1e-8, max_iter=2000).point
    except methods.NotSupported as error:  # known parts, or not installed
        return {"sklearn": None, "sklearn_note": str(error)}
    point = GMM(
        *(np.asarray(leaf, float) for leaf in (point.weights, point.means, point.covariances)), spec.covariance_type
    )
    return {"sklearn": float(np.sum(log_prob(point, x))), "sklearn_note": em.spurious(x, point, spec)}


def verdict(rows):
    """Whether the expectation is met, and the sentence with the numbers."""
    gaps = {f"{row['data']} K={row['n_components']}": row["log_likelihood"] - row["published"] for row in rows}
    digits = [row["published_digit"] for row in rows]
    reached = sum(gap >= -digit for gap, digit in zip(gaps.values(), digits, strict=True))
    higher = [f"{name} by {gap:.3g}" for (name, gap), d in zip(gaps.items(), digits, strict=True) if gap > 2.0 * d]
    peers = {name: row for name, row in zip(gaps, rows, strict=True) if row["sklearn"] is not None}
    below = [name for name, row in peers.items() if row["sklearn"] < row["log_likelihood"] - 1e-3]
    odd = [f"{name} ({row['sklearn_note']})" for name, row in peers.items() if row["sklearn_note"]]
    sentence = (
        f"Of {len(rows)} published fits {reached} are reached to their digits; above them: "
        f"{', '.join(higher) or 'none'}. scikit-learn's best of as many starts is lower for "
        f"{', '.join(below) or 'none'}, and spurious for {', '.join(odd) or 'none'}."
    )
    return reached == len(rows), sentence


if __name__ == "__main__":
    experiment(main)
