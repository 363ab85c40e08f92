"""Whether the numbers of a mixture are those of one: shapes that fit, weights on the simplex, Σ positive definite."""

import numpy as np

from .checks import first_of
from .covariance import structure

LEAVES = ("weights", "means", "covariances")


def check_shapes(gmm, name):
    """A ValueError unless the leaves' shapes fit together, leading axes before them."""
    weights, means, covariances = (np.shape(getattr(gmm, leaf)) for leaf in LEAVES)
    kind = structure(gmm.covariance_type)
    if len(means) < 2:
        raise ValueError(f"{name}.means must have shape (K, D); got {means}.")
    *batch, n_components, n_features = means
    if weights != (*batch, n_components):
        raise ValueError(f"{name}.weights must have shape {(*batch, n_components)}, one a component; got {weights}.")
    expected = (*batch, *kind.shape(n_components, n_features))
    if covariances != expected:
        raise ValueError(
            f"{name}.covariances must have shape {expected} for covariance_type {gmm.covariance_type!r} with "
            f"{n_components} components and {n_features} features; got {covariances}."
        )


def check_weights(weights, *, name):
    """A ValueError unless they lie on the simplex; where some are NaN the others must leave something for them."""
    total, free = float(np.nansum(weights)), np.isnan(weights).any()
    if np.any(weights < 0.0):
        k = int(np.nanargmin(weights))
        raise ValueError(f"{name} must not be negative; got {weights[k]:.6g} for component {k}.")
    if free and total >= 1.0:
        raise ValueError(f"{name} sum to {total:.6f}, which leaves nothing for the free ones: lower them.")
    if not free and abs(total - 1.0) > max(1e-6, 1e3 * np.finfo(np.result_type(weights, np.float32)).eps):
        raise ValueError(f"{name} must sum to 1, got {total:.6f}; for counts pass weights / weights.sum().")


def check_positive_definite(covariances, covariance_type, *, name):
    """A ValueError that names the first covariance that is not symmetric positive definite."""
    if covariance_type in ("diag", "spherical"):
        if np.any(covariances <= 0.0):
            where = first_of(covariances <= 0.0)
            raise ValueError(f"{name} holds variances, which are positive; got {covariances[where]:.6g} at {where}.")
        return
    matrices = covariances if covariances.ndim == 3 else covariances[None]
    for k, matrix in enumerate(matrices):
        place = f"component {k}" if covariance_type == "full" else "the shared covariance"
        scale = np.max(np.abs(matrix))
        if np.max(np.abs(matrix - matrix.T)) > 1e-5 * scale:
            raise ValueError(f"{name} must be symmetric; {place} is not: use (S + S.T) / 2.")
        smallest = float(np.min(np.linalg.eigvalsh(matrix.astype(float))))
        if not smallest > 0.0:
            raise ValueError(
                f"{name} must be positive definite; {place} has smallest eigenvalue {smallest:.3g}: "
                "add a small multiple of the identity."
            )
