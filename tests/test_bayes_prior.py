"""The prior: what the default is, how it moves with the data, and that log_density is what the formulas say."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

import oracles
from conftest import TYPES, as_tuple, random_gmm
from gmm_jax import GMM, Known, MixtureSpec, NotSupported, Prior, Status, bayes
from gmm_jax.bayes.prior import hyperparameters
from gmm_jax.bayes.target import density_of, finish, prepare

K, D = 3, 2
SCALE, SHIFT = np.array([3.0, 0.02]), np.array([1000.0, -5.0])
MATRIX = ("full", "tied")
SHORT = {"n_chains": 2, "n_warmup": 10, "n_draws": 240}  # one chunk of Gibbs, so that tests share its program


@pytest.fixture(scope="session")
def wide(x):
    """(60, 2) in units of their own, so that a forgotten centre, scale or Jacobian shows."""
    return x * SCALE + SHIFT


# ---- the default


@pytest.mark.parametrize("covariance_type", TYPES)
def test_default_prior_is_the_designs(wide, covariance_type):
    prior = bayes.default_prior(wide, MixtureSpec(K, covariance_type))
    hyper = hyperparameters(prior, covariance_type)
    variances = wide.var(axis=0)
    if covariance_type == "spherical":
        variances = np.full(D, variances.mean())
    np.testing.assert_array_equal(hyper.alpha, np.ones(K))
    np.testing.assert_allclose(hyper.loc, wide.mean(axis=0))
    np.testing.assert_allclose(np.linalg.inv(hyper.precision), np.diag(4.0 * variances))
    size = variances * K ** (-2.0 / D)
    if covariance_type in MATRIX:
        assert (hyper.dof, hyper.size_dof) == (D + 1.0, D)
        np.testing.assert_allclose(hyper.size, (D + 1.0) * np.diag(size))
    else:  # each variance a 1 × 1 matrix: IW(2, C) is IG(1, C/2)
        np.testing.assert_allclose(hyper.dof, 1.0)
        np.testing.assert_allclose(hyper.size_dof, 0.5)
        np.testing.assert_allclose(hyper.size, size if covariance_type == "diag" else size[0])


@pytest.mark.parametrize("covariance_type", ["full", pytest.param("spherical", marks=pytest.mark.slow)])
def test_default_posterior_is_affine_equivariant(x, covariance_type):
    scale = np.full(D, 3.0) if covariance_type == "spherical" else SCALE
    spec, key = MixtureSpec(K, covariance_type), jax.random.key(0)
    here, there = bayes.gibbs(key, x, spec, **SHORT), bayes.gibbs(key, x * scale + SHIFT, spec, **SHORT)
    np.testing.assert_allclose(there.draws.weights, here.draws.weights, rtol=1e-6)
    np.testing.assert_allclose(there.draws.means, here.draws.means * scale + SHIFT, rtol=1e-6)
    factor = scale[0] ** 2 if covariance_type == "spherical" else np.outer(scale, scale)
    atol = 1e-6 * np.min(factor)
    np.testing.assert_allclose(there.draws.covariances, here.draws.covariances * factor, rtol=1e-6, atol=atol)
    volume = np.log(scale).sum()
    lost = len(x) * volume + K * volume  # of the data and of μ
    lost += K * (2.0 * np.log(scale[0]) if covariance_type == "spherical" else (D + 1) * volume)  # |∂Σ′/∂Σ| = Π s^(D+1)
    np.testing.assert_allclose(there.log_density, here.log_density - lost, rtol=1e-8)


# ---- log p(x | θ) + log p(θ) from the books


LOC, SPREAD = np.array([998.0, -5.01]), np.array([[40.0, 0.1], [0.1, 0.002]])
SIZE = np.array([[4.0, 0.01], [0.01, 4e-4]])
ALPHA = np.array([1.0, 2.0, 3.5])


def conjugate(kind):
    covariances = {
        "diag": dist.InverseGamma(np.array([2.0, 3.0]), np.diag(SIZE)).to_event(1),
        "spherical": dist.InverseGamma(2.0, 1.5),
    }.get(kind, dist.InverseWishart(6.0, scale_matrix=SIZE))
    return Prior(dist.Dirichlet(ALPHA), dist.MultivariateNormal(LOC, covariance_matrix=SPREAD), covariances)


def foreign(kind):
    """Nothing that the package knows how to standardise."""
    covariances = {
        "diag": dist.LogNormal(np.log(np.diag(SIZE)), 1.0).to_event(1),
        "spherical": dist.Gamma(2.0, 0.5),
    }.get(kind, dist.Wishart(5.0, scale_matrix=SIZE))
    return Prior(means=dist.StudentT(4.0, LOC, np.sqrt(np.diag(SPREAD))).to_event(1), covariances=covariances)


def scales(kind):
    one = dist.HalfNormal(4.0)
    return Prior(scales=one if kind == "spherical" else dist.LogNormal(np.log(SCALE), 0.7).to_event(1), correlation=2.0)


PRIORS = {"default": lambda kind: Prior(), "conjugate": conjugate, "foreign": foreign, "scales": scales}


def log_prior(which, x, gmm, free):
    """Plain SciPy; free holds masks over components (weights, means, covariances)."""
    weights, means, covariances, kind = gmm
    n_components, n_features = means.shape
    variances = x.var(axis=0)
    variances = np.full(D, variances.mean()) if kind == "spherical" else variances
    explicit = which == "conjugate"
    total = 0.0
    if free[0].sum() > 1:
        share = weights[free[0]] / weights[free[0]].sum()
        alpha = (ALPHA if explicit else np.ones(n_components))[free[0]]
        total += st.dirichlet(alpha).logpdf(share)
    for mean in means[free[1]]:
        if explicit:
            total += st.multivariate_normal(LOC, SPREAD).logpdf(mean)
        elif which == "foreign":
            total += st.t(4.0, LOC, np.sqrt(np.diag(SPREAD))).logpdf(mean).sum()
        else:
            total += st.norm(x.mean(axis=0), 2.0 * np.sqrt(variances)).logpdf(mean).sum()
    parts = covariances[None][: int(free[2].any())] if kind == "tied" else covariances[free[2]]
    if not explicit and which == "default" and len(parts):
        return total + log_hierarchical(parts, variances * n_components ** (-2.0 / n_features), kind)
    for part in parts:
        if which == "scales":
            total += log_prior_of_scales(part, kind)
        elif kind in MATRIX:
            law = {"conjugate": st.invwishart(6.0, SIZE), "foreign": st.wishart(5.0, SIZE)}
            total += law[which].logpdf(part)
        elif kind == "diag":
            law = {
                "conjugate": st.invgamma(np.array([2.0, 3.0]), scale=np.diag(SIZE)),
                "foreign": st.lognorm(1.0, scale=np.diag(SIZE)),
            }
            total += law[which].logpdf(part).sum()
        else:
            law = {"conjugate": st.invgamma(2.0, scale=1.5), "foreign": st.gamma(2.0, scale=2.0)}
            total += law[which].logpdf(part)
    return total


def log_hierarchical(parts, size, kind):
    """By Bayes' rule: log p(Σ) = log p(Σ | C) + log p(C) − log p(C | Σ), whatever C is."""
    n = len(parts)
    if kind in MATRIX:
        dof, g, mean = D + 1.0, float(D), (D + 1.0) * np.diag(size)
        scale = 1.3 * mean + 0.1 * np.sqrt(np.outer(size, size))
        posterior = np.linalg.inv(g * np.linalg.inv(mean) + sum(np.linalg.inv(part) for part in parts))
        total = sum(st.invwishart(dof, scale).logpdf(part) for part in parts)
        return total + st.wishart(g, mean / g).logpdf(scale) - st.wishart(g + n * dof, posterior).logpdf(scale)
    mean, values = (size, np.asarray(parts)) if kind == "diag" else (size[:1], np.asarray(parts)[:, None])
    total = st.invgamma(1.0, scale=1.3 * mean).logpdf(values).sum()
    total += st.gamma(0.5, scale=2.0 * mean).logpdf(1.3 * mean).sum()
    rate = 0.5 / mean + np.sum(1.0 / values, axis=0)
    return total - st.gamma(0.5 + n, scale=1.0 / rate).logpdf(1.3 * mean).sum()


def log_prior_of_scales(part, kind):
    """In the coordinates (standard deviations, Cholesky factor of the correlation matrix); LKJ(η) in two dimensions is
    (ρ + 1)/2 ~ Beta(η, η)."""
    if kind == "spherical":
        return st.halfnorm(scale=4.0).logpdf(np.sqrt(part))
    variances = part if kind == "diag" else np.diag(part)
    total = st.lognorm(0.7, scale=SCALE).logpdf(np.sqrt(variances)).sum()
    if kind in MATRIX:
        correlation = part[0, 1] / np.sqrt(variances.prod())
        total += st.beta(2.0, 2.0, loc=-1.0, scale=2.0).logpdf(correlation)
    return total


def log_density(x, spec, gmms):
    """As engines report it, for mixtures in the units of the data with leading (chains, draws)."""
    problem, scaling = prepare(x, spec, n_chains=1, n_warmup=0, n_draws=1)
    inner = jax.tree.map(jnp.asarray, scaling.inward(gmms))
    return finish(problem, scaling, inner, density_of(problem, inner), {}, Status.SAMPLED).log_density


def mixtures(kind, known=None):
    """Two mixtures, leading axes (1, 2), near the data of `wide`; known rows put in."""
    leaves = []
    for seed in (11, 12):
        gmm = random_gmm(seed, K, D, kind)
        factor = {"diag": SCALE**2, "spherical": 2.0}.get(kind, np.outer(SCALE, SCALE))
        parts = [gmm.weights, gmm.means * SCALE + SHIFT, gmm.covariances * factor]
        for i, held in enumerate((known.weights, known.means, known.covariances) if known else ()):
            if held is not None:
                parts[i] = np.where(np.isnan(held), parts[i], held)
        if known and known.weights is not None:
            free = np.isnan(known.weights)
            parts[0][free] *= (1.0 - parts[0][~free].sum()) / parts[0][free].sum() if free.any() else 1.0
        leaves.append(parts)
    return GMM(*(np.stack(pair)[None] for pair in zip(*leaves, strict=True)), kind)


def assert_is_the_oracles(x, spec, gmms, which, free):
    expected = []
    for i in range(2):
        gmm = as_tuple(jax.tree.map(lambda leaf, i=i: leaf[0, i], gmms))
        expected.append(oracles.log_likelihood(gmm, x) + log_prior(which, x, gmm, free))
    np.testing.assert_allclose(log_density(x, spec, gmms)[0], expected, rtol=1e-10, atol=1e-8)


EVERY = (np.ones(K, bool),) * 3


@pytest.mark.parametrize("which", PRIORS)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_log_density_is_likelihood_times_prior(wide, covariance_type, which):
    spec = MixtureSpec(K, covariance_type, prior=PRIORS[which](covariance_type))
    assert_is_the_oracles(wide, spec, mixtures(covariance_type), which, EVERY)


@pytest.mark.parametrize("which", ["default", "conjugate", "scales"])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_log_density_with_one_component_known(wide, covariance_type, which):
    """φ₁ is known, so the other two share the rest; of μ and Σ the priors of the free ones remain."""
    first = jax.tree.map(lambda leaf: np.array(leaf[0, 0]), mixtures(covariance_type))
    for leaf in (first.weights, first.means, first.covariances):
        leaf[1:] = np.nan
    known = Known(first.weights, first.means, first.covariances)
    spec = MixtureSpec(K, covariance_type, known, PRIORS[which](covariance_type))
    free = (np.arange(K) > 0,) * 3
    assert_is_the_oracles(wide, spec, mixtures(covariance_type, known), which, free)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_log_density_of_case_one_has_the_prior_of_means_alone(wide, covariance_type):
    first = jax.tree.map(lambda leaf: np.array(leaf[0, 0]), mixtures(covariance_type))
    known = Known(first.weights, None, first.covariances)
    nothing = np.zeros(K, bool)
    spec = MixtureSpec(K, covariance_type, known)
    gmms = mixtures(covariance_type, known)
    assert_is_the_oracles(wide, spec, gmms, "default", (nothing, np.ones(K, bool), nothing))


def test_default_made_explicit_changes_nothing(wide):
    spec = MixtureSpec(K)
    explicit = MixtureSpec(K, prior=bayes.default_prior(wide, spec))
    gmms = mixtures("full")
    np.testing.assert_allclose(log_density(wide, explicit, gmms), log_density(wide, spec, gmms), rtol=1e-12)


@pytest.mark.parametrize("engine", ["gibbs", pytest.param("nuts", marks=pytest.mark.slow)])
def test_samplers_report_the_density_of_their_draws(wide, engine):
    posterior = getattr(bayes, engine)(jax.random.key(0), wide, MixtureSpec(K), **SHORT)
    for c, s in ((0, 0), (1, 17), (1, 29)):
        gmm = as_tuple(jax.tree.map(lambda leaf, c=c, s=s: leaf[c, s], posterior.draws))
        exact = oracles.log_likelihood(gmm, wide) + log_prior("default", wide, gmm, EVERY)
        np.testing.assert_allclose(posterior.log_density[c, s], exact, rtol=1e-10, atol=1e-8)


# ---- one program in every process


LEAVES = """
import numpy as np
import numpyro.distributions as dist
from gmm_jax import Prior
from gmm_jax.bayes.prior import to_leaves
prior = Prior(means=dist.MultivariateNormal(np.zeros(2), np.eye(2)), covariances=dist.InverseGamma(2.0, 3.0))
print([np.asarray(leaf).tolist() for leaf in to_leaves(prior)[0]])
"""

PROGRAMS = """
import importlib
import jax, numpy as np
from gmm_jax import MixtureSpec
from gmm_jax.bayes.target import prepare, unconstrained_starts
nuts, svi = (importlib.import_module(f"gmm_jax.bayes.{name}") for name in ("nuts", "svi"))
x = np.random.default_rng(0).standard_normal((20, 2))
problem, scaling = prepare(x, MixtureSpec(2), n_chains=2, n_warmup=1, n_draws=1)
first = unconstrained_starts(jax.random.key(0), problem, scaling, None, 2)
print(svi._optimise.lower(jax.random.key(1), problem, first, "normal", 20, 10).as_text())
chains = nuts._begin(jax.random.key(0), problem, first)
print(nuts._advance.lower(chains, problem, nuts._stages(100, 250), np.float32(0.8), 10).as_text())
"""


@pytest.mark.parametrize("code", [LEAVES, pytest.param(PROGRAMS, marks=pytest.mark.slow)], ids=["leaves", "programs"])
def test_nothing_depends_on_the_order_of_a_set(code):
    """Python hashes text anew in every process; a program that followed it would miss the compilation cache."""
    outputs = []
    for hash_seed in "12":  # these two order NumPyro's sets differently
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        outputs.append(done.stdout)
    assert outputs[0]
    assert outputs[0] == outputs[1]


# ---- what is refused


@pytest.mark.parametrize(
    ("prior", "sentence"),
    [
        (Prior(means=dist.Normal(0.0, 1.0)), r"prior.means must have event shape \(2,\); got \(\)"),
        (Prior(means=dist.Normal(np.zeros(2), 1.0)), r"prior.means must be one distribution.*\(2,\).*to_event"),
        (Prior(means=dist.Normal(np.zeros(3), 1.0).to_event(1)), r"event shape \(2,\); got \(3,\)"),
        (Prior(means=dist.MultivariateNormal(np.zeros(3), np.eye(3))), r"event shape \(2,\); got \(3,\)"),
        (Prior(weights=dist.Dirichlet(np.ones(2))), r"prior.weights must have event shape \(3,\); got \(2,\)"),
        (Prior(covariances=dist.InverseGamma(1.0, 1.0)), r"prior.covariances must have event shape \(2, 2\); got \(\)"),
        (Prior(covariances=dist.InverseWishart(5.0, np.eye(3))), r"event shape \(2, 2\); got \(3, 3\)"),
        (Prior(scales=dist.HalfNormal(1.0)), r"prior.scales must have event shape \(2,\); got \(\)"),
        (
            Prior(covariances=dist.InverseWishart(5.0, np.eye(2)), scales=dist.HalfNormal(1.0).expand([2]).to_event(1)),
            "covariances or scales, not both",
        ),
        (Prior(correlation=2.0), "correlation goes with a prior on scales"),
    ],
)
def test_a_prior_of_the_wrong_form_is_a_sentence(wide, prior, sentence):
    with pytest.raises(ValueError, match=sentence):
        prepare(wide, MixtureSpec(K, prior=prior), n_chains=1, n_warmup=0, n_draws=1)


def test_partly_known_weights_need_a_dirichlet(wide):
    simplex = dist.TransformedDistribution(
        dist.Normal(np.zeros(2), 1.0).to_event(1), dist.transforms.StickBreakingTransform()
    )
    spec = MixtureSpec(K, known=Known(weights=np.array([0.2, np.nan, np.nan])), prior=Prior(weights=simplex))
    with pytest.raises(NotSupported, match="partly known weights need a Dirichlet"):
        prepare(wide, spec, n_chains=1, n_warmup=0, n_draws=1)


def test_a_prior_that_is_no_distribution_is_a_sentence():
    with pytest.raises(ValueError, match=r"prior\.means must be a Distribution; got 3\.0: pass a NumPyro distribution"):
        bayes.default_prior(np.zeros((5, 2)), MixtureSpec(2, prior=Prior(means=3.0)))
