"""Mode weights by Laplace's evidence and by the draws that climb there, against the sum over all allocations."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

import oracles
from conftest import posterior_of, random_gmm, scrambled
from gmm_jax import Known, MixtureSpec, NotSupported, Prior, judge, permute
from gmm_jax.judge import mode_weights

# three tight groups, two components: the middle one goes with the left or, as it lies nearer, with the right
X = np.array([-4.1, -4.0, -3.9, -0.05, 0.05, 0.15, 3.9, 4.0, 4.1])[:, None]
ALPHA, VARIANCE, SD = np.full(2, 2.0), 1.0, 6.0
SPEC = MixtureSpec(
    2,
    "spherical",
    Known(covariances=np.full(2, VARIANCE)),
    Prior(dist.Dirichlet(ALPHA), dist.Normal(np.zeros(1), SD).to_event(1)),
)


@pytest.mark.slow
def test_both_mode_weights_are_those_of_the_exact_posterior():
    """Laplace's relative error is of order 1/n; the exact share is that the middle row goes with the right ones."""
    together = oracles.enumerate_labellings(
        X, np.full((1, 1), VARIANCE), ALPHA, np.zeros(1), np.full((1, 1), SD**2), X
    )[0]
    right, left, others = mode_weights(jax.random.key(0), X, SPEC, n_restarts=20)
    assert abs(right["means"][0][0] - 2.0) < 0.5 < abs(left["means"][0][0] - 2.0)  # the larger component first
    for row, truth in ((right, together[4, 8]), (left, together[4, 0])):
        assert abs(row["smc_share"] - truth) <= 4.0 * row["smc_share_se"]
        assert abs(row["laplace_share"] - truth) <= 1.0 / len(X)
    assert right["smc_share_se"] < 0.04
    assert others["mode"] == "others"
    assert others["smc_share"] < 0.01
    assert others["laplace_share"] is None


def test_draws_are_counted_where_they_climb_whatever_their_labels():
    a, b, far = random_gmm(0, 2, 2, "full"), random_gmm(1, 2, 2, "full"), random_gmm(2, 2, 2, "full")
    of = np.arange(20).reshape(2, 10) % 3
    exact = jax.tree.map(lambda *leaves: np.stack(leaves)[of], a, b, far)
    draws = scrambled(exact, 0)[0]
    modes = jax.tree.map(lambda *leaves: np.stack(leaves), a, b, permute(a, np.array([1, 0])))
    of_draw, of_mode = judge.modes_reached(posterior_of(draws), modes, lambda gmms: gmms)
    np.testing.assert_array_equal(of_draw, np.where(of == 2, -1, of))
    np.testing.assert_array_equal(of_mode, [0, 1, 0])

    def fails(gmms):
        return jax.tree.map(
            lambda leaf: np.where(np.arange(23).reshape(-1, *[1] * (leaf.ndim - 1)) == 0, np.nan, leaf), gmms
        )

    assert judge.modes_reached(posterior_of(draws), modes, fails)[0][0, 0] == -1


def test_a_prior_that_em_cannot_climb_is_a_sentence():
    prior = Prior(means=dist.StudentT(4.0, np.zeros(1), 1.0).to_event(1))
    with pytest.raises(NotSupported, match="normal prior on means"):
        mode_weights(jax.random.key(0), X, MixtureSpec(2, prior=prior))
