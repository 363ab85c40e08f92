"""The course's experiments on one problem: Case I (φ and Σ known) and Case II (nothing known), every method beside the
truth, EM's iterations from the course's random start, and the notebook's question answered in numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import em
from ..mixture import GMM, MixtureSpec, Status, align, match, permute
from ..mixture.starts import random
from .runner import Cell, Trial, derive_key, run

CASES = {"Case I": ("weights", "covariances"), "Case II": ()}
KNOWING = {"Case I": "φ and Σ known, learn μ", "Case II": "nothing known"}
COURSE_MAX_ITER = 150
COURSE_TOL = 1e-4  # on the summed log-likelihood, as in the notebook
N_RANDOM_STARTS = 200
QUESTION = "Could it be that the algorithm will converge to the same values as in case 1?"


class Iterations(NamedTuple):
    """EM from one of the course's random starts, in the units of the data."""

    gmms: GMM  # leading axis: iterations
    log_likelihood: np.ndarray
    status: Status


class Course(NamedTuple):
    """Everything that was run on one problem."""

    problem: str
    trials: dict[str, dict[str, Trial]]  # case -> method -> trial
    iterations: dict[str, Iterations]  # case -> EM from a random start
    starts: em.Restarts  # of Case II, from the course's random starts
    answer: str  # the notebook's question, in numbers
    numbers: dict[str, Any]  # the same, for machines


Step = Callable[[str], None]


def run_course(
    problem: str,
    methods: Mapping[str, Mapping[str, Any]],
    *,
    cases: Sequence[str] = tuple(CASES),
    n_random_starts: int = N_RANDOM_STARTS,
    seed: int = 0,
    step: Step | None = None,
) -> Course:
    """The cases (Case II last) on one data set by every method (name -> options), with the oracle first.

    `step(label)` is called before each piece of work. The question stays open without both cases by "em".
    """
    step = step or (lambda label: None)
    trials: dict[str, dict[str, Trial]] = {}
    iterations = {}
    for case in cases:
        trials[case] = {}
        for name, options in ({"oracle": {}} | dict(methods)).items():
            step(f"{problem}, {case}: {name}")
            chosen = tuple(sorted(options.items()))
            trials[case][name] = run(Cell(problem, CASES[case], method=name, seed=seed, options=chosen))
        oracle = trials[case]["oracle"]
        iterations[case] = course_iterations(derive_key(seed, "course", problem, case), oracle.x, oracle.spec)
    step(f"{problem}: random starts")
    starts = random_starts(problem, oracle.x, oracle.spec, seed, n_random_starts)
    fits = [trials[case]["em"].fit if "em" in methods and case in cases else None for case in CASES]
    sure = all(fit and fit.standard_errors for fit in fits)
    answer, numbers = answer_question(trials, starts) if sure else (OPEN, {})
    return Course(problem, trials, iterations, starts, answer, numbers)


def course_iterations(key, x, spec: MixtureSpec) -> Iterations:
    """EM as in the notebook: its random start, its stopping rule, at most 150 iterations, data as they are."""
    config = em.EMConfig(max_iter=COURSE_MAX_ITER, tol=COURSE_TOL / len(x))
    start = _random_start(key, x, spec)
    result = em.fit_em(x, start, known=spec.known, config=config)
    gmms = em.iterates(x, start, n_iter=COURSE_MAX_ITER, known=spec.known)
    n_iter = int(result.n_iter)
    kept = jax.tree.map(lambda leaf: np.asarray(leaf)[: n_iter + 1], gmms)
    return Iterations(kept, np.asarray(result.trace)[: n_iter + 1], Status(int(result.status)))


_random_start = jax.jit(random)


def random_starts(problem: str, x, spec: MixtureSpec, seed: int, n_restarts: int) -> em.Restarts:
    """Many of the course's random starts, every one kept."""
    key = derive_key(seed, "random starts", problem)
    return em.fit_em_restarts(key, x, spec, n_restarts=n_restarts, init="random")


def answer_question(trials: Mapping[str, Mapping[str, Trial]], starts: em.Restarts) -> tuple[str, dict[str, Any]]:
    """QUESTION in words and in numbers, for the means, in the truth's order."""
    truth = trials["Case I"]["em"].truth
    (mu_one, se_one), (mu_two, se_two) = (
        (in_order(trials[case]["em"].fit.point, trials[case]["em"]).means, errors_of(trials[case]["em"]).means)
        for case in CASES
    )
    gap = np.abs(mu_one - mu_two)
    best = trials["Case II"]["em"].fit.info["log_likelihood"]
    ended = np.isin(starts.fits.status, (Status.CONVERGED, Status.MAX_ITER))
    share = np.mean(ended & (np.abs(starts.fits.log_likelihood - best) <= 1e-2))
    numbers = {
        "verdict": "Yes, as far as these data can tell" if (gap / se_two).max() <= 2.0 else "No",
        "largest_gap": float(gap.max()),
        "largest_gap_in_se": float((gap / se_two).max()),
        "case_1_error_in_se": float((np.abs(mu_one - truth.means) / se_one).max()),
        "case_2_error_in_se": float((np.abs(mu_two - truth.means) / se_two).max()),
        "se_ratio": float(np.mean(se_two / se_one)),
        "share_of_random_starts": float(share),
        "n_random_starts": starts.fits.status.size,
    }
    return ANSWER.format(**numbers), numbers


OPEN = "Open: it takes EM's answers with standard errors in both cases."
ANSWER = (
    "{verdict}: the means of Case II lie at most {largest_gap:.3f} from those of Case I, {largest_gap_in_se:.1f} of "
    "their standard errors. Of {n_random_starts} of the course's random starts {share_of_random_starts:.0%} reach that "
    "optimum; the others end in another one or collapse, so one start is not enough. Not knowing φ and Σ makes the "
    "standard errors of the means {se_ratio:.2f} times as large; the largest error is {case_1_error_in_se:.1f} "
    "standard errors in Case I and {case_2_error_in_se:.1f} in Case II."
)


def in_order(gmm: GMM, trial: Trial) -> GMM:
    """A mixture with its components in the truth's order."""
    return align(gmm, trial.truth, trial.spec)


def errors_of(trial):
    """Standard errors in the truth's order, None where there are none."""
    errors = trial.fit.standard_errors
    return None if errors is None else permute(errors, match(trial.fit.point, trial.truth, trial.spec))
