"""Plain NumPy from the formulas of the books, with loops over components: slow, and nothing of gmm_jax in it.

A mixture is (weights, means, covariances, covariance_type); known parts are a dict of arrays whose NaN rows are free.
Most functions also take complex numbers, so that derivatives can be had by the complex step.
"""

import itertools

import numpy as np


def random_mixture(rng, n_components, n_features, covariance_type, spread=3.0):
    """Weights, means, covariances; eigenvalues of covariances between about 0.3 and 3."""
    weights = rng.dirichlet(np.full(n_components, 5.0))
    means = spread * rng.standard_normal((n_components, n_features))
    if covariance_type == "diag":
        return weights, means, np.exp(rng.uniform(-1, 1, (n_components, n_features)))
    if covariance_type == "spherical":
        return weights, means, np.exp(rng.uniform(-1, 1, n_components))
    matrices = []
    for _ in range(n_components):
        q, _ = np.linalg.qr(rng.standard_normal((n_features, n_features)))
        matrices.append(q * np.exp(rng.uniform(-1, 1, n_features)) @ q.T)
    matrices = np.array([0.5 * (m + m.T) for m in matrices])
    return weights, means, matrices[0] if covariance_type == "tied" else matrices


def random_data(rng, n_samples, gmm):
    """Rows of a mixture that has the attributes weights, means, covariances, covariance_type."""
    labels = rng.choice(len(gmm.weights), n_samples, p=gmm.weights)
    matrices = dense(gmm.covariances, gmm.covariance_type, *gmm.means.shape)
    return np.array([rng.multivariate_normal(gmm.means[k], matrices[k]) for k in labels])


def dense(covariances, covariance_type, n_components, n_features):
    """(K, D, D)."""
    if covariance_type == "full":
        return np.asarray(covariances)
    if covariance_type == "tied":
        return np.array([covariances] * n_components)
    if covariance_type == "diag":
        return np.array([np.diag(v) for v in covariances])
    return np.array([v * np.eye(n_features) for v in covariances])


def log_gaussian(x, mean, matrix):
    """−½ [D log 2π + log |Σ| + (x − μ)ᵀ Σ⁻¹ (x − μ)], with the inverse and the determinant written out."""
    d = x - mean
    mahalanobis = np.einsum("ni,ij,nj->n", d, np.linalg.inv(matrix), d)
    return -0.5 * (x.shape[1] * np.log(2 * np.pi) + np.log(np.linalg.det(matrix)) + mahalanobis)


def log_joint(gmm, x):
    """(N, K): log φ_k N(x_n | μ_k, Σ_k)."""
    weights, means, covariances, covariance_type = gmm
    matrices = dense(covariances, covariance_type, *means.shape)
    columns = [np.log(weights[k]) + log_gaussian(x, means[k], matrices[k]) for k in range(len(weights))]
    return np.stack(columns, axis=1)


def log_prob(gmm, x):
    """(N,)."""
    joint = log_joint(gmm, x)
    top = joint.real.max(axis=1)
    return top + np.log(np.exp(joint - top[:, None]).sum(axis=1))


def responsibilities(gmm, x):
    """(N, K)."""
    return np.exp(log_joint(gmm, x) - log_prob(gmm, x)[:, None])


def log_likelihood(gmm, x, sample_weight=None):
    """Σ_n w_n log p(x_n)."""
    w = np.ones(len(x)) if sample_weight is None else sample_weight
    return np.sum(w * log_prob(gmm, x))


def moments(gmm, x, sample_weight=None):
    """mass, first and second sums about the current means, log-likelihood."""
    _, means, _, covariance_type = gmm
    n_components, n_features = means.shape
    r = responsibilities(gmm, x)
    if sample_weight is not None:
        r = r * sample_weight[:, None]
    first = np.array([sum(r[n, k] * (x[n] - means[k]) for n in range(len(x))) for k in range(n_components)])
    scatter = np.array(
        [sum(r[n, k] * np.outer(x[n] - means[k], x[n] - means[k]) for n in range(len(x))) for k in range(n_components)]
    )
    second = {
        "full": scatter,
        "tied": scatter.sum(axis=0),
        "diag": np.array([np.diag(s) for s in scatter]),
        "spherical": np.array([np.trace(s) / n_features for s in scatter]),
    }[covariance_type]
    return r.sum(axis=0), first, second, log_likelihood(gmm, x, sample_weight)


def m_step(r, x, gmm, known=None, reg_covar=0.0):
    """The maximiser of Σ_nk r_nk log φ_k N(x_n | μ_k, Σ_k), from the responsibilities and the rows (Bishop 9.24-9.26).

    r carries sample weights already. Known parts: free φ share what the known leave; Σ is taken about a known μ.
    """
    known = known or {}
    _, old_means, _, covariance_type = gmm
    n_components, n_features = old_means.shape
    mass = r.sum(axis=0)

    weights = np.array(known.get("weights", np.full(n_components, np.nan)), float)
    free = np.isnan(weights)
    left = 1.0 - weights[~free].sum()
    weights[free] = left * mass[free] / mass[free].sum() if free.any() else weights[free]

    means = np.array(known.get("means", np.full((n_components, n_features), np.nan)), float)
    for k in range(n_components):
        if np.isnan(means[k]).any():
            means[k] = (r[:, k] @ x) / mass[k]

    ridge = np.diag(np.broadcast_to(reg_covar, n_features))
    scatter = []
    for k in range(n_components):
        d = x - means[k]
        scatter.append((r[:, k, None] * d).T @ d)
    if covariance_type == "tied":
        covariances = sum(scatter) / mass.sum() + ridge
    else:
        matrices = [s / m + ridge for s, m in zip(scatter, mass, strict=True)]
        covariances = {
            "full": np.array(matrices),
            "diag": np.array([np.diag(m) for m in matrices]),
            "spherical": np.array([np.trace(m) / n_features for m in matrices]),
        }[covariance_type]
    if "covariances" in known:
        held = np.asarray(known["covariances"], float)
        covariances = np.where(np.isnan(held), covariances, held)
    return weights, means, covariances, covariance_type


def em(gmm, x, n_iter, known=None, sample_weight=None, reg_covar=0.0):
    """The mixture after n_iter iterations, and the log-likelihood of every iterate (n_iter + 1)."""
    trace = [log_likelihood(gmm, x, sample_weight)]
    for _ in range(n_iter):
        r = responsibilities(gmm, x)
        r = r if sample_weight is None else r * sample_weight[:, None]
        gmm = m_step(r, x, gmm, known, reg_covar)
        trace.append(log_likelihood(gmm, x, sample_weight))
    return gmm, np.array(trace)


def em_map(gmm, x, known=None):
    """One iteration: for tests that a mixture is a fixed point."""
    return m_step(responsibilities(gmm, x), x, gmm, known)


def bhattacharyya(mean_p, cov_p, mean_q, cov_q):
    """⅛ dᵀ Σ̄⁻¹ d + ½ log(|Σ̄| / √(|Σ_p| |Σ_q|))."""
    middle, d = 0.5 * (cov_p + cov_q), mean_p - mean_q
    log_det = [np.linalg.slogdet(m)[1] for m in (middle, cov_p, cov_q)]
    return 0.125 * d @ np.linalg.solve(middle, d) + 0.5 * (log_det[0] - 0.5 * (log_det[1] + log_det[2]))


def match_cost(p, q):
    """(K, K): component i of p against component j of q."""
    a, b = (dense(m[2], m[3], *m[1].shape) for m in (p, q))
    n_components = len(p[0])
    return np.array(
        [
            [
                bhattacharyya(p[1][i], a[i], q[1][j], b[j]) + (np.sqrt(p[0][i]) - np.sqrt(q[0][j])) ** 2
                for j in range(n_components)
            ]
            for i in range(n_components)
        ]
    )


def cheapest_permutation(cost, allowed=None):
    """The permutation of least total cost, by trying all K!; allowed (K, K) bool restricts the pairs."""
    n_components = len(cost)
    places = np.arange(n_components)
    candidates = [np.array(order) for order in itertools.permutations(range(n_components))]
    if allowed is not None:
        candidates = [order for order in candidates if allowed[order, places].all()]
    return min(candidates, key=lambda order: cost[order, places].sum())


def ecr_cost(p, representative):
    """(K, K): samples whose most probable component is i, and that the representative puts elsewhere than j."""
    z, k = p.argmax(axis=1), range(p.shape[1])
    return np.array([[np.sum((z == i) & (representative != j)) for j in k] for i in k], float)


def stephens_cost(p, q):
    """(K, K): Σ_n p_ni log(p_ni / q_nj), where 0 log 0 = 0."""
    k, held = range(p.shape[1]), p > 0
    return np.array([[np.sum(p[held[:, i], i] * np.log(p[held[:, i], i] / q[held[:, i], j])) for j in k] for i in k])


def ecr_representative(p):
    """(N,): the most frequent allocation over draws, from probabilities (M, N, K) in one labelling."""
    z = p.argmax(axis=2)
    return np.array([(z == k).sum(axis=0) for k in range(p.shape[2])]).argmax(axis=0)


def free_parameters(gmm, free_weights, free_means, free_covariances):
    """θ and the map θ -> mixture; all but the last free φ, the free μ, lower triangles of the free Σ."""
    weights, means, covariances, covariance_type = gmm
    n_features = means.shape[1]
    phi = np.flatnonzero(free_weights)
    slots = [("weights", (k,)) for k in phi[:-1]]
    slots += [("means", (k, i)) for k in np.flatnonzero(free_means) for i in range(n_features)]
    triangle = [(i, j) for i in range(n_features) for j in range(i + 1)]
    if covariance_type == "full":
        slots += [("covariances", (k, i, j)) for k in np.flatnonzero(free_covariances) for i, j in triangle]
    elif covariance_type == "tied":
        slots += [("covariances", ij) for ij in triangle if any(free_covariances)]
    elif covariance_type == "diag":
        slots += [("covariances", (k, i)) for k in np.flatnonzero(free_covariances) for i in range(n_features)]
    else:
        slots += [("covariances", (k,)) for k in np.flatnonzero(free_covariances)]
    leaves = {"weights": weights, "means": means, "covariances": covariances}
    theta = np.array([leaves[name][at] for name, at in slots])

    def unpack(theta):
        new = {name: np.array(leaf, theta.dtype) for name, leaf in leaves.items()}
        for (name, at), value in zip(slots, theta, strict=True):
            new[name][at] = value
            if name == "covariances" and covariance_type in ("full", "tied"):
                new[name][(*at[:-2], at[-1], at[-2])] = value
        if len(phi):
            others = new["weights"].sum() - new["weights"][phi[-1]]
            new["weights"][phi[-1]] = 1.0 - others
        return new["weights"], new["means"], new["covariances"], covariance_type

    return theta, unpack


def hessian(function, theta, step=1e-5):
    """Central differences (error ∝ step²) of gradients by the complex step (exact to rounding)."""

    def gradient(at):
        shifted = at[None, :] + 1e-30j * np.eye(len(at))
        return np.array([function(t).imag / 1e-30 for t in shifted])

    rows = [(gradient(theta + step * e) - gradient(theta - step * e)) / (2 * step) for e in np.eye(len(theta))]
    return 0.5 * (np.array(rows) + np.array(rows).T)


def standard_errors(gmm, x, free_weights, free_means, free_covariances):
    """weights, means, covariances of standard errors: inverse observed information, the last φ by the delta method."""
    theta, unpack = free_parameters(gmm, free_weights, free_means, free_covariances)
    covariance = np.linalg.inv(-hessian(lambda t: log_likelihood(unpack(t), x), theta))
    leaves = []
    for leaf in range(3):
        base = np.asarray(unpack(theta)[leaf])
        # every entry of a mixture is linear in θ
        jacobian = np.array([np.asarray(unpack(theta + e)[leaf]) - base for e in np.eye(len(theta))])
        leaves.append(np.sqrt(np.einsum("p...,pq,q...->...", jacobian, covariance, jacobian)))
    return leaves


def enumerate_labellings(x, covariance, alpha, prior_mean, prior_covariance, grid):
    """The exact posterior of two components with one known Σ, μ_k ~ N(m₀, S₀), φ ~ Dirichlet(α): all 2ⁿ labellings.

    Returns P(z_i = z_j | x) (n, n), E[Σ_k φ_k μ_k | x] (D,), and the predictive density at the rows of grid.
    """
    from math import lgamma

    n_samples = len(x)
    precision, prior_precision = np.linalg.inv(covariance), np.linalg.inv(prior_covariance)
    log_mass, together, mean, predictive = [], [], [], []
    for labels in itertools.product((0, 1), repeat=n_samples):
        labels = np.array(labels)
        log_evidence, mixed_mean, density = 0.0, 0.0, 0.0
        for k in (0, 1):
            rows = x[labels == k]
            count = len(rows)
            posterior_covariance = np.linalg.inv(prior_precision + count * precision)
            posterior_mean = posterior_covariance @ (prior_precision @ prior_mean + precision @ rows.sum(axis=0))
            # the chain rule: each row given those before it
            before = (prior_mean, prior_covariance)
            for row in rows:
                log_evidence += log_gaussian(row[None], before[0], before[1] + covariance)[0]
                shrunk = np.linalg.inv(np.linalg.inv(before[1]) + precision)
                before = (shrunk @ (np.linalg.solve(before[1], before[0]) + precision @ row), shrunk)
            log_evidence += lgamma(alpha[k] + count) - lgamma(alpha[k])
            share = (alpha[k] + count) / (alpha.sum() + n_samples)
            mixed_mean = mixed_mean + share * posterior_mean
            density = density + share * np.exp(log_gaussian(grid, posterior_mean, posterior_covariance + covariance))
        log_mass.append(log_evidence)
        together.append(labels[:, None] == labels[None])
        mean.append(mixed_mean)
        predictive.append(density)
    mass = np.exp(np.array(log_mass) - max(log_mass))
    mass /= mass.sum()
    return tuple(np.tensordot(mass, np.array(values, float), axes=1) for values in (together, mean, predictive))


def normal_cdf(z):
    """Φ(z), elementwise."""
    from math import erf

    return 0.5 * (1.0 + np.vectorize(erf)(z / np.sqrt(2.0)))


def enumerate_allocations(x, alpha, prior_mean, prior_variance, variances, log_prior, grid):
    """The exact posterior of two components in one dimension: all 2ⁿ allocations, σ² of each on its own quadrature.

    φ ~ Dirichlet(α), μ_k ~ N(m₀, s₀²), σ²_k on the points `variances` with log masses `log_prior`, all independent: one
    point of mass 1 is a known σ². Given σ², the sum over a subset is a normal's in closed form.

    Returns a dict: log_evidence; together (n, n), P(z_i = z_j | x); predictive, p(x* | x) at grid; occupied, the
    expected number of components that hold a row; sorted_means (2,), E[min μ | x] and E[max μ | x].
    """
    from math import lgamma

    n_samples = len(x)
    subsets = np.array(list(itertools.product((False, True), repeat=n_samples)))
    count, total, squares = subsets.sum(1), subsets @ x, subsets @ x**2
    # μ | σ², subset: precision, mean; then the subset's log evidence at each σ² (completed squares)
    precision = 1.0 / prior_variance + count[:, None] / variances
    mean = (prior_mean / prior_variance + total[:, None] / variances) / precision
    log_at = -0.5 * count[:, None] * np.log(2 * np.pi * variances) - 0.5 * np.log(prior_variance * precision)
    log_at = log_at - 0.5 * (squares[:, None] / variances + prior_mean**2 / prior_variance - precision * mean**2)
    log_at = log_at + log_prior
    top = log_at.max(1, keepdims=True)
    share = np.exp(log_at - top)  # p(σ² | subset)
    log_subset = top[:, 0] + np.log(share.sum(1))
    share /= share.sum(1, keepdims=True)
    density = np.exp(-0.5 * (grid[:, None, None] - mean) ** 2 / (1 / precision + variances))
    density = np.sum(share * density / np.sqrt(2 * np.pi * (1 / precision + variances)), axis=-1)  # (grid, subsets)
    first = np.sum(share * mean, axis=1)

    a, b = np.arange(len(subsets)), np.arange(len(subsets))[::-1]  # a subset and its complement
    log_gamma = np.vectorize(lgamma)
    log_mass = log_subset[a] + log_subset[b] + log_gamma(alpha[0] + count[a]) + log_gamma(alpha[1] + count[b])
    log_mass += lgamma(sum(alpha)) - lgamma(alpha[0]) - lgamma(alpha[1]) - lgamma(sum(alpha) + n_samples)
    log_evidence = log_mass.max() + np.log(np.exp(log_mass - log_mass.max()).sum())
    mass = np.exp(log_mass - log_evidence)
    weight = (alpha[0] + count[a]) / (sum(alpha) + n_samples)
    spread = np.array([_mean_distance(share, mean, precision, i, j) for i, j in zip(a, b, strict=True)])
    middle = mass @ (first[a] + first[b])
    return {
        "log_evidence": log_evidence,
        "together": np.einsum("s,sij->ij", mass, (subsets[:, :, None] == subsets[:, None, :]).astype(float)),
        "predictive": density[:, a] @ (mass * weight) + density[:, b] @ (mass * (1.0 - weight)),
        "occupied": mass @ ((count[a] > 0).astype(float) + (count[b] > 0)),
        "sorted_means": np.array([middle - mass @ spread, middle + mass @ spread]) / 2.0,
    }


def _mean_distance(share, mean, precision, i, j):
    """E|μ₁ − μ₂| given the allocation: a folded normal for every pair of variances."""
    d = mean[i][:, None] - mean[j][None]
    s = np.sqrt(1.0 / precision[i][:, None] + 1.0 / precision[j][None])
    folded = s * np.sqrt(2.0 / np.pi) * np.exp(-0.5 * (d / s) ** 2) + d * (1.0 - 2.0 * normal_cdf(-d / s))
    return share[i] @ folded @ share[j]
