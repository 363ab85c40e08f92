"""MAXIMUM LIKELIHOOD: the solve, the loop, one start, many starts, and how sure the answer is."""

from .fit import EMConfig, EMResult, fit_em, fit_labelled, iterates
from .m_step import m_step
from .restarts import Interrupted, Optima, Restarts, fit_em_restarts
from .uncertainty import standard_errors

__all__ = [
    "EMConfig",
    "EMResult",
    "Interrupted",
    "Optima",
    "Restarts",
    "fit_em",
    "fit_em_restarts",
    "fit_labelled",
    "iterates",
    "m_step",
    "standard_errors",
]
