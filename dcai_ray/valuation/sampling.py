"""Sampling in this process: an aggregator for a plan, the order of blocks, the plain loop.

Blocks computed anywhere else give the same values once the aggregator has merged them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dcai_ray.valuation.aggregator import Aggregator, Interval
from dcai_ray.valuation.blocks import BlockId, run_block
from dcai_ray.valuation.plan import Plan
from dcai_ray.valuation.stopping import Progress, Settled, StopRule
from dcai_ray.valuation.utilities import Utility


def new_aggregator(
    plan: Plan,
    *,
    num_chains: int = 8,
    confidence: float = 0.95,
    simultaneous: bool = False,
    interval: Interval = "asymptotic",
    indifference: float | None = None,
    threshold: float = 0.0,
    stop: StopRule | None = None,
    state: Mapping[str, Any] | None = None,
) -> Aggregator:
    """The aggregator of a plan, new or restored from a checkpoint.

    Args:
        plan: what the blocks are.
        num_chains: independent sequences of rounds.
        confidence: probability that an interval never misses its value.
        simultaneous: whether that is the probability for all points at once.
        interval: asymptotic or bernstein.
        indifference: half width below which a point is settled; None: what `stop` asks, or 0.1 / n.
        threshold: the threshold between harmful and useful points.
        stop: when it is enough; by default when 95 % of the points are settled.
        state: of an aggregator of the same plan.
    Raises:
        UserError: for bernstein intervals of a utility whose range is not known.
    """
    settings: dict[str, Any] = {
        "alpha": 1 - confidence,
        "simultaneous": simultaneous,
        "interval": interval,
        "observation_range": plan.observation_ranges,
        "indifference": indifference,
        "threshold": threshold,
        "min_rounds": plan.min_rounds,
        "stop": stop or Settled(),
    }
    if state is not None:
        return Aggregator.restore(state, **settings)
    return Aggregator(plan.num_players, num_chains, len(plan.semivalues), **settings)


def block_ids(aggregator: Aggregator, waves_ahead: Callable[[], int]) -> Iterator[BlockId | None]:
    """Ids in the order in which they are merged, without end; None while too far ahead.

    Args:
        aggregator: the one that merges them; ids begin with its next wave.
        waves_ahead: how many waves may be in progress before the next one is complete, at least 1.
    """
    index = aggregator.next_index
    while True:
        while index >= aggregator.next_index + waves_ahead():
            yield None
        for chain in range(len(aggregator.chains)):
            yield chain, index
        index += 1


def sample(plan: Plan, utility: Utility, aggregator: Aggregator) -> Iterator[Progress]:
    """Compute blocks in this process until the stopping rule is met; yields one look per wave.

    Raises:
        Exception: what the utility raises.
    """
    for block_id in block_ids(aggregator, lambda: 1):
        assert block_id is not None, "waves are completed one by one"
        yield from aggregator.add(run_block(plan, utility, *block_id))
        if aggregator.done:
            return
