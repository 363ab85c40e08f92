r"""The posterior that goes on until it has mixed: it starts at EM's optima, with an engine that fits.

Chains of Gibbs sweeps (or of NUTS where the prior is not semi-conjugate) are looked at after 1, 2, 4, ... times the
first number of steps, and end as soon as R-hat is at most 1.01 and bulk and tail ESS are at least 400, in quantities
without labels and in one labelling. Where EM has several optima that may carry mass, and parameters are few, chains of
Gibbs also jump between their modes (jumps.py). Where half of the budget does not suffice, few rows have parallel
tempering with the other half.

Does a stop that looks at the draws bias them? It could if it looked often and at their values. Here it looks only when
the run has doubled, so a handful of times; at agreement between chains and at autocorrelation, which are the same for
draws that are reflected about their mean; and what is returned are the last two thirds of a run, whose start is
forgotten as it grows. What is left is of the order of the Monte-Carlo error squared (Glynn & Whitt 1992, The asymptotic
validity of sequential stopping rules, Annals of Applied Probability 2).
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, MixtureSpec, NotSupported, Posterior, Status, distinguished
from ..mixture.checks import check_count, check_key
from ..mixture.match import distance
from .checks import check_spec
from .diagnostics import Diagnostics, least_mixed
from .gibbs import gibbs
from .jumps import distinct, modes_of
from .nuts import nuts
from .prior import conjugate
from .starts import starts_from_em
from .target import prepare

ENGINES = ("auto", "gibbs", "nuts")
WORK = 1.65e10  # n·K·D·(D + 7)/8 of all passes by default: less than a minute on two cores
PASSES = 12_000, 2_000_000  # least and most by default
N_TEMPERATURES = 12
MOST_ROWS = 150  # beyond, so many temperatures hardly exchange: tempering is not tried
COUNTED = 100  # draws of each chain that are counted to the starts they are near to
NAMED = 0.01  # share of the draws from which a start is named


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while chains run: `.posterior` holds what they had at the last look, and says so.

    Where `judge.fit_posterior` asked for it, `.answer` has what can be said of that (its PosteriorFit).
    """

    def __init__(self, posterior: Posterior):
        super().__init__("interrupted; the draws up to the last look are in .posterior")
        self.posterior, self.answer = posterior, None


class Look(NamedTuple):
    """What a run had come to when it was looked at."""

    run: str
    passes: float  # over the data that it has cost, all chains together
    posterior: Posterior
    table: Diagnostics

    @property
    def mixed(self) -> bool:
        return self.table.status == Status.SAMPLED

    def __str__(self):
        worst = self.table.worst
        ess = min(worst["ess_bulk"], worst["ess_tail"])
        return f"{self.run}, {self.passes:.2g} passes: R-hat {worst['r_hat']:.3f}, ESS {ess:.0f}"


def sample(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    spec: MixtureSpec,
    *,
    engine: str = "auto",
    n_chains: int = 4,
    n_draws: int = 1000,
    n_restarts: int | None = None,
    init: GMM | None = None,
    max_passes: float | None = None,
    budget_seconds: float | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Posterior:
    """Posterior draws that have mixed, or the best there are and a message that says what was tried.

    Args:
        engine: "gibbs", "nuts", or "auto": gibbs where the prior is semi-conjugate (the default one is), with jumps
            between modes, and parallel tempering where it does not mix on few rows; else nuts.
        n_chains: two or more, as one alone cannot show that another would agree.
        n_draws: kept of each chain, evenly spread over the last two thirds of its run, however long that was.
        n_restarts: of EM, at whose optima the chains start; None: as em.fit_em_restarts has it.
        init: where the chains start instead, as the engines take it.
        max_passes: over the data, by all chains together: a Gibbs sweep of a chain (and temperature) is one, and so is
            a gradient. By default as many as take less than a minute on two cores, and 12,000 at least. What comes
            before the first look is not cut short.
        budget_seconds: nothing is begun that would not end in this time, as far as the last look tells. A result then
            depends on the machine, which it does not with max_passes.
        labels, missing: as the engines take them.
        progress: called with (steps done, steps until the next look).

    Returns:
        Posterior; stats: those of the engine, and passes (C,), what each chain has cost. Status SAMPLED, UNMIXED, or
        the engine's own where it is another. message: what was tried, with R-hat and ESS, and where the draws lie.

    Raises:
        Interrupted: at Ctrl-C after the first look.
        ValueError: bad arguments.
    """
    key_start, key_run, key_tempered = jax.random.split(check_key(key), 3)
    runs = _runs(engine, x, spec, labels, missing)
    check_count(n_chains, "n_chains", 2)
    check_count(n_draws, "n_draws", 4)
    budget = _Budget(max_passes, budget_seconds, np.shape(x), spec.n_components)
    if init is None:
        init, _ = starts_from_em(key_start, x, spec, n_chains, n_restarts=n_restarts, labels=labels, missing=missing)
    modes = modes_of(init, x, spec) if runs[0] == "gibbs" and labels is None and missing is None else None
    options = {"n_chains": n_chains, "n_warmup": n_draws // 2, "n_draws": n_draws, "init": init}
    options |= {"labels": labels, "missing": missing, "progress": progress}
    looks: dict[str, Look] = {}  # the last one of each run
    try:
        for place, (run, one_key) in enumerate(zip(runs, (key_run, key_tempered), strict=False), start=1):
            if looks:
                options["init"] = jax.tree.map(lambda leaf: leaf[:, -1], looks[runs[0]].posterior.draws)
            _go_on(run, one_key, x, spec, options, modes, budget, place / len(runs), looks)
            if looks[runs[0]].mixed:
                break
    except KeyboardInterrupt:
        if looks:
            raise Interrupted(_answer(looks, init, spec, "interrupted; ")) from None
        raise
    return _answer(looks, init, spec)


class _Budget:
    """Passes and seconds that are left."""

    def __init__(self, max_passes, seconds, shape, n_components):
        for name, value in (("max_passes", max_passes), ("budget_seconds", seconds)):
            is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            if value is not None and not (is_number and 0.0 < value < np.inf):
                raise ValueError(f"{name} must be a positive number, or None for the default; got {value!r}.")
        work = n_components * np.prod(shape) * (shape[-1] + 7.0) / 8.0
        self.passes = float(np.clip(WORK / work, *PASSES) if max_passes is None else max_passes)
        self.seconds, self.began = np.inf if seconds is None else float(seconds), time.monotonic()

    def allows(self, share, passes, seconds):
        """Whether so much more lies within this share of it all."""
        return passes <= share * self.passes and time.monotonic() + seconds - self.began <= share * self.seconds


def _go_on(run, key, x, spec, options, modes, budget, share, looks):
    """One engine until its draws have mixed or this share of the budget is spent: its last look among `looks`."""
    n_steps = options["n_chains"] * (options["n_warmup"] + options["n_draws"])
    before, began, n_looks = sum(look.passes for look in looks.values()), time.monotonic(), 0
    rows = None if options["missing"] is not None else x  # co-clustering is of whole rows
    own = {"gibbs": {"modes": modes}, "tempered gibbs": {"n_temperatures": N_TEMPERATURES}}
    options = options | own.get(run, {})
    cost = options.get("n_temperatures", 1)
    if looks and not budget.allows(share, before + n_steps * cost, 0.0):
        return

    def until(posterior):
        nonlocal n_looks
        each = float(np.mean(posterior.stats["n_steps"])) if run == "nuts" else cost
        look = Look(run, n_steps * 2**n_looks * each, posterior, least_mixed(posterior, spec, rows))
        looks[run], n_looks = look, n_looks + 1
        goes_on = budget.allows(share, before + 2 * look.passes, time.monotonic() - began)
        return look.mixed or not goes_on or not np.isfinite(posterior.log_density).all()

    (nuts if run == "nuts" else gibbs)(key, x, spec, until=until, **options)


def _runs(engine, x, spec, labels, missing):
    """The runs that may be tried, in turn."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}; got {engine!r}.")
    problem, _ = prepare(x, check_spec(spec), labels=labels, missing=missing)
    if engine == "nuts":
        return ("nuts",)
    try:
        conjugate(problem, "gibbs")
    except NotSupported:
        if engine == "gibbs":
            raise
        return ("nuts",)
    if engine == "gibbs":
        return ("gibbs",)
    plain = labels is None and problem.annotations.groups is None
    return ("gibbs", "tempered gibbs") if plain and len(problem.z) <= MOST_ROWS else ("gibbs",)


def _answer(looks, starts, spec, said=""):
    """The run that is nearest to having mixed, with what was tried and where its draws lie."""
    best = min(looks.values(), key=lambda look: (not look.mixed, np.nan_to_num(look.table.worst["r_hat"], nan=np.inf)))
    posterior, status = best.posterior, best.posterior.status
    said += f"{'mixed' if best.mixed else 'not mixed'} ({'; '.join(map(str, looks.values()))})"
    if not best.mixed:
        status = Status.UNMIXED if status == Status.SAMPLED else status
        if starts is not None and np.ndim(starts.weights) == 2:
            said += f"; {_where(posterior, starts, spec)}"
    n_chains = len(posterior.log_density)
    passes = np.full(n_chains, sum(look.passes for look in looks.values()) / n_chains)
    return posterior._replace(stats=posterior.stats | {"passes": passes}, status=status, message=f"{said}.")


def _where(posterior, starts, spec):
    """In words: near which of the distinct starts, EM's optima, how many of the draws lie, overall and by chain."""
    spec = distinguished(spec, posterior.named)
    modes = distinct(starts, spec)
    step = max(1, posterior.log_density.shape[1] // COUNTED)
    draws = jax.tree.map(lambda leaf: np.asarray(leaf)[:, ::step], posterior.draws)
    nearest = np.argmin([distance(draws, mode, spec) for mode in modes], axis=0)  # (C, S)
    fractions = [(float(np.mean(nearest == m)), m) for m in range(len(modes))]

    def by_chain(m):
        return ", ".join(f"{100 * share:.0f}" for share in np.mean(nearest == m, axis=1))

    ordered = sorted(fractions)[::-1]
    said = [f"{100 * s:.0f} % to number {m + 1} (by chain {by_chain(m)})" for s, m in ordered if s > NAMED]
    return f"of the {len(modes)} optima of EM at which chains started, draws are nearest: {'; '.join(said)}"
