"""How do time and memory of EM grow with the number of rows, in memory, streamed, over processes and on a Dask cluster?

Data: n rows of a mixture in a .npy file, K = 8, d = 4; "cold": the file was put out of the page cache before.
Methods: some iterations from one start, each row of the table in a process of its own. Processes have a core each and
    add their sums once an iteration: the same rows over more of them (strong scaling), and as many for each (weak).
Performance: seconds, medians over iterations; the peak memory of the process, and what of it lies above the peak before
    any row was read.

Expected: at K = 8, d = 4 in float32 a streamed iteration takes at most twice as long for each row as one in memory, and
the peak stays under 1 GB at any n (n = 10⁸ is a file of 1.6 GB). The fits agree in log-likelihood to 1e-10 wherever
their rows lie. Found: see results/scale.
"""

import json
import socket
import tempfile
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from gmm_jax import problems, sample
from gmm_jax.bench import report, store
from gmm_jax.bench.runner import derive_key
from gmm_jax.shell import experiment
from shared.cells import RUN, Options, ask, groups
from speed.processes import run_together
from speed.rows import iterations

SIZES, STREAMED = (100_000, 1_000_000, 10_000_000), 100_000_000
N_FEATURES, N_COMPONENTS = 4, 8
CHUNK = 1_000_000  # rows drawn
SHARED = ((1_000_000, 1), (1_000_000, 2), (2_000_000, 1), (2_000_000, 2))  # rows of all, processes
MOST_SECONDS = 600.0  # of one cell


def main(*, largest: int = STREAMED, run: Options = RUN) -> int:
    """One row for each n, dtype and way to out/scale; exit code 3 where an expectation is not met.

    Args:
        largest: leave out what has more rows; at most 10⁸, which is streamed only and needs 1.6 GB of disk.
        run: where to, and how much.
    """
    plan = [(n, dtype, way, 1) for n in SIZES for dtype in ("float32", "float64") for way in ("memory", "stream")]
    plan += [(STREAMED, "float32", "stream", 1)]
    plan += [(n, "float64", "sharded", processes) for n, processes in SHARED] + [(1_000_000, "float64", "dask", 2)]
    if run.smoke:
        plan = [(5000, "float32", "memory", 1), (5000, "float32", "stream", 1), (5000, "float64", "sharded", 2)]
    names = ("n", "dtype", "way", "processes")
    cells = [dict(zip(names, cell, strict=True)) for cell in plan if cell[0] <= largest]
    with tempfile.TemporaryDirectory() as folder:
        measure = partial(in_processes, folder=Path(folder))
        return ask(__doc__, "scale", cells, measure, verdict, run, {"largest": largest}, draw=show)


# ---- one measurement


def in_processes(n, dtype, way, processes, folder):
    """Rows of the table, one for each state of the page cache; the file is made where it is not there."""
    about = {"d": N_FEATURES, "K": N_COMPONENTS, "cache": "warm"}
    if way == "dask" and find_spec("distributed") is None:
        return about | {"status": "unavailable", "reason": "pip install 'gmm-jax[cluster]'"}
    truth = problems.separated_mixture(derive_key(0, "data", "scale"), N_COMPONENTS, N_FEATURES, 4.0)
    file = folder / f"{n}_{dtype}.npy"
    if not file.exists():
        for old in folder.iterdir():
            old.unlink()
        write_rows(file, truth, n, dtype)
    program = ["-m", "speed.rows", way, str(file), json.dumps(store.mixture_record(truth))]
    places = [[]]
    if way == "sharded":
        address = f"127.0.0.1:{free_port()}"
        places = [[str(rank), str(processes), address] for rank in range(processes)]
    try:
        seen = [json.loads(said) for said in run_together([program + place for place in places], timeout=MOST_SECONDS)]
    except OSError as error:
        return about | {"status": "FAILED", "reason": str(error)}
    about |= {"status": "OK", "log_likelihood": seen[0]["log_likelihood"], "seconds_first": seen[0]["seconds_first"]}
    about |= {name: max(each[name] for each in seen) for name in ("peak_mb", "peak_mb_above")}
    seconds = {cache: seen[0][cache] for cache in ("warm", "cold") if cache in seen[0]}
    return [
        about | {"cache": cache, "seconds_per_iteration": s, "rows_per_second": n / s} for cache, s in seconds.items()
    ]


def free_port():
    """A port of this machine that nobody listens at."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
    ways = groups(sound, "way")
    if not {"stream", "memory"} <= set(ways) or any(row["status"] == "FAILED" for row in rows):
        return False, "Some cells failed: see rows.csv."
    largest = max(row["n"] for row in ways["stream"])
    speed = {row["cache"]: row["rows_per_second"] for row in ways["stream"] if row["n"] == largest}
    most = max(ways["memory"], key=lambda row: row["n"])
    relative, peak = speed["warm"] / most["rows_per_second"], max(row["peak_mb"] for row in ways["stream"])
    sentence = (
        f"Streamed in float32, EM at n = {largest:,}, d = {N_FEATURES}, K = {N_COMPONENTS} takes {speed['warm']:.3g} "
        f"rows a second for each iteration ({speed['cold']:.3g} from a cold page cache), {relative:.2f} times the "
        f"speed in memory at n = {most['n']:,}; the peak of its process is {peak:.0f} MB."
    )
    agree, said = agreement(rows)
    return agree and relative >= 0.5 and peak < 1024.0, sentence + scaling(rows) + said


def scaling(rows):
    """What a second process brings, in a sentence."""
    found = {(r["n"], r["processes"]): r["seconds_per_iteration"] for r in rows if r["way"] == "sharded"}
    (small, _), *_, (large, _) = SHARED
    if not {(small, 1), (large, 1), (large, 2)} <= set(found):
        return ""
    strong, weak = found[large, 1] / found[large, 2], found[large, 2] / found[small, 1]
    return (
        f" Over two processes with a core each an iteration of {large:,} rows is {strong:.2f} times as fast as in one, "
        f"and twice the rows take {weak:.2f} times as long as half of them in one (ideal: 2 and 1)."
    )


def agreement(rows):
    """Whether fits of the same rows in float64 agree wherever the rows lie, and the sentence that says how far."""
    known = [row for row in rows if row.get("log_likelihood") is not None and row["dtype"] == "float64"]
    known = [row | {"iterations": iterations(row["n"], row["way"])} for row in known]
    ends = [[row["log_likelihood"] for row in mine] for mine in groups(known, "n", "iterations").values()]
    ends = [each for each in ends if len(each) > 1]
    if not ends:
        return True, ""
    worst = max(np.ptp(each) / abs(each[0]) for each in ends)
    said = f" Fits of the same rows by as many iterations agree in log-likelihood to {worst:.1e} wherever the rows lie."
    return bool(worst <= 1e-10), said


def show(_, rows):
    """The rows in the terminal."""
    columns = ("n", "dtype", "way", "processes", "cache", "s/iteration", "rows/s", "peak MB", "of it above")
    cells = [
        (f"{r['n']:,}", r["dtype"], r["way"], str(r["processes"]), r["cache"], f"{r['seconds_per_iteration']:.3g}",
         f"{r['rows_per_second']:.3g}", f"{r['peak_mb']:.0f}", f"{r.get('peak_mb_above') or 0.0:.0f}")
        for r in rows if r["status"] == "OK"
    ]  # fmt: skip
    report.print_table(report.console(), "EM against n", report.Table(columns, tuple(cells)))


if __name__ == "__main__":
    experiment(main)
