"""Moments and their merge against NumPy and SciPy on the observations themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import sem, spearmanr

from dcai_ray.valuation.moments import Moments, gelman_rubin, merge, moments_of, rank_correlation

ROUNDING = 1e-12  # relative to the largest square: sums of at most 60 terms


def rounds(count):
    entries = st.floats(-1e3, 1e3, allow_subnormal=False)
    return arrays(np.float64, st.tuples(count, st.just(3)), elements=entries)


@given(st.lists(rounds(st.integers(0, 20)), min_size=1, max_size=3))
def test_merged_moments_are_those_of_the_concatenation(parts):
    merged = Moments.empty(3)
    for part in parts:
        merged = merge(merged, moments_of(part))
    everything = np.concatenate(parts)
    assert merged.count == len(everything)
    if len(everything) == 0:
        return
    size = max(1.0, np.abs(everything).max())
    assert_allclose(merged.mean, everything.mean(axis=0), atol=ROUNDING * size)
    squares = len(everything) * everything.var(axis=0)
    assert_allclose(merged.m2, squares, atol=len(everything) * ROUNDING * size**2)


def test_spread_is_numpys_and_scipys_of_the_observations():
    observations = np.random.default_rng(0).gamma(1.0, size=(7, 2, 3))
    moments = moments_of(observations)
    assert_allclose(moments.variance, observations.var(axis=0, ddof=1), rtol=1e-13)
    assert_allclose(moments.stderr, sem(observations, axis=0), rtol=1e-13)


@pytest.mark.parametrize("count", [0, 1])
def test_spread_of_fewer_than_two_observations_is_unknown(count):
    moments = moments_of(np.ones((count, 4)))
    assert_array_equal(moments.variance, np.full(4, np.inf))
    assert_array_equal(moments.stderr, np.full(4, np.inf))


def test_merging_with_nothing_changes_no_bit():
    moments = moments_of(np.random.default_rng(1).standard_normal((5, 3)))
    nothing = Moments.empty(3)
    for merged in (merge(nothing, moments), merge(moments, nothing)):
        assert merged.count == 5
        assert_array_equal(merged.mean, moments.mean)
        assert_array_equal(merged.m2, moments.m2)


def test_a_large_offset_does_not_cancel_the_spread():
    observations = 1e8 + np.array([[0.0], [1.0], [2.0], [3.0]])  # whole numbers: exact
    merged = merge(moments_of(observations[:1]), moments_of(observations[1:]))
    assert_allclose(merged.variance, [5 / 3], rtol=1e-7)  # 1e8 squared has 16 digits


def test_moments_of_different_points_are_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) and \(3,\)"):
        merge(Moments.empty(2), Moments.empty(3))


def test_gelman_rubin_follows_its_formula():
    rng = np.random.default_rng(2)
    chains = rng.standard_normal((4, 9, 5)) + rng.standard_normal((4, 1, 5))
    within = chains.var(axis=1, ddof=1).mean(axis=0)
    b = 9 * chains.mean(axis=1).var(axis=0, ddof=1)
    expected = np.sqrt((8 / 9 * within + b / 9) / within)
    assert_allclose(gelman_rubin([moments_of(c) for c in chains]), expected, rtol=1e-12)


def test_gelman_rubin_of_rounds_that_never_vary():
    same, other = moments_of(np.zeros((3, 1))), moments_of(np.ones((3, 1)))
    assert gelman_rubin([same, same]) == 1.0
    assert gelman_rubin([same, other]) == np.inf


def test_gelman_rubin_is_unknown_for_one_chain_or_one_round():
    chain, short = moments_of(np.eye(3)), moments_of(np.ones((1, 3)))
    assert np.isnan(gelman_rubin([chain])).all()
    assert np.isnan(gelman_rubin([chain, short])).all()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_rank_correlation_is_spearmans_with_ties(pairs):
    x, y = np.array(pairs, dtype=np.float64).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(rank_correlation(x, y))
    else:
        assert_allclose(rank_correlation(x, y), spearmanr(x, y).statistic, atol=1e-12)
