"""
Methods on the same data sets
=============================

Divergence from the truth of four methods on four problems, read from the committed rows: nothing is fitted here.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import gmm_jax
from gmm_jax.bench import store
from gmm_jax.bench.plots.looks import method_looks

rows = store.read_rows(Path(gmm_jax.__file__).parents[1] / "results" / "recovery")
problems = ("course_2d", "overlapping", "unbalanced", "round_clusters")
methods = ("oracle", "em", "sklearn_em", "bayes")

figure, panel = plt.subplots(figsize=(6, 3.4), layout="constrained")
for method, look in method_looks(methods).items():
    median = [
        np.median([row["kl"] for row in rows if (row["problem"], row["method"]) == (p, method)]) for p in problems
    ]
    panel.plot(median, linestyle="", label=method, **look)
panel.set_xticks(range(len(problems)), problems)
panel.set(yscale="log", ylabel="KL(truth ‖ fit), nats")
panel.legend()
plt.show()
