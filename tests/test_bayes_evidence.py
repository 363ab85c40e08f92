"""SMC and bridge sampling against exact enumeration, published marginal likelihoods, and each other.

Monte-Carlo numbers must agree within 4 combined standard errors, with fixed keys; those of smc come from the scatter of
its independent runs.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from test_bayes_references import mcse, named, ordered, read

import oracles
from gmm_jax import GMM, Known, MixtureSpec, NotSupported, Posterior, Prior, Status, bayes, problems, responsibilities
from gmm_jax.bayes.evidence import _bridge, _orders
from gmm_jax.mixture import log_prob

X = np.array([-1.9, -1.2, -0.8, 0.1, 0.9, 1.4, 2.2, 3.1])[:, None]
GRID = np.array([-3.0, -1.0, 0.0, 1.5, 4.0])[:, None]
ALPHA, MEAN, SD, SHAPE, RATE = np.array([1.5, 1.5]), 0.3, 1.7, 2.0, 0.8
WEIGHTS, MEANS = dist.Dirichlet(ALPHA), dist.Normal(MEAN, SD).expand([1]).to_event(1)
ROOT = dist.transforms.PowerTransform(0.5)

# the same law three times: what is known; semi-conjugate; and as a prior on standard deviations, which is not
SPECS = {
    "known": MixtureSpec(2, "spherical", Known(covariances=np.full(2, 0.7)), Prior(WEIGHTS, MEANS)),
    "free": MixtureSpec(2, "spherical", prior=Prior(WEIGHTS, MEANS, dist.InverseGamma(SHAPE, RATE))),
    "over scales": MixtureSpec(
        2,
        "spherical",
        prior=Prior(WEIGHTS, MEANS, scales=dist.TransformedDistribution(dist.InverseGamma(SHAPE, RATE), ROOT)),
    ),
}


@cache
def exact(name):
    """The oracle's answer; σ² on 160 points of log σ², by the trapezoidal rule, exact for such tails."""
    if name == "known":
        variances, log_prior = np.array([0.7]), np.zeros(1)
    else:
        logs = np.linspace(-6.0, 16.0, 160)
        variances = np.exp(logs)
        log_prior = SHAPE * np.log(RATE) - SHAPE * logs - RATE / variances + np.log(logs[1] - logs[0])  # Γ(2) = 1
    return oracles.enumerate_allocations(X[:, 0], ALPHA, MEAN, SD**2, variances, log_prior, GRID[:, 0])


@jax.jit
@jax.vmap
@jax.vmap
def functionals(gmm):
    """What does not depend on labels, of one draw."""
    r = responsibilities(gmm, X)
    return {
        "together": (r @ r.T)[jnp.triu_indices(len(X), 1)],
        "predictive": jnp.exp(log_prob(gmm, GRID)),
        "occupied": jnp.sum(1.0 - jnp.prod(1.0 - r, axis=0), keepdims=True),
        "sorted_means": jnp.sort(gmm.means[:, 0]),
    }


def run_error(draws):
    """Standard error of a mean from the scatter of independent runs, draws (C, S)."""
    return np.std(draws.mean(1), ddof=1) / np.sqrt(len(draws))


def assert_exact(posterior, name, error):
    truth = dict(exact(name))
    truth["together"] = truth["together"][np.triu_indices(len(X), 1)]
    for quantity, draws in functionals(posterior.draws).items():
        for series, value in zip(np.moveaxis(np.asarray(draws), -1, 0), np.atleast_1d(truth[quantity]), strict=True):
            assert abs(series.mean() - value) <= 4.0 * error(series), quantity


@cache
def drawn(name):
    return bayes.smc(jax.random.key(0), X, SPECS[name], n_chains=16, n_draws=1000)


CASES = [pytest.param("known", marks=pytest.mark.slow), "free"]


@pytest.mark.parametrize("name", CASES)
def test_smc_has_the_exact_posterior_and_evidence(name):
    posterior, truth = drawn(name), exact(name)["log_evidence"]
    assert posterior.status == Status.SAMPLED
    assert_exact(posterior, name, run_error)
    found = bayes.pool(posterior)
    assert found.standard_error < 0.05
    assert abs(found.log_evidence - truth) <= 4.0 * found.standard_error
    # each run's own error, and its own evidence
    assert np.all(np.abs(posterior.stats["log_evidence"] - truth) <= 5.0 * posterior.stats["log_evidence_error"])


@pytest.mark.parametrize("name", CASES)
def test_bridge_has_the_exact_evidence(name):
    found = bayes.bridge(jax.random.key(1), X, SPECS[name], drawn(name))
    assert found.standard_error < 0.03
    assert abs(found.log_evidence - exact(name)["log_evidence"]) <= 4.0 * found.standard_error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "name"),
    [("gibbs", "known"), ("gibbs", "free"), ("nuts", "known"), ("nuts", "free"), ("nuts", "over scales")],
)
def test_chains_have_the_exact_posterior_and_through_bridge_the_evidence(engine, name):
    posterior = getattr(bayes, engine)(jax.random.key(2), X, SPECS[name], n_draws=8000)
    assert_exact(posterior, name, mcse)
    found = bayes.bridge(jax.random.key(1), X, SPECS[name], posterior)
    assert abs(found.log_evidence - exact(name)["log_evidence"]) <= 4.0 * found.standard_error


def test_evidence_is_in_the_units_of_the_data():
    """p(a x + b) = p(x) |a|⁻ⁿ when the prior moves along; the same key gives the same particles."""
    a, b = 1000.0, -70.0
    means = dist.Normal(a * MEAN + b, a * SD).expand([1]).to_event(1)
    moved = MixtureSpec(2, "spherical", prior=Prior(WEIGHTS, means, dist.InverseGamma(SHAPE, a**2 * RATE)))
    posterior = bayes.smc(jax.random.key(0), a * X + b, moved, n_chains=16, n_draws=1000)
    expected = bayes.pool(drawn("free")).log_evidence - len(X) * np.log(a)
    np.testing.assert_allclose(bayes.pool(posterior).log_evidence, expected, atol=1e-6)
    found = bayes.bridge(jax.random.key(1), a * X + b, moved, posterior).log_evidence
    expected = bayes.bridge(jax.random.key(1), X, SPECS["free"], drawn("free")).log_evidence - len(X) * np.log(a)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_overlap_tells_whether_one_labelling_would_do():
    assert bayes.bridge(jax.random.key(1), X, SPECS["free"], drawn("free")).overlap > 0.01  # "+ log 2" would be wrong
    apart = np.where(X > 0.0, X + 50.0, X)
    means = dist.Normal(25.0, 30.0).expand([1]).to_event(1)
    spec = MixtureSpec(2, "spherical", prior=Prior(WEIGHTS, means, dist.InverseGamma(SHAPE, RATE)))
    posterior = bayes.smc(jax.random.key(0), apart, spec, n_chains=16, n_draws=1000)
    found = bayes.bridge(jax.random.key(1), apart, spec, posterior)
    assert found.overlap < 1e-6
    assert_evidences_agree(bayes.pool(posterior), found)


def test_only_components_of_one_kind_are_exchanged():
    identity, size = np.arange(4), np.log(2.0)
    orders, log_size = _orders(np.array([0, 1, 0, 3]))
    np.testing.assert_array_equal(orders, [identity, [2, 1, 0, 3]])
    np.testing.assert_allclose(log_size, size)
    orders, log_size = _orders(np.zeros(3, int))
    assert {tuple(order) for order in orders} == {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}
    orders, log_size = _orders(np.zeros(8, int))
    assert len(orders) == 1 + 28  # the identity and the transpositions
    np.testing.assert_allclose(np.exp(log_size), 40320.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        MixtureSpec(
            2, "spherical", prior=Prior(dist.Dirichlet(np.array([1.0, 4.0])), MEANS, dist.InverseGamma(2.0, 0.8))
        ),
        MixtureSpec(
            2,
            "spherical",
            Known(means=np.array([[-1.0], [np.nan]])),
            Prior(WEIGHTS, MEANS, dist.InverseGamma(2.0, 0.8)),
        ),
        MixtureSpec(
            3,
            "spherical",
            Known(weights=np.array([0.2, 0.2, 0.6])),
            Prior(None, MEANS, dist.InverseGamma(2.0, 0.8)),
        ),
    ],
    ids=["unequal Dirichlet", "one mean known", "weights known"],
)
def test_smc_and_bridge_agree_where_labels_differ(spec):
    posterior = bayes.smc(jax.random.key(3), X, spec, n_chains=16)
    assert_evidences_agree(bayes.pool(posterior), bayes.bridge(jax.random.key(4), X, spec, posterior))


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_smc_and_bridge_agree_for_every_covariance_type(covariance_type):
    x, _ = problems.load("course_2d").sample(jax.random.key(20), 60)
    spec = MixtureSpec(2, covariance_type)
    posterior = bayes.smc(jax.random.key(3), x, spec, n_chains=8)
    assert_evidences_agree(bayes.pool(posterior), bayes.bridge(jax.random.key(4), x, spec, posterior))


def assert_evidences_agree(a, b):
    assert abs(a.log_evidence - b.log_evidence) <= 4.0 * np.hypot(a.standard_error, b.standard_error)


def test_bridge_of_two_normals_is_their_ratio():
    """p = 3 N(0, 1), q = N(0.5, 1.5²): log p − log q at exact draws of both."""
    rng = np.random.default_rng(0)
    draws, proposals = rng.standard_normal((4, 2000)), 0.5 + 1.5 * rng.standard_normal(4000)

    def log_ratio(u):
        return np.log(3.0) - 0.5 * u**2 + 0.5 * ((u - 0.5) / 1.5) ** 2 + np.log(1.5)

    value, error = _bridge(log_ratio(draws), log_ratio(proposals))
    assert error < 0.02
    assert abs(value - np.log(3.0)) <= 4.0 * error


def test_bad_input_is_a_sentence():
    with pytest.raises(NotSupported, match="smc starts from draws of the prior"):
        bayes.smc(
            jax.random.key(0), X, SPECS["free"], init=GMM(np.ones(2) / 2, np.zeros((2, 1)), np.ones(2), "spherical")
        )
    with pytest.raises(NotSupported, match="smc needs a semi-conjugate prior; scales has none: use nuts"):
        bayes.smc(jax.random.key(0), X, SPECS["over scales"])
    for options, sentence in (
        ({"n_warmup": 0}, "n_warmup must be"),
        ({"n_chains": 0}, "n_chains"),
        ({"n_draws": 1.5}, "n_d"),
    ):
        with pytest.raises(ValueError, match=sentence):
            bayes.smc(jax.random.key(0), X, SPECS["free"], **options)
    posterior = drawn("free")
    with pytest.raises(ValueError, match="has no log_evidence"):
        bayes.pool(posterior._replace(stats={}))
    with pytest.raises(ValueError, match="n_proposals must be"):
        bayes.bridge(jax.random.key(0), X, SPECS["free"], posterior, n_proposals=1)
    few = Posterior(
        jax.tree.map(lambda leaf: leaf[:1, :20], posterior.draws), posterior.log_density[:1, :20], {}, posterior.status
    )
    with pytest.raises(ValueError, match="draw more"):
        bayes.bridge(jax.random.key(0), X, SPECS["free"], few)


# ---- A8 of published.md: the galaxies, velocities in 1000 km/s


def galaxies_spec(n_components, covariance_type):
    """μ ~ N(20, 100), σ² ~ IG(3, 20), φ ~ Dirichlet(1)."""
    means = dist.Normal(20.0, 10.0).expand([1]).to_event(1)
    shared = dist.InverseWishart(6.0, scale_tril=np.sqrt([[40.0]]))  # of one dimension: IG(3, 20)
    covariances = shared if covariance_type == "tied" else dist.InverseGamma(3.0, 20.0)
    return MixtureSpec(n_components, covariance_type, prior=Prior(None, means, covariances))


def galaxies():
    return problems.datasets.load("galaxies_roeder")[0] / 1000.0


@pytest.mark.slow
@pytest.mark.parametrize(("n_components", "published"), [(2, -239.761), (3, -226.813)])
def test_galaxies_of_equal_variances_have_the_published_evidence(n_components, published):
    spec = galaxies_spec(n_components, "tied")
    posterior = bayes.smc(jax.random.key(0), galaxies(), spec, n_chains=32, n_draws=8000, n_warmup=20)
    for found in (bayes.pool(posterior), bayes.bridge(jax.random.key(1), galaxies(), spec, posterior)):
        assert found.standard_error <= 0.02
        assert abs(found.log_evidence - published) <= max(0.05, 3.0 * found.standard_error)


@pytest.mark.slow
@pytest.mark.parametrize("n_components", [3, 4, 5, 6])
def test_galaxies_of_unequal_variances_have_one_evidence_by_both_ways(n_components):
    spec = galaxies_spec(n_components, "spherical")
    posterior = bayes.smc(jax.random.key(0), galaxies(), spec, n_chains=8, n_draws=2000)
    assert_evidences_agree(bayes.pool(posterior), bayes.bridge(jax.random.key(1), galaxies(), spec, posterior))


@pytest.mark.slow
def test_standard_errors_of_the_evidence_are_the_scatter_over_seeds():
    """Over 40 seeds the ratio has an error of 13 %, over 20 of 19 %: one run in 30 would leave 1.5 by chance."""
    spec = galaxies_spec(3, "tied")
    found = {"smc": [], "bridge": []}
    for seed in range(40):
        posterior = bayes.smc(jax.random.key(seed), galaxies(), spec)
        found["smc"].append(bayes.pool(posterior)[:2])
        found["bridge"].append(bayes.bridge(jax.random.key(100 + seed), galaxies(), spec, posterior)[:2])
    for way, results in found.items():
        values, errors = np.array(results).T
        scatter, reported = np.std(values, ddof=1), np.sqrt(np.mean(errors**2))
        assert 1.0 / 1.5 <= reported / scatter <= 1.5, way
        assert abs(np.mean(values) + 226.813) <= 4.0 * scatter / np.sqrt(len(values)), way


# ---- posteriordb


def by_runs(draws):
    """As moments_with_errors, with the errors of independent runs."""
    squares = (draws - draws.mean()) ** 2
    return {
        "mean": (draws.mean(), run_error(draws)),
        "mean square": (np.mean(draws**2), run_error(draws**2)),
        "sd": (draws.std(), run_error(squares) / (2.0 * draws.std())),
    }


@pytest.mark.slow
def test_smc_has_the_moments_of_posteriordbs_normal_2():
    unit = Prior(dist.Dirichlet(np.ones(2)), dist.Normal(0.0, 10.0).expand([1]).to_event(1))
    y, record, _ = read("normal_2")
    spec = MixtureSpec(2, "spherical", Known(covariances=np.ones(2)), unit)
    posterior = ordered(bayes.smc(jax.random.key(0), y, spec, n_chains=12, n_draws=1000))
    for quantity, values in named(posterior.draws).items():
        theirs = record["reference_ordered"].get(quantity, {})
        for moment, (value, error) in by_runs(values).items():
            if moment in theirs:
                assert abs(value - theirs[moment]) <= 4.0 * error, (quantity, moment)
