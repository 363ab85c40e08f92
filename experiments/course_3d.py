"""Could it be that Case II converges to the same values as Case I?  The course's experiments 3 and 4, in space.

Expected: yes; the notebook could not tell, because its "known" φ had been overwritten.  Found: see results/course_3d.
"""

from gmm_jax.bench.demo import demo
from gmm_jax.shell import experiment
from shared.cells import HERE, Here

FULL = {"methods": {"em": {}, "nuts": {}, "gibbs": {}}}
SMOKE = {"methods": {}, "cases": ("Case II",), "n_random_starts": 4}


def main(*, seed: int = 0, place: Here = HERE) -> int:
    """Run both cases and write out/course_3d: rows, draws, pictures, report.

    Args:
        seed: all randomness follows from it.
        place: where to.
    """
    command = f"python experiments/course_3d.py --seed {seed}"
    size = SMOKE if place.smoke else FULL
    return demo(problems=("course_3d",), seed=seed, results=place.out, name="course_3d", command=command, **size)


if __name__ == "__main__":
    experiment(main)
