"""POSTERIOR: one NumPyro model, its prior, and one engine a file: (key, x, spec, ...) -> Posterior."""

from .gibbs import gibbs
from .model import model
from .nuts import nuts
from .prior import default_prior, hyperparameters
from .svi import svi

__all__ = ["default_prior", "gibbs", "hyperparameters", "model", "nuts", "svi"]
