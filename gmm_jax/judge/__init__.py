"""RECOVERED AGAINST TRUE: one labelling, errors with the truth, diagnostics without it."""

from .diagnostics import Diagnostics, diagnostics, invariant_diagnostics
from .metrics import adjusted_rand_index, kl_divergence, recovery
from .relabel import Relabelled, relabel

__all__ = [
    "Diagnostics",
    "Relabelled",
    "adjusted_rand_index",
    "diagnostics",
    "invariant_diagnostics",
    "kl_divergence",
    "recovery",
    "relabel",
]
