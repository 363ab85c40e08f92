"""WHAT A MIXTURE IS: its structures, densities, specification, sums, starts, and how two are paired."""

from .covariance import STRUCTURES, structure
from .datatree import from_datatree
from .free import free_coordinates, free_entries, inverse_root, score_products, static_masks
from .gmm import (
    GMM,
    affine,
    log_joint,
    log_prob,
    permute,
    predict,
    responsibilities,
    sample,
    sample_given_labels,
    validate,
)
from .match import align, assign, exchangeable, match, match_cost
from .moments import ONE_AT_A_TIME, Moments, Way, e_step, is_narrow, moments, statistics_allowed
from .records import Fit, NotSupported, Posterior, Status
from .scaling import Scaling, check_data, check_sample_weight, standardise
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

__all__ = [
    "GMM",
    "ONE_AT_A_TIME",
    "STRUCTURES",
    "Fit",
    "Hyperparameters",
    "Known",
    "MixtureSpec",
    "Moments",
    "NotSupported",
    "Posterior",
    "Prior",
    "Scaling",
    "Status",
    "Way",
    "affine",
    "align",
    "assign",
    "check_data",
    "check_sample_weight",
    "e_step",
    "exchangeable",
    "free_coordinates",
    "free_entries",
    "free_parts",
    "from_datatree",
    "inverse_root",
    "is_narrow",
    "log_joint",
    "log_prob",
    "match",
    "match_cost",
    "moments",
    "n_parameters",
    "permute",
    "predict",
    "project",
    "put",
    "responsibilities",
    "sample",
    "sample_given_labels",
    "score_products",
    "share",
    "standardise",
    "static_masks",
    "statistics_allowed",
    "structure",
    "validate",
    "validate_spec",
]
