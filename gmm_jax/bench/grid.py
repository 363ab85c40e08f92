"""Which trials: every method on every problem, at every size, with the same seeds. Python's, the shell's and JSON's.

One frozen dataclass: its fields are the options of `gmm-jax compare`, and the keys of a JSON file that can be handed to
it. It imports no JAX, so that the shell can show it at once.
"""

from dataclasses import dataclass, fields
from numbers import Integral
from typing import Annotated, Any, Literal

import tyro

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")]
FIELDS = ("weights", "means", "covariances")
LEAST = {"n": 1, "seeds": 1, "first_seed": 0}  # of the numbers


@dataclass(frozen=True)
class Grid:
    """The trials of a sweep, problem by problem, size by size, seed by seed."""

    problems: Names = ("course_2d",)
    """Named problems; see `gmm-jax list`."""
    methods: Names = ("oracle", "em", "gibbs")
    """Methods; see `gmm-jax list`. One of your own is `module:function`."""
    option: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METHOD.NAME=VALUE [...]")] = ()
    """Options of the methods."""
    known: tuple[Literal["weights", "means", "covariances"], ...] = ()
    """What is known beforehand, filled from the truth."""
    n: tuple[int, ...] = ()
    """Samples a data set, one size or several; the problem's own number by default."""
    seeds: int = 3
    """How many data sets."""
    first_seed: int = 0
    """The first of them."""

    def check(self) -> None:
        """A ValueError for a value of another kind, or too small a number."""
        for field in fields(self):
            value, many, least = getattr(self, field.name), isinstance(field.default, tuple), LEAST.get(field.name)
            kind, words = (str, "text") if least is None else (Integral, "whole numbers")
            items = value if many else (value,)
            if not isinstance(items, (tuple, list)) or not all(isinstance(v, kind) and v is not True for v in items):
                raise ValueError(f"{field.name!r} of a grid must be {'a list of ' * many}{words}; got {value!r}.")
            if least is not None and min(items, default=least) < least:
                raise ValueError(f"{field.name} must be at least {least}; got {min(items)}.")

    def cells(self) -> list:
        """Checked `runner.Cell`s, none twice; a ValueError for what does not exist."""
        from .. import problems as suite
        from . import methods as registry
        from .runner import Cell

        self.check()
        for problem in self.problems:
            suite.load(problem).knowing(*self.known)
        options = self.options()
        for method, chosen in options.items():
            registry.check_options(registry.load(method), chosen)
        known = tuple(field for field in FIELDS if field in self.known)  # in one order, so that a trial has one name
        cells = [
            Cell(problem, known, method=method, options=tuple(sorted(chosen.items())), seed=seed, n=n)
            for problem in self.problems
            for n in self.n or (None,)
            for seed in range(self.first_seed, self.first_seed + self.seeds)
            for method, chosen in options.items()
        ]
        return list(dict.fromkeys(cells))

    def options(self) -> dict[str, dict[str, Any]]:
        """method -> its options."""
        from .options import parse_option

        chosen: dict[str, dict] = {method: {} for method in self.methods}
        for text in self.option:
            method = next((name for name in chosen if text.startswith(f"{name}.")), None)
            if method is None:
                methods = ", ".join(chosen)
                raise ValueError(f"an option is written METHOD.NAME=VALUE with one of {methods}; got {text!r}.")
            chosen[method] |= [parse_option(text.removeprefix(f"{method}."))]
        return chosen
