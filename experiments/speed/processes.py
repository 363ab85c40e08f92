"""Whole programs in processes of their own: a cold fit from start to exit, and the memory of a large one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import gmm_jax

from .iterations import standardised_problem
from .ratios import compare, interleave
from .searches import course
from .table import RIDGE, RULE, TOL

CACHES = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")  # what tells a process where compiled programs lie
COLD = {
    "gmm_jax": """
import sys
from gmm_jax.shell import configure_jax
configure_jax()
import jax, numpy
from gmm_jax import MixtureSpec, em
config = em.EMConfig(tol=1e-6, max_iter=2000, reg_covar=1e-6)
x = numpy.load(sys.argv[1])
found = em.fit_em_restarts(jax.random.key(0), x, MixtureSpec(2), n_restarts=int(sys.argv[2]), config=config)
print(float(found.best.log_likelihood))
""",
    "scikit-learn": """
import sys
import numpy
from sklearn.mixture import GaussianMixture
x = numpy.load(sys.argv[1])
model = GaussianMixture(2, n_init=int(sys.argv[2]), tol=1e-6, max_iter=2000, reg_covar=1e-6, random_state=0).fit(x)
print(model.score(x) * len(x))
""",
}


def cold(table, *, pairs, **_):
    """Process start to result, imports on both sides; our compilation cache filled, and empty."""
    if not table.lacks("cold", "course_2d"):
        return
    x, _ = course()
    n = 4 if table.smoke else 100
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, x)
        answers = {}

        def once(name, cache, threads=None):
            program = COLD["gmm_jax" if name.startswith("gmm_jax") else "scikit-learn"]
            seconds, answers[name] = run_program(program, [path, n], cache, threads)
            return seconds

        def empty():
            with tempfile.TemporaryDirectory() as cache:
                return once("gmm_jax, empty cache", cache)

        kept = os.environ.get("XDG_CACHE_HOME") if table.smoke else folder
        calls = {"gmm_jax": lambda: once("gmm_jax", kept)}
        calls["scikit-learn one thread"] = lambda: once("scikit-learn one thread", kept, 1)
        if not table.smoke:
            calls["scikit-learn"] = lambda: once("scikit-learn", kept)
            calls["gmm_jax, empty cache"] = empty
            interleave(calls, 1)  # fills the cache, and the system's of files
        seconds = interleave(calls, 1 if table.smoke else pairs)
    common = {"precision": "float64", "reg_covar": RIDGE, "stopping": RULE, "tol": TOL, "n_restarts": n}
    common |= {"counted": "process start to exit"}
    about = {name: common | {"log_likelihood": float(answer)} for name, answer in answers.items()}
    for name, said in about.items():
        said["start"] = "kmeans" if name.startswith("scikit-learn") else "kmeans++"
        said["threads"] = "1" if name.endswith("one thread") else "its own"
    table.put("cold", "course_2d", compare(seconds, [n for n in seconds if n.startswith("gmm_jax")], about))


MEMORY = """
import resource, sys
from gmm_jax.shell import configure_jax
configure_jax()
import jax, numpy
from gmm_jax import GMM, em
x = numpy.load(sys.argv[1])
start = GMM(*(numpy.load(sys.argv[i]) for i in (2, 3, 4)))
x = jax.block_until_ready(jax.device_put(x)) if sys.argv[5] == "device" else x
config = em.EMConfig(max_iter=3, tol=0.0, reg_covar=0.0)
program = jax.jit(em.fit_em).lower(x, start, config=config).compile()
try:
    open("/proc/self/clear_refs", "w").write("5")
except OSError:
    pass
def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name + ":")).split()[1])
before, high = status("VmRSS"), status("VmHWM")
jax.block_until_ready(program(x, start, config=config))
print(status("VmHWM") - before, high - before)
"""


def memory(table, **_):
    """Peak resident memory of fit_em above that before the call; x handed over as NumPy, and already on the device."""
    n, d, k = (2000, 2, 2) if table.smoke else (1_000_000, 16, 32)
    case = f"n={n} d={d} K={k}"
    if not table.lacks("memory", case):
        return
    common = {"n": n, "d": d, "k": k, "precision": "float64", "reg_covar": 0.0, "stopping": "3 iterations"}
    if not Path("/proc/self/status").exists():
        table.put("memory", case, [{"method": "gmm_jax", "status": "unavailable", "reason": "needs Linux", **common}])
        return
    x, start = standardised_problem(n, d, k)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        leaves = {"x": x, "weights": start.weights, "means": start.means, "covariances": start.covariances}
        paths = [Path(folder) / f"{name}.npy" for name in leaves]
        for path, leaf in zip(paths, leaves.values(), strict=True):
            np.save(path, leaf)
        for place in ("device",) if table.smoke else ("numpy", "device"):
            answer = run_program(MEMORY, [*paths, place], os.environ.get("XDG_CACHE_HOME"))[1]
            peak, earlier = map(int, answer.split())
            row = {"method": "gmm_jax", "start": "truth", "counted": f"x given on: {place}", "status": "ok"}
            rows.append(row | {"bytes_peak": peak, "bytes_earlier_peak": earlier, "times_x": peak / x.nbytes, **common})
    table.put("memory", case, rows)


def run_program(program, arguments, cache=None, threads=None):
    """(seconds, last line printed) of a Python program in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in CACHES}
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    if threads is not None:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    begin = time.perf_counter()
    (said,) = run_together([["-c", program, *map(str, arguments)]], environment)
    return time.perf_counter() - begin, said


def run_together(programs, environment=os.environ, timeout=None):
    """The last line that each Python program prints, all at once; OSError where one fails or takes too long.

    They find this checkout; none is left running.
    """
    homes = [Path(gmm_jax.__file__).parents[1], Path(__file__).parents[1], environment.get("PYTHONPATH")]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(map(str, filter(None, homes)))}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    running = [subprocess.Popen([sys.executable, *words], **options) for words in programs]
    try:
        said = [process.communicate(timeout=timeout) for process in running]
    except subprocess.TimeoutExpired:
        raise OSError(f"took longer than {timeout:g} s") from None
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, said, strict=True):
        if process.returncode:
            raise OSError(f"a program that was to be timed failed: {errors.strip()[-500:]}")
    return [out.strip().splitlines()[-1] for out, _ in said]
