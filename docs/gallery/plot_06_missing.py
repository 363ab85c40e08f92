"""
Rows with gaps
==============

A third of the entries is missing at random. EM takes each row's density of what was seen; the gaps are filled by their
mean given the rest of the row, with its standard deviation.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from gmm_jax import MixtureSpec, em, impute, problems
from gmm_jax.bench.plots.primitives import draw_components

jax.config.update("jax_enable_x64", True)
problem = problems.load("course_2d")
x, _ = problem.sample(jax.random.key(0))
gaps = np.where(np.random.default_rng(0).random(x.shape) < 1 / 3, np.nan, x)
best = em.fit_em_restarts(jax.random.key(1), gaps, MixtureSpec(2), n_restarts=20, missing="marginalise").best
filled = impute(best.gmm, gaps)

figure, panel = plt.subplots(figsize=(5, 4), layout="constrained")
whole = ~np.isnan(gaps).any(axis=1)
partly = ~whole & ~np.isnan(gaps).all(axis=1)
panel.plot(*gaps[whole].T, ".", color="grey", label="seen")
panel.plot(*filled.x[partly].T, "x", color="tab:red", markersize=4, label="one entry filled")
draw_components(panel, best.gmm, x)
draw_components(panel, problem.truth, x, truth=True)
panel.set_title("fit, and the truth in black dashes")
panel.legend()
plt.show()
