"""Laws of problems: truths are what they say, and data come from their truth."""

import ast
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gmm_jax import MixtureSpec, permute, problems, sample, validate
from gmm_jax.mixture import structure, validate_spec
from gmm_jax.problems import datasets, generators, suite

SIGMAS = 5.0  # every random law holds within five standard errors, at a fixed key
KEYS = jax.random.split(jax.random.key(7), 300)


def dense(gmm):
    """(K, D, D), for any structure."""
    return np.asarray(structure(gmm.covariance_type).dense(jnp.asarray(gmm.covariances), *gmm.means.shape))


def assert_moments_agree(x, mean, covariance):
    """Mean and covariance of the rows of x within SIGMAS standard errors of a Gaussian's."""
    n = len(x)
    variance = np.diag(covariance)
    assert np.all(np.abs(x.mean(axis=0) - mean) < SIGMAS * np.sqrt(variance / n))
    deviation = x - mean
    error = np.sqrt((covariance**2 + np.outer(variance, variance)) / n)
    assert np.all(np.abs(deviation.T @ deviation / n - covariance) < SIGMAS * error)


# --- generators ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_features", [1, 2, 10])
def test_a_random_covariance_is_never_singular(n_features):
    matrices = np.asarray(jax.vmap(lambda key: problems.random_covariance(key, n_features))(KEYS))
    eigenvalues = np.linalg.eigvalsh(matrices)
    bound = generators.RIDGE / (3 * n_features + generators.RIDGE)
    assert np.array_equal(matrices, np.swapaxes(matrices, 1, 2))
    assert np.all(eigenvalues[:, 0] >= bound * eigenvalues[:, -1])


def test_a_random_covariance_has_the_mean_of_the_course():
    n_features = 3
    matrices = np.asarray(jax.vmap(lambda key: problems.random_covariance(key, n_features))(KEYS))
    expected = (1.0 + generators.RIDGE) * n_features / 12.0 * np.eye(n_features)
    error = matrices.std(axis=0) / np.sqrt(len(KEYS))
    assert np.all(np.abs(matrices.mean(axis=0) - expected) < SIGMAS * error)


def test_a_random_gaussian_has_its_mean_in_the_cube():
    means, _ = jax.vmap(lambda key: problems.random_gaussian(key, 3, 2.0))(KEYS)
    means = np.asarray(means)
    assert means.min() > 0.0
    assert means.max() < 2.0
    assert np.all(np.abs(means.mean(axis=0) - 1.0) < SIGMAS * 2.0 / np.sqrt(12.0 * len(KEYS)))


@pytest.mark.parametrize("covariance_type", ["full", "spherical"])
def test_a_random_mixture_is_valid_and_gives_no_component_up(covariance_type):
    gmm = problems.random_mixture(jax.random.key(3), 4, 3, covariance_type=covariance_type)
    validate(gmm)
    assert np.min(gmm.weights) >= 1.0 / (3 * 4)


def test_vmap_over_keys_is_the_loop():
    keys = KEYS[:3]
    for one in (
        lambda key: problems.random_mixture(key, 3, 2),
        lambda key: problems.separated_mixture(key, 5, 2, 3.0),
    ):
        many = jax.vmap(one)(keys)
        for i, key in enumerate(keys):
            for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one(key)), strict=True):
                np.testing.assert_allclose(a[i], b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n_components", "n_features"), [(7, 1), (20, 3), (4, 70)])
def test_the_closest_pair_is_as_far_apart_as_asked(n_components, n_features):
    gmm = problems.separated_mixture(jax.random.key(1), n_components, n_features, 2.5)
    validate(gmm)
    means = np.asarray(gmm.means)
    distance = np.linalg.norm(means[:, None] - means[None], axis=-1) + np.where(np.eye(n_components), np.inf, 0.0)
    np.testing.assert_allclose(distance.min(), 2.5, rtol=1e-12)
    nearest = distance.min(axis=1)
    assert np.all(nearest < 2.5 * 10)  # every component has a neighbour
    np.testing.assert_array_equal(dense(gmm), np.broadcast_to(np.eye(n_features), dense(gmm).shape))


def test_one_component_needs_no_separation():
    gmm = problems.separated_mixture(jax.random.key(1), 1, 3, 2.5)
    assert np.all(np.isfinite(gmm.means))
    assert gmm.means.shape == (1, 3)


def test_two_equal_spheres_have_the_error_of_their_separation():
    """Φ(−separation / 2)."""
    truth = problems.separated_mixture(jax.random.key(0), 2, 2, -2.0 * norm.ppf(0.1))
    truth = jax.tree.map(np.asarray, truth)
    problem = suite.Problem("pair", "", truth, MixtureSpec(2), 10, "")
    value, error = problem.bayes_error(jax.random.key(5), 20_000)
    assert abs(value - 0.1) < SIGMAS * error


@pytest.mark.parametrize("n", [1, 2, 10, 101, 500])
def test_fixed_counts_sum_to_n_and_are_within_one_of_their_share(n):
    for weights in ([0.7, 0.3], [1 / 3] * 3, [0.95, 0.05], np.float32([0.1] * 10)):
        counts = problems.fixed_counts(weights, n)
        assert counts.sum() == n
        assert np.all(np.abs(counts - n * np.asarray(weights, float)) < 1.0)


def test_the_rest_goes_to_the_largest_remainders():
    """Of all whole numbers that sum to n, fixed_counts are nearest to n·φ."""
    weights = np.array([0.15, 0.25, 0.6])
    for n in (1, 7, 13):
        others = [c for c in itertools.product(range(n + 1), repeat=3) if sum(c) == n]
        best = min(np.sum((np.array(c) - n * weights) ** 2) for c in others)
        np.testing.assert_allclose(np.sum((problems.fixed_counts(weights, n) - n * weights) ** 2), best, atol=1e-12)


# --- named problems -----------------------------------------------------------------------------------------------


def test_course_2d_is_the_course():
    truth = problems.load("course_2d").truth
    np.testing.assert_array_equal(truth.weights, [0.7, 0.3])
    np.testing.assert_array_equal(truth.means, [[1.0, 1.0], [-1.0, -1.0]])
    np.testing.assert_array_equal(truth.covariances, [[[0.6, 0.0], [0.0, 0.6]], [[0.8, -0.3], [-0.3, 0.6]]])


def test_course_3d_is_drawn_as_in_the_course_and_overlaps_a_little():
    problem = problems.load("course_3d")
    truth = problem.truth
    assert np.array_equal(truth.weights, [0.7, 0.3])
    assert truth.means.shape == (2, 3)
    assert truth.means.min() > 0.0
    assert truth.means.max() < 2.0
    assert np.linalg.cond(truth.covariances).max() < 10.0
    value, error = problem.bayes_error(jax.random.key(2), 40_000)
    assert value - SIGMAS * error > 0.02
    assert value + SIGMAS * error < 0.05
    assert abs(value - 0.0334) < SIGMAS * error + 0.0002  # the docstring's figure


@pytest.mark.parametrize("name", ["course_2d", "course_3d"])
def test_fixed_counts_of_the_course_are_350_and_150_in_order(name):
    x, labels = problems.load(name).sample(jax.random.key(0))
    assert x.dtype == np.float64
    assert len(x) == 500
    np.testing.assert_array_equal(labels, np.repeat([0, 1], [350, 150]))


def test_random_truths_are_the_same_everywhere():
    """The stream of RandomState is frozen; if these numbers change, results on record lose their problem."""
    np.testing.assert_allclose(
        problems.load("many_components").truth.weights[:2], [0.05316249793207912, 0.0682877031842665], rtol=1e-12
    )
    np.testing.assert_allclose(
        problems.load("fifty_dimensional").truth.means[2, -2:], [-0.5084140454976925, 0.001746325780089234], rtol=1e-12
    )


@pytest.mark.parametrize("name", problems.names())
def test_every_problem_is_complete_and_its_truth_valid(name):
    problem = problems.load(name)
    truth, spec = problem.truth, problem.spec
    validate(truth, name=name)
    assert problem.name == name
    assert problem.description.endswith(".")
    assert problem.n_samples > 0
    assert problem.difficulty.split(":")[0] in ("easy", "moderate", "hard")
    assert all(isinstance(leaf, np.ndarray) and leaf.dtype == np.float64 for leaf in jax.tree.leaves(truth))
    assert (spec.n_components, spec.covariance_type) == (truth.n_components, truth.covariance_type)
    assert jax.tree.leaves(spec) == []  # the free one
    again = jax.tree.leaves(problems.load(name).truth)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(truth), again, strict=True))


@pytest.mark.parametrize("name", ["course_2d", "shared_covariance", "axis_aligned", "round_clusters"])
@pytest.mark.parametrize("counts", ["fixed", "multinomial"])
def test_one_batch_has_the_frequencies_and_the_moments_of_the_truth(name, counts):
    problem = problems.load(name)
    n = 3000
    x, labels = problem.sample(jax.random.key(11), n, counts)
    weights = problem.truth.weights
    frequencies = np.bincount(labels, minlength=len(weights)) / n
    assert np.all(np.abs(frequencies - weights) < SIGMAS * np.sqrt(weights * (1.0 - weights) / n))
    for k, (mean, covariance) in enumerate(zip(problem.truth.means, dense(problem.truth), strict=True)):
        assert_moments_agree(x[labels == k], mean, covariance)


@pytest.mark.parametrize("name", ["far_offset", "tiny_scale", "mixed_units", "tight_inside_broad"])
@pytest.mark.parametrize("x64", [True, False])
def test_extreme_truths_are_sampled_faithfully_with_and_without_x64(name, x64):
    problem = problems.load(name)
    with jax.enable_x64(x64):
        x, labels = problem.sample(jax.random.key(12))
    assert x.dtype == np.float64
    for k, (mean, covariance) in enumerate(zip(problem.truth.means, problem.truth.covariances, strict=True)):
        assert_moments_agree(x[labels == k], mean, covariance)


def test_multinomial_counts_vary_and_fixed_ones_do_not():
    problem = problems.load("course_2d")
    keys = jax.random.split(jax.random.key(4), 12)
    count = {"fixed": set(), "multinomial": set()}
    for how, seen in count.items():
        seen.update(int(np.sum(problem.sample(key, 200, how)[1] == 0)) for key in keys)
    assert count["fixed"] == {140}
    assert len(count["multinomial"]) > 3
    labels = problem.sample(keys[0], 200, "multinomial")[1]
    assert np.any(np.diff(labels) < 0)  # labels are drawn row by row, in no order


@pytest.mark.parametrize("counts", ["fixed", "multinomial"])
def test_same_key_same_data_and_another_key_other_data(counts):
    problem = problems.load("course_3d")
    (x, labels), (y, same), (z, _) = (problem.sample(jax.random.key(seed), 50, counts) for seed in (1, 1, 2))
    assert np.array_equal(x, y)
    assert np.array_equal(labels, same)
    assert not np.array_equal(x, z)


def test_multinomial_data_are_those_of_the_mixture():
    problem = problems.load("course_2d")
    x, labels = problem.sample(jax.random.key(6), 40, "multinomial")
    y, expected = sample(jax.random.key(6), problem.truth, 40)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(x, y, rtol=0.0, atol=1e-12)


def test_bayes_error_does_not_depend_on_units_or_order():
    key = jax.random.key(8)
    problem = problems.load("course_2d")
    value, error = problem.bayes_error(key, 5000)
    np.testing.assert_allclose(problems.load("far_offset").bayes_error(key, 5000)[0], value, rtol=1e-6)
    swapped = permute(problem.truth, np.array([1, 0]))
    other = suite.Problem("", "", swapped, MixtureSpec(2), 1, "").bayes_error(key, 5000)
    assert abs(other[0] - value) < SIGMAS * np.hypot(error, other[1])


@pytest.mark.parametrize("name", problems.names())
def test_knowing_whole_fields_fills_known_from_the_truth(name):
    problem = problems.load(name)
    spec = validate_spec(problem.knowing("weights", "covariances"), problem.truth.n_features)
    np.testing.assert_array_equal(spec.known.weights, problem.truth.weights)
    np.testing.assert_array_equal(spec.known.covariances, problem.truth.covariances)
    assert spec.known.means is None
    assert problem.spec.known.weights is None


@pytest.mark.parametrize("name", ["course_3d", "axis_aligned", "round_clusters"])
def test_knowing_one_component_leaves_the_rows_of_others_nan(name):
    problem = problems.load(name)
    spec = problem.knowing("weights", "means", "covariances", components=(1,))
    validate_spec(spec, problem.truth.n_features)
    for field in suite.FIELDS:
        known, leaf = getattr(spec.known, field), getattr(problem.truth, field)
        np.testing.assert_array_equal(known[1], leaf[1])
        assert np.all(np.isnan(np.delete(known, 1, axis=0)))
    assert not np.isnan(problem.truth.means).any()


def test_what_cannot_be_known_is_said():
    problem = problems.load("course_2d")
    with pytest.raises(ValueError, match="knowing takes any of weights, means, covariances; got 'sigma'"):
        problem.knowing("sigma")
    for bad in ((2,), 1.5, (True, False)):
        with pytest.raises(ValueError, match="components must list numbers from 0 to 1; got"):
            problem.knowing("means", components=bad)
    with pytest.raises(ValueError, match="tied covariances are known whole or not at all"):
        problems.load("shared_covariance").knowing("covariances", components=(0,))


def test_bad_arguments_are_named():
    problem = problems.load("course_2d")
    key = jax.random.key(0)
    for n in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=rf"n must be a positive integer; got {n}"):
            problem.sample(key, n)
    with pytest.raises(ValueError, match="counts must be 'fixed' or 'multinomial'; got 'random'"):
        problem.sample(key, counts="random")
    with pytest.raises(ValueError, match="n_draws must be a positive integer; got 0"):
        problem.bayes_error(key, 0)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"got 'course2d': try course_2d"):
        problems.load("course2d")
    with pytest.raises(ValueError, match=r"got 'zzz': try course_2d, course_3d, "):
        problems.load("zzz")
    with pytest.raises(ValueError, match=r"got 'load'"):
        problems.load("load")


def test_a_new_problem_is_one_function(monkeypatch):
    monkeypatch.setattr(suite, "_PROBLEMS", dict(suite._PROBLEMS))
    assert "my_problem" not in problems.names()

    @suite.problem(10, "easy: three samples.")
    def my_problem():
        """A problem of my own."""
        return problems.load("course_2d").truth

    found = problems.load("my_problem")
    assert (found.name, found.description, found.n_samples) == ("my_problem", "A problem of my own.", 10)
    assert "my_problem" in problems.names()


def test_loading_touches_no_device():
    with jax.transfer_guard("disallow_explicit"):  # an eager jax.numpy operation on NumPy leaves would raise
        for name in problems.names():
            problems.load(name).knowing("weights", "means", "covariances")


# --- real data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", datasets.names())
def test_every_data_set_matches_its_record(name):
    record = datasets.describe(name)
    x, labels = datasets.load(name)
    assert x.shape == (record.n_samples, len(record.columns))
    assert x.dtype == np.float64
    assert np.all(np.isfinite(x))
    assert record.source
    assert record.variant
    assert record.units
    assert len(record.sha256) == 64
    header = datasets._read(f"{name}.csv").decode().splitlines()[0].split(",")
    assert header[: len(record.columns)] == list(record.columns)
    assert (labels is None) == (record.classes == ())


def test_iris_has_fifty_flowers_of_each_kind_in_r_variant():
    x, labels = datasets.load("iris")
    np.testing.assert_array_equal(np.bincount(labels), [50, 50, 50])
    np.testing.assert_allclose(x.mean(axis=0), [5.843333, 3.057333, 3.758, 1.199333], atol=1e-6)  # R's summary(iris)
    np.testing.assert_array_equal(x[[34, 37]], [[4.9, 3.1, 1.5, 0.2], [4.9, 3.6, 1.4, 0.1]])


def test_the_two_galaxies_differ_by_one_transposed_number():
    mass, roeder = (datasets.load(f"galaxies_{variant}")[0].ravel() for variant in ("mass", "roeder"))
    assert set(mass) - set(roeder) == {26690.0}
    assert set(roeder) - set(mass) == {26960.0}
    with pytest.raises(ValueError, match=r"two variants .* 'galaxies_mass' .* 'galaxies_roeder'"):
        datasets.load("galaxies")


def test_a_changed_file_is_not_loaded(monkeypatch):
    content = datasets._read("acidity.csv")
    monkeypatch.setattr(datasets, "_read", lambda name: content.replace(b"2.928524", b"2.928525"))
    with pytest.raises(ValueError, match=r"acidity.csv has SHA-256 .* restore the file"):
        datasets.load("acidity")


def test_an_unknown_data_set_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"got 'Iris': try iris"):
        datasets.load("Iris")


def test_problems_import_only_mixture():
    for module in (generators, suite, datasets):
        imported = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.ImportFrom)]
        assert {node.module.partition(".")[0] for node in imported if node.level == 2} <= {"mixture"}
        assert {node.module for node in imported if node.level == 1} <= {"generators"}
