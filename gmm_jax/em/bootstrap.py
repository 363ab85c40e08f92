"""How sure EM is, by doing it again: fits of resampled data, started from the fit itself.

Each resample's components are paired with the fit's, whole components at once, before anything is averaged; where the
pairing is doubtful it is counted, because then the spread is that of labels and not of estimates.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ..mixture import (
    GMM,
    ONE_AT_A_TIME,
    MixtureSpec,
    Status,
    ambiguous,
    assign,
    check_data,
    match_cost,
    permute,
    sample,
    standardise,
    validate_spec,
)
from .fit import EMConfig, EMResult, fit_em

AT_A_TIME = 64  # resamples; a program that holds all of them holds as many responsibilities


class Bootstrap(NamedTuple):
    """Fits of resampled data, in the order of the fit's components; leading axis R."""

    gmms: GMM  # units of x
    permutations: Int[np.ndarray, "R K"]  # component permutations[r, k] of fit r became k
    ambiguous: Bool[np.ndarray, "R"]  # the second best pairing costs less than twice the best
    lost: Bool[np.ndarray, "R"]  # no component of the resample is nearest to some component of the fit, or EM failed
    status: Int[np.ndarray, "R"]  # a Status each
    standard_errors: GMM  # standard deviations over resamples whose EM did not fail, lost and ambiguous ones included

    @property
    def message(self) -> str:
        """How far the standard errors may be trusted, in a sentence."""
        n, ambiguous, lost = len(self.lost), int(self.ambiguous.sum()), int(self.lost.sum())
        failed = int(np.sum(~_usable(self.status)))
        if not ambiguous + lost:
            return f"{n} resamples: every component was found again, and every match was clear."
        return (
            f"{n} resamples: {lost} lost a component ({failed} of them because EM failed, and are left out) and "
            f"{ambiguous} had an ambiguous match: the standard errors mix labels with estimates."
        )


def bootstrap(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    result: EMResult,
    spec: MixtureSpec,
    *,
    n_resamples: int = 1000,
    parametric: bool = False,
    config: EMConfig = EMConfig(),
) -> Bootstrap:
    """EM, from the fit, on n_resamples data sets of N rows: rows of x drawn with replacement, or samples of the fit.

    Only the optimum that the fit leads to is followed, as its standard errors want: no other starts are tried.
    config.reg_covar=None means 1e-6 of each feature's variance.

    References:
        Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 6; O'Hagan, Murphy, Scrucca & Gormley (2019),
        Computational Statistics 34, for mixtures.
    """
    if isinstance(n_resamples, bool) or not isinstance(n_resamples, (int, np.integer)) or n_resamples < 2:
        raise ValueError(f"n_resamples must be an integer of at least 2; got {n_resamples!r}: a spread needs two.")
    x = check_data(x, n_components=spec.n_components)
    spec = validate_spec(spec, x.shape[1])
    z, scaling = standardise(x, spec)
    inner = jax.tree.map(lambda leaf: leaf.astype(z.dtype), scaling.inward(jax.tree.map(np.asarray, result.gmm)))
    reg_covar = scaling.ridge_inward(config.reg_covar).astype(z.dtype)
    config = EMConfig(config.max_iter, np.asarray(config.tol, z.dtype), reg_covar, config.acceleration, config.stop)
    refit = _refit_samples if parametric else _refit_weighted
    gmms, status = jax.tree.map(np.asarray, refit(key, z, inner, scaling.known_inward(spec), config, n_resamples))
    usable = _usable(status)
    cost = match_cost(gmms, inner, spec)
    order = assign(cost)
    gmms = scaling.outward(permute(gmms, order))
    return Bootstrap(
        gmms=gmms,
        permutations=order,
        ambiguous=usable & ambiguous(cost, order),
        lost=~usable | np.any(np.argmin(cost, axis=-1) != np.argsort(order, axis=-1), axis=-1),
        status=status,
        standard_errors=jax.tree.map(lambda leaf: _spread(leaf[usable]), gmms),
    )


def _usable(status):
    return np.isin(status, (Status.CONVERGED, Status.MAX_ITER))


def _spread(draws):
    """Standard deviation over the first axis; exactly 0 where all agree, NaN of fewer than two."""
    if len(draws) < 2:
        return np.full(draws.shape[1:], np.nan, draws.dtype)
    return np.where(np.ptp(draws, axis=0) == 0.0, 0.0, np.std(draws, axis=0, ddof=1))


@partial(jax.jit, static_argnames="n_resamples", compiler_options=ONE_AT_A_TIME)
def _refit_weighted(key, z, gmm, known, config, n_resamples):
    """Rows with replacement, as how often each was drawn."""

    def one(key):
        rows = jax.random.randint(key, (z.shape[0],), 0, z.shape[0])
        weight = jnp.zeros(z.shape[:1], z.dtype).at[rows].add(1.0)
        return _fit(z, gmm, known, weight, config)

    return jax.lax.map(one, jax.random.split(key, n_resamples), batch_size=AT_A_TIME)


@partial(jax.jit, static_argnames="n_resamples", compiler_options=ONE_AT_A_TIME)
def _refit_samples(key, z, gmm, known, config, n_resamples):
    def one(key):
        return _fit(sample(key, gmm, z.shape[0])[0], gmm, known, None, config)

    return jax.lax.map(one, jax.random.split(key, n_resamples), batch_size=AT_A_TIME)


def _fit(z, gmm, known, weight, config):
    found = fit_em(z, gmm, known=known, sample_weight=weight, config=config)
    return found.gmm, found.status
