"""Which of several optima is best: an approximate evidence, against integration, and what it must prefer."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import invwishart, wishart

from gmm_jax import GMM, Known, MixtureSpec
from gmm_jax.em import EMConfig, criterion, fit_em_restarts
from gmm_jax.em.criterion import EXTRA, evidence_of, spacing_of
from gmm_jax.problems import datasets

KEY = jax.random.key(0)
NONE = np.zeros(1)


@pytest.fixture(scope="module")
def three():
    """(90, 2): three groups, so that restarts with K = 3 reach several optima."""
    rng = np.random.default_rng(3)
    centres = np.array([[0.0, 0.0], [4.0, 0.5], [1.0, 4.0]])
    return centres[np.repeat([0, 1, 2], 30)] + rng.standard_normal((90, 2))


def mixtures(rng, n_features, covariance_type="full", size=3):
    means = rng.normal(0.0, 1.5, (size, 3, n_features))
    root = rng.normal(size=(size, 3, n_features, n_features)) * 0.3 + np.eye(n_features)
    full = root @ np.swapaxes(root, -1, -2)
    variances = np.diagonal(full, axis1=-2, axis2=-1)
    leaf = {"full": full, "tied": full[:, 0], "diag": variances, "spherical": variances[..., 0]}[covariance_type]
    return GMM(rng.dirichlet(np.full(3, 4.0), size), means, leaf, covariance_type)


def differences(values):
    return values[1:] - values[0]


def test_the_criterion_of_one_feature_is_the_evidence_of_labelled_samples():
    """ℓ + log ∫ Π IW(σ²_k | ν, c) W(c) dc + log N(μ) − ½ log |I|, by numerical integration."""
    gmms, n, nu = mixtures(np.random.default_rng(0), 1), 50, 1.0 + EXTRA
    got = evidence_of(gmms, np.array([1.0, 2.0, 3.0]), MixtureSpec(3), n, NONE)
    expected = []
    for m in range(3):
        w, mu, v = gmms.weights[m], gmms.means[m, :, 0], gmms.covariances[m, :, 0, 0]

        def density(c, v=v):
            return np.prod([invwishart.pdf(s, nu, c) for s in v]) * wishart.pdf(c, 1, nu / 9.0)

        prior = np.log(quad(density, 0.0, 60.0, limit=400, points=[1e-3, 0.1, 1.0])[0]) - 0.5 * np.sum(mu**2) / 4.0
        count = n * w + nu
        information = np.log(count / v).sum() + np.log(count / v**2).sum() - np.log(w).sum()
        expected.append(m + 1.0 + prior - 0.5 * information)
    np.testing.assert_allclose(differences(got), differences(np.array(expected)), rtol=1e-5)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_a_covariance_enters_by_its_own_information(covariance_type):
    """log |I| of the free numbers of Σ is that of n/2 · Dᵀ(Σ⁻¹ ⊗ Σ⁻¹)D, whatever D is but for a constant."""
    rng, n_features = np.random.default_rng(1), 3
    i, j = np.tril_indices(n_features)
    basis = np.zeros((n_features, n_features, i.size))
    basis[i, j, np.arange(i.size)] = basis[j, i, np.arange(i.size)] = 1.0
    one = replace(mixtures(rng, n_features, covariance_type), weights=np.full((3, 3), 1 / 3))
    spec = MixtureSpec(3, covariance_type, Known(weights=np.full(3, 1 / 3), means=np.zeros((3, n_features))))
    got = evidence_of(one, np.zeros(3), spec, 1e12, np.zeros(n_features))
    for m in range(3):
        matrices = np.atleast_3d(one.covariances[m].reshape(-1, n_features, n_features))
        nu, scale = n_features + EXTRA, 3.0 ** (-2.0 / n_features)
        draws = wishart(n_features, np.eye(n_features) * (n_features + EXTRA) / n_features * scale).rvs(20_000, rng)
        inverse = np.linalg.inv(matrices).sum(axis=0)
        log = 0.5 * len(matrices) * nu * np.linalg.slogdet(draws)[1] - 0.5 * np.einsum("nij,ji->n", draws, inverse)
        top = log.max()
        prior = top + np.log(np.mean(np.exp(log - top)))
        error = np.std(np.exp(log - top)) / np.mean(np.exp(log - top)) / np.sqrt(log.size)
        prior -= 0.5 * (nu + n_features + 1) * np.linalg.slogdet(matrices)[1].sum()
        information = 0.0
        for matrix in matrices:
            left = np.einsum("ab,bcp->acp", np.linalg.inv(matrix), basis)
            information += np.linalg.slogdet(0.5 * np.einsum("abp,baq->pq", left, left))[1]
        if m == 0:
            first, first_error, got_first = prior - 0.5 * information, error, got[0]
        else:
            assert abs((got[m] - got_first) - (prior - 0.5 * information - first)) < 5 * np.hypot(error, first_error)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_differences_do_not_depend_on_units_or_on_the_order_of_components(covariance_type):
    rng = np.random.default_rng(2)
    x, spec = rng.normal(size=(60, 2)) * 2.0, MixtureSpec(3, covariance_type)
    gmms = mixtures(rng, 2, covariance_type, 2)
    a, b = (jax.tree.map(lambda leaf, m=m: leaf[m], gmms) for m in range(2))
    unit = np.array([1e3, 1e-3]) if covariance_type != "spherical" else np.full(2, 1e3)
    by = {"full": np.outer(unit, unit), "tied": np.outer(unit, unit), "diag": unit**2, "spherical": unit[0] ** 2}
    moved = [GMM(g.weights, g.means * unit + 7.0, g.covariances * by[covariance_type], covariance_type) for g in (a, b)]
    plain = criterion(x, a, spec) - criterion(x, b, spec)
    after = [criterion(x * unit + 7.0, gmm, spec) for gmm in moved]
    np.testing.assert_allclose(after[0] - after[1], plain)
    order = [2, 0, 1]
    leaf = a.covariances if covariance_type == "tied" else a.covariances[order]
    turned = GMM(a.weights[order], a.means[order], leaf, covariance_type)
    np.testing.assert_allclose(criterion(x, turned, spec), criterion(x, a, spec), rtol=1e-12)


def test_the_entry_point_ranks_as_the_function_does(three):
    x, spec = three[::2], MixtureSpec(3)
    found = fit_em_restarts(KEY, x, spec, n_restarts=20)
    gmms = (jax.tree.map(lambda leaf, m=m: leaf[m], found.optima.gmm) for m in range(found.optima.count.size))
    own = [criterion(x, gmm, spec) for gmm in gmms]
    np.testing.assert_allclose(differences(found.optima.criterion), differences(np.array(own)), atol=1e-6)
    best = found.optima.of_fit[int(np.argmax(found.fits.log_likelihood == found.best.log_likelihood))]
    assert best == np.argmax(np.where(found.optima.spurious, -np.inf, found.optima.criterion))


def test_data_without_clusters_are_not_cut_into_splinters():
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=(200, 2))
        best = fit_em_restarts(KEY, x, MixtureSpec(4), n_restarts=20).best
        assert 200 * best.gmm.weights.min() >= 4.0


def test_rounding_is_no_structure():
    """Samples that share one rounded value make a flat component whose likelihood has no bound but the ridge."""
    x, _ = datasets.load("iris")
    found = fit_em_restarts(KEY, x, MixtureSpec(4), n_restarts=30, config=EMConfig(max_iter=3000))
    widths = np.sqrt(np.linalg.eigvalsh(found.best.gmm.covariances).min())
    assert widths > 0.1 / np.sqrt(12.0)  # iris was measured to 0.1 cm


def test_the_spacing_is_that_of_rounded_values_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    x[:, 1] = np.round(x[:, 1], 1)
    x[:, 2] = 1.0
    np.testing.assert_allclose(spacing_of(x), [0.0, 0.1, 0.0], atol=1e-9)


def test_bad_arguments_are_named(three):
    gmm = jax.tree.map(lambda leaf: leaf[0], mixtures(np.random.default_rng(0), 2))
    with pytest.raises(ValueError, match="does not fit spec"):
        criterion(three, gmm, MixtureSpec(2))
    with pytest.raises(ValueError, match="criterion must be one of evidence, likelihood; got 'bic'"):
        fit_em_restarts(KEY, three, MixtureSpec(2), criterion="bic")


def test_a_singular_covariance_is_worth_nothing():
    gmm = GMM(np.full(2, 0.5), np.zeros((2, 2)), np.stack([np.eye(2), np.diag([1.0, 0.0])]))
    one = jax.tree.map(lambda leaf: leaf[None], gmm)
    assert evidence_of(one, np.zeros(1), MixtureSpec(2), 90, np.zeros(2)) == -np.inf
