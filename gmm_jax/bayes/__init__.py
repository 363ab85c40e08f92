"""POSTERIOR: one NumPyro model, its prior, and one engine a file: (key, x, spec, ...) -> Posterior."""

from .evidence import Evidence, bridge, pool
from .gibbs import gibbs
from .gibbs_batch import gibbs_batch
from .importance import corrected_moments
from .laplace import laplace
from .model import model
from .numpyro_nuts import numpyro_nuts
from .nuts import nuts
from .occupied import occupied_components
from .prior import default_prior, hyperparameters
from .smc import smc
from .svi import svi
from .telescoping import Telescoped, telescoping

__all__ = [
    "Evidence",
    "Telescoped",
    "bridge",
    "corrected_moments",
    "default_prior",
    "gibbs",
    "gibbs_batch",
    "hyperparameters",
    "laplace",
    "model",
    "numpyro_nuts",
    "nuts",
    "occupied_components",
    "pool",
    "smc",
    "svi",
    "telescoping",
]
