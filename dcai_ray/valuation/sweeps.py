"""One block: every order of its rounds swept, weighed, accumulated.

A block is a function of a plan and its own number: whoever computes it, whenever, gets the same
bits. One observation is one whole round, all parts together: the mean over parts of

    x_i = sum over the orders of the round of  weight x n p(position of i) x marginal of i
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.valuation.blocks import Block
from dcai_ray.valuation.moments import moments_of
from dcai_ray.valuation.samplers import Rounds, randomness
from dcai_ray.valuation.utilities import Utility

_BLOCK_US = 3e5  # work of a block: much longer than its way to the aggregator
_MOST_ROUNDS = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides the blocks of a run."""

    utility: Utility
    rounds: Rounds
    size_weights: Sequence[NDArray[np.float64]]
    """p(t) (n,) of each semivalue estimated from the same sweeps."""
    seed: int
    rounds_per_block: int
    least_rounds: int
    """Rounds, over all chains, before which intervals must not be believed."""


def block_rounds(cost: float) -> int:
    """Rounds that make a block of about a third of a second, each of so many microseconds."""
    return int(np.clip(_BLOCK_US / cost, 1, _MOST_ROUNDS))


def run_block(plan: Plan, chain: int, index: int) -> Block:
    """Block `index` of a chain: rounds index * b .. (index + 1) * b - 1.

    Raises:
        Exception: what the utility raises; a failing model is an error, never a score.
    """
    rounds, parts = plan.rounds, plan.utility.parts
    n, count = rounds.num_players, plan.rounds_per_block
    factors = [rounds.weights * (n * p)[rounds.positions] for p in plan.size_weights]
    observed = np.zeros((count, len(factors), n))
    evaluated, imputed = np.zeros(n, dtype=np.int64), 0
    for row in range(count):
        for number, part in enumerate(parts):
            orders = rounds.draw(randomness(plan.seed, chain, number, index * count + row))
            marginals = part.sweep(orders)
            missing = np.isnan(marginals)
            if missing.any():
                imputed += int(missing.sum())
                evaluated += np.bincount(orders.players[~missing], minlength=n)
                marginals = np.where(missing, 0.0, marginals)
            else:
                evaluated += np.bincount(orders.players, minlength=n)
            for each, factor in enumerate(factors):
                observed[row, each] += np.bincount(orders.players, marginals * factor, n)
    observed /= len(parts)
    return Block(
        chain=chain,
        index=index,
        moments=moments_of(observed),
        evaluated=evaluated,
        imputed=imputed,
        sweeps=count * len(parts) * (len(rounds.offsets) - 1),
        insertions=count * len(parts) * len(rounds.positions),
        seconds=0.0,
    )
