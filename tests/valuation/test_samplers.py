"""Rounds have the value as their mean: by enumeration of all draws, known games and simulation."""

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dcai_ray.valuation.pilot import choose_multilevel, position_costs, run_pilot
from dcai_ray.valuation.samplers import multilevel, permutation, randomness
from dcai_ray.valuation.semivalues import by_enumeration, size_weights
from dcai_ray.valuation.utilities import Orders
from tests.support import games

LAYOUTS = [
    permutation(9),
    permutation(9, antithetic=True),
    multilevel(9, base=2, levels=0),
    multilevel(9, base=2, levels=3),
    multilevel(9, base=3, levels=2),
]


def estimate(rounds, game, weights, number, seed=0):
    """One round's estimate of every value."""
    orders = rounds.draw(randomness(seed, 0, 0, number))
    factor = rounds.weights * (rounds.num_players * weights)[rounds.positions]
    return np.bincount(orders.players, game.marginals(orders) * factor, rounds.num_players)


@pytest.mark.parametrize("rounds", LAYOUTS, ids=lambda r: r.name)
def test_a_round_is_made_of_whole_permutations_with_every_player_once(rounds):
    orders = rounds.draw(randomness(1, 2, 3, 4))
    n = rounds.num_players
    pieces = orders.players.reshape(-1, n)
    assert len(pieces) == rounds.num_permutations * (1 + rounds.antithetic)
    for piece in pieces:
        assert sorted(piece.tolist()) == list(range(n))
    lengths = np.diff(orders.offsets)
    assert lengths.sum() == len(orders.players) == len(rounds.positions)
    assert lengths.max() == n
    starts = np.repeat(orders.offsets[:-1], lengths)
    assert_array_equal(rounds.positions, np.arange(len(orders.players)) - starts)


@pytest.mark.parametrize("rounds", LAYOUTS, ids=lambda r: r.name)
def test_the_weights_of_each_position_sum_to_one_over_a_round(rounds):
    totals = np.bincount(rounds.positions, rounds.weights)
    assert_allclose(totals, np.ones(rounds.num_players), rtol=1e-15)


@pytest.mark.parametrize(("base", "levels"), [(2, 0), (2, 1), (2, 2), (3, 1), (4, 1)])
@pytest.mark.parametrize("name", ["shapley", "banzhaf", "beta", "leave-one-out"])
def test_the_mean_over_all_draws_is_the_value_by_enumeration(base, levels, name):
    n = 5
    rng = np.random.default_rng(3)
    table = {frozenset(): 0.2}
    game = games.Game(n, lambda s: table.setdefault(s, rng.random()))
    weights = size_weights(name, n)
    expected = by_enumeration(game, weights)
    rounds = multilevel(n, base=base, levels=levels)
    factor = rounds.weights * (n * weights)[rounds.positions]
    # The levels are drawn independently, so the mean over all draws of each is enough.
    mean = np.zeros(n)
    draws = [np.array(p, dtype=np.int32) for p in permutations(range(n))]
    for draw in draws:
        players = np.concatenate([draw] * rounds.num_permutations)
        marginals = game.marginals(Orders(players, rounds.offsets, rounds.weights))
        mean += np.bincount(players, marginals * factor, n) / len(draws)
    assert_allclose(mean, expected, atol=1e-12)  # sums of 120 draws


@pytest.mark.parametrize("rounds", LAYOUTS, ids=lambda r: r.name)
@pytest.mark.parametrize(
    ("game", "values"),
    [
        (games.unanimity(9, {1, 4, 5}), np.isin(np.arange(9), [1, 4, 5]) / 3),
        (games.majority(9), np.full(9, 1 / 9)),
        (games.airport([1, 2, 2, 3, 5, 8, 8, 9, 13]),
         games.airport_values([1, 2, 2, 3, 5, 8, 8, 9, 13])),
    ],
    ids=["unanimity", "majority", "airport"],
)  # fmt: skip
def test_games_with_known_values_are_met_within_four_standard_errors(rounds, game, values):
    weights = size_weights("shapley", 9)
    seen = np.array([estimate(rounds, game, weights, number) for number in range(600)])
    stderr = seen.std(axis=0, ddof=1) / np.sqrt(len(seen))
    assert (abs(seen.mean(axis=0) - values) <= 4 * stderr + 1e-12).all()


@pytest.mark.parametrize("rounds", LAYOUTS, ids=lambda r: r.name)
def test_an_additive_game_is_exact_in_the_mean_of_every_players_levels(rounds):
    worth = np.arange(9.0) - 3
    n = 9
    seen = np.array(
        [estimate(rounds, games.additive(worth), np.full(n, 1 / n), k) for k in range(400)]
    )
    # A player's weights over a round have the mean 1; only where its positions fall is random.
    stderr = seen.std(axis=0, ddof=1) / np.sqrt(len(seen))
    assert (abs(seen.mean(axis=0) - worth) <= 4 * stderr + 1e-12).all()


def test_an_antithetic_round_is_an_order_and_its_reverse():
    orders = permutation(6, antithetic=True).draw(randomness(0, 0, 0, 0))
    assert_array_equal(orders.players[6:], orders.players[:6][::-1])
    assert set(orders.weights.tolist()) == {0.5}


def test_a_draw_is_a_function_of_seed_chain_part_and_number_alone():
    rounds = multilevel(50, base=2, levels=2)
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    drawn = [rounds.draw(randomness(*key)).players.tolist() for key in keys]
    assert drawn[0] == rounds.draw(randomness(*keys[0])).players.tolist()
    assert len({tuple(players) for players in drawn}) == len(keys)


class Noisy:
    """Marginals that are pure noise, large at the start of an order: s(t) = 1 / (t + 1)."""

    num_players = 256

    def __init__(self, costs=None, falling=True):
        self.position_costs = costs
        self._falling = falling

    @property
    def components(self):
        return (self,)

    def score(self, coalition):
        raise AssertionError("the pilot sweeps")

    def marginals(self, orders):
        lengths = np.diff(orders.offsets)
        place = np.arange(len(orders.players)) - np.repeat(orders.offsets[:-1], lengths)
        signs = np.random.default_rng(orders.players).choice([-1.0, 1.0], len(place))
        return signs / (place + 1) if self._falling else signs


def chosen(utility, half_width=1e-4, seed=0):
    return choose_multilevel(run_pilot(utility, seed), half_width)


def test_the_pilot_predicts_the_variance_of_a_round():
    pilot = run_pilot(Noisy(), seed=0)
    for base, levels in ((2, 0), (2, 3), (4, 2)):
        rounds = multilevel(256, base=base, levels=levels)
        seen = np.array([estimate(rounds, Noisy(), np.full(256, 1 / 256), k) for k in range(300)])
        assert_allclose(pilot.variance(rounds), seen.var(axis=0).mean(), rtol=0.3)


def test_levels_pay_where_marginals_fall_along_an_order():
    choice = chosen(Noisy())
    assert choice.levels >= 2
    assert choice.gain > 2


def test_where_marginals_do_not_fall_levels_do_not_pay():
    assert chosen(Noisy(falling=False)).levels <= 1


def test_what_short_orders_cost_counts():
    dear_start = np.where(np.arange(256) < 32, 1000.0, 1.0)
    free, dear = chosen(Noisy()), chosen(Noisy(dear_start))
    assert dear.base**dear.levels < free.base**free.levels


def test_the_choice_is_a_function_of_the_seed_alone():
    once = run_pilot(Noisy(), seed=5)
    other = run_pilot(Noisy(), seed=6)  # moves on whatever generator the pilots might share
    again = run_pilot(Noisy(), seed=5)
    assert_array_equal(once.signal, again.signal)
    assert choose_multilevel(once, 1e-4) == choose_multilevel(again, 1e-4)
    assert not np.array_equal(once.signal, other.signal)


def test_a_spread_is_believed_once_players_have_been_where_values_are_made():
    pilot = run_pilot(Noisy(), seed=0)  # .61 of the variance comes from position 0
    # One position of 256 a round: fifty visits take 50 x 256 rounds.
    assert pilot.min_rounds(permutation(256)) == 50 * 256
    assert pilot.min_rounds(multilevel(256, base=2, levels=6)) == -(-50 * 256 // 127)
    flat = run_pilot(Noisy(falling=False), seed=0)
    assert flat.min_rounds(permutation(256)) < 300


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_players_get_full_orders(n):
    choice = chosen(games.majority(n))
    assert (choice.base, choice.levels) == (2, 0)


def test_a_game_without_noise_gets_full_orders():
    assert chosen(games.Game(20, lambda s: 0.0)).levels == 0


def test_costs_are_one_where_a_utility_names_none():
    assert_array_equal(position_costs(games.majority(4)), np.ones(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_players": 8, "base": 1, "levels": 1}, "base must be at least 2"),
        ({"num_players": 8, "base": 2, "levels": -1}, "levels at least 0"),
        ({"num_players": 8, "base": 2, "levels": 4}, "must not exceed the 8 players"),
        ({"num_players": 0, "base": 2, "levels": 0}, "num_players must be at least 1"),
    ],
)
def test_rounds_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        multilevel(**arguments)
