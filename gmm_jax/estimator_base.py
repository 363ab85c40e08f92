"""What the doors for scikit-learn's users share: predictions from M mixtures, an estimate or a posterior's draws.

The density of a row is the mean of the mixtures' densities, p(x) = 1/M Σ_m p(x | θ_m), and p(k | x) the mean of their
responsibilities. Both are computed in standard units, so that float32 holds an offset of 1e6 too.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from .mixture import GMM, ONE_AT_A_TIME, check_sample_weight, log_joint, sample, standard_units
from .mixture.annotations import check_missing

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

__all__ = ["ConvergenceWarning", "MixtureDoor", "check_is_fitted", "validate_data"]

BLOCK_NUMBERS = 1 << 22  # K·D·rows of one block of densities: 32 MiB of float64
LEAST_ROWS = 256  # of a block


class MixtureDoor(DensityMixin, BaseEstimator):
    """Predictions from what `fit` leaves: weights_, means_, covariances_, and the mixtures of `_mixtures`."""

    missing: str | None = None  # what NaN in X mean, for a door that takes them; its _mixtures are one

    def predict(self, X) -> Int[np.ndarray, "N"]:
        """The most probable component of each row."""
        return np.argmax(self.predict_proba(X), axis=1)

    def predict_proba(self, X) -> Float[np.ndarray, "N K"]:
        """p(component k | x_n): rows sum to one."""
        return self._predictive(X)[1]

    def score_samples(self, X) -> Float[np.ndarray, "N"]:
        """log p(x_n) of each row, nats per unit volume of X."""
        return self._predictive(X)[0]

    def score(self, X, y=None, sample_weight=None) -> float:
        """Mean of log p(x_n) over rows, nats, weighted if weights are given."""
        del y
        log_prob = self.score_samples(X)
        return float(np.average(log_prob, weights=check_sample_weight(sample_weight, log_prob.size)))

    def sample(self, n_samples: int = 1) -> tuple[Float[np.ndarray, "n D"], Int[np.ndarray, "n"]]:
        """Rows drawn from p(x), and the components that made them, component by component."""
        check_is_fitted(self)
        if not isinstance(n_samples, (int, np.integer)):
            raise ValueError(f"n_samples must be an integer; got {n_samples!r}.")
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample.")
        inner, frame = standard_units(self.mixture_, self.means_.dtype, self._mixtures())
        z, labels = _sample(jax.random.fold_in(self._key(), 1), inner, n_samples)
        order = np.argsort(labels, kind="stable")
        return (z[order] * frame.scale + frame.centre).astype(frame.dtype), labels[order].astype(np.int64)

    @property
    def mixture_(self) -> GMM:
        """The estimate as a mixture, for the rest of gmm_jax: `match`, `judge`, `sample`, ..."""
        return GMM(self.weights_, self.means_, self.covariances_, self.covariance_type)

    def _mixtures(self) -> GMM:
        """The M mixtures of a fitted door, leading axis M."""
        return jax.tree.map(lambda leaf: leaf[None], self.mixture_)

    def _key(self):
        return jax.random.key(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _validated(self, X, **options):
        check_missing(self.missing)
        finite = True if self.missing is None else "allow-nan"
        return validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=finite, **options)

    def _predictive(self, X):
        """log p(x_n), (N,), and p(k | x_n), (N, K)."""
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        dtype = np.result_type(X, self.means_)
        inner, frame = standard_units(self.mixture_, dtype, self._mixtures())
        z = ((X.astype(float) - frame.centre) / frame.scale).astype(inner.means.dtype)
        if np.isnan(z).any():
            return self._of_what_was_seen(inner, z, frame, dtype)
        rows = _power_of_two(max(LEAST_ROWS, min(len(z), BLOCK_NUMBERS // self.means_.size)))
        blocks = [_padded(inner, z[i : i + rows], rows) for i in range(0, len(z), rows)]
        log_density, p = (np.concatenate(part).astype(dtype) for part in zip(*blocks, strict=True))
        return log_density - dtype.type(frame.log_volume), p

    def _of_what_was_seen(self, mixtures, z, frame, dtype):
        joint = np.asarray(log_joint(jax.tree.map(lambda leaf: leaf[0], mixtures), z, missing=self.missing), float)
        log_density = np.logaddexp.reduce(joint, axis=1)
        volume = ~np.isnan(z) @ np.log(frame.scale)
        return (log_density - volume).astype(dtype), np.exp(joint - log_density[:, None]).astype(dtype)


def _power_of_two(n):
    """The next one: with few shapes, one program serves many sizes of data."""
    return 1 << (int(n) - 1).bit_length()


def _padded(mixtures, z, rows):
    padded = np.zeros((rows, z.shape[1]), z.dtype)
    padded[: len(z)] = z
    return tuple(np.asarray(part)[: len(z)] for part in _mean_over_mixtures(mixtures, padded))


@jax.jit
def _mean_over_mixtures(mixtures: GMM, z: Float[Array, "N D"]):
    """log mean_m p(z_n | θ_m) and mean_m p(k | z_n, θ_m), one mixture at a time."""

    def add(sums, gmm):
        joint = log_joint(gmm, z)
        log_density = logsumexp(joint, axis=1)
        return (jnp.logaddexp(sums[0], log_density), sums[1] + jnp.exp(joint - log_density[:, None])), None

    n_mixtures, n_components = mixtures.weights.shape
    nothing = jnp.full(z.shape[0], -jnp.inf, z.dtype), jnp.zeros((z.shape[0], n_components), z.dtype)
    (log_sum, r), _ = jax.lax.scan(add, nothing, mixtures)
    return log_sum - math.log(n_mixtures), r / n_mixtures


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


@partial(jax.jit, static_argnames="n", compiler_options=ONE_AT_A_TIME)
def _sample_each(key, mixtures, n):
    return jax.vmap(lambda key, gmm: sample(key, gmm, n))(jax.random.split(key, mixtures.weights.shape[0]), mixtures)
