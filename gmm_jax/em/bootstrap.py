"""Uncertainty by fitting again: fits of resampled data, started from the fit itself.

Each resample's components are paired with the fit's, whole components at once, before anything is averaged; where the
pairing is doubtful it is counted, because then the spread is that of labels and not of estimates.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ..mixture import ONE_AT_A_TIME, MixtureSpec, NotSupported, Status, ambiguous, assign, distinguished, match_cost
from ..mixture.annotations import there
from ..mixture.checks import check_count, check_key, check_type
from ..mixture.cores import in_batches
from ..mixture.gmm import GMM, mixture_of, permute, sample
from ..mixture.moments import log_likelihood
from ..mixture.programs import jit
from ..mixture.scaling import QUIET
from .fit import EMConfig, EMResult, _fit
from .inputs import Data, prepare

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


@QUIET
def bootstrap(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    result: EMResult,
    spec: MixtureSpec,
    *,
    n_resamples: int = 1000,
    parametric: bool = False,
    sample_weight: Float[Array, "N"] | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
    config: EMConfig = EMConfig(),
) -> Bootstrap:
    """EM, from the fit, on n_resamples data sets of N rows: rows of x drawn with replacement, or samples of the fit.

    Only the optimum that the fit leads to is followed, as its standard errors want: no other starts are tried.
    config.reg_covar=None means 1e-6 of each feature's variance.

    Args:
        sample_weight, labels, missing: as they were given to the fit. A row is drawn with its label and its gaps; with
            weights w_n it is drawn Poisson(w_n) times. NotSupported where `parametric`, which makes complete rows.

    References:
        Efron & Tibshirani (1993), An Introduction to the Bootstrap, ch. 6; O'Hagan, Murphy, Scrucca & Gormley (2019),
        Computational Statistics 34, for mixtures; Hanley & MacGibbon (2006), Comput. Meth. Prog. Bio. 83, for weights.
    """
    check_key(key)
    check_count(n_resamples, "n_resamples", 2)
    data, inner = at_result(x, result, spec, sample_weight, labels, missing, config, n_resamples)
    if parametric and any(leaf is not None for leaf in data.annotations[:3]):
        raise NotSupported(
            "the parametric bootstrap samples complete rows, each counted once, without labels: use bootstrap, "
            "observed or sandwich."
        )
    arguments = (data.z, data.annotations, inner, data.inner.known, data.config)
    gmms, status = jax.tree.map(np.asarray, _refit(key, *arguments, n_resamples=n_resamples, parametric=parametric))
    usable = _usable(status)
    cost = match_cost(gmms, inner, distinguished(data.spec, data.annotations.labels))
    order = assign(cost)
    gmms = data.scaling.outward(permute(gmms, order))
    return Bootstrap(
        gmms=gmms,
        permutations=order,
        ambiguous=usable & ambiguous(cost, order),
        lost=~usable | np.any(np.argmin(cost, axis=-1) != np.argsort(order, axis=-1), axis=-1),
        status=status,
        standard_errors=jax.tree.map(lambda leaf: _spread(leaf[usable]), gmms),
    )


def at_result(x, result, spec, sample_weight, labels, missing, config, n_fits=1) -> tuple[Data, GMM]:
    """The data and the result's mixture, standardised; a ValueError where that mixture was not fitted to these data."""
    check_type(config, EMConfig, "config", "EMConfig(max_iter=1000)")
    data = prepare(x, spec, sample_weight, config, None, labels=labels, missing=missing, n_fits=n_fits)
    gmm = mixture_of(result, "result")
    got = (*np.shape(gmm.means), gmm.covariance_type)
    if got != (wanted := (spec.n_components, data.z.shape[1], spec.covariance_type)):
        raise ValueError(f"result has (components, features, covariance_type) {got}, but spec and x have {wanted}.")
    inner = jax.tree.map(lambda leaf: leaf.astype(data.z.dtype), data.scaling.inward(gmm))
    said = getattr(getattr(result, "best", result), "log_likelihood", None)
    if said is not None and np.isfinite(said):
        found = float(_log_likelihood(inner, data.z, data.annotations)) - data.volume
        rounding = np.spacing(np.abs(data.scaling.centre).astype(data.scaling.dtype)) / data.scaling.scale
        slack = np.sqrt(np.finfo(data.z.dtype).eps) * (data.n_samples + abs(said))
        if not abs(found - said) <= slack + data.n_samples * rounding @ rounding:
            raise ValueError(
                f"result has the log-likelihood {said:.8g}, but with this x and these weights, labels and gaps it is "
                f"{found:.8g}: pass the x, sample_weight, labels and missing that made the fit."
            )
    return data, inner


_log_likelihood = jax.jit(log_likelihood, compiler_options=ONE_AT_A_TIME)


def _usable(status):
    return np.isin(status, (Status.CONVERGED, Status.MAX_ITER))


def _spread(draws):
    """Standard deviation over the first axis; exactly 0 where all agree, NaN of fewer than two."""
    if len(draws) < 2:
        return np.full(draws.shape[1:], np.nan, draws.dtype)
    return np.where(np.ptp(draws, axis=0) == 0.0, 0.0, np.std(draws, axis=0, ddof=1))


@partial(jit, static_argnames=("n_resamples", "parametric"), compiler_options=ONE_AT_A_TIME)
def _refit(key, z, rows, gmm, known, config, n_resamples, parametric):
    """Fits of samples of gmm, or of rows with replacement, which come as how often each was drawn."""

    def one(key):
        x, count = z, None
        if parametric:
            x = jnp.where(there(z.shape[0], rows.n_rows)[:, None], sample(key, gmm, z.shape[0])[0], 0.0)
        elif rows.weight is None:
            drawn = jax.random.randint(key, z.shape[:1], 0, rows.n_rows)
            count = jnp.zeros(z.shape[:1], z.dtype).at[drawn].add(there(z.shape[0], rows.n_rows).astype(z.dtype))
        else:
            count = jax.random.poisson(key, rows.weight).astype(z.dtype)
        found = _fit(x, gmm, known, rows._replace(weight=count), config, None)
        return found.gmm, found.status

    return in_batches(one, jax.random.split(key, n_resamples), AT_A_TIME)
