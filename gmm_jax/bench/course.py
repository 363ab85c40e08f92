"""The course's experiments on one problem: Case I (φ and Σ known) and Case II (nothing known), every method beside the
truth, EM's iterations from the course's random start, and the notebook's question answered in numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import em
from ..mixture import GMM, MixtureSpec, Status
from ..mixture.starts import random
from .clock import Clock
from .compare import in_order
from .runner import CASES, HERE, Cell, How, Trial, derive_key, run
from .workers import Lost

COURSE_MAX_ITER = 150
COURSE_TOL = 1e-4  # on the summed log-likelihood, as in the notebook
N_RANDOM_STARTS = 200
NEAR_BEST = 1e-2  # nats
MOST_STARTS = 20
QUESTION = "Could it be that the algorithm will converge to the same values as in case 1?"
OPEN = "Open: it takes EM's answers with standard errors in both cases."
ANSWER = (
    "{verdict}: the means of Case II lie at most {largest_gap:.3f} from those of Case I, {largest_gap_in_se:.1f} of "
    "their standard errors. Of {n_random_starts} of the course's random starts {share_of_random_starts:.0%} reach that "
    "optimum; the others end in another one or collapse, so one start is not enough. Not knowing φ and Σ makes the "
    "standard errors of the means {se_ratio:.2f} times as large; the largest error is {case_1_error_in_se:.1f} "
    "standard errors in Case I and {case_2_error_in_se:.1f} in Case II."
)


class Iterations(NamedTuple):
    """EM from one of the course's random starts, in the units of the data."""

    gmms: GMM  # leading axis: iterations
    log_likelihood: np.ndarray
    status: Status
    tried: int = 1  # starts, of which this is the last


class CaseJob(NamedTuple):
    """What is to be run on one data set in one case: all that decides its answer."""

    problem: str
    case: str
    methods: Mapping[str, Mapping[str, Any]]  # name -> options, beside the oracle
    n_random_starts: int  # 0: none
    seed: int


class CaseRun(NamedTuple):
    """What was found in one case."""

    trials: dict[str, Trial]  # by method, the oracle first
    iterations: Iterations
    starts: em.Restarts | None  # from the course's random starts, every one kept
    seconds: dict[str, float]  # as a Clock has them


class Course(NamedTuple):
    """Everything that was run on one problem."""

    problem: str
    cases: dict[str, CaseRun]
    answer: str  # the notebook's question, in numbers
    numbers: dict[str, Any]  # the same, for machines

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [trial.row for run in self.cases.values() for trial in run.trials.values()]

    @property
    def starts(self) -> em.Restarts:
        """Of the last case."""
        return list(self.cases.values())[-1].starts


def run_case(job: CaseJob) -> CaseRun:
    """Every method on one data set, EM's iterations from a random start, and where random starts end."""
    problem, case, methods, n_random_starts, seed = job
    with Clock() as clock:
        cells = [
            Cell(problem, CASES[case], method=name, seed=seed, options=tuple(sorted(options.items())))
            for name, options in ({"oracle": {}} | dict(methods)).items()
        ]
        trials = {cell.method: run(cell) for cell in cells}
        x, spec = trials["oracle"].x, trials["oracle"].spec
        found = trials["em"].fit if "em" in methods else None
        best = -np.inf if found is None else found.info["log_likelihood"]
        iterations = course_iterations(derive_key(seed, "course", problem, case), x, spec, best)
        starts = None
        if n_random_starts:
            key = derive_key(seed, "random starts", problem)
            starts = em.fit_em_restarts(key, x, spec, n_restarts=n_random_starts, init="random")
    return CaseRun(trials, iterations, starts, clock.seconds)


def run_courses(
    problems: Sequence[str],
    methods: Mapping[str, Mapping[str, Any]],
    *,
    cases: Sequence[str] = tuple(CASES),
    n_random_starts: int = N_RANDOM_STARTS,
    seed: int = 0,
    how: How = HERE,
    step: Callable[[str], None] = lambda label: None,
) -> list[Course]:
    """The cases (Case II last) on one data set of each problem by every method (name -> options), oracle first.

    `step(label)` is called after each case. The question stays open without both cases by "em".

    Raises:
        RuntimeError: a process ended before its answer.
    """
    jobs = [
        CaseJob(problem, case, dict(methods), n_random_starts if case == cases[-1] else 0, seed)
        for problem in reversed(problems)  # what takes longest first
        for case in reversed(cases)
    ]
    found = {}
    for place, done in how.answers(run_case, jobs):
        job = jobs[place]
        label = f"{job.problem}, {job.case}"
        if isinstance(done, Lost):
            raise RuntimeError(f"{label}: {done.reason}")
        found[job.problem, job.case] = done
        step(label)
    return [_course(problem, {case: found[problem, case] for case in cases}) for problem in problems]


def _course(problem, runs):
    fits = [runs[case].trials["em"].fit if case in runs and "em" in runs[case].trials else None for case in CASES]
    numbers = compare_cases(runs) if all(fit and fit.standard_errors for fit in fits) else {}
    return Course(problem, runs, ANSWER.format(**numbers) if numbers else OPEN, numbers)


def course_iterations(key, x, spec: MixtureSpec, best: float = -np.inf) -> Iterations:
    """EM as in the notebook: its random start, its stopping rule, at most 150 iterations, data as they are.

    Of the course's random starts the first that comes near the log-likelihood `best` is shown, else the last of 20.
    """
    config = em.EMConfig(max_iter=COURSE_MAX_ITER, tol=COURSE_TOL / len(x))
    for tried in range(1, MOST_STARTS + 1):
        start = _random_start(jax.random.fold_in(key, tried), x, spec)
        result = em.fit_em(x, start, known=spec.known, config=config)
        if float(result.log_likelihood) >= best - NEAR_BEST:
            break
    gmms = em.iterates(x, start, n_iter=COURSE_MAX_ITER, known=spec.known)
    n_iter = int(result.n_iter)
    kept = jax.tree.map(lambda leaf: np.asarray(leaf)[: n_iter + 1], gmms)
    return Iterations(kept, np.asarray(result.trace)[: n_iter + 1], Status(int(result.status)), tried)


_random_start = jax.jit(random)


def compare_cases(runs: Mapping[str, CaseRun]) -> dict[str, Any]:
    """The numbers that answer QUESTION, about EM's means in the truth's order."""
    found, starts = [runs[case].trials["em"] for case in CASES], list(runs.values())[-1].starts
    (one, se_one), (two, se_two) = ([gmm.means for gmm in in_order(t.row, t.truth, t.spec)] for t in found)
    gap, true = np.abs(one - two), found[0].truth.means
    ended = np.isin(starts.fits.status, (Status.CONVERGED, Status.MAX_ITER))
    missing = np.abs(starts.fits.log_likelihood - found[1].fit.info["log_likelihood"])
    return {
        "verdict": "Yes, as far as these data can tell" if (gap / se_two).max() <= 2.0 else "No",
        "largest_gap": float(gap.max()),
        "largest_gap_in_se": float((gap / se_two).max()),
        "case_1_error_in_se": float((np.abs(one - true) / se_one).max()),
        "case_2_error_in_se": float((np.abs(two - true) / se_two).max()),
        "se_ratio": float(np.mean(se_two / se_one)),
        "share_of_random_starts": float(np.mean(ended & (missing <= NEAR_BEST))),
        "n_random_starts": starts.fits.status.size,
    }
