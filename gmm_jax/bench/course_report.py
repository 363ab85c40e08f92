"""The course's experiments as people see them: tables, pictures, rows, draws and one report."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from .. import problems
from ..mixture import Status
from . import plots, provenance, report, store
from .clock import Clock
from .course import KNOWING, QUESTION, Course, errors_of, in_order
from .draws import write_draws
from .landscape import rows_of


def parameter_table(course: Course, case: str) -> report.Table:
    """Rows φ, μ, Σ; columns truth and every method ± its uncertainty, with its error in units of that."""
    trials = course.trials[case]
    answers = {
        name: (None, None, Status.FAILED)
        if trial.fit is None
        else (in_order(trial.fit.point, trial), errors_of(trial), trial.fit.status)
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
    any_trial = next(iter(course.trials["Case II"].values()))
    pictures = {
        "data": [_picture(folder / f"{name}_data.png", "The samples.", plots.data, any_trial.x, any_trial.labels)]
    }
    for case, trials in course.trials.items():
        stem = f"{name}_{case.lower().replace(' ', '_')}"
        pictures[case] = [*_draw_iterations(course, case, folder, stem), *_draw_answers(trials, case, folder, stem)]
    ends = rows_of(course.starts.optima, course.starts.fits.status, any_trial.x, any_trial.spec)
    caption = f"Case II: where {course.starts.fits.status.size} of the course's random starts end."
    path = folder / f"{name}_landscape.png"
    pictures["Case II"].append(_picture(path, caption, plots.landscape, ends))
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
    with_errors = {name: (points[name], errors_of(trial)) for name, trial in done.items()}
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
    checksums = _write_draws(courses, folder)
    sections = []
    for course in courses:
        pictures = draw(course, folder)
        description = problems.load(course.problem).description
        sections.append(report.Section(course.problem, (description,), figures=pictures["data"]))
        for case in course.trials:
            tables = (parameter_table(course, case), score_table(course, case))
            heading = f"{course.problem}, {case}: {KNOWING[case]}"
            sections.append(report.Section(heading, (), tables, pictures[case]))
    answer = "\n".join(f"{course.problem}: {course.answer}" for course in courses if course.answer)
    config = {"problems": [course.problem for course in courses], "seed": seed}
    about = {"rows": len(trials), "seeds": [seed], "doc": QUESTION, "answer": answer}
    record = provenance.entry(command, config, started, datetime.now(UTC), clock.so_far(), **about)
    store.write_json(folder / "provenance.json", [record | {"draws": checksums}])
    summary = f"«{QUESTION}»\n\n" + "\n\n".join(f"{c.problem}: {c.answer}" for c in courses)
    return report.write_html(folder / "report.html", "The course's experiments", summary, sections, record)


def _write_draws(courses, folder):
    """netCDF of every posterior; their SHA-256 by file name."""
    checksums = {}
    for course in courses:
        for case, trials in course.trials.items():
            for name, trial in trials.items():
                if trial.fit is not None and trial.fit.draws is not None:
                    file = f"{course.problem}_{case.lower().replace(' ', '_')}_{name}.nc"
                    tree = trial.fit.draws.to_datatree(trial.x)
                    checksums[file] = write_draws(folder / "draws" / file, tree)
    return checksums
