"""The command gmm-jax {demo, fit, predict, sample, plot, choose, compare, report, diff, check-method, list}.

Each command is a function: its arguments are the options, its docstring their help. JAX is imported only when a command
runs. Results go to stdout, progress and errors to stderr; docs/exit-codes.md has the exit codes.
"""

import functools
import json as json_format
import shlex
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import tyro

from . import __version__
from .bench.grid import Grid
from .command.reading import Reading
from .shell import EXIT_OK, EXIT_USAGE, compile_quickly, configure_jax, guarded

Named = Annotated[str, tyro.conf.arg(metavar="NAME"), tyro.conf.Positional]
Folder = Annotated[Path, tyro.conf.arg(metavar="FOLDER"), tyro.conf.Positional]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Address = Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")]
Data = Annotated[Path, tyro.conf.arg(metavar="DATA"), tyro.conf.Positional]
Model = Annotated[Path, tyro.conf.arg(metavar="MODEL"), tyro.conf.Positional]
OutFolder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")]
Options = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE [NAME=VALUE ...]")]
Whole = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: _whole(texts[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]
Count = Annotated[Whole, tyro.conf.arg(aliases=["-k"])]
Number = Annotated[Whole, tyro.conf.arg(aliases=["-n"])]
Structure = Literal["full", "tied", "diag", "spherical"]
Texts = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")]
CRITERIA = ("information", "loo", "evidence", "bridge", "bootstrap", "occupied", "telescoping")
RESULTS = Path("results")


def demo(seed: Whole = 0, methods: Texts = ("em", "nuts", "gibbs"), out: Path = RESULTS, *, json: bool = False) -> int:
    """Run the course's four experiments: EM, NUTS and Gibbs beside the truth, with figures and a report.

    Args:
        seed: Seed of all random numbers.
        methods: Methods of estimation; `gmm-jax list` names them.
        out: Folder for results; the demo writes to demo/ in it.
        json: Print one JSON document on stdout instead of tables.
    """
    from .bench import demo
    from .bench.runner import How
    from .mixture.cores import n_workers

    compile_quickly()
    how = How(n_workers() if n_workers() > 1 else 0, prepare=configure_jax)
    return demo.demo(_known_methods(methods), seed=_checked(seed), results=out, how=how, as_json=json)


def fit(
    data: Data,
    n_components: Count = 2,
    covariance_type: Structure = "full",
    columns: Texts = (),
    drop: Texts = (),
    method: str = "em",
    option: Options = (),
    known: File = None,
    seed: Whole = 0,
    out: OutFolder = None,
    reading: Annotated[Reading, tyro.conf.arg(name="")] = Reading(),  # noqa: B008
    *,
    force: bool = False,
    stream: bool = False,
    scheduler: Address = None,
    checkpoint: File = None,
    resume: bool = False,
    json: bool = False,
) -> int:
    """Fit a mixture to the columns of a table; exit code 3 if the answer is not to be trusted.

    Args:
        data: A file of text (CSV, also .gz), .npy, .npz, Parquet or .xlsx, or - for standard input.
        n_components: Number of components K.
        covariance_type: Structure of the covariances Σ.
        columns: Columns to use, by name, by number from 0, or as 1-3; all by default.
        drop: Columns to leave out.
        method: Method of estimation; `gmm-jax list` names them.
        option: Options of the method; `gmm-jax list` names them.
        known: JSON file with any of weights, means, covariances: parameters that are known; null where free.
        seed: Seed of all random numbers.
        out: Folder for the model, the label and responsibilities of each row, pictures and a report.
        force: Overwrite what is in that folder.
        stream: EM with one pass over the file an iteration, for files that do not fit into memory.
        scheduler: EM on a Dask cluster whose workers read the file: its address, or "local" for one on this machine.
        checkpoint: With --stream or --scheduler: a file written every few seconds, so that a crash costs little.
        resume: Go on from the checkpoint, with the options that it was written with.
        json: Print one JSON document on stdout instead of a table; GMM(**document["gmm"]) is the mixture.
    """
    from .bench.options import parse_options
    from .command.fit import Place, fit_file

    model = {"n_components": n_components, "covariance_type": covariance_type, "known": known, "seed": _checked(seed)}
    place = Place(stream, scheduler, configure_jax, checkpoint, resume)
    what = {"columns": columns, "drop": drop, "reading": reading, "method": method, "options": parse_options(option)}
    return fit_file(data, **model, **what, place=place, out=out, force=force, command=_typed(), as_json=json)


def predict(
    model: Model,
    data: Data,
    out: File = None,
    reading: Annotated[Reading, tyro.conf.arg(name="")] = Reading(),  # noqa: B008
    *,
    force: bool = False,
) -> int:
    """Write each row of a table with its most probable component and the probability of each.

    Args:
        model: model.json of `fit --out`, or what `gmm_jax.save` wrote.
        data: A table with the columns that were fitted, in any order.
        out: File to write; standard output by default.
        force: Overwrite it.
    """
    from .command.model import predict

    return predict(model, data, reading, out, force=force)


def sample(model: Model, n_rows: Number = 1000, seed: Whole = 0, out: File = None, *, force: bool = False) -> int:
    """Draw rows from a model, as CSV with the component that made each.

    Args:
        model: model.json of `fit --out`, or what `gmm_jax.save` wrote.
        n_rows: How many rows.
        seed: Seed of all random numbers.
        out: File to write; standard output by default.
        force: Overwrite it.
    """
    from .command.model import draw_samples

    return draw_samples(model, n_rows, _checked(seed), out, force=force)


def plot(
    model: Model,
    data: Data,
    out: Path = Path("plots"),
    reading: Annotated[Reading, tyro.conf.arg(name="")] = Reading(),  # noqa: B008
    *,
    force: bool = False,
) -> int:
    """Draw a table under a model: pairs of columns with ellipses, densities and responsibilities, as PNG files.

    Args:
        model: model.json of `fit --out`, or what `gmm_jax.save` wrote.
        data: A table with the columns that were fitted.
        out: Folder for the pictures.
        force: Overwrite what is in it.
    """
    from .command.model import draw_pictures

    return draw_pictures(model, data, reading, out, force=force)


def choose(
    data: Data,
    max_components: Whole = 6,
    covariance_type: Structure = "full",
    columns: Texts = (),
    drop: Texts = (),
    criteria: tuple[Literal[CRITERIA], ...] = ("information",),
    seed: Whole = 0,
    reading: Annotated[Reading, tyro.conf.arg(name="")] = Reading(),  # noqa: B008
    *,
    json: bool = False,
) -> int:
    """Compare numbers of components from 1 on, criterion by criterion.

    Args:
        data: A table, as for `fit`.
        max_components: The largest number of components.
        covariance_type: Structure of the covariances Σ.
        columns: Columns to use, by name, by number from 0, or as 1-3; all by default.
        drop: Columns to leave out.
        criteria: information is AIC, BIC and ICL, in seconds; the others sample or resample, in minutes.
        seed: Seed of all random numbers.
        json: Print one JSON document on stdout instead of a table.
    """
    from .command.model import choose

    what = {"covariance_type": covariance_type, "criteria": criteria, "seed": _checked(seed), "as_json": json}
    return choose(data, columns, drop, reading, ks=range(1, max_components + 1), **what)


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
    from .bench.options import read_grid
    from .bench.runner import How

    if file is not None and grid != Grid():
        raise ValueError(f"options beside --file {file} would say twice what to run: put them into the file.")
    grid = grid if file is None else read_grid(file)
    _known_methods(grid.methods)
    command = _typed()
    how = How(workers, timeout, scheduler, prepare=configure_jax)
    return run_compare(name, grid, results=out, command=command, how=how, as_json=json)


def report(folder: Folder) -> int:
    """Make the tables, figures and report.html of a results folder again, without fitting again.

    Args:
        folder: Results folder of `compare` or of an experiment.
    """
    from .bench.compare import report_folder

    return report_folder(folder)


def diff(before: Folder, after: Folder, metric: Texts = (), margin: Options = (), *, json: bool = False) -> int:
    """Test whether results have become worse from one folder to another; exit code 3 if so.

    Args:
        before: Results folder of `compare` or of an experiment.
        after: Another one. Fits with the same problem, case, n, method and options are compared, paired by seed.
        metric: Metrics to test; by default all that have a margin of equivalence, and the proportion of failures.
        margin: Margins of equivalence by metric, in place of the default ones.
        json: Print one JSON document on stdout instead of a table.
    """
    from .bench.diff import MARGINS, diff
    from .bench.options import parse_options

    return diff(before, after, metrics=metric or tuple(MARGINS), margins=parse_options(margin), as_json=json)


def check_method(method: Named, option: Options = (), *, json: bool = False) -> int:
    """Test whether a method of your own behaves as every method must; exit code 3 if it does not.

    Args:
        method: module:function, in this folder or installed, or a name that `gmm-jax list` has.
        option: Options of the method, for instance small sizes.
        json: Print one JSON document on stdout instead of a table.
    """
    from .bench.conformance import check_method
    from .bench.options import parse_options

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
        "data sets": {name: problems.datasets.sentence(name) for name in problems.datasets.names()},
        "methods": {name: methods.load(name).summary for name in methods.available()},
    }
    options = {name: methods.load(name).options for name in methods.available()}
    lacking = {name: needs for name in methods.available() if (needs := methods.lacking(name))}
    if json:
        print(json_format.dumps(found | {"options": options, "not installed": lacking}, indent=2, default=str))
        return EXIT_OK
    for heading, entries in found.items():
        print(heading)
        for name, text in entries.items():
            print(f"  {name:20} {text}" + (f" (not installed: {lacking[name]})" if name in lacking else ""))
            if heading == "methods":
                shown = ", ".join(f"{o}={v!r}" for o, v in options[name].items() if o not in methods.INTERNAL)
                print(f"  {'':20}   options: {shown or 'none'}")
    return EXIT_OK


COMMANDS = {"demo": demo, "fit": fit, "predict": predict, "sample": sample, "plot": plot, "choose": choose}
COMMANDS |= {"compare": compare, "report": report, "diff": diff}
COMMANDS |= {"check-method": check_method, "list": list_all}


def main(arguments: list[str] | None = None) -> int:
    """The command gmm-jax; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments:
        print(__version__)
        return EXIT_OK
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        near = get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        print(f"gmm-jax: there is no command {arguments[0]!r}{hint}: one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return EXIT_USAGE
    run = tyro.extras.subcommand_cli_from_dict(
        {name: _deferred(function) for name, function in COMMANDS.items()},
        prog="gmm-jax",
        description="Fit Gaussian mixtures to your own data; recover (φ, μ, Σ) by every serious method.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    configure_jax()
    return guarded(run)


def _deferred(function):
    """What is typed is understood before anything runs."""
    return functools.wraps(function)(lambda *values, **named: functools.partial(function, *values, **named))


def _typed():
    return shlex.join(["gmm-jax", *sys.argv[1:]])


def _whole(text):
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"it takes a whole number; got {text!r}.") from None


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
