"""Intervals and e-values: their formulas, and simulations of what they promise at every look."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm

from dcai_ray.valuation.intervals import (
    asymptotic_half_width,
    bernstein_half_width,
    e_bh,
    e_values,
    false_discovery_bound,
    stitched_boundary,
)
from dcai_ray.valuation.moments import Moments, moments_of

ALPHA = 0.05
SEQUENCES, LENGTH = 2000, 400
ALLOWED = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / SEQUENCES)  # three standard errors
FIRST_LOOK = 32  # asymptotic: of a handful of observations nothing is promised


def bernoulli(rng, shape):
    return (rng.random(shape) < 0.05).astype(np.float64), 0.05


def gaussian(rng, shape):
    return rng.standard_normal(shape), 0.0


def skewed(rng, shape):
    return rng.beta(0.5, 2.0, shape), 0.2


LAWS = pytest.mark.parametrize("law", [bernoulli, skewed])


def known(count, mean, deviation):
    """Moments whose standard deviation is the given one."""
    mean = np.atleast_1d(np.asarray(mean, dtype=np.float64))
    return Moments(count, mean, np.full(mean.shape, deviation**2 * (count - 1)))


def looks(x):
    """Moments (sequences,) of the first t columns, for t = 1, 2, ..."""
    sums, squares = np.cumsum(x, axis=1), np.cumsum(x**2, axis=1)
    for t in range(1, x.shape[1] + 1):
        mean = sums[:, t - 1] / t
        yield Moments(t, mean, np.maximum(squares[:, t - 1] - t * mean**2, 0.0))


def test_asymptotic_half_width_by_hand():
    # t = 100, r = 1 / 50: t r + 1 = 3, t^2 r = 200.
    expected = 0.3 * math.sqrt(2 * 3 / 200 * math.log(math.sqrt(3) / 0.05))
    assert_allclose(asymptotic_half_width(known(100, 0.7, 0.3), 0.05), [expected], rtol=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_known_of_fewer_than_two_observations(count):
    assert_array_equal(asymptotic_half_width(moments_of(np.ones((count, 2))), ALPHA), [np.inf] * 2)
    assert_array_equal(e_values(moments_of(np.ones((count, 2))), 0.0, "above"), [0.0, 0.0])
    assert bernstein_half_width(0, np.zeros(2), 1.0, ALPHA)[0] == np.inf


def test_asymptotic_interval_hardly_ever_misses_a_skewed_mean():
    x, truth = skewed(np.random.default_rng(0), (SEQUENCES, LENGTH))
    missed = np.zeros(SEQUENCES, dtype=bool)
    for moments in looks(x):
        if moments.count >= FIRST_LOOK:
            missed |= np.abs(moments.mean - truth) > asymptotic_half_width(moments, ALPHA)
    assert 0 < missed.mean() <= ALLOWED


def predictable_variation(x, first_guess=0.0):
    """(sequences, t) sums of squared misses by the mean of what came before."""
    counts = np.arange(1, x.shape[1] + 1)
    means = np.cumsum(x, axis=1) / counts
    guesses = np.hstack([np.full((len(x), 1), first_guess), means[:, :-1]])
    return np.cumsum((x - guesses) ** 2, axis=1)


@LAWS
def test_bernstein_interval_never_misses_more_often_than_promised_at_any_count(law):
    x, truth = law(np.random.default_rng(1), (SEQUENCES, LENGTH))
    variation = predictable_variation(x)
    missed = np.zeros(SEQUENCES, dtype=bool)
    for moments in looks(x):
        half = bernstein_half_width(moments.count, variation[:, moments.count - 1], 1.0, ALPHA)
        missed |= np.abs(moments.mean - truth) > half
    assert missed.mean() <= ALLOWED


def test_bernstein_interval_is_not_idle():
    """At a loose level it misses now and then: a boundary ten times too wide never would."""
    x, truth = bernoulli(np.random.default_rng(2), (SEQUENCES, LENGTH))
    half = bernstein_half_width(LENGTH, predictable_variation(x)[:, -1], 1.0, ALPHA)
    normal = norm.isf(ALPHA / 2) * x.std(axis=1) / math.sqrt(LENGTH)
    assert np.median(half / normal) < 4
    assert (np.abs(x.mean(axis=1) - truth) > half / 4).any()


@pytest.mark.parametrize(("scale", "published"), [(3.0, 64.48755), (-1.0, 28.99389)])
def test_stitched_boundary_equals_the_authors_own(scale, published):
    """gostevehoward/confseq, test/uniform_boundaries_unittest.cpp: v = 100, m = 10."""
    boundary = stitched_boundary(np.array(100.0), 0.05, scale=scale, least=10.0)
    assert_allclose(boundary, published, atol=1e-5)  # as many digits as are published


def test_bernstein_half_width_scales_with_the_observations():
    variation = np.array([0.0, 5.0, 300.0])
    once = bernstein_half_width(400, variation, 1.0, ALPHA)
    assert_allclose(bernstein_half_width(400, 0.01 * variation, 0.1, ALPHA), 0.1 * once)
    assert_array_equal(bernstein_half_width(400, variation, np.inf, ALPHA), [np.inf] * 3)


@pytest.mark.parametrize("mean", [-0.9, -0.2, 0.1, 0.4, 1.1])
@pytest.mark.parametrize("direction", ["below", "above"])
def test_e_value_is_its_mixture_integrated_numerically(mean, direction):
    count, threshold, deviation, r = 37, 0.1, 0.8, 1 / 20
    sign = -1 if direction == "below" else 1
    total = count * (mean - threshold)

    def mixed(size):
        density = 2 * norm.pdf(size, scale=math.sqrt(r) / deviation)
        return density * math.exp(sign * size * total - size**2 * deviation**2 * count / 2)

    integral = quad(mixed, 0, 10 * math.sqrt(r) / deviation, epsabs=0, epsrel=1e-10)[0]
    log_e = e_values(known(count, mean, deviation), threshold, direction, r)
    assert_allclose(np.exp(log_e), [integral], rtol=1e-8)


@pytest.mark.parametrize("direction", ["below", "above"])
def test_e_value_has_mean_one_at_the_threshold_and_less_beyond(direction):
    """Exact for Gaussian means of known spread, by integration over them."""
    count, deviation = 60, 1.3
    spread = deviation / math.sqrt(count)
    away = 1 if direction == "below" else -1

    def mean_e(truth):
        def weighted(x):
            log_e = e_values(known(count, x, deviation), 0.0, direction)[0]
            return math.exp(log_e + norm.logpdf(x, truth, spread))

        return quad(weighted, truth - 20 * spread, truth + 20 * spread, epsrel=1e-9)[0]

    assert_allclose(mean_e(0.0), 1.0, rtol=1e-7)
    assert mean_e(away * spread) < 0.9
    assert mean_e(-away * spread) > 1.1


@pytest.mark.parametrize("direction", ["below", "above"])
@pytest.mark.parametrize("law", [gaussian, skewed])
def test_simulated_e_value_has_mean_at_most_one_at_the_threshold(law, direction):
    # t r = .4: beyond 1 the e-value has no variance and its simulated mean says little.
    x, truth = law(np.random.default_rng(3), (10_000, LENGTH))
    e = np.exp(e_values(moments_of(x.T), truth, direction, rho2=0.001))
    # The spread is estimated, too low where the mean is: an error of order skewness / sqrt t.
    deceived = 0.0 if law is gaussian else 1.25 / math.sqrt(LENGTH)
    assert e.mean() <= 1 + deceived + 3 * e.std() / math.sqrt(len(e))


@pytest.mark.parametrize("direction", ["below", "above"])
def test_e_value_hardly_ever_grows_large_while_the_hypothesis_holds(direction):
    """Ville: the chance that it ever reaches 1 / alpha is at most alpha."""
    x = np.random.default_rng(4).standard_normal((SEQUENCES, LENGTH))
    ever = np.zeros(SEQUENCES, dtype=bool)
    for moments in looks(x):
        if moments.count >= FIRST_LOOK:
            ever |= e_values(moments, 0.0, direction) >= -math.log(ALPHA)
    assert ever.mean() <= ALLOWED


def test_both_directions_together_invert_the_asymptotic_interval():
    moments = known(80, 0.0, 0.5)
    edge = asymptotic_half_width(moments, ALPHA)[0]
    both = [np.exp(e_values(moments, edge, side))[0] for side in ("below", "above")]
    assert_allclose(np.mean(both), 1 / ALPHA, rtol=1e-12)


def test_e_values_of_overwhelming_evidence_stay_in_order():
    log_e = e_values(known(10_000, [-3.0, -2.0, 2.0, 3.0], 0.001), 0.0, "below")
    assert np.isfinite(log_e).all()
    assert (np.diff(log_e) < 0).all()
    assert log_e[0] > 1e6


def test_observations_that_never_varied_are_certain_or_say_nothing():
    log_e = e_values(known(49, [-1.0, 0.0, 1.0], 0.0), 0.0, "below")
    assert_allclose(log_e, [np.inf, -math.log(49 / 50 + 1) / 2, -np.inf])


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="below or above, got 'left'"):
        e_values(known(5, 0.0, 1.0), 0.0, "left")


def test_e_bh_by_hand():
    # n / alpha = 6 / .1 = 60: k e_(k) = 50, 80, 66, 8, 5, 3 -> k = 3, though the first alone fails.
    e = np.array([1.0, 40.0, 2.0, 22.0, 0.5, 50.0])
    expected = np.array([False, True, False, True, False, True])
    assert_array_equal(e_bh(np.log(e), 0.1), expected)
    assert not e_bh(np.log(e), 0.05).any()  # 120 is never reached


def test_e_bh_rejects_equal_evidence_together():
    assert e_bh(np.log([30.0, 30.0, 30.0]), 0.1).all()


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_e_bh_keeps_the_false_discovery_rate_under_dependence(shared):
    """40 of 60 Gaussian points at the threshold, with a common part; also at a rate chosen late."""
    rng, alpha, count = np.random.default_rng(5), 0.2, 50
    truth = np.where(np.arange(60) < 40, 0.0, -0.6)
    false, over_bound, power = [], [], []
    for _ in range(400):
        common = rng.standard_normal((count, 1))
        own = rng.standard_normal((count, 60))
        x = truth + math.sqrt(shared) * common + math.sqrt(1 - shared) * own
        log_e = e_values(moments_of(x), 0.0, "below")
        mask = e_bh(log_e, alpha)
        false.append(mask[:40].sum() / max(mask.sum(), 1))
        power.append(mask[40:].mean())
        top = log_e >= np.sort(log_e)[-15]  # whatever comes out, the 15 largest
        over_bound.append(top[:40].mean() * 40 / 15 / false_discovery_bound(log_e, top))
    assert np.mean(false) <= alpha
    assert np.mean(power) > 0.3
    assert np.mean(over_bound) <= 1


def test_false_discovery_bound_by_hand():
    log_e = np.log([1.0, 40.0, 2.0, 22.0, 0.5, 50.0])
    assert_allclose(false_discovery_bound(log_e, log_e >= np.log(21)), 6 / (3 * 22))
    assert_allclose(false_discovery_bound(log_e, log_e >= np.log(39)), 6 / (2 * 40))
    assert false_discovery_bound(log_e, np.ones(6, dtype=bool)) == 1.0
    assert false_discovery_bound(log_e, np.zeros(6, dtype=bool)) == 0.0


def test_false_discovery_bound_is_where_e_bh_begins_to_reject_the_set():
    log_e = np.log([900.0, 500.0, 200.0, 1.0, 1.0])
    top = np.array([True, True, True, False, False])
    bound = false_discovery_bound(log_e, top)
    assert_array_equal(e_bh(log_e, bound * 1.001), top)
    assert e_bh(log_e, bound * 0.999).sum() < top.sum()


def test_overwhelming_evidence_does_not_overflow_the_bound():
    assert false_discovery_bound(np.array([1e6, 0.0]), np.array([True, False])) == 0.0
