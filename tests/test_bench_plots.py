import jax
import numpy as np
import pytest
from PIL import Image

from gmm_jax.bench import plots
from gmm_jax.bench.plots import fits, looks, primitives
from gmm_jax.mixture import GMM, Known, structure

N, K = 60, 2


def mixture(n_features, covariance_type="full", leading=()):
    shape = structure(covariance_type).shape(K, n_features)
    one = np.ones(shape) if covariance_type in ("diag", "spherical") else np.broadcast_to(np.eye(n_features), shape)
    means = np.stack([np.zeros(n_features), np.full(n_features, 3.0)])
    leaves = (np.array([0.7, 0.3]), means, one)
    return GMM(*(np.broadcast_to(leaf, (*leading, *leaf.shape)).copy() for leaf in leaves), covariance_type)


def samples(n_features):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 20])
    return 3.0 * labels[:, None] + rng.standard_normal((N, n_features)), labels


def is_a_picture(path, most=150_000):
    assert 2_000 < path.stat().st_size < most
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 300
        assert image.height > 120
        assert len(np.unique(np.asarray(image.convert("L")))) > 10  # something is drawn
    return True


@pytest.fixture(params=[1, 2, 3, 5], ids="{}d".format)
def n_features(request):
    return request.param


def test_data(tmp_path, n_features):
    x, labels = samples(n_features)
    plots.data(tmp_path / "a.png", x)
    plots.data(tmp_path / "b.png", x, labels)
    assert is_a_picture(tmp_path / "a.png")
    assert is_a_picture(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("n_features", "covariance_type"),
    [(1, "full"), (2, "tied"), (2, "diag"), (2, "spherical"), (3, "diag"), (5, "full")],
)
def test_em_iterations_of_every_structure(tmp_path, n_features, covariance_type):
    x, _ = samples(n_features)
    iterates = mixture(n_features, covariance_type, leading=(6,))
    plots.em_iterations(tmp_path / "a.png", x, iterates, np.linspace(-300.0, -200.0, 6), at=(0, 2))
    assert is_a_picture(tmp_path / "a.png")


def test_em_animation_is_short_and_small(tmp_path, n_features):
    x, _ = samples(n_features)
    trace = np.append(np.linspace(-300.0, -200.0, 200), np.nan)
    plots.em_animation(tmp_path / "a.gif", x, mixture(n_features, leading=(201,)), trace, n_frames=6)
    assert (tmp_path / "a.gif").stat().st_size < 800_000
    with Image.open(tmp_path / "a.gif") as image:
        assert image.format == "GIF"
        assert 2 <= image.n_frames <= 6


def test_frames_begin_at_the_start_and_end_at_the_end():
    for last in (0, 1, 5, 79, 10_000):
        steps = fits.frame_steps(last, 40)
        assert steps[0] == 0
        assert steps[-1] == last
        assert len(steps) <= 40
        assert steps == sorted(set(steps))


def test_log_likelihood_without_the_tail_of_nan(tmp_path):
    traces = {"case I": [-5.0, -3.0, -2.5, np.nan], "case II": np.linspace(-9, -1, 50), "one": [-1.0]}
    plots.log_likelihood(tmp_path / "a.png", traces)
    plots.log_likelihood(tmp_path / "b.png", {str(i): np.linspace(-9 - i, -1, 50) for i in range(50)})
    assert is_a_picture(tmp_path / "a.png")
    assert is_a_picture(tmp_path / "b.png")


def test_recovered_with_and_without_truth(tmp_path, n_features):
    x, labels = samples(n_features)
    gmm = mixture(n_features)
    plots.recovered(tmp_path / "a.png", x, labels, gmm, {"em": gmm, "nuts": gmm, "new": gmm, "gibbs": gmm})
    plots.recovered(tmp_path / "b.png", x, None, None, {"em": gmm})
    assert is_a_picture(tmp_path / "a.png")
    assert is_a_picture(tmp_path / "b.png")


def test_parameter_errors(tmp_path, n_features):
    gmm = mixture(n_features)
    errors = GMM(np.full(K, 0.1), np.full_like(gmm.means, 0.1), np.full_like(gmm.covariances, 0.1))
    plots.parameter_errors(tmp_path / "a.png", gmm, {"em": (gmm, errors), "mine": (gmm, None)})
    known = Known(weights=gmm.weights, covariances=gmm.covariances)
    plots.parameter_errors(tmp_path / "b.png", gmm, {"em": (gmm, errors)}, known)
    everything = Known(weights=gmm.weights, means=gmm.means, covariances=gmm.covariances)
    plots.parameter_errors(tmp_path / "c.png", gmm, {"em": (gmm, None)}, everything)
    assert is_a_picture(tmp_path / "a.png")
    assert is_a_picture(tmp_path / "b.png")


def test_posterior_of_means(tmp_path, n_features):
    x, _ = samples(n_features)
    draws = mixture(n_features, leading=(2, 700))
    draws.means[...] += 0.1 * np.random.default_rng(0).standard_normal(draws.means.shape)
    plots.posterior_of_means(tmp_path / "a.png", x, {"nuts": draws, "gibbs": draws}, mixture(n_features))
    plots.posterior_of_means(tmp_path / "b.png", x, {"nuts": draws})
    assert is_a_picture(tmp_path / "a.png")
    assert is_a_picture(tmp_path / "b.png")


def test_landscape(tmp_path):
    def row(i, gap, count, reason=""):
        spurious, least = reason != "", 1.0 if reason else 20.0
        shared = {"optimum": i, "gap": gap, "count": count, "share": count / 1000, "reason": reason}
        return shared | {"spurious": spurious, "narrow_count": least, "smallest_eigenvalue": 1e-3 * least}

    failed = {"optimum": None, "count": 3, "share": 0.003, "reason": "no optimum: COLLAPSED"}
    plots.landscape(tmp_path / "a.png", [row(1, -9.0, 1, "tiny component"), row(2, 0.0, 5), row(3, 2.0, 2), failed])
    plots.landscape(tmp_path / "b.png", [row(1, 0.0, 5)])
    plots.landscape(tmp_path / "c.png", [row(i + 1, float(i), 40 - i) for i in range(40)])
    plots.landscape(tmp_path / "d.png", [failed])
    for name in "abcd":
        assert is_a_picture(tmp_path / f"{name}.png")


def test_recovery_shows_failed_trials(tmp_path):
    rows = [
        {"problem": problem, "method": method, "seed": seed, "status": status, "kl": kl}
        for problem in ("one", "two")
        for method in ("em", "nuts")
        for seed, (status, kl) in enumerate([("CONVERGED", 0.1), ("UNMIXED", 2.0), ("FAILED", None)])
    ]
    plots.recovery(tmp_path / "a.png", rows, "kl", ["one", "two", "missing"], ["em", "nuts"])
    plots.recovery(tmp_path / "b.png", [], "kl", ["one"], ["em"])
    assert is_a_picture(tmp_path / "a.png")
    assert is_a_picture(tmp_path / "b.png")


def test_cases_of_one_problem_are_not_pooled_and_one_seed_has_no_quartiles(tmp_path, monkeypatch):
    from gmm_jax.bench.plots import trials

    drawn = []
    monkeypatch.setattr(trials, "draw_trials", lambda panel, rows, *_: drawn.append([row["kl"] for row in rows]))
    said = []
    monkeypatch.setattr(trials, "legend_below", lambda figure, _: said.append(figure.axes[0]))
    shared = {"problem": "one", "seed": 0, "status": "CONVERGED", "method": "em"}
    rows = [shared | {"case": "Case I", "kl": 1.0}, shared | {"case": "Case II", "kl": 2.0}]
    plots.recovery(tmp_path / "a.png", rows, "kl", ["one"], ["em"])
    assert drawn == [[1.0], [2.0]]
    assert [label.get_text() for label in said[0].get_yticklabels()] == ["one, Case I", "one, Case II"]
    assert said[0].get_title(loc="left").startswith("kl: one seed\n")


def test_many_components_have_different_colours():
    colours = looks.colours_of(30)
    assert len(set(colours)) == 30


def test_a_picture_is_the_same_every_time_and_leaves_no_state(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    x, labels = samples(2)
    for name in "ab":
        plots.data(tmp_path / f"{name}.png", x, labels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_degenerate_data_and_components_are_drawn(tmp_path):
    x = np.zeros((10, 2))
    flat = GMM(np.array([0.5, 0.5]), np.zeros((2, 2)), np.zeros((2, 2, 2)) + 1e-12 * np.eye(2))
    plots.data(tmp_path / "a.png", x)
    plots.em_iterations(tmp_path / "b.png", x, jax.tree.map(lambda leaf: leaf[None], flat))
    plots.data(tmp_path / "c.png", np.zeros((10, 3)))
    plots.data(tmp_path / "d.png", np.zeros((10, 1)))
    for name in "abcd":
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("n_features", [1, 2])
def test_the_density_that_is_drawn_holds_all_probability(n_features):
    """A sum over a fine grid; of five features the marginal of those seen is exact."""
    grid = np.stack([a.ravel() for a in np.meshgrid(*[np.linspace(-6.0, 9.0, 151)] * n_features)], axis=-1)
    for whole in (n_features, 5):
        density = primitives.component_densities(mixture(whole), grid)
        assert density.sum() * 0.1**n_features == pytest.approx(1.0, abs=1e-6)
