r"""Without the truth: do the chains agree, how many independent draws are they worth, and are some stuck in a mode?

R-hat and effective sample sizes are arviz-stats' (rank-normalised, split). The log density, sorted functionals and
co-clustering do not depend on labels, so they come first: a chain that merely switched labels is distinguished from one
that is stuck in another mode.

Chains disagree in a quantity q where the means m_c of its normal scores differ by more than their errors allow and by
enough to matter: with v_c the variance of a chain's scores, e_c its effective draws, w_c = e_c / v_c and m the mean of
the m_c weighted by w_c,

    F = Σ_c w_c (m_c − m)² / (C − 1)  against F(C − 1, Σ_c e_c − C), adjusted for the number of quantities, and
    var_c(m_c) > (1.05² − 1) · mean_c(v_c), which is R-hat > 1.05.

Either alone calls good chains stuck: R-hat when there are few effective draws, F when there are very many.
Quantities are looked at as they are and folded about their median, so that chains which differ in spread are seen.

Reference:
    Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Rank-normalization, folding, and localization, Bayesian
    Analysis 16.
"""

from functools import partial
from itertools import combinations
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ..mixture import (
    GMM,
    ONE_AT_A_TIME,
    MixtureSpec,
    Posterior,
    Status,
    align,
    check_data,
    distinguished,
    free_entries,
    free_parts,
)
from ..mixture.gmm import log_joint
from ..mixture.programs import jit
from .checks import check_posterior, check_spec, standardised

R_HAT_LIMIT = 1.01
ESS_LIMIT = 400
N_SPREAD = 4  # samples, an even number, whose pairs are looked at for co-clustering
AGREED = 1e-3  # a co-clustering that varies less over all draws says nothing about mixing
DISAGREE = 1.05  # R-hat of chains that do not draw from the same part of the posterior
LEVEL = 1e-4  # chance of calling one of all quantities different in chains that mix
LEAST_ESS = 10  # in each chain: with fewer, effective draws are themselves not known well enough for a test

NO_SPREAD = 1e-12  # variance of the scores, which are of order one, of a chain that does not move at all


class Diagnostics(NamedTuple):
    """R-hat, effective sample sizes and Monte-Carlo errors, one entry a free quantity."""

    names: tuple[str, ...]
    r_hat: Float[np.ndarray, "Q"]
    ess_bulk: Float[np.ndarray, "Q"]
    ess_tail: Float[np.ndarray, "Q"]
    mcse_mean: Float[np.ndarray, "Q"]

    @property
    def worst(self) -> dict[str, float]:
        """The largest R-hat and the smallest ESS."""
        ess = {name: float(np.min(getattr(self, name))) for name in ("ess_bulk", "ess_tail")}
        return {"r_hat": float(np.max(self.r_hat))} | ess

    @property
    def status(self) -> Status:
        """UNMIXED where any R-hat is above 1.01 or any ESS below 400; NaN counts as unmixed."""
        worst = self.worst
        mixed = worst["r_hat"] <= R_HAT_LIMIT and worst["ess_bulk"] >= ESS_LIMIT and worst["ess_tail"] >= ESS_LIMIT
        return Status.SAMPLED if mixed else Status.UNMIXED


def diagnostics(posterior: Posterior, spec: MixtureSpec) -> Diagnostics:
    """R-hat, ESS and Monte-Carlo errors of the free φ, μ, Σ and of the log density, in the labelling given."""
    found = quantities(check_posterior(posterior).draws, check_spec(spec))
    return diagnostics_of(found | {"log_density": np.asarray(posterior.log_density)})


def invariant_diagnostics(
    posterior: Posterior, spec: MixtureSpec, x: Float[np.ndarray, "N D"] | None = None
) -> Diagnostics:
    """R-hat, ESS and Monte-Carlo errors of quantities without labels, see `invariants`."""
    return diagnostics_of(invariants(posterior, spec, x))


def invariants(posterior: Posterior, spec: MixtureSpec, x=None) -> dict[str, Float[np.ndarray, "C S"]]:
    """Label-invariant quantities by name: log density, sorted free φ and μ, Σ_k log |Σ_k|; with x, of a few rows which
    are spread over the data, log p(x_n | θ) and co-clustering, but for pairs on which all draws agree to 0.001.
    """
    weights, means, covariances = free_parts(check_spec(spec))
    draws = check_posterior(posterior).draws
    found = {"log_density": np.asarray(posterior.log_density)}
    if weights.sum() > 1:
        ordered = np.sort(np.asarray(draws.weights)[..., weights], axis=-1)
        found |= {f"sorted weights[{k}]": ordered[..., k] for k in range(ordered.shape[-1])}
    if means.any():
        ordered = np.sort(np.asarray(draws.means)[..., means, :], axis=-2)
        n_components, n_features = ordered.shape[-2:]
        found |= {f"sorted means[{k},{j}]": ordered[..., k, j] for k in range(n_components) for j in range(n_features)}
    if covariances.any():
        leaf = np.asarray(draws.covariances, float)
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN says so itself
            logs = np.linalg.slogdet(leaf)[1] if draws.covariance_type in ("full", "tied") else np.log(leaf)
        found["sum of log |covariances|"] = logs.reshape(*logs.shape[:2], -1).sum(axis=-1)
    if x is None:
        return found
    pairs = spread_pairs(x)
    rows, joint = _log_joint_at(posterior, x, pairs, spec)
    log_density = np.logaddexp.reduce(joint, axis=-1)
    found |= {f"log density at row {n}": log_density[..., i] for i, n in enumerate(rows)}
    together = _co_clustering(joint, rows, pairs)
    names = [f"co-clustering[{a},{b}]" for a, b in pairs]
    agreed = np.ptp(together, axis=(0, 1)) < AGREED  # as good as constant; a NaN is not agreed
    return found | {name: together[..., i] for i, name in enumerate(names) if not agreed[i]}


def co_clustering(
    posterior: Posterior, x: Float[np.ndarray, "N D"], pairs: Int[np.ndarray, "P 2"], spec: MixtureSpec | None = None
) -> Float[np.ndarray, "C S P"]:
    """The probability that two samples share a component, Σ_k p(k | x_a) p(k | x_b), in every draw, by rows of x."""
    rows, joint = _log_joint_at(posterior, x, pairs, spec)
    return _co_clustering(joint, rows, pairs)


def _co_clustering(joint, rows, pairs):
    p = np.exp(joint - np.logaddexp.reduce(joint, axis=-1)[..., None])
    a, b = np.searchsorted(rows, np.reshape(pairs, (-1, 2))).T
    return np.sum(p[:, :, a] * p[:, :, b], axis=-1)


def _log_joint_at(posterior, x, pairs, spec):
    """The rows of x that occur in pairs, and log φ_k N(x_n | μ_k, Σ_k) of these in every draw, (C, S, n, K), in
    standardised units.
    """
    z, _, (draws,) = standardised(x, spec, posterior.draws)
    rows = np.unique(pairs)
    return rows, np.asarray(_log_joints(draws, z[rows]), float)


@partial(jit, compiler_options=ONE_AT_A_TIME)
def _log_joints(draws, z):
    return jax.lax.map(jax.vmap(lambda gmm: log_joint(gmm, z)), draws)


def spread_pairs(x: Float[np.ndarray, "N D"]) -> Int[np.ndarray, "P 2"]:
    """All pairs of N_SPREAD samples, evenly spread in rank along the first principal axis of the scaled data."""
    x = np.asarray(check_data(x), float)
    scaled = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), np.finfo(float).tiny)
    along = scaled @ np.linalg.eigh(scaled.T @ scaled)[1][:, -1]
    low = ((np.arange(N_SPREAD // 2) + 0.5) / N_SPREAD * len(x)).astype(int)
    ranks = np.unique([low, len(x) - 1 - low])  # the same samples if the axis points the other way
    rows = np.sort(np.argsort(along)[ranks])
    return np.array(list(combinations(rows.tolist(), 2)), int).reshape(-1, 2)


def quantities(draws: GMM, spec: MixtureSpec) -> dict[str, Float[np.ndarray, "C S"]]:
    """Every free number of the mixture by name; of symmetric matrices the lower triangle."""
    weights, means, covariances = free_parts(spec)
    found = {}
    if weights.sum() > 1:
        found |= {f"weights[{k}]": np.asarray(draws.weights)[..., k] for k in np.flatnonzero(weights)}
    leaf = np.asarray(draws.means)
    found |= {f"means[{k},{j}]": leaf[..., k, j] for k in np.flatnonzero(means) for j in range(leaf.shape[-1])}
    leaf = np.asarray(draws.covariances)
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[0, 0], draws)
    for index in zip(*free_entries(one, covariances), strict=True):
        found["covariances[" + ",".join(map(str, index)) + "]"] = leaf[(..., *index)]
    return found


def diagnostics_of(found: dict[str, Float[np.ndarray, "C S"]]) -> Diagnostics:
    """One row for each quantity."""
    from arviz_stats.base import array_stats

    draws = np.stack([np.asarray(value, float) for value in found.values()])  # (Q, C, S)

    def each(statistic, **options):
        return np.asarray(statistic(draws, chain_axis=1, draw_axis=2, **options), float)

    with np.errstate(invalid="ignore", divide="ignore"):
        return Diagnostics(
            tuple(found),
            each(array_stats.rhat) if draws.shape[1] > 1 else np.full(len(found), np.nan),
            each(array_stats.ess, method="bulk"),
            each(array_stats.ess, method="tail", prob=(0.05, 0.95)),
            each(array_stats.mcse, method="mean"),
        )


def highest(posterior: Posterior) -> GMM:
    """The draw of highest density."""
    density = np.asarray(posterior.log_density)
    best = np.unravel_index(np.argmax(np.where(np.isnan(density), -np.inf, density)), density.shape)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[best], posterior.draws)


def aligned(posterior: Posterior, reference: GMM, spec: MixtureSpec) -> GMM:
    """The draws with their components in the reference's order; those that labels of rows name stay in their places."""
    return align(jax.tree.map(np.asarray, posterior.draws), reference, distinguished(spec, posterior.named))


def least_mixed(posterior: Posterior, spec: MixtureSpec, x: Float[np.ndarray, "N D"] | None = None) -> Diagnostics:
    """Of label-invariant quantities where these have not mixed, else of the free parameters in the labels of the draw
    of highest density: SAMPLED only where all have R-hat at most 1.01 and 400 effective draws.
    """
    found = invariant_diagnostics(posterior, spec, x)
    if found.status != Status.SAMPLED:
        return found
    return diagnostics_of(quantities(aligned(posterior, highest(posterior), spec), spec))


# ---- mixed, switched, or stuck


class Mixing(NamedTuple):
    """What the chains have explored, in a word, a sentence, and three tables."""

    verdict: str  # "mixed", "switched", "stuck", or "unclear"
    reason: str
    invariant: Diagnostics  # label-invariant quantities
    before: Diagnostics  # free parameters in the labels as drawn
    after: Diagnostics  # the same in one labelling


def mixing(
    posterior: Posterior, relabelled: GMM, spec: MixtureSpec, x: Float[np.ndarray, "N D"] | None = None
) -> Mixing:
    """Whether the chains have mixed, merely switched labels, or are stuck in different modes.

    stuck: chains disagree in label-invariant or in relabelled quantities: some are in another mode.
    unclear: no such disagreement is proved, but draws are too few, or not finite, or of one chain, to call them mixed.
    switched: chains disagree only in the labels as drawn; read the relabelled draws.
    mixed: none of these.

    Args:
        relabelled: the draws in one labelling, or what holds them: a `judge.Relabelled`, a Posterior.
        x: the data, for co-clustering among the label-invariant quantities.

    A mode that no chain has visited cannot be seen by any diagnostic.

    Reference:
        Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Bayesian Analysis 16: normal scores, folding. F: Welch
        (1951), Biometrika 38, without its small-sample factor.
    """
    fixed = invariants(posterior, spec, x)
    density = {"log_density": fixed["log_density"]}
    relabelled = getattr(relabelled, "posterior", relabelled)
    after = quantities(getattr(relabelled, "draws", relabelled), spec) | density
    before = quantities(posterior.draws, spec) | density
    tables = [diagnostics_of(found) for found in (fixed, before, after)]
    verdict, reason = _verdict(fixed, after, *tables)
    return Mixing(verdict, reason, *tables)


def _verdict(fixed, after, by_invariant, by_before, by_after):
    everything = fixed | after
    draws = np.stack([np.asarray(value, float) for value in everything.values()])
    if draws.shape[1] == 1:
        return "unclear", "one chain alone cannot show that another would agree: run several."
    finite = np.isfinite(draws).all(axis=(1, 2))
    if not finite.all():
        return "unclear", f"{list(everything)[int(np.argmin(finite))]} is not finite in some draws."
    apart = disagree(draws)
    if apart.any():
        names = [name for name, one in zip(everything, apart, strict=True) if one]
        what = f"{names[0]}" + f" and {len(names) - 1} other quantities" * (len(names) > 1)
        return "stuck", f"chains disagree in {what}, whatever the labels: some are stuck in another mode."
    ess = min(by_invariant.worst["ess_bulk"], by_after.worst["ess_bulk"])
    r_hat = max(by_invariant.worst["r_hat"], by_after.worst["r_hat"])
    if not (ess >= ESS_LIMIT and r_hat <= DISAGREE):  # NaN is unclear too
        return "unclear", f"too little to tell, with {ess:.0f} effective draws and R-hat {r_hat:.3f}: draw more."
    if by_before.worst["r_hat"] > DISAGREE:
        return "switched", "chains agree but for their labels: read label-invariant quantities or relabelled draws."
    return "mixed", "chains agree, also in the labels as drawn."


def disagree(draws: Float[np.ndarray, "Q C S"]) -> Bool[np.ndarray, "Q"]:
    """Quantities in which at least one chain differs from the others, as this file's head says."""
    from arviz_stats.base import array_stats
    from scipy.stats import f

    n_chains = draws.shape[1]
    folded = np.abs(draws - np.median(draws, axis=(1, 2), keepdims=True))
    scores = np.concatenate([_normal_scores(draws), _normal_scores(folded)])
    mean, variance = scores.mean(axis=2), scores.var(axis=2, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ess = array_stats.ess(scores[:, :, None], chain_axis=2, draw_axis=3, method="mean")  # of each chain, (Q, C)
    precision = ess / np.maximum(variance, NO_SPREAD)
    centre = np.sum(precision * mean, axis=1, keepdims=True) / np.sum(precision, axis=1, keepdims=True)
    ratio = np.sum(precision * (mean - centre) ** 2, axis=1) / (n_chains - 1)
    chance = f.sf(ratio, n_chains - 1, np.maximum(ess.sum(axis=1) - n_chains, 1.0))
    proved = (chance * len(scores) < LEVEL) & (ess.min(axis=1) >= LEAST_ESS)
    matters = mean.var(axis=1, ddof=1) > (DISAGREE**2 - 1.0) * variance.mean(axis=1)
    return (proved & matters).reshape(2, -1).any(axis=0)


def _normal_scores(draws):
    """Φ⁻¹((rank − 3/8) / (n + 1/4)) among all draws of all chains."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(draws.reshape(len(draws), -1), axis=1).reshape(draws.shape)
    return ndtri((ranks - 0.375) / (draws[0].size + 0.25))
