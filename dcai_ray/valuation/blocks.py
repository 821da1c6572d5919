"""A block: consecutive rounds of one chain, as they travel from a worker to the aggregator."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.valuation.moments import Moments


@dataclass(frozen=True, slots=True)
class Block:
    """What the rounds of one block say, with all their counts; (chain, index) is its id.

    One observation is one whole round: an unbiased estimate of every value, of S semivalues from
    the same sweeps. The first is the main one, by which decisions are made and sampling stops.
    """

    chain: int
    index: int  # of the block within its chain, from 0 without gaps
    moments: Moments  # (S, n) over the block's rounds
    evaluated: NDArray[np.int64]  # (n,) marginals that were computed
    imputed: int  # marginals that truncation put in their place
    sweeps: int
    insertions: int  # players that joined a coalition, over all sweeps
    seconds: float  # of computing, on whatever machine: for displays, decides nothing


def check_block(block: Block, num_chains: int, shape: tuple[int, int]) -> None:
    """Refuse what cannot be merged.

    Args:
        block: as it came.
        num_chains: chains there are.
        shape: (S, n).
    Raises:
        ValueError: for a chain or index that is not one, shapes that do not fit, no rounds, or
            moments that are not finite.
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
        raise ValueError(f"{name}: moments must be finite, got {bad} NaN or infinite entries")
