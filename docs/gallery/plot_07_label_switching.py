"""
Labels that switch
==================

Four Gibbs chains from starts of their own: their components are numbered differently, until all draws are relabelled.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from gmm_jax import MixtureSpec, bayes, judge, problems

jax.config.update("jax_enable_x64", True)
x, _ = problems.load("course_2d").sample(jax.random.key(0))
spec = MixtureSpec(2)
posterior = bayes.gibbs(jax.random.key(3), x, spec)
relabelled = judge.relabel(posterior, spec=spec)
print(judge.mixing(posterior, relabelled, spec, x).reason)

figure, panels = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for panel, draws, title in zip(panels, (posterior.draws, relabelled.posterior.draws), ("as drawn", "relabelled")):
    for k, colour in enumerate(("tab:blue", "tab:orange")):
        panel.plot(np.asarray(draws.means)[:, ::10, k, 0].reshape(-1), ".", color=colour, markersize=3)
    panel.set(title=title, xlabel="draws of four chains, one after the other", ylabel="μ, feature 1")
plt.show()
