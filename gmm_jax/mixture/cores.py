"""Compiled programs side by side on the cores of this process."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from .programs import as_far_as_known, found_or, kept

Call = tuple[Any, tuple]  # a compiled program and its arguments

# Programs that run for long do so one operation after another. On two cores some waited for ever otherwise (Gibbs at
# N = 2000, D = 10, K = 4): two batches of LAPACK's factorisations block each other. Ours avoid LAPACK now (see
# factor.py), but not every library's do, NumPyro's among them
ONE_AT_A_TIME = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
# For E-steps. XLA's library of kernels takes products alone: it divides sums of a few thousand numbers over the threads
# of all programs, which takes longer than to sum them. Wide vectors take a tenth off, where the processor has them
WIDE = ONE_AT_A_TIME | {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    "xla_cpu_prefer_vector_width": 512,
}
QUICK_WORK = 1 << 22  # multiplications of one step, up to which all steps take less time than their compilation
QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
LEAST = "--xla_backend_optimization_level=0"  # in XLA_FLAGS: LLVM does not optimise the programs of this process
COMPILED = {  # what a program is compiled for -> options of the compiler
    "speed": {},
    "quick": QUICK,  # two thirds of the time and a third of the maps of memory, for programs up to a sixth slower
    "once": QUICK | {"xla_backend_optimization_level": 0},  # half of that, for programs up to five times slower
    "long": {"xla_backend_optimization_level": 3},  # speed also in a process that compiles in another way
}


def n_workers() -> int:
    """Programs that run side by side: as many as there are cores for this process, one on an accelerator."""
    return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" and hasattr(os, "sched_getaffinity") else 1


def side_by_side(calls: Sequence[Call], n_threads: int) -> list:
    """The answers, ready, of programs that n_threads threads run."""
    if len(calls) <= 1:
        return [jax.block_until_ready(program(*arguments)) for program, arguments in calls]
    run = _in_this_context(lambda program, arguments: jax.block_until_ready(program(*arguments)))
    return list(_threads(n_threads).map(run, *zip(*calls, strict=True)))


def begin_side_by_side(calls: Sequence[Call]) -> list:
    """The answers, perhaps not ready yet, of one program for each core.

    Each has a thread of its own: XLA runs what comes from one thread in turn.
    """
    (first, arguments), *others = calls
    run = _in_this_context(lambda program, arguments: program(*arguments))
    coming = [_thread(i).submit(run, *call) for i, call in enumerate(others)]
    return [first(*arguments), *(answer.result() for answer in coming)]


def on_another_core(function) -> None:
    """Begins to call a function, whose answer and errors nobody waits for."""
    _thread("ahead").submit(_in_this_context(function))


def _in_this_context(function):
    """The function for another thread, where it finds this thread's width of numbers: JAX keeps settings by thread."""
    wide = jax.dtypes.canonicalize_dtype(float) == np.float64

    def run(*arguments):
        with jax.enable_x64(wide):
            return function(*arguments)

    return run


def divide(rows) -> list:
    """Parts of a tree's leading axis, one for each core; the last row fills them up to one size, so to one program."""
    n_rows = jax.tree.leaves(rows)[0].shape[0]
    size = -(-n_rows // n_workers())
    return _parts(rows, size, -(-n_rows // size))


@partial(jax.jit, static_argnames=("size", "n_parts"))
def _parts(rows, size, n_parts):
    last = jax.tree.leaves(rows)[0].shape[0] - 1
    places = [np.minimum(np.arange(i * size, (i + 1) * size), last) for i in range(n_parts)]
    return [jax.tree.map(lambda leaf, index=index: leaf[index], rows) for index in places]


def on_each(function, parts: Sequence, *shared, compiled_for: str = "speed", **static) -> list:
    """function(part, *shared, **static) of every part, side by side; what is static is given by name."""
    shared = jax.tree.map(lambda leaf: leaf if hasattr(leaf, "dtype") else np.asarray(leaf), shared)
    each = [(part, *shared) for part in parts]
    calls = [(program(function, arguments, compiled_for=compiled_for, **static), arguments) for arguments in each]
    return side_by_side(calls, n_workers())


def together(parts: Sequence, n_rows: int):
    """The first n_rows rows of all parts, in NumPy."""
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[:n_rows], *parts)


def in_batches(function, rows, most: int):
    """function of each row of a tree's leading axis, inside a program: at most so many side by side, or one by one.

    The last row fills up the last batch, so that `function` is traced and compiled once: `lax.map` has another program
    for what remains.
    """
    if most <= 1:
        return jax.lax.map(function, rows)
    n_rows = jax.tree.leaves(rows)[0].shape[0]
    n_batches = -(-n_rows // most)
    if n_batches <= 1:
        return jax.vmap(function)(rows)
    size = -(-n_rows // n_batches)
    if n_batches * size > n_rows:
        places = np.minimum(np.arange(n_batches * size), n_rows - 1)
        rows = jax.tree.map(lambda leaf: leaf[places], rows)
    found = jax.lax.map(function, rows, batch_size=size)
    return jax.tree.map(lambda leaf: leaf[:n_rows], found)


def over_draws(function, draws, most: int):
    """The same of each of the draws, whose leading axes are (chains, draws)."""
    shape = jax.tree.leaves(draws)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), in_batches(function, flat, most))


def program(function, arguments: tuple, *, compiled_for: str = "speed", **static):
    """A jitted function with these static arguments, compiled for these arguments and for any thread.

    Settings of JAX belong to a thread, and a function that is traced in another one would not know the caller's: it is
    compiled here. `compiled_for`: "speed", or "quick" or "once", with less work for the compiler, or "long".
    """
    if compiled_for == "long" and LEAST not in os.environ.get("XLA_FLAGS", ""):
        compiled_for = "speed"
    leaves, tree = jax.tree.flatten(arguments)
    shapes = tuple((leaf.shape, _held_as(leaf.dtype)) for leaf in leaves)
    return compiled(function, tree, shapes, tuple(static.items()), compiled_for, jax.dtypes.canonicalize_dtype(float))


def _held_as(dtype):
    """What JAX takes an array of that type for: 32 bits while x64 is off."""
    keys = jax.dtypes.issubdtype(dtype, jax.dtypes.extended)
    return dtype if keys else jax.dtypes.canonicalize_dtype(dtype)


@kept
def compiled(function, tree, shapes, static, compiled_for, widest):
    """The program for arguments of these shapes; `widest` is JAX's float64, or float32 while x64 is off."""
    arguments = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*shape) for shape in shapes])

    def build():
        return function.lower(*arguments, **dict(static)).compile(compiler_options=_options(compiled_for))

    said = [(shape, str(dtype)) for shape, dtype in shapes]
    return found_or(build, (arguments, {}), function, tree, said, static, compiled_for, str(widest))


@cache
def _options(compiled_for):
    if jax.default_backend() != "cpu":
        return None
    return as_far_as_known(COMPILED[compiled_for]) or None


@cache
def _threads(n):
    return ThreadPoolExecutor(n, thread_name_prefix="cores")


@cache
def _thread(i):
    return ThreadPoolExecutor(1, thread_name_prefix=f"core{i}")
