"""Could it be that Case II converges to the same values as Case I?  The course's experiments 1 and 2, in the plane.

Expected: yes, from most random starts, and within the standard errors.  Found: see results/course_2d.
"""

from gmm_jax.bench.demo import demo
from gmm_jax.shell import experiment
from shared.cells import HERE, Here

FULL = {"methods": {"em": {}, "nuts": {}, "gibbs": {}}}
SMOKE = {"methods": {"em": {"n_restarts": 4}}, "n_random_starts": 4}


def main(*, seed: int = 0, place: Here = HERE) -> int:
    """Run both cases and write out/course_2d: rows, draws, pictures, report.

    Args:
        seed: all randomness follows from it.
        place: where to.
    """
    command = f"python experiments/course_2d.py --seed {seed}"
    size = SMOKE if place.smoke else FULL
    return demo(problems=("course_2d",), seed=seed, results=place.out, name="course_2d", command=command, **size)


if __name__ == "__main__":
    experiment(main)
