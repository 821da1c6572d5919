"""Values by sampling: what is to be swept, in which order, until when.

A `Plan` says what the blocks are; the aggregator says when there are enough. Whoever computes them,
here or on many machines, hands them to the aggregator and gets the same values.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from dcai_ray.valuation import samplers
from dcai_ray.valuation.aggregator import DEFAULT_INDIFFERENCE, Aggregator
from dcai_ray.valuation.semivalues import size_weights
from dcai_ray.valuation.stopping import Progress
from dcai_ray.valuation.sweeps import Plan, block_rounds, run_block
from dcai_ray.valuation.utilities import Utility

Sampler = Literal["multilevel", "permutation", "antithetic"]
BlockId = tuple[int, int]  # chain, index


def new_plan(
    utility: Utility,
    *,
    sampler: Sampler = "multilevel",
    base: int | None = None,
    levels: int | None = None,
    semivalues: Sequence[str] = ("shapley",),
    beta: tuple[float, float] = (4.0, 1.0),
    seed: int = 0,
    half_width: float | None = None,
    rounds_per_block: int | None = None,
    least_rounds: int | None = None,
) -> tuple[Plan, samplers.Choice | None]:
    """A plan, and what the pilot found where one chose base and levels.

    Args:
        utility: whose marginals are sampled.
        sampler: multilevel, permutation or antithetic.
        base: of multilevel rounds; None, or None for `levels`: a pilot chooses both.
        levels: of multilevel rounds, besides the first.
        semivalues: estimated from the same sweeps; the first decides when to stop.
        beta: (a, b) of Beta Shapley.
        seed: of all randomness.
        half_width: of the intervals that are wanted, for the pilot's choice; by default 0.1 / n.
        rounds_per_block: rounds that travel together; None: as many as make a block much longer
            than its way. Stopping is judged at blocks, so it has a part in the result.
        least_rounds: before which intervals must not be believed; None: as the pilot says.
    Raises:
        ValueError: for a sampler or semivalue that is unknown, or numbers out of range.
    """
    n, choice = utility.num_players, None
    if not semivalues:
        raise ValueError("semivalues must name at least one")
    if rounds_per_block is not None and rounds_per_block < 1:
        raise ValueError(f"rounds_per_block must be at least 1, got {rounds_per_block}")
    if sampler not in ("multilevel", "permutation", "antithetic"):
        raise ValueError(f"sampler must be multilevel, permutation or antithetic, got {sampler!r}")
    open_levels = sampler == "multilevel" and (base is None or levels is None)
    pilot = samplers.run_pilot(utility, seed) if open_levels or least_rounds is None else None
    if sampler == "multilevel":
        if base is None or levels is None:
            assert pilot is not None
            choice = samplers.choose_multilevel(pilot, half_width or DEFAULT_INDIFFERENCE / n)
            base, levels = choice.base, choice.levels
        rounds = samplers.multilevel(n, base=base, levels=levels)
    else:
        rounds = samplers.permutation(n, antithetic=sampler == "antithetic")
    cost = float(samplers.position_costs(utility)[rounds.positions].sum())
    plan = Plan(
        utility=utility,
        rounds=rounds,
        size_weights=[size_weights(name, n, beta) for name in semivalues],
        seed=seed,
        rounds_per_block=rounds_per_block or block_rounds(cost),
        least_rounds=least_rounds or (pilot.least_rounds(rounds) if pilot else 1),
    )
    return plan, choice


def observation_ranges(plan: Plan) -> list[float]:
    """Width of an interval that holds what a round may say of a value, one a semivalue.

    A player has one marginal on each level (two in an antithetic round), and each is bounded by the
    utility's `marginal_range`; infinite where that is unknown.
    """
    rounds, n = plan.rounds, plan.rounds.num_players
    bounds = [float(getattr(part, "marginal_range", np.inf)) for part in plan.utility.parts]
    found = []
    for weights in plan.size_weights:
        factor = (rounds.weights * (n * weights)[rounds.positions]).reshape(-1, n)
        found.append(2 * float(np.mean(bounds)) * float(factor.max(axis=1).sum()))
    return found


def block_ids(aggregator: Aggregator, sets_ahead: Callable[[], int]) -> Iterator[BlockId | None]:
    """Ids in the order in which they are merged, without end; None while that is too far ahead.

    Args:
        aggregator: merges them; ids begin with its next set.
        sets_ahead: how many sets may be begun before the next one is complete, at least 1.
    """
    index = aggregator.next_index
    while True:
        while index >= aggregator.next_index + sets_ahead():
            yield None
        for chain in range(len(aggregator.chains)):
            yield chain, index
        index += 1


def sample(plan: Plan, aggregator: Aggregator) -> Iterator[Progress]:
    """Compute blocks in this process until the aggregator has seen enough; a check at a time.

    Raises:
        Exception: what the utility raises.
    """
    for block_id in block_ids(aggregator, lambda: 1):
        assert block_id is not None, "sets are completed one by one"
        yield from aggregator.add(run_block(plan, *block_id))
        if aggregator.done:
            return
