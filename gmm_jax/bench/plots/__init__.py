"""Figures from data, mixtures and rows; each function writes one small PNG or GIF, at once or not at all.

A component N(μ, Σ) is drawn as the images μ + r·L·u of the unit sphere, Σ = L Lᵀ, at r = 1 and 2 standard deviations;
in one dimension as its density φ N(x | μ, Σ). Of more than three features the first two are shown, which is the exact
marginal. The truth is black and dashed, a component keeps its colour, a method keeps its colour and its marker.

`fits`, `posteriors` and `trials` hold the figures, `pens` what is drawn on a panel, `page` the style and all that
Matplotlib does.
"""

from .fits import data, em_animation, em_iterations, log_likelihood, parameter_errors, posterior_of_means, recovered
from .posteriors import marginals, posterior_predictive, traces
from .trials import calibration, curves, landscape, recovery, scaling

__all__ = [
    "calibration",
    "curves",
    "data",
    "em_animation",
    "em_iterations",
    "landscape",
    "log_likelihood",
    "marginals",
    "parameter_errors",
    "posterior_of_means",
    "posterior_predictive",
    "recovered",
    "recovery",
    "scaling",
    "traces",
]
