r"""The one mixture that a Bayesian reports: of K components, the nearest to the posterior predictive density.

Among all densities q the posterior predictive p(x̃ | x) = E[p(x̃ | θ) | x] has the smallest posterior mean of
KL(p_θ ‖ q); among mixtures of K components it is the one with the smallest KL(p(· | x) ‖ q), since the two differ by a
constant. So it is the Bayes estimate of the density within the model, and needs no labels. To find it is maximum
likelihood, EM once more, on draws of the predictive.

A component that holds no samples is a draw from the prior, whose tails are heavy: a few rows so far out that the
nearest mixture would spend a component on them. These are left out.

The draws are a randomised Sobol sequence, not independent ones: its first coordinate chooses the component of a
posterior draw, in an order in which neighbours are alike, the others are its normals. Each component's rows so fill
space evenly, which in few dimensions is worth many times as many independent rows.

Reference:
    Aitchison (1975), Goodness of prediction fit, Biometrika 62; Goutis & Robert (1998), Model choice in generalised
    linear models: a Bayesian approach via Kullback–Leibler projections, Biometrika 85; Owen (1997), Annals of
    Statistics 25, for randomised sequences.
"""

from dataclasses import replace

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ..em import EMConfig, EMResult, fit_em_restarts
from ..mixture import GMM, MixtureSpec, Posterior, Status, structure
from ..mixture.checks import check_count, check_key
from .checks import check_posterior, check_spec, host_mixture
from .diagnostics import aligned, highest

MOST_DRAWS = 1000  # of the posterior, evenly spread: the others would add less than their error
CONFIG = EMConfig(max_iter=2000, tol=1e-9, reg_covar=0.0, acceleration="lbfgs")
FAR, MOST_FAR = 1e-9, 0.01  # probability of a row so far from a component, and the most that may be left out for it
COMPARED = 9  # draws by which that is judged
EDGE = 2.0**-40  # of a uniform number: a normal is at most 7 sds
NUMBERS = 1 << 22  # of factors that are held at a time


def point_estimate(
    key: Key[Array, ""], posterior: Posterior, spec: MixtureSpec, *, n_draws: int = 1 << 15, init: GMM | None = None
) -> EMResult:
    """The K-component mixture nearest in Kullback–Leibler divergence to the posterior predictive density.

    Args:
        spec: by which the posterior was drawn; what is known stays as it is.
        n_draws: rows of the predictive, rounded up to a power of two.
        init: a mixture from which EM starts, such as EM's fit to the data; by default the draw of highest density. It
            also starts from the mean of the draws in the labelling of that one, and is therefore at least as near.

    Returns:
        EMResult in the order of init's components; its log_likelihood and trace are sums over the rows drawn, not over
        the data.

    Raises:
        ValueError: the posterior's draws are not mixtures of this spec, or not finite.
    """
    check_key(key)
    check_count(n_draws, "n_draws", 100)
    _check_draws(posterior, spec)
    first = highest(posterior) if init is None else host_mixture(init, "init", like=posterior.draws)
    if (np.shape(first.weights), first.covariance_type) != ((spec.n_components,), spec.covariance_type):
        raise ValueError(
            f"init must be one mixture of {spec.n_components} components and {spec.covariance_type} covariances; got "
            f"weights of shape {np.shape(first.weights)} and {first.covariance_type} covariances."
        )
    draws = aligned(_thinned(posterior, MOST_DRAWS), first, spec)
    mean = jax.tree.map(lambda leaf: np.mean(leaf, axis=(0, 1)), draws)
    starts = jax.tree.map(lambda *leaves: np.stack(leaves), first, mean)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)
    rows = predictive_rows(key, flat, n_draws)
    rows = rows[_near(flat, rows)]
    for config in (CONFIG, replace(CONFIG, acceleration="none")):  # bold steps may empty a component
        # of data's optima the criterion prefers another than the likeliest at times; here that one is the nearest
        found = fit_em_restarts(key, rows, spec, init=starts, config=config, criterion="likelihood").best
        if Status(int(found.status)).ok:
            break
    return found


def predictive_rows(key: Key[Array, ""], gmms: GMM, n: int) -> Float[np.ndarray, "n D"]:
    """Rows from the mean density of mixtures (M, ...), n rounded up to a power of two, of a randomised Sobol sequence.

    Each row has exactly that law, and all together fill it more evenly than independent ones if components of one
    place are alike.
    """
    from scipy.special import ndtri
    from scipy.stats.qmc import Sobol

    (n_mixtures, n_components), n_features = np.shape(gmms.weights), gmms.n_features
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    u = Sobol(1 + n_features, rng=rng).random_base2(int(n - 1).bit_length())
    u = u[np.argsort(u[:, 0], kind="stable")]
    order = np.argsort(np.asarray(gmms.means, float)[..., 0], axis=0, kind="stable").T  # (K, M): neighbours are alike
    component, draw = np.repeat(np.arange(n_components), n_mixtures), order.ravel()
    ends = np.cumsum(np.asarray(gmms.weights, float)[draw, component])
    chosen = np.minimum(np.searchsorted(ends, u[:, 0] * ends[-1], side="right"), ends.size - 1)
    normals = ndtri(np.clip(u[:, 1:], EDGE, 1.0 - EDGE))
    means, rows = np.asarray(gmms.means, float), np.empty_like(normals)
    at_once = max(1, NUMBERS // n_features**2)
    for first in range(0, len(rows), at_once):
        part = slice(first, first + at_once)
        cells, place = np.unique(chosen[part], return_inverse=True)
        factors = _factors(gmms, draw[cells], component[cells])
        offsets = np.einsum("nij,nj->ni", factors[place], normals[part])
        rows[part] = means[draw[chosen[part]], component[chosen[part]]] + offsets
    return rows.astype(np.asarray(gmms.means).dtype)


def _near(gmms, rows):
    """Which rows are not far from every component of most mixtures (M, ...); and more, where far ones are many."""
    from scipy.stats import chi2

    some = np.unique(np.linspace(0, len(gmms.weights) - 1, COMPARED).round().astype(int))

    def distance(draw):
        components = np.arange(gmms.n_components)
        roots, means = _factors(gmms, np.full_like(components, draw), components), gmms.means[draw]
        each = [np.linalg.solve(root, (rows - mean).T) for root, mean in zip(roots, means, strict=True)]
        return np.min([np.sum(y * y, axis=0) for y in each], axis=0)

    typical = np.median([distance(draw) for draw in some], axis=0)
    return typical <= max(chi2.isf(FAR, rows.shape[1]), np.quantile(typical, 1.0 - MOST_FAR))


def _factors(gmms, draw, component):
    """Cholesky factors (n, D, D) of these components."""
    covariances = np.asarray(gmms.covariances, float)[draw]
    kind = structure(gmms.covariance_type)
    dense = kind.dense(covariances, *np.shape(gmms.means)[-2:])
    return np.linalg.cholesky(dense[np.arange(len(draw)), component])


def _thinned(posterior, most):
    """At most so many of the draws, evenly spread over every chain."""
    n_chains, n_draws = np.shape(posterior.log_density)
    places = np.unique(np.linspace(0, n_draws - 1, max(1, min(n_draws, most // n_chains))).round().astype(int))
    draws = jax.tree.map(lambda leaf: np.asarray(leaf)[:, places], posterior.draws)
    return posterior._replace(draws=draws, log_density=np.asarray(posterior.log_density)[:, places])


def _check_draws(posterior, spec):
    draws, spec = check_posterior(posterior).draws, check_spec(spec)
    if (draws.n_components, draws.covariance_type) != (spec.n_components, spec.covariance_type):
        raise ValueError(
            f"posterior holds mixtures of {draws.n_components} components with {draws.covariance_type} covariances, "
            f"and spec says {spec.n_components} and {spec.covariance_type}: pass the spec by which it was drawn."
        )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(draws)):
        raise ValueError("posterior has draws that are not finite: leave these out.")
