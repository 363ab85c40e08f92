"""How many components? A row for each K and columns for each criterion; criteria answer different questions.

information asks the best fit, loo how well new samples are foretold, evidence and bridge how probable the data are
under model and prior, bootstrap whether K + 1 components fit better than K by more than chance, occupied how many of
too many components hold samples under a prior that likes empty ones, and telescoping how probable each K is where K is
a parameter itself. They are never merged into one score.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any
from zlib import crc32

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from .. import bayes, em
from ..bayes.prior import with_concentration
from ..mixture import MixtureSpec, Posterior, Prior, Status, check_data, sample
from ..mixture.checks import check_key
from ..mixture.moments import work_of_step
from ..mixture.programs import jit
from .criteria import information_criteria, leave_one_out

SIGNIFICANT = 0.05
SMC_RUNS = 4
EVEN, SPARSE = 4.0, 0.01  # concentrations of φ's prior: a component that is not needed costs something, or stays empty
CONFIG = em.EMConfig(acceleration="lbfgs")  # with more components than there are groups plain EM crawls
SHARED = 6  # K up to a multiple of this share programs, so that no row depends on the others
SHARED_WORK = 1 << 25  # multiplications of one step, up to which they do
MORE = 7  # components beyond the largest K asked for, so that telescoping's probabilities are of all K that matter


@dataclass(frozen=True)
class Task:
    """The data, one number of components, and what several criteria need of them, computed once."""

    key: Key[Array, ""]
    x: Float[np.ndarray, "N D"]
    spec: MixtureSpec
    n_restarts: int
    n_bootstrap: int
    n_draws: int
    refit: bool

    def key_for(self, name: str) -> Key[Array, ""]:
        """The key of one use."""
        return jax.random.fold_in(self.key, crc32(name.encode()))

    @cached_property
    def fit(self) -> em.EMResult:
        """The best of EM's restarts."""
        return self.restarts(self.key_for("fit"), self.x, self.spec).best

    def restarts(self, key: Key[Array, ""], x: Float[Array, "*P N D"], spec: MixtureSpec) -> Any:
        """EM's restarts, in programs for several K where a step costs less than a compilation."""
        shared = -(-spec.n_components // SHARED) * SHARED
        quick = work_of_step(self.n_restarts, x.size // x.shape[-1], shared, x.shape[-1]) <= SHARED_WORK
        options = {"n_restarts": self.n_restarts, "config": CONFIG, "programs_for": shared if quick else 0}
        return em.fit_em_restarts(key, x, spec, **options)

    @cached_property
    def explicit(self) -> MixtureSpec:
        """The spec with its prior's defaults made explicit, which do not change when rows are left out."""
        return with_concentration(replace(self.spec, prior=bayes.default_prior(self.x, self.spec)), EVEN)

    @cached_property
    def posterior(self) -> Posterior:
        """Gibbs' draws from k-means++ starts."""
        return bayes.gibbs(self.key_for("posterior"), self.x, self.explicit, n_draws=self.n_draws)


def choose_components(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    ks: Sequence[int],
    *,
    criteria: Sequence[str] = ("information", "loo", "evidence", "bridge", "bootstrap", "occupied", "telescoping"),
    covariance_type: str = "full",
    prior: Prior = Prior(),
    n_restarts: int = 20,
    n_bootstrap: int = 99,
    n_draws: int = 1000,
    refit: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Criteria for the number of components: one row for each K of ks.

    Args:
        criteria: names from CRITERIA and OVERALL; the columns stand in the docstring of each.
        prior: semi-conjugate; over φ it is Dirichlet(4) and may not be given, as its event has one K. With the default
            of other functions, Dirichlet(1), a component too many is hardly less probable.
        n_restarts: of EM, for each fit, those of the bootstrap included.
        n_bootstrap: data sets from the fit of K components: p-values are multiples of 1 / (n_bootstrap + 1).
        n_draws: of each of 4 chains.
        refit: whether leave-one-out draws anew where its importance weights fail.
        progress: called after each of ks with (how many are done, how many there are).

    Columns that are probabilities: bootstrap_p, occupied_probability and those of telescoping. The others order models:
    a difference in elpd of a few standard errors, or in evidence that doubling the prior's scales undoes, says little.
    """
    check_key(key)
    x = _check(x, ks, criteria, prior)
    largest = MixtureSpec(max(ks), covariance_type, prior=prior)
    overall = {}
    for name in filter(OVERALL.__contains__, criteria):
        overall |= OVERALL[name](jax.random.fold_in(key, crc32(name.encode())), x, largest, n_draws)
    rows = []
    for k in ks:
        spec = MixtureSpec(k, covariance_type, prior=prior)
        task = Task(jax.random.fold_in(key, k), x, spec, n_restarts, n_bootstrap, n_draws, refit)
        row = {"n_components": k}
        for name in filter(CRITERIA.__contains__, criteria):
            row |= CRITERIA[name](task)
        rows.append(row | {name: float(values[k]) for name, values in overall.items()})
        if progress is not None:
            progress(len(rows), len(ks))
    return rows


def choices(rows: Sequence[dict[str, Any]], significant: float = SIGNIFICANT) -> dict[str, int | None]:
    """The K that each criterion prefers; None where it has no value.

    Lowest bic and icl, highest elpd_loo, log evidences and probabilities; for the bootstrap the smallest K that is
    not rejected in favour of K + 1: None where all are, or where one before it could not be tested.
    """
    found = {}
    for name, sign in BEST.items():
        seen = [(sign * row[name], row["n_components"]) for row in rows if row.get(name) is not None]
        if any(name in row for row in rows):
            found[name] = max(seen)[1] if seen else None
    if any("bootstrap_p" in row for row in rows):
        p = {row["n_components"]: row["bootstrap_p"] for row in rows}
        first = next((k for k in sorted(p) if p[k] is None or p[k] > significant), None)
        found["bootstrap_p"] = None if first is None or p[first] is None else first
    return found


# ---- criteria: Task -> columns


def information(task: Task) -> dict[str, Any]:
    """em_status; log_likelihood, n_parameters, aic, bic, icl of EM's best fit, None where it failed."""
    status = Status(int(task.fit.status))
    values = information_criteria(task.fit.gmm, task.x, task.spec)
    return {"em_status": status.name} | {name: value if status.ok else None for name, value in values.items()}


def loo(task: Task) -> dict[str, Any]:
    """elpd_loo and elpd_loo_se (nats), loo_unreliable: rows with k̂ above 0.7, loo_refitted: those drawn anew."""

    def without(n):
        key = jax.random.fold_in(task.key_for("loo"), n)
        return bayes.gibbs(key, np.delete(task.x, n, axis=0), task.explicit, n_draws=task.n_draws)

    found = leave_one_out(task.posterior, task.x, refit=without if task.refit else None)
    rows = {"loo_unreliable": int(found.unreliable.sum()), "loo_refitted": int(found.refitted.sum())}
    return {"elpd_loo": found.elpd, "elpd_loo_se": found.standard_error} | rows


def evidence(task: Task) -> dict[str, Any]:
    """log_evidence and log_evidence_se by smc, nats, all labellings counted.

    evidence_prior: "given", or "from the data": then log_evidence_doubled is the evidence with the scales of the
    default parts of the prior doubled, and its distance from log_evidence says how much the prior decides.
    """
    prior, x = task.spec.prior, task.x
    given = prior.means is not None and (prior.covariances is not None or prior.scales is not None)
    row = _smc_evidence(task, "smc", "log_evidence", task.explicit)
    row["evidence_prior"] = "given" if given else "from the data"
    if given:
        return row
    # the default prior of data spread twice as far about their mean is that of the data with doubled scales
    doubled = replace(task.spec, prior=bayes.default_prior(x + (x - x.mean(axis=0)), task.spec))
    return row | _smc_evidence(task, "doubled", "log_evidence_doubled", with_concentration(doubled, EVEN))


def bridge(task: Task) -> dict[str, Any]:
    """log_evidence_bridge and log_evidence_bridge_se from Gibbs' draws, None where bridge_reason says why."""
    try:
        found = bayes.bridge(task.key_for("bridge"), task.x, task.explicit, task.posterior)
    except ValueError as error:
        return {"log_evidence_bridge": None, "log_evidence_bridge_se": None, "bridge_reason": str(error)}
    return {"log_evidence_bridge": found.log_evidence, "log_evidence_bridge_se": found.standard_error}


def bootstrap(task: Task) -> dict[str, Any]:
    """bootstrap_statistic 2(ℓ_{K+1} − ℓ_K), its p-value under K, bootstrap_failed: data sets without a usable fit.

    The data and those drawn from their fit of K components are fitted alike, all in one batch.

    Reference:
        McLachlan (1987), On bootstrapping the likelihood ratio test statistic for the number of components in a normal
        mixture, Applied Statistics 36.
    """
    keys = jax.random.split(task.key_for("bootstrap"), task.n_bootstrap + 2)
    drawn = np.asarray(_samples(keys[2:], task.fit.gmm, len(task.x)))
    sets = np.concatenate([task.x[None], drawn.astype(task.x.dtype)])
    larger = replace(task.spec, n_components=task.spec.n_components + 1)
    small, large = task.restarts(keys[0], sets, task.spec), task.restarts(keys[1], sets, larger)
    statistic = 2.0 * (large.best.log_likelihood - small.best.log_likelihood)
    ended = [np.isin(found.best.status, (Status.CONVERGED, Status.MAX_ITER)) for found in (small, large)]
    usable = (small.reason == "") & (large.reason == "") & ended[0] & ended[1]
    as_large = int(np.sum(statistic[1:][usable[1:]] >= statistic[0]))
    return {
        "bootstrap_statistic": float(statistic[0]) if usable[0] else None,
        "bootstrap_p": (1 + as_large) / (1 + int(usable[1:].sum())) if usable[0] else None,
        "bootstrap_failed": int(np.sum(~usable)),
    }


# ---- criteria that take all K at once: (key, x, the largest spec, n_draws) -> column -> a value for each k = 0, 1, ...


def occupied(key, x, largest, n_draws):
    """occupied_probability of K occupied components of max(ks), where φ ~ Dirichlet(0.01) likes empty ones.

    It is the share of Gibbs' draws in which so many of them hold samples. Chains start with all components occupied and
    empty them one by one, which takes the longer the nearer components lie.

    Reference:
        Malsiner-Walli, Frühwirth-Schnatter & Grün (2016), Model-based clustering based on sparse finite Gaussian
        mixtures, Statistics and Computing 26.
    """
    found = bayes.gibbs(key, x, with_concentration(largest, SPARSE), n_warmup=n_draws, n_draws=n_draws)
    occupied = np.asarray(found.stats["occupied"]).ravel()
    return {"occupied_probability": np.bincount(occupied, minlength=largest.n_components + 1) / occupied.size}


def telescoping(key, x, largest, n_draws):
    """telescoping_probability, P(K | x) of K components in the model, and telescoping_occupied, of K that hold samples.

    K has bayes.telescoping's prior, up to MORE components beyond max(ks); μ and Σ that for max(ks) components.
    """
    prior = replace(bayes.default_prior(x, largest), weights=None)
    spec = replace(largest, n_components=min(largest.n_components + MORE, len(x)), prior=prior)
    found = bayes.telescoping(key, x, spec, n_warmup=n_draws, n_draws=n_draws)
    columns = {"telescoping_probability": found.n_components, "telescoping_occupied": found.occupied}
    return {name: found.probabilities(counts)[0] for name, counts in columns.items()}


CRITERIA = MappingProxyType({f.__name__: f for f in (information, loo, evidence, bridge, bootstrap)})
OVERALL = MappingProxyType({f.__name__: f for f in (occupied, telescoping)})
BEST = MappingProxyType(
    {"bic": -1, "icl": -1, "elpd_loo": 1, "log_evidence": 1, "log_evidence_bridge": 1}
    | {"occupied_probability": 1, "telescoping_probability": 1, "telescoping_occupied": 1}
)


def _smc_evidence(task, use, column, spec):
    draws = bayes.smc(task.key_for(use), task.x, spec, n_chains=SMC_RUNS, n_draws=task.n_draws)
    return dict(zip((column, f"{column}_se"), bayes.pool(draws), strict=False))


@partial(jit, static_argnames="n")
def _samples(keys, gmm, n):
    return jax.vmap(lambda key: sample(key, gmm, n)[0])(keys)


def _check(x, ks, criteria, prior):
    if not ks or len(set(ks)) != len(ks):
        raise ValueError(f"ks must name each number of components once, and at least one; got {list(ks)!r}.")
    unknown = sorted(set(criteria) - {*CRITERIA, *OVERALL})
    if unknown:
        raise ValueError(f"criteria must be among {', '.join([*CRITERIA, *OVERALL])}; got {', '.join(unknown)}.")
    if prior.weights is not None:
        raise ValueError("prior.weights has an event for one K, so that K cannot be chosen with it: leave it out.")
    return check_data(x, n_components=max(ks))
