"""RECOVERED AGAINST TRUE: one labelling, errors with the truth, diagnostics without it."""

from .diagnostics import Diagnostics, co_clustering, diagnostics, invariant_diagnostics
from .metrics import adjusted_rand_index, kl_divergence, recovery
from .mixing import Mixing, mixing
from .relabel import RELABELLINGS, Relabelled, relabel

__all__ = [
    "RELABELLINGS",
    "Diagnostics",
    "Mixing",
    "Relabelled",
    "adjusted_rand_index",
    "co_clustering",
    "diagnostics",
    "invariant_diagnostics",
    "kl_divergence",
    "mixing",
    "recovery",
    "relabel",
]
