"""What is compiled: kept in this process, and bounded; and perhaps on disk, where the shell has said how.

Old programs are let go before the process has no maps of memory left.

Linux gives a process 65,530 of them. A compiled program takes 20 to 300, and without one the compiler ends the process.
"""

import inspect
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, cached_property, update_wrapper, wraps
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import numpy as np

MAPS, MOST_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")
SHARE = 4  # programs are let go where a process has more than this part of the maps it may have
BETWEEN_LOOKS = 16  # compilations: to count maps takes some milliseconds

_programs: dict[tuple, Future] = {}  # by what they were compiled for, the last one used at the end
_lock = Lock()
_compiled = [0]  # since the last look, by whoever
_store: list[Callable | None] = [None]


def _count(event: str, _: float, **kwargs) -> None:
    del kwargs
    _compiled[0] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


def kept(build: Callable) -> Callable:
    """The function that keeps its answers, programs, until they are the oldest where there is no more room.

    Where another thread is compiling the same one, it is waited for.
    """

    @wraps(build)
    def find(*key):
        with _lock:
            found = _programs.pop((build, key), None)
            mine, found = found is None, found or Future()
            _programs[build, key] = found
        if mine:
            try:
                found.set_result(build(*key))
            except BaseException as error:
                _programs.pop((build, key), None)
                found.set_exception(error)
        return found.result()

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


# ---- for other processes


def use_store(store: Callable | None) -> None:
    """From now on programs are asked for from store(build, given, what): see `found_or`. None: from nowhere."""
    _store[0] = store


def found_or(build: Callable[[], Callable], given: tuple, *what) -> Callable:
    """What `build` compiles, or the same from a store.

    Args:
        given: its arguments and those by name, shapes and types in place of arrays.
        what: all that it depends on within this package: function, structures, shapes, options.
    """
    return build() if _store[0] is None else _store[0](build, given, what)


class jit:
    """`jax.jit`, whose programs may come from a store."""

    def __init__(self, function: Callable, *, static_argnames: str | tuple[str, ...] = (), compiler_options=None):
        update_wrapper(self, function)
        static = (static_argnames,) if isinstance(static_argnames, str) else static_argnames
        self.function, self.static, self.options = function, frozenset(static), compiler_options or {}
        self.signature = inspect.signature(function)

    @cached_property
    def jitted(self):
        """The function of JAX; options are looked at no sooner than at the first call, as that asks the compiler."""
        return jax.jit(
            self.function, static_argnames=tuple(self.static), compiler_options=as_far_as_known(self.options) or None
        )

    def lower(self, *arguments, **by_name):
        """As `jax.jit` has it."""
        return self.jitted.lower(*arguments, **by_name)

    def eval_shape(self, *arguments, **by_name):
        """As `jax.jit` has it."""
        return self.jitted.eval_shape(*arguments, **by_name)

    def __reduce__(self):
        return self.__qualname__  # a name of its module, as of a function

    def __call__(self, *arguments, **by_name):
        if _store[0] is None:
            return self.jitted(*arguments, **by_name)
        given = self.signature.bind(*arguments, **by_name).arguments
        static = tuple((name, given.pop(name)) for name in sorted(self.static & given.keys()))
        leaves, tree = jax.tree.flatten(given)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self.jitted(*arguments, **by_name)
        wide = jax.dtypes.canonicalize_dtype(float) == np.float64
        return _program(self, tree, tuple(map(_type_of, leaves)), static, wide)(**given)


def as_far_as_known(options: dict[str, Any]) -> dict[str, Any]:
    """Those options of the compiler that this version of XLA knows: it refuses others."""
    return {name: value for name, value in options.items() if _is_known(name, value)}


@cache
def _is_known(option, value):
    try:
        jax.jit(lambda x: x).lower(np.float32(0.0)).compile(compiler_options={option: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _type_of(leaf):
    """(shape, dtype, whether that is weak) of what JAX takes it for."""
    if isinstance(leaf, (np.ndarray, jax.Array)):
        return leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)
    found = jax.typeof(leaf)
    return found.shape, found.dtype, found.weak_type


@kept
def _program(function: jit, tree, types, static, wide):
    del wide  # a program for each
    structs = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in types]
    given, said = jax.tree.unflatten(tree, structs), [(shape, str(dtype), weak) for shape, dtype, weak in types]

    def build():
        return function.lower(**given, **dict(static)).compile()

    return found_or(build, ((), given), function, function.options, tree, said, static)
