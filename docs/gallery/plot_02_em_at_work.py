"""
EM at work
==========

Iterates 0, 1, 2, 5, 10 and the last from a poor start, and the log-likelihood, which never falls.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from gmm_jax import GMM, em, problems
from gmm_jax.bench.plots.primitives import draw_components, draw_data

jax.config.update("jax_enable_x64", True)
x, _ = problems.load("course_2d").sample(jax.random.key(0))
start = GMM(np.array([0.5, 0.5]), np.array([[1.5, -0.6], [0.8, -0.5]]), np.stack([np.eye(2), np.eye(2)]))
result = em.fit_em(x, start)
last = int(result.n_iter)
steps = em.iterates(x, start, n_iter=last)

figure, panels = plt.subplots(2, 3, figsize=(8, 5.4), sharex=True, sharey=True, layout="constrained")
for panel, t in zip(panels.ravel(), (0, 1, 2, 5, 10, last)):
    draw_data(panel, x, size=5)
    draw_components(panel, jax.tree.map(lambda leaf, t=t: np.asarray(leaf)[t], steps), x)
    panel.set_title(f"iteration {t}: {result.trace[t]:.1f} nats", fontsize=10)
plt.show()
