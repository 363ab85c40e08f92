"""What both estimators share: predictions from M mixtures, an estimate (M = 1) or a posterior's draws.

The density of a row is the mean of the mixtures' densities, p(x) = 1/M Σ_m p(x | θ_m), and p(k | x) the mean of their
responsibilities (see `mixture.predictive`).
"""

import os
from functools import partial

import jax
import numpy as np
from jaxtyping import Float, Int

from ..mixture import GMM, ONE_AT_A_TIME, check_sample_weight, sample
from ..mixture.annotations import check_missing
from ..mixture.checks import first_of, float_array, native, real_array
from ..mixture.forks import check_process
from ..mixture.predictive import pooled_units, predictive
from ..mixture.programs import jit

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    from .without_sklearn import (
        BaseEstimator,
        ConvergenceWarning,
        DensityMixin,
        check_is_fitted,
        check_random_state,
        validate_data,
    )

__all__ = ["BaseMixture", "ConvergenceWarning", "check_is_fitted"]


class BaseMixture(DensityMixin, BaseEstimator):
    """Predictions from what `fit` leaves: weights_, means_, covariances_, and the mixtures of `_mixtures`."""

    missing: str | None = None  # what NaN in X mean

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing is not None
        return tags

    def _keep(self, arguments: dict) -> None:
        """The constructor's arguments under their names, as scikit-learn wants them."""
        vars(self).update({name: value for name, value in arguments.items() if name not in ("self", "__class__")})

    def fit_predict(self, X, y=None, *annotations, **named_annotations) -> Int[np.ndarray, "N"]:
        """fit(X).predict(X); annotations of the rows as in `fit`."""
        return self.fit(X, y, *annotations, **named_annotations).predict(X)

    def predict(self, X) -> Int[np.ndarray, "N"]:
        """The most probable component of each row."""
        return np.argmax(self.predict_proba(X), axis=1)

    def predict_proba(self, X) -> Float[np.ndarray, "N K"]:
        """p(component k | x_n): rows sum to one."""
        X, found = self._predictive(X)
        return found.responsibilities.astype(np.result_type(X, self.means_))

    def score_samples(self, X) -> Float[np.ndarray, "N"]:
        """log p(x_n) of each row, nats per unit volume of X."""
        X, found = self._predictive(X)
        return found.log_density.astype(np.result_type(X, self.means_))

    def score(self, X, y=None, sample_weight=None) -> float:
        """Mean of log p(x_n) over rows, nats, weighted if weights are given."""
        del y
        log_density = self.score_samples(X)
        return float(np.average(log_density, weights=check_sample_weight(sample_weight, log_density.size)))

    def sample(self, n_samples: int = 1) -> tuple[Float[np.ndarray, "n D"], Int[np.ndarray, "n"]]:
        """Rows drawn from p(x), and the components that made them, component by component."""
        check_is_fitted(self)
        check_process()
        if not isinstance(n_samples, (int, np.integer)):
            raise ValueError(f"n_samples must be an integer; got {n_samples!r}.")
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample.")
        inner, scaling = pooled_units(self._mixtures(), self.means_.dtype)
        z, labels = _sample(jax.random.fold_in(self._key(), 1), inner, n_samples)
        order = np.argsort(labels, kind="stable")
        return (z[order] * scaling.scale + scaling.centre).astype(scaling.dtype), labels[order].astype(np.int64)

    @property
    def mixture_(self) -> GMM:
        """The estimate as a mixture, for the rest of gmm_jax: `match`, `judge`, `sample`, ..."""
        return GMM(self.weights_, self.means_, self.covariances_, self.covariance_type)

    def _mixtures(self) -> GMM:
        """The M mixtures of a fitted estimator, leading axis M."""
        return jax.tree.map(lambda leaf: leaf[None], self.mixture_)

    def _key(self):
        seed = self.random_state
        if isinstance(seed, (jax.Array, np.random.Generator)):  # scikit-learn's sentence on them names no remedy
            what, remedy = "a Generator", "int(generator.integers(2**31))"
            if isinstance(seed, jax.Array):
                what, remedy = "a JAX key or array", "an integer, or use em.fit_em_restarts(key, x, spec)"
            raise ValueError(
                f"random_state must be an integer, RandomState or None, as in scikit-learn; got {what}: pass {remedy}."
            )
        return jax.random.key(check_random_state(seed).randint(np.iinfo(np.int32).max))

    def _validated(self, X, **options):
        check_process()
        check_missing(self.missing)
        kinds = getattr(X, "dtypes", ()) if hasattr(X, "columns") else ()
        if isinstance(X, (str, bytes, os.PathLike)) or any(getattr(kind, "kind", "O") not in "fiub" for kind in kinds):
            real_array(X, "X")  # it names the columns that hold no numbers
        if isinstance(X, np.ma.MaskedArray):  # of which scikit-learn drops the mask
            X = float_array(X, "X")
        X = native(X)
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", **options)
        if self.missing is None and np.isnan(X).any():
            row, column = first_of(np.isnan(X))
            name = repr(getattr(self, "feature_names_in_", range(X.shape[1]))[column])
            where = f"the first at row {row}, column {name}"
            raise ValueError(f'X contains NaN, {where}: drop or impute such rows, or pass missing="marginalise".')
        return X

    def _predictive(self, X):
        """X checked, and its density and responsibilities in float64."""
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        return X, predictive(self._mixtures(), X, missing=self.missing)


def _sample(key, mixtures, n_samples):
    """Rows, each from one of the M mixtures drawn evenly, and their components."""
    key_mixtures, key_rows = jax.random.split(key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_mixtures)))
    n_mixtures = len(mixtures.weights)
    count = rng.multinomial(n_samples, np.full(n_mixtures, 1.0 / n_mixtures))
    chosen = np.flatnonzero(count)
    padded = np.pad(chosen, (0, _power_of_two(chosen.size) - chosen.size), mode="edge")
    drawn = _sample_each(key_rows, jax.tree.map(lambda leaf: leaf[padded], mixtures), _power_of_two(count.max()))
    wanted = np.arange(drawn[1].shape[1]) < count[chosen][:, None]
    return tuple(np.asarray(part)[: chosen.size][wanted] for part in drawn)


def _power_of_two(n: int) -> int:
    """The next one: with few shapes, one program serves many sizes of data."""
    return 1 << (int(n) - 1).bit_length()


@partial(jit, static_argnames="n", compiler_options=ONE_AT_A_TIME)
def _sample_each(key, mixtures, n):
    return jax.vmap(lambda key, gmm: sample(key, gmm, n))(jax.random.split(key, mixtures.weights.shape[0]), mixtures)
