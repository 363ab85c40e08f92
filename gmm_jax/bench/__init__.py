"""MANY TRIALS: every method on every problem, rows and provenance on disk, figures, tables and one report.

Names are loaded when they are first used, as those of the package: the shell reads `grid` before JAX is needed.
"""

from importlib import import_module

_HOMES = {"Cell": "runner", "Grid": "grid", "How": "runner", "Trial": "runner", "run": "runner", "run_grid": "runner"}

__all__ = sorted([*_HOMES, "methods"])


def __getattr__(name):
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "methods":
        return import_module(f"{__name__}.methods")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
