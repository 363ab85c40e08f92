"""What every engine does before and after: standardise the problem, find starts, draw in chunks, map the draws back.

θ lives in flat unconstrained coordinates u through NumPyro's bijectors, and the density through its log_density, all
inside jitted functions: NumPyro's own initialisation evaluates the model operation by operation, which compiles
hundreds of programs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..em.inputs import starts_inward
from ..mixture import GMM, Posterior, Status, project, structure, validate_spec
from ..mixture.annotations import Annotations, missing_groups, pad, pad_annotations, padded_size, put_gaps
from ..mixture.checks import check_count, check_key, kind_of
from ..mixture.cores import divide, over_draws, together
from ..mixture.factor import cholesky
from ..mixture.many_starts import draw_starts, labelled_means, rows_for_starts
from ..mixture.programs import jit
from ..mixture.scaling import Scaling, check_data, check_labels, standardise
from ..mixture.starts import kmeans_plusplus
from .checks import check_spec
from .model import Problem, assemble, log_volume, model, sample_sites, site_values, standardised_problem
from .prior import dof_of_ties
from .starts import starts_from_em

DRAW_NUMBERS = 1 << 20  # at a time, where a density is taken of every draw
N_RESTARTS = 20  # of EM, where an engine has no init
JITTER = 0.1  # sd of a start around `init`, in unconstrained coordinates of standardised units


def begin(key, x, spec, init: GMM | None, n_chains, n_warmup, n_draws, labels=None, missing=None, *, padded=True):
    """The standardised problem, its scaling, flat unconstrained starts (C, P), and the key of what comes after.

    Without init chains start around EM's optima, in turn; where EM has none, at k-means++ starts.
    """
    key_start, key_run = jax.random.split(check_key(key))
    problem, scaling = prepare(x, spec, n_chains, n_warmup, n_draws, labels=labels, missing=missing, padded=padded)
    if init is None:
        rows = {"labels": labels, "missing": missing}
        init, _ = starts_from_em(key_start, x, spec, n_chains, n_restarts=N_RESTARTS, **rows)
    return problem, scaling, unconstrained_starts(key_start, problem, scaling, init, n_chains), key_run


def prepare(
    x, spec, n_chains=1, n_warmup=0, n_draws=1, *, labels=None, missing=None, padded=False
) -> tuple[Problem, Scaling]:
    """The standardised problem, checked: in float64 where JAX has it, which NumPyro's transforms then ask for.

    `padded`: its rows are filled up to a size that programs are compiled for (see `annotations`).
    """
    for name, value, least in (("n_chains", n_chains, 1), ("n_warmup", n_warmup, 0), ("n_draws", n_draws, 1)):
        check_count(value, name, least)
    x = check_data(x, n_components=check_spec(spec).n_components, missing=missing)
    spec = validate_spec(spec, x.shape[1])
    labels = check_labels(labels, x.shape[0], spec.n_components)
    with_gaps, scaling = standardise(x, spec)
    z, groups = missing_groups(with_gaps.astype(jax.dtypes.canonicalize_dtype(float)), missing)
    annotations = Annotations(labels=labels, groups=groups)
    if padded:
        n_rows, z = len(z), pad(z, padded_size(len(z)))
        annotations = pad_annotations(annotations, n_rows, len(z))
    problem = standardised_problem(z, spec, scaling.known_inward(spec), scaling, dof_of_ties(x, spec))
    problem = replace(problem, annotations=annotations)
    if sum(problem.n_sites) == 0:
        raise ValueError("spec.known leaves nothing to infer: make a field, or one component's row of it, free.")
    return problem, scaling


def unconstrained_starts(key, problem: Problem, scaling: Scaling, init: GMM | None, n_chains: int):
    """Flat unconstrained starts (C, P).

    None: distinct k-means++ starts. A GMM in the units of the data, one for all chains or with a leading axis of
    n_chains: points scattered around it, so that no two chains start alike.
    """
    if init is None:
        return _seeds(key, problem, n_chains)
    if not isinstance(init, GMM):
        raise ValueError(f"init must be a GMM or None; got {kind_of(init)}: pass a mixture, such as result.gmm.")
    inner = starts_inward(init, problem.spec, scaling, n_chains, "n_chains")
    return _around(key, problem, jax.tree.map(lambda leaf: leaf.astype(problem.z.dtype), inner))


def _seeds(key, problem, n_chains):
    spec, (_, labels, groups, _) = problem.spec, problem.annotations
    with_gaps = put_gaps(problem.z, groups)[: problem.n_samples]
    labels = None if labels is None else labels[: problem.n_samples]
    rows, means = rows_for_starts(with_gaps, spec.n_components), labelled_means(with_gaps, labels, spec.n_components)
    if labels is None:
        return _coordinates(problem, draw_starts(key, rows, spec, kmeans_plusplus, n_chains))
    key_draw, key_around = jax.random.split(key)  # means of labelled rows are the same for all chains
    return _around(key_around, problem, draw_starts(key_draw, rows, spec, kmeans_plusplus, n_chains, means))


@jit
def _coordinates(problem, gmms):
    return jax.vmap(lambda gmm: unconstrain(problem, project(gmm, problem.spec.known)))(gmms)


@jit
def _around(key, problem, gmms):
    """Points around mixtures, near for each component: a sweep from elsewhere would leave a narrow one for good."""
    kind = structure(problem.spec.covariance_type)

    def one(key, gmm):
        key_weights, key_means, key_sizes = jax.random.split(key, 3)
        shape, dtype = gmm.means.shape, gmm.means.dtype
        # a weight of zero has no unconstrained coordinate
        weights = (gmm.weights + 1e-3) * jnp.exp(JITTER * jax.random.normal(key_weights, shape[:1], dtype))
        roots = cholesky(kind.dense(gmm.covariances, *shape))
        means = gmm.means + JITTER * jnp.einsum("kij,kj->ki", roots, jax.random.normal(key_means, shape, dtype))
        n_sizes = (shape[0] if kind.per_component else 1, *[1] * (gmm.covariances.ndim - 1))
        covariances = gmm.covariances * jnp.exp(JITTER * jax.random.normal(key_sizes, n_sizes, dtype))
        near = replace(gmm, weights=weights / jnp.sum(weights), means=means, covariances=covariances)
        return unconstrain(problem, project(near, problem.spec.known))

    return jax.vmap(one)(jax.random.split(key, gmms.weights.shape[0]), gmms)


def bijectors(problem: Problem) -> dict:
    """Site -> NumPyro's bijector from unconstrained space; found by tracing the model, which computes nothing."""
    import numpyro.distributions as dist
    from numpyro.handlers import substitute, trace

    found = {}

    def look():
        values = site_values(problem, any_mixture(problem))
        for name, site in trace(substitute(model, data=values)).get_trace(problem).items():
            if site["type"] == "sample" and not site["is_observed"]:
                found[name] = dist.biject_to(site["fn"].support)
        return 0

    jax.eval_shape(look)
    return found


def any_mixture(problem: Problem) -> GMM:
    """Some mixture of the right shapes, standardised."""
    spec, n_features, dtype = problem.spec, problem.z.shape[1], problem.z.dtype
    kind = structure(spec.covariance_type)
    eye = jnp.broadcast_to(jnp.eye(n_features, dtype=dtype), (spec.n_components, n_features, n_features))
    weights = jnp.full((spec.n_components,), 1.0 / spec.n_components, dtype)
    means = jnp.zeros((spec.n_components, n_features), dtype)
    return GMM(weights, means, kind.from_dense(eye, weights), spec.covariance_type)


def unconstrain(problem: Problem, gmm: GMM):
    """Flat unconstrained coordinates (P,) of a standardised mixture."""
    return ravel_pytree(unconstrained(problem, site_values(problem, gmm)))[0]


def unconstrained(problem: Problem, values: dict) -> dict:
    """Site values mapped to unconstrained space."""
    to_constrained = bijectors(problem)
    return {name: to_constrained[name].inv(value) for name, value in values.items()}


def constrain(problem: Problem, u) -> tuple[dict, Any]:
    """Site values at u, and the log Jacobian of the map."""
    to_constrained = bijectors(problem)
    shapes = jax.eval_shape(lambda: unconstrained(problem, site_values(problem, any_mixture(problem))))
    free = ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, problem.z.dtype), shapes))[1](u)
    values = {name: to_constrained[name](value) for name, value in free.items()}
    logs = [to_constrained[name].log_abs_det_jacobian(free[name], value) for name, value in values.items()]
    return values, sum(map(jnp.sum, logs))


def log_joint_density(problem: Problem, values: dict):
    """log p(z | θ) + log p(θ) in constrained, standardised units."""
    from numpyro.infer.util import log_density

    return log_density(model, (problem,), {}, values)[0]


def log_prior(problem: Problem, values: dict):
    """log p(θ) in constrained, standardised units."""
    from numpyro.infer.util import log_density

    return log_density(sample_sites, (problem,), {}, values)[0]


def log_posterior(problem: Problem, u):
    """The unconstrained log posterior density up to a constant: what NUTS follows."""
    values, jacobian = constrain(problem, u)
    return log_joint_density(problem, values) + jacobian


@jit
def read_draws(problem: Problem, draws):
    """Flat draws (C, S, P) -> (GMM with leading (C, S), log density (C, S), log posterior (C, S)), standardised."""

    def one(u):
        values, jacobian = constrain(problem, u)
        density = log_joint_density(problem, values)
        return assemble(problem, values), density, density + jacobian

    return of_draws(one, draws, problem.z.size)


@jit
def density_of(problem: Problem, gmms: GMM):
    """log density (C, S) of standardised mixtures with leading (C, S)."""
    return of_draws(lambda gmm: log_joint_density(problem, site_values(problem, gmm)), gmms, problem.z.size)


@jit
def prior_of(problem: Problem, gmms: GMM):
    """log p(θ) (C, S) of standardised mixtures with leading (C, S)."""
    *_, n_components, n_features = gmms.means.shape
    numbers = n_components * n_features * n_features
    return of_draws(lambda gmm: log_prior(problem, site_values(problem, gmm)), gmms, numbers, sums=False)


def of_draws(function, draws, numbers, *, sums=True):
    """function of each draw (C, S), which takes so many numbers: some at a time, as all at once would fill the memory.

    Sums over the data are taken draw by draw on a core, where each is then taken in one way and not in both.
    """
    return over_draws(function, draws, 1 if sums and jax.default_backend() == "cpu" else DRAW_NUMBERS // numbers)


def run_chunks(advance: Callable[[list, int], list], chains, n_warmup: int, n_draws: int, size: int, progress=None):
    """What chains report after the warm-up, (C, n_draws, ...); and the same again, as often as asked, of longer runs.

    Each time the chains go on until they have made twice as many steps; the first n_warmup parts of them, of
    n_warmup + n_draws, are left out, and of each of the others one step is kept. So memory does not grow, and a state
    long ago is forgotten.

    Steps are made in chunks of one size, so that any number of them runs the same program. `advance(parts, start)`
    makes `size` steps, of which the first has index start, with the chains divided over the cores: (chains, output
    (c, size, ...)) of each part.
    """
    parts, kept, start, stride = divide(chains), [], 0, 1
    n_chains = jax.tree.leaves(chains)[0].shape[0]
    while True:
        n_steps = stride * (n_warmup + n_draws)
        while start < n_steps:
            parts, output = zip(*advance(parts, start), strict=True)
            kept.append(_every(stride, together(output, n_chains), -start % stride))
            start += size
            if progress is not None:
                progress(min(start, n_steps), n_steps)
        whole = jax.tree.map(lambda *chunks: np.concatenate(chunks, axis=1), *kept)
        yield jax.tree.map(lambda leaf: leaf[:, n_warmup : n_warmup + n_draws], whole)
        stride, kept = 2 * stride, [_every(2, whole)]


def first_that(until: Callable[[Posterior], bool] | None, posteriors: Iterator[Posterior]) -> Posterior:
    """The first posterior of which `until` says True; without it the first one."""
    return next(posterior for posterior in posteriors if until is None or until(posterior))


def _every(stride, output, first=0):
    return jax.tree.map(lambda leaf: np.ascontiguousarray(leaf[:, first::stride]), output)


def finish(problem: Problem, scaling: Scaling, draws: GMM, log_density, stats: dict, status: Status) -> Posterior:
    """The posterior in the units and the dtype of the data."""
    volume = scaling.log_volume_of(problem.n_samples, problem.annotations) + float(log_volume(problem))
    log_density = np.asarray(log_density, float) - volume
    if not np.all(np.isfinite(log_density)):
        status = Status.NON_FINITE
    labels = problem.annotations.labels
    named = None if labels is None else np.unique(labels[labels >= 0])
    return Posterior(scaling.outward(jax.tree.map(np.asarray, draws)), log_density, stats, status, named)
