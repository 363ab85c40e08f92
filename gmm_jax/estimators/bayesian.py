"""BayesianGaussianMixture: the posterior by `judge.fit_posterior`, and the mixture nearest to its predictive density.

Chains start at EM's optima and go on until they have mixed, draws are relabelled, and R-hat, effective draws and the
labels are looked at before anything is called an answer.
"""

import warnings
from collections.abc import Mapping

import jax
import numpy as np

from .. import judge
from ..mixture import GMM, Known, MixtureSpec, Prior, Status
from .base import BaseMixture, ConvergenceWarning

ENGINES = ("auto", "gibbs", "nuts", "smc", "svi", "laplace")


class BayesianGaussianMixture(BaseMixture):
    """Gaussian mixture with a posterior, drawn by Markov chains or sequential Monte Carlo, or approximated.

    scikit-learn's class of this name is another thing: a mean-field variational approximation, under a Dirichlet
    process or Dirichlet prior on the weights and a normal–Wishart prior on (μ_k, Σ_k⁻¹). Here the prior is
    `bayes.default_prior`'s, in which μ and Σ are independent, and the posterior is drawn from; of scikit-learn's
    arguments those below have the same meaning.

    Args:
        engine: auto (Markov chains that go on until they have mixed: `bayes.sample`), gibbs or nuts (chains of one
            length), smc (sequential Monte Carlo, which gives the evidence too), svi or laplace (approximations, judged
            by their Pareto k-hat).
        n_chains, n_warmup, n_draws: chains, and steps of each before and after its draws are kept; None: the engine's
            own numbers (n_draws 1000 for auto, 2500 for gibbs, 2000 for laplace). A number that the engine does not
            have is an error: n_warmup for auto.
        n_init: restarts of EM, at whose optima the chains start.
        engine_options: further options of the engine by name, such as {"target_accept": 0.95} for nuts.
        relabelling: pivot, ecr, ecr-iterative, stephens or modes: see `judge.relabel`.
        prior: a `gmm_jax.Prior` in the units of X; what it leaves out is the default, which depends on X.
        known: a `gmm_jax.Known` in the units of X: what is held and not sampled.
        missing: "marginalise" takes NaN in X as missing at random, in `fit` and in every density, score and prediction.
            None: NaN is an error. smc has no missing values.

    Attributes:
        weights_, means_, covariances_: the mixture nearest to the posterior predictive density
            (`bayes.point_estimate`); with _sd_ (weights_sd_, ...) posterior standard deviations of the draws in its
            labelling, 0 where known.
        posterior_: a `gmm_jax.Posterior`, the relabelled draws with leading axes (chains, draws).
        status_, message_: a `gmm_jax.Status`, and what is to be said about it in sentences.
        diagnostics_: a `judge.Diagnostics`: R-hat, effective draws and Monte-Carlo error of every free number;
            rhat_ and ess_ are the worst of them (R-hat is NaN where one chain was run).
        converged_: whether status_ is ok and no chain is known or suspected to be stuck (`judge.mixing`).
        info_: what else the engine says, such as log_evidence.

    `score_samples` is the log of the posterior predictive density, the log of the mean of the draws' densities (not
    the mean of their logs, which is lower). `predict_proba` is the mean of the draws' responsibilities: of a row that
    was fitted p(z_n = k | X), of a new row that without learning from the row itself.
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        engine: str = "auto",
        n_chains: int | None = None,
        n_warmup: int | None = None,
        n_draws: int | None = None,
        n_init: int | None = None,
        engine_options: Mapping | None = None,
        relabelling: str = "pivot",
        prior: Prior | None = None,
        known: Known | None = None,
        missing: str | None = None,
        random_state=None,
    ):
        self._keep(locals())

    def fit(self, X, y=None):
        """The estimator itself, with its posterior.

        Warns (ConvergenceWarning) where the draws may not be used as they are: chains disagree or are stuck, draws are
        too few, transitions diverged, or an approximation is too far off; and (UserWarning) where the components
        overlap so much that their labels mean little.

        Raises:
            ValueError: bad data or arguments, or densities that are not finite; the sentence says what to try.
        """
        del y
        if self.engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}; got {self.engine!r}.")
        X = self._validated(X, ensure_min_samples=2)
        answer = judge.fit_posterior(self._key(), X, self._spec(), engine=self.engine, **self._options()).fit
        if answer.standard_errors is None:
            raise ValueError(f"{self.engine} with these options gives a mode and no posterior: choose others.")
        if not np.all(np.isfinite(answer.point.means)):
            raise ValueError(f"{self.engine} gave no finite draws: {Status(answer.status).advice}.")
        self._take(answer)
        return self

    def _mixtures(self) -> GMM:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), self.posterior_.draws)

    def _spec(self):
        known, prior = Known() if self.known is None else self.known, Prior() if self.prior is None else self.prior
        return MixtureSpec(self.n_components, self.covariance_type, known, prior)

    def _options(self):
        """The engine's options that were given; it refuses those that it does not have."""
        numbers = {"n_chains": self.n_chains, "n_warmup": self.n_warmup, "n_draws": self.n_draws}
        numbers |= {"n_restarts": self.n_init, "relabelling": self.relabelling, "missing": self.missing}
        return {name: value for name, value in numbers.items() if value is not None} | dict(self.engine_options or {})

    def _take(self, answer):
        """The answer as attributes; it may warn."""
        self.posterior_, self.status_, self.info_ = answer.draws, Status(answer.status), answer.info
        point, sds = answer.point, answer.standard_errors
        self.weights_, self.means_, self.covariances_ = point.weights, point.means, point.covariances
        self.weights_sd_, self.means_sd_, self.covariances_sd_ = sds.weights, sds.means, sds.covariances
        self.diagnostics_ = judge.diagnostics(answer.draws, self._spec())
        self.rhat_, self.ess_ = self.diagnostics_.worst["r_hat"], self.diagnostics_.worst["ess_bulk"]
        self.converged_ = self.status_.ok and answer.info.get("mixing") not in ("stuck", "unclear")
        sentences = [f"{self.status_.advice}.", *map(answer.info.get, ("message", "reading", "labels"))]
        self.message_ = " ".join(filter(None, sentences))
        if not self.converged_:
            warnings.warn(f"The posterior may not be used as it is: {self.message_}", ConvergenceWarning, stacklevel=3)
        elif "labels" in answer.info:
            warnings.warn(answer.info["labels"], UserWarning, stacklevel=3)
