"""MAXIMUM LIKELIHOOD: the solve, the loop, one start, many starts, streams of rows, and how sure the answer is."""

from .batch import Batch, fit_em_batch, fit_em_restarts_batch
from .bootstrap import Bootstrap, bootstrap
from .fit import EMConfig, EMResult, fit_em, fit_labelled, iterates
from .m_step import m_step
from .online import Online, OnlineInterrupted, fit_em_online
from .optima import Optima, spurious
from .ranks import agree, local_rows, mesh_of
from .restarts import Effort, Interrupted, Restarts, fit_em_restarts
from .sharded import fit_em_sharded
from .streamed import Streamed, StreamInterrupted, fit_em_stream
from .uncertainty import Asymptotics, Bounds, Intervals, asymptotics, intervals, standard_errors

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
    "Online",
    "OnlineInterrupted",
    "Optima",
    "Restarts",
    "StreamInterrupted",
    "Streamed",
    "agree",
    "asymptotics",
    "bootstrap",
    "fit_em",
    "fit_em_batch",
    "fit_em_online",
    "fit_em_restarts",
    "fit_em_restarts_batch",
    "fit_em_sharded",
    "fit_em_stream",
    "fit_labelled",
    "spurious",
    "intervals",
    "iterates",
    "local_rows",
    "m_step",
    "mesh_of",
    "standard_errors",
]
