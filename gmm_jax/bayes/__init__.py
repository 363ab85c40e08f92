"""The posterior: one NumPyro model, its prior, and one engine a file: (key, x, spec, ...) -> Posterior."""

from .evidence import Evidence, bridge, pool
from .gibbs import gibbs
from .gibbs_batch import gibbs_batch
from .importance import corrected_moments
from .laplace import laplace
from .model import model
from .nuts import nuts
from .point import point_estimate
from .prior import default_prior, hierarchical_inverse_wishart, hyperparameters
from .sample import Interrupted, sample
from .smc import smc
from .starts import climber, starts_from_em
from .svi import svi
from .telescoping import Telescoped, telescoping
