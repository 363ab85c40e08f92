"""The results table of a comparison of speeds, and what its parts have in common: stopping rules, programs."""

from __future__ import annotations

from gmm_jax.bench import store
from shared.cells import open_study

from .programs import ITERATIONS
from .ratios import usable_cores

TOL, TIGHT = 1e-6, 1e-8  # gain in mean log-likelihood a sample at which both sides stop; TIGHT where answers count
RIDGE = 1e-6  # reg_covar of both sides, in the units of x: scikit-learn's default
MAX_ITER = 2000
RULE = "gain in mean log-likelihood a sample ≤ tol (ours), < tol (scikit-learn)"


class ResultsTable:
    """The rows on disk, written whole after every case, so that a run can be cut short and go on."""

    def __init__(self, study, run):
        self.study, self.folder, self.smoke, self.fresh = study, study.folder, run.smoke, run.fresh

    @property
    def rows(self):
        """All rows of the study."""
        return self.study.rows

    def lacks(self, part, case):
        """Whether this case is to be measured."""
        return self.fresh or not any((row["part"], row["case"]) == (part, case) for row in self.rows)

    def put(self, part, case, rows):
        """Replace the rows of this case; the others keep what made them."""
        about = {"part": part, "case": case, "cores": usable_cores(), "smoke": self.smoke}
        new = (store.plain(about | row) for row in rows)
        self.study.rows = [row for row in self.study.rows if (row["part"], row["case"]) != (part, case)]
        self.study.put(*new)
        print(f"{part}, {case}: " + "; ".join(map(shown, (row for row in rows if row.get("seconds")))), flush=True)


def measure_parts(doc, name, parts, chosen, sizes, verdict, run, options, *more, seeds=1):
    """Exit code: the chosen parts, (table, *more, **sizes) -> None, one after the other, and the answer."""
    with open_study(doc, name, run, options, steps=len(chosen), seeds=seeds) as study:
        table = ResultsTable(study, run)
        for part in chosen:
            parts[part](table, *more, **sizes)
            study.step()
    met, sentence = verdict(study.rows)
    return study.conclude(sentence, met=met)


def shown(row):
    """A row for the eye."""
    times = f", {row['ratio']:.3g} times {row['against']}" if row.get("ratio") is not None else ""
    return f"{row['method']} {row['seconds']:.3g} s{times}"


def sklearn_ways(smoke):
    """The ways of scikit-learn that are timed; a smoke run takes the one that other work disturbs least."""
    return ["scikit-learn one thread"] if smoke else ["scikit-learn", "scikit-learn workers"]


def about_fits(smoke, **common):
    """What rows of whole fits say of each method."""
    common = {"precision": "float64", "reg_covar": RIDGE, "stopping": RULE, **common}
    threads = {name: ITERATIONS[name].threads for name in sklearn_ways(smoke)}
    return {name: common | {"threads": said} for name, said in ({"gmm_jax": "XLA's own"} | threads).items()}
