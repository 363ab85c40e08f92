"""What the Bayesian methods report besides their posterior: what it cost, and on which terms it was had."""

import jax
import numpy as np

from ...bayes.target import density_of, finish
from ...judge import PosteriorFit
from ...mixture import Fit, MixtureSpec, Posterior
from ._peers import em_evaluations, terms

GRADIENT = 3  # component densities that a gradient of one costs, as is usually counted


def on_terms(found: PosteriorFit, x, spec: MixtureSpec, passes: float, threads="XLA's own", precision=None) -> Fit:
    """The fit with what it cost, EM's starts and `passes` over the data, and on which terms it ran.

    precision: by default that of the answer.
    """
    fit, n_restarts = found.fit, found.starts.fits.status.size
    cost = em_evaluations(found.starts, x, spec) + passes * len(x) * spec.n_components
    info = {"density_evaluations": int(cost)} | terms(
        start=f"EM's optima, best of {n_restarts} by kmeans++",
        reg_covar="none",
        tol=None,
        tol_is="none: it samples",
        threads=threads,
        precision=precision or str(fit.point.means.dtype),
        same_prior="yes",
    )
    return fit._replace(info=fit.info | info)


def gradients(posterior: Posterior, n_warmup: int) -> float:
    """Passes over the data that NUTS' gradients amount to; steps of warm-up, which are not kept, as many as others."""
    n_chains, n_draws = posterior.log_density.shape
    return GRADIENT * float(np.mean(posterior.stats["n_steps"])) * n_chains * (n_draws + n_warmup)


def posterior_of(problem, scaling, draws, stats, status) -> Posterior:
    """The posterior of standardised draws that another program has made, with our log density of each."""
    inner = jax.tree.map(lambda leaf: np.asarray(leaf, problem.z.dtype), draws)
    return finish(problem, scaling, draws, _density(problem, inner), stats, status)


_density = jax.jit(density_of)
