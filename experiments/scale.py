"""How do time and memory of EM grow with the number of rows, in memory, streamed from disk, and over processes?

Data: n rows of a mixture in a .npy file, K = 8, d = 4; "cold": the file was put out of the page cache before.
Methods: some iterations from one start, each row of the table in a process of its own. Processes have a core each and
    add their sums once an iteration: the same rows over more of them (strong scaling), and as many for each (weak).
Performance: seconds, medians over iterations; the peak memory of the process, and what of it lies above the peak before
    any row was read.

Expected: at K = 8, d = 4 in float32 a streamed iteration takes at most twice as long for each row as one in memory, and
the peak stays under 1 GB at any n (with --full at n = 10⁸, 1.6 GB on disk). Found: see results/scale.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from gmm_jax import MixtureSpec, em, problems, sample
from gmm_jax.bench import report, store
from gmm_jax.bench.runner import derive_key
from gmm_jax.bench.scaling import measure
from gmm_jax.bench.study import Study
from gmm_jax.mixture import standardise
from gmm_jax.shell import configure_jax, experiment, join_ranks

SIZES = (100_000, 1_000_000, 10_000_000)
N_FEATURES, N_COMPONENTS = 4, 8
ITERATIONS = 4
CHUNK = 1_000_000  # rows drawn
SHARED = ((1, 1_000_000), (2, 1_000_000), (1, 2_000_000), (2, 2_000_000))  # processes, rows of all


def main(
    *, full: bool = False, out: Path = Path("results"), smoke: bool = False, cell: tuple[str, str, str] | None = None
) -> int:
    """One row for each n, dtype and way to out/scale; exit code 3 where an expectation is not met.

    Args:
        full: also n = 10⁸ in float32, streamed: makes a file of 1.6 GB and removes it.
        out: folder for results.
        smoke: 5,000 rows, for tests.
        cell: way, file and start of one measurement, which is printed as JSON: how this program calls itself.
    """
    if cell is not None:
        way, file, start = cell
        print(json.dumps(measured(way, Path(file), json.loads(start))))
        return 0
    sizes, dtypes = ((5000,), ("float32",)) if smoke else (SIZES, ("float32", "float64"))
    cells = [(n, dtype, way) for n in sizes for dtype in dtypes for way in WAYS]
    cells += [(100_000_000, "float32", "stream")] if full else []
    shared = () if smoke else SHARED
    options = {"full": full}
    with (
        Study(__doc__, "scale", out, options, steps=len(cells) + len(shared), smoke=smoke) as study,
        tempfile.TemporaryDirectory() as place,
    ):
        for n, dtype, way in cells:
            study.add(*in_a_process(n, dtype, way, Path(place)))
        for processes, n in shared:
            study.add(over_processes(processes, n))
    met, sentence = verdict(study.rows)
    report.print_table(report.console(), "EM against n", table(study.rows))
    return study.conclude(sentence, met=met)


# ---- one measurement


def in_a_process(n, dtype, way, place):
    """Rows of the table, one for each state of the page cache; the file is made where it is not there."""
    truth = problems.separated_mixture(derive_key(0, "data", "scale"), N_COMPONENTS, N_FEATURES, 4.0)
    file = place / f"{n}_{dtype}.npy"
    if not file.exists():
        for old in place.iterdir():
            old.unlink()
        write_rows(file, truth, n, dtype)
    start = json.dumps(store.mixture_record(truth))
    home = str(Path(em.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([home, os.environ.get("PYTHONPATH", "")])}
    arguments = [sys.executable, __file__, "--cell", way, str(file), start]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    common = {"n": n, "d": N_FEATURES, "K": N_COMPONENTS, "dtype": dtype, "way": way, "processes": 1, "devices": 1}
    if done.returncode:
        return [{**common, "cache": "warm", "status": "FAILED", "reason": done.stderr.strip()[-500:]}]
    seen = json.loads(done.stdout.splitlines()[-1])
    seconds = seen.pop("seconds")
    return [
        {**common, "cache": cache, "status": "OK", "seconds_per_iteration": s, "rows_per_second": n / s, **seen}
        for cache, s in seconds.items()
    ]


def over_processes(processes, n):
    """A row of the table: the rows of all divided among processes with a core each."""
    size = {"n_features": N_FEATURES, "n_components": N_COMPONENTS}
    seen = measure(processes, n, prepare=(configure_jax, join_ranks), **size)
    common = {"n": n, "d": N_FEATURES, "K": N_COMPONENTS, "dtype": "float64", "way": "sharded", "processes": processes}
    if seen["status"] != "OK":
        return {**common, "devices": processes, "cache": "warm", "status": "FAILED", "reason": seen["reason"]}
    seconds, peak = seen["seconds_iteration"], seen["peak_bytes"] / 2**20
    about = {"seconds_per_iteration": seconds, "rows_per_second": n / seconds, "peak_mb": peak}
    return {**common, "devices": processes, "cache": "warm", "status": "OK", **about}


def measured(way, file, start):
    """Seconds an iteration by state of the page cache, and peak memory in MB, of this process."""
    before = peak_mb()
    seconds = WAYS[way](file, store.mixture_of(start))
    return {"seconds": seconds, "peak_mb": peak_mb(), "peak_mb_above": peak_mb() - before}


def in_memory(file, start):
    """All rows in one array; the first call of a program is not timed."""
    spec = MixtureSpec(N_COMPONENTS)
    z, scaling = standardise(np.load(file), spec)
    start = jax.tree.map(lambda leaf: leaf.astype(z.dtype), scaling.inward(start))
    z, start = jax.device_put((z, start))
    config = em.EMConfig(max_iter=ITERATIONS, tol=0.0)
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        jax.block_until_ready(em.fit_em(z, start, config=config))
        seconds.append((time.perf_counter() - begun) / (ITERATIONS + 1))  # the start is summed too
    return {"warm": float(np.median(seconds[1:]))}


def streamed(file, start):
    """One pass over the file an iteration; the last iteration finds the page cache empty."""
    seconds, begun = [], time.perf_counter()

    def progress(n_iter, mean_log_likelihood):
        nonlocal begun
        seconds.append(time.perf_counter() - begun)
        if n_iter == ITERATIONS:
            forget(file)
        begun = time.perf_counter()

    config = em.EMConfig(max_iter=ITERATIONS + 1, tol=0.0)
    options = {"init": start, "config": config, "progress": progress}
    em.fit_em_stream(jax.random.key(0), problems.open_blocks(file), MixtureSpec(N_COMPONENTS), **options)
    return {"warm": float(np.median(seconds[1:-1])), "cold": seconds[-1]}  # the first holds survey and compilation


WAYS = {"memory": in_memory, "stream": streamed}


def forget(file):
    """Put the file out of the page cache."""
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_mb():
    """Of this process, MB; ru_maxrss would count the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM: memory can be measured on Linux only.")


def write_rows(file, truth, n, dtype):
    """n rows; after the first million they repeat, which time and memory do not see."""
    drawn, _ = sample(derive_key(0, "data", "scale"), truth, min(n, CHUNK))
    drawn = np.asarray(drawn, dtype)
    with open(file, "wb") as handle:
        header = {"descr": drawn.dtype.str, "fortran_order": False, "shape": (n, N_FEATURES)}
        np.lib.format.write_array_header_1_0(handle, header)
        for begin in range(0, n, CHUNK):
            handle.write(drawn[: n - begin].tobytes())


# ---- what they say


def verdict(rows):
    """Whether the expectations are met, and the sentence with the numbers."""
    sound = [row for row in rows if row["status"] == "OK" and row["dtype"] == "float32"]
    streams = [row for row in sound if row["way"] == "stream"]
    arrays = [row for row in sound if row["way"] == "memory"]
    if not streams or not arrays or any(row["status"] != "OK" for row in rows):
        return False, "Some cells failed: see rows.csv."
    largest = max(row["n"] for row in streams)
    speed = {row["cache"]: row["rows_per_second"] for row in streams if row["n"] == largest}
    most = max(arrays, key=lambda row: row["n"])
    share, peak = speed["warm"] / most["rows_per_second"], max(row["peak_mb"] for row in streams)
    sentence = (
        f"Streamed in float32, EM at n = {largest:,}, d = {N_FEATURES}, K = {N_COMPONENTS} takes {speed['warm']:.3g} "
        f"rows a second for each iteration ({speed['cold']:.3g} from a cold page cache), {share:.2f} times the speed "
        f"in memory at n = {most['n']:,}; the peak of its process is {peak:.0f} MB."
    )
    return share >= 0.5 and peak < 1024.0, sentence + scaling(rows)


def scaling(rows):
    """What a second process brings, in a sentence."""
    found = {(r["processes"], r["n"]): r["seconds_per_iteration"] for r in rows if r["way"] == "sharded"}
    if not found:
        return ""
    (_, small), (_, large) = SHARED[0], SHARED[-1]
    strong, weak = found[1, large] / found[2, large], found[1, small] / found[2, large]
    return (
        f" Over two processes with a core each an iteration of {large:,} rows is {strong:.2f} times as fast as in one, "
        f"and twice the rows take {1.0 / weak:.2f} times as long as half of them in one (ideal: 2 and 1)."
    )


def table(rows):
    """The rows as text."""
    columns = ("n", "dtype", "way", "processes", "cache", "s/iteration", "rows/s", "peak MB", "of it above")
    cells = [
        (f"{r['n']:,}", r["dtype"], r["way"], str(r["processes"]), r["cache"], f"{r['seconds_per_iteration']:.3g}",
         f"{r['rows_per_second']:.3g}", f"{r['peak_mb']:.0f}", f"{r.get('peak_mb_above') or 0.0:.0f}")
        for r in rows if r["status"] == "OK"
    ]  # fmt: skip
    return report.Table(columns, tuple(cells))


if __name__ == "__main__":
    experiment(main)
