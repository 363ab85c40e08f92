"""The NumPyro model: its sites, what Known leaves of them, and the density in unconstrained coordinates."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.handlers import substitute, trace
from numpyro.infer.util import potential_energy

from conftest import TYPES, assert_trees_close, random_gmm
from gmm_jax import Known, MixtureSpec, Prior, bayes
from gmm_jax.bayes.model import assemble, site_values
from gmm_jax.bayes.target import bijectors, constrain, log_posterior, prepare, unconstrain

K, D = 3, 2


def over_scales(covariance_type):
    one = dist.HalfNormal(2.0)
    return Prior(scales=one if covariance_type == "spherical" else one.expand([D]).to_event(1), correlation=1.5)


def problem_of(x, spec):
    return prepare(x, spec, n_chains=1, n_warmup=0, n_draws=1)[0]


def one_known(covariance_type):
    """φ, μ and Σ of the first component, in the units of x."""
    gmm = random_gmm(3, K, D, covariance_type)
    leaves = [np.array(leaf, float) for leaf in (gmm.weights, gmm.means, gmm.covariances)]
    for leaf in leaves:
        leaf[1:] = np.nan
    return Known(*leaves)


SPECS = {kind: MixtureSpec(K, kind) for kind in TYPES}
SPECS |= {f"{kind} scales": MixtureSpec(K, kind, prior=over_scales(kind)) for kind in TYPES}
SPECS |= {f"{kind} known": MixtureSpec(K, kind, one_known(kind)) for kind in ("full", "diag", "spherical")}
SPECS |= {"all but one weight": MixtureSpec(K, known=Known(weights=np.array([0.2, 0.5, np.nan])))}
NAMES = list(SPECS)


@pytest.fixture
def problem(request, x):
    return problem_of(x, SPECS[request.param])


def some_mixture(problem, seed=5):
    """Standardised, with the known parts in it."""
    from gmm_jax.mixture import project

    gmm = jax.tree.map(jnp.asarray, random_gmm(seed, K, D, problem.spec.covariance_type))
    return project(gmm, problem.spec.known)


@pytest.mark.parametrize("problem", NAMES, indirect=True)
def test_assemble_undoes_site_values(problem):
    gmm = some_mixture(problem)
    assert_trees_close(assemble(problem, site_values(problem, gmm)), gmm, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("problem", NAMES, indirect=True)
def test_constrain_undoes_unconstrain(problem):
    gmm = some_mixture(problem)
    back = jax.jit(lambda p, g: assemble(p, constrain(p, unconstrain(p, g))[0]))(problem, gmm)
    assert_trees_close(back, gmm, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("full", {"weights": (3,), "means": (3, 2), "covariances": (3, 2, 2)}),
        ("tied", {"weights": (3,), "means": (3, 2), "covariances": (2, 2)}),
        ("diag", {"weights": (3,), "means": (3, 2), "covariances": (3, 2)}),
        ("spherical", {"weights": (3,), "means": (3, 2), "covariances": (3,)}),
        ("full scales", {"weights": (3,), "means": (3, 2), "scales": (3, 2), "correlation": (3, 2, 2)}),
        ("tied scales", {"weights": (3,), "means": (3, 2), "scales": (2,), "correlation": (2, 2)}),
        ("spherical scales", {"weights": (3,), "means": (3, 2), "scales": (3,)}),
        ("full known", {"weights": (2,), "means": (2, 2), "covariances": (2, 2, 2)}),
        ("all but one weight", {"means": (3, 2), "covariances": (3, 2, 2)}),
    ],
)
def test_sites_are_named_after_fields_and_hold_only_what_is_free(x, name, sites):
    problem = problem_of(x, SPECS[name])
    found = {}

    def look():
        values = site_values(problem, some_mixture(problem))
        for site in trace(substitute(bayes.model, data=values)).get_trace(problem).values():
            if site["type"] == "sample" and not site["is_observed"]:
                found[site["name"]] = site["value"].shape
        return 0

    jax.eval_shape(look)
    assert found == sites


def slow(*names):
    """Each compiles a program of seconds, and tells what another has told."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("problem", ["full", "full scales", "full known", *slow("tied", "diag scales")], indirect=True)
def test_log_posterior_is_numpyros_own_potential(problem):
    """NumPyro's potential_energy maps and adds Jacobians by itself; constants must agree too."""
    u = unconstrain(problem, some_mixture(problem))

    @jax.jit
    def both(problem, u):
        maps = bijectors(problem)
        values = site_values(problem, some_mixture(problem))
        unravel = ravel_pytree({name: maps[name].inv(value) for name, value in values.items()})[1]
        return log_posterior(problem, u), -potential_energy(bayes.model, (problem,), {}, unravel(u))

    for shift in (0.0, 0.3):
        ours, theirs = both(problem, u + shift)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize("problem", ["full", "full known", *slow("tied scales", "diag", "spherical")], indirect=True)
def test_gradient_is_the_finite_difference(problem):
    u = unconstrain(problem, some_mixture(problem))
    value = jax.jit(partial(log_posterior, problem))
    gradient = jax.jit(jax.grad(value))(u)
    step = 1e-5
    for i in range(u.size):
        e = np.zeros(u.size)
        e[i] = step
        difference = (value(u + e) - value(u - e)) / (2.0 * step)
        np.testing.assert_allclose(gradient[i], difference, rtol=1e-6, atol=1e-5)


def test_unconstrained_density_integrates_to_the_constrained_one():
    """One Gaussian with known μ: ∫ p(x, σ²) dσ² over σ² must be ∫ exp(log_posterior(u)) du over u."""
    x = np.array([[0.3], [-1.0], [2.2], [0.4]])
    problem = problem_of(x, MixtureSpec(1, "spherical", Known(means=np.zeros((1, 1)))))
    u = np.linspace(-12.0, 12.0, 4001)
    in_u = np.exp(jax.jit(jax.vmap(lambda v: log_posterior(problem, v)))(u[:, None]))
    z, mean = np.asarray(problem.z)[:, 0], np.asarray(problem.spec.known.means)[0, 0]
    variance = np.exp(np.linspace(-12.0, 12.0, 4001))
    # N(z | m, v) for each sample, and the default prior of variances: v | c ~ IG(1, c), c ~ Gamma(1/2, 1/2)
    log_joint = -0.5 * len(z) * np.log(2.0 * np.pi * variance) - 0.5 * np.sum((z - mean) ** 2) / variance
    log_joint += 1.5 * np.log(0.5) - 2.0 * np.log(variance) - 1.5 * np.log(0.5 + 1.0 / variance)  # Γ(3/2) = Γ(1/2)/2
    in_variance = np.trapezoid(np.exp(log_joint), variance)
    np.testing.assert_allclose(np.trapezoid(in_u, u), in_variance, rtol=1e-4)


def test_draws_hold_what_is_known_to_rounding(x):
    known = one_known("full")
    wide = x * [3.0, 0.02] + [1000.0, -5.0]
    factor = np.array([3.0, 0.02])
    held = Known(known.weights, known.means * factor + [1000.0, -5.0], known.covariances * np.outer(factor, factor))
    spec = MixtureSpec(K, known=held)
    draws = bayes.gibbs(jax.random.key(0), wide, spec, n_chains=2, n_warmup=10, n_draws=40).draws
    for leaf in ("weights", "means", "covariances"):
        ours, value = getattr(draws, leaf)[:, :, 0], getattr(held, leaf)[0]
        np.testing.assert_allclose(ours, np.broadcast_to(value, ours.shape), rtol=1e-13)
        assert np.ptp(getattr(draws, leaf)[:, :, 1], axis=1).min() > 0.0
    np.testing.assert_allclose(draws.weights.sum(-1), 1.0, rtol=1e-12)
