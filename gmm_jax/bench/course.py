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
from .compare import in_order
from .runner import CASES, Cell, Trial, derive_key, run

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


class Course(NamedTuple):
    """Everything that was run on one problem."""

    problem: str
    trials: dict[str, dict[str, Trial]]  # case -> method -> trial
    iterations: dict[str, Iterations]  # case -> EM from a random start
    starts: em.Restarts  # of the last case, from the course's random starts, every one kept
    answer: str  # the notebook's question, in numbers
    numbers: dict[str, Any]  # the same, for machines


def run_course(
    problem: str,
    methods: Mapping[str, Mapping[str, Any]],
    *,
    cases: Sequence[str] = tuple(CASES),
    n_random_starts: int = N_RANDOM_STARTS,
    seed: int = 0,
    step: Callable[[str], None] = lambda label: None,
) -> Course:
    """The cases (Case II last) on one data set by every method (name -> options), with the oracle first.

    `step(label)` is called before each piece of work. The question stays open without both cases by "em".
    """
    trials: dict[str, dict[str, Trial]] = {case: {} for case in cases}
    iterations = {}
    for case in cases:
        for name, options in ({"oracle": {}} | dict(methods)).items():
            step(f"{problem}, {case}: {name}")
            chosen = tuple(sorted(options.items()))
            trials[case][name] = run(Cell(problem, CASES[case], method=name, seed=seed, options=chosen))
        x, spec = trials[case]["oracle"].x, trials[case]["oracle"].spec
        found = trials[case]["em"].fit if "em" in methods else None
        best = -np.inf if found is None else found.info["log_likelihood"]
        iterations[case] = course_iterations(derive_key(seed, "course", problem, case), x, spec, best)
    step(f"{problem}: random starts")
    key = derive_key(seed, "random starts", problem)
    starts = em.fit_em_restarts(key, x, spec, n_restarts=n_random_starts, init="random")
    fits = [trials[case]["em"].fit if "em" in methods and case in cases else None for case in CASES]
    numbers = compare_cases(trials, starts) if all(fit and fit.standard_errors for fit in fits) else {}
    return Course(problem, trials, iterations, starts, ANSWER.format(**numbers) if numbers else OPEN, numbers)


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


def compare_cases(trials: Mapping[str, Mapping[str, Trial]], starts: em.Restarts) -> dict[str, Any]:
    """The numbers that answer QUESTION, about EM's means in the truth's order."""
    found = [trials[case]["em"] for case in CASES]
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
