"""A block: consecutive rounds of one chain, computed by a worker, sent to the aggregator.

A block is a function of plan, utility and its own number: whoever computes it, and whenever, the
result is bitwise the same. One observation is one whole round of all components, the mean over
components of

    x_i = sum over the orders of the round of  weight x n p(position of i) x marginal of i
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.moments import Moments, moments_of
from dcai_ray.valuation.plan import Plan
from dcai_ray.valuation.samplers import randomness
from dcai_ray.valuation.semivalues import size_weights
from dcai_ray.valuation.utilities import Utility

BlockId = tuple[int, int]  # chain, index


@dataclass(frozen=True, slots=True)
class Block:
    """The observations of one block's rounds, with their counts; (chain, index) is its id.

    One observation is one whole round: an unbiased estimate of every value, of S semivalues from
    the same orders. The first is the main one, by which decisions are made and sampling stops.
    """

    chain: int
    index: int  # of the block within its chain, from 0 without gaps
    moments: Moments  # (S, n) over the block's rounds
    evaluated: NDArray[np.int64]  # (n,) marginals computed
    imputed: int  # marginals that truncation replaced by zero
    orders: int  # whose marginals were computed
    insertions: int  # players that joined a coalition, over all orders
    seconds: float  # of computing; for display, decides nothing


def check_block(block: Block, num_chains: int, shape: tuple[int, int]) -> None:
    """Refuse what cannot be merged.

    Args:
        block: as received.
        num_chains: number of chains.
        shape: (S, n).
    Raises:
        ValueError: for a chain or index that is not one, shapes that do not fit, or no rounds: our
            own mistakes.
        UserError: for moments that are not finite, as a utility of the user's own may give.
    """
    name = f"block {block.index} of chain {block.chain}"
    if not (0 <= block.chain < num_chains and block.index >= 0):
        raise ValueError(f"{name}: chain must be in [0, {num_chains}) and index at least 0")
    shapes = (block.moments.mean.shape, block.moments.m2.shape, block.evaluated.shape)
    if shapes != (shape, shape, shape[1:]):
        wanted = f"{shape} for moments and {shape[1:]} for evaluated"
        raise ValueError(f"{name}: shapes must be {wanted}, got {shapes}")
    if block.moments.count < 1:
        raise ValueError(f"{name}: count must be at least 1, got {block.moments.count}")
    finite = np.isfinite(block.moments.mean) & np.isfinite(block.moments.m2)
    if not finite.all():
        bad = np.count_nonzero(~finite)
        raise UserError(f"{name}: moments must be finite, got {bad} NaN or infinite entries")


def run_block(plan: Plan, utility: Utility, chain: int, index: int) -> Block:
    """Block `index` of a chain: rounds index * b .. (index + 1) * b - 1.

    Raises:
        Exception: what the utility raises; a failing model is an error, never a score.
    """
    rounds, components, factors = plan.sampler, utility.components, _factors(plan)
    n, count = plan.num_players, plan.rounds_per_block
    observed = np.zeros((count, len(factors), n))
    evaluated, imputed = np.zeros(n, dtype=np.int64), 0
    for row in range(count):
        for number, component in enumerate(components):
            orders = rounds.draw(randomness(plan.seed, chain, number, index * count + row))
            marginals = component.marginals(orders)
            missing = np.isnan(marginals)
            if missing.any():
                imputed += int(missing.sum())
                evaluated += np.bincount(orders.players[~missing], minlength=n)
                marginals = np.where(missing, 0.0, marginals)
            else:
                evaluated += np.bincount(orders.players, minlength=n)
            for each, factor in enumerate(factors):
                observed[row, each] += np.bincount(orders.players, marginals * factor, n)
    observed /= len(components)
    return Block(
        chain=chain,
        index=index,
        moments=moments_of(observed),
        evaluated=evaluated,
        imputed=imputed,
        orders=count * len(components) * (len(rounds.offsets) - 1),
        insertions=count * len(components) * len(rounds.positions),
        seconds=0.0,
    )


@lru_cache(maxsize=2)
def _factors(plan: Plan) -> tuple[NDArray[np.float64], ...]:
    """Per semivalue (t,) what a marginal counts at its place; computed once per process."""
    n, rounds = plan.num_players, plan.sampler
    sizes = [size_weights(name, n, plan.beta) for name in plan.semivalues]
    return tuple(rounds.weights * (n * p)[rounds.positions] for p in sizes)
