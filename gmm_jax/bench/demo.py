"""gmm-jax demo: the course's four experiments as tables in the terminal, then rows, draws, pictures and one report."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..judge.landscape import rows_of
from ..mixture import align
from . import plots, report, store
from .compare import case_tables, in_order, stem_of, write_report
from .course import N_RANDOM_STARTS, NEAR_BEST, QUESTION, run_courses
from .draws import write_draws
from .runner import CASES, FAILED, HERE, KNOWING, How
from .study import Study

PROBLEMS = ("course_2d", "course_3d")


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
    how: How = HERE,
    as_json: bool = False,
) -> int:
    """Run, print, draw, write to results/NAME; returns the exit code (3 where a trial failed)."""
    config = {"problems": list(problems), "seed": seed}
    steps = len(problems) * len(cases)
    with Study(QUESTION, name, results, config, steps=steps, seeds=[seed], command=command) as study:
        options = {"cases": cases, "n_random_starts": n_random_starts, "seed": seed, "how": how, "step": study.step}
        courses = run_courses(problems, methods, **options)
        rows = [row for course in courses for row in course.rows]
        study.put(*rows)
    of_cases = [run.seconds for course in courses for run in course.cases.values()]
    spent = {name: sum(seconds[name] for seconds in of_cases) for name in of_cases[0]} | {
        "seconds": study.clock.so_far()["seconds"]
    }
    if not as_json:
        _print(courses, spent, how.workers)
    with report.progress_bar("drawing pictures"):
        pictures = [picture for course in courses for picture in _drawn(course, study.folder)]
        checksums = {name: digest for course in courses for name, digest in _kept(course, study.folder)}
        study.answer = "\n".join(f"{course.problem}: {course.answer}" for course in courses)
        study.save(draws=checksums, pictures={picture.path.name: picture.caption for picture in pictures})
        path = write_report(study.folder)
    if as_json:
        answers = {course.problem: {"answer": course.answer, **course.numbers} for course in courses}
        print(json.dumps({"rows": store.plain(rows), "answers": answers, "seconds": spent}, allow_nan=False))
    else:
        report.console().print(f"Report and pictures: {path}", soft_wrap=True)
    failed = [row for row in rows if row["status"] in FAILED]
    for row in failed:
        print(f"{row['problem']}, {row['case']}, {row['method']}: {row['reason']}", file=sys.stderr)
    return 3 if failed else 0


def _print(courses, seconds, n_workers):
    """Every table, what their notes say once, the answer, and the time."""
    console, notes = report.console(), {}
    for course in courses:
        for case, run in course.cases.items():
            heads = f"{course.problem}, {case} ({KNOWING[case]})", ""
            rows = [trial.row for trial in run.trials.values()]
            for title, table in zip(heads, case_tables(rows), strict=True):
                free = tuple(row for row in table.rows if "known" not in row)
                report.print_table(console, title, table._replace(rows=free, notes=()))
                notes |= dict.fromkeys(table.notes)
                console.print()
    for note in notes:
        console.print(note, style="dim", markup=False)
    console.print(f"\n«{QUESTION}»", style="italic")
    for course in courses:
        console.print(f"\n{course.problem}: {course.answer}")
    where = f" on {n_workers} processes side by side, which slows each down" if n_workers else ""
    console.print(
        f"\n{seconds['seconds']:.1f} s{where}: {seconds['seconds_trace']:.1f} s tracing, "
        f"{seconds['seconds_compile']:.1f} s compiling or loading compiled programs, {seconds['seconds_run']:.1f} s "
        "running."
    )


# ---- pictures and draws, written to the folder


def _drawn(course, folder):
    """The data, then the pictures of each case; where the last one's random starts end."""
    oracle = next(iter(course.cases.values())).trials["oracle"]
    pictures = [(f"{course.problem}_data.png", "The samples.", plots.data, oracle.x, oracle.labels)]
    for case, run in course.cases.items():
        stem = stem_of(course.problem, case)
        pictures += [(f"{stem}_{suffix}", *rest) for suffix, *rest in _case_figures(f"{course.problem}, {case}", run)]
    ends = rows_of(course.starts.optima, course.starts.fits.status, oracle.x)
    caption = f"{case}: where {course.starts.fits.status.size} of the course's random starts end."
    pictures.append((f"{course.problem}_landscape.png", caption, plots.landscape, ends))
    for name, words, plot, *arguments in pictures:
        plot(folder / name, *arguments)
        yield report.Picture(folder / name, words)


def _kept(course, folder):
    """(file, checksum) of every posterior's draws."""
    for case, run in course.cases.items():
        for name, trial in run.trials.items():
            if trial.fit is not None and trial.fit.draws is not None:
                file = f"{stem_of(course.problem, case)}_{name}.nc"
                yield file, write_draws(folder / "draws" / file, trial.fit.draws.to_datatree(trial.x))


def _case_figures(case, run):
    """Every method's answer beside the truth, then EM's iterations from one of the course's random starts."""
    steps, oracle = run.iterations, run.trials["oracle"]
    done = {name: trial for name, trial in run.trials.items() if trial.fit is not None}
    x, labels, truth, path = oracle.x, oracle.labels, oracle.truth, (oracle.x, steps.gmms, steps.log_likelihood)
    found = {name: in_order(trial.row, truth, oracle.spec) for name, trial in done.items()}
    points = {name: point for name, (point, _) in found.items()}
    drawn = {name: trial.fit.draws.draws for name, trial in done.items() if trial.fit.draws is not None}
    draws = {name: align(gmm, truth, oracle.spec) for name, gmm in drawn.items()}
    yield "recovered.png", f"{case}: what each method recovered.", plots.recovered, x, labels, truth, points
    caption = f"{case}: errors with 95 % intervals."
    yield "errors.png", caption, plots.parameter_errors, truth, found, oracle.spec.known
    if draws:
        caption = f"{case}: posterior draws of the means."
        yield "posterior.png", caption, plots.posterior_of_means, x, draws, truth
    caption = _story(steps, done["em"].fit.info["log_likelihood"] if "em" in done else None)
    yield "iterations.png", f"{case}: {caption}", plots.em_iterations, *path
    yield "log_likelihood.png", "Its log-likelihood.", plots.log_likelihood, {case: steps.log_likelihood}
    yield "iterations.gif", "The same, step by step.", plots.em_animation, *path


def _story(steps, best):
    """How EM's iterations ended, and how many of the course's random starts ended lower before."""
    n_iter, below = len(steps.log_likelihood) - 1, 0.0 if best is None else best - steps.log_likelihood[-1]
    place = f", {below:.1f} nats below the best optimum" if below > NEAR_BEST else ""
    before = f"; the {steps.tried - 1} before it ended lower" if steps.tried > 1 else ""
    return f"EM from one of the course's random starts: {steps.status.name} after {n_iter} iterations{place}{before}."
