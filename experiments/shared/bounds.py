r"""How good could anyone be: the Cramér–Rao bound at the truth, and how near to it estimates come.

With s the score of one sample in the free coordinates θ, I = E[s sᵀ] at the truth; no unbiased estimator from n samples
has a covariance below (n I)⁻¹. Efficiency is tr(n I · MSE) / p: 1 at the bound, in whatever coordinates.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from gmm_jax.bayes.checks import check_spec, host_mixture
from gmm_jax.mixture import GMM, ONE_AT_A_TIME, MixtureSpec, match, permute, sample, validate, validate_spec
from gmm_jax.mixture.checks import check_key
from gmm_jax.mixture.free import free_coordinates, inverse_root, score_products, static_masks

SINGULAR = 1e-10  # least eigenvalue of the information's correlation matrix
N_BLOCKS = 20  # of draws: the spread between them is the Monte-Carlo error


class CramerRao(NamedTuple):
    """The Cramér–Rao bound at one truth for n_samples samples; units of the truth."""

    information: Float[np.ndarray, "p p"]  # n I, in the free coordinates
    information_se: Float[np.ndarray, "p p"]  # Monte-Carlo standard error
    standard_errors: GMM  # no unbiased estimator has smaller ones; 0 where known
    standard_errors_se: GMM  # Monte-Carlo standard error, by the jackknife over blocks
    blocks: Float[np.ndarray, "B p p"]  # n I of each block of draws


class Efficiency(NamedTuple):
    """tr(n I · MSE) / p and what it consists of; 1 at the bound, larger is worse."""

    value: float  # variance + bias
    error: float  # standard error: of the replications and of the information
    variance: float  # tr(n I · cov) / p; may be below 1 for a biased estimator, to which the bound does not apply
    bias: float  # bᵀ n I b / p; of an unbiased estimator about variance / R
    n_replications: int


def cramer_rao(
    key: Key[Array, ""], truth: GMM, spec: MixtureSpec, *, n_samples: int, n_draws: int = 100_000
) -> CramerRao:
    """The Cramér–Rao bound from n_draws scores at the truth, by automatic differentiation of log_prob.

    Raises:
        ValueError: the truth is no mixture; nothing is free; or the information is singular (components coincide, or
            n_draws is too small).

    Reference:
        Lehmann & Casella (1998), Theory of Point Estimation, section 2.6.
    """
    check_key(key)
    truth = validate(host_mixture(truth, "truth"), name="truth")
    spec = validate_spec(check_spec(spec), truth.n_features)
    masks = static_masks(spec)
    products, jacobian = jax.tree.map(np.asarray, _information(key, truth, masks, max(1, n_draws // N_BLOCKS)))
    if not products.shape[-1]:
        raise ValueError("spec leaves nothing free, so there is nothing to estimate: make a field of known None.")
    blocks = n_samples * products.astype(float)
    information = blocks.mean(axis=0)
    without = (blocks.sum(axis=0) - blocks) / (N_BLOCKS - 1)  # each block in turn
    errors, *jackknife = (_standard_errors(jacobian, each) for each in (information, *without))
    information_se = blocks.std(axis=0, ddof=1) / np.sqrt(N_BLOCKS)
    errors_se = jax.tree.map(lambda *leaves: np.std(leaves, axis=0) * np.sqrt(N_BLOCKS - 1), *jackknife)
    return CramerRao(information, information_se, errors, errors_se, blocks)


def efficiency(estimates: GMM, truth: GMM, spec: MixtureSpec, bound: CramerRao) -> Efficiency:
    """How near to the bound the estimates of many replications come; `estimates` has a leading axis R.

    Components are paired with the truth's here. A replication that is not finite makes everything NaN.

    Raises:
        ValueError: fewer than two replications, or a bound of another specification.
    """
    truth, estimates = (jax.tree.map(lambda leaf: np.asarray(leaf, float), gmm) for gmm in (truth, estimates))
    n = len(estimates.weights)
    if estimates.means.ndim != 3 or n < 2:
        raise ValueError(f"estimates must have a leading axis of at least 2; got means of {estimates.means.shape}.")
    masks = static_masks(validate_spec(spec, truth.n_features))
    matched = permute(estimates, match(estimates, truth, spec))
    many = jax.tree.map(lambda leaf: leaf[None], truth)
    d = np.asarray(_coordinates(matched, masks), float) - np.asarray(_coordinates(many, masks), float)
    p = d.shape[1]
    if bound.information.shape != (p, p):
        raise ValueError(f"bound is of {len(bound.information)} free numbers, but spec leaves {p}: use the same spec.")
    each = np.einsum("rp,pq,rq->r", d, bound.information, d) / p
    of_block = np.einsum("rp,bpq,rq->b", d, bound.blocks, d) / (n * p)
    error = np.hypot(each.std(ddof=1) / np.sqrt(n), of_block.std(ddof=1) / np.sqrt(len(of_block)))
    bias = d.mean(axis=0) @ bound.information @ d.mean(axis=0) / p
    return Efficiency(float(each.mean()), float(error), float(each.mean() - bias), float(bias), n)


def _standard_errors(jacobian, information) -> GMM:
    root = inverse_root(information, SINGULAR)
    if root is None:
        raise ValueError("the information at the truth is singular: components coincide, or n_draws is too small.")
    return jax.tree.map(lambda j: np.linalg.norm(j @ root, axis=-1), jacobian)  # √ of the diagonal of J I⁻¹ Jᵀ


@partial(jax.jit, static_argnames=("masks", "n_draws"), compiler_options=ONE_AT_A_TIME)
def _information(key, truth, masks, n_draws):
    """Mean of s sᵀ over each block of draws, and ∂(mixture)/∂θ."""

    def block(key):
        return score_products(sample(key, truth, n_draws)[0], truth, masks) / n_draws

    theta, unpack = free_coordinates(truth, masks)
    return jax.lax.map(block, jax.random.split(key, N_BLOCKS)), jax.jacobian(unpack)(theta)


@partial(jax.jit, static_argnames="masks")
def _coordinates(gmms, masks):
    return jax.vmap(lambda gmm: free_coordinates(gmm, masks)[0])(gmms)
