"""
Three ways to an error, and a posterior
=======================================

Standard errors of the means from the observed information, the sandwich and a bootstrap, beside posterior sds.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from gmm_jax import MixtureSpec, bayes, em, judge, problems

jax.config.update("jax_enable_x64", True)
x, _ = problems.load("course_2d").sample(jax.random.key(0))
spec = MixtureSpec(2)
best = em.fit_em_restarts(jax.random.key(1), x, spec, n_restarts=20).best
posterior = bayes.gibbs(jax.random.key(2), x, spec, init=best.gmm)
draws = judge.relabel(posterior, reference=best.gmm).posterior.draws
errors = {
    "observed": em.standard_errors(x, best, spec).means,
    "sandwich": em.standard_errors(x, best, spec, method="sandwich").means,
    "bootstrap": em.bootstrap(jax.random.key(3), x, best, spec, n_resamples=200).standard_errors.means,
    "posterior sd": draws.means.std((0, 1)),
}

figure, panel = plt.subplots(figsize=(6, 3.4))
for i, (name, values) in enumerate(errors.items()):
    panel.bar(np.arange(4) + 0.2 * i, np.ravel(values), width=0.2, label=name)
panel.set_xticks(np.arange(4) + 0.3, ["μ₁₁", "μ₁₂", "μ₂₁", "μ₂₂"])
panel.set_ylim(top=0.11)
panel.legend(ncols=2)
plt.show()
