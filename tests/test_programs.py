"""No price for a new shape: rows that fill up change nothing, sizes share programs, and what is compiled is bounded."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Thread, current_thread, main_thread

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from conftest import EPS, TYPES, assert_trees_close, random_gmm
from gmm_jax import Known, MixtureSpec
from gmm_jax.bayes import gibbs
from gmm_jax.em import EMConfig, bootstrap, fit_em, fit_em_restarts, pool, standard_errors
from gmm_jax.em import inputs as inputs_of_em
from gmm_jax.em import sums as sums_of_em
from gmm_jax.estimators.gaussian import random_responsibilities
from gmm_jax.mixture import annotations, cores, e_step, programs
from gmm_jax.mixture.annotations import Annotations, missing_groups, pad, pad_annotations, padded_size
from gmm_jax.mixture.many_starts import draw_starts
from gmm_jax.mixture.moments import BLOCK_ROWS
from gmm_jax.mixture.starts import STARTS, kmeans, kmeans_plusplus

KEY, SPEC = jax.random.key(0), MixtureSpec(2)
N = 77  # not one of the sizes


@pytest.fixture(scope="module")
def x():
    """(153, 2): three groups that overlap."""
    return oracles.random_data(np.random.default_rng(1), 153, random_gmm(0, 3, 2, "full"))


@pytest.fixture
def without_padding(monkeypatch):
    """A switch: from its call on, every array has the rows that it is given."""

    def switch():
        for module in (annotations, inputs_of_em, sums_of_em):
            monkeypatch.setattr(module, "padded_size", lambda n, *_, **__: n)

    return switch


def test_sizes_are_few_and_at_most_a_fifth_larger():
    sizes = np.array([padded_size(n) for n in range(1, 20_000)])
    n = np.arange(1, 20_000)
    assert np.all(sizes >= n)
    assert np.all(sizes[n >= 32] <= 1.2 * n[n >= 32])
    assert np.unique(sizes[(n > 64) & (n <= 16_384)]).size == 4 * 8  # four to an octave


def test_sizes_of_quick_runs_are_fewer_and_compute_less_than_a_block_more():
    n = np.arange(33, 8193)
    sizes = np.array([padded_size(int(rows), quick=True) for rows in n])
    computed = np.where(sizes <= BLOCK_ROWS, sizes, -(-n // BLOCK_ROWS) * BLOCK_ROWS)  # empty blocks are not
    assert np.all(sizes >= n)
    assert np.all(computed - n < BLOCK_ROWS)
    assert np.unique(sizes).size == 3
    assert padded_size(8193, quick=True) == padded_size(8193)


@pytest.mark.parametrize("sums", ["fast", "exact"])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_that_fill_up_are_in_no_sum(x, covariance_type, sums):
    x, rng = x[:N], np.random.default_rng(1)
    gmm = random_gmm(3, 3, x.shape[1], covariance_type)
    annotated = {"sample_weight": rng.exponential(size=N), "labels": rng.integers(-1, 3, N), "uniforms": rng.random(N)}
    cases = [({}, None), (annotated, 20)] + ([({}, 20), (annotated, None)] if covariance_type == "full" else [])
    for rows, block_size in cases:
        taken = jax.jit(partial(e_step, sums=sums, block_size=block_size))
        filled = {name: pad(leaf, 96) for name, leaf in rows.items()}
        found = taken(gmm, pad(x, 96), **filled, n_rows=np.int32(N))
        assert_trees_close(found, taken(gmm, x, **rows), rtol=1e-11, atol=1e-11)


def test_numbers_of_rows_are_an_axis_like_any_other(x):
    gmm = random_gmm(3, 3, x.shape[1], "full")
    n_rows = np.array([5, 41], np.int32)
    filled = np.stack([pad(x[:n], 64) for n in n_rows])
    each = jax.jit(jax.vmap(lambda z, n: e_step(gmm, z, n_rows=n, sums="fast", block_size=16)))
    found = each(filled, n_rows)
    for i, n in enumerate(n_rows):
        expected = jax.jit(partial(e_step, sums="fast"))(gmm, x[:n])
        assert_trees_close(jax.tree.map(lambda leaf, i=i: leaf[i], found), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("start", [*STARTS.values(), random_responsibilities])
def test_starts_are_drawn_from_the_rows_that_are_there(x, start):
    x, known = x[:N] + 7.0, Known(means=np.array([x[0] + 7.0, np.full(x.shape[1], np.nan)]))
    for spec in (MixtureSpec(3, "diag"), MixtureSpec(2, known=known)):
        expected = jax.jit(start)(KEY, x, spec)
        found = jax.jit(start)(KEY, pad(x, 128), spec, np.int32(N))
        assert_trees_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("start", [kmeans, kmeans_plusplus])
@pytest.mark.parametrize("known", [Known(), Known(means=np.array([[1.0, 2.0], [np.nan, np.nan], [np.nan, np.nan]]))])
def test_starts_do_not_know_of_the_component_that_makes_their_number_even(x, start, known):
    spec = MixtureSpec(3, known=known)
    found = draw_starts(KEY, x, spec, start, 4)
    expected = jax.jit(lambda keys: jax.vmap(lambda key: start(key, jnp.asarray(x), spec))(keys))(
        jax.random.split(KEY, 4)
    )
    assert_trees_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("annotated", ["plain", "weights and labels", "gaps"])
def test_a_fit_and_its_errors_are_those_without_padding(x, annotated, without_padding):
    x, rng = x[:N].copy(), np.random.default_rng(0)
    rows = {
        "plain": {},
        "weights and labels": {"sample_weight": rng.integers(0, 3, N), "labels": rng.integers(-1, 2, N)},
        "gaps": {"missing": "marginalise"},
    }[annotated]
    if annotated == "gaps":
        x[::5, 0] = np.nan

    def everything():
        found = fit_em_restarts(KEY, x, SPEC, n_restarts=3, **rows)
        errors = [standard_errors(x, found, SPEC, method=m, **rows) for m in ("observed", "sandwich")]
        resampled = bootstrap(KEY, x, found, SPEC, n_resamples=4, **rows).gmms
        return found.best.gmm, found.fits.log_likelihood, found.fits.n_iter, found.optima.count, errors, resampled

    padded = everything()
    without_padding()
    assert_trees_close(padded, everything(), rtol=1e-7, atol=1e-7)


def test_fit_em_is_that_of_the_rows_alone(x, without_padding):
    start, weight = random_gmm(3, 2, x.shape[1], "full"), np.arange(N) % 3
    config = EMConfig(max_iter=20)
    padded = fit_em(x[:N], start, sample_weight=weight, config=config)
    alone = jax.jit(lambda x: fit_em(x, start, sample_weight=weight, config=config))(x[:N])
    assert_trees_close(padded, alone, rtol=1e-9, atol=1e-9)


def compiled(name):
    """How many programs of that function there are."""
    return sum(key[1][0].__name__ == name for key in programs._programs)


def test_a_loop_over_numbers_of_components_draws_the_starts_of_many_data_sets_by_one_program(x):
    options = {"n_restarts": 3, "config": EMConfig(max_iter=38)}  # as no other test has
    before = compiled("_draw_for_each")
    for n_components in (1, 2, 3):
        alone, shared = (
            fit_em_restarts(KEY, [x[:60], x[60:]], MixtureSpec(n_components), programs_for=most, **options)
            for most in (0, 3)
        )
        for p in range(2):
            assert_trees_close(shared[p].starts, alone[p].starts, rtol=1e-12, atol=1e-12)
    assert compiled("_draw_for_each") == before + 3 + 1


def test_sizes_numbers_of_components_and_weights_share_programs(x):
    options = {"n_restarts": 3, "config": EMConfig(max_iter=37)}  # as no other test has
    functions = "_draw_of", "_advance"
    before = [compiled(name) for name in functions]
    for n in (98, 105, 112, 128, 129, 150):
        for n_components in (1, 2):
            fit_em_restarts(KEY, x[:n], MixtureSpec(n_components), init="kmeans", **options)
    assert [compiled(name) for name in functions] == [n + 1 for n in before]
    x = x[:128]
    for seed in range(3):
        weight = np.random.default_rng(seed).permutation(len(x)) < 125 - seed
        weighted = fit_em_restarts(KEY, x, SPEC, sample_weight=weight.astype(float), **options)
        if not seed:
            with_weights = compiled("_advance")
    assert compiled("_advance") == with_weights
    alone = fit_em_restarts(KEY, x[weight], SPEC, **options)
    assert_trees_close(weighted.best, alone.best, rtol=1e-9, atol=1e-9)


def test_data_sets_of_many_sizes_come_back_in_their_order(x):
    x = np.concatenate([x + 0.01 * i for i in range(4)])
    sizes = [100, 33, 600, 31]
    sets, keys = [x[:n] for n in sizes], jax.random.split(KEY, len(sizes))
    calls = []
    options = {"n_restarts": 3, "progress": lambda *now: calls.append(now[:2])}
    found = fit_em_restarts(keys, sets, SPEC, **options)
    backwards = fit_em_restarts(keys[::-1], sets[::-1], SPEC, n_restarts=3)
    alone = fit_em_restarts(keys[3], sets[3], SPEC, n_restarts=3)
    assert calls[-1] == (12, 12)
    assert len({padded_size(n, quick=True) for n in sizes}) == 2
    np.testing.assert_allclose(found.log_likelihood, backwards.log_likelihood[::-1], rtol=1e-9)
    np.testing.assert_allclose(found.log_likelihood[3], alone.fits.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(found[3].best.gmm.means, found.best.gmm.means[3], rtol=0.0)
    for p, n in enumerate(sizes):
        best = jax.tree.map(lambda leaf, p=p: leaf[p], found.best)
        value = oracles.log_likelihood((best.gmm.weights, best.gmm.means, best.gmm.covariances, "full"), x[:n])
        np.testing.assert_allclose(best.log_likelihood, value, rtol=64 * EPS * n)


def test_programs_are_let_go_before_there_is_no_room(x, monkeypatch):
    if not programs.n_maps():
        pytest.skip("the system does not tell how many maps of memory a process has")
    first = fit_em_restarts(KEY, x, SPEC, n_restarts=2)
    monkeypatch.setattr(programs, "most_maps", lambda: 1)
    programs._compiled[0] = programs.BETWEEN_LOOKS - 1
    programs.make_room()
    assert programs._programs  # no look: too few were compiled
    before = programs.n_maps()
    programs._compiled[0] = programs.BETWEEN_LOOKS
    programs.make_room()
    assert not programs._programs
    assert programs.n_maps() < before
    assert_trees_close(fit_em_restarts(KEY, x, SPEC, n_restarts=2).best, first.best, rtol=0.0, atol=0.0)


def test_options_that_the_compiler_does_not_know_are_left_out():
    known = {"xla_cpu_prefer_vector_width": 512}
    assert programs.as_far_as_known(known | {"xla_cpu_no_such_option": 1}) == known
    double = programs.jit(lambda x: 2.0 * x, compiler_options=known | {"xla_cpu_no_such_option": 1})
    assert double(jnp.ones(())) == 2.0


def test_what_another_thread_compiles_is_waited_for_and_what_fails_is_not_kept():
    begun, go_on, built = Event(), Event(), []

    @programs.kept
    def build(name, fails):
        built.append(name)
        begun.set()
        go_on.wait(60.0)
        if fails:
            raise ValueError(f"no {name}")
        return object()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(build, "program", False)
        begun.wait(60.0)
        second = threads.submit(build, "program", False)
        go_on.set()
        assert first.result() is second.result()
    assert built == ["program"]
    for _ in range(2):
        with pytest.raises(ValueError, match="no other"):
            build("other", True)
    assert built == ["program", "other", "other"]


def test_the_longest_compilation_goes_on_beside_the_drawing_of_starts(x, monkeypatch):
    compiled, fits = [], {}
    build = programs.found_or

    def found_or(program, given, function, *what):
        compiled.append((function.__name__, current_thread() is main_thread()))
        return build(program, given, function, *what)

    def at_once(function):
        thread = Thread(target=cores._in_this_context(function))
        thread.start()
        thread.join()

    monkeypatch.setattr(cores, "found_or", found_or)
    monkeypatch.setattr(pool, "on_another_core", at_once)
    for n_cores in (1, 2):
        monkeypatch.setattr(pool, "n_workers", lambda n_cores=n_cores: n_cores)
        programs._programs.clear()
        fits[n_cores] = [fit_em_restarts(KEY, x, SPEC, n_restarts=7, init="kmeans") for _ in range(2)]
    assert [name for name, in_main in compiled if not in_main] == ["_advance"]
    assert compiled.count(("_advance", True)) == 1  # with one core
    for found in (fits[1][1], *fits[2]):
        assert_trees_close(found.fits, fits[1][0].fits, rtol=0.0, atol=0.0)


@pytest.mark.slow
def test_five_thousand_shapes_in_one_process():
    rng, sizes = np.random.default_rng(0), set()
    while len(sizes) < 5_000:
        sizes.add((int(rng.integers(20, 3_000)), int(rng.integers(1, 6)), int(rng.integers(1, 5))))
    for i, (n, d, k) in enumerate(sorted(sizes)):
        x = rng.normal(size=(n, d))
        found = fit_em_restarts(jax.random.key(i), x, MixtureSpec(k), n_restarts=2, config=EMConfig(max_iter=5))
        if i % 10 == 0:
            fit_em(x, found.best.gmm, config=EMConfig(max_iter=5))
        if i % 100 == 0:
            gibbs(KEY, x, MixtureSpec(k), n_chains=1, n_warmup=0, n_draws=1)
        assert programs.n_maps() < 2 * programs.most_maps()


def test_groups_of_gaps_are_filled_up_to_few_numbers(x):
    z = x[:N].copy()
    z[::5, 0] = z[1::7, 1] = np.nan
    filled, groups = missing_groups(z, "marginalise")
    rows = pad_annotations(Annotations(groups=groups), N, 96)
    gmm = random_gmm(3, 2, x.shape[1], "full")
    taken = jax.jit(e_step)
    expected = taken(gmm, filled, groups=groups)
    found = taken(gmm, pad(filled, 96), groups=rows.groups, n_rows=rows.n_rows)
    assert_trees_close(found, expected, rtol=1e-11, atol=1e-11)
    assert len(rows.groups.rows) == padded_size(len(groups.rows), annotations.GROUP_SIZES)


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("known", [False, True])
def test_components_that_stay_empty_change_nothing(x, covariance_type, known):
    parts = Known(means=np.array([x[0], [np.nan, np.nan]])) if known else Known()
    spec, options = MixtureSpec(2, covariance_type, parts), {"n_restarts": 3, "config": EMConfig(max_iter=30)}
    alone = fit_em_restarts(KEY, x, spec, **options)
    among = fit_em_restarts(KEY, x, spec, programs_for=4, **options)
    assert_trees_close(among.fits, alone.fits, rtol=1e-9, atol=1e-9)
    assert_trees_close(among.best, alone.best, rtol=1e-9, atol=1e-9)


def test_data_sets_and_gaps_are_fitted_among_empty_components_too(x):
    gaps = x.copy()
    gaps[::7, 0] = np.nan
    some = {"n_restarts": 2, "config": EMConfig(max_iter=20)}
    for rows, options in ((gaps, some | {"missing": "marginalise"}), ([x[:70], x[:60]], some)):
        alone, among = (fit_em_restarts(KEY, rows, SPEC, programs_for=p, **options) for p in (0, 3))
        assert_trees_close(among.best, alone.best, rtol=1e-9, atol=1e-9)


def test_a_loop_over_numbers_of_components_compiles_once(x):
    def compiled():
        return sum(key[1][0].__name__ == "_advance" for key in programs._programs)

    before = compiled()
    for n_components in range(1, 6):
        options = {"n_restarts": 3, "config": EMConfig(max_iter=41)}  # as no other test has
        fit_em_restarts(KEY, x, MixtureSpec(n_components), programs_for=5, **options)
    assert compiled() - before <= 2  # fast sums, and exact ones where components are narrow


def test_a_component_without_samples_is_no_fault_where_others_make_its_covariance(x):
    parts = Known(np.array([np.nan, 0.0]), np.array([[np.nan, np.nan], [0.0, 0.0]]))
    found = fit_em_restarts(KEY, x, MixtureSpec(2, "tied", parts), n_restarts=2)
    one = fit_em_restarts(KEY, x, MixtureSpec(1, "tied"), n_restarts=1)
    assert_trees_close(found.best.gmm.covariances, one.best.gmm.covariances, rtol=1e-9, atol=1e-12)
    assert found.best.log_likelihood == pytest.approx(float(one.best.log_likelihood), rel=1e-9)
