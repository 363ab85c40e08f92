"""The sum taken over a stream: the answer of fit_em, however the rows are cut, interrupted or resumed."""

import subprocess
import sys
import time
from dataclasses import replace

import jax
import numpy as np
import pytest
from test_m_step import make_known

from conftest import TYPES, assert_trees_close, random_gmm
from gmm_jax import MixtureSpec, Status
from gmm_jax.em import EMConfig, Interrupted, fit_em, fit_em_restarts
from gmm_jax.em.inputs import outward
from gmm_jax.em.sums import sums_of
from gmm_jax.mixture import Known, e_step, standardise, structure
from gmm_jax.mixture.files import read_checkpoint, write_checkpoint
from gmm_jax.mixture.sources import open_stream
from gmm_jax.mixture.summary import sampled_rows

FIFTY = EMConfig(max_iter=50, tol=0.0, reg_covar=0.0)  # without a ridge the last iterate is the best
SLOW = pytest.mark.slow
KEY = jax.random.key(0)
FULL_FIRST = ["full", *(pytest.param(kind, marks=SLOW) for kind in TYPES if kind != "full")]


def in_blocks(x, size=7, weight=None):
    """A stream of blocks of `size` rows."""

    def blocks():
        for i in range(0, len(x), size):
            part = slice(i, i + size)
            yield x[part] if weight is None else (x[part], weight[part])

    return blocks


def in_memory(x, init, spec, config, weight=None):
    """What fit_em makes of the same data, standardised as entry points do."""
    z, scaling = standardise(x, spec, weight)
    config = replace(config, reg_covar=scaling.ridge_inward(config.reg_covar))
    known = scaling.known_inward(spec)
    result = fit_em(z, scaling.inward(init), known=known, sample_weight=weight, config=config)
    n_samples = len(x) if weight is None else weight.sum()
    return outward(jax.tree.map(np.asarray, result), spec, scaling, n_samples * scaling.log_volume)


def run(x, init, spec=None, *, block_rows=13, weight=None, **options):
    """The streamed fit from `init`."""
    spec = spec or MixtureSpec(3, init.covariance_type)
    return fit_em_restarts(KEY, in_blocks(x, weight=weight), spec, init=init, block_rows=block_rows, **options)


# ---- the same answer


@pytest.mark.parametrize("kind", FULL_FIRST)
def test_fifty_iterations_are_those_in_memory(kind, x):
    init, spec = random_gmm(5, 3, 2, kind), MixtureSpec(3, kind)
    expected = in_memory(x, init, spec, FIFTY)
    assert_trees_close(run(x, init, config=FIFTY).best, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", FULL_FIRST)
def test_with_a_tolerance_it_stops_where_it_stops_in_memory(kind, x):
    init, config = random_gmm(5, 3, 2, kind), EMConfig(max_iter=50, tol=1e-4)
    expected, found = in_memory(x, init, MixtureSpec(3, kind), config), run(x, init, config=config).best
    assert found.status == expected.status == Status.CONVERGED
    assert abs(found.n_iter - expected.n_iter) <= 1
    assert abs(found.log_likelihood - expected.log_likelihood) <= 1e-4 * len(x)


def test_weights_and_known_parts_are_those_in_memory(x):
    init = random_gmm(5, 3, 2, "full")
    spec = MixtureSpec(3, known=Known(**make_known(random_gmm(0, 3, 2, "full"), ("one", "one", "free"))))
    weight = np.random.default_rng(0).integers(0, 3, len(x)).astype(float)
    kept = weight > 0
    expected = in_memory(x[kept], init, spec, FIFTY, weight[kept])
    assert_trees_close(run(x, init, spec, weight=weight, config=FIFTY).best, expected, rtol=1e-10, atol=1e-12)


@SLOW
@pytest.mark.parametrize("stop", ["aitken", "gradient"])
def test_accelerated_steps_are_those_in_memory(stop, x):
    init, spec = random_gmm(5, 3, 2, "full"), MixtureSpec(3)
    config = EMConfig(max_iter=50, tol=1e-9, acceleration="lbfgs", stop=stop)
    expected, found = in_memory(x, init, spec, config), run(x, init, config=config).best
    assert found.status == expected.status
    assert abs(found.n_iter - expected.n_iter) <= 1
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-12)


@SLOW
def test_a_component_that_becomes_narrow_is_summed_exactly_from_there_on(x):
    """Thirty rows drawn together by 1e-3: statistics would lose digits."""
    close = np.concatenate([x, 3.0 + 1e-3 * x[:30]])
    init = fit_em_restarts(KEY, close, MixtureSpec(2), n_restarts=1, config=EMConfig(max_iter=0)).best.gmm
    config = EMConfig(max_iter=60, tol=0.0, reg_covar=0.0)
    expected = in_memory(close, init, MixtureSpec(2), config)
    found = run(close, init, MixtureSpec(2), config=config).best
    assert found.status == expected.status
    np.testing.assert_allclose(found.trace, expected.trace, rtol=1e-9)


@SLOW
@pytest.mark.parametrize("wide", [True, False], ids=["x64", "x64 off"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_in_is_dtype_out_and_the_thread_that_loads_knows_it(dtype, wide, x):
    init, config = random_gmm(5, 3, 2, "full"), EMConfig(max_iter=20, tol=0.0)
    with jax.enable_x64(wide):
        expected = in_memory(x.astype(dtype), init, SPEC, config)
        found = run(x.astype(dtype), init, config=config).best
    assert found.gmm.means.dtype == found.log_likelihood.dtype == dtype
    close = 1e-10 if wide and dtype == np.float64 else 1e-3
    assert_trees_close(found.gmm, expected.gmm, rtol=close, atol=close)


@SLOW
def test_a_search_on_the_sample_ends_at_the_best_optimum_of_all_rows(x):
    best = fit_em_restarts(KEY, x, MixtureSpec(3), n_restarts=10).best
    found = fit_em_restarts(KEY, in_blocks(x), MixtureSpec(3), n_restarts=10, n_sample=50)
    assert found.fits.status.shape == (1,)
    assert found.search.fits.status.shape == (10,)
    np.testing.assert_allclose(found.best.log_likelihood, best.log_likelihood, atol=1e-5)


# ---- sums in float64


@pytest.mark.parametrize("n", [100_000, pytest.param(100_000_000, marks=SLOW)])
def test_sums_over_float32_rows_are_within_1e_6_of_those_in_float64(n):
    """Relative to the sums of absolute values, which is what rounding is relative to."""
    gmm = random_gmm(5, 3, 2, "full", dtype=np.float32)
    rows = np.random.default_rng(0).standard_normal((n, 2), np.float32)
    stream = open_stream(in_blocks(rows, 50_000), 3, 0, 10)
    ((single,),) = sums_of(stream, unit_scaling(np.float32)).moments([(gmm, whitener_of(gmm), "exact")])
    wide = jax.tree.map(np.float64, gmm)
    ((double,),) = sums_of(stream, unit_scaling(np.float64)).moments([(wide, whitener_of(wide), "exact")])
    reach = np.abs(rows).max() + np.abs(gmm.means).max()
    for name, size in (("mass", 1.0), ("first", reach), ("second", reach**2), ("log_likelihood", None)):
        a, b = getattr(single, name), getattr(double, name)
        scale = np.abs(b) if size is None else double.mass.reshape(3, *[1] * (b.ndim - 1)) * size
        assert np.max(np.abs(a - b) / scale) <= 1e-6, name


SPEC = MixtureSpec(3)


def unit_scaling(dtype):
    """Data as they are, in this dtype."""
    return standardise(np.array([[-1.0, -1.0], [1.0, 1.0]], dtype), SPEC)[1]


def whitener_of(gmm):
    return np.asarray(structure("full").whitener(gmm.covariances))


def test_sums_do_not_depend_on_the_cut(x):
    gmm = random_gmm(5, 3, 2, "full")
    expected = e_step(gmm, standardise(x, SPEC)[0])
    for size, block_rows in ((7, 13), (60, 13), (1, 60)):
        stream = open_stream(in_blocks(x, size), 3, 0, 10)
        sums = sums_of(stream, stream.summary.scaling(SPEC, x.dtype), block_rows)
        ((found,),) = sums.moments([(gmm, whitener_of(gmm), "exact")])
        assert_trees_close(found, expected, rtol=1e-11, atol=1e-11)


# ---- the summary


@pytest.mark.parametrize("size", [1, 7, 60])
def test_a_summary_standardises_as_an_array_is(size, x):
    far = np.column_stack([x * [1e-3, 1e5] + [1e6, -1e8], np.full(60, 0.1)])
    weight = np.random.default_rng(0).integers(1, 4, 60).astype(float)
    for weights in (None, weight):
        z, expected = standardise(far, SPEC, weights)
        summary = open_stream(in_blocks(far, size, weights), 3, 0, 10).summary
        found = summary.scaling(SPEC, far.dtype)
        covariance = np.cov(z.T, bias=True, aweights=weights)
        np.testing.assert_allclose(summary.covariance(found), covariance, rtol=1e-9, atol=1e-9)
        assert found.constant == expected.constant == (2,)
        np.testing.assert_allclose(found.centre, expected.centre, rtol=1e-14)
        np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-10)


def test_the_sample_is_uniform_and_in_order():
    """Each of 40 rows is in a sample of 10 with probability 1/4: 5 standard errors over 500 samples."""
    rows = np.arange(40.0)[:, None]
    counts = np.zeros(40)
    for seed in range(500):
        sample = open_stream(in_blocks(rows, 9), 1, seed, 20).sample(10)[0][:, 0]
        np.testing.assert_array_equal(sample, sampled_rows(seed, 40, 10))
        assert sample.shape == (10,)
        assert np.all(np.diff(sample) > 0)
        counts[sample.astype(int)] += 1
    assert np.all(np.abs(counts / 500 - 0.25) <= 5 * np.sqrt(0.25 * 0.75 / 500))


def test_a_sample_as_large_as_the_data_is_the_data(x):
    np.testing.assert_array_equal(open_stream(in_blocks(x), 3, 0, 60).sample(60)[0], x)


def test_a_checksum_knows_rows_and_weights_but_not_the_cut(x):
    def checksum(rows, weight, size):
        return open_stream(in_blocks(rows, size, weight), 3, 0, 5).checksum

    weight = np.arange(1.0, 61.0)
    for weights in (None, weight):
        assert checksum(x, weights, 7) == checksum(x, weights, 60)
    others = [checksum(x[::-1], None, 7), checksum(x, None, 7), checksum(x, weight, 7), checksum(x, weight[::-1], 7)]
    assert len(set(others)) == 4


def spoiled(x, change):
    """Blocks of 20 rows, the second of them changed."""
    parts = [x[:20].copy(), x[20:40].copy(), x[40:].copy()]
    parts[1] = change(parts[1])
    return lambda: iter(parts)


def with_nan(part):
    part[3, 1] = np.nan
    return part


BAD = {
    "NaN": (with_nan, r"block 1 must be finite; the first value that is not is nan at row 3, column 1"),
    "columns": (lambda part: part[:, :1], r"block 1 has 1 columns of float64, .* came before has 2 columns"),
    "dtype": (lambda part: part.astype(np.float32), r"block 1 has 2 columns of float32, .* of float64"),
    "weights": (lambda part: (part, np.ones(20)), r"block 1 .* with weights, but .* without weights"),
    "a vector": (lambda part: part[:, 0], r"block 1 must be two-dimensional"),
    "words": (lambda part: part.astype(str), r"block 1 must hold real numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_block_is_named(case, x):
    change, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence):
        fit_em_restarts(KEY, spoiled(x, change), SPEC)


@pytest.mark.parametrize("n_second", [0, 40, 80])
def test_rows_that_come_or_go_between_passes_are_an_error(n_second, x):
    lengths = iter([60, n_second])

    def blocks():
        return in_blocks(np.resize(x, (next(lengths), 2)))()

    with pytest.raises(ValueError, match=r"in this pass where the first pass had 60"):
        fit_em_restarts(KEY, blocks, SPEC, init=random_gmm(5, 3, 2, "full"), block_rows=13)


def test_what_is_no_stream_is_refused_with_a_remedy(x):
    with pytest.raises(ValueError, match=r"sample_weight cannot be given beside blocks: yield pairs"):
        fit_em_restarts(KEY, in_blocks(x), SPEC, sample_weight=np.ones(len(x)))
    with pytest.raises(ValueError, match=r"missing='marginalise' is for rows in memory"):
        fit_em_restarts(KEY, in_blocks(x), SPEC, missing="marginalise")
    with pytest.raises(ValueError, match="yields no rows"):
        fit_em_restarts(KEY, list, SPEC)
    with pytest.raises(ValueError, match="fewer than n_components=3"):
        fit_em_restarts(KEY, in_blocks(x[:2]), SPEC)
    with pytest.raises(ValueError, match="n_sample must be an integer of at least 3; got 2"):
        fit_em_restarts(KEY, in_blocks(x), SPEC, n_sample=2)
    with pytest.raises(ValueError, match="block_rows must be a positive integer; got -1"):
        fit_em_restarts(KEY, in_blocks(x), SPEC, block_rows=-1)


# ---- interrupted and resumed


def stop_after(n):
    calls = []

    def progress(done, n_fits, best):
        calls.append(best)
        if len(calls) == n:
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def look_after_each(monkeypatch):
    """The driver looks after every iteration."""
    monkeypatch.setattr("gmm_jax.em.sums.SECONDS_BETWEEN_LOOKS", 0.0)


@pytest.mark.usefixtures("look_after_each")
def test_a_resumed_fit_is_the_uninterrupted_one_to_the_last_bit(x, tmp_path):
    init, file = random_gmm(5, 3, 2, "full"), tmp_path / "fit.npz"
    whole = run(x, init, config=FIFTY).best
    with pytest.raises(Interrupted) as caught:
        run(x, init, config=FIFTY, checkpoint=file, progress=stop_after(21))
    last = caught.value.restarts.best
    assert last.status == Status.RUNNING
    assert 19 <= last.n_iter <= 20  # one pass may have served to change to exact sums
    np.testing.assert_array_equal(last.trace[: last.n_iter + 1], whole.trace[: last.n_iter + 1])
    resumed = run(x, init, config=FIFTY, checkpoint=file, resume=True).best
    assert_trees_close(resumed, whole, rtol=0, atol=0)
    # nothing is left to do, and blocks may be cut in another way
    again = fit_em_restarts(KEY, in_blocks(x, 60), SPEC, init=init, config=FIFTY, checkpoint=file, resume=True).best
    assert_trees_close(again, whole, rtol=1e-12, atol=1e-12)


def test_a_fit_goes_on_where_it_is_allowed_more_iterations(x, tmp_path):
    init, file = random_gmm(5, 3, 2, "full"), tmp_path / "fit.npz"
    assert run(x, init, config=replace(FIFTY, max_iter=20), checkpoint=file).best.n_iter == 20
    resumed = run(x, init, config=FIFTY, checkpoint=file, resume=True).best
    assert_trees_close(resumed, run(x, init, config=FIFTY).best, rtol=0, atol=0)


def test_a_checkpoint_of_another_fit_is_refused(x, tmp_path):
    init, file = random_gmm(5, 3, 2, "full"), tmp_path / "fit.npz"
    run(x, init, config=FIFTY, checkpoint=file)
    with pytest.raises(ValueError, match="is there already: resume from it"):
        run(x, init, config=FIFTY, checkpoint=file)
    resume = {"checkpoint": file, "resume": True}
    with pytest.raises(ValueError, match="belongs to another fit, whose data were different"):
        run(x + 1e-12, init, config=FIFTY, **resume)
    with pytest.raises(ValueError, match="whose spec or options were different"):
        run(x, init, config=EMConfig(max_iter=50, tol=1e-3), **resume)
    with pytest.raises(ValueError, match="whose spec or options and starts were different"):
        run(x, random_gmm(5, 3, 2, "diag"), config=FIFTY, **resume)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is no whole checkpoint"):
        run(x, init, config=FIFTY, **resume)
    file.unlink()
    with pytest.raises(ValueError, match="there is no checkpoint"):
        run(x, init, config=FIFTY, **resume)


@pytest.mark.usefixtures("look_after_each")
def test_checkpoints_are_written_while_the_fit_runs(x, tmp_path, monkeypatch):
    monkeypatch.setattr("gmm_jax.mixture.files.SECONDS_BETWEEN", 0.0)
    seen, file = [], tmp_path / "fit.npz"
    there = lambda *_: seen.append(file.exists())  # noqa: E731
    run(x, random_gmm(5, 3, 2, "full"), config=FIFTY, checkpoint=file, progress=there)
    assert len(seen) >= 50
    assert all(seen)


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    """Killed between any two steps of the writing: what lies there is whole."""
    file, tree = tmp_path / "fit.npz", (np.arange(3.0), np.int32(1))
    write_checkpoint(file, tree, {"data": "a"})
    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"os.{step}", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
            with pytest.raises(OSError, match=r"disk full: .*fit\.npz"):
                write_checkpoint(file, (np.zeros(3), np.int32(2)), {"data": "a"})
        assert_trees_close(read_checkpoint(file, tree, {"data": "a"}), tree, rtol=0, atol=0)
        assert [path.name for path in tmp_path.iterdir()] == ["fit.npz"]


WRITER = """
import sys
import numpy as np
from gmm_jax.mixture.files import write_checkpoint
for i in range(100_000):
    write_checkpoint(sys.argv[1], (np.full(1_000_000, float(i)), np.int32(i)), {"data": "a"})
    print(i, flush=True)
"""


@SLOW
def test_a_checkpoint_is_whole_after_kill_9_while_it_is_written(tmp_path):
    """Eight megabytes again and again, killed at some moment: the last one that was finished, or one more, is there."""
    file = tmp_path / "fit.npz"
    for wait in (0.0, 0.007, 0.02):
        with subprocess.Popen([sys.executable, "-c", WRITER, file], stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(3):
                writer.stdout.readline()
            time.sleep(wait)
            writer.kill()
            last = [2, *map(int, writer.stdout.read().split())][-1]
        numbers, i = read_checkpoint(file, (0.0, 0), {"data": "a"})
        assert last <= i <= last + 1
        assert np.all(numbers == i)


def test_what_a_killed_writer_left_goes_with_the_next_run(x, tmp_path):
    """Its own alone: temporary files of other checkpoints stay."""
    file, other = tmp_path / "fit.npz", tmp_path / ".other.npz.0a1b2c3d4e5f.tmp"
    leftovers = [tmp_path / f".fit.npz.{name}.tmp" for name in ("0a1b2c3d4e5f", "ffffffffffff")]
    for left in (*leftovers, other):
        left.write_bytes(b"half")
    run(x, random_gmm(5, 3, 2, "full"), config=FIFTY, checkpoint=file)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "fit.npz"]
    leftovers[0].write_bytes(b"half")
    run(x, random_gmm(5, 3, 2, "full"), config=FIFTY, checkpoint=file, resume=True)
    assert not leftovers[0].exists()
