"""
A density with its uncertainty
==============================

Velocities of 82 galaxies: the posterior mean density of a mixture of three, and where 90 % of the draws' densities lie.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from gmm_jax import MixtureSpec, bayes, em, log_prob, problems

jax.config.update("jax_enable_x64", True)
x, _ = problems.datasets.load("galaxies_roeder")
x = x / 1000.0  # thousands of km/s
spec = MixtureSpec(3)
best = em.fit_em_restarts(jax.random.key(0), x, spec, n_restarts=20).best
posterior = bayes.gibbs(jax.random.key(1), x, spec, init=best.gmm)
at = np.linspace(5, 40, 300)[:, None]
draws = jax.tree.map(lambda leaf: np.reshape(leaf, (-1, *np.shape(leaf)[2:]))[::20], posterior.draws)
densities = np.exp(jax.vmap(log_prob, (0, None))(draws, at))

figure, panel = plt.subplots(figsize=(6, 3.4), layout="constrained")
panel.hist(x[:, 0], bins=40, density=True, color="lightgrey")
panel.fill_between(at[:, 0], *np.quantile(densities, (0.05, 0.95), axis=0), alpha=0.3, label="90 % of the draws")
panel.plot(at[:, 0], np.exp(posterior.log_predictive(at)), label="posterior mean")
panel.plot(at[:, 0], np.exp(log_prob(best.gmm, at)), "--", color="black", linewidth=1, label="EM")
panel.set(xlabel="velocity, 1000 km/s", ylabel="density")
panel.legend()
plt.show()
