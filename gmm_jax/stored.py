"""Programs on disk, for the next process of the shell: it need not trace them, which takes longer than to load them.

JAX's own cache keeps what the compiler makes, and finds it by what tracing and lowering give. Here a program is found
by the function's name, the structure, shapes and types of its arguments, and all else that decides what becomes of
them: the sources of this package, versions, settings and processor. As with JAX's cache, who may write into the folder
decides what is run: it is the user's own.
"""

import hashlib
import json
import math
import os
import platform
import re
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import numpy as np
from jax.experimental.serialize_executable import deserialize_and_load, serialize

from .mixture import programs
from .mixture.files import write_bytes_atomic

PACKAGE, PROCESSOR = Path(__file__).parent, Path("/proc/cpuinfo")
MOST_BYTES = 1 << 29  # of all programs in the folder; from there on those that were not used for longest go
TRIED = "0.10.", "0.12."  # versions of JAX: another one may not survive the loading
SETTINGS = ("jax_enable_x64", "jax_debug_nans", "jax_default_matmul_precision", "jax_threefry_partitionable")
PLAIN = (str, int, float, bool, type(None), jax.tree_util.PyTreeDef)
CALLED = re.compile(r'custom_call_target="([^"]*)"')
LOADED = "/jax/core/compile/backend_compile_duration"  # a loaded program is reported as a compiled one

_hits = [0]  # of JAX's cache
_lock, _asking = Lock(), [0, 0.0]  # threads that keep programs from JAX's cache, and its setting otherwise


def _count(event: str, **kwargs) -> None:
    del kwargs
    _hits[0] += event == "/jax/compilation_cache/cache_hits"


jax.monitoring.register_event_listener(_count)


def keep_in(folder: Path) -> None:
    """From now on programs of this process are looked for in that folder, and put there."""
    if not version("jax").startswith(TRIED):
        return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.iterdir())
        too_much = sum(size for _, size, _ in files) - MOST_BYTES
        for _, size, path in files:
            if too_much <= 0:
                break
            path.unlink(missing_ok=True)
            too_much -= size
        programs.use_store(lambda build, given, what: found_or(folder, build, given, what))


def found_or(folder: Path, build: Callable[[], Callable], given: tuple, what: tuple) -> Callable:
    """The program that is kept under `what`, or else what `build` compiles, kept from now on.

    What has no name that means the same in another process is not kept: a function of the user's, an array.

    Args:
        given: its arguments and those by name, shapes and types in place of arrays.
    """
    path, begun = _path_of(folder, what), time.perf_counter()
    if path is None:
        return build()
    with suppress(Exception):  # it is not there, or damaged
        size, content = path.read_bytes().split(b"\n", 1)
        content = zlib.decompress(content)
        answer, content = _structure(json.loads(content[: int(size)])), content[int(size) :]
        _begin_lapack()
        program = deserialize_and_load(content, jax.tree.structure(given), jax.tree.structure(answer))
        os.utime(path)
        jax.monitoring.record_event_duration_secs(LOADED, time.perf_counter() - begun)
        return program
    program, new = _compiled_anew(build)
    if new and all(name.startswith("lapack_") for name in CALLED.findall(program.as_text())):
        with suppress(Exception):  # a full disk, or a program that cannot be kept
            content, _, tree = serialize(program)
            answer = jax.tree.unflatten(tree, range(tree.num_leaves))  # numbers in place of arrays
            said = json.dumps(_described(answer)).encode()
            write_bytes_atomic(path, b"%d\n%b" % (len(said), zlib.compress(said + content, 1)))
    return program


def _compiled_anew(build):
    """The program, and whether it was compiled: what JAX's cache held cannot be written once more.

    So it is not put there either.
    """
    hits = _hits[0]
    _keep_from_jax(1)
    try:
        return build(), hits == _hits[0]
    finally:
        _keep_from_jax(-1)


def _keep_from_jax(change):
    """Nothing is put into JAX's cache while one thread or more ask for that."""
    setting = "jax_persistent_cache_min_compile_time_secs"
    with _lock:
        if not _asking[0]:
            _asking[1] = getattr(jax.config, setting)
        _asking[0] += change
        jax.config.update(setting, math.inf if _asking[0] else _asking[1])


@cache
def _begin_lapack():
    """What JAX does where a factorisation is lowered first: a program that calls LAPACK ends the process without it."""
    jax.jit(jax.lax.linalg.cholesky).lower(jax.ShapeDtypeStruct((1, 1), np.float32))


def _described(answer):
    """A structure of numbers as JSON, with the classes of what is no tuple, list or dictionary."""
    if answer is None or isinstance(answer, (int, str)):
        return answer
    kind = type(answer)
    if kind in (tuple, list):
        return {kind.__name__: [_described(part) for part in answer]}
    parts = answer if kind is dict else answer._asdict() if hasattr(answer, "_fields") else vars(answer)
    place = "" if kind is dict else f"{kind.__module__}:{kind.__qualname__}"
    return {place: {name: _described(part) for name, part in parts.items()}}


def _structure(described):
    """What was described."""
    if not isinstance(described, dict):
        return described
    ((place, parts),) = described.items()
    if isinstance(parts, list):
        return {"tuple": tuple, "list": list}[place](map(_structure, parts))
    parts = {name: _structure(part) for name, part in parts.items()}
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)(**parts) if place else parts


# ---- names that mean the same in another process


class NotNamed(TypeError):
    """There is no such name."""


def named(what: Any) -> str:
    """The name of structures, shapes, options, and functions of this package; NotNamed for all else."""
    if isinstance(what, (tuple, list)):
        return f"({','.join(map(named, what))})"
    if isinstance(what, dict):
        return named(sorted(what.items()))
    name = f"{getattr(what, '__module__', '')}.{getattr(what, '__qualname__', '<>')}"
    if isinstance(what, PLAIN):
        name = repr(what)
    elif not name.startswith("gmm_jax.") or "<" in name:
        raise NotNamed(f"{type(what).__name__} {what}")
    if " at 0x" in name:
        raise NotNamed(name)
    return name


def _path_of(folder, what) -> Path | None:
    if jax.device_count() > 1 or jax.default_backend() != "cpu" or jax.config.jax_disable_jit:
        return None
    now = [getattr(jax.config, setting) for setting in SETTINGS]
    with suppress(NotNamed):
        return folder / hashlib.sha256(f"{_surroundings()}{now}{named(what)}".encode()).hexdigest()[:32]
    return None


@cache
def _surroundings() -> str:
    """A digest of all that decides what a function becomes, besides its arguments."""
    sources = [path.read_bytes() for path in sorted(PACKAGE.rglob("*.py"))]
    variables = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
    variables.pop("JAX_COMPILATION_CACHE_DIR", None)
    versions = [version(name) for name in ("jax", "jaxlib", "numpyro", "blackjax", "numpy")]
    lines = PROCESSOR.read_text().splitlines() if PROCESSOR.exists() else []
    flags = [line for line in lines if line.startswith(("model name", "flags"))][:2]
    about = (versions, platform.uname()[4:], platform.python_version(), sorted(variables.items()), flags)
    return hashlib.sha256(b"".join([*sources, repr(about).encode()])).hexdigest()
