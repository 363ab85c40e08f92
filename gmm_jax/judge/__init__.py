"""RECOVERED AGAINST TRUE: one labelling, errors with the truth, diagnostics without it."""

from .bounds import CramerRao, Efficiency, cramer_rao, efficiency
from .calibration import ranks, uniform_band, uniform_p_value
from .criteria import LeaveOneOut, information_criteria, leave_one_out, penalised
from .diagnostics import Diagnostics, co_clustering, diagnostics, invariant_diagnostics
from .distances import Divergences, dense_covariances, divergences, kl_divergence, log_score, mixing_distance
from .metrics import adjusted_rand_index, recovery
from .mixing import Mixing, mixing
from .modes import modes_reached
from .relabel import RELABELLINGS, Relabelled, relabel

__all__ = [
    "RELABELLINGS",
    "CramerRao",
    "Diagnostics",
    "Divergences",
    "Efficiency",
    "LeaveOneOut",
    "Mixing",
    "Relabelled",
    "adjusted_rand_index",
    "co_clustering",
    "cramer_rao",
    "dense_covariances",
    "diagnostics",
    "divergences",
    "efficiency",
    "information_criteria",
    "invariant_diagnostics",
    "kl_divergence",
    "leave_one_out",
    "log_score",
    "mixing",
    "mixing_distance",
    "modes_reached",
    "penalised",
    "ranks",
    "recovery",
    "relabel",
    "uniform_band",
    "uniform_p_value",
]
