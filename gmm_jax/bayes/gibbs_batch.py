"""Gibbs of many data sets of one shape in one program, a chain each, as simulation studies need it."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ..mixture import GMM, ONE_AT_A_TIME, MixtureSpec, project
from ..mixture.checks import check_count, check_key
from ..mixture.cores import divide, on_each, together
from .gibbs import sweep
from .prior import conjugate
from .target import prepare


def gibbs_batch(
    key: Key[Array, ""],
    x: Float[Array, "P N D"],
    spec: MixtureSpec,
    *,
    init: GMM,
    n_warmup: int = 100,
    n_draws: int = 500,
    thin: int = 1,
) -> GMM:
    """Posterior draws (P, n_draws, ...) of many data sets, by one Gibbs chain each, in the units of the data.

    Labels are as the chain left them. What one chain cannot show, that it never left a mode, nothing shows here: begin
    at good optima, and use `gibbs` where convergence is in doubt.

    Args:
        init: a mixture in the units of the data for each data set, leading axis P.
        n_warmup: sweeps before the first draw.
        thin: sweeps from one draw to the next.

    Raises:
        ValueError: as gibbs, for the first data set at fault, which is named.
        NotSupported: the prior is not Dirichlet, normal, and inverse Wishart or inverse gamma.
    """
    check_count(thin, "thin")
    x = np.asarray(x)
    if x.ndim != 3 or not len(x):
        raise ValueError(f"x must be (P, N, D), one block a data set; got shape {x.shape}: use x[None] for one.")
    if np.shape(init.means)[0] != len(x):
        raise ValueError(f"init holds {np.shape(init.means)[0]} starts for {len(x)} data sets: make them agree.")
    members = [_member(x, spec, init, p, n_warmup, n_draws) for p in range(len(x))]
    problems, scalings, numbers = zip(*members, strict=True)
    shared = jax.tree.map(np.asarray, (replace(problems[0], z=None), np.int32(n_warmup), np.int32(thin)))
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *numbers)
    parts = divide((jax.random.split(check_key(key), len(x)), *stacked))  # a vmapped program keeps one core
    draws = together(on_each(_run, parts, *shared, n_draws=n_draws), len(x))
    outward = [s.outward(jax.tree.map(lambda leaf, p=p: leaf[p], draws)) for p, s in enumerate(scalings)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *outward)


def _member(x, spec, init, p, n_warmup, n_draws):
    """One data set standardised, its scaling, and its numbers: z, what is known, the prior's, and the start."""
    try:
        problem, scaling = prepare(x[p], spec, 1, n_warmup, n_draws)
    except ValueError as error:
        raise ValueError(f"data set {p}: {error}") from error
    start = scaling.inward(jax.tree.map(lambda leaf: np.asarray(leaf)[p], init))
    start = jax.tree.map(lambda leaf: np.asarray(leaf, problem.z.dtype), start)
    return problem, scaling, (problem.z, problem.spec.known, conjugate(problem, "gibbs"), start)


@partial(jax.jit, static_argnames="n_draws", compiler_options=ONE_AT_A_TIME)
def _run(data_sets, template, n_warmup, thin, n_draws):
    def chain(key, z, known, hyper, start):
        problem = replace(template, z=z, spec=replace(template.spec, known=known))

        def sweeps(n, key, gmm):
            def again(i, gmm):
                return sweep(jax.random.fold_in(key, i), problem, hyper, gmm)[0]

            return jax.lax.fori_loop(0, n, again, gmm)

        def draw(gmm, key):
            gmm = sweeps(thin, key, gmm)
            return gmm, gmm

        key_warmup, key_draws = jax.random.split(key)
        first = sweeps(n_warmup, key_warmup, project(start, known))
        return jax.lax.scan(draw, first, jax.random.split(key_draws, n_draws))[1]

    return jax.vmap(chain)(*data_sets)
