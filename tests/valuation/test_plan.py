"""Sampled values against the closed form and known games, and their intervals against the truth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.blocks import run_block
from dcai_ray.valuation.knn_shapley import game_values, knn_game, knn_shapley
from dcai_ray.valuation.plan import new_plan
from dcai_ray.valuation.sampling import block_ids, new_aggregator, sample
from dcai_ray.valuation.semivalues import by_enumeration, size_weights
from dcai_ray.valuation.stopping import MaxRounds, Settled
from dcai_ray.valuation.utilities.knn import Knn
from tests.support import games

SAMPLERS = ["multilevel", "permutation", "antithetic"]


def noisy_clusters(n=300, m=60, seed=0):
    """Three clusters in four dimensions, a fifth of the training labels random."""
    rng = np.random.default_rng(seed)
    centres = 1.2 * rng.standard_normal((3, 4))
    y, y_val = rng.integers(0, 3, n), rng.integers(0, 3, m)
    x = centres[y] + rng.standard_normal((n, 4))
    x_val = centres[y_val] + rng.standard_normal((m, 4))
    return x, np.where(rng.random(n) < 0.2, rng.integers(0, 3, n), y), x_val, y_val


def run(utility, *, stop, seed=0, num_chains=4, interval="asymptotic", **settings):
    plan = new_plan(utility, seed=seed, **settings)
    aggregator = new_aggregator(plan, num_chains=num_chains, stop=stop, interval=interval)
    for _ in sample(plan, utility, aggregator):
        pass
    return aggregator


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["shapley", "banzhaf", "beta", "leave-one-out"])
def test_every_semivalue_of_a_small_game_is_met_within_four_standard_errors(sampler, name):
    rng = np.random.default_rng(1)
    table: dict[frozenset[int], float] = {}
    game = games.Game(7, lambda s: table.setdefault(s, rng.random()))
    expected = by_enumeration(game, size_weights(name, 7))
    found = run(game, stop=MaxRounds(rounds=1500), sampler=sampler, semivalues=(name,))
    assert (abs(found.value[0] - expected) <= 4 * found.stderr[0] + 1e-12).all()
    assert found.stderr[0].max() > 0 or name == "leave-one-out"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_several_semivalues_come_from_the_same_sweeps(sampler):
    names = ("shapley", "banzhaf", "beta")
    game = games.airport([1, 4, 4, 2, 6, 3])
    found = run(game, stop=MaxRounds(rounds=1500), sampler=sampler, semivalues=names)
    once = run(game, stop=MaxRounds(rounds=1500), sampler=sampler, semivalues=("shapley",))
    assert found.insertions == once.insertions
    assert_array_equal(found.value[0], once.value[0])
    for row, name in enumerate(names):
        expected = by_enumeration(game, size_weights(name, 6))
        assert (abs(found.value[row] - expected) <= 4 * found.stderr[row] + 1e-12).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_smallest_games_are_valued(n):
    found = run(games.additive(np.arange(1.0, n + 1)), stop=MaxRounds(rounds=200))
    assert_allclose(found.value[0].sum(), n * (n + 1) / 2, rtol=0.1)  # 200 rounds of n positions


def test_sampled_banzhaf_of_neighbours_agrees_with_the_closed_form():
    data = noisy_clusters(n=60, m=20)
    game = knn_game(*data, k=5, metric="euclidean", semivalue="banzhaf")
    exact = game_values(game).value[0]
    found = run(
        Knn(*data, k=5, metric="euclidean"), stop=MaxRounds(rounds=4000), semivalues=("banzhaf",)
    )
    errors = (found.value[0] - exact) / np.where(found.stderr[0] > 0, found.stderr[0], 1)
    assert abs(errors).max() < 4.5  # of sixty
    assert 0.7 < errors.std() < 1.3


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["multilevel", "permutation"])
def test_errors_have_the_stated_spread_and_intervals_hold_whenever_one_looks(sampler):
    data = noisy_clusters()
    exact = knn_shapley(*data, k=10, metric="euclidean")
    utility = Knn(*data, k=10, metric="euclidean")
    missed, wrong, errors = [], [], []
    for seed in range(10):  # 200 in benchmarks/interval_coverage.py
        plan = new_plan(utility, sampler=sampler, seed=seed, rounds_per_block=4)
        aggregator = Aggregator(300, 8, min_rounds=plan.min_rounds, stop=Settled())
        ever, signs = np.zeros(300, dtype=bool), np.zeros(300, dtype=bool)
        for _ in sample(plan, utility, aggregator):
            low, high = aggregator.interval()
            ever |= (low > exact) | (high < exact)
            signs |= ((low > 0) & (exact <= 0)) | ((high < 0) & (exact >= 0))
        missed.append(ever.mean())
        wrong.append(signs.mean())
        errors.append((aggregator.value[0] - exact) / aggregator.stderr[0])
    # The points of a seed share its draws, so seeds are counted, which are independent: if half of
    # all seeds missed more points than they may, at most one of these ten would do so with a
    # probability of 11 / 2^10 = 0.011.
    assert sum(share > 0.05 for share in missed) <= 1  # alpha
    assert sum(share > 0.01 for share in wrong) <= 1
    # 3,000 errors: their spread is known within 0.013 or, as they are dependent, a little more, and
    # stopping, which looks at the spread, takes it for a little too small.
    assert 0.95 < np.std(errors) < 1.1
    assert abs(np.mean(errors)) < 0.05


def test_bernstein_intervals_hold_from_the_first_block():
    data = noisy_clusters(n=80, m=20)
    exact = knn_shapley(*data, k=5, metric="euclidean")
    found = run(
        Knn(*data, k=5, metric="euclidean"), stop=MaxRounds(rounds=64), interval="bernstein",
        rounds_per_block=1,
    )  # fmt: skip
    low, high = found.interval()
    assert ((low <= exact) & (exact <= high)).all()
    assert np.isfinite(low).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_round_leaves_the_range_it_is_said_to_have(sampler):
    utility = Knn(*noisy_clusters(n=40, m=8), k=3)
    plan = new_plan(utility, sampler=sampler, semivalues=("shapley", "beta"), rounds_per_block=1)
    for index in range(40):
        mean = run_block(plan, utility, 0, index).moments.mean
        for row, width in enumerate(plan.observation_ranges):
            assert abs(mean[row]).max() <= width / 2


def test_a_utility_without_a_range_has_none():
    plan = new_plan(games.majority(5))
    assert plan.observation_ranges == (np.inf,)


def test_blocks_are_a_function_of_plan_and_number_alone():
    utility = Knn(*noisy_clusters(n=50, m=10), k=3)
    plan = new_plan(utility, seed=7)
    again, same = new_plan(utility, seed=7), Knn(*noisy_clusters(n=50, m=10), k=3)
    for chain, index in ((3, 2), (0, 0), (3, 2)):
        one, two = run_block(plan, utility, chain, index), run_block(again, same, chain, index)
        assert one.moments.mean.tobytes() == two.moments.mean.tobytes()
        assert one.moments.m2.tobytes() == two.moments.m2.tobytes()
    other = new_plan(utility, seed=8)
    assert run_block(other, utility, 0, 0).moments.mean.tobytes() != one.moments.mean.tobytes()


def test_ids_come_set_by_set_and_pause_when_too_far_ahead():
    aggregator = Aggregator(3, 2, stop=MaxRounds(rounds=10_000))
    ids = block_ids(aggregator, lambda: 2)
    assert [next(ids) for _ in range(6)] == [(0, 0), (1, 0), (0, 1), (1, 1), None, None]
    game = games.majority(3)
    plan = new_plan(game)
    for chain in range(2):
        aggregator.add(run_block(plan, game, chain, 0))
    assert [next(ids) for _ in range(3)] == [(0, 2), (1, 2), None]


class Truncating(games.Game):
    """Gives up after two players of an order."""

    def marginals(self, orders):
        marginals = super().marginals(orders)
        lengths = np.diff(orders.offsets)
        place = np.arange(len(marginals)) - np.repeat(orders.offsets[:-1], lengths)
        return np.where(place < 2, marginals, np.nan)


def test_truncated_marginals_count_as_zero_and_are_counted_apart():
    worth = np.array([1.0, 2.0, 3.0, 4.0])
    game = Truncating(4, lambda s: float(sum(worth[i] for i in s)))
    plan = new_plan(game, sampler="permutation", rounds_per_block=50)
    block = run_block(plan, game, 0, 0)
    assert block.evaluated.sum() == 100
    assert block.imputed == 100
    assert block.insertions == 200
    found = block.moments.mean[0]
    assert_allclose(found, worth * block.evaluated / 50, rtol=1e-12)  # halved in the mean: biased


def test_an_error_of_the_utility_comes_out_as_it_is():
    def fail(_):
        raise ZeroDivisionError("no model")

    with pytest.raises(ZeroDivisionError, match="no model"):
        new_plan(games.Game(5, fail))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "sobol"}, "got 'sobol'"),
        ({"semivalues": ()}, "at least one"),
        ({"rounds_per_block": 0}, "rounds_per_block must be at least 1"),
        ({"base": 1, "levels": 1}, "base must be at least 2"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        new_plan(games.majority(5), **settings)
