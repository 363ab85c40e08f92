"""Where chains start, and which mode a mixture belongs to: EM's optima, and EM's climb to the posterior's modes."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..em import EMConfig, Restarts, fit_em, fit_em_restarts
from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, Status, check_data, standardise, validate_spec
from ..mixture.checks import check_count
from ..mixture.cores import in_batches
from ..mixture.programs import jit
from .checks import check_spec
from .prior import default_prior, hyperparameters

NEAR = 10.0  # nats: optima lower than this below the best carry no posterior mass worth a chain
CLIMB_TOL = 1e-9  # gain in mean log-likelihood at which a climb to a mode ends
CLIMB_NUMBERS = 1 << 22  # N·D·K·mixtures that climb at a time


def starts_from_em(
    key, x, spec: MixtureSpec, n_chains: int, *, n_restarts: int | None = None, labels=None, missing: str | None = None
) -> tuple[GMM | None, Restarts]:
    """A start for each chain, the best EM optimum and the distinct ones within 10 nats of it (by EM's
    criterion, an approximate evidence) in turn; and EM's fits.

    Chains that start in different optima and stay there are seen by R-hat; had all started in one, it would be blind.
    None where EM failed: a posterior can be proper where the likelihood has no maximum.
    """
    check_count(n_chains, "n_chains")
    restarts = fit_em_restarts(key, x, spec, n_restarts=n_restarts, labels=labels, missing=missing)
    best, optima = restarts.best, restarts.optima
    if not Status(int(best.status)).ok:
        return None, restarts
    worth = np.where(optima.spurious, -np.inf, optima.criterion)
    real = ~optima.spurious & (worth >= worth.max(initial=-np.inf) - NEAR)
    near = jax.tree.map(lambda leaf: leaf[real], optima.gmm)
    if not real.any():
        near = jax.tree.map(lambda leaf: leaf[None], best.gmm)
    order = np.arange(n_chains) % near.means.shape[0]
    return jax.tree.map(lambda leaf: leaf[order], near), restarts


def climber(x, spec: MixtureSpec) -> Callable[[GMM], GMM]:
    """A function from mixtures with one leading axis to the modes of the posterior that EM reaches from them.

    NotSupported where the prior is not semi-conjugate, which EM's M-step needs.
    """
    x = check_data(x, n_components=check_spec(spec).n_components)
    spec = validate_spec(spec, x.shape[1])
    z, scaling = standardise(x, spec)
    prior = hyperparameters(default_prior(x, spec), spec.covariance_type)
    prior, known = scaling.prior_inward(prior, spec.covariance_type), scaling.known_inward(spec)

    def climb(gmms):
        inner = jax.tree.map(lambda leaf: leaf.astype(z.dtype), scaling.inward(gmms))
        return scaling.outward(jax.tree.map(np.asarray, _climb(z, inner, known, prior)))

    return climb


@partial(jit, compiler_options=ONE_AT_A_TIME)
def _climb(z, gmms, known, prior):
    prior = jax.tree.map(lambda leaf: jnp.asarray(leaf, z.dtype), prior)

    def one(gmm):
        return fit_em(z, gmm, known=known, prior=prior, config=EMConfig(tol=CLIMB_TOL)).gmm

    return in_batches(one, gmms, CLIMB_NUMBERS // (z.size * gmms.n_components))
