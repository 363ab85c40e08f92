"""
How many components?
====================

BIC and ICL for one to four components on the iris data. They answer different questions: a density, or groups.
"""

import jax
import matplotlib.pyplot as plt

from gmm_jax import judge, problems

jax.config.update("jax_enable_x64", True)
x, _ = problems.datasets.load("iris")
rows = judge.choose_components(jax.random.key(0), x, (1, 2, 3, 4), criteria=("information",), n_restarts=10)
print(judge.choices(rows))

figure, panel = plt.subplots(figsize=(5, 3.4), layout="constrained")
for name in ("bic", "icl"):
    panel.plot([row["n_components"] for row in rows], [row[name] for row in rows], "o-", label=name)
panel.set(xlabel="number of components", ylabel="smaller is better", xticks=[1, 2, 3, 4])
panel.legend()
plt.show()
