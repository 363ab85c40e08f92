"""The rows of a comparison of speeds, and what every part of it shares: what is timed, in turn, and beside what."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial

import jax
import numpy as np

from .. import store
from .measure import ratio, usable_cores
from .peers import ITERATIONS

TOL, TIGHT = 1e-6, 1e-8  # gain in mean log-likelihood a sample at which both sides stop; TIGHT where answers count
RIDGE = 1e-6  # reg_covar of both sides, in the units of x: scikit-learn's default
MAX_ITER = 2000
RULE = "gain in mean log-likelihood a sample ≤ tol (ours), < tol (scikit-learn)"


class Book:
    """The rows on disk, written whole after every case, so that a run can be cut short and go on."""

    def __init__(self, study, *, fresh):
        self.study, self.folder, self.smoke, self.fresh = study, study.folder, study.smoke, fresh
        if any(row["smoke"] != self.smoke for row in self.rows):
            raise ValueError(f"{self.folder} holds rows of another kind of run (smoke or not): choose another --out.")

    @property
    def rows(self):
        """All rows of the study."""
        return self.study.rows

    def lacks(self, part, case):
        """Whether this case is to be measured."""
        return self.fresh or not any((row["part"], row["case"]) == (part, case) for row in self.rows)

    def put(self, part, case, rows):
        """Replace the rows of this case; one that was here before keeps when and where it was measured."""
        head = {"part": part, "case": case}
        tail = {"device": jax.devices()[0].device_kind, "cores": usable_cores(), "smoke": self.smoke}
        tail["measured"] = datetime.now(UTC).isoformat(timespec="seconds")
        kept = [row for row in self.rows if (row["part"], row["case"]) != (part, case)]
        self.study.rows = [*kept, *(store.plain(head | tail | row) for row in rows)]
        store.write_rows(self.folder, self.rows)
        print(f"{part}, {case}: " + "; ".join(map(shown, (row for row in rows if row.get("seconds")))), flush=True)


def shown(row):
    """A row for the eye."""
    times = f", {row['ratio']:.3g} times {row['against']}" if row.get("ratio") is not None else ""
    return f"{row['method']} {row['seconds']:.3g} s{times}"


def compare(seconds, ours, about, **common):
    """A row a method: median and quartiles, and for the others the ratio to each of ours, with its interval.

    Args:
        seconds: method -> (pairs,), ours at least as many as any other.
        ours: names of our own methods among them.
        about: method -> what else its row says.
    """
    rows = []
    for name, values in seconds.items():
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        row = {"method": name, "seconds": middle, "seconds_low": low, "seconds_high": high, "status": "ok"}
        row |= {"n_pairs": len(values), **common, **about.get(name, {})}
        if name in ours:
            rows.append(row)
            continue
        for mine in ours:
            r = ratio(values, seconds[mine][: len(values)])
            rows.append(row | {"against": mine, "ratio": r.median, "ratio_low": r.low, "ratio_high": r.high})
            rows[-1]["coverage"] = r.coverage
    return rows


def timed_calls(works):
    """Calls for `interleave` that keep their last answer: (calls, answers)."""
    answers = {}

    def call(name):
        begin = time.perf_counter()
        answers[name] = works[name]()
        return time.perf_counter() - begin

    return {name: partial(call, name) for name in works}, answers


def sklearn_ways(smoke):
    """The ways of scikit-learn that are timed; a smoke run takes the one that other work disturbs least."""
    return ["scikit-learn one thread"] if smoke else ["scikit-learn", "scikit-learn workers"]


def about_fits(smoke, **common):
    """What rows of whole fits say of each method."""
    common = {"precision": "float64", "reg_covar": RIDGE, "stopping": RULE, **common}
    threads = {name: ITERATIONS[name].threads for name in sklearn_ways(smoke)}
    return {name: common | {"threads": said} for name, said in ({"gmm_jax": "XLA's own"} | threads).items()}
