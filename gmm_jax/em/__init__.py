"""MAXIMUM LIKELIHOOD: the solve, the loop, one start, many starts, and how sure the answer is."""

from .bootstrap import Bootstrap, bootstrap
from .fit import EMConfig, EMResult, fit_em, fit_labelled, iterates
from .intervals import Bounds, Intervals, intervals
from .m_step import m_step
from .optima import Optima, inadmissible
from .restarts import Batch, Effort, Interrupted, Restarts, fit_em_batch, fit_em_restarts
from .restarts_batch import fit_em_restarts_batch
from .uncertainty import Asymptotics, asymptotics, standard_errors

__all__ = [
    "Asymptotics",
    "Batch",
    "Bootstrap",
    "Bounds",
    "EMConfig",
    "EMResult",
    "Effort",
    "Interrupted",
    "Intervals",
    "Optima",
    "Restarts",
    "asymptotics",
    "bootstrap",
    "fit_em",
    "fit_em_batch",
    "fit_em_restarts",
    "fit_em_restarts_batch",
    "fit_labelled",
    "inadmissible",
    "intervals",
    "iterates",
    "m_step",
    "standard_errors",
]
