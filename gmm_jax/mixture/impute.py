"""What missing entries may be, given what was seen of their row and a mixture.

With r_k = p(k | x_o), m_k = E[x_u | x_o, k] and C_k = cov[x_u | x_o, k]: E[x_u | x_o] = Σ_k r_k m_k = m, and
cov[x_u | x_o] = Σ_k r_k (C_k + (m_k − m)(m_k − m)ᵀ).
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .annotations import MARGINALISE, condition, groups_at_once, missing_groups, ungroup
from .cores import in_batches
from .covariance import structure
from .factor import outer
from .gmm import GMM, mixture_of, responsibilities_of_rows
from .programs import jit
from .scaling import QUIET, check_data, standard_units


class Imputed(NamedTuple):
    """Conditional expectations in place of NaN, and their standard deviations; units of the data."""

    x: Float[np.ndarray, "N D"]
    standard_deviations: Float[np.ndarray, "N D"]  # 0 where seen
    covariances: Float[np.ndarray, "N D D"]  # of the entries of each row; 0 where seen


@QUIET
def impute(gmm: GMM, x: Float[Array, "N D"]) -> Imputed:
    """E[x_u | x_o] under `gmm` for the entries of x that are NaN, and their conditional covariance.

    The mixture is taken as given: that it was estimated is not in the uncertainty. Where a row could come from several
    components its entries have several likely values, and the expectation, which lies between them, may be none.
    A row of which nothing was seen takes the mixture's mean. N·D² numbers come back: pass rows in blocks if that is
    much.

    Raises:
        ValueError: x is infinite somewhere, or has another number of features than the mixture.

    Reference:
        Little & Rubin (2019), Statistical Analysis with Missing Data, ch. 11.
    """
    gmm, x = mixture_of(gmm), check_data(x, missing=MARGINALISE)
    if x.shape[1] != gmm.n_features:
        raise ValueError(f"x must be (N, {gmm.n_features}), as the mixture has it; got shape {x.shape}.")
    inner, frame = standard_units(gmm, x.dtype)
    z = ((x.astype(float) - frame.centre) / frame.scale).astype(inner.means.dtype)
    z, groups = missing_groups(z, MARGINALISE)
    if gmm.covariance_type == "spherical":  # what is left of it where something was seen is not
        variances = np.repeat(inner.covariances[:, None], x.shape[1], axis=1)
        inner = replace(inner, covariances=variances, covariance_type="diag")
    if groups is None:
        return Imputed(x, np.zeros_like(x), np.zeros((*x.shape, x.shape[1]), x.dtype))
    mean, covariances = (np.asarray(leaf, float) for leaf in _impute(inner, z, groups))
    covariances = covariances * np.outer(frame.scale, frame.scale)
    deviations = np.sqrt(np.maximum(np.diagonal(covariances, axis1=1, axis2=2), 0.0))
    expected = np.where(np.isnan(x), mean * frame.scale + frame.centre, x)
    return Imputed(*(leaf.astype(x.dtype) for leaf in (expected, deviations, covariances)))


@jit
def _impute(gmm, x, groups):
    r = responsibilities_of_rows(gmm, x, groups)
    found = in_batches(partial(_of_group, gmm, x, r), tuple(groups), groups_at_once(groups, gmm))
    return tuple(ungroup(groups, leaf, x.shape[0]) for leaf in found)


def _of_group(gmm, x, r, group):
    members, seen = group
    _, d, leftover = condition(gmm, jnp.take(x, members, axis=0), seen)
    r = jnp.take(r, members, axis=0).T  # (K, B)
    within = structure(gmm.covariance_type).dense(leftover, *gmm.means.shape)
    each = jnp.where(seen[None, :, None], jnp.zeros_like(d), gmm.means[:, :, None] + d)  # m_k, (K, D, B)
    mean = jnp.sum(r[:, None] * each, axis=0)
    off = jnp.swapaxes(each - mean[None], 1, 2)  # (K, B, D)
    between = jnp.sum(r[:, :, None, None] * outer(off, off), axis=0)
    return mean.T, between + jnp.einsum("kb,kij->bij", r, within)
