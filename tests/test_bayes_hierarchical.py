"""Covariances with a common unknown scale: the law by integration, draws by SciPy, EM's modes, ties, choice of K."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import logsumexp

from gmm_jax import GMM, MixtureSpec, Prior, Status, bayes
from gmm_jax.bayes.prior import dof_of_ties, hyperparameters
from gmm_jax.bayes.target import density_of, log_joint_density, prepare, site_values
from gmm_jax.em import EMConfig, fit_em_restarts

KEY = jax.random.key(0)
MEAN = np.array([[2.0, 0.3], [0.3, 1.0]])
MATRICES = np.array([[[1.0, 0.2], [0.2, 0.5]], [[0.3, -0.1], [-0.1, 2.0]], [[1.0, 0.0], [0.0, 1.0]]])
TYPES = ["full", "diag", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tied", "spherical"))]


# ---- the law


def test_the_density_of_variances_is_the_integral_over_the_scale():
    variances = np.array([0.4, 1.7, 3.0])
    law = bayes.hierarchical_inverse_wishart(3.0, 1.5, 2.0).jointly(3)

    def joint(log_scale):
        scale = np.exp(log_scale)  # of 1 × 1 matrices: IW(ν, C) is IG(ν/2, C/2)
        each = stats.invgamma(1.5, scale=scale / 2.0).pdf(variances).prod()
        return each * stats.gamma(0.75, scale=2.0 * 2.0 / 1.5).pdf(scale) * scale

    np.testing.assert_allclose(law.log_prob(variances), np.log(quad(joint, -30.0, 8.0, epsrel=1e-10)[0]), rtol=1e-8)
    np.testing.assert_allclose(
        bayes.hierarchical_inverse_wishart(3.0, 1.5, np.full(2, 2.0)).jointly(3).log_prob(np.tile(variances, (2, 1)).T),
        2.0 * law.log_prob(variances),  # features are independent
        rtol=1e-12,
    )


@pytest.mark.parametrize("n", [1, 3])
def test_the_density_of_matrices_is_the_mean_over_scales(n):
    scales = stats.wishart(3.5, MEAN / 3.5).rvs(40_000, random_state=np.random.default_rng(0))
    logs = np.zeros(len(scales))
    for matrix in MATRICES[:n]:  # log IW(4, C), as a function of C
        logs += 2.0 * np.linalg.slogdet(scales)[1] - 0.5 * np.einsum("nij,ji->n", scales, np.linalg.inv(matrix))
        logs += stats.invwishart(4.0, np.eye(2)).logpdf(matrix) + 0.5 * np.trace(np.linalg.inv(matrix))
    expected, ratio = logsumexp(logs) - np.log(len(logs)), np.exp(logs - logs.max())
    error = ratio.std() / ratio.mean() / np.sqrt(len(ratio))
    law = bayes.hierarchical_inverse_wishart(4.0, 3.5, MEAN)
    found = law.log_prob(MATRICES[0]) if n == 1 else law.jointly(n).log_prob(MATRICES)
    assert error < 0.02
    assert abs(found - expected) <= 5.0 * error


def test_draws_have_one_scale_in_common():
    """Against SciPy's draws of the scale, and then of two matrices given it."""
    rng, n = np.random.default_rng(1), 3000
    ours = np.asarray(bayes.hierarchical_inverse_wishart(4.0, 2.5, MEAN).jointly(2).sample(KEY, (n,)))
    scales = stats.wishart(2.5, MEAN / 2.5).rvs(n, random_state=rng)
    theirs = np.array([stats.invwishart(4.0, scale).rvs(2, random_state=rng) for scale in scales])
    for quantity in (
        lambda c: np.log(c[:, 0, 0, 0]),
        lambda c: np.linalg.slogdet(c[:, 1])[1],
        lambda c: np.linalg.slogdet(c[:, 0])[1] + np.linalg.slogdet(c[:, 1])[1],
        lambda c: np.linalg.slogdet(c[:, 0])[1] - np.linalg.slogdet(c[:, 1])[1],
        lambda c: c[:, 0, 0, 1] / np.sqrt(c[:, 0, 0, 0] * c[:, 0, 1, 1]),
    ):
        assert stats.ks_2samp(quantity(ours), quantity(theirs)).pvalue > 1e-3


def test_with_much_confidence_in_the_scale_it_is_the_inverse_wishart():
    law = bayes.hierarchical_inverse_wishart(4.0, 1e7, MEAN).jointly(3)
    fixed = sum(stats.invwishart(4.0, MEAN).logpdf(matrix) for matrix in MATRICES)
    np.testing.assert_allclose(law.log_prob(MATRICES), fixed, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((1.0, 3.0, np.eye(2)), r"dof must be a number above 1, which is D - 1; got 1\.0"),
        ((3.0, np.nan, np.eye(2)), "scale_dof must be a number above 1, which is D - 1; got nan"),
        ((3.0, 3.0, np.ones((2, 2))), "scale_mean must be positive definite"),
        ((3.0, 3.0, np.ones((2, 3))), r"scale_mean must be a matrix \(D, D\), variances .*; got shape \(2, 3\)"),
        ((3.0, 3.0, np.array([1.0, -1.0])), "scale_mean holds variances, which are positive"),
        ((3.0, 3.0, np.inf), "scale_mean must be finite; got inf"),
    ],
)
def test_bad_numbers_are_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        bayes.hierarchical_inverse_wishart(*arguments)


# ---- modes


@pytest.fixture(scope="module")
def two():
    """(90, 2): two groups of unequal shape."""
    x = np.random.default_rng(3).standard_normal((90, 2))
    x[:30] = x[:30] * [0.3, 1.5] + [4.0, 1.0]
    return x


@pytest.mark.parametrize("covariance_type", TYPES)
def test_em_climbs_to_a_mode_of_numpyros_density(two, covariance_type):
    """The scale is one latent variable more: the log posterior never falls, and ends where NumPyro's is stationary."""
    spec = MixtureSpec(2, covariance_type)
    prior = hyperparameters(bayes.default_prior(two, spec), covariance_type)
    config = EMConfig(max_iter=2000, tol=1e-13, reg_covar=0.0)
    found = fit_em_restarts(KEY, two, spec, n_restarts=2, prior=prior, config=config).best
    trace = np.asarray(found.trace)[: int(found.n_iter) + 1]
    assert found.status == Status.CONVERGED
    assert np.all(np.diff(trace) >= -1e-9)
    problem, scaling = prepare(two, spec)
    inner = jax.tree.map(jnp.asarray, scaling.inward(found.gmm))

    @jax.jit
    def gradient(values):
        return jax.grad(lambda values: log_joint_density(problem, values))(values)

    slopes = gradient(site_values(problem, inner))
    slopes["weights"] -= slopes["weights"].mean()  # along the simplex
    for name, slope in slopes.items():
        assert np.max(np.abs(slope)) < 1e-3, name  # one sample more would change it by about 1


# ---- ties


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_with_ties_the_posterior_stays_bounded(covariance_type):
    """Of 60 rows 20 agree in a feature: on the way to a component of these alone the density must not rise for ever."""
    x = np.random.default_rng(4).standard_normal((60, 2))
    x[:20, 0] = 0.7
    spec = MixtureSpec(2, covariance_type)
    assert dof_of_ties(x, spec) == 19 - ((2 if covariance_type == "full" else 1) + 1) + 2
    least = bayes.default_prior(x[19:], spec).covariances
    assert bayes.default_prior(x, spec).covariances.scale_dof > least.scale_dof
    heights = []
    for prior in (Prior(), Prior(covariances=least)):
        problem, scaling = prepare(x, MixtureSpec(2, covariance_type, prior=prior))
        narrow = np.array([1e-3, 1e-6, 1e-9, 1e-12])
        variances = np.stack([np.stack([narrow, np.ones(4)], -1), np.tile(x[20:].var(0), (4, 1))], axis=1)
        means = np.tile([[0.7, x[:20, 1].mean()], x[20:].mean(0)], (4, 1, 1))
        covariances = variances if covariance_type == "diag" else variances[..., None] * np.eye(2)
        gmms = GMM(np.tile([1.0 / 3.0, 2.0 / 3.0], (4, 1)), means, covariances, covariance_type)
        inner = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], scaling.inward(gmms))
        heights.append(np.asarray(density_of(problem, inner))[0])
    assert np.all(np.diff(heights[0]) < 1.0)
    assert np.all(np.diff(heights[1]) > 10.0)  # with the prior of data without ties


def test_ties_are_counted_as_each_structure_can_use_them():
    """Groups of equal values but one, less ν, and 2; with no more values than components all groups, and no ν."""
    x = np.random.default_rng(5).standard_normal((12, 3))
    assert all(dof_of_ties(x, MixtureSpec(k, kind)) == 0.0 for k in (1, 2, 4) for kind in ("full", "tied", "spherical"))
    x[:5, 1], x[6:8] = 2.0, x[8]
    x[11, 1] = np.nan
    assert dof_of_ties(x, MixtureSpec(2)) == 4 - 4 + 2
    assert dof_of_ties(x, MixtureSpec(2, "diag")) == 4 - 2 + 2
    assert dof_of_ties(x, MixtureSpec(3, "diag")) == 4 + 2 - 2 + 2
    assert dof_of_ties(x, MixtureSpec(2, "spherical")) == 3 * 2 - 2 + 2
    assert dof_of_ties(x, MixtureSpec(2, "tied")) == dof_of_ties(x, MixtureSpec(1)) == 0.0
    x[:, 2] = np.arange(12) % 2
    assert dof_of_ties(x, MixtureSpec(2, "tied")) == 10 + 2


# ---- how many components


@pytest.mark.slow
def test_telescoping_has_the_evidence_of_each_number_of_components():
    """P(K | x) ∝ p(K) p(x | K), the evidence by smc under the same prior."""
    x = np.array([-1.9, -1.2, -0.8, 0.1, 0.9, 1.4, 2.2, 3.1, 7.5, 8.0])[:, None]
    prior = Prior(
        means=dist.Normal(2.0, 4.0).expand([1]).to_event(1),
        covariances=bayes.hierarchical_inverse_wishart(2.0, 1.0, np.array([[3.0]])),
    )
    found = bayes.telescoping(KEY, x, MixtureSpec(3, prior=prior), components=np.ones(3), n_draws=20_000)
    runs = [bayes.smc(KEY, x, MixtureSpec(k, prior=prior), n_chains=16) for k in (1, 2, 3)]
    evidences = [bayes.pool(run) for run in runs]
    share = np.exp([e.log_evidence for e in evidences])
    share /= share.sum()
    error = share * np.array([e.standard_error for e in evidences])
    p, p_error = found.probabilities(found.n_components)
    assert share.min() > 0.02
    assert np.all(np.abs(p[1:] - share) <= 4.0 * np.hypot(p_error[1:], error))
