"""How fast is EM here beside its peers, and how far from what the machine could do at best?

Data: mixtures whose components overlap, at the sizes of the table; course_2d; iris, galaxies and twenty overlapping
    components; 1,000 data sets of course_2d.
Estimands: seconds of one iteration; of 100 restarts as the same work, to the same answer, and cold; the time to
    99 % certainty of the best optimum (T99); of many data sets; memory; and all against n, d, K and restarts. Each
    is a part, alone or together (--parts iteration same_work ...).
Methods: one fit, and one fit among many, of gmm_jax; scikit-learn at its best (the faster of its own threads and two
    processes with one BLAS thread each), gmmx, pomegranate and mclust, as far as they are installed. Of one iteration
    every program is timed in a process of its own.
Performance: the peer's seconds divided by ours in the same run, interleaved, with a 95 % interval; the part of the
    machine's own limit that is reached (see floor); how often the best answer was found.

Expected: 30, 25, 40, 30 times scikit-learn's iteration in the plane and 15, 10, 6 times in 10, 32 and 64 dimensions;
the same work 15, the same answer 50, many data sets 50, T99 10 times faster; cold not slower.
Found: see results/speed_em.
"""

from gmm_jax.shell import experiment
from shared.cells import RUN, Options, some_of
from speed.iterations import grid, iteration
from speed.processes import cold, memory
from speed.searches import many, same_answer, same_work
from speed.table import measure_parts
from speed.time_to_99 import time_to_99
from speed.verdict import verdict

PARTS = {
    "iteration": iteration,
    "same_work": same_work,
    "same_answer": same_answer,
    "cold": cold,
    "t99": time_to_99,
    "many": many,
    "memory": memory,
    "grid": grid,
}
SMOKE_PARTS = ("iteration", "same_work")  # the others, one by one, in the slow tests


def main(
    *,
    parts: tuple[str, ...] = (),
    pairs: int = 7,
    iteration_pairs: int = 5,
    seeds: int = 50,
    starts: int = 5_000,
    run: Options = RUN,
) -> int:
    """Measure, and write rows at once to out/speed_em; exit code 3 where a target that was measured is not met.

    Args:
        parts: which, none for all; cases whose rows are there already are not measured again.
        pairs: interleaved pairs for each ratio of whole fits.
        iteration_pairs: interleaved pairs for each ratio of iterations.
        seeds: runs of the same-answer comparison.
        starts: our starts of each of two kinds for T99; scikit-learn gets a fifth of them.
        run: where to, and how much.
    """
    sizes = {"pairs": pairs, "iteration_pairs": iteration_pairs, "seeds": seeds, "starts": starts}
    options = {"parts": parts, **sizes}
    parts = some_of(parts, PARTS, "parts") if parts or not run.smoke else SMOKE_PARTS
    sizes = {"pairs": 2, "iteration_pairs": 2, "seeds": 2, "starts": 40} if run.smoke else sizes
    return measure_parts(__doc__, "speed_em", PARTS, parts, sizes, verdict, run, options, seeds=seeds)


if __name__ == "__main__":
    experiment(main)
