"""RECOVERED AGAINST TRUE: one labelling, errors with the truth, diagnostics without it."""

from .bounds import CramerRao, Efficiency, cramer_rao, efficiency
from .diagnostics import Diagnostics, co_clustering, diagnostics, invariant_diagnostics
from .distances import Divergences, divergences, kl_divergence, log_score, mixing_distance
from .metrics import adjusted_rand_index, recovery
from .mixing import Mixing, mixing
from .relabel import RELABELLINGS, Relabelled, relabel

__all__ = [
    "RELABELLINGS",
    "CramerRao",
    "Diagnostics",
    "Divergences",
    "Efficiency",
    "Mixing",
    "Relabelled",
    "adjusted_rand_index",
    "co_clustering",
    "cramer_rao",
    "diagnostics",
    "divergences",
    "efficiency",
    "invariant_diagnostics",
    "kl_divergence",
    "log_score",
    "mixing",
    "mixing_distance",
    "recovery",
    "relabel",
]
