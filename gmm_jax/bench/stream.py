"""gmm-jax fit --stream FILE: EM on a file that need not fit into memory, with a checkpoint to go on from."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from .. import em
from ..judge import penalised
from ..mixture import Fit, MixtureSpec, Status, n_parameters, validate_spec
from ..problems import open_blocks
from . import methods, report
from .files import read_known, show

OPTIONS = {"n_restarts": 10, "init": "kmeans++", "n_sample": 10_000, "max_iter": 1000, "tol": 1e-8, "reg_covar": None}


def fit_stream(
    path: Path,
    *,
    n_components: int,
    covariance_type: str = "full",
    columns: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    known: Path | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    resume: bool = False,
    as_json: bool = False,
) -> int:
    """Fit and print; returns the exit code: 3 where the fit failed. At Ctrl-C the last iterate is printed."""
    methods.check_options(methods.Method("em --stream", "", OPTIONS, em.fit_em_stream), dict(options or {}))
    chosen = OPTIONS | dict(options or {})
    config = em.EMConfig(**{name: chosen.pop(name) for name in ("max_iter", "tol", "reg_covar")})
    blocks = open_blocks(path, columns=columns)
    spec = validate_spec(MixtureSpec(n_components, covariance_type, read_known(known)), len(blocks.names))
    interrupted = None
    with report.progress_bar(f"em on {Path(path).name}") as update:

        def progress(n_iter, mean_log_likelihood):
            update(n_iter, config.max_iter, f"{mean_log_likelihood:.6f}")

        files = {"checkpoint": checkpoint, "resume": resume}
        try:
            found = em.fit_em_stream(
                jax.random.key(seed), blocks, spec, config=config, progress=progress, **files, **chosen
            )
        except em.StreamInterrupted as error:
            interrupted, found = error, error.streamed
    best = found.best
    info = {"n_iter": int(best.n_iter), "n_samples": found.n_samples, "message": found.message}
    fit = Fit(best.gmm, None, None, Status(int(best.status)), info)
    scores = penalised(float(best.log_likelihood), n_parameters(spec, len(blocks.names)), found.n_samples)
    show(fit, Path(path).name, blocks.names, int(found.n_samples), spec, scores, as_json=as_json)
    if interrupted is not None:
        if checkpoint is not None:
            print(f"go on from {checkpoint} with --resume.", file=sys.stderr)
        raise interrupted
    return 0 if fit.status.ok else 3
