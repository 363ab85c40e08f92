"""Pictures of one's own fit: axes in and out, named by the features; what is drawn is where the numbers say."""

import matplotlib
import numpy as np
import pytest

from gmm_jax import GMM, Fit, GaussianMixture, Posterior, Status, em, plot

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
MEANS = np.array([[0.0, 0.0, 5.0, 1.0], [6.0, 3.0, -5.0, 1.0]])
GMM_4 = GMM(np.array([0.3, 0.7]), MEANS, np.stack([np.eye(4), 2.0 * np.eye(4)]))
LABELS = (RNG.random(200) < 0.7).astype(int)
X = MEANS[LABELS] + RNG.standard_normal((200, 4))
NAMES = ["height", "weight", "age", "score"]


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    from matplotlib import pyplot

    pyplot.close("all")


class Frame:
    """What is asked of a data frame: columns and numbers."""

    columns = NAMES

    def __array__(self, dtype=None, copy=None):
        return X

    def __len__(self):
        return len(X)


def crosses(ax):
    """The means that are marked in a panel."""
    return np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() == "+"])


def test_pairs_mark_the_means_of_their_features_and_have_their_names():
    axes = plot.pairs(Frame(), GMM_4)
    assert axes.shape == (4, 4)
    for i in range(4):
        for j in range(i):
            np.testing.assert_allclose(crosses(axes[i, j]), MEANS[:, [j, i]])
    assert [ax.get_xlabel() for ax in axes[3]] == NAMES
    assert [ax.get_ylabel() for ax in axes[1:, 0]] == NAMES[1:]


@pytest.mark.parametrize("features", [[2], [1, 3], [0, 2, 3]])
@pytest.mark.parametrize("labels", [None, LABELS])
def test_scatter_shows_one_to_three_features(features, labels):
    ax = plot.scatter(X, GMM_4, features=features, names=NAMES, labels=labels)
    assert ax.get_xlabel() == NAMES[features[0]]
    if len(features) == 3:
        assert ax.get_zlabel() == NAMES[features[2]]


def test_pictures_are_drawn_into_the_axes_that_are_given():
    figure = matplotlib.figure.Figure()
    axes = figure.subplots(2, 2)
    assert plot.scatter(X, GMM_4, ax=axes[0, 0]) is axes[0, 0]
    assert plot.responsibilities(X, GMM_4, ax=axes[0, 1]) is axes[0, 1]
    assert list(plot.densities(X[:, :2], two(), axes=axes[1])) == list(axes[1])
    assert all(ax.has_data() for ax in axes.ravel())


def two():
    return GMM(GMM_4.weights, MEANS[:, :2], np.stack([np.eye(2)] * 2))


def test_densities_are_those_of_the_mixture():
    axes = plot.densities(X, GMM_4, names=NAMES)
    assert len(axes) == 4
    for j, ax in enumerate(axes):
        total = [line for line in ax.lines if len(line.get_xdata()) > 10][2].get_xydata()
        sd = np.sqrt([1.0, 2.0])
        z = (total[:, :1] - MEANS[:, j]) / sd
        np.testing.assert_allclose(total[:, 1], (np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) / sd) @ GMM_4.weights)


def test_any_result_that_holds_a_mixture_is_drawn():
    model = GaussianMixture(2, random_state=0, tol=1e-2).fit(X[:, :2])
    gmm = two()
    result = em.EMResult(gmm, -1.0, np.array([-3.0, -1.0, np.nan]), 1, Status.CONVERGED)
    for fit in (gmm, result, Fit(gmm, None, None, Status.CONVERGED, {}), model, model.restarts_):
        plot.scatter(X[:, :2], fit)
    for fit in (result, model.restarts_):
        left, right = plot.traces(fit)
        assert left.lines
        assert right.get_yscale() == "log"


def test_a_posterior_has_traces_and_the_draws_of_its_means():
    draws = GMM(
        np.broadcast_to(GMM_4.weights, (2, 50, 2)),
        MEANS + 0.1 * RNG.standard_normal((2, 50, 2, 4)),
        np.broadcast_to(GMM_4.covariances, (2, 50, 2, 4, 4)),
    )
    posterior = Posterior(draws, RNG.standard_normal((2, 50)), {}, Status.SAMPLED)
    assert len(plot.traces(posterior)[0].lines) == 2
    axes = plot.posterior_of_means(posterior, X, features=(2, 0), names=NAMES)
    assert [ax.get_xlabel() for ax in axes] == ["μ, age"] * 2
    cloud = max(axes[1].lines, key=lambda line: (line.get_marker() == ".") * line.get_zorder()).get_xydata()
    np.testing.assert_allclose(cloud, np.asarray(draws.means)[..., 1, [2, 0]].reshape(-1, 2))
    assert len(plot.posterior_of_means(posterior)) == 2
    assert len(plot.posterior_of_means(posterior, features=(1,))) == 2


def test_rows_with_gaps_are_drawn_where_they_are_seen():
    gaps = X.copy()
    gaps[:50, 0] = np.nan
    axes = plot.pairs(gaps, GMM_4)
    assert len(axes[1, 0].collections[0].get_offsets()) == 150
    assert len(axes[3, 2].collections[0].get_offsets()) == 200


def test_what_does_not_fit_together_is_a_sentence():
    with pytest.raises(ValueError, match="fit has 4 features, but x has 2"):
        plot.pairs(X[:, :2], GMM_4)
    with pytest.raises(ValueError, match="one name a feature, 4; got 2"):
        plot.pairs(X, GMM_4, names=NAMES[:2])
    with pytest.raises(ValueError, match=r"see plot\.pairs for more"):
        plot.scatter(X, GMM_4, features=[0, 1, 2, 3])
    with pytest.raises(ValueError, match="fit must be a GMM or a result"):
        plot.scatter(X, "no fit")
