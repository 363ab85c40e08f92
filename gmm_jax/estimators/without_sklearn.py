"""What the estimator takes from scikit-learn, in plain Python, for machines where it is not installed.

The names and signatures are scikit-learn's, so that the estimator reads the same with either.
"""

import inspect

import numpy as np

from ..mixture import check_data
from ..mixture.annotations import MARGINALISE


class ConvergenceWarning(UserWarning):
    """EM stopped before it converged."""


class NotFittedError(ValueError, AttributeError):
    """A fitted attribute was asked for before fit."""


class DensityMixin:
    """Nothing of its own: scikit-learn marks density estimators by it."""


class BaseEstimator:
    """Parameters are the arguments of the constructor, kept under their names."""

    @classmethod
    def _get_param_names(cls):
        return sorted(inspect.signature(cls).parameters)

    def get_params(self, deep: bool = True) -> dict:  # noqa: FBT001, FBT002 (scikit-learn's signature)
        """The constructor's arguments by name."""
        del deep
        return {name: getattr(self, name) for name in self._get_param_names()}

    def set_params(self, **params):
        """The estimator itself, with these arguments changed; a ValueError lists the names there are."""
        names = self._get_param_names()
        for name, value in params.items():
            if name not in names:
                raise ValueError(f"Invalid parameter {name!r} for {self!r}: valid are {', '.join(names)}.")
            setattr(self, name, value)
        return self

    def __repr__(self):
        defaults = {name: p.default for name, p in inspect.signature(type(self)).parameters.items()}
        changed = {name: value for name, value in self.get_params().items() if value is not defaults[name]}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


def check_random_state(seed) -> np.random.RandomState:
    """NumPy's global generator for None, a new one for an integer, a RandomState as it is."""
    if seed is None:
        return np.random.mtrand._rand
    if isinstance(seed, np.random.RandomState):
        return seed
    if isinstance(seed, (int, np.integer)):
        return np.random.RandomState(seed)
    raise ValueError(f"random_state must be an integer, a RandomState or None; got {seed!r}.")


def check_is_fitted(estimator) -> None:
    """A NotFittedError where no attribute ends with an underscore."""
    if not any(name.endswith("_") and not name.startswith("__") for name in vars(estimator)):
        remedy = "Call 'fit' with appropriate arguments before using this estimator."
        raise NotFittedError(f"This {type(estimator).__name__} instance is not fitted yet. {remedy}")


def validate_data(estimator, X, *, reset=True, dtype=None, ensure_min_samples=1, ensure_all_finite=True):
    """X as a (N, D) float array, finite but for NaN where it may have any ("allow-nan"); its width and column names are
    learned (reset), or compared.

    `dtype` is scikit-learn's: check_data already gives float32 or float64.
    """
    del dtype
    names = list(getattr(X, "columns", ()))
    names = names if all(isinstance(name, str) for name in names) else []
    missing = MARGINALISE if ensure_all_finite == "allow-nan" else None
    X = check_data(X, n_components=ensure_min_samples, name="X", missing=missing)
    if reset:
        estimator.n_features_in_ = X.shape[1]
        vars(estimator).pop("feature_names_in_", None)
        if names:
            estimator.feature_names_in_ = np.array(names, object)
        return X
    expected = getattr(estimator, "n_features_in_", X.shape[1])
    if X.shape[1] != expected:
        kind = type(estimator).__name__
        raise ValueError(f"X has {X.shape[1]} features, but {kind} is expecting {expected} features as input.")
    learned = getattr(estimator, "feature_names_in_", None)
    if names and learned is not None and names != list(learned):
        raise ValueError(f"The feature names should match those that were passed during fit: {list(learned)}.")
    return X
