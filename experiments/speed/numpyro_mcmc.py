"""NumPyro's own MCMC on its own terms, for comparison: as its documentation shows it, un-jitted.

A second `run` of one MCMC object uses what the first has compiled. Each on a model of a `Problem`: the tutorials', or
ours, whose gradient is the responsibilities, so that what the likelihood gains is seen apart from what the driver does.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from gmm_jax.bayes.model import assemble, site_values
from gmm_jax.bayes.target import density_of, finish, prepare
from gmm_jax.mixture import GMM, NotSupported, Status


def tutorial(problem):
    """The mixture as NumPyro's tutorials write it, with our prior, in standardised units."""
    import numpyro
    import numpyro.distributions as dist

    prior, k = problem.prior, problem.spec.n_components
    weights = numpyro.sample("weights", prior.weights)
    means = numpyro.sample("means", prior.means.expand((k,)))
    together = getattr(prior.covariances, "jointly", None)  # of a hierarchical prior
    covariances = numpyro.sample("covariances", together(k) if together else prior.covariances.expand((k,)))
    components = dist.MultivariateNormal(means, covariances)
    with numpyro.plate("data", problem.z.shape[0]):
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), components), obs=problem.z)


def documented(likelihood, x, spec, init, size, *, chain_method="sequential", dense_mass=False):
    """NumPyro's MCMC un-jitted; chain_method "parallel" needs as many devices as chains."""
    problem, scaling = prepare(x, spec, **size)
    if chain_method == "parallel" and jax.local_device_count() < size["n_chains"]:
        raise NotSupported("chains in parallel need a device each: NumPyro's set_host_device_count makes them.")
    start = jax.tree.map(jnp.asarray, scaling.inward(init))
    mcmc = _mcmc(likelihood, problem, start, chain_method=chain_method, dense_mass=dense_mass, **size)

    def run(key):
        mcmc.run(key, problem)
        draws = _mixtures(problem, mcmc.get_samples(group_by_chain=True))
        return finish(problem, scaling, draws, density_of(problem, draws), {}, Status.SAMPLED)

    return run


def _mcmc(likelihood, problem, start, *, n_chains, n_warmup, n_draws, chain_method, dense_mass=False):
    from numpyro.infer import MCMC, NUTS, init_to_value

    kernel = NUTS(likelihood, init_strategy=init_to_value(values=site_values(problem, start)), dense_mass=dense_mass)
    sizes = {"num_warmup": n_warmup, "num_samples": n_draws, "num_chains": n_chains}
    return MCMC(kernel, chain_method=chain_method, progress_bar=False, **sizes)


@jax.jit
def _mixtures(problem, values) -> GMM:
    return jax.vmap(jax.vmap(partial(assemble, problem)))(values)
