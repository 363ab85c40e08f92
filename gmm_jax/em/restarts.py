"""The one driver: many starts of EM, wherever the rows lie, and every fit kept.

Entry points: they check, centre and scale the data, run the fits, rank the optima, and map everything back. Data sets
are an axis: simulation studies and bootstraps fit many at once, from many starts each, in the same programs.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..mixture import GMM, Hyperparameters, MixtureSpec, Status, distinguished
from ..mixture.checks import check_count, check_key, check_type, kind_of
from ..mixture.files import Keeper, checkpoint_path, digest, read_checkpoint
from ..mixture.sources import is_many
from .criterion import CRITERIA, Judged, Ranking, best_of, judged_fits
from .fit import EMConfig, EMResult
from .inputs import Data, check_options, open_data, outward, prepare_many, stack, starts_of, starts_of_each
from .optima import Optima, Unseen, distinct, message_of, pick, remarks_of, unseen
from .pool import CompiledFits, compile_ahead, compiled_fits
from .search import Search, Swapped, run_swaps, starts_and_swaps
from .sums import HostedFits, Problem, hosted_fits, in_parts, n_parts, sums_of


class Effort(NamedTuple):
    """What a search cost, and what its starts leave unseen."""

    spent: int  # iterations that moved a fit
    wasted: int  # iterations computed for fits that had ended and waited
    unseen: Unseen


class Restarts(NamedTuple):
    """What many restarts found, in the units and dtype of the data."""

    best: EMResult  # what the criterion prefers among fits that are eligible and not spurious; see fit_em_restarts
    fits: EMResult  # the fit from every start, leading axis R: independent of each other
    optima: Optima  # what the fits reached, and what swaps led to
    message: str  # how it ended, in sentences: the status of the best fit, and what else should be known
    effort: Effort
    starts: GMM  # where each fit began, leading axis R
    search: "Restarts | None" = None  # what was found on n_sample rows, where the start was looked for there


@dataclass(frozen=True)
class ManyRestarts(Sequence):
    """Restarts on P data sets: the best fits with leading axis P, all fits (P, R); item p is a `Restarts`."""

    best: EMResult  # without a trace: trace is (P, 0)
    log_likelihood: Float[np.ndarray, "P R"]
    status: Int[np.ndarray, "P R"]
    n_iter: Int[np.ndarray, "P R"]
    reason: np.ndarray  # (P,) of str: why the best one is spurious all the same, "" where it is not
    _one: Callable[[int], Restarts]

    def __len__(self) -> int:
        return len(self.reason)

    def __getitem__(self, p: int) -> Restarts:
        if not -len(self) <= p < len(self):
            raise IndexError(f"there are {len(self)} data sets; got number {p}.")
        return self._one(range(len(self))[p])


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during restarts: `.restarts` holds every fit as far as it came."""

    def __init__(self, restarts: Restarts):
        super().__init__("interrupted; the fits as far as they came are in .restarts")
        self.restarts = restarts


def fit_em_restarts(
    key: Key[Array, ""],
    x: Any,
    spec: MixtureSpec,
    *,
    n_restarts: int | None = None,
    init: str | Callable | GMM = "kmeans++",
    sample_weight: Float[Array, "N"] | None = None,
    labels: Int[Array, "N"] | None = None,
    missing: str | None = None,
    config: EMConfig = EMConfig(),
    prior: Hyperparameters | Sequence[Hyperparameters] | None = None,
    criterion: str = "evidence",
    swaps: bool | None = None,
    n_sample: int | None = None,
    block_rows: int | None = None,
    traces: bool | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    programs_for: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
) -> Restarts | ManyRestarts:
    """EM from n_restarts starts on every core, many at a time, or few on much data one by one; every fit is kept.

    x is checked, centred and scaled here in float64, and everything is mapped back: fits are affine equivariant, and
    config.reg_covar=None means 1e-6 of each feature's variance. Eligible for best are fits that CONVERGED or reached
    MAX_ITER; among them one that is not `spurious` is preferred, because a mixture's likelihood is unbounded, and of
    these one of largest approximate evidence, because the highest likelihood often follows noise (`em.criterion`).
    `optima` has them all; where a fit of higher likelihood was set aside, the message says so. If no fit is eligible,
    best is the highest finite one with its failing status.

    Args:
        x: (N, D) rows in memory (NumPy, JAX, a data frame), or rows that lie elsewhere, with the same answer:
            a function that yields the same blocks (N_b, D) at every call, or pairs (block, weights), one pass an
            iteration (`problems.open_blocks(path)` makes one of a file); a jax.Array that is divided over its rows
            (every process of jax.distributed calls with the same arguments); a Dask array or data frame, whose
            partitions stay with the workers. Or many data sets: (P, N, D), or a list of (N_p, D), each with
            starts of its own; the answer is then a ManyRestarts.
        key: for many data sets, one to be split, or P of them.
        n_restarts: by default as many as init holds where it is a GMM, 20 where swaps follow, 50 else.
        init: a name (random, random_points, kmeans++, kmeans), a start function (key, x, spec) -> GMM that sees
            standardised rows (at most 16,384, drawn uniformly; see `mixture.starts` for one that takes their number,
            too), or a GMM in the units of the data (one, or with a leading axis for each restart).
        sample_weight: counts a row so many times; rows of weight 0 are left out.
        labels: the component of each row, -1 where unknown: component k is then class k, and starts have its mean at
            that of its labelled rows. `match` and relabelling would undo this order: leave components as they are.
        missing: "marginalise" takes NaN in x as missing at random: each row has the density of what was seen of it.
            None: NaN is an error. For rows in memory.
        prior: raise the log posterior under this prior, in the units of x (`bayes.hyperparameters`): see fit_em. Fits
            are then ranked by it, and no optimum is called spurious: none is singular. One for each of many data sets.
        criterion: "evidence", or "likelihood": what ranks the optima that are not spurious.
        swaps: go on from the best fit with one component put elsewhere, as many new starts a round as n_restarts,
            until three hundred in a row found nothing better: with many components few starts lead to the best
            optimum. The best fit may then be none of `fits`: the message says by how much it is better, and of
            `optima` it is one that no start reached (count 0, fit -1). A hundred in a row are enough where more than a
            third of the starts led to the best. For rows in memory whose fits run side by side. By default for four
            components or more and 20 starts or more that are not given; EM is then accelerated, see EMConfig.
        n_sample: restarts are run on so many rows, drawn uniformly, and only the best goes on over all of them.
        block_rows: rows of a stream or a partition that are summed at a time, by default a million numbers.
        traces: whether `fits` keep theirs; by default for one data set.
        checkpoint: a file that is written every few seconds while starts are run. Not for many data sets.
        resume: go on from that file; all other arguments are those it was written with, but config.max_iter may be
            larger. The answer is that of a fit that was never interrupted.
        programs_for: the largest K of a loop over numbers of components, which then compiles once, at the price that a
            step costs as much as with so many. It changes the answer by rounding only, and nothing at all where rows
            are not in memory, or with a prior.
        progress: called between looks, and after each round of swaps, with (fits done, fits, best log-likelihood
            so far, -inf if none is finite).

    Raises:
        Interrupted: at Ctrl-C during the iterations, with every fit as far as it came.
        ValueError: bad data, spec, weights or options; the sentence names argument, value, place and remedy.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}; got {criterion!r}.")
    check_count(programs_for, "programs_for", 0)
    n_restarts, swaps, config = _checked(spec, init, n_restarts, swaps, config, n_sample, block_rows)
    file = checkpoint_path(checkpoint, resume=resume)
    if is_many(x):
        if file is not None or n_sample is not None:
            raise ValueError("checkpoint and n_sample are for one data set: leave them out for many.")
        rows = {"sample_weight": sample_weight, "labels": labels, "missing": missing}
        how = Search(criterion, swaps, bool(traces), programs_for, progress)
        return _fit_many(key, x, spec, n_restarts, init, config, prior, rows, how)
    check_key(key)
    data, source = open_data(key, x, spec, sample_weight, config, prior, labels, missing, n_sample, n_restarts)
    kind = init if isinstance(init, (str, GMM)) else getattr(init, "__qualname__", type(init).__name__)
    marks = {"spec or options": digest(spec, replace(config, max_iter=0), prior, programs_for)}
    marks["starts"] = digest(jax.random.key_data(key), kind, n_restarts, n_sample)
    how, search = Search(criterion, swaps, traces is None or bool(traces), programs_for, progress), None
    if n_sample is not None and not isinstance(init, GMM) and n_sample < data.n_rows:
        options = {"n_restarts": n_restarts, "init": init, "config": config, "prior": prior, "missing": missing}
        search = search_on(key, *data.sample, data.spec, **options, **how._replace(traces=True)._asdict())
        init, n_restarts = search.best.gmm, 1
    starts, fits, division = starts_and_fits(key, data, source, init, n_restarts, block_rows, programs_for)
    if file is not None:
        rows = (data.z, data.annotations) if data.fingerprint is None else data.fingerprint
        marks |= {"data": digest(rows), "number of cores": digest(division)}
    keeper = Keeper(file if jax.process_index() == 0 else None, marks)
    if resume:
        fits.kept = read_checkpoint(file, fits.kept, keeper.fingerprint)
    ranking = Ranking([data], criterion)
    interrupted = run(fits, data.volume, progress, keeper.keep)
    judged, swapped = judged_fits(fits, ranking), None
    if swaps and not interrupted and isinstance(fits, CompiledFits):
        interrupted = True
        with suppress(KeyboardInterrupt):
            swapped, interrupted = swapped_fits([key], ranking, judged, how), False
    found = restarts_of(judged, swapped, ranking, starts, fits.computed, search)
    if not how.traces:
        found = found._replace(fits=found.fits._replace(trace=found.fits.trace[:, :0]))
    if interrupted:
        raise Interrupted(found)
    return found


def _checked(spec, init, n_restarts, swaps, config, n_sample, block_rows) -> tuple[int, bool, EMConfig]:
    """How many starts, whether swaps follow, and how EM runs, once every argument but the data is what it should be."""
    check_type(spec, MixtureSpec, "spec", "MixtureSpec(n_components=3)")
    if not (isinstance(init, (str, GMM)) or callable(init)):
        raise ValueError(f"init must be a name, a GMM or a start function; got {kind_of(init)}: pass GMM(φ, μ, Σ).")
    if swaps not in (True, False, None):
        raise ValueError(f"swaps must be True, False, or None for the default; got {swaps!r}.")
    n_restarts, swaps = starts_and_swaps(spec, init, n_restarts, swaps=swaps)
    check_options(n_restarts, config, n_sample=(n_sample, spec.n_components), block_rows=(block_rows, 1))
    if config.acceleration == "auto":
        config = replace(config, acceleration="lbfgs" if swaps and config.tol > 0.0 else "none")
    return n_restarts, swaps, config


def search_on(key, x, weight, labels, spec: MixtureSpec, **options) -> Restarts:
    """Restarts on a sample of rows, the best of which is a start for all of them."""
    search = fit_em_restarts(key, x, spec, sample_weight=weight, labels=labels, **options)
    if not Status(int(search.best.status)).ok:
        raise ValueError(f"no start could be found on {len(x)} rows: {search.message}")
    return search


def starts_and_fits(key, data: Data, source, init, n_restarts: int, block_rows, programs_for) -> tuple:
    """Starts, fits that stand there, and into how many parts each sum is cut."""
    draw, division = partial(starts_of, key, data, init, n_restarts), 1
    if source is None and data.annotations.groups is None:
        division = n_parts(*data.z.shape, data.spec.n_components, n_restarts)
    if source is None and division == 1:
        starts, fits = fits_in_memory(draw, [data], n_restarts, programs_for)
        return starts, fits, 1
    sums = in_parts(data.z, data.annotations, division) if source is None else sums_of(source, data.scaling, block_rows)
    problem, starts = Problem(np.asarray(data.n_samples, data.dtype), data.inner.known, data.config, data.prior), draw()
    return starts, hosted_fits(sums, problem, starts), division


def fits_in_memory(draw, data: Sequence[Data], n_restarts: int, programs_for: int, *, traces=True) -> tuple:
    """Starts that draw() gives, and fits in memory that stand there."""
    problem, options = stack(data), {"traces": traces, "n_components": programs_for}
    compile_ahead(problem, n_restarts, data[0].inner, **options)
    starts = draw()
    each = starts if starts.means.ndim == 4 else jax.tree.map(lambda leaf: leaf[None], starts)
    return starts, compiled_fits(problem, each, **options)


def run(fits: CompiledFits | HostedFits, volume: float, progress, keep) -> bool:
    """All fits to their end, or as far as Ctrl-C lets them: whether it came. `keep` is a Keeper's."""
    interrupted, which = True, fits.running
    with suppress(KeyboardInterrupt):
        done = False
        while not done:
            done = fits.advance(which)
            keep(lambda: fits.kept)
            if progress is not None:
                values = fits.look()[0].best_value
                best = np.where(np.isfinite(values), values, -np.inf).max()
                progress(fits.n_fits - fits.running.size, fits.n_fits, float(best - volume))
        interrupted = False
    keep(lambda: fits.kept, at_once=True)
    return interrupted


def swapped_fits(keys, ranking: Ranking, judged: Judged, how: Search) -> Swapped | None:
    """What swaps make of the best fits of data sets in memory."""
    options = {"traces": judged.results.trace.shape[-1] > 0, "n_components": how.programs_for}
    begin = partial(compiled_fits, stack(ranking.data), **options)
    return run_swaps(keys, ranking, judged, begin, partial(judged_fits, ranking=ranking), how.progress)


# ---- what came of it


def restarts_of(judged: Judged, swapped: Swapped | None, ranking, starts, computed, search=None) -> Restarts:
    """What the fits of one data set and swaps found, in its units; `computed` iterations went into the fits."""
    data, n_fits, spent = ranking.data[0], judged.value.size, int(judged.n_iter.sum())
    wasted, remarks = max(computed - spent, 0), []
    if swapped is not None:
        spent += int(swapped.spent[0])
        if swapped.gain[0] > 0.0:
            judged = jax.tree.map(lambda *leaves: np.concatenate(leaves), judged, swapped.best)
            remarks = [f"swaps of components led {swapped.gain[0]:.4g} nats (of the criterion) above the best start"]
    ranked = judged.results._replace(log_likelihood=judged.value)
    highest, of_fit = distinct(ranked, distinguished(data.inner, data.annotations.labels), data.n_samples)
    best = int(best_of(ranked, judged.sound))
    remarks += remarks_of(pick(judged.results.gmm, best), data)
    results = outward(judged.results, data.spec, data.scaling, data.volume)
    of_start = of_fit[:n_fits]
    optima = Optima(
        gmm=pick(results.gmm, highest),
        log_likelihood=results.log_likelihood[highest],
        criterion=judged.worth[highest] - data.volume,
        count=np.bincount(of_start[of_start >= 0], minlength=highest.size),
        spurious=judged.reason[highest] != "",
        reason=judged.reason[highest],
        fit=np.where(highest < n_fits, highest, -1),
        of_fit=of_start,
    )
    fits = pick(results, slice(n_fits))
    message = message_of(fits, Status(int(results.status[best])), of_fit[best], optima, remarks)
    effort = Effort(spent, wasted, unseen(of_start))
    return Restarts(pick(results, best), fits, optima, message, effort, data.scaling.outward(starts), search)


# ---- many data sets


def _fit_many(key, x, spec, n_restarts, init, config, prior, rows, how: Search) -> ManyRestarts:
    keys = key if np.ndim(key) == 1 else jax.random.split(check_key(key), len(x))
    check_key(keys[0])
    batches, found, done = prepare_many(keys, x, spec, config, prior, n_restarts, **rows), [], 0
    for batch in batches:
        many = keys[np.array(list(batch))], list(batch.values())
        show = None if how.progress is None else partial(_of_all, how.progress, done * n_restarts, n_restarts * len(x))
        found.append(_fit_batch(*many, n_restarts, init, config, how._replace(progress=show)))
        done += len(batch)
    place = np.argsort(np.concatenate([list(batch) for batch in batches]))
    each = [(some, i) for some in found for i in range(len(some))]

    def of_all(field):
        parts = [getattr(some, field) for some in found]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[place], *parts)

    def one(p):
        some, i = each[place[p]]
        return some[i]

    fields = ("best", "log_likelihood", "status", "n_iter", "reason")
    return ManyRestarts(**{field: of_all(field) for field in fields}, _one=one)


def _of_all(progress, before, n_fits, done, _, best):
    progress(before + done, n_fits, best)


def _fit_batch(keys, data, n_restarts, init, config, how: Search) -> ManyRestarts:
    """Data sets of one shape, side by side."""
    draw = partial(starts_of_each, keys, data, init, n_restarts, how.programs_for)
    starts, fits = fits_in_memory(draw, data, n_restarts, how.programs_for, traces=how.traces)
    ranking = Ranking(data, how.criterion)
    if run(fits, data[0].volume, how.progress, Keeper(None, {}).keep):
        raise KeyboardInterrupt
    judged = judged_fits(fits, ranking)
    swapped = swapped_fits(keys, ranking, judged, how) if how.swaps else None
    spent, computed = max(int(judged.n_iter.sum()), 1), fits.computed

    def one(p):
        mine, alone = pick(judged, slice(p * n_restarts, (p + 1) * n_restarts)), slice(p, p + 1)
        share = computed * int(mine.n_iter.sum()) // spent
        mine_swapped = None if swapped is None else pick(swapped, alone)
        return restarts_of(mine, mine_swapped, Ranking([data[p]], how.criterion), pick(starts, p), share)

    of_starts = by_set = jax.tree.map(lambda leaf: leaf.reshape(len(data), n_restarts, *leaf.shape[1:]), judged)
    if swapped is not None:
        by_set = jax.tree.map(lambda a, b: np.concatenate([a, b[:, None]], axis=1), of_starts, swapped.best)
    best = best_of(by_set.results._replace(log_likelihood=by_set.value), by_set.sound)
    found = pick(by_set, (np.arange(len(data)), best))
    each = [outward(pick(found.results, p), d.spec, d.scaling, d.volume) for p, d in enumerate(data)]
    volume = np.array([d.volume for d in data])[:, None]
    return ManyRestarts(
        best=jax.tree.map(lambda *leaves: np.stack(leaves), *[r._replace(trace=r.trace[:0]) for r in each]),
        log_likelihood=(of_starts.results.log_likelihood - volume).astype(data[0].scaling.dtype),
        status=of_starts.results.status,
        n_iter=of_starts.n_iter,
        reason=found.reason,
        _one=one,
    )
