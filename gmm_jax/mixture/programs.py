"""What is compiled is bounded: old programs are let go before the process has no maps of memory left.

Linux gives a process 65,530 of them. A compiled program takes 20 to 300, and without one the compiler ends the process.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import jax

MAPS, MOST_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
SHARE = 4  # programs are let go where a process has more than this part of the maps it may have
BETWEEN_LOOKS = 16  # compilations: to count maps takes some milliseconds

_programs: dict = {}  # by what they were compiled for, the last one used at the end
_compiled = [0]  # since the last look, by whoever


def _count(event: str, _: float, **kwargs) -> None:
    del kwargs
    _compiled[0] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


def kept(build: Callable) -> Callable:
    """The function that keeps its answers, programs, until they are the oldest where there is no more room."""

    @wraps(build)
    def find(*key):
        try:
            found = _programs.pop((build, key))
        except KeyError:
            found = build(*key)
        _programs[build, key] = found
        return found

    return find


def make_room() -> None:
    """Lets programs go where there are many: at an entry point, before anything is computed.

    First the older half of those that are kept here, then all of them, then all that JAX has.
    """
    if _compiled[0] < BETWEEN_LOOKS:
        return
    _compiled[0] = 0
    for n_kept in (len(_programs) // 2, 0):
        if n_maps() <= most_maps():
            return
        for key in list(_programs)[: len(_programs) - n_kept]:
            _programs.pop(key, None)
    if n_maps() > most_maps():
        jax.clear_caches()


def n_maps() -> int:
    """Maps of memory that this process has; 0 where the system does not tell."""
    return MAPS.read_bytes().count(b"\n") if MAPS.exists() else 0


def most_maps() -> int:
    """From how many on programs are let go."""
    return int(MOST_MAPS.read_text()) // SHARE if MOST_MAPS.exists() else 65_530 // SHARE
