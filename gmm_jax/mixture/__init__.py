"""WHAT A MIXTURE IS: its structures, densities, specification, sums, starts, and how two are paired."""

from .annotations import Annotations, missing_groups
from .cores import ONE_AT_A_TIME, WIDE
from .covariance import STRUCTURES, structure
from .datatree import from_datatree
from .free import free_coordinates, free_entries, static_masks
from .gmm import GMM, affine, log_joint, log_prob, permute, predict, responsibilities, sample, validate
from .impute import impute
from .match import align, ambiguous, assign, distinguished, exchangeable, match, match_cost
from .moments import Moments, Precision, e_step, ill_conditioned, moments
from .records import Fit, NotSupported, Posterior, Status
from .scaling import Scaling, check_data, check_labels, check_sample_weight, standard_units, standardise
from .spec import (
    Hyperparameters,
    Known,
    MixtureSpec,
    Prior,
    free_parts,
    n_parameters,
    project,
    put,
    share,
    validate_spec,
)
