"""
Old Faithful in two components
==============================

EM from many starts on two real features, with the components at one and two standard deviations.
"""

import jax
import matplotlib.pyplot as plt

from gmm_jax import MixtureSpec, em, predict, problems
from gmm_jax.bench.plots.primitives import draw_components, draw_data

jax.config.update("jax_enable_x64", True)
x, _ = problems.datasets.load("faithful")
found = em.fit_em_restarts(jax.random.key(0), x, MixtureSpec(2), n_restarts=20)
print(found.best.gmm.means)
print(found.message)

figure, panel = plt.subplots(figsize=(5, 4))
draw_data(panel, x, predict(found.best.gmm, x))
draw_components(panel, found.best.gmm, x)
panel.set(xlabel="eruption, minutes", ylabel="waiting, minutes")
plt.show()
