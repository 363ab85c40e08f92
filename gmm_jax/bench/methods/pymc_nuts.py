"""Posterior by NUTS of nutpie on a PyMC model with the same prior, labels summed out; starts are nutpie's own.

Λ_k = Σ_k⁻¹ ~ Wishart(dof, size⁻¹) by Bartlett: Λ_k = T_k T_kᵀ, T_k = M A_k, M Mᵀ = size⁻¹, A_k lower triangular with
χ(dof − i) on its diagonal and N(0, 1) below; an unknown size, the scale that all have in common, by Bartlett too.
"""

import math
import time
import warnings

import numpy as np
from jax import monitoring

from ... import bayes, judge
from ...bayes.target import prepare
from ...mixture import GMM, Fit, NotSupported, Posterior, Status
from ._peers import require, seed_of, terms
from ._posterior import gradients, posterior_of

NEEDS = ("pymc", "nutpie")

COMPILING = "/nutpie/backend_compile_duration"  # so that bench's clock tells its compilation from its run


def fit(
    key, x, spec, *, n_chains=4, n_warmup=500, n_draws=1000, target_accept=0.8, n_threads=1, relabelling="pivot"
) -> Fit:
    judge.check_relabelling(relabelling)
    size = {"n_chains": n_chains, "n_warmup": n_warmup, "n_draws": n_draws}
    posterior = Sampler(x, spec, **size)(key, target_accept=target_accept, n_threads=n_threads)
    answer = judge.summary(posterior, spec, x=np.asarray(x), relabelling=relabelling)
    info = {"density_evaluations": int(gradients(posterior, n_warmup) * len(x) * spec.n_components)}
    info |= terms("nutpie's own, jittered", None, "none: it samples", threads=n_threads, same_prior="yes")
    return answer._replace(info=answer.info | info)


class Sampler:
    """The compiled model of these data; called with a key, it samples.

    Args:
        starts: hyperparameters and scaling -> options of nutpie that say where all chains start.
        backend: nutpie's, "numba" or "jax".
    """

    def __init__(self, x, spec, *, n_chains, n_warmup, n_draws, starts=lambda *_: {}, backend="numba"):
        self._problem, self._scaling = prepare(x, spec, n_chains=n_chains, n_warmup=n_warmup, n_draws=n_draws)
        if not all(map(all, self._problem.free)):
            raise NotSupported("pymc_nuts cannot know anything beforehand: use nuts.")
        if spec.n_components < 2:
            raise NotSupported("pymc_nuts needs two components or more: use nuts.")
        self._hyper = bayes.hyperparameters(self._problem.prior, spec.covariance_type)
        self._size = {"draws": n_draws, "tune": n_warmup, "chains": n_chains, "progress_bar": False}
        _, nutpie = require("pymc", "nutpie")
        model = _model(np.asarray(self._problem.z, float), self._hyper, spec.covariance_type)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PyTensor says of BLAS is not about this backend
            began = time.perf_counter()
            self._compiled = nutpie.compile_pymc_model(model, backend=backend, **starts(self._hyper, self._scaling))
            monitoring.record_event_duration_secs(COMPILING, time.perf_counter() - began)

    def __call__(self, key, *, target_accept=0.8, n_threads=1) -> Posterior:
        """Draws; status DIVERGENT where a transition after warm-up diverged."""
        nutpie = require("nutpie")
        options = {"target_accept": target_accept, "cores": n_threads, "seed": seed_of(key)}
        trace = nutpie.sample(self._compiled, **self._size, **options)
        leaves = (np.asarray(trace.posterior[name]) for name in ("weights", "mu", "covariances"))
        draws = GMM(*leaves, self._problem.spec.covariance_type)
        stats = {name: np.asarray(trace.sample_stats[name]) for name in ("diverging", "n_steps")}
        status = Status.DIVERGENT if stats["diverging"].any() else Status.SAMPLED
        return posterior_of(self._problem, self._scaling, draws, stats, status)


def _model(z, hyper, covariance_type):
    """The PyMC model of standardised data."""
    pm, pt = require("pymc", "pytensor.tensor")
    n_components, n_features = hyper.alpha.size, z.shape[1]
    spread = np.linalg.inv(np.linalg.cholesky(hyper.precision))
    with pm.Model() as model:
        log_weights = pt.log(pm.Dirichlet("weights", hyper.alpha))
        means = pm.Deterministic("mu", hyper.loc + pm.Normal("means", shape=(n_components, n_features)) @ spread)
        whiten = _whiteners(pm, pt, hyper, covariance_type, n_components, n_features)
        joint = []
        for k in range(n_components):
            residual, log_det = whiten[k](z - means[k])
            joint.append(log_weights[k] + log_det - 0.5 * pt.sum(residual**2, axis=1))
        normaliser = -0.5 * n_features * math.log(2.0 * math.pi) * len(z)
        pm.Potential("x", pt.sum(pt.logsumexp(pt.stack(joint), axis=0)) + normaliser)
    return model


def _whiteners(pm, pt, hyper, covariance_type, n_components, n_features):
    """For each component: residual -> (T_kᵀ residual, log det T_k)."""
    if covariance_type in ("diag", "spherical"):
        shape = (n_components, n_features) if covariance_type == "diag" else (n_components,)
        size = hyper.size
        if hyper.size_dof is not None:
            rate = hyper.size_dof / hyper.size
            size = pm.Gamma("size", alpha=hyper.size_dof, beta=rate, shape=np.shape(hyper.size))
        sds = pt.sqrt(pm.InverseGamma("covariances", alpha=hyper.dof, beta=size, shape=shape))
        each = 1.0 if covariance_type == "diag" else n_features  # how many features share an sd
        return [lambda r, k=k: (r / sds[k], -each * pt.sum(pt.log(sds[k]))) for k in range(n_components)]
    n_matrices = 1 if covariance_type == "tied" else n_components
    bartlett, squares = _bartlett(pm, pt, "", hyper.dof, n_matrices, n_features)
    root = np.linalg.cholesky(hyper.size)  # of C: M = root⁻ᵀ
    if hyper.size_dof is not None:  # C ~ Wishart(size_dof, size / size_dof)
        inner, _ = _bartlett(pm, pt, "size_", hyper.size_dof, 1, n_features)
        root = (root / math.sqrt(hyper.size_dof)) @ inner[0]
    outer = pt.linalg.inv(pt.as_tensor_variable(root)).T
    factors = [outer @ bartlett[k] for k in range(n_matrices)]
    inverses = [pt.linalg.inv(factor) for factor in factors]
    covariances = [inverse.T @ inverse for inverse in inverses]
    pm.Deterministic("covariances", covariances[0] if covariance_type == "tied" else pt.stack(covariances))

    def whitener(k):
        log_det = pt.sum(0.5 * pt.log(squares[k])) + pt.sum(pt.log(pt.diagonal(outer)))
        return lambda residual: (residual @ factors[k], log_det)

    return [whitener(k % n_matrices) for k in range(n_components)]


def _bartlett(pm, pt, prefix, dof, n_matrices, n_features):
    """Lower triangular A (n, D, D), A Aᵀ ~ Wishart(dof, I), and the squares of its diagonals."""
    squares = pm.ChiSquared(f"{prefix}squares", nu=dof - np.arange(n_features), shape=(n_matrices, n_features))
    places, corner = np.tril_indices(n_features, -1), np.arange(n_features)
    bartlett = pt.zeros((n_matrices, n_features, n_features))
    if n_features > 1:
        below = pm.Normal(f"{prefix}below", shape=(n_matrices, len(places[0])))
        bartlett = bartlett[:, places[0], places[1]].set(below)
    return bartlett[:, corner, corner].set(pt.sqrt(squares)), squares
