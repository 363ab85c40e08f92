"""How sure EM is: standard errors from the curvature of the log-likelihood ℓ at its maximum.

With θ the free numbers, I = −∂²ℓ/∂θ² and J = Σ_n s_n s_nᵀ of the samples' scores: cov(θ̂) = I⁻¹ where the model holds,
I⁻¹ J I⁻¹ where it may not. Both hold at an inner maximum only; elsewhere there is a status and no number.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import (
    GMM,
    ONE_AT_A_TIME,
    Annotations,
    MixtureSpec,
    NotSupported,
    Status,
    check_data,
    check_labels,
    free_coordinates,
    free_parts,
    inverse_root,
    missing_groups,
    n_parameters,
    score_products,
    standardise,
    static_masks,
    structure,
    validate_spec,
)
from ..mixture.free import COLUMNS
from ..mixture.moments import log_likelihood
from .bootstrap import bootstrap
from .fit import EMResult

DECREMENT = 1e-3  # nats: what Newton's next step would still gain at what counts as a maximum
METHODS = ("observed", "sandwich", "bootstrap", "parametric_bootstrap")


class Asymptotics(NamedTuple):
    """The normal approximation at a maximum; NaN throughout where the status is not CONVERGED."""

    standard_errors: GMM  # 0 where known
    covariance: Float[np.ndarray, "p p"]  # of the free numbers, standardised data: see free_coordinates
    newton_decrement: float  # nats, ½ sᵀ I⁻¹ s: what Newton's next step would gain; NaN where I is singular
    status: Status  # CONVERGED, NOT_STATIONARY, BOUNDARY or SINGULAR


def standard_errors(
    x: Float[Array, "N D"],
    result: EMResult,
    spec: MixtureSpec,
    *,
    method: str = "observed",
    key: Key[Array, ""] | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
) -> GMM:
    """Standard errors of φ, μ and Σ at an EM optimum: a GMM of the same shapes, 0 where known, NaN where undefined.

    Args:
        result: an EMResult in the units of x, at a stationary point (CONVERGED).
        method: "observed", the inverse observed information by automatic differentiation; "sandwich", which does not
            presume that the model is true; "bootstrap" and "parametric_bootstrap", see `bootstrap`, which also says
            how many resamples lost a component.
        key: for the bootstraps, and only for them.
        labels, missing: as they were given to the fit (NotSupported with the bootstraps).

    NaN everywhere means that there is no inner maximum here; `asymptotics` says why.

    References:
        McLachlan & Peel (2000), Finite Mixture Models, section 2.15; Efron & Hinkley (1978), Biometrika 65; White
        (1982), Econometrica 50, for the sandwich.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")
    if (key is None) == method.endswith("bootstrap"):
        takes = "needs one: pass jax.random.key(...)" if key is None else "takes none: leave it out"
        raise ValueError(f"key is for the bootstraps; method={method!r} {takes}.")
    if method.endswith("bootstrap"):
        if labels is not None or missing is not None:
            raise NotSupported(f"method={method!r} resamples complete rows without labels: use observed or sandwich.")
        return bootstrap(key, x, result, spec, parametric=method == "parametric_bootstrap").standard_errors
    return asymptotics(x, result, spec, method=method, labels=labels, missing=missing).standard_errors


def asymptotics(
    x: Float[Array, "N D"],
    result: EMResult,
    spec: MixtureSpec,
    *,
    method: str = "observed",
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
) -> Asymptotics:
    """The normal approximation to the sampling distribution of an EM optimum, or why there is none.

    Statuses: CONVERGED; NOT_STATIONARY, the Newton decrement is above 1e-3; BOUNDARY, a free component has less than
    one sample's mass or a free Σ_k is singular; SINGULAR, the information has a flat direction or is not positive
    definite (coinciding components, a saddle point).
    """
    at = standardised(x, result, spec, labels, missing)
    found = asymptotics_at(at, method)
    return found._replace(standard_errors=errors_outward(found.standard_errors, at.scaling))


class At(NamedTuple):
    """A mixture and its data, standardised."""

    z: np.ndarray
    gmm: GMM  # NumPy, in the dtype of z
    spec: MixtureSpec
    scaling: object
    annotations: Annotations


def standardised(x, result, spec, labels=None, missing=None) -> At:
    """Checked, and in standardised units."""
    x = check_data(x, n_components=spec.n_components, missing=missing)
    spec = validate_spec(spec, x.shape[1])
    with_gaps, scaling = standardise(x, spec)
    z, groups = missing_groups(with_gaps, missing)
    told = Annotations(labels=check_labels(labels, len(x), spec.n_components), groups=groups)
    inner = scaling.inward(jax.tree.map(np.asarray, result.gmm))
    return At(z, jax.tree.map(lambda leaf: leaf.astype(z.dtype), inner), spec, scaling, told)


def asymptotics_at(at, method) -> Asymptotics:
    """`asymptotics` in standardised units."""
    if method not in METHODS[:2]:
        raise ValueError(f"method must be one of {', '.join(METHODS[:2])}; got {method!r}.")
    masks = static_masks(at.spec)
    if not n_parameters(at.spec, at.z.shape[1]):
        return Asymptotics(jax.tree.map(np.zeros_like, at.gmm), np.zeros((0, 0)), 0.0, Status.CONVERGED)
    *found, jacobian, rcond = jax.tree.map(np.asarray, _derivatives(at.z, at.gmm, at.annotations, masks))
    score, information = (leaf.astype(float) for leaf in found)
    root = inverse_root(information, np.finfo(at.z.dtype).eps ** (2.0 / 3.0))
    decrement = np.nan if root is None else float(0.5 * np.sum((root.T @ score) ** 2))
    status = _status(at, rcond, decrement)
    if status != Status.CONVERGED:
        nothing = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), at.gmm)
        return Asymptotics(nothing, np.full_like(information, np.nan), decrement, status)
    covariance = inverse = root @ root.T
    if method == "sandwich":
        covariance = inverse @ np.asarray(_score_products(at.z, at.gmm, masks, at.annotations), float) @ inverse
    # the delta method, for the last φ and for symmetry
    variance = jax.tree.map(lambda j: np.einsum("...p,pq,...q->...", j, covariance, j), jacobian)
    errors = jax.tree.map(lambda v: np.sqrt(np.maximum(v, 0.0)), variance)
    return Asymptotics(errors, covariance, decrement, status)


def _status(at, rcond, decrement):
    free_weights, _, free_covariances = free_parts(at.spec)
    empty = np.asarray(at.gmm.weights) * len(at.z) < 1.0
    singular = ~(rcond >= 100.0 * np.finfo(at.z.dtype).eps)
    if np.any(empty & free_weights) or np.any(singular & free_covariances):
        return Status.BOUNDARY
    if np.isnan(decrement):
        return Status.SINGULAR
    return Status.CONVERGED if decrement <= DECREMENT else Status.NOT_STATIONARY


@partial(jax.jit, static_argnames="masks", compiler_options=ONE_AT_A_TIME)
def _derivatives(z, gmm, told, masks):
    """Score (p,), observed information (p, p), ∂(mixture)/∂θ with the leaves' shapes and p last, and rcond of Σ."""
    theta, unpack = free_coordinates(gmm, masks)
    slope = jax.grad(lambda t: log_likelihood(unpack(t), z, told))
    basis = jnp.eye(theta.size, dtype=theta.dtype)
    score = slope(theta)
    columns = jax.lax.map(lambda v: jax.jvp(slope, (theta,), (v,))[1], basis, batch_size=COLUMNS)
    kind = structure(gmm.covariance_type)
    rcond = kind.rcond(gmm.covariances, kind.whitener(gmm.covariances))
    return score, -0.5 * (columns + columns.T), jax.jacobian(unpack)(theta), rcond


_score_products = jax.jit(score_products, static_argnames="masks", compiler_options=ONE_AT_A_TIME)


def errors_outward(errors, scaling):
    """Standard errors carry scale but no centre."""
    return scaling._replace(centre=np.zeros_like(scaling.centre)).outward(errors)
