"""Standard errors and intervals of an EM fit, from the curvature of the log-likelihood ℓ at its maximum.

With θ the free numbers, I = −∂²ℓ/∂θ² and J = Σ_n s_n s_nᵀ of the samples' scores: cov(θ̂) = I⁻¹ where the model holds,
I⁻¹ J I⁻¹ where it may not. Both hold at an inner maximum only; elsewhere there is a status and no number.
"""

from dataclasses import replace
from functools import partial
from statistics import NormalDist
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import ONE_AT_A_TIME, MixtureSpec, NotSupported, Status, free_parts, n_parameters, structure
from ..mixture.free import each_direction, free_coordinates, free_entries, inverse_root, score_products, static_masks
from ..mixture.gmm import GMM, mixture_of
from ..mixture.moments import log_likelihood
from ..mixture.programs import jit
from ..mixture.scaling import QUIET
from ..problems.checks import dependent_columns
from .bootstrap import at_result, bootstrap
from .fit import EMConfig, EMResult, _fit

DECREMENT = 1e-3  # nats: what Newton's next step would still gain at what counts as a maximum
POLISH = EMConfig(max_iter=500, tol=1e-5, acceleration="lbfgs", stop="aitken")
MOST_PARAMETERS = 10_000  # whose information matrix takes 0.8 GB
METHODS = ("observed", "sandwich", "bootstrap", "parametric_bootstrap")


class Asymptotics(NamedTuple):
    """The normal approximation at a maximum; NaN throughout where the status is not CONVERGED."""

    standard_errors: GMM  # 0 where known
    covariance: Float[np.ndarray, "p p"]  # of the free numbers, standardised data: see free_coordinates
    newton_decrement: float  # nats, ½ sᵀ I⁻¹ s: what Newton's next step would gain; NaN where I is singular
    status: Status  # CONVERGED, NOT_STATIONARY, BOUNDARY or SINGULAR
    gmm: GMM  # the maximum: the result's mixture, or where further steps led from it
    gained: float  # nats by which it is above the result
    message: str  # how far the errors may be trusted, or why there are none, and how to have them


class Bounds(NamedTuple):
    """Lower and upper ends, entry by entry; both the value itself where known."""

    lower: GMM
    upper: GMM


class Intervals(NamedTuple):
    """Intervals of every entry of φ, μ and Σ; NaN where the status is not CONVERGED."""

    raw: Bounds  # estimate ± z·standard error
    transformed: Bounds  # on the scale of logit φ and log-Cholesky Σ, transformed back; μ as in raw
    status: Status


def standard_errors(
    x: Float[Array, "N D"],
    result: EMResult,
    spec: MixtureSpec,
    *,
    method: str = "observed",
    key: Key[Array, ""] | None = None,
    sample_weight: Float[Array, "N"] | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
) -> GMM:
    """Standard errors of φ, μ and Σ at an EM optimum: a GMM of the same shapes, 0 where known, NaN where undefined.

    Besides its leaves the GMM has two attributes, `status` (CONVERGED where there are errors, or why there are none)
    and `message` (a sentence: how far they may be trusted, or how to have them); functions of JAX drop both.

    Args:
        result: an EMResult, or Restarts, in the units of x. Where it is not quite at its maximum, as with a large tol,
            accelerated steps go there first, and the errors are those of the maximum: see `asymptotics`.
        method: "observed", the inverse observed information by automatic differentiation; "sandwich", which does not
            presume that the model is true; "bootstrap" and "parametric_bootstrap", see `bootstrap`, which also says
            how many resamples lost a component.
        key: for the bootstraps, and only for them.
        sample_weight, labels, missing: as they were given to the fit; weights count how often a row was seen.

    Raises:
        ValueError: x or these annotations of its rows are not those of the fit.
        NotSupported: the parametric bootstrap of annotated rows; more parameters than a matrix of them can be held.

    References:
        McLachlan & Peel (2000), Finite Mixture Models, section 2.15; Efron & Hinkley (1978), Biometrika 65; White
        (1982), Econometrica 50, for the sandwich.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    if (key is None) == method.endswith("bootstrap"):
        takes = "needs one: pass jax.random.key(...)" if key is None else "takes none: leave it out"
        raise ValueError(f"key is for the bootstraps; method={method!r} {takes}.")
    rows = {"sample_weight": sample_weight, "labels": labels, "missing": missing}
    if method.endswith("bootstrap"):
        found = bootstrap(key, x, result, spec, parametric=method == "parametric_bootstrap", **rows)
        failed = any(np.isnan(leaf).any() for leaf in jax.tree.leaves(found.standard_errors))
        status = Status.FAILED if failed else Status.CONVERGED
    else:
        found = asymptotics(x, result, spec, method=method, **rows)
        status = found.status
    vars(found.standard_errors).update(status=status, message=found.message)  # beside the leaves: it stays a GMM
    return found.standard_errors


@QUIET
def asymptotics(
    x: Float[Array, "N D"],
    result: EMResult,
    spec: MixtureSpec,
    *,
    method: str = "observed",
    sample_weight: Float[Array, "N"] | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
) -> Asymptotics:
    """The normal approximation to the sampling distribution of an EM optimum, or why there is none.

    Where the result is not stationary, up to 500 accelerated steps without regularisation go to the maximum first.

    Statuses: CONVERGED; NOT_STATIONARY, the Newton decrement is above 1e-3 also then; BOUNDARY, a free component has
    less than one sample's mass or a free Σ_k is singular; SINGULAR, the information has a flat direction or is not
    positive definite (coinciding components, a saddle point). The other arguments are those of `standard_errors`.
    """
    data, inner = at_result(x, result, spec, sample_weight, labels, missing, EMConfig(reg_covar=0.0))
    found = _asymptotics(data, inner, method)
    outward = data.scaling._replace(centre=np.zeros_like(data.scaling.centre)).outward  # errors have no centre
    return found._replace(standard_errors=outward(found.standard_errors), gmm=data.scaling.outward(found.gmm))


@QUIET
def intervals(
    x: Float[Array, "N D"],
    result: EMResult,
    spec: MixtureSpec,
    *,
    level: float = 0.95,
    method: str = "observed",
    sample_weight: Float[Array, "N"] | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
) -> Intervals:
    """Intervals that cover each entry with probability `level` in large samples, on two scales, about the maximum.

    raw is symmetric, and may leave the parameter space. transformed stays within: for φ_k it is symmetric in logit φ_k;
    an entry of Σ is moved to its ends along the direction of log-Cholesky space in which it and its error change (for
    a variance of diag or spherical, and for Σ_11, that is the interval of its logarithm). The other arguments are those
    of `standard_errors`.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie in (0, 1); got {level!r}: 0.95 is usual.")
    data, inner = at_result(x, result, spec, sample_weight, labels, missing, EMConfig(reg_covar=0.0))
    found = _asymptotics(data, inner, method)
    z, given = NormalDist().inv_cdf(0.5 + 0.5 * level), mixture_of(result)

    def unless_sure(error, value, end):  # what has no error is itself, to the last digit
        return np.where(error == 0.0, np.asarray(value, end.dtype), end)

    def bounds(end):
        ends = (data.scaling.outward(end(data.spec, found, s * z)) for s in (-1.0, 1.0))
        ends = [jax.tree.map(unless_sure, found.standard_errors, given, e) for e in ends]
        return Bounds(jax.tree.map(np.minimum, *ends), jax.tree.map(np.maximum, *ends))

    return Intervals(bounds(_raw), bounds(_transformed), found.status)


def _asymptotics(data, gmm, method) -> Asymptotics:
    """`asymptotics` in standardised units."""
    if method not in METHODS[:2]:
        raise ValueError(f"method must be one of {', '.join(METHODS[:2])}; got {method!r}.")
    masks, n_free = static_masks(data.spec), n_parameters(data.spec, data.z.shape[1])
    if not n_free:
        nothing = jax.tree.map(np.zeros_like, gmm)
        return Asymptotics(nothing, np.zeros((0, 0)), 0.0, Status.CONVERGED, gmm, 0.0, "everything is known.")
    if n_free > MOST_PARAMETERS:
        raise NotSupported(
            f"the information matrix of {n_free} free parameters takes {8e-9 * n_free**2:.0f} GB: use method="
            "'bootstrap', or a covariance structure with fewer parameters."
        )
    began, derivatives, status, root, decrement = _curvature(data, gmm, masks)
    value = began
    if status in (Status.NOT_STATIONARY, Status.SINGULAR):
        there = jax.tree.map(np.asarray, _fit(data.z, gmm, data.inner.known, data.annotations, POLISH, None).gmm)
        value, *found = _curvature(data, there, masks)
        if found[1] == Status.CONVERGED:
            gmm, (derivatives, status, root, decrement) = there, found
    information, jacobian = derivatives
    if status != Status.CONVERGED:
        nothing = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), gmm)
        message = f"no standard errors: {status.advice}."
        if columns := dependent_columns(data.spread):
            named = data.scaling.named(columns)
            message = f"no standard errors: column(s) {named} of x are linearly dependent, so Σ is singular: drop one."
        return Asymptotics(nothing, np.full_like(information, np.nan), decrement, status, gmm, 0.0, message)
    covariance = inverse = root @ root.T
    if method == "sandwich":
        covariance = inverse @ np.asarray(_score_products(data.z, gmm, masks, data.annotations), float) @ inverse
    # the delta method, for the last φ and for symmetry
    variance = jax.tree.map(lambda j: np.einsum("...p,pq,...q->...", j, covariance, j), jacobian)
    errors = jax.tree.map(lambda v: np.sqrt(np.maximum(v, 0.0)), variance)
    gained = max(0.0, value - began)
    message = "the fit is at its maximum."
    if gained > 0.0:
        message = f"these are the errors of the maximum that the fit leads to, {gained:.3g} nats above it."
    return Asymptotics(errors, covariance, decrement, status, gmm, gained, message)


def _curvature(data, gmm, masks):
    """(ℓ, (information, ∂(mixture)/∂θ), status, R with R Rᵀ = information⁻¹ or None, Newton decrement)."""
    found = jax.tree.map(np.asarray, _derivatives(data.z, gmm, data.annotations, masks))
    value, score, information, jacobian, rcond = found
    score, information = score.astype(float), information.astype(float)
    root = inverse_root(information, np.finfo(data.z.dtype).eps ** (2.0 / 3.0))
    decrement = np.nan if root is None else float(0.5 * np.sum((root.T @ score) ** 2))
    return float(value), (information, jacobian), _status(data, gmm, rcond, decrement), root, decrement


def _status(data, gmm, rcond, decrement):
    free_weights, _, free_covariances = free_parts(data.spec)
    empty = np.asarray(gmm.weights) * data.n_samples < 1.0
    singular = ~(rcond >= 100.0 * np.finfo(data.z.dtype).eps)
    if np.any(empty & free_weights) or np.any(singular & free_covariances):
        return Status.BOUNDARY
    if np.isnan(decrement):
        return Status.SINGULAR
    return Status.CONVERGED if decrement <= DECREMENT else Status.NOT_STATIONARY


@partial(jit, static_argnames="masks", compiler_options=ONE_AT_A_TIME)
def _derivatives(z, gmm, rows, masks):
    """ℓ, score (p,), observed information (p, p), ∂(mixture)/∂θ with the leaves' shapes and p last, and rcond of Σ."""
    theta, unpack = free_coordinates(gmm, masks)
    height = jax.value_and_grad(lambda t: log_likelihood(unpack(t), z, rows))

    def along(direction):
        (value, _), (slope, column) = jax.jvp(height, (theta,), (direction,))
        return value, slope, column

    # ℓ and score come with the columns: each asked for apart is one more pass over the data, and one more trace
    value, score, columns = each_direction(along, theta)
    kind = structure(gmm.covariance_type)
    rcond = kind.rcond(gmm.covariances, kind.whitener(gmm.covariances))
    information = -0.5 * (columns + columns.T)
    return value[0], score, information, jax.jacobian(unpack)(theta), rcond


_score_products = jax.jit(score_products, static_argnames="masks", compiler_options=ONE_AT_A_TIME)


def _raw(spec, found, z):
    return jax.tree.map(lambda value, error: value + z * error, found.gmm, found.standard_errors)


def _transformed(spec, found, z):
    """The mixture whose every entry is moved by z of its errors, on the scale where it has no bounds."""
    raw, weights, errors = _raw(spec, found, z), np.asarray(found.gmm.weights, float), found.standard_errors
    with np.errstate(divide="ignore", invalid="ignore"):  # φ = 1 of one component
        odds = np.log(weights) - np.log1p(-weights) + z * errors.weights / (weights * (1.0 - weights))
        raw = replace(raw, weights=1.0 / (1.0 + np.exp(-odds)))
    if found.gmm.covariance_type in ("diag", "spherical"):
        return replace(raw, covariances=found.gmm.covariances * np.exp(z * errors.covariances / found.gmm.covariances))
    free = free_entries(found.gmm, free_parts(spec)[2])
    if not free[0].size:
        return raw
    i, j = np.tril_indices(found.gmm.n_features)
    n_free = free[0].size // i.size
    # free Σ come last in θ, matrix after matrix
    block = found.covariance[-free[0].size :, -free[0].size :].reshape(n_free, i.size, n_free, i.size)
    matrices = np.array(found.gmm.covariances, float).reshape(-1, *found.gmm.covariances.shape[-2:])
    which = np.flatnonzero(free_parts(spec)[2])[: len(matrices)]
    blocks = np.moveaxis(np.diagonal(block, axis1=0, axis2=2), -1, 0)
    ends = np.asarray(_log_cholesky_ends(matrices[which], blocks, z))
    matrices[which[:, None], i[None], j[None]] = matrices[which[:, None], j[None], i[None]] = ends
    return replace(raw, covariances=matrices.reshape(found.gmm.covariances.shape))


@jit
def _log_cholesky_ends(matrices, blocks, z):
    """(M, T): each entry i ≥ j of M matrices, moved by z of its errors along η ↦ η + z cov(η, Σ_ij) / se(Σ_ij)."""
    full, (i, j) = structure("full"), np.tril_indices(matrices.shape[-1])

    def entries(logs):
        return full.from_logs(logs, 1, matrices.shape[-1])[0, i, j]

    def logs(entries):
        lower = jnp.zeros(matrices.shape[1:], entries.dtype).at[i, j].set(entries)
        return full.to_logs(lower.at[j, i].set(entries))

    def ends(matrix, block):
        there = matrix[i, j]
        steps = jax.jacobian(logs)(there) @ block / jnp.sqrt(jnp.diagonal(block))[None, :]
        return jnp.diagonal(jax.vmap(lambda step: entries(logs(there) + z * step))(steps.T))

    return jax.vmap(ends)(matrices, blocks)
