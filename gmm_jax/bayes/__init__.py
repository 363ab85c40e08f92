"""POSTERIOR: one NumPyro model, its prior, and one engine a file: (key, x, spec, ...) -> Posterior."""

from .evidence import Evidence, bridge, pool
from .gibbs import gibbs
from .model import model
from .nuts import nuts
from .prior import default_prior, hyperparameters
from .smc import smc
from .svi import svi

__all__ = [
    "Evidence",
    "bridge",
    "default_prior",
    "gibbs",
    "hyperparameters",
    "model",
    "nuts",
    "pool",
    "smc",
    "svi",
]
