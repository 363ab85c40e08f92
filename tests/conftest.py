"""What every test starts from: float64 on the CPU, a compilation cache, strict array code, one data set, all mixtures.

Our own array code is tested with rank promotion an error and dtype promotion strict; NumPyro and BlackJAX promote, so
the modules named in LENIENT are not.
"""

import gc
import os
import signal
from functools import wraps
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import numpy as np
import pytest

import oracles
from gmm_jax import GMM, Posterior, Status, permute, stored
from gmm_jax.mixture import programs
from gmm_jax.shell import compile_quickly

LENIENT = ("test_bayes", "test_bench", "test_cli", "test_experiments", "test_readme", "test_docs", "test_estimator")
LENIENT += ("test_choose", "test_modes", "test_summary")
TYPES = ("full", "tied", "diag", "spherical")
EPS = np.finfo(np.float64).eps
MOST_MAPS = 30_000

# a shell's background jobs ignore Ctrl-C, and so would the programs that tests start and interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

compile_quickly()  # small data do not need LLVM's optimisation, and compiling is most of the time of a test
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")
_cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "gmm_jax" / "tests"
jax.config.update("jax_compilation_cache_dir", str(_cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@wraps(stored.keep_in)
def nowhere(folder):
    """Tests replace parts of functions, whose programs would keep their names."""


stored.keep_in = nowhere

gc.set_threshold(50_000, 20, 50)  # tracing makes objects by the million, and few of them are rubbish

# examples are the same in every run, and compilation inside one is not slowness
hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True, scope="module")
def not_too_many_programs():
    """Linux gives a process 65,530 maps of memory; each compiled program takes some, and without one it crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        programs._programs.clear()


@pytest.fixture(autouse=True, scope="module")
def strict_promotion(request):
    """Rank and dtype promotion are errors, but not where NumPyro and BlackJAX run.

    Of a module: what its fixtures trace is then what its tests trace.
    """
    if request.module.__name__.rpartition(".")[2].startswith(LENIENT):
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def assert_trees_close(a, b, *, rtol=1e-10, atol=1e-10):
    """Two pytrees agree leaf by leaf, in shape and in numbers (NaN equals NaN); the message names the leaf."""
    a_leaves, a_structure = jax.tree_util.tree_flatten_with_path(a)
    b_leaves, b_structure = jax.tree_util.tree_flatten_with_path(b)
    assert a_structure == b_structure
    for (path, left), (_, right) in zip(a_leaves, b_leaves, strict=True):
        left, right = np.asarray(left), np.asarray(right)
        assert left.shape == right.shape, f"{jax.tree_util.keystr(path)}: {left.shape} is not {right.shape}"
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path))


def random_gmm(seed, n_components, n_features, covariance_type, spread=3.0, dtype=np.float64):
    """A mixture with NumPy leaves whose covariances have condition numbers below about 100."""
    weights, means, covariances = oracles.random_mixture(
        np.random.default_rng(seed), n_components, n_features, covariance_type, spread
    )
    return GMM(weights.astype(dtype), means.astype(dtype), np.asarray(covariances, dtype), covariance_type)


def as_tuple(gmm):
    """(weights, means, covariances, covariance_type), as the oracles take a mixture."""
    return np.asarray(gmm.weights), np.asarray(gmm.means), np.asarray(gmm.covariances), gmm.covariance_type


def near(gmm, seed, n_chains=2, n_draws=50, noise=0.05):
    """Draws that scatter a little about a mixture: their nearest labelling is the mixture's own."""
    rng = np.random.default_rng(seed)
    shape = (n_chains, n_draws, *gmm.means.shape)
    weights = gmm.weights * np.exp(noise * rng.standard_normal(shape[:3]))
    means = gmm.means + noise * rng.standard_normal(shape)
    size = np.exp(noise * rng.standard_normal(shape[:2]))
    covariances = gmm.covariances * size.reshape(*shape[:2], *(1,) * np.ndim(gmm.covariances))
    return GMM(weights / weights.sum(-1, keepdims=True), means, covariances, gmm.covariance_type)


def posterior_of(draws, log_density=None):
    """The draws as a posterior, its density noise where none is given."""
    shape = draws.weights.shape[:2]
    log_density = np.random.default_rng(0).standard_normal(shape) if log_density is None else log_density
    return Posterior(draws, log_density, {}, Status.SAMPLED)


def scrambled(draws, seed):
    """Each draw in an order of its own, and those orders."""
    rng = np.random.default_rng(seed)
    orders = np.argsort(rng.random(draws.weights.shape), axis=-1)
    return permute(draws, orders), orders


@pytest.fixture(scope="session")
def x():
    """(60, 2): three groups that overlap."""
    return oracles.random_data(np.random.default_rng(1), 60, random_gmm(0, 3, 2, "full"))


@pytest.fixture(params=TYPES)
def mixture(request):
    """K = 3, D = 2, every covariance type in turn; not fitted to x."""
    return random_gmm(5, 3, 2, request.param)
