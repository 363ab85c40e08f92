"""One EM iteration, or many fits, of every program that can be timed here; what is not installed says how to get it.

All start from the same mixture with the same ridge. A maker takes (x, start, reg_covar, n_iter) and returns a function
that gives seconds per iteration. Where a program is one compiled loop, that is the difference between two numbers of
iterations, so that what happens once (transfer, checks) is not counted.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from gmm_jax.bench.methods._peers import how_to_get, sklearn_model
from gmm_jax.em import EMConfig, fit_em_restarts
from gmm_jax.mixture import GMM, MixtureSpec

from .mclust import MCLUST_COUNTED, how_to_get_mclust, mclust_iterations
from .ratios import MANY_FITS, ONE_FIT, seconds_of

N_FITS = 4
N_WORKERS = 2


class Timer(NamedTuple):
    """A program, and how it is timed."""

    make: Callable[..., Callable[[], float]]
    needs: str  # the package that must be there
    what: str  # is counted
    threads: str
    precision: str
    n_floors: float = 20.0  # that an iteration takes, about: it says how many are timed
    least: float = 5  # rounds that it takes part in, however long they take
    limit: float = 120.0  # seconds of a round, above which it is given up


# ---- one iteration


def ours(x, start, reg_covar, n_iter, *, n_fits):
    """fit_em_restarts with tol=0 from n_fits starts, the given one or near it, per iteration of one fit."""
    starts, spec, key = _near(start, n_fits), MixtureSpec(start.n_components), jax.random.key(0)
    few, many = max(1, n_iter // 4), max(n_iter, 2)

    def run(n):
        config = EMConfig(max_iter=n, tol=0.0, reg_covar=reg_covar)
        begin = time.perf_counter()
        found = fit_em_restarts(key, x, spec, n_restarts=n_fits, init=starts, config=config)
        return time.perf_counter() - begin, int(np.sum(found.fits.n_iter))

    def once():
        (short, fewer), (long, more) = run(few), run(many)
        return _positive((long - short) / max(more - fewer, 1))

    once()
    return once


def sklearn_one_process(x, start, reg_covar, n_iter, *, n_threads):
    """_e_step and _m_step, with as many threads as its libraries take (n_threads=None), or fewer."""
    del n_iter
    run = partial(sklearn_iterations, x, start, reg_covar, n_threads=n_threads)
    n_repeats = _repeats(run)
    return lambda: run(n_repeats) / n_repeats


def sklearn_workers(x, start, reg_covar, n_iter):
    """The same in N_WORKERS processes of one BLAS thread each, per iteration of one of them."""
    del n_iter
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=N_WORKERS)

    def run(n_repeats):
        begin = time.perf_counter()
        parallel(delayed(sklearn_iterations)(x, start, reg_covar, n_repeats, n_threads=1) for _ in range(N_WORKERS))
        return time.perf_counter() - begin

    run(0)  # the processes start
    n_repeats = _repeats(run)
    return lambda: run(n_repeats) / (n_repeats * N_WORKERS)


def sklearn_iterations(x, start, reg_covar, n_repeats, *, n_threads=None):
    """Seconds of so many iterations."""
    from sklearn.mixture import GaussianMixture
    from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky
    from threadpoolctl import threadpool_limits

    model = GaussianMixture(start.n_components, reg_covar=reg_covar)
    model.weights_, model.means_, model.covariances_ = start.weights, start.means, start.covariances
    model.precisions_cholesky_ = _compute_precision_cholesky(start.covariances, "full")
    with threadpool_limits(n_threads):
        begin = time.perf_counter()
        for _ in range(n_repeats):
            _, log_responsibilities = model._e_step(x)
            model._m_step(x, log_responsibilities)
        return time.perf_counter() - begin


def gmmx(x, start, reg_covar, n_iter):
    """Its jitted loop in float32, the only precision that it has."""
    from gmmx import EMFitter, GaussianMixtureModelJax

    # its loop does not trace where float64 is on
    with jax.enable_x64(False):
        leaves = (np.asarray(leaf, np.float32) for leaf in (start.means, start.covariances, start.weights))
        model = GaussianMixtureModelJax.from_squeezed(*map(jax.device_put, leaves))
        single = jax.device_put(np.asarray(x, np.float32))

    def fitted(n):
        with jax.enable_x64(False):
            return EMFitter(max_iter=n, tol=0.0, reg_covar=reg_covar).fit(single, model).gmm.means

    return _quotient(lambda n: seconds_of(lambda: fitted(n)), n_iter)


def pomegranate(x, start, reg_covar, n_iter):
    """summarize and from_summaries, in float32, torch's own threads; its Normal has no ridge."""
    del reg_covar, n_iter
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    parts = [torch.tensor(np.asarray(leaf, np.float32)) for leaf in (start.means, start.covariances, start.weights)]
    normals = [Normal(mean, covariance, covariance_type="full") for mean, covariance in zip(*parts[:2], strict=True)]
    model, single = GeneralMixtureModel(normals, priors=parts[2]), torch.tensor(np.asarray(x, np.float32))

    def run(n_repeats):
        begin = time.perf_counter()
        for _ in range(n_repeats):
            model.summarize(single)
            model.from_summaries()
        return time.perf_counter() - begin

    n_repeats = _repeats(run)
    return lambda: run(n_repeats) / n_repeats


def _of_ours(n_fits, what):
    make = partial(ours, n_fits=n_fits)
    return Timer(make, "jax", what, "all cores", "float64", n_floors=float(n_fits), least=math.inf)


_QUOTIENT = "(time of m − time of m/4 iterations) / (3m/4)"
ITERATIONS = {
    ONE_FIT: _of_ours(1, _QUOTIENT),
    MANY_FITS: _of_ours(N_FITS, f"{N_FITS} fits, per fit: {_QUOTIENT}"),
    "scikit-learn": Timer(
        partial(sklearn_one_process, n_threads=None), "sklearn", "_e_step + _m_step", "its own", "float64"
    ),
    "scikit-learn one thread": Timer(
        partial(sklearn_one_process, n_threads=1), "sklearn", "_e_step + _m_step", "1", "float64"
    ),
    "scikit-learn workers": Timer(
        sklearn_workers, "sklearn", "_e_step + _m_step, per worker", f"{N_WORKERS} processes of 1", "float64"
    ),
    "gmmx": Timer(gmmx, "gmmx", _QUOTIENT, "XLA's own", "float32"),
    "pomegranate": Timer(pomegranate, "pomegranate", "summarize + from_summaries", "torch's own", "float32"),
    "mclust": Timer(mclust_iterations, "mclust", MCLUST_COUNTED, "1", "float64", least=2, limit=30.0),
}


def missing(name: str) -> str:
    """Why a program cannot be timed here, "" where it can."""
    return how_to_get_mclust() if name == "mclust" else how_to_get(ITERATIONS[name].needs)


def _quotient(run, n_iter):
    few, many = max(1, n_iter // 4), max(n_iter, 2)
    run(few), run(many)
    return lambda: _positive((run(many) - run(few)) / (many - few))


def _positive(seconds):
    """Where noise was larger than the difference, nothing is known."""
    return seconds if seconds > 0.0 else math.nan


def _repeats(run, least=0.1):
    """How often to repeat, so that it takes long enough to be timed; run(n) gives the seconds of n."""
    if run(1) > 10.0 * least:  # the first is the slowest
        return 1
    return max(1, min(1000, round(least / max(run(1), 1e-6))))


def _near(start, n):
    """The start, and others with means moved a little, leading axis n, in NumPy."""
    moves = 0.05 * np.random.default_rng(0).standard_normal((n, *start.means.shape))
    moves[0] = 0.0
    leaves = (np.broadcast_to(leaf, (n, *leaf.shape)) for leaf in (start.weights, start.covariances))
    weights, covariances = (np.array(leaf) for leaf in leaves)
    return GMM(weights, start.means + moves, covariances)


# ---- many fits by scikit-learn

SKLEARN_WAYS = {  # processes, and BLAS threads in each (None: as many as it takes)
    "scikit-learn": (1, None),
    "scikit-learn one thread": (1, 1),
    "scikit-learn workers": (N_WORKERS, 1),
}


class Fits(NamedTuple):
    """What scikit-learn found from each start."""

    gmms: GMM  # leading axis: starts; NaN where it raised
    n_iter: np.ndarray


def sklearn_from_starts(x, starts: GMM, *, tol, max_iter, reg_covar, way="scikit-learn") -> Fits:
    """A fit from each start (leading axis), by one of SKLEARN_WAYS."""
    n_workers, n_threads = SKLEARN_WAYS[way]
    options = {"tol": tol, "max_iter": max_iter, "reg_covar": reg_covar}
    n_starts = starts.means.shape[0]
    if n_workers == 1:
        blocks = [_sklearn_block(x, starts, options, n_threads)]
        order = np.arange(n_starts)
    else:
        from joblib import Parallel, delayed

        parts = [np.arange(i, n_starts, 4 * n_workers) for i in range(min(4 * n_workers, n_starts))]
        each = (delayed(_sklearn_block)(x, _pick(starts, part), options, n_threads) for part in parts)
        blocks, order = Parallel(n_jobs=n_workers)(each), np.argsort(np.concatenate(parts))
    weights, means, covariances, n_iter = (np.concatenate(leaf)[order] for leaf in zip(*blocks, strict=True))
    return Fits(GMM(weights, means, covariances), n_iter)


def sklearn_restarts(x, n_components, *, n_restarts, seed, tol, max_iter, reg_covar, way="scikit-learn") -> GMM:
    """GaussianMixture(n_init=n_restarts), its k-means starts; over several processes each does its part."""
    n_workers, n_threads = SKLEARN_WAYS[way]
    options = {"tol": tol, "max_iter": max_iter, "reg_covar": reg_covar}
    if n_workers == 1:
        return sklearn_fit(x, n_components, {"n_init": n_restarts, "random_state": seed, **options}, n_threads)[0]
    from joblib import Parallel, delayed

    parts = np.array_split(np.arange(n_restarts), min(n_workers, n_restarts))
    each = [{"n_init": len(part), "random_state": n_workers * seed + i, **options} for i, part in enumerate(parts)]
    calls = (delayed(sklearn_fit)(x, n_components, options, n_threads) for options in each)
    return max(Parallel(n_jobs=n_workers)(calls), key=lambda found: found[1])[0]


def sklearn_fit(x, n_components, options, n_threads=None):
    """(mixture, its lower bound) of one GaussianMixture with these options."""
    model = sklearn_model("GaussianMixture", x, n_components, options, n_threads)
    return GMM(model.weights_, model.means_, model.covariances_), float(model.lower_bound_)


def _sklearn_block(x, starts, options, n_threads=None):
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    precisions = np.linalg.inv(starts.covariances)
    found = []
    with threadpool_limits(n_threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for weights, means, precision in zip(starts.weights, starts.means, precisions, strict=True):
            init = {"weights_init": weights, "means_init": means, "precisions_init": precision}
            try:
                model = GaussianMixture(len(weights), **init, **options).fit(x)
                found.append((model.weights_, model.means_, model.covariances_, model.n_iter_))
            except ValueError:  # a covariance without a Cholesky factor
                found.append((np.full_like(weights, np.nan), np.full_like(means, np.nan), precision * np.nan, 0))
    return tuple(np.array(leaf) for leaf in zip(*found, strict=True))


def _pick(gmms, index):
    return GMM(gmms.weights[index], gmms.means[index], gmms.covariances[index])
