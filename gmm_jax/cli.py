"""The command gmm-jax {demo, fit, compare, report, diff, check-method, list}.

Each command is a function: its arguments are the options, its docstring their help. JAX is imported only when a command
runs. Results go to stdout, progress and errors to stderr; docs/exit-codes.md has the exit codes.
"""

from __future__ import annotations

import functools
import json as json_format
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from . import __version__
from .bench.grid import Grid
from .shell import EXIT_OK, configure_jax, guarded

Named = Annotated[str, tyro.conf.Positional]
Folder = Annotated[Path, tyro.conf.Positional]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Address = Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")]
Texts = tuple[str, ...]
RESULTS = Path("results")


def demo(seed: int = 0, methods: Texts = ("em", "nuts", "gibbs"), out: Path = RESULTS, *, json: bool = False) -> int:
    """Run the course's four experiments: EM, NUTS and Gibbs beside the truth, with figures and a report.

    Args:
        seed: Seed of all random numbers.
        methods: Methods of estimation; `gmm-jax list` names them.
        out: Folder for results; the demo writes to demo/ in it.
        json: Print one JSON document on stdout instead of tables.
    """
    from .bench import demo

    return demo.demo(_known_methods(methods), seed=_checked(seed), results=out, as_json=json)


def fit(
    data: Annotated[Path, tyro.conf.arg(metavar="DATA"), tyro.conf.Positional],
    n_components: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 2,
    covariance_type: Literal["full", "tied", "diag", "spherical"] = "full",
    columns: Texts = (),
    method: str = "em",
    option: Texts = (),
    known: File = None,
    seed: int = 0,
    *,
    stream: bool = False,
    scheduler: Address = None,
    checkpoint: File = None,
    resume: bool = False,
    json: bool = False,
) -> int:
    """Fit a mixture to the columns of a CSV, .npy or Parquet file; exit code 3 if the answer is not to be trusted.

    Args:
        data: The file, or - for standard input; a first line of a text file without any number names the columns.
        n_components: Number of components K.
        covariance_type: Structure of the covariances Σ.
        columns: Columns to use, by name or by number from 0; all by default.
        method: Method of estimation; `gmm-jax list` names them.
        option: Options of the method as NAME=VALUE; `gmm-jax list` names them.
        known: JSON file with any of weights, means, covariances: parameters that are known; null where free.
        seed: Seed of all random numbers.
        stream: EM with one pass over the file an iteration, for files that do not fit into memory.
        scheduler: EM on a Dask cluster whose workers read the file: its address, or "local" for one on this machine.
        checkpoint: With --stream or --scheduler: a file written every few seconds, so that a crash costs little.
        resume: Go on from the checkpoint, with the options that it was written with.
        json: Print one JSON document on stdout instead of a table.
    """
    from .bench.files import fit_file, parse_options

    model = {"n_components": n_components, "covariance_type": covariance_type, "known": known, "seed": _checked(seed)}
    place = {"stream": stream, "scheduler": scheduler, "checkpoint": checkpoint, "resume": resume}
    what = {"columns": columns, "method": method, "options": parse_options(option), "as_json": json}
    return fit_file(data, **model, **place, **what, prepare=configure_jax)


def compare(
    name: Named = "compare",
    grid: Annotated[Grid, tyro.conf.arg(name="")] = Grid(),  # noqa: B008
    file: File = None,
    workers: int = 0,
    timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None,
    scheduler: Address = None,
    out: Path = RESULTS,
    *,
    json: bool = False,
) -> int:
    """Compare methods on named problems, on the same data sets: a row for each fit, tables, figures and a report.

    Args:
        name: Name of the results folder.
        file: JSON file with problems, methods, option, known, n, seeds and first_seed, in place of these options.
        workers: Number of processes that fit; 0: this one alone.
        timeout: Seconds that a fit may take; one that takes longer counts as failed.
        scheduler: Fit on a Dask cluster: its address, or "local" for one on this machine.
        out: Folder for results.
        json: Print one JSON document on stdout instead of a table.
    """
    from .bench.compare import compare as run_compare
    from .bench.grid import read_grid
    from .bench.runner import How

    if file is not None and grid != Grid():
        raise ValueError(f"options beside --file {file} would say twice what to run: put them into the file.")
    grid = grid if file is None else read_grid(file)
    _known_methods(grid.methods)
    command = shlex.join(["gmm-jax", *sys.argv[1:]])
    how = How(workers, timeout, scheduler, prepare=configure_jax)
    return run_compare(name, grid, results=out, command=command, how=how, as_json=json)


def report(folder: Folder) -> int:
    """Make the tables, figures and report.html of a results folder again, without fitting again.

    Args:
        folder: Results folder of `compare` or of an experiment.
    """
    from .bench.compare import report_folder

    return report_folder(folder)


def diff(before: Folder, after: Folder, metric: Texts = (), margin: Texts = (), *, json: bool = False) -> int:
    """Test whether results have become worse from one folder to another; exit code 3 if so.

    Args:
        before: Results folder of `compare` or of an experiment.
        after: Another one. Fits with the same problem, case, n, method and options are compared, paired by seed.
        metric: Metrics to test; by default all that have a margin of equivalence, and the proportion of failures.
        margin: Margins of equivalence as METRIC=VALUE, in place of the default ones.
        json: Print one JSON document on stdout instead of a table.
    """
    from .bench.diff import MARGINS, diff
    from .bench.files import parse_options

    return diff(before, after, metrics=metric or tuple(MARGINS), margins=parse_options(margin), as_json=json)


def check_method(method: Named, option: Texts = (), *, json: bool = False) -> int:
    """Test whether a method of your own behaves as every method must; exit code 3 if it does not.

    Args:
        method: module:function, in this folder or installed, or a name that `gmm-jax list` has.
        option: Options of the method as NAME=VALUE, for instance small sizes.
        json: Print one JSON document on stdout instead of a table.
    """
    from .bench.conformance import check_method
    from .bench.files import parse_options

    (name,) = _known_methods([method])
    return check_method(name, parse_options(option), as_json=json)


def list_all(*, json: bool = False) -> int:
    """List the named problems, the data sets, and the methods with their options.

    Args:
        json: Print one JSON document on stdout.
    """
    from . import problems
    from .bench import methods

    found = {
        "problems": {name: problems.load(name).description for name in problems.names()},
        "data sets": {name: problems.datasets.describe(name).source for name in problems.datasets.names()},
        "methods": {name: methods.load(name).summary for name in methods.available()},
    }
    options = {name: methods.load(name).options for name in methods.available()}
    if json:
        print(json_format.dumps(found | {"options": options}, indent=2, default=str))
        return EXIT_OK
    for heading, entries in found.items():
        print(heading)
        for name, text in entries.items():
            print(f"  {name:20} {text}")
            if heading == "methods":
                shown = ", ".join(f"{o}={v!r}" for o, v in options[name].items() if o not in methods.INTERNAL)
                print(f"  {'':20}   options: {shown or 'none'}")
    return EXIT_OK


COMMANDS = {"demo": demo, "fit": fit, "compare": compare, "report": report, "diff": diff}
COMMANDS |= {"check-method": check_method, "list": list_all}


def main(arguments: list[str] | None = None) -> int:
    """The command gmm-jax; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments:
        print(__version__)
        return EXIT_OK
    run = tyro.extras.subcommand_cli_from_dict(
        {name: _deferred(function) for name, function in COMMANDS.items()},
        prog="gmm-jax",
        description="Recover (φ, μ, Σ) of a Gaussian mixture by every serious method, and compare each with the truth.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    configure_jax()
    return guarded(run)


def _deferred(function):
    """What is typed is understood before anything runs."""
    return functools.wraps(function)(lambda *values, **named: functools.partial(function, *values, **named))


def _checked(seed):
    if not 0 <= seed < 1 << 63:
        raise ValueError(f"--seed must be a whole number from 0 to 2^63 - 1; got {seed}.")
    return seed


def _known_methods(names):
    """name -> no options, after a look at whether there are such methods: module:function also from this folder."""
    from .bench import methods

    here = str(Path.cwd())
    if here not in sys.path and any(":" in name for name in names):
        sys.path.append(here)
    return {methods.load(name).name: {} for name in names}


if __name__ == "__main__":
    sys.exit(main())
