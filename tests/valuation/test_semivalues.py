"""Weights by coalition size, against their definitions and games with known values."""

from math import comb

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import beta as beta_function

from dcai_ray.valuation.semivalues import (
    by_enumeration,
    from_scores,
    scores_along,
    scores_of,
    size_weights,
    symmetric_chains,
)
from tests.support import games

NAMES = ["shapley", "banzhaf", "beta", "leave-one-out"]


@pytest.mark.parametrize("n", [1, 2, 7, 1100])
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_probabilities_of_a_size_even_for_many_players(name, n):
    weights = size_weights(name, n)
    assert weights.shape == (n,)
    assert (weights >= 0).all()
    assert_allclose(weights.sum(), 1, rtol=1e-9)


def test_banzhaf_counts_all_coalitions_alike():
    assert_allclose(size_weights("banzhaf", 7), [comb(6, t) / 2**6 for t in range(7)], rtol=1e-12)


@pytest.mark.parametrize("beta", [(4, 1), (1, 4), (16, 1)])
def test_beta_is_that_of_kwon_and_zou(beta):
    a, b = beta
    expected = [
        comb(6, t) * beta_function(t + b, 6 - t + a) / beta_function(a, b) for t in range(7)
    ]
    assert_allclose(size_weights("beta", 7, beta), expected, rtol=1e-9)


def test_beta_1_1_is_shapley():
    assert_allclose(size_weights("beta", 9, (1, 1)), size_weights("shapley", 9), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_an_additive_game_has_the_worths_as_its_values(name):
    worth = [3.0, -1.0, 0.5, 0.0, 2.0]
    found = by_enumeration(games.additive(worth), size_weights(name, 5))
    assert_allclose(found, worth, atol=1e-12)


def test_shapley_values_of_classical_games():
    weights = size_weights("shapley", 6)
    costs = [4, 1, 3, 3, 7, 2]
    assert_allclose(
        by_enumeration(games.airport(costs), weights), games.airport_values(costs), atol=1e-12
    )
    found = by_enumeration(games.unanimity(6, {0, 2}), weights)
    assert_allclose(found, [0.5, 0, 0.5, 0, 0, 0], atol=1e-12)
    assert_allclose(by_enumeration(games.majority(6), weights), np.full(6, 1 / 6), atol=1e-12)
    # One left and two right gloves: 2/3, 1/6, 1/6 (Shapley 1953 via Shapley & Shubik).
    gloves = by_enumeration(games.glove(1, 2), size_weights("shapley", 3))
    assert_allclose(gloves, [2 / 3, 1 / 6, 1 / 6], atol=1e-12)


def test_banzhaf_values_of_the_majority_game():
    # A voter decides if exactly half of the other four are in favour.
    expected = np.full(5, comb(4, 2) / 2**4)
    found = by_enumeration(games.majority(5), size_weights("banzhaf", 5))
    assert_allclose(found, expected, atol=1e-12)


def test_an_unknown_semivalue_is_named():
    with pytest.raises(ValueError, match="got 'nucleolus'"):
        size_weights("nucleolus", 3)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_symmetric_chains_visit_every_coalition_once(n):
    chains = symmetric_chains(n)
    assert len(chains) == comb(n, n // 2)
    visited = [
        frozenset(players[:size].tolist())
        for players, first in chains
        for size in range(first, len(players) + 1)
    ]
    assert len(visited) == len(set(visited)) == 2**n


def test_scores_along_chains_are_those_of_the_coalitions():
    costs = [3.0, 1.0, 4.0, 1.5, 9.0, 2.0]
    game = games.airport(costs)
    numbers, scores = scores_along(game, symmetric_chains(6))
    table = np.full(64, np.nan)
    table[numbers] = scores
    assert_allclose(table, scores_of(game, slice(0, 64)), atol=1e-12)
    found = from_scores(table, size_weights("shapley", 6))
    assert_allclose(found, games.airport_values(costs), atol=1e-12)
