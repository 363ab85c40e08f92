"""gmm-jax demo: the course's four experiments as tables in the terminal, then rows, draws, pictures and one report."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import problems as suite
from ..judge.landscape import rows_of
from ..mixture import Status
from . import plots, provenance, report, store
from .course import CASES, KNOWING, N_RANDOM_STARTS, QUESTION, Course, errors_of, in_order, run_course
from .draws import write_draws
from .runner import FAILED
from .study import Study

PROBLEMS = ("course_2d", "course_3d")
SCORES = {  # head -> column of the rows, format
    "held-out ℓ/n": ("test_log_likelihood", ".4f"),
    "ARI": ("ari", ".3f"),
    "R-hat": ("r_hat", ".3f"),
    "ESS": ("ess_bulk", ".0f"),
    "status": ("status", ""),
    "compile s": ("seconds_before", ".1f"),
    "run s": ("seconds_run", ".2f"),
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
    n_steps = len(problems) * (len(cases) * (len(methods) + 1) + 1)
    config = {"problems": list(problems), "seed": seed}
    with Study(QUESTION, name, results, config, steps=n_steps, seeds=[seed], command=command) as study:
        options = {"cases": cases, "n_random_starts": n_random_starts, "seed": seed, "step": study.step}
        courses = [run_course(problem, methods, **options) for problem in problems]
        rows = [trial.row for course in courses for trials in course.trials.values() for trial in trials.values()]
        study.put(*rows)
    spent = study.clock.so_far()
    if not as_json:
        _print(courses, spent)
    with report.progress_bar("drawing pictures"):
        checksums: dict[str, str] = {}  # of the draws, by file name
        sections = [section for course in courses for section in _sections(course, study.folder, checksums)]
        captions = {picture.path.name: picture.caption for section in sections for picture in section.figures}
        study.answer = "\n".join(f"{course.problem}: {course.answer}" for course in courses)
        study.save(draws=checksums, pictures=captions)
        summary = "\n\n".join((f"«{QUESTION}»", *study.answer.splitlines()))
        record = provenance.summary(study.folder, rows)
        path = report.write_html(study.folder / "report.html", "The course's experiments", summary, sections, record)
    if as_json:
        answers = {course.problem: {"answer": course.answer, **course.numbers} for course in courses}
        print(json.dumps({"rows": store.plain(rows), "answers": answers, "seconds": spent}, allow_nan=False))
    else:
        report.console().print(f"Report and pictures: {path}", soft_wrap=True)
    failed = [row for row in rows if row["status"] in FAILED]
    for row in failed:
        print(f"{row['problem']}, {row['case']}, {row['method']}: {row['reason']}", file=sys.stderr)
    return 3 if failed else 0


def tables_of(course: Course, case: str) -> tuple[report.Table, report.Table]:
    """φ, μ and Σ beside the truth, a column a method; and each method's distance from the truth, status and seconds."""
    answers, lines = {}, []
    for name, trial in course.trials[case].items():
        answers[name] = (None, None, Status.FAILED)
        if trial.fit is not None:
            answers[name] = in_order(trial.fit.point, trial), errors_of(trial), trial.fit.status
        row = trial.row | {"seconds_before": trial.row["seconds_trace"] + trial.row["seconds_compile"]}
        kl = report.with_uncertainty(row.get("kl", np.nan), row.get("kl_se", np.nan))
        lines.append((name, kl, *(report.cell(row.get(column), form) for column, form in SCORES.values())))
    oracle = course.trials[case]["oracle"]
    scores = report.Table(("method", "KL from truth", *SCORES), tuple(lines), notes=NOTES)
    return report.parameter_rows(oracle.truth, oracle.spec.known, answers), scores


def _print(courses, seconds):
    """Every table, what their notes say once, the answer, and the time."""
    console, notes = report.console(), {}
    for course in courses:
        for case in course.trials:
            heads = f"{course.problem}, {case} ({KNOWING[case]})", ""
            for title, table in zip(heads, tables_of(course, case), strict=True):
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


# ---- the report's sections


def _sections(course, folder, checksums):
    """The data, then each case; their pictures and draws are written to the folder."""
    oracle = next(iter(course.trials.values()))["oracle"]
    figures = _drawn(folder / course.problem, [("data.png", "The samples.", plots.data, oracle.x, oracle.labels)])
    yield report.Section(course.problem, (suite.load(course.problem).description,), figures=figures)
    for case, trials in course.trials.items():
        stem = folder / f"{course.problem}_{case.lower().replace(' ', '_')}"
        figures = _drawn(stem, _case_figures(course, case))
        if case == list(course.trials)[-1]:
            ends = rows_of(course.starts.optima, course.starts.fits.status, oracle.x)
            caption = f"{case}: where {course.starts.fits.status.size} of the course's random starts end."
            figures += _drawn(folder / course.problem, [("landscape.png", caption, plots.landscape, ends)])
        for name, trial in trials.items():
            if trial.fit is not None and trial.fit.draws is not None:
                file = f"{stem.name}_{name}.nc"
                checksums[file] = write_draws(folder / "draws" / file, trial.fit.draws.to_datatree(trial.x))
        yield report.Section(f"{course.problem}, {case}: {KNOWING[case]}", (), tables_of(course, case), figures)


def _drawn(stem, figures):
    """Each (suffix, caption, plot, *arguments) as a file."""
    pictures = []
    for suffix, caption, plot, *arguments in figures:
        path = stem.with_name(f"{stem.name}_{suffix}")
        plot(path, *arguments)
        pictures.append(report.Picture(path, caption))
    return pictures


def _case_figures(course, case):
    """EM's iterations from the course's random start, then every method's answer beside the truth."""
    steps, oracle = course.iterations[case], course.trials[case]["oracle"]
    done = {name: trial for name, trial in course.trials[case].items() if trial.fit is not None}
    n_iter = len(steps.log_likelihood) - 1
    how = f"EM from one of the course's random starts, {case}: {steps.status.name} after {n_iter} iterations"
    if "em" in done:
        below = done["em"].fit.info["log_likelihood"] - steps.log_likelihood[-1]
        how += f", {below:.1f} nats below the best optimum" if below > 0.01 else ", at the best optimum"
    points = {name: in_order(trial.fit.point, trial) for name, trial in done.items()}
    errors = {name: (points[name], errors_of(trial)) for name, trial in done.items()}
    draws = {
        name: in_order(trial.fit.draws.draws, trial) for name, trial in done.items() if trial.fit.draws is not None
    }
    x, labels, truth, path = oracle.x, oracle.labels, oracle.truth, (oracle.x, steps.gmms, steps.log_likelihood)
    yield "iterations.png", f"{how}.", plots.em_iterations, *path
    yield "log_likelihood.png", "Its log-likelihood.", plots.log_likelihood, {case: steps.log_likelihood}
    yield "iterations.gif", "The same, animated.", plots.em_animation, *path
    yield "recovered.png", f"{case}: what each method recovered.", plots.recovered, x, labels, truth, points
    caption = f"{case}: errors with 95 % intervals."
    yield "errors.png", caption, plots.parameter_errors, truth, errors, oracle.spec.known
    if draws:
        caption = f"{case}: posterior draws of the means."
        yield "posterior.png", caption, plots.posterior_of_means, x, draws, truth
