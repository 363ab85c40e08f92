r"""Did the chains mix, did they merely switch labels, or are some stuck in another mode?

Chains disagree in a quantity q where the means m_c of its normal scores differ by more than their errors allow and by
enough to matter: with v_c the variance of a chain's scores, e_c its effective draws, w_c = e_c / v_c and m the mean of
the m_c weighted by w_c,

    F = Σ_c w_c (m_c − m)² / (C − 1)  against F(C − 1, Σ_c e_c − C), adjusted for the number of quantities, and
    var_c(m_c) > (1.05² − 1) · mean_c(v_c), which is R-hat > 1.05.

Either alone calls good chains stuck: R-hat when there are few effective draws, F when there are very many.
Quantities are looked at as they are and folded about their median, so that chains which differ in spread are seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ..mixture import MixtureSpec, Posterior
from .diagnostics import ESS_LIMIT, Diagnostics, diagnostics_of, invariants, quantities
from .relabel import Relabelled

DISAGREE = 1.05  # R-hat of chains that do not draw from the same part of the posterior
LEVEL = 1e-4  # chance of calling one of all quantities different in chains that mix
LEAST_ESS = 10  # in each chain: with fewer, effective draws are themselves not known well enough for a test

NO_SPREAD = 1e-12  # variance of the scores, which are of order one, of a chain that does not move at all


class Mixing(NamedTuple):
    """What the chains have explored, in a word, a sentence, and three tables."""

    verdict: str  # "mixed", "switched", "stuck", or "unclear"
    reason: str
    invariant: Diagnostics  # label-invariant quantities
    before: Diagnostics  # free parameters in the labels as drawn
    after: Diagnostics  # the same in one labelling


def mixing(
    posterior: Posterior, relabelled: Relabelled, spec: MixtureSpec, x: Float[np.ndarray, "N D"] | None = None
) -> Mixing:
    """Whether the chains have mixed, merely switched labels, or are stuck in different modes.

    stuck: chains disagree in label-invariant or in relabelled quantities: some are in another mode.
    unclear: no such disagreement is proved, but draws are too few, or not finite, or of one chain, to call them mixed.
    switched: chains disagree only in the labels as drawn; read the relabelled draws.
    mixed: none of these.

    Args:
        x: the data, for co-clustering among the label-invariant quantities.

    A mode that no chain has visited cannot be seen by any diagnostic.

    Reference:
        Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), Bayesian Analysis 16: normal scores, folding. F: Welch
        (1951), Biometrika 38, without its small-sample factor.
    """
    fixed = invariants(posterior, spec, x)
    density = {"log_density": fixed["log_density"]}
    after = quantities(relabelled.posterior.draws, spec) | density
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
    from scipy.stats import f

    n_chains = draws.shape[1]
    folded = np.abs(draws - np.median(draws, axis=(1, 2), keepdims=True))
    scores = np.concatenate([_normal_scores(draws), _normal_scores(folded)])
    mean, variance = scores.mean(axis=2), scores.var(axis=2, ddof=1)
    ess = _ess_of_each_chain(scores)
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


def _ess_of_each_chain(scores):
    """(Q, C) effective draws for the mean."""
    from arviz_stats.base import array_stats

    with np.errstate(invalid="ignore", divide="ignore"):
        return array_stats.ess(scores[:, :, None], chain_axis=2, draw_axis=3, method="mean")
