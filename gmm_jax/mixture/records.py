"""What is returned: why a computation ended, a posterior, and the answer of any method.

Failure is data inside jit (a Status), and a sentence at the entry points (Status.advice).
"""

from enum import IntEnum
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from .gmm import GMM


class NotSupported(ValueError):
    """A method cannot treat this case; the message says which and what can."""


class Status(IntEnum):
    """Why a fit or a sampler ended. NaN is never a success."""

    RUNNING = 0
    CONVERGED = 1
    MAX_ITER = 2
    SAMPLED = 3
    DECREASED = 4
    COLLAPSED = 5
    NON_FINITE = 6
    DIVERGENT = 7
    UNMIXED = 8
    FAILED = 9
    UNRELIABLE = 13
    NOT_STATIONARY = 14
    BOUNDARY = 15
    SINGULAR = 16

    @property
    def advice(self) -> str:
        """One sentence: what happened and what to try."""
        return _ADVICE[self]

    @property
    def ok(self) -> bool:
        """Whether the parameters that come with this status may be used."""
        return self in (Status.CONVERGED, Status.MAX_ITER, Status.SAMPLED)


_ADVICE = {
    Status.RUNNING: "still running: the iteration was interrupted before it ended",
    Status.CONVERGED: "converged: the stopping criterion fell to tol",
    Status.MAX_ITER: "stopped at max_iter before the stopping criterion fell to tol; raise max_iter or tol",
    Status.SAMPLED: "all draws were taken",
    Status.DECREASED: "the log-likelihood fell, which EM cannot do in exact arithmetic; use float64 or raise reg_covar",
    Status.COLLAPSED: "a component collapsed (fewer than one sample's mass, or a singular covariance); "
    "lower n_components, raise reg_covar, or choose another start",
    Status.NON_FINITE: "the log-likelihood is not finite; check the start and the scale of the data",
    Status.DIVERGENT: "some NUTS transitions diverged; raise target_accept or n_warmup, or give an informative prior",
    Status.UNMIXED: "chains disagree after relabelling (R-hat above 1.01 or ESS below 400): some are stuck in another "
    "mode, n_draws is too small, or one chain was run, of which nothing can be said",
    Status.UNRELIABLE: "the approximation is too far from the posterior for importance weights to mend it (Pareto "
    "k-hat above 0.7, or not known for want of draws), or smc found no way to it: use nuts, gibbs, or a richer "
    "approximation, and see whether what is known or the prior contradicts the data",
    Status.NOT_STATIONARY: "not a maximum yet: Newton's next step would gain more than 1e-3 nats, so errors from the "
    "curvature here mean nothing; lower tol, raise max_iter, or set reg_covar=0",
    Status.BOUNDARY: "a component has less than one sample's mass or a singular covariance: at the boundary the "
    "estimate is not normal; lower n_components, or use a bootstrap or a posterior",
    Status.SINGULAR: "the information is singular or not positive definite (components coincide, or a saddle point): "
    "lower n_components, or use a posterior",
    Status.FAILED: "the method raised an error; the reason stands beside this status",
}


class Posterior(NamedTuple):
    """Draws from p(θ | x): a mixture with leading axes (chains, draws)."""

    draws: GMM  # leaves (C, S, ...), units of the data
    log_density: Float[Array, "C S"]  # log p(x|θ) + log p(θ): labels summed out, constrained space, units of the data
    stats: dict[str, Any]  # sampler statistics, each (C, S, ...) or (C, ...)
    status: Status
    named: Int[np.ndarray, "n"] | None = None  # components that labels of rows name: they may not be relabelled
    message: str = ""  # of bayes.sample: what was tried, and what came of it

    def log_predictive(self, x: Float[Array, "N D"], *, missing: str | None = None) -> Float[np.ndarray, "N"]:
        """log of the posterior mean of p(x_n | θ), nats: the density that does not depend on labels.

        With missing="marginalise" it is of what was seen of each row.
        """
        from .predictive import predictive
        from .scaling import check_data

        flat = jax.tree.map(lambda leaf: np.reshape(leaf, (-1, *np.shape(leaf)[2:])), self.draws)
        x, n_features = check_data(x, missing=missing), self.draws.n_features
        if x.shape[1] != n_features:
            raise ValueError(f"x must have shape (N, {n_features}), as the draws have it; got {x.shape}.")
        return predictive(flat, x, missing=missing).log_density

    def to_datatree(self, x=None, *, log_likelihood=False, predictive_key=None):
        """The draws as an ArviZ DataTree.

        Args:
            x: the data; then there is a group observed_data.
            log_likelihood: whether to have the group log_likelihood, log p(x_n | θ) of every draw, for LOO.
            predictive_key: a typed key, to have the group posterior_predictive: a data set like x of every draw.

        Groups posterior and sample_stats are always there; dims chain, draw, component, feature, feature_2 and
        observation. The last two groups hold numbers for each draw and row of x: thin the draws first where both are
        many. `bench.draws` keeps a tree on disk.
        """
        from .datatree import to_datatree

        return to_datatree(self, x, log_likelihood=log_likelihood, predictive_key=predictive_key)


class Fit(NamedTuple):
    """The answer of any method, in one shape, so that all can be compared."""

    point: GMM  # the estimate: maximum likelihood, MAP, or posterior mean after relabelling
    draws: Posterior | None  # relabelled posterior, where the method has one
    standard_errors: GMM | None  # standard errors or posterior sds, 0 where known
    status: Status
    info: dict[str, Any]  # what is particular to the method: log-likelihood, optima, R-hat, seconds, ...
