"""GaussianMixture, with scikit-learn's arguments, attributes and methods, fitted by `em`.

What it adds: restarts side by side, every fit of which is kept (`restarts_`), `sample_weight`, `known`, start
functions, a status with a reason (`status_`, `message_`), ICL and standard errors. Predictions are in `base`.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from .. import em
from ..judge.criteria import criteria
from ..mixture import GMM, Known, MixtureSpec, Status, check_sample_weight, moments, n_parameters, structure
from ..mixture.annotations import there
from ..mixture.checks import check_count
from ..mixture.gmm import deviations
from ..mixture.many_starts import in_known_order
from ..mixture.starts import STARTS
from .base import BaseMixture, ConvergenceWarning, check_is_fitted

BOUND_DIGITS = 12  # decimals of lower_bound_, nats per sample
LARGE_RIDGE = 0.01  # share of a column's variance that an absolute reg_covar may add in silence

ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or "
    "scale the input data."
)
NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, or "
    "check for degenerate data."
)


class GaussianMixture(BaseMixture):
    """Gaussian mixture by maximum likelihood, as scikit-learn's GaussianMixture, whose arguments it takes.

    Args:
        tol: gain in mean log-likelihood per sample, nats, at which EM stops.
        reg_covar: a number, added to the diagonals of covariances in the squared units of X; or "relative", 1e-6 of
            each column's variance, which makes the fit affine equivariant.
        n_init: restarts; all run side by side, and `restarts_` keeps each.
        init_params: kmeans, k-means++, random_from_data or random (random responsibilities), as in scikit-learn;
            random_points or kmeans++, which are `gmm_jax.mixture.starts`; or a start function (key, x, spec) -> GMM
            that sees standardised data.
        weights_init, means_init, precisions_init: parts of the start; the rest is init_params', in the order that suits
            them best.
        known: a `gmm_jax.Known`, in the units of X: what is held and not estimated.
        missing: "marginalise" takes NaN in X as missing at random: each row counts by what was seen of it, in `fit` and
            in every density, score and prediction. None: NaN is an error. See `gmm_jax.impute` for what is missing.
        verbose: 1 prints how many restarts are done, every `verbose_interval` looks; 2 at every look.

    Attributes, besides scikit-learn's: status_ (a `gmm_jax.Status`), message_ (the reason, a sentence), restarts_ (a
    `gmm_jax.em.Restarts`), mixture_ (the fitted `gmm_jax.GMM`).

    Unlike scikit-learn's, lower_bound_ and lower_bounds_ (mean log-likelihood, nats per sample) belong to the
    parameters after each M-step, so that lower_bounds_[-1] == lower_bound_ is the score of the training data. With
    reg_covar > 0 EM is not monotone, and the best iterate is returned: n_iter_ counts the M-steps that led to it, and
    after as many M-steps from the same start scikit-learn's parameters are the same.
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float | str = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str | Callable = "kmeans",
        weights_init=None,
        means_init=None,
        precisions_init=None,
        random_state=None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        known: Known | None = None,
        missing: str | None = None,
    ):
        self._keep(locals())

    def fit(self, X, y=None, sample_weight=None, labels=None):
        """The estimator itself, fitted: the best of n_init restarts, or with warm_start on from where it stands.

        sample_weight counts a row so many times. labels says which component rows come from, -1 where unknown:
        component k is then class k, and lower_bound_ is of the rows with their labels. y is ignored, as in
        scikit-learn. Warns (ConvergenceWarning) where EM did not converge.

        Raises:
            ValueError: bad data or arguments, or no restart ended well; the sentence says what to try.
        """
        del y
        frame, X = X, self._validated(X, ensure_min_samples=2)
        spec = self._spec()
        self._check_options(X, spec)
        weight = check_sample_weight(sample_weight, X.shape[0])
        self._warn_of_large_ridge(X, weight)
        again = self.warm_start and hasattr(self, "converged_")
        if again:
            self._check_same_model(X)
        search = {"sample_weight": weight, "labels": labels, "missing": self.missing}
        search["n_restarts"] = 1 if again else self.n_init
        relative = isinstance(self.reg_covar, str)
        ridge = None if relative else self.reg_covar
        config = em.EMConfig(self.max_iter, self.tol, ridge, acceleration="none")  # n_iter_ counts M-steps
        key = self._key()
        init = self.mixture_ if again else self._start(key, X, spec, search)
        named = hasattr(frame, "columns") and np.asarray(frame).dtype == X.dtype
        rows = frame if named else X  # messages name the columns of a data frame
        found = em.fit_em_restarts(key, rows, spec, init=init, config=config, progress=self._progress(), **search)
        # scikit-learn goes on with a collapsed component if there is a ridge, or a given start: here the iterate before
        # is kept, with a warning
        regularised = relative or np.all(np.asarray(self.reg_covar) > 0.0)
        usable = Status.COLLAPSED if regularised or isinstance(init, GMM) else None
        self._take(found, X.shape[0] if weight is None else float(np.sum(weight)), usable)
        return self

    def aic(self, X, sample_weight=None) -> float:
        """Akaike's criterion, −2ℓ + 2p: the lower, the better. p leaves out what is known."""
        return self._criteria(X, sample_weight)["aic"]

    def bic(self, X, sample_weight=None) -> float:
        """Schwarz's criterion, −2ℓ + p log n, with n the sum of the weights: the lower, the better."""
        return self._criteria(X, sample_weight)["bic"]

    def icl(self, X, sample_weight=None) -> float:
        """Integrated completed likelihood, as in `judge.information_criteria`: the lower, the better."""
        return self._criteria(X, sample_weight)["icl"]

    def standard_errors(self, X, sample_weight=None, labels=None) -> GMM:
        """Standard errors of φ, μ and Σ from the observed information at X, sample_weight and labels of `fit`.

        They are those of the maximum near this fit. The status of the result says whether there are any, and its
        message why not and how to have them: see `em.standard_errors`.
        """
        check_is_fitted(self)
        X, result = self._validated(X, reset=False), self.restarts_.best._replace(gmm=self.mixture_)
        rows = {"sample_weight": sample_weight, "labels": labels, "missing": self.missing}
        return em.standard_errors(X, result, self._spec(), **rows)

    def _spec(self):
        return MixtureSpec(self.n_components, self.covariance_type, Known() if self.known is None else self.known)

    def _n_parameters(self):
        """As scikit-learn's, whose own tests ask for it; known parts left out."""
        return n_parameters(self._spec(), self.means_.shape[1])

    def _criteria(self, X, sample_weight):
        X, (log_density, responsibilities) = self._predictive(X)
        weight = check_sample_weight(sample_weight, len(X))
        return criteria(log_density, responsibilities, self._n_parameters(), weight)

    def _check_options(self, X, spec):
        for name, least in (("n_components", 1), ("n_init", 1), ("max_iter", 0), ("verbose_interval", 1)):
            check_count(getattr(self, name), name, least)
        if self.reg_covar is None or (isinstance(self.reg_covar, str) and self.reg_covar != "relative"):
            raise ValueError(f"reg_covar must be a number or 'relative'; got {self.reg_covar!r}.")
        n, k = X.shape[0], spec.n_components
        if n < k:
            raise ValueError(f"Expected n_samples >= n_components but got n_components = {k}, n_samples = {n}")

    def _check_same_model(self, X):
        """A ValueError where a warm start would go on from a mixture of another kind or size."""
        (k, d), kind = self.restarts_.best.gmm.means.shape, self.restarts_.best.gmm.covariance_type
        if (k, d, kind) != (self.n_components, X.shape[1], self.covariance_type):
            raise ValueError(
                f"warm_start goes on from what was fitted, {k} components of type {kind!r} in {d} features: set "
                "warm_start=False to fit another model."
            )

    def _warn_of_large_ridge(self, X, weight):
        if isinstance(self.reg_covar, str):
            return
        seen = np.ma.masked_invalid(X.astype(float))
        variance = np.ma.average((seen - np.ma.average(seen, axis=0, weights=weight)) ** 2, axis=0, weights=weight)
        too_large = np.broadcast_to(self.reg_covar > LARGE_RIDGE * np.asarray(variance), variance.shape)
        if too_large.any():
            names = getattr(self, "feature_names_in_", np.arange(X.shape[1]))
            columns = ", ".join(f"{names[j]} ({variance[j]:.3g})" for j in np.flatnonzero(too_large))
            advice = "scale them, lower reg_covar, or pass reg_covar='relative'"
            said = f"reg_covar={self.reg_covar!r} is more than 1 % of the variance of column(s) {columns}: {advice}."
            warnings.warn(said, UserWarning, stacklevel=3)

    def _start(self, key, X, spec, search):
        """What EM begins from: a start function, or mixtures with the given parts put in."""
        start, given = start_named(self.init_params), self._given_parts(X.shape[1])
        if not given:
            return start
        if len(given) == 3:
            return GMM(**given, covariance_type=spec.covariance_type)
        drawn = em.fit_em_restarts(key, X, spec, init=start, config=em.EMConfig(max_iter=0), **search).starts
        if self.known is None and search["labels"] is None:  # else their order is given
            drawn = in_known_order(drawn, replace(spec, known=Known(**given)))
        return replace(drawn, **{name: np.stack([part] * search["n_restarts"]) for name, part in given.items()})

    def _given_parts(self, n_features):
        """Leaves of a GMM by name, for those of weights, means and precisions that were given."""
        shape, given = structure(self.covariance_type).shape(self.n_components, n_features), {}
        if self.weights_init is not None:
            given["weights"] = _check_weights(self.weights_init, self.n_components)
        if self.means_init is not None:
            given["means"] = _check_shape(self.means_init, (self.n_components, n_features), "means")
        if self.precisions_init is not None:
            given["covariances"] = _inverse_of_checked(self.precisions_init, shape, self.covariance_type)
        return given

    def _progress(self):
        if not self.verbose:
            return None
        looks, interval = 0, 1 if self.verbose >= 2 else self.verbose_interval

        def show(done, fits, best):
            nonlocal looks
            if looks % interval == 0 or done == fits:
                print(f"{done} of {fits} initializations done, highest log-likelihood {best:.5f}")
            looks += 1

        return show

    def _take(self, found, n_samples, usable):
        """The best fit as attributes: an error if its status is neither ok nor `usable`; it may warn."""
        best, status = found.best, Status(int(found.best.status))
        if not np.isfinite(best.log_likelihood) or not (status.ok or status == usable or self.max_iter == 0):
            raise ValueError(f"{ILL_DEFINED} ({found.message})" if status == Status.COLLAPSED else found.message)
        self.weights_, self.means_, self.covariances_ = best.gmm.weights, best.gmm.means, best.gmm.covariances
        self.precisions_, self.precisions_cholesky_ = _precisions(self.mixture_)
        self.n_iter_ = int(best.n_iter)
        # the same optimum reached in another batch of fits differs by rounding, and bounds are compared between fits
        bounds = np.round(best.trace.astype(float) / n_samples, BOUND_DIGITS)
        self.lower_bound_, self.lower_bounds_ = float(bounds[self.n_iter_]), bounds[1 : self.n_iter_ + 1]
        self.converged_ = status == Status.CONVERGED
        self.status_, self.message_, self.restarts_ = status, found.message, found
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(f"{NOT_CONVERGED} ({found.message})", ConvergenceWarning, stacklevel=3)


def _precisions(gmm):
    """Σ⁻¹ and its factor U with U Uᵀ = Σ⁻¹ (upper triangles, or 1/sd), as scikit-learn keeps them."""
    if gmm.covariance_type in ("diag", "spherical"):
        return 1.0 / gmm.covariances, 1.0 / np.sqrt(gmm.covariances)
    cholesky = np.linalg.cholesky(gmm.covariances.astype(float))
    upper = np.swapaxes(np.linalg.inv(cholesky), -1, -2)
    dtype = gmm.covariances.dtype
    return (upper @ np.swapaxes(upper, -1, -2)).astype(dtype), upper.astype(dtype)


# ---- starts; what is wrong with a part is said in scikit-learn's sentences, because its tests ask for them


def start_named(init_params: str | Callable) -> Callable:
    """The start function of that name, or the callable itself; a ValueError lists the names there are."""
    if callable(init_params):
        return init_params
    names = STARTS | {"random": random_responsibilities}
    names |= {"random_from_data": STARTS["random_points"], "k-means++": STARTS["kmeans++"]}
    if init_params not in names:
        raise ValueError(f"init_params must be one of {', '.join(names)}, or a start function; got {init_params!r}.")
    return names[init_params]


def random_responsibilities(key, x, spec, n_rows=None) -> GMM:
    """scikit-learn's init_params="random": one M-step from responsibilities drawn uniformly and normalised."""
    r = jax.random.uniform(key, (x.shape[0], spec.n_components), x.dtype).T  # rows first: the same if others fill up
    r = jnp.where(there(x.shape[0], n_rows)[None], r, 0.0) / r.sum(axis=0, keepdims=True)
    frame = STARTS["random_points"](key, x, spec, n_rows)
    sums = moments(frame, deviations(frame, x), r, x[:, 0])
    return em.m_step(sums, frame, known=spec.known)


def _check_shape(value, shape, name):
    value = np.asarray(value)
    value = value if value.dtype in (np.float32, np.float64) else value.astype(float)
    if value.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {value.shape}")
    if not np.all(np.isfinite(value)):
        raise ValueError(f"The parameter '{name}' should be finite.")
    return value


def _check_weights(value, n_components):
    weights = _check_shape(value, (n_components,), "weights")
    if np.any(weights < 0.0) or np.any(weights > 1.0):
        # least and greatest stand in the order of scikit-learn's message, which its tests ask for
        got = f"max value {np.min(weights):.5f}, min value {np.max(weights):.5f}"
        raise ValueError(f"The parameter 'weights' should be in the range [0, 1], but got {got}")
    total = float(np.sum(weights))
    if abs(total - 1.0) > (1e-6 if weights.dtype == np.float32 else 1e-8):
        raise ValueError(f"The parameter 'weights' should be normalized, but got sum(weights) = {total:.5f}")
    return weights


def _inverse_of_checked(value, shape, covariance_type):
    """Covariances of precisions, or scikit-learn's sentence on what is wrong with these."""
    name = f"{covariance_type} precision"
    precisions = _check_shape(value, shape, name).astype(float)
    if covariance_type in ("diag", "spherical"):
        if np.any(precisions <= 0.0):
            raise ValueError(f"'{name}' should be positive")
        return 1.0 / precisions
    symmetric = np.allclose(precisions, np.swapaxes(precisions, -1, -2))
    if not (symmetric and np.all(np.linalg.eigvalsh(precisions) > 0.0)):
        raise ValueError(f"'{name}' should be symmetric, positive-definite")
    covariances = np.linalg.inv(precisions)
    return 0.5 * (covariances + np.swapaxes(covariances, -1, -2))
