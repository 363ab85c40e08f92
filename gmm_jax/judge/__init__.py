"""Recovered against true: one labelling, errors with the truth, diagnostics without it, and the choice of a model."""

from ..bayes.diagnostics import Diagnostics, Mixing, co_clustering, diagnostics, invariant_diagnostics, mixing
from .choose import choices, choose_components
from .criteria import LeaveOneOut, information_criteria, leave_one_out, penalised
from .metrics import Divergences, adjusted_rand_index, dense_covariances, divergences, mixing_distance, recovery
from .relabel import RELABELLINGS, Relabelled, check_relabelling, relabel
from .summary import PosteriorFit, fit_posterior, summary
