"""Figures from data, mixtures and rows; each function writes one small PNG or GIF, at once or not at all.

A component N(μ, Σ) is drawn as the images μ + r·L·u of the unit sphere, Σ = L Lᵀ, at r = 1 and 2 standard deviations;
in one dimension as its density φ N(x | μ, Σ). Of more than three features the first two are shown, which is the exact
marginal. The truth is black and dashed, a component keeps its colour, a method keeps its colour and its marker.

`fits` and `trials` hold the figures, `primitives` what is drawn on a panel, `looks` its colours, `style` files and
layout. Other pictures of chains need none of them: `posterior.to_datatree()` is what arviz-plots reads (Python 3.12 or
newer), and xarray draws traces of it: `["posterior/means"].sel(feature=0).plot.line(x="draw", col="chain")`.
"""

from .fits import data, em_animation, em_iterations, log_likelihood, parameter_errors, posterior_of_means, recovered
from .trials import landscape, recovery
