"""WHAT A MIXTURE IS: its structures, densities, specification, sums, starts, and how two are paired."""

from .annotations import Annotations, Groups, missing_groups
from .cores import ONE_AT_A_TIME, WIDE
from .covariance import STRUCTURES, structure
from .datatree import from_datatree
from .free import free_coordinates, free_entries, inverse_root, score_products, static_masks
from .gmm import (
    GMM,
    affine,
    log_joint,
    log_prob,
    log_prob_of_rows,
    permute,
    predict,
    responsibilities,
    sample,
    sample_given_labels,
    validate,
)
from .impute import Imputed, impute
from .match import align, ambiguous, assign, distinguished, exchangeable, match, match_cost
from .moments import Moments, Precision, e_step, fast_sums_allowed, ill_conditioned, moments
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

__all__ = [
    "GMM",
    "ONE_AT_A_TIME",
    "STRUCTURES",
    "WIDE",
    "Fit",
    "Groups",
    "Hyperparameters",
    "Imputed",
    "Known",
    "MixtureSpec",
    "Moments",
    "NotSupported",
    "Posterior",
    "Prior",
    "Annotations",
    "Scaling",
    "Status",
    "Precision",
    "affine",
    "align",
    "ambiguous",
    "assign",
    "check_data",
    "check_labels",
    "check_sample_weight",
    "e_step",
    "exchangeable",
    "free_coordinates",
    "free_entries",
    "free_parts",
    "from_datatree",
    "impute",
    "inverse_root",
    "ill_conditioned",
    "log_joint",
    "log_prob",
    "log_prob_of_rows",
    "match",
    "match_cost",
    "missing_groups",
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
    "standard_units",
    "standardise",
    "static_masks",
    "fast_sums_allowed",
    "structure",
    "distinguished",
    "validate",
    "validate_spec",
]
