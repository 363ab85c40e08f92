"""
What is it worth to know something?
===================================

Errors of the means over twenty data sets: nothing known, weights known, weights and covariances known.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from gmm_jax import em, judge, problems

jax.config.update("jax_enable_x64", True)
problem = problems.load("overlapping")
data = [problem.sample(jax.random.key(seed), 300)[0] for seed in range(20)]
cases = {"nothing": (), "φ": ("weights",), "φ and Σ": ("weights", "covariances")}
errors = {}
for name, fields in cases.items():
    fits = em.fit_em_restarts(jax.random.key(1), np.stack(data), problem.knowing(*fields), n_restarts=10)
    errors[name] = [judge.recovery(jax.random.key(2), fit.best.gmm, problem.truth)["means_error"] for fit in fits]

figure, panel = plt.subplots(figsize=(5, 3.4), layout="constrained")
panel.boxplot(list(errors.values()), tick_labels=list(errors))
panel.set(xlabel="known", ylabel="root mean square error of μ")
plt.show()
