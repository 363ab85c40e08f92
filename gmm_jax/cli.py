"""The door for the shell: gmm-jax {demo, fit, launch, compare, report, diff, check-method, list}.

Each command is a frozen dataclass: its fields are its options, its docstring its help. JAX is imported only when a
command runs. Results go to stdout, progress and errors to stderr; exit codes are those of `gmm_jax.shell`.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from . import __version__
from .bench.grid import Grid
from .launch import place
from .shell import EXIT_INTERRUPTED, EXIT_OK, configure_jax, guarded, join_ranks


@dataclass(frozen=True)
class Demo:
    """The course's four experiments: EM, NUTS and Gibbs beside the truth, with pictures and a report."""

    seed: int = 0
    """All randomness follows from it."""
    methods: tuple[str, ...] = ("em", "nuts", "gibbs")
    """Methods to run; see `gmm-jax list`."""
    out: Path = Path("results")
    """Folder for results; the demo writes to its subfolder demo/."""
    json: bool = False
    """Print one JSON document on stdout instead of tables."""

    def run(self) -> int:
        from .bench.demo import demo

        return demo(_known_methods(self.methods), seed=self.seed, results=self.out, as_json=self.json)


@dataclass(frozen=True)
class Fit:
    """Fit a mixture to the columns of a CSV, .npy or .parquet file."""

    data: Annotated[Path, tyro.conf.Positional]
    """The file; a first row of a CSV file that is not numeric names the columns."""
    n_components: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 2
    """Number of components K."""
    covariance_type: Literal["full", "tied", "diag", "spherical"] = "full"
    """Covariance structure."""
    columns: tuple[str, ...] = ()
    """Columns to use, by name or by number from 0; all by default."""
    method: str = "em"
    """Method; see `gmm-jax list`."""
    option: tuple[str, ...] = ()
    """Options of the method as NAME=VALUE; see `gmm-jax list`."""
    known: Path | None = None
    """JSON file with any of weights, means, covariances: what is known; null where free."""
    seed: int = 0
    """All randomness follows from it."""
    stream: bool = False
    """EM with one pass over the file an iteration, for files that do not fit into memory."""
    distributed: bool = False
    """This process is a rank of many (SLURM, Open MPI, Kubernetes, gmm-jax launch): each reads its share, method em."""
    checkpoint: Path | None = None
    """With --stream or --distributed: a file written every few seconds and at the end, so that a crash costs little."""
    resume: bool = False
    """Go on from the checkpoint, with the options that it was written with."""
    json: bool = False
    """Print one JSON document on stdout instead of a table."""

    def run(self) -> int:
        from .bench.files import fit_file, parse_option

        common = {
            "n_components": self.n_components,
            "covariance_type": self.covariance_type,
            "columns": self.columns,
            "options": dict(map(parse_option, self.option)),
            "known": self.known,
            "seed": self.seed,
            "as_json": self.json,
        }
        if not self.stream and not self.distributed:
            if self.checkpoint is not None or self.resume:
                raise ValueError("--checkpoint and --resume belong to --stream or --distributed: add one of them.")
            return fit_file(self.data, method=self.method, **common)
        if self.stream and self.distributed:
            raise ValueError("--stream and --distributed are two ways of taking the sum: choose one.")
        if self.method != "em":
            way = "--stream" if self.stream else "--distributed"
            raise ValueError(f"{way} is for method em; {self.method} needs the data in memory: leave {way} out.")
        if self.stream:
            from .bench.stream import fit_stream as fit
        else:
            join_ranks()
            from .bench.ranks import fit_ranks as fit
        return fit(self.data, checkpoint=self.checkpoint, resume=self.resume, **common)


@dataclass(frozen=True)
class Launch:
    """Run a command as several ranks on this machine, and end all when one dies or is stuck.

    Write it after two dashes: gmm-jax launch -n 2 -- fit data.npy -k 3; or any other program that calls
    gmm_jax.shell.join_ranks, such as -- python script.py.
    """

    command: Annotated[tuple[str, ...], tyro.conf.Positional]
    """fit and its options, or another program and its own."""
    n_ranks: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 2
    """Number of ranks: at most one a core."""
    host: str = "127.0.0.1"
    """Address that rank 0 listens at. Nothing is encrypted or authenticated: keep to a private network."""
    port: int = 0
    """Port there; 0 finds a free one."""
    timeout: float | None = None
    """Seconds that all may take."""
    silence: float = 30.0
    """Seconds without a sign of life after which a rank counts as stuck."""
    join: float = 60.0
    """Seconds within which all must have met."""
    cores_each: int = 0
    """Cores that each rank has to itself; 0 shares all."""

    def run(self) -> int:
        from .launch import launch

        command = list(self.command)
        if command[:1] == ["fit"]:
            command = [sys.executable, "-m", "gmm_jax", *command]
            command += [] if "--distributed" in command else ["--distributed"]
        watch = {"timeout": self.timeout, "silence": self.silence, "join": self.join, "cores_each": self.cores_each}
        try:
            return launch(command, self.n_ranks, host=self.host, port=self.port, **watch)
        except KeyboardInterrupt:
            print("gmm-jax launch: interrupted; all ranks were ended.", file=sys.stderr)
            return EXIT_INTERRUPTED


@dataclass(frozen=True)
class Compare:
    """Methods on named problems over several seeds: rows, tables and a report."""

    name: Annotated[str, tyro.conf.Positional] = "compare"
    """Name of the results folder."""
    grid: Grid = field(default_factory=Grid)
    file: Path | None = None
    """JSON file with the options above, in place of them; `provenance.json` has it under config, grid."""
    workers: int = 0
    """Processes to run trials in; 0 runs them in this one, one after the other."""
    timeout: float | None = None
    """Seconds a trial may take; one that takes longer is a failed row."""
    scheduler: str | None = None
    """Address of a running Dask cluster, or "local" for one of its own on this machine."""
    out: Path = Path("results")
    """Folder for results."""
    json: bool = False
    """Print one JSON document on stdout instead of a table."""

    def run(self) -> int:
        from .bench.compare import compare
        from .bench.grid import read_grid
        from .bench.runner import How

        if self.file is not None and self.grid != Grid():
            raise ValueError(f"options beside --file {self.file} would say twice what to run: put them into the file.")
        grid = self.grid if self.file is None else read_grid(self.file)
        _known_methods(grid.methods)
        return compare(
            self.name,
            grid,
            results=self.out,
            command=shlex.join(["gmm-jax", *sys.argv[1:]]),
            how=How(self.workers, self.timeout, self.scheduler, prepare=configure_jax),
            as_json=self.json,
        )


@dataclass(frozen=True)
class Report:
    """Draw the tables, pictures and report.html of a results folder again, without refitting."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A folder that `compare` or an experiment wrote."""

    def run(self) -> int:
        from .bench.compare import report_folder

        return report_folder(self.folder)


@dataclass(frozen=True)
class Diff:
    """Has anything become worse from one folder of results to another? Exit code 3 if so."""

    before: Annotated[Path, tyro.conf.Positional]
    """A folder that `compare` or an experiment wrote."""
    after: Annotated[Path, tyro.conf.Positional]
    """Another one; cells with the same problem, case, n, method and options are compared, paired by seed."""
    metric: tuple[str, ...] = ()
    """Metrics to look at; by default all that have a practical margin, and the share of failures."""
    margin: tuple[str, ...] = ()
    """Practical margins as METRIC=VALUE in place of the usual ones."""
    json: bool = False
    """Print one JSON document on stdout instead of a table."""

    def run(self) -> int:
        from .bench.diff import MARGINS, diff
        from .bench.files import parse_option

        margins = dict(map(parse_option, self.margin))
        return diff(self.before, self.after, metrics=self.metric or tuple(MARGINS), margins=margins, as_json=self.json)


@dataclass(frozen=True)
class CheckMethod:
    """Does a method keep every promise? For one that lives in a module of yours; exit code 3 if it breaks one."""

    method: Annotated[str, tyro.conf.Positional]
    """module:function, found from this folder or installed, or a name of `gmm-jax list`."""
    option: tuple[str, ...] = ()
    """Options of the method as NAME=VALUE, such as small sizes."""
    json: bool = False
    """Print one JSON document on stdout instead of a table."""

    def run(self) -> int:
        from .bench.conformance import check_method
        from .bench.files import parse_option

        (name,) = _known_methods([self.method])
        return check_method(name, dict(map(parse_option, self.option)), as_json=self.json)


@dataclass(frozen=True)
class List:
    """What there is: problems, data sets, methods with their options."""

    json: bool = False
    """Print one JSON document on stdout."""

    def run(self) -> int:
        return _list(as_json=self.json)


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Launch, tyro.conf.subcommand("launch")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Diff, tyro.conf.subcommand("diff")]
    | Annotated[CheckMethod, tyro.conf.subcommand("check-method")]
    | Annotated[List, tyro.conf.subcommand("list")]
)


def main(arguments: list[str] | None = None) -> int:
    """The command gmm-jax; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    place()  # a rank says that it lives before anything else, which may take long
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
    if not isinstance(command, Launch):
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
