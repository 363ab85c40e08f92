"""Weak and strong scaling: how long an iteration of a sharded fit takes over local processes, a core each.

An iteration is the difference of two fits by one compiled program, of n_iter iterations and of one, divided by
n_iter − 1: neither compilation nor the way to the first iteration is in it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import jax
import numpy as np

from .. import em
from ..em.ranks import gather
from ..mixture import GMM, MixtureSpec

REPEATS = 3
ANY_GAIN = 1e30  # a tolerance that the first step meets


def measure(
    n_processes: int,
    n_samples: int,
    *,
    prepare: Sequence[Callable[[], Any]],
    n_features: int = 8,
    n_components: int = 8,
    n_iter: int = 20,
    dtype: str = "float64",
    timeout: float = 600.0,
) -> dict[str, Any]:
    """One row: n_samples in all, divided among n_processes that are started for it on this machine.

    seconds_iteration is the median of REPEATS, seconds_cold the first fit with its compilation, peak_bytes that of the
    largest process. A run that fails is a row with a reason.

    Args:
        prepare: importable functions that each process calls first: the shell's configure_jax and join_ranks.
        timeout: seconds for all of it.
    """
    size = {"n_samples": n_samples, "n_features": n_features, "n_components": n_components, "n_iter": n_iter}
    row = {"n_processes": n_processes} | size | {"dtype": dtype}
    settings = size | {"dtype": dtype, "prepare": [f"{f.__module__}:{f.__qualname__}" for f in prepare]}
    watch = ["-n", str(n_processes), "--cores-each", "1", "--silence", "120", "--timeout", str(timeout)]
    command = [sys.executable, "-m", "gmm_jax", "launch", *watch, "--", sys.executable, "-m", __name__]
    done = subprocess.run(  # noqa: S603 - fixed words
        [*command, json.dumps(settings)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        words = [line for line in said if "Error: " in line or line.startswith("gmm-jax")]
        reason = (words or said or [""])[0].partition("Error: ")
        reason = reason[2] or reason[0]
        return row | {"status": "FAILED", "reason": reason}
    return row | {"status": "OK", "reason": ""} | json.loads(done.stdout.splitlines()[-1])


def main(settings: dict[str, Any]) -> None:
    """What a process does; rank 0 prints the times on the last line."""
    for name in settings["prepare"]:
        module, _, function = name.partition(":")
        getattr(import_module(module), function)()
    told = _times(*(settings[name] for name in ("n_samples", "n_features", "n_components", "n_iter", "dtype")))
    if jax.process_index() == 0:
        print(json.dumps(told), flush=True)


def _times(n_samples, n_features, n_components, n_iter, dtype):
    share = em.local_rows(n_samples)
    means = 4.0 * np.random.default_rng(0).standard_normal((n_components, n_features))
    rng = np.random.default_rng([1, jax.process_index()])
    x = rng.standard_normal((share.stop - share.start, n_features))
    x = (x + means[rng.integers(0, n_components, len(x))]).astype(dtype)
    identity = np.broadcast_to(np.eye(n_features), (n_components, n_features, n_features))
    start = GMM(np.full(n_components, 1.0 / n_components), means, identity)

    def seconds(tol):
        before = time.perf_counter()
        config = em.EMConfig(max_iter=n_iter, tol=tol)
        em.fit_em_sharded(jax.random.key(0), x, MixtureSpec(n_components), n_restarts=1, init=start, config=config)
        return time.perf_counter() - before

    cold = seconds(0.0)
    differences = [seconds(0.0) - seconds(ANY_GAIN) for _ in range(REPEATS)]
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds_iteration": float(np.median(differences)) / (n_iter - 1),
        "seconds_cold": cold,
        "peak_bytes": int(gather(np.array(peak)).max()),
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
