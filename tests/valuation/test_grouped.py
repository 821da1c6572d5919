"""Groups as players: the utility of the union, by enumeration and by sums of marginals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.naive_bayes import GaussianNB

import dcai_ray
from dcai_ray import Grouped, Knn, KnnAccuracy, LeastSquares, Refit, UserError
from dcai_ray.valuation.samplers import multilevel, permutation, randomness
from dcai_ray.valuation.semivalues import by_enumeration, size_weights
from tests.support import games

GROUPS = ["b", "a", "c", "b", "d", "a", "b", "c", "e", "e", "a", "d"]


def points(n=12, m=9):
    rng = np.random.default_rng(0)
    y, y_val = np.arange(n) % 3, np.arange(m) % 3
    x = rng.standard_normal((n, 4)) + y[:, np.newaxis]
    return x, y, rng.standard_normal((m, 4)) + y_val[:, np.newaxis], y_val


def utilities():
    return [
        Knn(*points(), k=3),
        KnnAccuracy(*points(), k=3),
        LeastSquares(*points()),
        Refit(GaussianNB(), *points()),
    ]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    "rounds", [permutation(5), multilevel(5, base=2, levels=2)], ids=["full", "cut"]
)
def test_marginals_are_differences_of_scores(number, rounds):
    game = Grouped(utilities()[number], GROUPS)
    orders = rounds.draw(randomness(0, 0, 0, 0))
    expected = np.empty(len(orders.players))
    for start, end in zip(orders.offsets, orders.offsets[1:], strict=False):
        scores = [game.score(orders.players[start:t]) for t in range(start, end + 1)]
        expected[start:end] = np.diff(scores)
    assert_allclose(game.marginals(orders), expected, atol=1e-12)


def test_players_are_the_sorted_groups_and_a_coalition_is_their_union():
    game = Grouped(games.additive(np.arange(12.0)), GROUPS)
    assert game.groups.tolist() == ["a", "b", "c", "d", "e"]
    members = [[1, 5, 10], [0, 3, 6], [2, 7], [4, 11], [8, 9]]
    for player, each in enumerate(members):
        assert game.score(np.array([player])) == sum(each)
    assert game.score(np.array([4, 1])) == 17 + 9
    found = by_enumeration(game, size_weights("shapley", 5))
    assert_allclose(found, [sum(each) for each in members], atol=1e-12)


def test_the_whole_is_the_mean_of_its_components():
    game = Grouped(KnnAccuracy(*points(), k=3, num_components=3), GROUPS)
    parts = game.components
    assert len(parts) == 3
    for coalition in (np.arange(0), np.array([2]), np.arange(5)):
        mean = np.mean([part.score(coalition) for part in parts])
        assert_allclose(game.score(coalition), mean, atol=1e-12)


def test_values_are_sampled_as_of_any_utility():
    game = Grouped(KnnAccuracy(*points(), k=3), GROUPS)
    exact = by_enumeration(game, size_weights("shapley", 5))
    found = dcai_ray.shapley_values(
        game, ids=game.groups.tolist(), stop=dcai_ray.MaxRounds(rounds=4000)
    )
    assert found.ids == tuple("abcde")
    assert ((found.low <= exact) & (exact <= found.high)).all()
    assert_allclose(found.value, exact, atol=5 * found.stderr.max())


def test_the_range_of_a_group_holds_its_marginals():
    game = Grouped(Knn(*points(), k=3), GROUPS)
    orders = permutation(5).draw(randomness(1, 0, 0, 0))
    assert np.abs(game.marginals(orders)).max() <= game.marginal_range
    assert_array_equal(Grouped(games.additive(np.ones(12)), GROUPS).marginal_range, np.inf)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (GROUPS[:-1], "groups must name one group per point, got 11 for 12"),
        ([0.5] * 12, "groups"),
        ([None, *GROUPS[1:]], "groups"),
    ],
)
def test_a_point_without_a_group_is_refused(groups, message):
    with pytest.raises(UserError, match=message):
        Grouped(games.additive(np.ones(12)), groups)
