"""The command gmm-jax {demo, fit, compare, report, diff, check-method, list}.

Each command is a frozen dataclass: its fields are its options, its docstring its help. JAX is imported only when a
command runs. Results go to stdout, progress and errors to stderr; docs/exit-codes.md has the exit codes.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from . import __version__
from .bench.grid import Grid
from .shell import EXIT_OK, configure_jax, guarded

File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Text = Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")]


@dataclass(frozen=True)
class Demo:
    """Run the course's four experiments: EM, NUTS and Gibbs beside the truth, with figures and a report."""

    seed: int = 0
    """Seed of all random numbers."""
    methods: tuple[str, ...] = ("em", "nuts", "gibbs")
    """Methods of estimation; `gmm-jax list` names them."""
    out: Path = Path("results")
    """Folder for results; the demo writes to demo/ in it."""
    json: bool = False
    """Print one JSON document on stdout instead of tables."""

    def run(self) -> int:
        from .bench.demo import demo

        return demo(_known_methods(self.methods), seed=self.seed, results=self.out, as_json=self.json)


@dataclass(frozen=True)
class Fit:
    """Fit a mixture to the columns of a CSV, .npy or Parquet file; exit code 3 if the answer is not to be trusted."""

    data: Annotated[Path, tyro.conf.Positional]
    """The file, or - for standard input; a first row of a text file without any number names the columns."""
    n_components: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 2
    """Number of components K."""
    covariance_type: Literal["full", "tied", "diag", "spherical"] = "full"
    """Structure of the covariances Σ."""
    columns: tuple[str, ...] = ()
    """Columns to use, by name or by number from 0; all by default."""
    method: str = "em"
    """Method of estimation; `gmm-jax list` names them."""
    option: tuple[str, ...] = ()
    """Options of the method as NAME=VALUE; `gmm-jax list` names them."""
    known: File = None
    """JSON file with any of weights, means, covariances: parameters that are known; null where free."""
    seed: int = 0
    """Seed of all random numbers."""
    stream: bool = False
    """EM with one pass over the file an iteration, for files that do not fit into memory."""
    scheduler: Text = None
    """EM on a Dask cluster whose workers read the file: its scheduler's address, or "local" for one on this machine."""
    checkpoint: File = None
    """With --stream or --scheduler: a file written every few seconds and at the end, so that a crash costs little."""
    resume: bool = False
    """Go on from the checkpoint, with the options that it was written with."""
    json: bool = False
    """Print one JSON document on stdout instead of a table."""

    def run(self) -> int:
        from .bench.files import fit_file, parse_option

        options = vars(self) | {"options": dict(map(parse_option, self.option))}
        path, as_json, _ = options.pop("data"), options.pop("json"), options.pop("option")
        return fit_file(path, as_json=as_json, prepare=configure_jax, **options)


@dataclass(frozen=True)
class Compare(Grid):
    """Compare methods on named problems, on the same data sets: a row for each fit, tables, figures and a report."""

    name: Annotated[str, tyro.conf.Positional] = "compare"
    """Name of the results folder."""
    file: File = None
    """JSON file with problems, methods, option, known, n, seeds and first_seed, in place of these options."""
    workers: int = 0
    """Number of processes that fit; 0: this one alone."""
    timeout: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds that a fit may take; one that takes longer counts as failed."""
    scheduler: Text = None
    """Fit on a Dask cluster: its scheduler's address, or "local" for one on this machine."""
    out: Path = Path("results")
    """Folder for results."""
    json: bool = False
    """Print one JSON document on stdout instead of a table."""

    def run(self) -> int:
        from .bench.compare import compare_grid
        from .bench.grid import read_grid
        from .bench.runner import How

        grid = Grid(**{field.name: getattr(self, field.name) for field in fields(Grid)})
        if self.file is not None and grid != Grid():
            raise ValueError(f"options beside --file {self.file} would say twice what to run: put them into the file.")
        grid = grid if self.file is None else read_grid(self.file)
        _known_methods(grid.methods)
        return compare_grid(
            self.name,
            grid,
            results=self.out,
            command=shlex.join(["gmm-jax", *sys.argv[1:]]),
            how=How(self.workers, self.timeout, self.scheduler, prepare=configure_jax),
            as_json=self.json,
        )


@dataclass(frozen=True)
class Report:
    """Make the tables, figures and report.html of a results folder again, without fitting again."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Results folder of `compare` or of an experiment."""

    def run(self) -> int:
        from .bench.compare import report_folder

        return report_folder(self.folder)


@dataclass(frozen=True)
class Diff:
    """Test whether results have become worse from one folder to another; exit code 3 if so."""

    before: Annotated[Path, tyro.conf.Positional]
    """Results folder of `compare` or of an experiment."""
    after: Annotated[Path, tyro.conf.Positional]
    """Another one. Fits with the same problem, case, n, method and options are compared, paired by seed."""
    metric: tuple[str, ...] = ()
    """Metrics to test; by default all that have a margin of equivalence, and the proportion of failures."""
    margin: tuple[str, ...] = ()
    """Margins of equivalence as METRIC=VALUE, in place of the default ones."""
    json: bool = False
    """Print one JSON document on stdout instead of a table."""

    def run(self) -> int:
        from .bench.diff import MARGINS, diff
        from .bench.files import parse_option

        margins = dict(map(parse_option, self.margin))
        return diff(self.before, self.after, metrics=self.metric or tuple(MARGINS), margins=margins, as_json=self.json)


@dataclass(frozen=True)
class CheckMethod:
    """Test whether a method of your own behaves as every method must; exit code 3 if it does not."""

    method: Annotated[str, tyro.conf.Positional]
    """module:function, in this folder or installed, or a name that `gmm-jax list` has."""
    option: tuple[str, ...] = ()
    """Options of the method as NAME=VALUE, for instance small sizes."""
    json: bool = False
    """Print one JSON document on stdout instead of a table."""

    def run(self) -> int:
        from .bench.conformance import check_method
        from .bench.files import parse_option

        (name,) = _known_methods([self.method])
        return check_method(name, dict(map(parse_option, self.option)), as_json=self.json)


@dataclass(frozen=True)
class List:
    """List the named problems, the data sets, and the methods with their options."""

    json: bool = False
    """Print one JSON document on stdout."""

    def run(self) -> int:
        return _list(as_json=self.json)


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Diff, tyro.conf.subcommand("diff")]
    | Annotated[CheckMethod, tyro.conf.subcommand("check-method")]
    | Annotated[List, tyro.conf.subcommand("list")]
)


def main(arguments: list[str] | None = None) -> int:
    """The command gmm-jax; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments:
        print(__version__)
        return EXIT_OK
    description = "Recover (φ, μ, Σ) of a Gaussian mixture by every serious method, and compare each with the truth."
    command = tyro.cli(
        Command,
        prog="gmm-jax",
        description=description,
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    configure_jax()
    return guarded(command.run)


def _known_methods(names):
    """name -> no options, after a look at whether there are such methods: module:function also from this folder."""
    from .bench import methods

    here = str(Path.cwd())
    if here not in sys.path and any(":" in name for name in names):
        sys.path.append(here)
    return {methods.load(name).name: {} for name in names}


def _list(*, as_json: bool) -> int:
    from . import problems
    from .bench import methods

    found = {
        "problems": {name: problems.load(name).description for name in problems.names()},
        "data sets": {name: problems.datasets.describe(name).source for name in problems.datasets.names()},
        "methods": {name: methods.load(name).summary for name in methods.available()},
    }
    if as_json:
        options = {name: methods.load(name).options for name in methods.available()}
        print(json.dumps(found | {"options": options}, indent=2, default=str))
        return EXIT_OK
    for heading, entries in found.items():
        print(heading)
        for name, text in entries.items():
            print(f"  {name:20} {text}")
            if heading == "methods":
                options = methods.load(name).options
                shown = ", ".join(f"{o}={v!r}" for o, v in options.items() if o not in ("progress", "labels"))
                print(f"  {'':20}   options: {shown or 'none'}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
