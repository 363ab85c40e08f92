"""From data to a posterior in one labelling and one mixture to report: starts, draws, point, labels, mixing."""

import inspect
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from .. import bayes, em
from ..bayes.checks import check_spec
from ..bayes.diagnostics import mixing
from ..mixture import GMM, Fit, MixtureSpec, Posterior, Status, free_parts, structure
from ..mixture.checks import check_key
from .relabel import check_relabelling, relabel

ENGINES = ("auto", "gibbs", "nuts", "smc", "svi", "laplace")
APPROXIMATE = ("svi", "laplace")  # draws are independent and R-hat has nothing to say: one run, judged by Pareto k-hat
FUNCTIONS = MappingProxyType({"auto": "sample"})  # of bayes, where it has another name
HIDDEN = {"init", "labels", "missing", "progress", "until", "engine", "n_restarts"}  # no options here
N_DRAWS = MappingProxyType({"gibbs": 2500, "laplace": 2000})  # where the engine's own number is not what is wanted here


class PosteriorFit(NamedTuple):
    """A posterior in one labelling, as it was drawn, and the fits of EM from whose optima the chains started."""

    fit: Fit
    drawn: Posterior
    starts: em.Restarts | None  # None for smc, which starts at draws of the prior


def fit_posterior(
    key,
    x,
    spec: MixtureSpec,
    *,
    engine: str = "auto",
    n_restarts: int | None = None,
    relabelling: str = "pivot",
    missing: str | None = None,
    progress=None,
    **options,
) -> PosteriorFit:
    """Posterior by one engine, and the one mixture to report: chains start at EM's optima, mixing is judged.

    The point is `bayes.point_estimate`, the mixture nearest to the posterior predictive density, and draws are
    relabelled to its order.

    Args:
        engine: auto (`bayes.sample`, which goes on until it has mixed); gibbs or nuts (Markov chains of
            one length), smc, svi or laplace.
        n_restarts: of EM, by default as many as em.fit_em_restarts has; smc has none.
        missing: "marginalise" takes NaN in x as missing at random; smc cannot, nor relabelling but by pivot.
        options: the engine's own (see `options_of`); another is a ValueError.

    Raises:
        bayes.Interrupted: at Ctrl-C after the first look of engine auto; `.answer` is what would have been returned.
    """
    check_key(key)
    check_spec(spec)
    allowed = options_of(engine)
    for name in (*options, *(["n_restarts"] if engine == "smc" and n_restarts is not None else ())):
        if name not in allowed:
            raise ValueError(f"engine {engine!r} has no option {name!r}; it has {', '.join(allowed)}.")
    gaps = missing is not None and bool(np.isnan(np.asarray(x, float)).any())
    check_relabelling(relabelling, gaps=gaps)
    options = {"n_chains": 1 if engine in APPROXIMATE else 4} | options
    if engine in N_DRAWS:
        options.setdefault("n_draws", N_DRAWS[engine])
    if progress is not None and engine not in APPROXIMATE:
        options["progress"] = progress
    if missing is not None:
        options["missing"] = missing
    key_start, key_draw = jax.random.split(key)
    draw, starts = getattr(bayes, FUNCTIONS.get(engine, engine)), None
    if engine != "smc":
        how = {"n_restarts": n_restarts, "missing": missing}
        options["init"], starts = bayes.starts_from_em(key_start, x, spec, options["n_chains"], **how)
    interrupted = None
    try:
        drawn = draw(key_draw, x, spec, **options)
    except bayes.Interrupted as error:
        drawn, interrupted = error.posterior, error
    delta = options.get("guide") == "delta"
    point = None if delta else _point(jax.random.fold_in(key_draw, 1), drawn, spec, starts)
    whole = None if gaps else x  # co-clustering is of whole rows
    fit = summary(drawn, spec, x=whole, relabelling=relabelling, chains=engine not in APPROXIMATE, point=point)
    found = PosteriorFit(fit._replace(standard_errors=None) if delta else fit, drawn, starts)
    if interrupted is not None:
        interrupted.answer = found
        raise interrupted
    return found


def _point(key, drawn, spec, starts):
    """The point estimate, or None where there is none."""
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(drawn.draws)):
        return None
    init = starts.best.gmm if starts is not None and Status(int(starts.best.status)).ok else None
    found = bayes.point_estimate(key, drawn, spec, init=init)
    return found.gmm if Status(int(found.status)).ok else None


def options_of(engine: str) -> tuple[str, ...]:
    """The names of an engine's options; a ValueError lists the engines there are."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}; got {engine!r}.")
    parameters = inspect.signature(getattr(bayes, FUNCTIONS.get(engine, engine))).parameters.values()
    hidden = HIDDEN | ({"n_chains"} if engine in APPROXIMATE else set())
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in hidden)


def summary(
    posterior: Posterior,
    spec: MixtureSpec,
    *,
    x: Float[np.ndarray, "N D"] | None = None,
    relabelling: str = "pivot",
    chains: bool = True,
    point: GMM | None = None,
) -> Fit:
    """A point and standard deviations in one labelling, and the worst of the convergence diagnostics.

    Args:
        x: for co-clustering, and for relabelling by allocations or modes.
        chains: whether draws come from chains, whose mixing is judged: R-hat says nothing about independent ones.
        point: the mixture to report, to whose order draws are relabelled; None: the mean of the relabelled draws.

    Returns:
        Fit; info: relabelling, its objective and decided (see `relabel`), labels (a sentence where they are ambiguous),
        mean_log_density; reading, a sentence on how far the draws may be trusted; of chains mixing, mixing_reason,
        r_hat and ess of the worst quantity; and by engine message and passes over the data (auto);
        log_evidence (smc, laplace); elbo (svi); divergences and leapfrog_steps (nuts); share_with_empty_component and
        arrivals (gibbs); for svi and laplace pareto_k and what importance weights change, shift (the largest change of
        a mean, in sds) and spread (the largest ratio of an sd after to before).
    """
    relabelled = relabel(posterior, method=relabelling, x=x, spec=spec, reference=point)
    mean, sds = mean_and_sd(relabelled.posterior.draws, spec)
    info = {"relabelling": relabelled.method, "relabelling_objective": relabelled.objective}
    info |= {"decided": relabelled.decided, "mean_log_density": float(np.mean(posterior.log_density))}
    if relabelled.note:
        info["labels"] = relabelled.note
    status = Status(posterior.status)
    if chains:
        found = mixing(posterior, relabelled, spec, x)
        info |= {"mixing": found.verdict, "mixing_reason": found.reason, "reading": found.reason} | found.after.worst
        info["r_hat_before_relabelling"] = found.before.worst["r_hat"]
        info["r_hat_label_invariant"] = found.invariant.worst["r_hat"]
        if status == Status.SAMPLED and not posterior.message:  # bayes.sample has judged its own
            status = found.after.status
    fit = Fit(mean, relabelled.posterior, sds, status, info)
    info |= _particulars(posterior, fit, spec)
    if point is not None:
        fit = fit._replace(point=point)
    if not chains:
        info["reading"] = _reading_of_approximation(info)
    return fit._replace(info=info)


def _reading_of_approximation(info):
    if "pareto_k" not in info:
        return "one point, the mode of the posterior: it has no draws and no errors."
    return (
        f"draws are independent, of an approximation with Pareto k-hat {info['pareto_k']:.2f}: up to 0.7 importance "
        f"weights correct it, and here change means by up to {info['shift']:.2g} sds."
    )


def mean_and_sd(draws: GMM, spec: MixtureSpec) -> tuple[GMM, GMM]:
    """Mean and sd over (chains, draws); the sd of what is known is exactly 0."""
    point = jax.tree.map(lambda leaf: np.mean(leaf, axis=(0, 1)), draws)
    sds = jax.tree.map(lambda leaf: np.std(leaf, axis=(0, 1)), draws)
    weights, means, covariances = free_parts(spec)
    if weights.sum() == 1:
        weights = np.zeros_like(weights)  # determined by the known ones
    per_component = structure(spec.covariance_type).per_component
    spread = covariances.reshape(-1, *(1,) * (sds.covariances.ndim - 1)) if per_component else covariances.any()
    free = {"weights": weights, "means": means[:, None], "covariances": spread}
    return point, replace(sds, **{name: getattr(sds, name) * mask for name, mask in free.items()})


def _particulars(drawn, fit, spec):
    """What one engine says and the others do not."""
    stats, found = drawn.stats, {}
    if drawn.message:
        found |= {"message": drawn.message, "passes": float(np.sum(stats["passes"]))}
    if "diverging" in stats:
        found |= {"divergences": int(np.sum(stats["diverging"])), "leapfrog_steps": float(np.mean(stats["n_steps"]))}
    if "occupied" in stats:
        found["share_with_empty_component"] = float(np.mean(stats["occupied"] < spec.n_components))
    if "arrivals" in stats:
        found["arrivals"] = int(np.sum(stats["arrivals"]))
    if "n_stages" in stats:
        evidence, error = bayes.pool(drawn)[:2]
        found |= {"log_evidence": evidence, "log_evidence_standard_error": error}
        found["n_stages"] = int(np.max(stats["n_stages"]))
    if "mode" in stats:
        found |= {name: float(stats[name][0]) for name in ("log_evidence", "log_evidence_corrected")}
    if "elbo" in stats:
        found["elbo"] = float(np.max(stats["elbo"]))
    return found | (_correction(fit) if "pareto_k" in stats else {})


def _correction(fit):
    """k̂ of one chain of an approximation, and what importance weights change in the free numbers of its fit."""
    after = jax.tree.map(lambda leaf: leaf[0], bayes.corrected_moments(fit.draws))
    mixtures = fit.point, fit.standard_errors, *after
    flat = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gmm)]).astype(float) for gmm in mixtures)
    mean, sd, new_mean, new_sd = flat
    free = sd > 0.0
    shift, spread = np.abs(new_mean - mean)[free] / sd[free], new_sd[free] / sd[free]
    found = {"shift": float(np.max(shift, initial=0.0)), "spread": float(np.max(spread, initial=0.0))}
    return found | {"pareto_k": float(fit.draws.stats["pareto_k"][0])}
