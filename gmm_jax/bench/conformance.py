"""What every method promises, as checks that run on any of them: those of bench/methods, and one that lives elsewhere.

All checks share one data set of two groups that hardly overlap, and one fit of it with something known; a method that
cannot know anything (NotSupported) is held to the rest of the promises with nothing known.
"""

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from inspect import Parameter
from textwrap import fill
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from ..mixture import GMM, Fit, Known, MixtureSpec, NotSupported, Posterior, Status, structure, validate
from . import methods, report

K, D, N = 2, 2, 60
# φ so unequal that, where φ is known, swapped labels lie 30 log 3 nats lower: too low for a chain to start there
TRUTH = GMM(np.array([0.75, 0.25]), np.array([[-2.0, 0.0], [2.0, 1.0]]), np.stack([np.eye(D), 0.5 * np.eye(D)]))
PARTLY_KNOWN = MixtureSpec(K, known=Known(TRUTH.weights, None, np.stack([np.eye(D), np.full((D, D), np.nan)])))
QUICK = MappingProxyType({"n_restarts": 4, "n_chains": 2, "n_warmup": 200, "n_draws": 250})  # given where it has them
USABLE = (Status.UNMIXED, Status.UNRELIABLE)  # beside those that are ok: few draws, or a crude guide


class Broken(AssertionError):
    """A promise that a method does not keep; the message says what was seen."""


class Outcome(NamedTuple):
    """Of one check."""

    promise: str
    kept: bool | None  # None: the method says that it cannot be asked this
    reason: str


class Subject:
    """A method at quick sizes, and its fits of the easy data."""

    def __init__(self, method: methods.Method, options: Mapping[str, Any] = MappingProxyType({})):
        self.method = method
        self.options = {name: value for name, value in QUICK.items() if name in method.options} | dict(options)
        self.x, self.labels = easy_data()

    def fit(self, spec: MixtureSpec, x=None, **more) -> Fit:
        """With key 0; `more` are options; labels go to a method that asks for them."""
        x = self.x if x is None else x
        labels = {"labels": self.labels[: len(x)]} if "labels" in self.method.options else {}
        return self.method.fit(jax.random.key(0), x, spec, **labels | self.options | more)

    @cached_property
    def partly_known(self) -> Fit | None:
        """The answer to PARTLY_KNOWN; None where it treats no specification with something known."""
        try:
            return self.fit(PARTLY_KNOWN)
        except methods.Unavailable:
            raise
        except NotSupported:
            return None

    @cached_property
    def first(self) -> tuple[MixtureSpec, Fit]:
        """PARTLY_KNOWN, or else nothing known, and the answer to it."""
        found = self.partly_known
        return (MixtureSpec(K), self.fit(MixtureSpec(K))) if found is None else (PARTLY_KNOWN, found)


def easy_data() -> tuple[np.ndarray, np.ndarray]:
    """(60, 2) and labels: two groups that hardly overlap."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [45, 15])
    return TRUTH.means[labels] + rng.standard_normal((N, D)) * np.sqrt([1.0, 0.5])[labels][:, None], labels


def check(method: methods.Method, options: Mapping[str, Any] = MappingProxyType({})) -> list[Outcome]:
    """Every promise, in order; nothing that the method raises is let through."""
    subject = Subject(method, options)
    return [_outcome(promise, function, subject) for promise, function in PROMISES.items()]


def check_method(name: str, options: Mapping[str, Any] = MappingProxyType({}), *, as_json: bool = False) -> int:
    """Checks a method by name, or module:function, and prints what was seen; exit code 3 if a promise is broken."""
    method = methods.load(name)
    methods.check_options(method, dict(options))
    outcomes = check(method, options)
    if as_json:
        print(json.dumps({"method": name, "promises": [outcome._asdict() for outcome in outcomes]}))
    else:
        words = {True: "kept", False: "BROKEN", None: "not asked"}
        rows = tuple((outcome.promise, words[outcome.kept], fill(outcome.reason, 60)) for outcome in outcomes)
        report.print_table(report.console(), name, report.Table(("promise", "", "what was seen"), rows))
    return 3 if any(outcome.kept is False for outcome in outcomes) else 0


def _outcome(promise, function, subject):
    try:
        function(subject)
    except NotSupported as error:
        return Outcome(promise, None, str(error))
    except Exception as error:  # whatever a method does is its outcome
        said = str(error) if isinstance(error, Broken) else f"raised {type(error).__name__}: {error}"
        return Outcome(promise, False, said)
    return Outcome(promise, True, "")


# ---- the promises


def says_what_it_is(subject: Subject) -> None:
    """The first line of its docstring ends like a sentence, and all of its options have defaults."""
    summary = subject.method.summary
    _require(summary.endswith((".", ")")), f"the first line of its docstring is no sentence: {summary!r}")
    for name, default in subject.method.options.items():
        _require(default is not Parameter.empty, f"option {name!r} has no default")


def answers(subject: Subject, spec: MixtureSpec | None = None) -> None:
    """A Fit near the truth: usable status, float64 leaves of the right shape, a mixture, errors 0 only where known."""
    spec, found = subject.first if spec is None else (spec, subject.fit(spec))
    _require(isinstance(found, Fit), f"fit must return a gmm_jax.Fit; got {type(found).__name__}")
    _require(isinstance(found.status, Status), f"Fit.status must be a gmm_jax.Status; got {found.status!r}")
    _require(found.status.ok or found.status in USABLE, f"the easy problem ended with {found.status.name}")
    _require(found.point.covariance_type == spec.covariance_type, f"covariance_type {found.point.covariance_type!r}")
    shapes = {"weights": (K,), "means": (K, D), "covariances": structure(spec.covariance_type).shape(K, D)}
    for leaf, shape in shapes.items():
        value = np.asarray(getattr(found.point, leaf))
        _require(value.shape == shape and value.dtype == np.float64, f"{leaf} is {value.dtype} {value.shape}")
        if found.standard_errors is not None:
            _check_errors(np.asarray(getattr(found.standard_errors, leaf)), getattr(spec.known, leaf), leaf, shape)
        if found.draws is not None:
            _require(isinstance(found.draws, Posterior), "Fit.draws must be a gmm_jax.Posterior")
            _require(getattr(found.draws.draws, leaf).shape[2:] == shape, f"draws of {leaf} are not (C, S, {shape})")
    validate(found.point)
    order = np.argsort(np.asarray(found.point.means)[:, 0])
    _near(np.asarray(found.point.means)[order], TRUTH.means, 1.0, "means")
    _near(np.asarray(found.point.weights)[order], TRUTH.weights, 0.2, "weights")


def repeats_itself(subject: Subject) -> None:
    """The same key, data and options give the same numbers."""
    spec, first = subject.first
    again = subject.fit(spec)
    same = jax.tree.map(np.array_equal, first.point, again.point)
    _require(all(jax.tree.leaves(same)), "parameters differ between two fits with one key")
    _require(first.status == again.status, f"{first.status.name} first, then {again.status.name}")


def honours_what_is_known(subject: Subject) -> None:
    """Known values come back as they were given, with error 0; NotSupported where nothing can be known."""
    found = subject.partly_known
    if found is None:
        raise NotSupported("it treats no specification with known parts")
    _near(found.point.weights, TRUTH.weights, 1e-12, "known weights")
    _near(np.asarray(found.point.covariances)[0], TRUTH.covariances[0], 1e-12, "the known covariance")


def names_a_misspelt_option(subject: Subject) -> None:
    """An option that it does not have is a ValueError."""
    options = [name for name in subject.method.options if name != "progress"]
    misspelt = f"{options[0]}x" if options else "optionx"
    _raises(lambda: subject.fit(MixtureSpec(K), **{misspelt: 1}), f"no option '{misspelt}'", "an unknown option")


def refuses_bad_input(subject: Subject) -> None:
    """NaN, too few rows, an impossible specification: a ValueError that names row, argument and value."""
    hole, heavy = np.where(np.arange(N)[:, None] == 3, np.nan, subject.x), Known(weights=np.array([0.6, 0.6]))
    data, spec = (f"gmm_jax.mixture.{name} gives such a sentence" for name in ("check_data", "validate_spec"))
    few = "n_components=2 is more than the 1 row"
    _raises(lambda: subject.fit(MixtureSpec(K), hole), "row 3", f"NaN in row 3; {data}")
    _raises(lambda: subject.fit(MixtureSpec(K), subject.x[:1]), few, f"one row for two components; {data}")
    sums = "known.weights must sum to 1"
    _raises(lambda: subject.fit(MixtureSpec(K, known=heavy)), sums, f"known weights 0.6 and 0.6; {spec}")


def leaves_the_data_alone(subject: Subject) -> None:
    """x is not written to."""
    _ = subject.first
    _require(np.array_equal(subject.x, easy_data()[0]), "x was changed by fit")


_FIRST = (says_what_it_is, answers, repeats_itself)
_OTHERS = (honours_what_is_known, names_a_misspelt_option, refuses_bad_input, leaves_the_data_alone)
PROMISES: dict[str, Callable[[Subject], None]] = {f.__name__.replace("_", " "): f for f in _FIRST + _OTHERS}


def _require(condition, sentence):
    if not condition:
        raise Broken(f"{sentence}.")


def _near(value, expected, tolerance, name):
    value, expected = np.asarray(value), np.asarray(expected)
    is_near = np.all(np.abs(value - expected) <= tolerance)
    _require(is_near, f"{name} are {value.tolist()}, within {tolerance:g} of {expected.tolist()} is asked for")


def _check_errors(errors, known, leaf, shape):
    _require(errors.shape == shape, f"standard errors of {leaf} have shape {errors.shape}")
    free = np.ones(shape, bool) if known is None else np.isnan(known)
    _require(np.array_equal(errors > 0.0, free), f"standard errors of {leaf} are not 0 exactly where they are known")


def _raises(call, pattern, what):
    seen = "an answer"
    try:
        call()
    except methods.Unavailable:
        raise
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
        if isinstance(error, ValueError) and pattern in seen:
            return
    raise Broken(f"{what}: a ValueError that says {pattern!r} is asked for, got {seen}.")
