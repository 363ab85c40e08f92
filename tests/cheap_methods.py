"""Methods that cost nothing, named cheap_methods:NAME: good ones, and one for every promise that can be broken."""

import os
import signal
import time

import jax
import numpy as np

from gmm_jax import GMM, Fit, NotSupported, Status
from gmm_jax.mixture import check_data, structure, validate_spec


def split(key, x, spec, *, value=0.0):
    """The rows cut into K equal parts along the first feature, with nothing known."""
    x = check_data(x, n_components=spec.n_components)
    validate_spec(spec, x.shape[1])
    if any(part is not None for part in (spec.known.weights, spec.known.means, spec.known.covariances)):
        raise NotSupported("split knows nothing beforehand.")
    parts = np.array_split(x[np.argsort(x[:, 0])], [3 * len(x) // 4] if spec.n_components == 2 else spec.n_components)
    kind = structure(spec.covariance_type)
    full = np.stack([np.cov(part.T).reshape(x.shape[1], -1) for part in parts])
    weights = np.array([len(part) for part in parts]) / len(x)
    noise = 1e-3 * np.random.default_rng(np.asarray(jax.random.key_data(key))).standard_normal()
    means = np.stack([part.mean(axis=0) for part in parts]) + value + noise
    if kind.shape(1, 2) == (1,):
        full = np.trace(full, axis1=1, axis2=2) / x.shape[1]
    return Fit(GMM(weights, means, full, spec.covariance_type), None, None, Status.CONVERGED, {})


def without_sentence(key, x, spec):
    """Never ends"""
    return split(key, x, spec)


def single_precision(key, x, spec):
    """float32."""
    found = split(key, x, spec)
    return found._replace(point=jax.tree.map(np.float32, found.point))


def far_away(key, x, spec):
    """Two units off."""
    return split(key, x, spec, value=2.0)


def forgetful(key, x, spec):
    """The answer depends on the clock."""
    return split(key, x, spec, value=1e-9 * (time.perf_counter_ns() % 1000))


def ignores_what_is_known(key, x, spec):
    """Known parts are silently dropped."""
    validate_spec(spec, x.shape[1])
    return split(key, x, type(spec)(spec.n_components, spec.covariance_type))


def takes_anything(key, x, spec):
    """NaN and nonsense are not noticed."""
    x = np.nan_to_num(x)
    return split(key, x if len(x) > 1 else np.tile(x, (9, 1)), type(spec)(spec.n_components))


def writes_to_x(key, x, spec):
    """The data are centred in place."""
    found = split(key, x, spec)
    x -= x.mean(axis=0)
    return found


def raises(key, x, spec):
    """An error that is no ValueError."""
    raise RuntimeError("out <b>of</b> luck")


def gives_nan(key, x, spec):
    """NaN, and says that it converged."""
    return split(key, x, spec, value=np.nan)


def hangs(key, x, spec):
    """Sleeps for an hour."""
    time.sleep(3600.0)


def dies(key, x, spec):
    """Its process is killed, as by a system without memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def dies_while(key, x, spec, *, there=""):
    """Its process is killed as long as that file is there."""
    return dies(key, x, spec) if os.path.exists(there) else split(key, x, spec)


def takes_a_second(key, x, spec, *, log=""):
    """Writes to the file log which process works, and takes its time."""
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(1.0)
    return split(key, x, spec)


class NotAFunction:
    pass


value = 3
