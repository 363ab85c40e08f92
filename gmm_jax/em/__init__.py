"""MAXIMUM LIKELIHOOD: the solve, the loop, one start, many starts, streams of rows, and uncertainty."""

from .bootstrap import Bootstrap, bootstrap
from .criterion import criterion
from .fit import EMConfig, EMResult, fit_em, fit_labelled, iterates
from .m_step import m_step
from .online import Online, OnlineInterrupted, fit_em_online
from .optima import Optima, spurious
from .restarts import Effort, Interrupted, ManyRestarts, Restarts, fit_em_restarts
from .uncertainty import Asymptotics, Bounds, Intervals, asymptotics, intervals, standard_errors
