"""The course's experiments: Case I (φ and Σ known) and Case II (nothing known) on one problem, every method beside the
truth, EM's iterations from the course's random start in pictures, and the notebook's question answered in numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from .. import em, problems
from ..mixture import GMM, MixtureSpec, Status, align
from ..mixture.starts import random
from . import plots, report
from .runner import Cell, Trial, derive_key, run

CASES = {"Case I": ("weights", "covariances"), "Case II": ()}
COURSE_MAX_ITER = 150
COURSE_TOL = 1e-4  # on the summed log-likelihood, as in the notebook
PICTURES_AT = (0, 1, 2, 3, 20, 40, 60, 80, 100, 120, 140)
N_RANDOM_STARTS = 200


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
    answer: list[str]  # the notebook's question, in numbers
    numbers: dict[str, Any]  # the same, for machines


def run_course(problem: str, *, methods=("em", "nuts", "gibbs"), seed: int = 0, options=None, step=None) -> Course:
    """All cases and methods on one data set. `step(label)` is called before each piece of work."""
    step = step or (lambda label: None)
    options = options or {}
    trials: dict[str, dict[str, Trial]] = {}
    iterations = {}
    for case, known in CASES.items():
        trials[case] = {}
        for name in ("oracle", *methods):
            step(f"{problem}, {case}: {name}")
            chosen = tuple(sorted(options.get(name, {}).items()))
            trials[case][name] = run(Cell(problem, known, method=name, seed=seed, options=chosen))
        step(f"{problem}, {case}: iterations")
        any_trial = trials[case]["oracle"]
        iterations[case] = course_iterations(derive_key(seed, "course", problem, case), any_trial.x, any_trial.spec)
    step(f"{problem}: random starts")
    answer, numbers = answer_question(problem, trials, seed)
    return Course(problem, trials, iterations, answer, numbers)


def course_iterations(key, x, spec: MixtureSpec) -> Iterations:
    """EM as in the notebook: its random start, its stopping rule, at most 150 iterations; unscaled data."""
    config = em.EMConfig(max_iter=COURSE_MAX_ITER, tol=COURSE_TOL / len(x))
    start = _random_start(key, x, spec)
    result = em.fit_em(x, start, known=spec.known, config=config)
    gmms = em.iterates(x, start, n_iter=COURSE_MAX_ITER, known=spec.known)
    n_iter = int(result.n_iter)
    kept = jax.tree.map(lambda leaf: np.asarray(leaf)[: n_iter + 1], gmms)
    return Iterations(kept, np.asarray(result.trace)[: n_iter + 1], Status(int(result.status)))


_random_start = jax.jit(random)


def answer_question(problem: str, trials, seed: int) -> tuple[list[str], dict[str, Any]]:
    """«Could it be that the algorithm will converge to the same values as in case 1?»"""
    truth = problems.load(problem).truth
    one, two = (trials[case]["em"].fit for case in CASES)
    mu_one, mu_two = (align(fit.point, truth).means for fit in (one, two))
    se_one, se_two = (_aligned_errors(fit, truth).means for fit in (one, two))
    gap = np.abs(mu_one - mu_two)
    starts = em.fit_em_restarts(
        derive_key(seed, "random starts", problem),
        trials["Case II"]["em"].x,
        trials["Case II"]["em"].spec,
        n_restarts=N_RANDOM_STARTS,
        init="random",
    )
    close = np.abs(starts.lanes.log_likelihood - two.info["log_likelihood"]) <= 1e-2
    ended_well = np.isin(starts.lanes.status, (Status.CONVERGED, Status.MAX_ITER))
    numbers = {
        "largest_gap": float(gap.max()),
        "largest_gap_in_se": float((gap / se_two).max()),
        "case_1_error_in_se": float((np.abs(mu_one - truth.means) / se_one).max()),
        "case_2_error_in_se": float((np.abs(mu_two - truth.means) / se_two).max()),
        "se_ratio": float(np.mean(se_two / se_one)),
        "share_of_random_starts": float(np.mean(close & ended_well)),
        "n_random_starts": N_RANDOM_STARTS,
    }
    sentences = [
        f"Yes, to within what the data can tell: the means of Case II lie at most {numbers['largest_gap']:.3f} "
        f"({numbers['largest_gap_in_se']:.1f} standard errors) from those of Case I.",
        f"Of {N_RANDOM_STARTS} of the course's random starts {numbers['share_of_random_starts']:.0%} reach that "
        "optimum; the others end in lower or spurious ones, so one start is not enough.",
        f"Not knowing φ and Σ makes the standard errors of the means {numbers['se_ratio']:.2f} times as large. The "
        f"largest error is {numbers['case_1_error_in_se']:.1f} standard errors in Case I and "
        f"{numbers['case_2_error_in_se']:.1f} in Case II.",
    ]
    return sentences, numbers


def _aligned_errors(fit, truth):
    """Standard errors in the truth's order."""
    from ..mixture import match, permute

    return permute(fit.standard_errors, match(fit.point, truth))


def answers(trials: dict[str, Trial]) -> dict[str, tuple]:
    """Method -> (point, standard errors, status) in the truth's order, for report.parameter_rows."""
    from ..mixture import match, permute

    found = {}
    for name, trial in trials.items():
        if trial.fit is None:
            found[name] = (None, None, trial.row["status"])
            continue
        order = match(trial.fit.point, trial.truth, trial.spec)
        errors = trial.fit.standard_errors
        found[name] = (
            permute(trial.fit.point, order),
            None if errors is None else permute(errors, order),
            trial.fit.status.name,
        )
    return found
