"""scikit-learn's interface: GaussianMixture by maximum likelihood, BayesianGaussianMixture by a posterior's draws."""

from .bayesian import BayesianGaussianMixture
from .gaussian import GaussianMixture
