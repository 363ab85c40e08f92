"""One file a method: `fit(key, x, spec, *, options...) -> Fit`. A new file here is a new method; nothing else changes.

The first line of a file's docstring says what it is; keyword-only arguments of `fit` are its options, with their
defaults. Files whose name begins with an underscore are not methods. A file may offer fit_many(keys, xs, spec, ...)
too, which gives the same answers for data sets of one shape at once: sweeps then use it.
"""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from shutil import which
from typing import Any, NamedTuple

import numpy as np

from ...mixture import Fit, NotSupported, Status

INTERNAL = ("progress", "labels", "missing")  # options that a program gives, not a user


class Unavailable(NotSupported):
    """Another's program that is not installed; the message says how to get it."""


class Method(NamedTuple):
    """A method by name, with its options checked."""

    name: str
    summary: str
    options: dict[str, Any]  # name -> default
    function: Callable[..., Fit]
    many: Callable[..., list[Fit]] | None = None  # the same of data sets of one shape: (keys, xs, spec, **options)

    def fit(self, key, x, spec, **options) -> Fit:
        """Fit.point and what the method says about its uncertainty; an unknown option is a ValueError."""
        check_options(self, options)
        return _judged(self.function(key, x, spec, **options))

    def fit_many(self, keys, xs, spec, **options) -> list[Fit]:
        """`fit` with keys[p] on xs[p], at once, where the method has a way to do that."""
        check_options(self, options)
        return [_judged(answer) for answer in self.many(keys, xs, spec, **options)]


def available() -> tuple[str, ...]:
    """Names of all methods, in alphabetical order."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_")))


def load(name: str) -> Method:
    """The method of that name, or one that lives elsewhere as module:function; a ValueError names the nearest ones."""
    if ":" in str(name):
        return from_function(name, _function_of(*name.split(":", 1)))
    if name not in available():
        raise ValueError(
            f"method {name!r} does not exist{_nearest(name, available())}; there are {_list(available())}."
        )
    module = import_module(f"{__name__}.{name}")
    return from_function(name, module.fit)._replace(many=getattr(module, "fit_many", None))


def lacking(name: str) -> str:
    """The packages and programs that the method still needs (NEEDS of its file names them), "" where all are there."""
    needs = getattr(import_module(f"{__name__}.{name}"), "NEEDS", ())
    return ", ".join(need for need in needs if find_spec(need) is None and which(need) is None)


def from_function(name: str, function: Callable[..., Fit]) -> Method:
    """A method of any function of the right form, wherever it lives."""
    module = inspect.getmodule(function)
    summary = (inspect.getdoc(function) or inspect.getdoc(module) or "").partition("\n")[0]
    parameters = inspect.signature(function).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return Method(name, summary, options, function)


def check_options(method: Method, options: dict[str, Any]) -> None:
    """A ValueError for the first option that the method does not have, or that is no number where one is needed."""
    for option, value in options.items():
        if option not in method.options:
            near = _nearest(option, method.options)
            raise ValueError(f"method {method.name!r} has no option {option!r}{near}; it has {_list(method.options)}.")
        default = method.options[option]
        if default is None and option.startswith("n_"):  # a number that the library chooses
            if value is None:
                continue
            default = 20
        whole = _is_number(value) and float(value).is_integer()
        if _is_number(default) and not (whole or (isinstance(default, float) and _is_number(value))):
            kind = "a number" if isinstance(default, float) else "a whole number"
            raise ValueError(
                f"option {option!r} of method {method.name!r} takes {kind}, like {default}; got {value!r}."
            )


def _function_of(module, function):
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"a method is named module:function, like my_package.my_module:fit; got module {module!r}.")
    try:
        found = getattr(import_module(module), function, None)
    except ImportError as error:
        raise ValueError(f"module {module!r} of a method cannot be imported: {error}.") from error
    if not callable(found):
        raise ValueError(f"module {module!r} has no function {function!r}; a method is named module:function.")
    return found


def _is_number(value):
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _judged(answer):
    """NaN is never a success."""
    leaves = (answer.point.weights, answer.point.means, answer.point.covariances)
    finite = not answer.status.ok or all(np.isfinite(np.asarray(leaf, float)).all() for leaf in leaves)
    return answer if finite else answer._replace(status=Status.NON_FINITE)


def _nearest(name, names):
    near = get_close_matches(str(name), list(names), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _list(names):
    return ", ".join(names) if names else "none"
