"""The contracts of every pure function in one table: shapes, dtypes, `vmap` is the loop, one trace a shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from conftest import TYPES, assert_trees_close, random_gmm
from gmm_jax import GMM, MixtureSpec, affine, log_joint, log_prob, permute, predict, responsibilities, sample
from gmm_jax.em import EMConfig, fit_em, iterates, m_step
from gmm_jax.mixture import Moments, e_step, project
from gmm_jax.mixture.spec import Known
from gmm_jax.mixture.starts import STARTS

N, D, K = 60, 2, 3
CONFIG = EMConfig(max_iter=5, tol=0.0)
KEY = jax.random.key(0)
LEAF = {"full": (K, D, D), "tied": (D, D), "diag": (K, D), "spherical": (K,)}
SECOND = LEAF

# name: (function of a mixture and data, its shapes by covariance type)
TABLE = {
    "log_joint": (log_joint, lambda t: [(N, K)]),
    "log_prob": (log_prob, lambda t: [(N,)]),
    "responsibilities": (responsibilities, lambda t: [(N, K)]),
    "predict": (predict, lambda t: [(N,)]),
    "e_step": (e_step, lambda t: [(K,), (K, D), SECOND[t], ()]),
    "m_step": (lambda gmm, x: m_step(e_step(gmm, x), gmm), lambda t: [(K,), (K, D), LEAF[t]]),
    "sample": (lambda gmm, x: sample(KEY, gmm, 7), lambda t: [(7, D), (7,)]),
    "permute": (lambda gmm, x: permute(gmm, jnp.array([2, 0, 1])), lambda t: [(K,), (K, D), LEAF[t]]),
    "affine": (lambda gmm, x: affine(gmm, 2.0, 1.0), lambda t: [(K,), (K, D), LEAF[t]]),
    "project": (lambda gmm, x: project(gmm, Known()), lambda t: [(K,), (K, D), LEAF[t]]),
    "fit_em": (lambda gmm, x: fit_em(x, gmm, config=CONFIG), lambda t: [(K,), (K, D), LEAF[t], (), (6,), (), ()]),
    "iterates": (
        lambda gmm, x: iterates(x, gmm, n_iter=4, config=CONFIG),
        lambda t: [(5, K), (5, K, D), (5, *LEAF[t])],
    ),
    **{
        f"start {name}": (
            lambda gmm, x, start=start: start(KEY, x, MixtureSpec(K, gmm.covariance_type)),
            lambda t: [(K,), (K, D), LEAF[t]],
        )
        for name, start in STARTS.items()
    },
}


def shapes(function, covariance_type, dtype):
    gmm = jax.tree.map(jnp.asarray, random_gmm(5, K, D, covariance_type, dtype=dtype))
    return jax.tree.leaves(jax.eval_shape(function, gmm, jax.ShapeDtypeStruct((N, D), dtype)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("name", TABLE)
def test_shapes_are_as_promised_and_dtype_in_is_dtype_out(name, covariance_type, dtype):
    """With x64 on: gmmx crashes there, and a stray NumPy float64 would promote everything."""
    if dtype == np.float64 and covariance_type != "full":
        return  # what float32 does not show, one structure does
    function, expected = TABLE[name]
    leaves = shapes(function, covariance_type, dtype)
    assert [leaf.shape for leaf in leaves] == expected(covariance_type)
    assert {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)} <= {np.dtype(dtype)}


@pytest.mark.parametrize("name", [name for name in TABLE if not name.startswith("start")])
def test_vmap_is_the_loop(name, x):
    function, covariance_type = TABLE[name][0], "tied"  # the structure whose leaf has no component axis
    mixtures = [random_gmm(seed, K, D, covariance_type) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *mixtures)
    together = jax.jit(jax.vmap(function, in_axes=(0, None)))(stacked, x)
    for i, gmm in enumerate(mixtures):
        alone = function(jax.tree.map(jnp.asarray, gmm), x)
        assert_trees_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone)


def test_many_data_sets_are_fitted_under_one_vmap():
    truth = random_gmm(0, K, D, "full")
    many = np.stack([oracles.random_data(np.random.default_rng(s), N, truth) for s in range(2)])
    together = jax.vmap(lambda x: fit_em(x, truth, config=CONFIG))(many)
    for i in range(2):
        assert_trees_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), fit_em(many[i], truth, config=CONFIG))


def test_one_trace_a_shape(x):
    """Numbers are leaves: other data, starts, tolerances and known values trace nothing anew."""
    traced = []

    @jax.jit
    def counted(x, init, known, config):
        traced.append(1)
        return fit_em(x, init, known=known, config=config)

    for seed in range(3):
        gmm = random_gmm(seed, K, D, "full")
        config = EMConfig(max_iter=5, tol=10.0**-seed, reg_covar=float(seed))
        known = Known(means=np.where(np.arange(K)[:, None] < seed, gmm.means, np.nan))
        counted(x + seed, gmm, known, config)
    assert len(traced) == 1


def test_blocks_are_a_sum_of_moments_leaf_by_leaf(x):
    gmm = random_gmm(5, K, D, "full")
    parts = [e_step(gmm, x[i : i + 20]) for i in (0, 20, 40)]
    assert_trees_close(Moments(*(sum(leaves) for leaves in zip(*parts, strict=True))), e_step(gmm, x))


def test_constructors_check_arrays_alone():
    """JAX rebuilds pytrees with leaves of any kind, and axes and shardings are written as mixtures of them."""
    assert GMM(0, 0, None).covariances is None
    assert jax.tree.map(lambda leaf: None, GMM(object(), object(), object())).weights is None
