"""MANY TRIALS: every method on every problem, rows and provenance on disk, figures, tables and one report."""

from . import methods
from .runner import Cell, Trial, run, run_grid

__all__ = ["Cell", "Trial", "methods", "run", "run_grid"]
