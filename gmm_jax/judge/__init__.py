"""RECOVERED AGAINST TRUE: one labelling, errors with the truth, diagnostics without it."""

from .calibration import ranks, uniform_band, uniform_p_value
from .criteria import LeaveOneOut, information_criteria, leave_one_out
from .diagnostics import Diagnostics, co_clustering, diagnostics, invariant_diagnostics
from .metrics import adjusted_rand_index, kl_divergence, recovery
from .mixing import Mixing, mixing
from .relabel import RELABELLINGS, Relabelled, relabel

__all__ = [
    "RELABELLINGS",
    "Diagnostics",
    "LeaveOneOut",
    "Mixing",
    "Relabelled",
    "adjusted_rand_index",
    "co_clustering",
    "diagnostics",
    "invariant_diagnostics",
    "information_criteria",
    "kl_divergence",
    "leave_one_out",
    "mixing",
    "ranks",
    "recovery",
    "relabel",
    "uniform_band",
    "uniform_p_value",
]
