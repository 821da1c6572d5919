"""The aggregator: the same bits whatever the way of the blocks; decisions, rules and trace."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr

from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.blocks import Block
from dcai_ray.valuation.intervals import bernstein_half_width
from dcai_ray.valuation.moments import Moments, moments_of
from dcai_ray.valuation.stopping import (
    AllOf,
    AnyOf,
    MaxRounds,
    Progress,
    RankStability,
    Settled,
    StandardError,
    estimate_rounds,
    indifference_of,
)

PLAYERS, CHAINS, SEMIVALUES, SETS, ROUNDS = 5, 3, 2, 6, 4
NEVER = MaxRounds(rounds=10**9)
TRUTH = np.linspace(-0.5, 0.5, PLAYERS)


def observations(chain, index):
    """(ROUNDS, S, n) of a block, a function of its id."""
    rng = np.random.default_rng([chain, index])
    return TRUTH + rng.gamma(0.5, size=(ROUNDS, SEMIVALUES, PLAYERS)) - 0.5


def block(chain, index):
    return Block(
        chain=chain,
        index=index,
        moments=moments_of(observations(chain, index)),
        evaluated=np.full(PLAYERS, 10 * chain + index),
        imputed=chain,
        orders=ROUNDS,
        insertions=7 * index,
        seconds=0.1 * (chain + 1) * (index + 1),
    )


BLOCKS = [block(chain, index) for index in range(SETS) for chain in range(CHAINS)]


def aggregator(**keywords):
    return Aggregator(PLAYERS, CHAINS, SEMIVALUES, **({"stop": NEVER} | keywords))


def fed(blocks, **keywords):
    new = aggregator(**keywords)
    for each in blocks:
        new.add(each)
    return new


def of_moments(*per_chain, **keywords):
    """An aggregator after one set whose chains have the given moments of n points."""
    players = len(per_chain[0].mean)
    new = Aggregator(players, len(per_chain), **({"stop": NEVER} | keywords))
    for chain, each in enumerate(per_chain):
        moments = Moments(each.count, each.mean[np.newaxis], each.m2[np.newaxis])
        new.add(Block(chain, 0, moments, np.zeros(players, dtype=np.int64), 0, 0, 0, 0.0))
    return new


def bits(each):
    """All that can be asked of an aggregator, to compare bit by bit."""
    arrays = [each.total.mean, each.total.m2, each.stderr, each.half_width, each.r_hat]
    arrays += [each.evaluated, *each.interval(0), *each.interval(1), each.decisions()]
    state = {
        name: value.tobytes() if isinstance(value, np.ndarray) else str(value)
        for name, value in each.state().items()
    }
    rows = [str(row) for row in each.trace]
    return [a.tobytes() for a in arrays], state, rows, each.done, each.next_index, each.rounds


def progress(**known):
    defaults = {
        "rounds": 1000,
        "waves": 10,
        "settled": 0.5,
        "max_stderr": 1.0,
        "rank_correlation": 0.5,
        "r_hat": 1.1,
        "num_players": PLAYERS,
    }
    return Progress(**(defaults | known))


def test_estimates_are_numpys_over_all_rounds():
    everything = np.concatenate([observations(b.chain, b.index) for b in BLOCKS])
    got = fed(BLOCKS)
    assert got.rounds == len(everything)
    # Sums of 72 numbers around 1.
    assert_allclose(got.value, everything.mean(axis=0), atol=1e-14)
    assert_allclose(got.total.variance, everything.var(axis=0, ddof=1), rtol=1e-12)


def test_counts_are_summed_over_blocks():
    got = fed(BLOCKS)
    assert_array_equal(got.evaluated, sum(b.evaluated for b in BLOCKS))
    for name in ("imputed", "orders", "insertions"):
        assert getattr(got, name) == sum(getattr(b, name) for b in BLOCKS)
    assert_allclose(got.seconds, sum(b.seconds for b in BLOCKS))


@settings(deadline=None, max_examples=60)
@given(st.permutations(BLOCKS), st.lists(st.sampled_from(BLOCKS), max_size=20), st.randoms())
@pytest.mark.parametrize("interval", ["asymptotic", "bernstein"])
@pytest.mark.parametrize("stop", [NEVER, MaxRounds(rounds=3 * CHAINS * ROUNDS)])
def test_order_lateness_and_repeats_of_blocks_change_no_bit(interval, stop, order, repeats, random):
    keywords = {"interval": interval, "observation_range": 10.0, "stop": stop}
    arrivals = list(order)
    for repeated in repeats:
        arrivals.insert(random.randrange(len(arrivals) + 1), repeated)
    got = fed(arrivals, **keywords)
    assert bits(got) == bits(fed(BLOCKS, **keywords))
    assert got.buffered == 0


def test_of_two_copies_of_a_waiting_block_the_first_counts():
    got = fed([BLOCKS[0], replace(BLOCKS[0], seconds=99.0), *BLOCKS[1:CHAINS]])
    assert bits(got) == bits(fed(BLOCKS[:CHAINS]))


def test_a_check_is_made_for_each_set_that_a_late_block_completes():
    got = aggregator()
    late, *others = BLOCKS
    assert [got.add(b) for b in others] == [[]] * len(others)
    assert (got.next_index, got.rounds, got.buffered) == (0, 0, len(others))
    checks = got.add(late)
    assert [check.waves for check in checks] == list(range(1, SETS + 1))
    assert (got.next_index, got.buffered) == (SETS, 0)


def test_a_check_says_what_it_knows():
    got = aggregator()
    (check,) = [check for b in BLOCKS[:CHAINS] for check in got.add(b)]
    rounds = np.array([observations(chain, 0) for chain in range(CHAINS)])[:, :, 0]  # (C, L, n)
    flat = rounds.reshape(-1, PLAYERS)
    stderr = flat.std(axis=0, ddof=1) / math.sqrt(len(flat))
    assert (check.rounds, check.waves, check.num_players) == (CHAINS * ROUNDS, 1, PLAYERS)
    assert_allclose(check.max_stderr, stderr.max(), rtol=1e-12)
    even, odd = rounds[[0, 2]].mean(axis=(0, 1)), rounds[1].mean(axis=0)
    assert_allclose(check.rank_correlation, spearmanr(even, odd).statistic, rtol=1e-12)
    # t r + 1 for r = 1 / 50, as in the formula of the interval.
    t, grown = len(flat), len(flat) / 50 + 1
    half = stderr * math.sqrt(2 * grown / (t / 50) * math.log(math.sqrt(grown) / 0.05))
    settled = (np.abs(flat.mean(axis=0)) > half) | (half < 0.1 / PLAYERS)
    assert check.settled == settled.mean()
    length = ROUNDS
    within = rounds.var(axis=1, ddof=1).mean(axis=0)
    between = rounds.mean(axis=1).var(axis=0, ddof=1)
    r_hat = np.sqrt(((length - 1) / length * within + between) / within)
    assert_allclose(check.r_hat, r_hat.max(), rtol=1e-12)


def test_the_rule_is_judged_on_complete_waves_and_what_is_later_is_dropped():
    # 17 of the 18 blocks of rounds are there, yet only the sets before the gap count.
    stop = MaxRounds(rounds=2 * CHAINS * ROUNDS)
    got = aggregator(stop=stop)
    first, *others = BLOCKS
    for each in others:
        got.add(each)
    assert not got.done
    checks = got.add(first)
    assert [check.waves for check in checks] == [1, 2]
    assert (got.done, got.next_index, got.buffered) == (True, 2, 0)
    before = bits(got)
    assert [got.add(b) for b in BLOCKS] == [[]] * len(BLOCKS)
    assert bits(got) == before == bits(fed(BLOCKS[: 2 * CHAINS], stop=stop))


@pytest.mark.parametrize("interval", ["asymptotic", "bernstein"])
@pytest.mark.parametrize("cut", range(len(BLOCKS) + 1))
def test_an_interrupted_aggregator_goes_on_to_the_same_bits(cut, interval):
    keywords = {"interval": interval, "observation_range": 10.0, "stop": NEVER}
    state = fed(BLOCKS[:cut], **keywords).state()
    state["trace"] = json.loads(json.dumps(state["trace"]))  # rows are plain numbers
    got = Aggregator.restore(state, **keywords)
    assert (got.next_index, got.buffered) == (cut // CHAINS, 0)
    for each in BLOCKS:
        got.add(each)
    assert bits(got) == bits(fed(BLOCKS, **keywords))


def test_a_state_is_not_changed_by_going_on():
    earlier = fed(BLOCKS[:CHAINS])
    state = earlier.state()
    before = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}
    Aggregator.restore(state, stop=NEVER).add(BLOCKS[CHAINS])
    for each in BLOCKS:
        earlier.add(each)
    for name, value in before.items():
        assert_array_equal(state[name], value)


def test_a_tighter_rule_goes_on_where_a_looser_one_stopped():
    loose, tight = MaxRounds(rounds=CHAINS * ROUNDS), MaxRounds(rounds=4 * CHAINS * ROUNDS)
    stopped = fed(BLOCKS, stop=loose)
    assert (stopped.done, stopped.next_index) == (True, 1)
    assert Aggregator.restore(stopped.state(), stop=loose).done
    got = Aggregator.restore(stopped.state(), stop=tight)
    assert not got.done
    for each in BLOCKS:
        got.add(each)
    assert (got.done, got.next_index) == (True, 4)
    assert bits(got) == bits(fed(BLOCKS, stop=tight))


def test_the_trace_has_a_row_for_every_twentieth_more_rounds_and_the_last():
    one = Aggregator(1, 1, stop=NEVER)
    moments = Moments(1, np.zeros((1, 1)), np.zeros((1, 1)))
    for index in range(49):
        one.add(Block(0, index, moments, np.zeros(1, dtype=np.int64), 0, 0, 0, 0.0))
    # One more than at most 20 is a twentieth; 1.05 * 21 = 22.05, ..., 1.05 * 41 = 43.05, 46.2.
    expected = [*range(1, 22), *range(23, 42, 2), 44, 47]
    assert [row.rounds for row in one.trace] == [*expected, 49]


def test_bernstein_takes_the_mean_of_a_block_as_one_observation():
    # A range so small that the variation counts; whether it is true does not matter to the formula.
    got = fed(BLOCKS, interval="bernstein", observation_range=0.5, alpha=0.1)
    means = [observations(b.chain, b.index).mean(axis=0)[0] for b in BLOCKS]
    guesses = [np.zeros(PLAYERS)] + [np.mean(means[:i], axis=0) for i in range(1, len(means))]
    variation = sum((x - guess) ** 2 for x, guess in zip(means, guesses, strict=True))
    half = bernstein_half_width(len(means), variation, 0.5, 0.1)
    low, high = got.interval()
    assert_allclose((high - low) / 2, half, rtol=1e-12)
    assert_allclose((low + high) / 2, np.mean(means, axis=0), atol=1e-14)


def test_a_range_for_each_semivalue_scales_its_interval():
    both = fed(BLOCKS, interval="bernstein", observation_range=[10.0, 20.0])
    for semivalue, width in enumerate([10.0, 20.0]):
        one = fed(BLOCKS, interval="bernstein", observation_range=width)
        assert_array_equal(both.half_width[semivalue], one.half_width[semivalue])


def test_intervals_of_all_points_at_once_are_those_of_alpha_over_n():
    assert_array_equal(
        fed(BLOCKS, simultaneous=True, alpha=0.05).half_width,
        fed(BLOCKS, alpha=0.05 / PLAYERS).half_width,
    )


def test_decisions_by_hand():
    # t = 100, r t + 1 = 3: half widths are .326 of the deviations .1, .1, .1, 1, .1, .1.
    means = np.array([0.05, -0.05, 0.02, 0.02, -0.02, 0.0])
    deviations = np.array([0.1, 0.1, 0.1, 1.0, 0.1, 0.1])
    got = of_moments(Moments(100, means, 99 * deviations**2), indifference=0.04)
    assert_allclose(got.half_width[0] / deviations, 0.326, atol=1e-3)
    expected = ["keep", "drop", "keep", "undecided", "drop", "drop"]  # 0 itself is dropped
    assert_array_equal(got.decisions(), expected)
    for threshold, decision in ((-0.5, "keep"), (0.5, "drop")):
        other = of_moments(
            Moments(100, means, 99 * deviations**2), indifference=0.0, threshold=threshold
        )
        assert_array_equal(other.decisions(), [decision] * 6)
        assert other.trace[-1].settled == 1
    # At .03 the first point lies above, but not by its half width of .0326.
    near = Moments(100, means, 99 * deviations**2)
    assert of_moments(near, indifference=0.04, threshold=0.03).decisions()[0] == "keep"
    assert of_moments(near, indifference=0.01, threshold=0.03).decisions()[0] == "undecided"
    sharp = of_moments(Moments(100, means, 99 * deviations**2), indifference=0.01)
    assert_array_equal(sharp.decisions(), ["keep", "drop"] + ["undecided"] * 4)
    assert sharp.trace[-1].settled == 2 / 6
    assert got.trace[-1].settled == 5 / 6


def test_nothing_is_decided_before_there_are_rounds():
    got = aggregator()
    assert_array_equal(got.decisions(), ["undecided"] * PLAYERS)
    assert got.trace == []
    assert got.rounds_left is None


def test_the_default_indifference_is_a_tenth_of_the_mean_value():
    assert aggregator().indifference == 0.1 / PLAYERS
    assert aggregator(stop=Settled(indifference=0.3)).indifference == 0.3
    nested = AnyOf(rules=(MaxRounds(rounds=5), AllOf(rules=(Settled(indifference=0.3), NEVER))))
    assert aggregator(stop=nested).indifference == 0.3
    assert aggregator(indifference=0.2).indifference == 0.2


def test_contradicting_indifferences_are_refused():
    with pytest.raises(ValueError, match=r"stopping rule, 0\.3, got 0\.2"):
        aggregator(indifference=0.2, stop=Settled(indifference=0.3))
    with pytest.raises(ValueError, match=r"same in all rules, got \[0\.1, 0\.2\]"):
        indifference_of(AnyOf(rules=(Settled(indifference=0.1), Settled(indifference=0.2))))


def test_coverage_of_the_aggregators_intervals_at_every_set():
    """600 points with chains of skewed rounds; looked at after each set from 32 rounds on."""
    n, chains, sets, per_block, alpha = 600, 4, 40, 4, 0.1
    truth = np.random.default_rng(0).uniform(-0.2, 0.2, n)
    shared = {"alpha": alpha, "stop": NEVER, "observation_range": 3.4}
    both = {
        method: Aggregator(n, chains, interval=method, **shared)
        for method in ("asymptotic", "bernstein")
    }
    missed = {method: np.zeros(n, dtype=bool) for method in both}
    rng = np.random.default_rng(1)
    for index in range(sets):
        for chain in range(chains):
            x = truth + 3 * (rng.beta(0.5, 2.0, (per_block, 1, n)) - 0.2)  # width 3, holds zero
            new = Block(
                chain, index, moments_of(x), np.full(n, per_block), 0, per_block, per_block * n, 0.0
            )
            for each in both.values():
                each.add(new)
        for method, each in both.items():
            low, high = each.interval()
            if each.rounds >= 32 or method == "bernstein":
                missed[method] |= (low > truth) | (high < truth)
    allowed = alpha + 3 * math.sqrt(alpha * (1 - alpha) / n)
    assert missed["asymptotic"].mean() <= allowed
    assert missed["bernstein"].mean() <= allowed


def test_settled_needs_its_share_and_its_rounds():
    rule = Settled(share=0.9)
    assert rule.met(progress(settled=0.9))
    assert not rule.met(progress(settled=0.89))
    assert not rule.met(progress(settled=1.0, rounds=31))
    assert Settled(min_rounds=8).met(progress(settled=1.0, rounds=8))


def test_standard_error_needs_the_largest_within_tolerance():
    rule = StandardError(tolerance=0.2)
    assert rule.met(progress(max_stderr=0.2))
    assert not rule.met(progress(max_stderr=0.21))
    assert not rule.met(progress(max_stderr=math.inf))
    assert not rule.met(progress(max_stderr=0.0, rounds=31))


def test_rank_stability_needs_a_known_correlation():
    rule = RankStability(correlation=0.9)
    assert rule.met(progress(rank_correlation=0.9))
    assert not rule.met(progress(rank_correlation=0.89))
    assert not rule.met(progress(rank_correlation=math.nan))
    assert not rule.met(progress(rank_correlation=1.0, rounds=31))


def test_rules_combine():
    yes, no = MaxRounds(rounds=1000), MaxRounds(rounds=1001)
    assert yes.met(progress())
    assert not no.met(progress())
    assert AnyOf(rules=(no, yes)).met(progress())
    assert not AnyOf(rules=(no, no)).met(progress())
    assert AllOf(rules=(yes, yes)).met(progress())
    assert not AllOf(rules=(yes, no)).met(progress())


def test_rules_describe_themselves_with_their_numbers():
    either = AnyOf(rules=(Settled(share=0.9, indifference=2e-4), MaxRounds(rounds=2000)))
    both = AllOf(rules=(either, StandardError(tolerance=1e-3), RankStability(correlation=0.97)))
    assert both.describe() == (
        "(90 % of the points settled (indifference 0.0002) or 2000 rounds)"
        " and every standard error at most 0.001"
        " and rank correlation of two halves of the chains at least 0.97"
    )


def test_rounds_left_by_hand():
    now = progress(rounds=1000, max_stderr=0.2, rank_correlation=0.8)
    assert estimate_rounds(now, MaxRounds(rounds=1500)) == 500
    assert estimate_rounds(now, MaxRounds(rounds=900)) == 0
    assert estimate_rounds(now, StandardError(tolerance=0.1)) == pytest.approx(3000)
    assert estimate_rounds(replace(now, max_stderr=math.inf), StandardError(tolerance=1)) is None
    # Spearman-Brown: .8 / .2 = 4 has to become .9 / .1 = 9.
    assert estimate_rounds(now, RankStability(correlation=0.9)) == pytest.approx(1250)
    assert estimate_rounds(replace(now, rank_correlation=math.nan), RankStability()) is None
    # Four of five have to be settled: the fourth smallest shortfall is 3, so 9 times the rounds.
    shortfall = np.array([5.0, 0.2, 3.0, 0.5, 2.0])
    assert estimate_rounds(now, Settled(share=0.8), shortfall) == pytest.approx(8000)
    assert estimate_rounds(now, Settled(share=0.8)) is None
    few = replace(now, rounds=10, settled=1.0)
    assert estimate_rounds(few, Settled(), np.zeros(5)) == 22


def test_rounds_left_of_combined_rules():
    soon, late, unknown = MaxRounds(rounds=1500), MaxRounds(rounds=9000), RankStability()
    now = progress(rounds=1000, rank_correlation=math.nan)
    assert estimate_rounds(now, AnyOf(rules=(late, soon, unknown))) == 500
    assert estimate_rounds(now, AllOf(rules=(late, soon))) == 8000
    assert estimate_rounds(now, AllOf(rules=(late, unknown))) is None
    assert estimate_rounds(now, AnyOf(rules=(unknown, unknown))) is None


def test_the_aggregator_estimates_from_its_own_intervals():
    # Half widths .326: twice and four times too wide to settle; both are needed.
    means = np.array([0.163, 0.0815])
    got = of_moments(
        Moments(100, means, np.full(2, 99.0)), stop=Settled(share=1.0, indifference=0.01)
    )
    assert got.rounds_left == pytest.approx(100 * (4**2 - 1), rel=0.01)  # .326 has three digits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chain": CHAINS}, r"chain must be in \[0, 3\)"),
        ({"index": -1}, "index at least 0"),
        ({"evaluated": np.zeros(4, dtype=np.int64)}, r"shapes must be \(2, 5\)"),
        ({"moments": Moments.empty((1, PLAYERS))}, r"shapes must be \(2, 5\)"),
        ({"moments": Moments.empty((SEMIVALUES, PLAYERS))}, "count must be at least 1, got 0"),
        (
            {"moments": Moments(1, np.full((2, 5), np.nan), np.zeros((2, 5)))},
            "finite, got 10 NaN",
        ),
    ],
)
def test_blocks_that_do_not_fit_are_refused_by_name(change, message):
    got = aggregator()
    with pytest.raises(ValueError, match=rf"block -?\d of chain \d: .*{message}"):
        got.add(replace(BLOCKS[0], **change))
    assert got.buffered == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Aggregator(0, 1), "num_players must be at least 1, got 0"),
        (lambda: Aggregator(1, 0), "num_chains must be at least 1, got 0"),
        (lambda: Aggregator(1, 1, 0), "num_semivalues must be at least 1, got 0"),
        (lambda: aggregator(alpha=1.0), r"alpha must be in \(0, 1\), got 1.0"),
        (lambda: aggregator(interval="t"), "asymptotic or bernstein, got 't'"),
        (lambda: aggregator(interval="bernstein"), "observation_range must be finite"),
        (lambda: aggregator(observation_range=0.0), "one number above 0, or 2, got 0.0"),
        (lambda: aggregator(observation_range=[1.0, 1.0, 1.0]), "one number above 0, or 2"),
        (lambda: aggregator(indifference=-1.0), "indifference must be at least 0, got -1.0"),
        (lambda: Settled(share=0.0), r"share must be in \(0, 1\], got 0.0"),
        (lambda: Settled(indifference=-1.0), "indifference must be at least 0, got -1.0"),
        (lambda: StandardError(tolerance=0.0), "tolerance must be above 0, got 0.0"),
        (lambda: RankStability(correlation=1.0), r"correlation must be in \(0, 1\), got 1.0"),
        (lambda: MaxRounds(rounds=0), "rounds must be at least 1, got 0"),
        (lambda: AnyOf(rules=()), "rules must hold at least one rule, got none"),
        (lambda: AllOf(rules=()), "rules must hold at least one rule, got none"),
    ],
)
def test_settings_out_of_range_are_refused_with_their_value(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_progress_is_a_row_of_plain_numbers():
    (row,) = fed(BLOCKS[:CHAINS]).trace
    assert all(type(value) in (int, float) for value in asdict(row).values())
