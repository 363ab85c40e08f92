"""scikit-learn's own test file for GaussianMixture, run against ours in place of theirs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sklearn = pytest.importorskip("sklearn", reason="the tests are scikit-learn's")

IMPORT = "from sklearn.mixture import GaussianMixture\n"
LEFT_OUT = [
    # they ask for private methods and calls of theirs
    "test_gaussian_mixture_precisions_init[",
    "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters",
    # the precisions have the order of scikit-learn's k-means, and so have our components; those that it compares them
    # with have the order of our k-means, which in float32 is another one: see test_estimator.py
    "test_gaussian_mixture_precisions_init_diag[float32]",
]

CONFTEST = """
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_compilation_cache_dir", {cache!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
"""


@pytest.mark.slow
def test_every_test_of_public_behaviour_passes(tmp_path):
    import jax

    theirs = Path(sklearn.__file__).parent / "mixture" / "tests" / "test_gaussian_mixture.py"
    source = theirs.read_text()
    assert source.count(IMPORT) == 1
    (tmp_path / "test_theirs.py").write_text(source.replace(IMPORT, "from gmm_jax import GaussianMixture\n"))
    (tmp_path / "conftest.py").write_text(CONFTEST.format(cache=jax.config.jax_compilation_cache_dir))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "sklearn.conftest", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(tmp_path), "-rf", *(f"--deselect=test_theirs.py::{name}" for name in LEFT_OUT)]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "SKLEARN_RUN_FLOAT32_TESTS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 50, done.stdout[-500:]
