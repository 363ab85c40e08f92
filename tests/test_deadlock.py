"""Fits that once waited for ever on two cores end.

Two batches of LAPACK's factorisations, side by side, each waited for the threads of the other. Each fit is compiled
anew in a process of its own, which has two cores and may not take longer than LIMIT.
"""

import os
import subprocess
import sys

import pytest

LIMIT = 120  # seconds: many times what they take

FITS = {
    "em": """
from gmm_jax.em import EMConfig, fit_em
gmm = GMM(np.ones(3) / 3, rng.standard_normal((3, 50)), np.stack([np.eye(50)] * 3))
result = fit_em(rng.standard_normal((3000, 50)), gmm, config=EMConfig(max_iter=5))
assert np.isfinite(result.log_likelihood)
""",
    "restarts": """
from gmm_jax import MixtureSpec
from gmm_jax.em import EMConfig, fit_em_restarts
x = rng.standard_normal((3000, 50)) + 4.0 * np.eye(50)[np.arange(3000) % 3]
found = fit_em_restarts(jax.random.key(0), x, MixtureSpec(3), n_restarts=4, config=EMConfig(max_iter=20))
assert np.isfinite(found.best.log_likelihood)
""",
    "gibbs": """
from gmm_jax import MixtureSpec, bayes
x = rng.standard_normal((2000, 10)) + 4.0 * np.eye(10)[np.arange(2000) % 4]
posterior = bayes.gibbs(jax.random.key(0), x, MixtureSpec(4), n_chains=4, n_warmup=20, n_draws=20)
assert np.all(np.isfinite(posterior.log_density))
""",
}
START = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_enable_compilation_cache", False)
import numpy as np
from gmm_jax import GMM
rng = np.random.default_rng(0)
"""


@pytest.mark.parametrize("fit", ["em", *(pytest.param(fit, marks=pytest.mark.slow) for fit in ("gibbs", "restarts"))])
def test_matrix_products_do_not_wait_for_each_other(fit):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}  # compiled as users compile it
    subprocess.run([sys.executable, "-c", START + FITS[fit]], env=environment, check=True, timeout=LIMIT)
