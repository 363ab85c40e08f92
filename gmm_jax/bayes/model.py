"""The one NumPyro model: p(θ) Π_n Σ_k φ_k N(z_n | μ_k, Σ_k), labels summed out, in standardised units.

Sites are named after the fields (weights, means, covariances; or scales and correlation where the prior is over
those) and hold only what is free, so Known is honoured by sampling less.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..mixture import GMM, Annotations, MixtureSpec, NotSupported, Prior, Scaling, free_parts, share, structure
from ..mixture.moments import log_likelihood
from .prior import Form, from_leaves, log_inverse_wishart, standardised, to_leaves

MATRIX = ("full", "tied")
NO_ANNOTATIONS = Annotations()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Problem:
    """Data and specification in standardised units: all that an engine sees."""

    z: Float[Array, "N D"]
    spec: MixtureSpec  # known parts standardised; its prior stands in the next field
    prior_leaves: tuple  # of the prior, standardised except its foreign fields
    centre: Float[Array, "D"]
    scale: Float[Array, "D"]
    prior_form: Form = field(metadata={"static": True})
    free: tuple = field(metadata={"static": True})  # masks of free weights, means, covariances, read once
    foreign: tuple = field(metadata={"static": True})  # fields whose prior stayed in the units of the data
    annotations: Annotations = NO_ANNOTATIONS  # labels, what was seen of each row, how many there are; z is 0 elsewhere

    @property
    def prior(self) -> Prior:
        """The prior's distributions, put together again."""
        return from_leaves(self.prior_leaves, self.prior_form)

    @property
    def n_samples(self) -> int:
        """How many rows there are: z may be filled up."""
        return self.z.shape[0] if self.annotations.n_rows is None else int(self.annotations.n_rows)

    @property
    def n_sites(self) -> tuple[int, int, int]:
        """How many weights, means and covariances are sampled; one free φ is determined by the others."""
        weights, means, covariances = (sum(mask) for mask in self.free)
        shared = not structure(self.spec.covariance_type).per_component
        return weights if weights > 1 else 0, means, min(covariances, 1) if shared else covariances


def standardised_problem(z, spec: MixtureSpec, known, scaling: Scaling, ties: float = 0.0) -> Problem:
    """The problem for standardised data z and known parts; a prior in conflict with them is refused."""
    import numpyro.distributions as dist

    prior, foreign = standardised(spec, scaling, ties)
    free = tuple(tuple(bool(b) for b in mask) for mask in free_parts(spec))
    if any(free[0]) and not all(free[0]) and not isinstance(prior.weights, dist.Dirichlet):
        raise NotSupported("partly known weights need a Dirichlet prior on weights: give one, or know all weights.")
    inner = MixtureSpec(spec.n_components, spec.covariance_type, known)
    leaves, form = to_leaves(prior)
    return Problem(z, inner, leaves, scaling.centre.astype(z.dtype), scaling.scale.astype(z.dtype), form, free, foreign)


def model(problem: Problem) -> None:
    """The joint density of data and parameters, as a NumPyro model."""
    import numpyro

    gmm = assemble(problem, sample_sites(problem))
    numpyro.factor("log_likelihood", log_likelihood(gmm, problem.z, problem.annotations))


def sample_sites(problem: Problem) -> dict:
    """Site values under NumPyro's handlers: the prior's part of the model, and a model by itself."""
    return {name: _site(problem, name, *site) for name, site in _sites(problem).items()}


def _sites(problem):
    """name -> (distribution of one, how many) of every site there is; a foreign one in the units of the data."""
    import numpyro.distributions as dist

    prior, (n_weights, n_means, n_covariances) = problem.prior, problem.n_sites
    sites = {}
    if n_weights:
        weights = prior.weights
        if not all(problem.free[0]):  # the free ones of a Dirichlet, normalised, are Dirichlet again
            weights = dist.Dirichlet(weights.concentration[np.flatnonzero(problem.free[0])])
        sites["weights"] = (weights, ())
    if n_means:
        sites["means"] = (prior.means, (n_means,))
    if not n_covariances:
        return sites
    batch = () if problem.spec.covariance_type == "tied" else (n_covariances,)
    if prior.scales is None:
        together = batch and hasattr(prior.covariances, "jointly")  # hierarchical: under one scale
        sites["covariances"] = (prior.covariances.jointly(*batch), ()) if together else (prior.covariances, batch)
        return sites
    sites["scales"] = (prior.scales, batch)
    n_features = problem.z.shape[1]
    if problem.spec.covariance_type in MATRIX and n_features > 1:
        concentration = 1.0 if prior.correlation is None else prior.correlation
        sites["correlation"] = (dist.LKJCholesky(n_features, concentration), batch)
    return sites


def _site(problem, name, distribution, batch):
    """One sample site; a foreign prior is evaluated in the units of the data, with the constant Jacobian."""
    import numpyro
    import numpyro.distributions as dist

    foreign = name in problem.foreign
    if not foreign and not isinstance(distribution, dist.InverseWishart):
        return numpyro.sample(name, distribution.expand(batch) if batch else distribution)
    support = _support(name, len(distribution.event_shape))
    # masked, or each gradient would ask for the eigenvalues of a matrix to know that it is positive definite
    value = numpyro.sample(name, dist.ImproperUniform(support, batch, distribution.event_shape).mask(False))
    if foreign:
        outward, log_volume = _units(problem, name)
        density = distribution.log_prob(outward(value)) + log_volume
    else:
        density = log_inverse_wishart(distribution, value)
    numpyro.factor(f"{name}_prior", jnp.sum(density))
    return value


def _support(name, event_dim):
    from numpyro.distributions import constraints

    if name == "means":
        return constraints.real_vector
    if event_dim == 2:
        return constraints.positive_definite
    return constraints.independent(constraints.positive, event_dim) if event_dim else constraints.positive


def _units(problem, name):
    """The map of one value of the site to the units of the data, and its log volume."""
    scale, centre, kind = problem.scale, problem.centre, problem.spec.covariance_type
    if name == "means":
        return (lambda m: m * scale + centre), jnp.sum(jnp.log(scale))
    each = scale[0] if kind == "spherical" else scale
    log_volume = jnp.sum(jnp.log(each))
    if name == "scales":
        return (lambda s: s * each), log_volume
    powers = scale.size + 1.0 if kind in MATRIX else 2.0
    return (lambda c: structure(kind).rescale(c, scale)), powers * log_volume


def log_volume(problem: Problem) -> Array:
    """log |dθ_data / dθ_standardised| over all sites: what a log density loses in the units of the data."""
    _, n_means, n_covariances = problem.n_sites
    spread = "covariances" if problem.prior.scales is None else "scales"
    return n_means * _units(problem, "means")[1] + n_covariances * _units(problem, spread)[1]


def assemble(problem: Problem, values: dict) -> GMM:
    """The mixture of site values and known parts, standardised."""
    known, kind, dtype = problem.spec.known, problem.spec.covariance_type, problem.z.dtype
    covariances = values.get("covariances")
    if "scales" in values:
        covariances = _from_scales(values["scales"], values.get("correlation"), kind)
    covariances = jnp.asarray(_fill(known.covariances, problem.free[2], covariances, dtype), dtype)
    means = _fill(known.means, problem.free[1], values.get("means"), dtype)
    return GMM(_weights(problem, values.get("weights")), means, covariances, kind)


def site_values(problem: Problem, gmm: GMM) -> dict:
    """The sites' values at a mixture: the inverse of assemble."""
    n_weights, n_means, n_covariances = problem.n_sites
    weights, means, covariances = (np.flatnonzero(mask) for mask in problem.free)
    values = {}
    if n_weights:
        values["weights"] = gmm.weights[weights] / jnp.sum(gmm.weights[weights])
    if n_means:
        values["means"] = gmm.means[means]
    if n_covariances:
        kind = structure(problem.spec.covariance_type)
        leaf = gmm.covariances[covariances] if kind.per_component else gmm.covariances
        if problem.prior.scales is None:
            values["covariances"] = leaf
        else:
            values |= _to_scales(leaf, problem.spec.covariance_type)
    return values


def _fill(known, free, values, dtype):
    """Known rows, and values in the free ones."""
    if values is None:
        return jnp.asarray(known, dtype)
    if all(free):
        return values
    return jnp.asarray(known, dtype).at[np.flatnonzero(free)].set(values)


def _weights(problem, values):
    known, free = problem.spec.known.weights, np.flatnonzero(problem.free[0])
    if known is None and values is not None:
        return values
    mass = jnp.ones(problem.spec.n_components, problem.z.dtype)
    return share(mass if values is None else mass.at[free].set(values), known)


def _from_scales(scales, correlation, covariance_type):
    if covariance_type not in MATRIX:
        return scales**2
    cholesky = scales[..., :, None] * (jnp.ones((1, 1)) if correlation is None else correlation)
    return cholesky @ jnp.swapaxes(cholesky, -1, -2)


def _to_scales(leaf, covariance_type):
    if covariance_type not in MATRIX:
        return {"scales": jnp.sqrt(leaf)}
    scales = jnp.sqrt(jnp.diagonal(leaf, axis1=-2, axis2=-1))
    if leaf.shape[-1] == 1:
        return {"scales": scales}
    return {"scales": scales, "correlation": jnp.linalg.cholesky(leaf / (scales[..., :, None] * scales[..., None, :]))}
