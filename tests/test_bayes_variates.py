"""Variates of a Gibbs sweep against SciPy's distributions and known moments."""

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma

from gmm_jax.bayes.variates import Noise, draw_noise, inverse_wishart, log_gamma, wishart

N_DRAWS = 40_000
LEAST_P = 1e-4  # of each Kolmogorov–Smirnov test: keys are fixed


def noises(n_components=1, n_features=1, dtype=np.float64, seed=7) -> Noise:
    """N_DRAWS sweeps' numbers."""
    keys = jax.random.split(jax.random.key(seed), N_DRAWS)
    return jax.jit(jax.vmap(lambda key: draw_noise(key, 4, n_components, n_features, dtype)))(keys)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 1.5, 30.0, 1e5])
def test_log_gamma_has_its_distribution(shape, dtype):
    """SciPy has the law of log g, in which small shapes lose nothing."""
    shapes = np.full(1, shape, dtype)
    draws = np.asarray(jax.vmap(log_gamma, in_axes=(0, None))(noises(dtype=dtype).weights, shapes)).ravel()
    assert draws.dtype == dtype
    assert stats.kstest(draws.astype(float), stats.loggamma(shape).cdf).pvalue > LEAST_P


def test_log_gamma_where_every_proposal_is_rejected():
    """Further proposals come from the key, and have the same distribution."""
    proposals = noises().weights
    hopeless = proposals._replace(normal=np.full_like(proposals.normal, -100.0))
    draws = np.asarray(jax.vmap(log_gamma, in_axes=(0, None))(hopeless, np.full(1, 2.5))).ravel()
    assert stats.kstest(draws, stats.loggamma(2.5).cdf).pvalue > LEAST_P


def test_log_gamma_ends_where_the_shape_is_no_number():
    proposals = draw_noise(jax.random.key(0), 4, 3, 1, np.float64).weights
    found = np.asarray(log_gamma(proposals, np.array([np.nan, np.inf, 2.0])))
    assert np.isnan(found[0])
    assert found[1] == np.inf
    assert np.isfinite(found[2])


def test_noise_is_uniform_and_normal_and_independent():
    """Every number of a sweep has its law, and no two of one sweep are correlated."""
    noise = noises(n_components=2, n_features=2)
    gammas = noise.weights, noise.scales, noise.scale
    assert np.all((noise.labels > 0.0) & (noise.labels < 1.0))
    laws = {
        "uniform": (noise.labels,),
        "norm": (noise.means, noise.below, noise.scale_below, *(g.normal for g in gammas)),
        "expon": (*(g.exponential for g in gammas), *(g.shrink for g in gammas)),
    }
    columns = []
    for law, leaves in laws.items():
        numbers = np.concatenate([np.asarray(leaf).reshape(N_DRAWS, -1) for leaf in leaves], axis=1)
        columns.append(numbers)
        p_values = stats.kstest(numbers, getattr(stats, law).cdf, axis=0).pvalue
        assert p_values.min() > LEAST_P, law
    correlation = np.corrcoef(np.concatenate(columns, axis=1), rowvar=False)
    off_diagonal = correlation[np.triu_indices_from(correlation, 1)]
    assert np.abs(off_diagonal).max() < 5.5 / np.sqrt(N_DRAWS)  # a normal beyond 5.5 sd: one in 26 million


def test_inverse_wishart_has_its_known_moments():
    """E Σ = Ψ/(ν−D−1), E Σ⁻¹ = ν Ψ⁻¹, E log|Σ| = log|Ψ| − D log 2 − Σ_i ψ((ν+1−i)/2)."""
    dof, size = 9.0, np.array([[2.0, 0.5, 0.1], [0.5, 1.0, -0.3], [0.1, -0.3, 0.7]])
    noise = noises(n_features=3)
    draw = jax.jit(jax.vmap(inverse_wishart, in_axes=(0, 0, None, None)))
    draws = np.asarray(draw(noise.below[:, 0], noise.scales.at((slice(None), 0)), dof, size))
    log_det = np.linalg.slogdet(size)[1] - 3.0 * np.log(2.0) - digamma((dof - np.arange(3)) / 2.0).sum()
    for values, exact in (
        (draws, size / (dof - 4.0)),
        (np.linalg.inv(draws), dof * np.linalg.inv(size)),
        (np.linalg.slogdet(draws)[1], log_det),
    ):
        error = values.std(axis=0) / np.sqrt(len(values))
        assert np.all(np.abs(values.mean(axis=0) - exact) <= 5.0 * error)


def test_wishart_has_its_known_moments():
    """E C = ν R⁻¹, E C⁻¹ = R/(ν−D−1), E log|C| = D log 2 − log|R| + Σ_i ψ((ν+1−i)/2)."""
    dof, rate = 9.0, np.array([[2.0, 0.5, 0.1], [0.5, 1.0, -0.3], [0.1, -0.3, 0.7]])
    noise = noises(n_features=3)
    draw = jax.jit(jax.vmap(wishart, in_axes=(0, 0, None, None)))
    draws = np.asarray(draw(noise.scale_below, noise.scale, dof, rate))
    log_det = 3.0 * np.log(2.0) - np.linalg.slogdet(rate)[1] + digamma((dof - np.arange(3)) / 2.0).sum()
    for values, exact in (
        (draws, dof * np.linalg.inv(rate)),
        (np.linalg.inv(draws), rate / (dof - 4.0)),
        (np.linalg.slogdet(draws)[1], log_det),
    ):
        error = values.std(axis=0) / np.sqrt(len(values))
        assert np.all(np.abs(values.mean(axis=0) - exact) <= 5.0 * error)
