"""MAXIMUM LIKELIHOOD: the solve, the loop, one start, many starts, and how sure the answer is."""

from .fit import EMConfig, EMResult, fit_em, fit_labelled, iterates
from .m_step import m_step
from .optima import Optima, inadmissible
from .restarts import Batch, Effort, Interrupted, Restarts, fit_em_batch, fit_em_restarts
from .uncertainty import standard_errors

__all__ = [
    "Batch",
    "EMConfig",
    "EMResult",
    "Effort",
    "Interrupted",
    "Optima",
    "Restarts",
    "fit_em",
    "fit_em_batch",
    "fit_em_restarts",
    "fit_labelled",
    "inadmissible",
    "iterates",
    "m_step",
    "standard_errors",
]
