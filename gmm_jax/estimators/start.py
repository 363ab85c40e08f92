"""Where GaussianMixture begins: starts by scikit-learn's names, and the parts of a start that the caller gives.

What is wrong with a part is said in scikit-learn's sentences, because its tests ask for them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from ..em import m_step
from ..mixture import GMM, moments, structure
from ..mixture.gmm import deviations
from ..mixture.starts import STARTS


def start_named(init_params: str | Callable) -> Callable:
    """The start function of that name, or the callable itself; a ValueError lists the names there are."""
    if callable(init_params):
        return init_params
    names = STARTS | {"random": random_responsibilities}
    names |= {"random_from_data": STARTS["random_points"], "k-means++": STARTS["kmeans++"]}
    if init_params not in names:
        raise ValueError(f"init_params must be one of {', '.join(names)}, or a start function; got {init_params!r}.")
    return names[init_params]


def given_parts(parts: dict, n_components: int, n_features: int, covariance_type: str) -> dict:
    """Leaves of a GMM by name, for those of weights, means and precisions that are not None."""
    given = {}
    if parts["weights"] is not None:
        given["weights"] = _check_weights(parts["weights"], n_components)
    if parts["means"] is not None:
        given["means"] = _check_shape(parts["means"], (n_components, n_features), "means")
    if parts["precisions"] is not None:
        shape = structure(covariance_type).shape(n_components, n_features)
        given["covariances"] = _inverse_of_checked(parts["precisions"], shape, covariance_type)
    return given


def random_responsibilities(key, x, spec) -> GMM:
    """scikit-learn's init_params="random": one M-step from responsibilities drawn uniformly and normalised."""
    r = jax.random.uniform(key, (spec.n_components, x.shape[0]), x.dtype)
    frame = STARTS["random_points"](key, x, spec)
    sums = moments(frame, deviations(frame, x), r / r.sum(axis=0, keepdims=True), x[:, 0])
    return m_step(sums, frame, known=spec.known)


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
