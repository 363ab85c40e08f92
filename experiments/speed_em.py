"""How fast is EM here beside its peers, and how far from what the machine could do at best?

Parts, each alone or together (--parts iteration same_work ...): one iteration; 100 restarts as the same work, to the
same answer, and cold; the time to be 99 % sure (T99); many data sets; memory; and scaling in n, d, K and restarts.
scikit-learn runs at its best: the faster of its own threads and two processes with one BLAS thread each.

Expected: 30, 25, 40, 30 times scikit-learn's iteration in the plane and 15, 10, 6 times in 10, 32 and 64 dimensions;
the same work 15, the same answer 50, many data sets 50, T99 10 times faster; cold not slower.
Found: see results/speed_em.
"""

import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import jax
import numpy as np

import gmm_jax
from gmm_jax import GMM, MixtureSpec, em, log_prob, problems
from gmm_jax.bench import plots, speed, store
from gmm_jax.bench import speed_peers as peers
from gmm_jax.bench.clock import Clock
from gmm_jax.bench.runner import derive_key
from gmm_jax.bench.study import Study
from gmm_jax.mixture.starts import start_function
from gmm_jax.problems import datasets, generators
from gmm_jax.shell import experiment

PARTS = ("iteration", "same_work", "same_answer", "cold", "t99", "many", "memory", "grid")
SIZES = {  # n, d, K: how many times scikit-learn's iteration, and gmmx's, should take
    (500, 2, 2): (30, 8),
    (10_000, 2, 5): (25, 8),
    (100_000, 2, 8): (40, 8),
    (1_000_000, 8, 16): (30, None),
    (100_000, 10, 10): (15, 4),
    (100_000, 32, 16): (10, 4),
    (100_000, 64, 32): (6, None),
}
GRID = {
    "n": [(n, 2, 5) for n in (500, 2_000, 10_000, 100_000, 1_000_000)],
    "d": [(10_000, d, 8) for d in (2, 4, 8, 16, 32, 64)],
    "K": [(10_000, 8, k) for k in (2, 4, 8, 16, 32, 64)],
}
AXES = {"n": "one iteration, d = 2, K = 5", "d": "n = 10⁴, K = 8", "K": "n = 10⁴, d = 8", "restarts": "course_2d"}
SMOKE_PARTS = ("iteration", "same_work")  # the others, one by one, in the slow tests
SMOKE_NAMES = ("gmm_jax one lane", "scikit-learn one thread", "mclust")
LEAST = {"same_work": 15, "same_answer": 50, "cold": 1, "t99": 10, "many": 50}  # times faster than scikit-learn
TOL, TIGHT = 1e-6, 1e-8  # gain in mean log-likelihood a sample at which both sides stop; TIGHT where answers count
RIDGE = 1e-6  # reg_covar of both sides, in the units of x: scikit-learn's default
MAX_ITER = 2000
KINDS = ("random_points", "kmeans")  # starts of T99
RULE = "gain in mean log-likelihood a sample ≤ tol (ours), < tol (scikit-learn)"
NO_STOP = "fixed number of iterations"


def main(
    *,
    parts: tuple[str, ...] = (),
    pairs: int = 7,
    seeds: int = 200,
    starts: int = 10_000,
    fresh: bool = False,
    out: Path = Path("results"),
    smoke: bool = False,
) -> int:
    """Measure, and write rows at once to out/speed_em; exit code 3 where a target that was measured is not met.

    Args:
        parts: which, none for all; cases whose rows are there already are not measured again.
        pairs: interleaved pairs for each ratio.
        seeds: runs of the same-answer comparison.
        starts: our starts of each kind for T99; scikit-learn gets a tenth of them.
        fresh: measure again what is already there.
        out: folder for results.
        smoke: a quick pass over everything, for tests; its numbers mean little.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ValueError(f"parts must be among {', '.join(PARTS)}; got {', '.join(unknown)}.")
    parts = parts or (SMOKE_PARTS if smoke else PARTS)
    sizes = {"pairs": 2, "seeds": 2, "starts": 40} if smoke else {"pairs": pairs, "seeds": seeds, "starts": starts}
    options = {"parts": parts, **sizes}
    about = {"steps": len(parts), "seeds": sizes["seeds"], "smoke": smoke}
    with Study(__doc__, "speed_em", out, options, keep=True, **about) as study:
        book = Book(study, fresh=fresh)
        for part in parts:
            DO[part](book, **sizes)
            study.step()
    met, sentence = verdict(study.rows)
    return study.conclude(sentence, met=met)


class Book:
    """The rows on disk, written whole after every case, so that a run can be cut short and go on."""

    def __init__(self, study, *, fresh):
        self.study, self.folder, self.smoke, self.fresh = study, study.folder, study.smoke, fresh
        if any(row["smoke"] != self.smoke for row in self.rows):
            raise ValueError(f"{self.folder} holds rows of another kind of run (smoke or not): choose another --out.")

    @property
    def rows(self):
        """All rows of the study."""
        return self.study.rows

    def lacks(self, part, case):
        """Whether this case is to be measured."""
        return self.fresh or not any((row["part"], row["case"]) == (part, case) for row in self.rows)

    def put(self, part, case, rows):
        """Replace the rows of this case."""
        head = {"part": part, "case": case}
        tail = {"device": jax.devices()[0].device_kind, "cores": speed.usable_cores(), "smoke": self.smoke}
        tail["measured"] = datetime.now(UTC).isoformat(timespec="seconds")
        kept = [row for row in self.rows if (row["part"], row["case"]) != (part, case)]
        self.study.rows = [*kept, *(store.plain(head | row | tail) for row in rows)]
        store.write_rows(self.folder, self.rows)
        print(f"{part}, {case}: " + "; ".join(map(shown, (row for row in rows if row.get("seconds")))), flush=True)


def shown(row):
    """A row for the eye."""
    times = f", {row['ratio']:.3g} times {row['against']}" if row.get("ratio") is not None else ""
    return f"{row['method']} {row['seconds']:.3g} s{times}"


def compare(seconds, ours, about, **common):
    """A row a method: median and quartiles, and for the others the ratio to each of ours, with its interval.

    Args:
        seconds: method -> (pairs,).
        ours: names of our own methods among them.
        about: method -> what else its row says.
    """
    rows = []
    for name, values in seconds.items():
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        row = {"method": name, "seconds": middle, "seconds_low": low, "seconds_high": high, "status": "ok"}
        row |= {"n_pairs": len(values), **common, **about.get(name, {})}
        if name in ours:
            rows.append(row)
            continue
        for mine in ours:
            r = speed.ratio(values, seconds[mine])
            rows.append(row | {"against": mine, "ratio": r.median, "ratio_low": r.low, "ratio_high": r.high})
            rows[-1]["coverage"] = r.coverage
    return rows


# ---- one iteration


def iteration(book, *, pairs, **_):
    """The sizes of the table of targets."""
    for size in list(SIZES)[: 1 if book.smoke else None]:
        case = "n={} d={} K={}".format(*size)
        if book.lacks("iteration", case):
            book.put("iteration", case, iteration_rows(size, pairs, smoke=book.smoke))


def iteration_rows(size, pairs, *, smoke=False, names=None):
    """Every program that is here, beside the floor; one row that says why for each that is not."""
    x, start = standardised_problem(*size)
    rates = {dtype: speed.measure_rates(dtype, size=256 if smoke else 2048) for dtype in ("float64", "float32")}
    floors = {dtype: speed.floor(r, *size, np.dtype(dtype).itemsize) for dtype, r in rates.items()}
    n_iter = int(np.clip(0.3 / (20.0 * floors["float64"][0]), 4, 40 if smoke else 20_000))
    names = names or (SMOKE_NAMES if smoke else (*peers.ITERATIONS, "mclust"))
    common = dict(zip(("n", "d", "k"), size, strict=True)) | {"reg_covar": 0.0, "stopping": NO_STOP, "start": "truth"}
    timers, about, rows = {}, {}, []
    for name in names:
        reason = peers.missing(name)
        if reason:
            rows.append({"method": name, "status": "unavailable", "reason": reason, **common})
            continue
        timer = peers.ITERATIONS[name]
        try:
            with Clock() as clock:
                timers[name] = timer.make(x, start, 0.0, n_iter)
        except Exception as error:  # a peer may fail as it likes: that is a row
            rows.append({"method": name, "status": "failed", "reason": f"{type(error).__name__}: {error}", **common})
            continue
        about[name] = {"precision": timer.precision, "threads": timer.threads, "counted": timer.what, "m": n_iter}
        about[name]["seconds_compile"] = clock.seconds["seconds_trace"] + clock.seconds["seconds_compile"]
    seconds = speed.interleave(timers, pairs)
    for name, said in about.items():
        least, limit = floors[said["precision"]]
        said |= {"floor_seconds": least, "floor_limit": limit, **rates[said["precision"]]._asdict()}
        said["fraction_of_floor"] = least / float(np.median(seconds[name]))
    return compare(seconds, [n for n in timers if n.startswith("gmm_jax")], about, **common) + rows


def standardised_problem(n, d, k, seed=0):
    """Data with mean 0 and sd 1, and the truth in their units: a mixture whose components overlap, in NumPy."""
    rng = np.random.default_rng([seed, n, d, k])
    means = 2.0 * rng.standard_normal((k, d))
    roots = rng.standard_normal((k, d, d)) / np.sqrt(d)
    covariances = roots @ np.swapaxes(roots, 1, 2) + 0.3 * np.eye(d)
    counts = generators.fixed_counts(np.full(k, 1.0 / k), n)
    factors = np.linalg.cholesky(covariances)
    parts = [means[i] + rng.standard_normal((counts[i], d)) @ factors[i].T for i in range(k)]
    x = np.concatenate(parts)[rng.permutation(n)]
    centre, scale = x.mean(axis=0), x.std(axis=0)
    start = GMM(counts / n, (means - centre) / scale, covariances / np.outer(scale, scale))
    return np.ascontiguousarray((x - centre) / scale), start


# ---- 100 restarts


def course():
    """(x, spec) of the course's plane."""
    problem = problems.load("course_2d")
    return np.asarray(problem.sample(derive_key(0, "data", problem.name))[0]), problem.spec


@partial(jax.jit, static_argnames=("start", "n"))
def _draw(key, x, spec, start, n):
    return jax.vmap(start, in_axes=(0, None, None))(jax.random.split(key, n), x, spec)


def draw_starts(key, x, spec, kind, n):
    """n starts in the units of x, NumPy leaves with leading axis n."""
    return jax.tree.map(np.asarray, _draw(key, x, spec, start_function(kind), n))


@jax.jit
def _log_likelihoods(gmms, x):
    return jax.lax.map(lambda gmm: jax.numpy.sum(log_prob(gmm, x)), gmms)


@jax.jit
def _log_likelihood_each(gmms, xs):
    return jax.lax.map(lambda pair: jax.numpy.sum(log_prob(*pair)), (gmms, xs))


def best_admissible(x, gmms, spec, values):
    """The highest log-likelihood of an admissible fit, -inf where there is none: one rule for every program."""
    for i in np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable"):
        if np.isfinite(values[i]) and em.inadmissible(x, one_of(gmms, i), spec) == "":
            return float(values[i])
    return -np.inf


def one_of(gmms, i):
    """Mixture i of many."""
    return jax.tree.map(lambda leaf: leaf[i], gmms)


def sklearn_ways(smoke):
    """The ways of scikit-learn that are timed; a smoke run takes the one that other work disturbs least."""
    return ["scikit-learn one thread"] if smoke else ["scikit-learn", "scikit-learn workers"]


def timed_calls(works):
    """Calls for `interleave` that keep their last answer: (calls, answers)."""
    answers = {}

    def call(name):
        begin = time.perf_counter()
        answers[name] = works[name]()
        return time.perf_counter() - begin

    return {name: partial(call, name) for name in works}, answers


def about_fits(smoke, **common):
    """What rows of whole fits say of each method."""
    common = {"precision": "float64", "reg_covar": RIDGE, "stopping": RULE, **common}
    threads = {name: peers.ITERATIONS[name].threads for name in sklearn_ways(smoke)}
    return {name: common | {"threads": said} for name, said in ({"gmm_jax": "XLA's own"} | threads).items()}


def same_work(book, *, pairs, **_):
    """All lanes of course_2d to TOL from the same starts, warm."""
    if not book.lacks("same_work", "course_2d"):
        return
    x, spec = course()
    n = 4 if book.smoke else 100
    key = derive_key(0, "method", "speed_em")
    begun = draw_starts(key, x, spec, "kmeans++", n)
    options = {"tol": TOL, "max_iter": MAX_ITER, "reg_covar": RIDGE}
    config = em.EMConfig(**options)
    works = {"gmm_jax": lambda: em.fit_em_restarts(key, x, spec, n_restarts=n, init=begun, config=config)}
    for way in sklearn_ways(book.smoke):
        works[way] = partial(peers.sklearn_from_starts, x, begun, way=way, **options)
    calls, answers = timed_calls(works)
    about = about_fits(book.smoke, start=f"the same {n} k-means++", tol=TOL, n_restarts=n)
    for name, seconds in speed.interleave(calls, 1).items():  # warm
        about[name]["seconds_first"] = seconds[0]
    seconds = speed.interleave(calls, pairs)
    for name, answer in answers.items():
        gmms, n_iter = (answer.lanes.gmm, answer.lanes.n_iter) if name == "gmm_jax" else answer
        values = np.asarray(_log_likelihoods(gmms, x))
        about[name] |= {"log_likelihood": best_admissible(x, gmms, spec, values), "mean_n_iter": np.mean(n_iter)}
    book.put("same_work", "course_2d", compare(seconds, ["gmm_jax"], about))


def same_answer(book, *, seeds, **_):
    """Restarts against n_init=100: seconds, and the best admissible log-likelihood, seed by seed."""
    x, spec = course()
    n = 4 if book.smoke else 100
    options = {"max_iter": MAX_ITER, "reg_covar": RIDGE}
    block = min(seeds, 25)

    def calls_of(seed, ways):
        works = {"gmm_jax": partial(our_best, derive_key(seed, "method", "speed_em"), x, spec, n, options)}
        for way in ways:
            fit = partial(peers.sklearn_restarts, x, spec.n_components, n_restarts=n, seed=seed, tol=TOL, **options)
            works[way] = partial(fit, way=way)
        return timed_calls(works)

    for first in range(0, seeds, block):
        case = f"seeds {first} to {first + block - 1}"
        if not book.lacks("same_answer", case):
            continue
        warm = speed.interleave(calls_of(first, sklearn_ways(book.smoke))[0], 2)
        best_way = min(sklearn_ways(book.smoke), key=lambda way: warm[way][1])
        about, rows = about_fits(book.smoke, n_restarts=n), []
        about["gmm_jax"] |= {"start": "kmeans++", "tol": TIGHT}
        about[best_way] |= {"start": "kmeans", "tol": TOL}
        for seed in range(first, first + block):
            calls, answers = calls_of(seed, [best_way])
            seconds = {name: call() for name, call in list(calls.items())[:: 1 if seed % 2 else -1]}
            for name, gmm in answers.items():
                gmms = jax.tree.map(lambda leaf: np.asarray(leaf)[None], gmm)
                value = best_admissible(x, gmms, spec, np.asarray(_log_likelihoods(gmms, x)))
                row = {"method": name, "seed": seed, "seconds": seconds[name], "log_likelihood": value, "status": "ok"}
                rows.append(row | about[name])
        book.put("same_answer", case, rows)
    book.put("same_answer", "all", answers_together(book.rows))


def answers_together(rows):
    """All seeds: the ratio of seconds, and how often each side was within 1e-4 nats of the best of both."""
    rows = sorted((r for r in rows if r["part"] == "same_answer" and r["case"] != "all"), key=lambda r: r["seed"])
    sides = [[r for r in rows if (r["method"] == "gmm_jax") == mine] for mine in (True, False)]
    values = np.array([[r["log_likelihood"] for r in side] for side in sides], float)  # nothing: not one was admissible
    values = np.where(np.isnan(values), -np.inf, values)
    reached = np.isfinite(values) & (values >= values.max(axis=0) - speed.WITHIN)
    names = ["gmm_jax", "scikit-learn, faster way"]
    shares = dict(zip(names, reached.mean(axis=1), strict=True))
    about = {name: {"share_within": share, "n_seeds": values.shape[1]} for name, share in shares.items()}
    seconds = {name: np.array([r["seconds"] for r in side]) for name, side in zip(names, sides, strict=True)}
    return compare(seconds, names[:1], about)


def our_best(key, x, spec, n_restarts, options):
    """The best mixture; with so few samples a race would cost more than it saves."""
    config = em.EMConfig(tol=TIGHT, **options)
    return em.fit_em_restarts(key, x, spec, n_restarts=n_restarts, config=config).best.gmm


# ---- cold

COLD = {
    "gmm_jax": """
import sys
from gmm_jax.shell import configure_jax
configure_jax()
import jax, numpy
from gmm_jax import MixtureSpec, em
config = em.EMConfig(tol=1e-6, max_iter=2000, reg_covar=1e-6)
x = numpy.load(sys.argv[1])
found = em.fit_em_restarts(jax.random.key(0), x, MixtureSpec(2), n_restarts=int(sys.argv[2]), config=config, race=True)
print(float(found.best.log_likelihood))
""",
    "scikit-learn": """
import sys
import numpy
from sklearn.mixture import GaussianMixture
x = numpy.load(sys.argv[1])
model = GaussianMixture(2, n_init=int(sys.argv[2]), tol=1e-6, max_iter=2000, reg_covar=1e-6, random_state=0).fit(x)
print(model.score(x) * len(x))
""",
}


def cold(book, *, pairs, **_):
    """Process start to result, imports on both sides; our compilation cache filled, and empty."""
    if not book.lacks("cold", "course_2d"):
        return
    x, _ = course()
    n = 4 if book.smoke else 100
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, x)
        answers = {}

        def once(name, cache, threads=None):
            program = COLD["gmm_jax" if name.startswith("gmm_jax") else "scikit-learn"]
            seconds, answers[name] = run_program(program, [path, n], cache, threads)
            return seconds

        def empty():
            with tempfile.TemporaryDirectory() as cache:
                return once("gmm_jax, empty cache", cache)

        kept = os.environ.get("XDG_CACHE_HOME") if book.smoke else folder
        calls = {"gmm_jax": lambda: once("gmm_jax", kept)}
        calls["scikit-learn one thread"] = lambda: once("scikit-learn one thread", kept, 1)
        if not book.smoke:
            calls["scikit-learn"] = lambda: once("scikit-learn", kept)
            calls["gmm_jax, empty cache"] = empty
            speed.interleave(calls, 1)  # fills the cache, and the system's of files
        seconds = speed.interleave(calls, 1 if book.smoke else pairs)
    common = {"precision": "float64", "reg_covar": RIDGE, "stopping": RULE, "tol": TOL, "n_restarts": n}
    common |= {"counted": "process start to exit"}
    about = {name: common | {"log_likelihood": float(answer)} for name, answer in answers.items()}
    for name, said in about.items():
        said["start"] = "kmeans" if name.startswith("scikit-learn") else "kmeans++"
        said["threads"] = "1" if name.endswith("one thread") else "its own"
    book.put("cold", "course_2d", compare(seconds, [n for n in seconds if n.startswith("gmm_jax")], about))


def run_program(program, arguments, cache=None, threads=None):
    """(seconds, last line printed) of a Python program in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")}
    root = str(Path(gmm_jax.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    if cache is not None:
        environment["XDG_CACHE_HOME"] = str(cache)
    if threads is not None:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    command = [sys.executable, "-c", program, *map(str, arguments)]
    begin = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise OSError(f"a program that was to be timed failed: {done.stderr.strip().splitlines()[-1:]}.")
    return seconds, done.stdout.strip().splitlines()[-1]


# ---- T99


def t99_problems():
    """name -> (x, K). Velocities in 1000 km/s, so that the ridge means the same as elsewhere."""
    galaxies = datasets.load("galaxies_roeder")[0] / 1000.0
    crowd = generators.random_mixture(jax.random.key(20), 20, 2, distance=4.0)
    overlap = np.asarray(gmm_jax.sample(jax.random.key(21), crowd, 1000)[0], float)
    return {
        "iris K=3": (datasets.load("iris")[0], 3),
        "galaxies_roeder K=5": (galaxies, 5),
        "galaxies_roeder K=6": (galaxies, 6),
        "twenty overlapping K=20": (overlap, 20),
    }


def t99(book, *, starts, **_):
    """Both kinds of starts of one problem, because the best optimum known is that of all starts of all methods."""
    for case, (x, k) in list(t99_problems().items())[: 1 if book.smoke else None]:
        if book.lacks("t99", case):
            kinds = KINDS[:1] if book.smoke else KINDS
            book.put("t99", case, t99_rows(np.ascontiguousarray(x), MixtureSpec(k), starts, kinds, smoke=book.smoke))


def t99_rows(x, spec, n_starts, kinds, *, smoke, n_chunks=10, tol=TIGHT):
    """Chunks in turn: ours, then scikit-learn on the first tenth of the same starts, by the faster of its ways."""
    options = {"tol": tol, "max_iter": 200 if smoke else MAX_ITER, "reg_covar": RIDGE}
    found = {}
    for kind in kinds:
        key = derive_key(0, "t99", kind)
        ours, theirs = ([], []), ([], [])
        ways = sklearn_ways(smoke)
        for i in range(-1, n_chunks):  # -1: to warm up, and to choose
            begun = draw_starts(jax.random.fold_in(key, i + 1), x, spec, kind, max(1, n_starts // n_chunks))
            fewer = jax.tree.map(lambda leaf: leaf[: max(1, n_starts // (10 * n_chunks))], begun)
            works = {"gmm_jax": partial(our_lanes, key, x, spec, begun, options)}
            for way in ways:
                fit = partial(peers.sklearn_from_starts, x, fewer, way=way, **options)
                works[way] = lambda fit=fit: fit().gmms
            calls, answers = timed_calls(works)
            seconds = {name: call() for name, call in calls.items()}
            if i < 0:  # the second time: processes have started, programs are compiled
                ways = [min(ways, key=lambda way: calls[way]())]
                continue
            for side, name in ((ours, "gmm_jax"), (theirs, ways[0])):
                side[0].append(seconds[name])
                side[1].append(answers[name])
        found[kind] = {"gmm_jax": ours, ways[0]: theirs}
    return t99_table(x, spec, found, tol)


def our_lanes(key, x, spec, begun, options):
    """Where every lane ended."""
    n = begun.means.shape[0]
    return em.fit_em_restarts(key, x, spec, n_restarts=n, init=begun, config=em.EMConfig(**options)).lanes.gmm


def t99_table(x, spec, found, tol):
    """Rows: hits are judged by one rule for all, likelihoods computed in one way for all."""
    ends = {
        (kind, name): jax.tree.map(lambda *leaves: np.concatenate(leaves), *side[1])
        for kind, sides in found.items()
        for name, side in sides.items()
    }
    values = {place: np.asarray(_log_likelihoods(gmms, x)) for place, gmms in ends.items()}
    best = max(best_admissible(x, gmms, spec, values[place]) for place, gmms in ends.items())
    rows = []
    for kind, sides in found.items():
        trials = {}
        for name, (seconds, _) in sides.items():
            value, gmms = values[kind, name], ends[kind, name]
            near = np.flatnonzero(value >= best - speed.WITHIN)
            hits = sum(em.inadmissible(x, one_of(gmms, i), spec) == "" for i in near)
            trials[name] = speed.Trials(np.array(seconds), value.size, hits)
        for name, trial in trials.items():
            share = trial.n_hits / trial.n_starts
            row = {"method": name, "start": kind, "seconds": trial.mean_seconds, "status": "ok", "k": spec.n_components}
            row |= {"n_starts": trial.n_starts, "n_hits": trial.n_hits, "share": share, "best_known": best, "tol": tol}
            row |= {"t99": float(speed.t99(trial.mean_seconds, share)), "reg_covar": RIDGE, "stopping": RULE}
            row |= {"precision": "float64", "n": len(x), "d": x.shape[1]}
            if name != "gmm_jax":
                ratio, low = speed.t99_ratio(trial, trials["gmm_jax"])
                row |= {"against": "gmm_jax", "ratio": ratio, "ratio_low": low, "threads": name}
            rows.append(row)
    return rows


# ---- many data sets


def many(book, *, pairs, **_):
    """Data sets × 10 restarts; scikit-learn on the first few, scaled up."""
    case = "course_2d"
    if not book.lacks("many", case):
        return
    problem = problems.load("course_2d")
    n_sets, n_few, n = (3, 2, 2) if book.smoke else (1000, 50, 10)
    xs = np.stack([np.asarray(problem.sample(derive_key(i, "data", "many"))[0]) for i in range(n_sets)])
    key, spec = derive_key(0, "method", "many"), problem.spec
    options = {"max_iter": MAX_ITER, "reg_covar": RIDGE}
    config = em.EMConfig(tol=TIGHT, **options)
    works = {"gmm_jax": lambda: em.fit_em_batch(key, xs, spec, n_restarts=n, config=config, race=True).best.gmm}
    works["scikit-learn workers"] = partial(sklearn_sets, xs[:n_few], spec.n_components, n, options, book.smoke)
    calls, answers = timed_calls(works)
    speed.interleave(calls, 1)
    seconds = speed.interleave(calls, pairs)
    seconds["scikit-learn workers"] = seconds["scikit-learn workers"] * (n_sets / n_few)
    few = {name: jax.tree.map(lambda leaf: np.asarray(leaf)[:n_few], gmms) for name, gmms in answers.items()}
    values = {name: np.asarray(_log_likelihood_each(gmms, xs[:n_few])) for name, gmms in few.items()}
    best = np.maximum(*values.values())
    common = {"n_restarts": n, "n_sets": n_sets, "reg_covar": RIDGE, "stopping": RULE, "precision": "float64"}
    about = {name: {"share_within": float(np.mean(v >= best - speed.WITHIN))} for name, v in values.items()}
    about["gmm_jax"] |= {"start": "kmeans++", "tol": TIGHT, "threads": "XLA's own"}
    counted = f"{n_few} data sets, times {n_sets / n_few:g}"
    about["scikit-learn workers"] |= {"start": "kmeans", "tol": TOL, "threads": "2 processes of 1", "counted": counted}
    book.put("many", case, compare(seconds, ["gmm_jax"], about, **common))


def sklearn_sets(xs, n_components, n_restarts, options, smoke):
    """The best of n_init fits of each data set, one BLAS thread each, over all cores."""
    from joblib import Parallel, delayed

    options = {"n_init": n_restarts, "random_state": 0, "tol": TOL, **options}
    each = (delayed(peers.sklearn_fit)(x, n_components, options, 1) for x in xs)
    found = [gmm for gmm, _ in Parallel(n_jobs=1 if smoke else peers.N_WORKERS)(each)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


# ---- memory

MEMORY = """
import resource, sys
from gmm_jax.shell import configure_jax
configure_jax()
import jax, numpy
from gmm_jax import GMM, em
x = numpy.load(sys.argv[1])
start = GMM(*(numpy.load(sys.argv[i]) for i in (2, 3, 4)))
x = jax.block_until_ready(jax.device_put(x)) if sys.argv[5] == "device" else x
config = em.EMConfig(max_iter=3, tol=0.0, reg_covar=0.0)
program = jax.jit(em.fit_em).lower(x, start, config=config).compile()
try:
    open("/proc/self/clear_refs", "w").write("5")
except OSError:
    pass
def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name + ":")).split()[1])
before, high = status("VmRSS"), status("VmHWM")
jax.block_until_ready(program(x, start, config=config))
print(status("VmHWM") - before, high - before)
"""


def memory(book, **_):
    """Peak resident memory of fit_em above that before the call; x handed over as NumPy, and already on the device."""
    n, d, k = (2000, 2, 2) if book.smoke else (1_000_000, 16, 32)
    case = f"n={n} d={d} K={k}"
    if not book.lacks("memory", case):
        return
    common = {"n": n, "d": d, "k": k, "precision": "float64", "reg_covar": 0.0, "stopping": "3 iterations"}
    if not Path("/proc/self/status").exists():
        book.put("memory", case, [{"method": "gmm_jax", "status": "unavailable", "reason": "needs Linux", **common}])
        return
    x, start = standardised_problem(n, d, k)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        leaves = {"x": x, "weights": start.weights, "means": start.means, "covariances": start.covariances}
        paths = [Path(folder) / f"{name}.npy" for name in leaves]
        for path, leaf in zip(paths, leaves.values(), strict=True):
            np.save(path, leaf)
        for place in ("device",) if book.smoke else ("numpy", "device"):
            answer = run_program(MEMORY, [*paths, place], os.environ.get("XDG_CACHE_HOME"))[1]
            peak, earlier = map(int, answer.split())
            row = {"method": "gmm_jax", "start": "truth", "counted": f"x given on: {place}", "status": "ok"}
            rows.append(row | {"bytes_peak": peak, "bytes_earlier_peak": earlier, "times_x": peak / x.nbytes, **common})
    book.put("memory", case, rows)


# ---- scaling


def grid(book, *, pairs, **_):
    """One iteration against n, d and K, and a whole search against the number of restarts; then the picture."""
    if book.smoke:
        return
    names = ["gmm_jax one lane", "gmm_jax lanes", "scikit-learn", "scikit-learn one thread", "gmmx"]
    for axis, sizes in GRID.items():
        for size in sizes:
            at, case = size["ndK".index(axis)], "against {}: n={} d={} K={}".format(axis, *size)
            if book.lacks("grid", case):
                rows = iteration_rows(size, min(pairs, 6), names=names)
                book.put("grid", case, [row | {"axis": axis, "at": at} for row in rows])
    x, spec = course()
    options = {"tol": TOL, "max_iter": MAX_ITER, "reg_covar": RIDGE}
    for n in (1, 10, 100, 1000):
        if not book.lacks("grid", f"{n} restarts"):
            continue
        config, key = em.EMConfig(**options), derive_key(0, "method", "grid")
        works = {"gmm_jax lanes": partial(em.fit_em_restarts, key, x, spec, n_restarts=n, config=config)}
        for way in sklearn_ways(book.smoke):
            works[way] = partial(peers.sklearn_restarts, x, 2, n_restarts=n, seed=0, way=way, **options)
        calls, _ = timed_calls(works)
        speed.interleave(calls, 1)
        rows = compare(speed.interleave(calls, min(pairs, 6)), ["gmm_jax lanes"], {}, n_restarts=n, tol=TOL)
        book.put("grid", f"{n} restarts", [row | {"axis": "restarts", "at": n} for row in rows])
    draw = [row for row in book.rows if row["part"] == "grid" and row["status"] == "ok"]
    once = {(row["axis"], row["at"], row["method"]): row for row in draw}
    plots.scaling(book.folder / "scaling.png", list(once.values()), AXES)


# ---- the answer


def verdict(rows):
    """Whether every target that was measured is met, and the sentence with the numbers."""
    clauses = [clause for clause in (*said_of_iterations(rows), *said_of_fits(rows), *said_of_t99(rows)) if clause]
    clauses += said_of_memory(rows)
    if not clauses:
        return True, "Nothing that has a target was measured."
    return all(met for met, _ in clauses), "; ".join(text for _, text in clauses) + "."


def said_of_iterations(rows):
    """(met, text) for the table of sizes."""
    texts, met = [], True
    for size, (least, least_gmmx) in SIZES.items():
        chosen = [r for r in rows if r["part"] == "iteration" and r["case"] == "n={} d={} K={}".format(*size)]
        # two processes are the peer of several lanes; one lane has one process against it
        one = least_ratio([r for r in chosen if "workers" not in r["method"]], "scikit-learn", "gmm_jax one lane")
        lanes = least_ratio(chosen, "scikit-learn", "gmm_jax lanes")
        gmmx = least_ratio(chosen, "gmmx", "gmm_jax one lane")
        if one is None:
            continue
        texts.append(f"{one:.3g} ({number(lanes)}{f'; gmmx {gmmx:.2g}' if gmmx else ''}) at n, d, K = {size}")
        met &= max(one, lanes or 0.0) >= least and (gmmx is None or least_gmmx is None or gmmx >= least_gmmx)
    what = "scikit-learn's iteration takes so many times as long as ours of one lane (of four lanes)"
    return [(met, f"{what}: {', '.join(texts)}")] if texts else []


def said_of_fits(rows):
    """(met, text) for whole searches."""
    names = {"same_work": "the same starts", "same_answer": "the same answer", "cold": "a cold fit"}
    names["many"] = "many data sets"
    clauses = []
    for part, what in names.items():
        chosen = [r for r in rows if r["part"] == part]
        times = least_ratio(chosen, "scikit-learn", "gmm_jax")
        if times is None:
            continue
        share = next((r["share_within"] for r in chosen if r["method"] == "gmm_jax" and r.get("share_within")), None)
        text = "" if share is None else f" (ours within {speed.WITHIN:g} nats of the best in {100 * share:.4g} %)"
        met = times >= LEAST[part] and (share is None or share >= 0.999)
        clauses.append((met, f"{what}: {times:.3g} times as long as ours{text}"))
    return clauses


def said_of_t99(rows):
    """(met, text) for the time to be 99 % sure."""
    found = [r for r in rows if r["part"] == "t99" and r.get("against")]
    if not found:
        return []
    each = [f"{r['case']} from {r['start']} {number(r['ratio'])} ({number(r['ratio_low'])})" for r in found]
    met = all(r["ratio_low"] is not None and r["ratio_low"] >= LEAST["t99"] for r in found)
    return [(met, f"its T99 in ours, with the lower 95 % bound: {', '.join(each)}")]


def said_of_memory(rows):
    """(met, text) for the peak."""
    found = [r for r in rows if r["part"] == "memory" and r["status"] == "ok"]
    each = [f"{r['times_x']:.2f} ({r['counted']})" for r in found]
    return [(all(r["times_x"] <= 1.5 for r in found), f"peak memory in sizes of x: {', '.join(each)}")] if found else []


def least_ratio(rows, program, against):
    """The smallest ratio over all ways in which a program was run, None where there is none: it runs at its best."""
    found = [r for r in rows if str(r["method"]).startswith(program) and r.get("against") == against]
    return min((r["ratio"] for r in found if r.get("ratio") is not None), default=None)


def number(value):
    """Three digits; what is not finite was stored as nothing."""
    return "no finite number" if value is None else f"{value:.3g}"


DO = {
    "iteration": iteration,
    "same_work": same_work,
    "same_answer": same_answer,
    "cold": cold,
    "t99": t99,
    "many": many,
    "memory": memory,
    "grid": grid,
}

if __name__ == "__main__":
    experiment(main)
