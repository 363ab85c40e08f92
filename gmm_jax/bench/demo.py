"""gmm-jax demo: the course's four experiments as tables in the terminal, then rows, draws, pictures and one report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from .. import problems as suite
from ..mixture import Status
from . import plots, provenance, report, store
from .clock import Clock
from .course import CASES, KNOWING, N_RANDOM_STARTS, QUESTION, Course, errors_of, in_order, run_course
from .draws import write_draws
from .landscape import rows_of
from .runner import FAILED

PROBLEMS = ("course_2d", "course_3d")
SCORES = {  # head -> column of the rows, format
    "held-out ℓ/n": ("test_log_likelihood", ".4f"),
    "ARI": ("ari", ".3f"),
    "R-hat": ("r_hat", ".3f"),
    "ESS": ("ess_bulk", ".0f"),
}
NOTES = (
    "KL: divergence in nats ± its Monte-Carlo error; ℓ/n: mean log-likelihood of new samples; ARI: with true labels.",
    "compile s: tracing, and compiling or loading compiled programs. The oracle knows the labels.",
)


def demo(
    methods: Mapping[str, Mapping[str, Any]],
    *,
    problems=PROBLEMS,
    cases: Sequence[str] = tuple(CASES),
    n_random_starts: int = N_RANDOM_STARTS,
    seed: int = 0,
    results="results",
    name: str = "demo",
    command: str = "gmm-jax demo",
    as_json: bool = False,
) -> int:
    """Run, print, draw, write to results/NAME; returns the exit code (3 where a trial failed)."""
    folder = store.result_folder(results, name)
    started = datetime.now(UTC)
    n_steps = len(problems) * (len(cases) * (len(methods) + 1) + 1)
    with Clock() as clock:
        with report.progress_bar("demo", n_steps) as update:
            done = iter(range(n_steps + 1))
            options = {"cases": cases, "n_random_starts": n_random_starts, "seed": seed}
            options["step"] = lambda label: update(next(done), note=label)
            courses = [run_course(problem, methods, **options) for problem in problems]
        rows = [trial.row for course in courses for _, trial in _trials(course)]
        if not as_json:
            _print(courses, clock.so_far())
        with report.progress_bar("drawing pictures"):
            store.write_rows(folder, rows)
            checksums = _write_draws(courses, folder)
            sections, captions = _sections(courses, folder)
        answer = "\n".join(f"{course.problem}: {course.answer}" for course in courses)
        config, spent = {"problems": list(problems), "seed": seed}, clock.so_far()
        about = {"rows": len(rows), "seeds": [seed], "doc": QUESTION, "answer": answer}
        record = provenance.entry(command, config, started, datetime.now(UTC), spent, **about)
        store.write_json(folder / "provenance.json", [record | {"draws": checksums, "pictures": captions}])
        record["made by"] = provenance.makers(rows)
        summary = "\n\n".join((f"«{QUESTION}»", *answer.splitlines()))
        path = report.write_html(folder / "report.html", "The course's experiments", summary, sections, record)
    if as_json:
        answers = {course.problem: {"answer": course.answer, **course.numbers} for course in courses}
        print(json.dumps({"rows": store.plain(rows), "answers": answers, "seconds": spent}, allow_nan=False))
    else:
        report.console().print(f"Report and pictures: {path}", soft_wrap=True)
    failed = [row for row in rows if row["status"] in FAILED]
    for row in failed:
        print(f"{row['problem']}, {row['case']}, {row['method']}: {row['reason']}", file=sys.stderr)
    return 3 if failed else 0


def _trials(course):
    """(name of its files, trial) of every trial."""
    for case, trials in course.trials.items():
        for method, trial in trials.items():
            yield f"{_stem(course, case)}_{method}", trial


def _stem(course, case):
    return f"{course.problem}_{case.lower().replace(' ', '_')}"


# ---- tables


def parameter_table(course: Course, case: str) -> report.Table:
    """Rows φ, μ, Σ; columns truth and every method ± its uncertainty, with its error in units of that."""
    trials = course.trials[case]
    answers = {
        name: (None, None, Status.FAILED)
        if trial.fit is None
        else (in_order(trial.fit.point, trial), errors_of(trial), trial.fit.status)
        for name, trial in trials.items()
    }
    oracle = trials["oracle"]
    return report.parameter_rows(oracle.truth, oracle.spec.known, answers)


def score_table(course: Course, case: str) -> report.Table:
    """One row a method: its distance from the truth, its diagnostics, and its seconds."""
    rows = []
    for name, trial in course.trials[case].items():
        row = trial.row
        values = [(row.get(column), form) for column, form in SCORES.values()]
        values += [(row["seconds_trace"] + row["seconds_compile"], ".1f"), (row["seconds_run"], ".2f")]
        cells = [report.DASH if v is None or not np.isfinite(v) else format(v, form) for v, form in values]
        kl = report.with_uncertainty(row.get("kl", np.nan), row.get("kl_se", np.nan))
        rows.append((name, kl, *cells[: len(SCORES)], row["status"], *cells[len(SCORES) :]))
    head = ("method", "KL from truth", *SCORES, "status", "compile s", "run s")
    return report.Table(head, tuple(rows), notes=NOTES)


def _print(courses, seconds):
    """Every table, what their notes say once, the answer, and the time."""
    console, notes = report.console(), {}
    for course in courses:
        for case in course.trials:
            tables = parameter_table(course, case), score_table(course, case)
            for title, table in zip((f"{course.problem}, {case} ({KNOWING[case]})", ""), tables, strict=True):
                free = tuple(row for row in table.rows if "known" not in row)
                report.print_table(console, title, table._replace(rows=free, notes=()))
                notes |= dict.fromkeys(table.notes)
                console.print()
    for note in notes:
        console.print(note, style="dim", markup=False)
    console.print(f"\n«{QUESTION}»", style="italic")
    for course in courses:
        console.print(f"\n{course.problem}: {course.answer}")
    console.print(
        f"\n{seconds['seconds']:.1f} s: {seconds['seconds_trace']:.1f} s tracing, {seconds['seconds_compile']:.1f} s "
        f"compiling or loading compiled programs, {seconds['seconds_run']:.1f} s running."
    )


# ---- pictures and files


def _sections(courses, folder):
    """The report's sections, whose pictures are drawn into the folder, and the captions of these by file name."""
    sections = []
    for course in courses:
        pictures = _draw(course, folder)
        description = suite.load(course.problem).description
        sections.append(report.Section(course.problem, (description,), figures=pictures["data"]))
        for case in course.trials:
            tables = (parameter_table(course, case), score_table(course, case))
            sections.append(report.Section(f"{course.problem}, {case}: {KNOWING[case]}", (), tables, pictures[case]))
    return sections, {picture.path.name: picture.caption for section in sections for picture in section.figures}


def _draw(course, folder):
    """Every picture of the problem as a file; case (or "data") -> pictures."""

    def picture(name, caption, plot, *arguments):
        path = folder / name
        plot(path, *arguments)
        return report.Picture(path, caption)

    pictures = {}
    for case, trials in course.trials.items():
        stem, how, steps = _stem(course, case), _how_it_ended(course, case), course.iterations[case]
        done = {name: trial for name, trial in trials.items() if trial.fit is not None}
        points = {name: in_order(trial.fit.point, trial) for name, trial in done.items()}
        errors = {name: (points[name], errors_of(trial)) for name, trial in done.items()}
        draws = {name: in_order(t.fit.draws.draws, t) for name, t in done.items() if t.fit.draws is not None}
        oracle = trials["oracle"]
        x, labels, truth = oracle.x, oracle.labels, oracle.truth
        path = (x, steps.gmms, steps.log_likelihood)
        pictures[case] = [
            picture(f"{stem}_iterations.png", how, plots.em_iterations, *path),
            picture(f"{stem}_log_likelihood.png", "Its log-likelihood.", plots.log_likelihood, {case: path[-1]}),
            picture(f"{stem}_iterations.gif", "The same, animated.", plots.em_animation, *path),
            picture(f"{stem}_recovered.png", f"{case}: each method's fit.", plots.recovered, x, labels, truth, points),
            picture(
                *(f"{stem}_errors.png", f"{case}: errors with 95 % intervals.", plots.parameter_errors),
                *(truth, errors, oracle.spec.known),
            ),
        ]
        if draws:
            caption = f"{case}: posterior draws of the means."
            pictures[case].append(picture(f"{stem}_posterior.png", caption, plots.posterior_of_means, x, draws, truth))
    name, starts = course.problem, course.starts
    pictures["data"] = [picture(f"{name}_data.png", "The samples.", plots.data, x, labels)]
    ends = rows_of(starts.optima, starts.fits.status, x, oracle.spec)
    caption = f"{case}: where {starts.fits.status.size} of the course's random starts end."
    pictures[case].append(picture(f"{name}_landscape.png", caption, plots.landscape, ends))
    return pictures


def _how_it_ended(course, case):
    """The caption of EM's iterations."""
    steps, trial = course.iterations[case], course.trials[case].get("em")
    text = f"EM from one of the course's random starts, {case}: {steps.status.name}"
    text += f" after {len(steps.log_likelihood) - 1} iterations"
    if trial is not None and trial.fit is not None:
        below = trial.fit.info["log_likelihood"] - steps.log_likelihood[-1]
        text += f", {below:.1f} nats below the best optimum" if below > 0.01 else ", at the best optimum"
    return f"{text}."


def _write_draws(courses, folder):
    """netCDF of every posterior; their SHA-256 by file name."""
    return {
        f"{name}.nc": write_draws(folder / "draws" / f"{name}.nc", trial.fit.draws.to_datatree(trial.x))
        for course in courses
        for name, trial in _trials(course)
        if trial.fit is not None and trial.fit.draws is not None
    }
