"""
Where starts end
================

A likelihood has many maxima. Two hundred random starts: how high each ends, and how many end there.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from gmm_jax import em, problems

jax.config.update("jax_enable_x64", True)
problem = problems.load("unbalanced")
x, _ = problem.sample(jax.random.key(0))
found = em.fit_em_restarts(jax.random.key(1), x, problem.spec, n_restarts=200)
print(found.message)

optima = found.optima
gap = optima.log_likelihood - found.best.log_likelihood
figure, panel = plt.subplots(figsize=(6, 3.6), layout="constrained")
panel.bar(np.arange(len(gap)), optima.count, color=np.where(optima.spurious, "lightgrey", "tab:blue"))
panel.set_xticks(np.arange(len(gap)), [f"{g:.1f}" for g in gap], rotation=90, fontsize=7)
panel.set(xlabel="log-likelihood − best, nats (grey: spurious)", ylabel="starts that ended there", yscale="log")
plt.show()
