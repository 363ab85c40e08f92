"""How fast is EM here beside its peers, and how far from what the machine could do at best?

Data: mixtures whose components overlap, at the sizes of the table; course_2d; iris, galaxies and twenty overlapping
    components; 1,000 data sets of course_2d.
Estimands: seconds of one iteration; of 100 restarts as the same work, to the same answer, and cold; the time to be 99 %
    sure of the best admissible optimum (T99); of many data sets; memory; and all against n, d, K and restarts. Each
    is a part, alone or together (--parts iteration same_work ...).
Methods: one lane, and a lane among many, of gmm_jax; scikit-learn at its best (the faster of its own threads and two
    processes with one BLAS thread each), gmmx, pomegranate and mclust, as far as they are installed. Of one iteration
    every program is timed in a process of its own.
Performance: the peer's seconds divided by ours in the same run, interleaved, with a 95 % interval; the part of the
    machine's own limit that is reached (see floor); how often the best answer was found.

Expected: 30, 25, 40, 30 times scikit-learn's iteration in the plane and 15, 10, 6 times in 10, 32 and 64 dimensions;
the same work 15, the same answer 50, many data sets 50, T99 10 times faster; cold not slower.
Found: see results/speed_em.
"""

from pathlib import Path

from gmm_jax.bench.speed.book import Book
from gmm_jax.bench.speed.iterations import grid, iteration
from gmm_jax.bench.speed.programs import cold, memory
from gmm_jax.bench.speed.searches import many, same_answer, same_work
from gmm_jax.bench.speed.sure import certainty
from gmm_jax.bench.speed.verdict import verdict
from gmm_jax.bench.study import Study
from gmm_jax.shell import configure_jax, experiment

PARTS = {
    "iteration": iteration,
    "same_work": same_work,
    "same_answer": same_answer,
    "cold": cold,
    "t99": certainty,
    "many": many,
    "memory": memory,
    "grid": grid,
}
SMOKE_PARTS = ("iteration", "same_work")  # the others, one by one, in the slow tests


def main(
    *,
    parts: tuple[str, ...] = (),
    pairs: int = 7,
    seeds: int = 200,
    starts: int = 5_000,
    fresh: bool = False,
    out: Path = Path("results"),
    smoke: bool = False,
) -> int:
    """Measure, and write rows at once to out/speed_em; exit code 3 where a target that was measured is not met.

    Args:
        parts: which, none for all; cases whose rows are there already are not measured again.
        pairs: interleaved pairs for each ratio.
        seeds: runs of the same-answer comparison.
        starts: our starts of each of two kinds for T99; scikit-learn gets a fifth of them.
        fresh: measure again what is already there.
        out: folder for results.
        smoke: a quick pass over everything, for tests; its numbers mean little.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ValueError(f"parts must be among {', '.join(PARTS)}; got {', '.join(unknown)}.")
    parts = parts or (SMOKE_PARTS if smoke else tuple(PARTS))
    sizes = {"pairs": 2, "seeds": 2, "starts": 40} if smoke else {"pairs": pairs, "seeds": seeds, "starts": starts}
    options = {"parts": parts, **sizes}
    about = {"steps": len(parts), "seeds": sizes["seeds"], "smoke": smoke}
    with Study(__doc__, "speed_em", out, options, keep=True, **about) as study:
        book = Book(study, fresh=fresh)
        for part in parts:
            PARTS[part](book, prepare=configure_jax, **sizes)
            study.step()
    met, sentence = verdict(study.rows)
    return study.conclude(sentence, met=met)


if __name__ == "__main__":
    experiment(main)
