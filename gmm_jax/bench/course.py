"""The course's experiments on one problem: Case I (φ and Σ known) and Case II (nothing known), every method beside the
truth, EM's iterations from the course's random start, and the notebook's question answered in numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import em, problems
from ..mixture import GMM, MixtureSpec, Status, align, match, permute
from ..mixture.starts import random
from . import plots, report, store
from .clock import Clock
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
    landscape: em.Optima  # of Case II from the course's random starts
    answer: str  # the notebook's question, in numbers
    numbers: dict[str, Any]  # the same, for machines


Step = Callable[[str], None]


def run_course(
    problem: str, methods: Mapping[str, Mapping[str, Any]], *, seed: int = 0, step: Step | None = None
) -> Course:
    """Both cases on one data set by every method (name -> options), with the oracle first.

    `step(label)` is called before each piece of work. Without "em" among the methods the question stays open.
    """
    step = step or (lambda label: None)
    trials: dict[str, dict[str, Trial]] = {}
    iterations = {}
    for case, known in CASES.items():
        trials[case] = {}
        for name, options in ({"oracle": {}} | dict(methods)).items():
            step(f"{problem}, {case}: {name}")
            chosen = tuple(sorted(options.items()))
            trials[case][name] = run(Cell(problem, known, method=name, seed=seed, options=chosen))
        oracle = trials[case]["oracle"]
        iterations[case] = course_iterations(derive_key(seed, "course", problem, case), oracle.x, oracle.spec)
    step(f"{problem}: random starts")
    starts = random_starts(problem, oracle.x, oracle.spec, seed)
    sure = "em" in methods and all(trials[case]["em"].fit and trials[case]["em"].fit.standard_errors for case in CASES)
    answer, numbers = answer_question(trials, starts) if sure else ("EM gave no answer with standard errors.", {})
    return Course(problem, trials, iterations, starts.optima, answer, numbers)


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


def random_starts(problem: str, x, spec: MixtureSpec, seed: int) -> em.Restarts:
    """Many of the course's random starts, every one kept."""
    key = derive_key(seed, "random starts", problem)
    return em.fit_em_restarts(key, x, spec, n_restarts=N_RANDOM_STARTS, init="random")


def answer_question(trials: Mapping[str, Mapping[str, Trial]], starts: em.Restarts) -> tuple[str, dict[str, Any]]:
    """QUESTION in words and in numbers, for the means, in the truth's order."""
    truth = trials["Case I"]["em"].truth
    (mu_one, se_one), (mu_two, se_two) = (
        (in_order(trials[case]["em"].fit.point, trials[case]["em"]).means, _errors_of(trials[case]["em"]).means)
        for case in CASES
    )
    gap = np.abs(mu_one - mu_two)
    best = trials["Case II"]["em"].fit.info["log_likelihood"]
    ended = np.isin(starts.lanes.status, (Status.CONVERGED, Status.MAX_ITER))
    share = np.mean(ended & (np.abs(starts.lanes.log_likelihood - best) <= 1e-2))
    numbers = {
        "verdict": "Yes, as far as these data can tell" if (gap / se_two).max() <= 2.0 else "No",
        "largest_gap": float(gap.max()),
        "largest_gap_in_se": float((gap / se_two).max()),
        "case_1_error_in_se": float((np.abs(mu_one - truth.means) / se_one).max()),
        "case_2_error_in_se": float((np.abs(mu_two - truth.means) / se_two).max()),
        "se_ratio": float(np.mean(se_two / se_one)),
        "share_of_random_starts": float(share),
        "n_random_starts": N_RANDOM_STARTS,
    }
    return ANSWER.format(**numbers), numbers


ANSWER = (
    "{verdict}: the means of Case II lie at most {largest_gap:.3f} from those of Case I, {largest_gap_in_se:.1f} of "
    "their standard errors. Of {n_random_starts} of the course's random starts {share_of_random_starts:.0%} reach that "
    "optimum; the others end in another one or collapse, so one start is not enough. Not knowing φ and Σ makes the "
    "standard errors of the means {se_ratio:.2f} times as large; the largest error is {case_1_error_in_se:.1f} standard "
    "errors in Case I and {case_2_error_in_se:.1f} in Case II."
)


def in_order(gmm: GMM, trial: Trial) -> GMM:
    """A mixture with its components in the truth's order."""
    return align(gmm, trial.truth, trial.spec)


def _errors_of(trial):
    """Standard errors in the truth's order, None where there are none."""
    errors = trial.fit.standard_errors
    return None if errors is None else permute(errors, match(trial.fit.point, trial.truth, trial.spec))


# ---- what is shown


def parameter_table(course: Course, case: str) -> report.Table:
    """Rows φ, μ, Σ; columns truth and every method ± its uncertainty, with its error in units of that."""
    trials = course.trials[case]
    answers = {
        name: (None, None, Status.FAILED)
        if trial.fit is None
        else (in_order(trial.fit.point, trial), _errors_of(trial), trial.fit.status)
        for name, trial in trials.items()
    }
    any_trial = next(iter(trials.values()))
    return report.parameter_rows(any_trial.truth, any_trial.spec.known, answers)


def score_table(course: Course, case: str) -> report.Table:
    """One row a method: how near it came, how sure it was, how long it took."""
    head = ("method", "KL from truth", "held-out ℓ/n", "ARI", "R-hat", "ESS", "status", "compile s", "run s")
    rows = []
    for name, trial in course.trials[case].items():
        row = trial.row
        kl = report.with_uncertainty(row["kl"], row["kl_se"]) if "kl" in row else report.DASH
        shown = [_number(row.get("test_log_likelihood"), ".4f"), _number(row.get("ari"), ".3f")]
        shown += [_number(row.get("r_hat"), ".3f"), _number(row.get("ess_bulk"), ".0f"), row["status"]]
        spent = [f"{row['seconds_trace'] + row['seconds_compile']:.1f}", f"{row['seconds_run']:.2f}"]
        rows.append((name, kl, *shown, *spent))
    notes = ("compile: tracing, and compiling or loading compiled programs. The oracle was told the labels.",)
    return report.Table(head, tuple(rows), notes=notes)


def _number(value, form):
    return report.DASH if value is None or not np.isfinite(value) else format(value, form)


def draw(course: Course, folder: Path) -> dict[str, list[report.Picture]]:
    """Every picture of the problem as a file; case (or "data") -> pictures."""
    name = course.problem
    any_trial = next(iter(course.trials["Case I"].values()))
    pictures = {
        "data": [_picture(folder / f"{name}_data.png", "The samples.", plots.data, any_trial.x, any_trial.labels)]
    }
    for case, trials in course.trials.items():
        stem = f"{name}_{case.lower().replace(' ', '_')}"
        pictures[case] = [*_draw_iterations(course, case, folder, stem), *_draw_answers(trials, case, folder, stem)]
    optima = course.landscape
    caption = f"Case II: where {N_RANDOM_STARTS} of the course's random starts end."
    path = folder / f"{name}_landscape.png"
    pictures["Case II"].append(
        _picture(path, caption, plots.landscape, optima.log_likelihood, optima.count, optima.spurious)
    )
    return pictures


def _draw_iterations(course, case, folder, stem):
    """EM from the course's random start: stills, the trace, and an animation."""
    x = next(iter(course.trials[case].values())).x
    steps = course.iterations[case]
    end = steps.log_likelihood[-1]
    n_iter = len(steps.log_likelihood) - 1
    how = f"EM from one of the course's random starts, {case}: {steps.status.name} after {n_iter} iterations"
    em_trial = course.trials[case].get("em")
    if em_trial is not None and em_trial.fit is not None:
        below = em_trial.fit.info["log_likelihood"] - end
        how += f", {below:.1f} nats below the best optimum" if below > 0.01 else ", at the best optimum"
    arguments = (x, steps.gmms, steps.log_likelihood)
    return [
        _picture(folder / f"{stem}_iterations.png", f"{how}.", plots.em_iterations, *arguments),
        _picture(
            folder / f"{stem}_log_likelihood.png",
            "Its log-likelihood.",
            plots.log_likelihood,
            {case: steps.log_likelihood},
        ),
        _picture(folder / f"{stem}_iterations.gif", "The same, animated.", plots.em_animation, *arguments),
    ]


def _draw_answers(trials, case, folder, stem):
    """Every method's answer beside the truth."""
    done = {name: trial for name, trial in trials.items() if trial.fit is not None}
    any_trial = next(iter(trials.values()))
    points = {name: in_order(trial.fit.point, trial) for name, trial in done.items()}
    with_errors = {name: (points[name], _errors_of(trial)) for name, trial in done.items()}
    draws = {
        name: in_order(trial.fit.draws.draws, trial) for name, trial in done.items() if trial.fit.draws is not None
    }
    x, labels, truth, known = any_trial.x, any_trial.labels, any_trial.truth, any_trial.spec.known
    found = [
        _picture(
            folder / f"{stem}_recovered.png",
            f"{case}: what each method recovered.",
            plots.recovered,
            x,
            labels,
            truth,
            points,
        ),
        _picture(
            folder / f"{stem}_errors.png",
            f"{case}: errors with 95 % intervals.",
            plots.parameter_errors,
            truth,
            with_errors,
            known,
        ),
    ]
    if draws:
        path = folder / f"{stem}_posterior.png"
        found.append(
            _picture(path, f"{case}: posterior draws of the means.", plots.posterior_of_means, x, draws, truth)
        )
    return found


def _picture(path, caption, plot, *arguments):
    plot(path, *arguments)
    return report.Picture(path, caption)


# ---- to disk


def write_course(
    courses: list[Course], folder: Path, *, command: str, started: datetime, clock: Clock, seed: int
) -> Path:
    """Rows, draws, pictures, provenance and report.html of one or more problems."""
    trials = [trial for course in courses for of_case in course.trials.values() for trial in of_case.values()]
    store.write_rows(folder, [trial.row for trial in trials])
    _write_draws(courses, folder)
    sections = []
    for course in courses:
        pictures = draw(course, folder)
        description = problems.load(course.problem).description
        sections.append(report.Section(course.problem, (description,), figures=pictures["data"]))
        for case in course.trials:
            tables = (parameter_table(course, case), score_table(course, case))
            heading = f"{course.problem}, {case}: {KNOWING[case]}"
            sections.append(report.Section(heading, (), tables, pictures[case]))
    answer = " ".join(f"{course.problem}: {course.answer}" for course in courses if course.answer)
    config = {"problems": [course.problem for course in courses], "seed": seed}
    record = store.provenance(
        command, config, started, datetime.now(UTC), clock.so_far(), seeds=[seed], question=QUESTION, answer=answer
    )
    store.write_json(folder / "provenance.json", record)
    summary = f"«{QUESTION}»\n\n" + "\n\n".join(f"{c.problem}: {c.answer}" for c in courses)
    return report.write_html(folder / "report.html", "The course's experiments", summary, sections, record)


def _write_draws(courses, folder):
    for course in courses:
        for case, trials in course.trials.items():
            for name, trial in trials.items():
                if trial.fit is not None and trial.fit.draws is not None:
                    file = f"{course.problem}_{case.lower().replace(' ', '_')}_{name}.nc"
                    store.write_draws(folder / "draws" / file, trial.fit.draws.to_datatree(trial.x))
