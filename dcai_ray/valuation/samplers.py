"""Rounds of weighted orders: from each, an unbiased estimate of every value at once.

In an order drawn uniformly, player i stands at each position t with the same probability, and its
marginal there has the mean e_i(t) over coalitions of t others. The Shapley value is the mean of
e_i(t) over t; other semivalues weigh it by the probability p(t) that a coalition has t others.

    permutation   one full order per round
    antithetic    a full order and its reverse
    multilevel    for each level l = 0..L a fresh permutation, cut into b^l orders of equal length,
                  each starting from the empty coalition

The marginal at position t weighs 1 / (orders of the round that are longer than t); a semivalue
multiplies this by n p(t). Summed over a round, the weighted marginals of i have i's value as their
expectation, as an order longer than t has i at position t with probability 1/n. Nothing is
truncated, so the estimate is unbiased for every utility; but positions near the start, where
marginals are large, are visited b^L times as often as those near the end.

How many levels pay depends on how marginals shrink along an order and on what they cost there: see
`pilot`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.utilities import Orders

SamplerName = Literal["multilevel", "permutation", "antithetic"]


@dataclass(frozen=True, slots=True)
class Sampler:
    """The layout of a round: all of it but the permutations that are drawn."""

    name: str
    num_players: int
    num_permutations: int
    """Fresh permutations per round."""
    antithetic: bool
    """Whether the permutations are followed by their reverses."""
    offsets: NDArray[np.int64]  # (s + 1,)
    positions: NDArray[np.int32]  # (t,) place within the order
    weights: NDArray[np.float64]  # (t,)

    def draw(self, randomness: np.random.SeedSequence) -> Orders:
        """The orders of one round."""
        rng = np.random.Generator(np.random.PCG64(randomness))
        drawn = [
            rng.permutation(self.num_players).astype(np.int32) for _ in range(self.num_permutations)
        ]
        if self.antithetic:
            drawn += [order[::-1] for order in drawn]
        return Orders(np.concatenate(drawn), self.offsets, self.weights)


def permutation(num_players: int, *, antithetic: bool = False) -> Sampler:
    """One full order per round, or one and its reverse.

    Raises:
        UserError: without players.
    """
    lengths = [num_players] * (1 + antithetic)
    name = "antithetic permutation" if antithetic else "permutation"
    return _sampler(name, num_players, lengths, num_permutations=1, antithetic=antithetic)


def multilevel(num_players: int, *, base: int, levels: int) -> Sampler:
    """One permutation for each level 0..levels, cut into base^level orders.

    Raises:
        UserError: without players, for base < 2, or if the last level has more orders than
            players.
    """
    if base < 2 or levels < 0:
        raise UserError(f"base must be at least 2 and levels at least 0, got {base} and {levels}")
    if base**levels > max(num_players, 1):
        raise UserError(
            f"base ** levels must not exceed the {num_players} players, got {base} ** {levels}"
        )
    lengths: list[int] = []
    for level in range(levels + 1):
        cuts = [num_players * j // base**level for j in range(base**level + 1)]
        lengths += [end - start for start, end in pairwise(cuts)]
    name = f"multilevel base {base} levels 0..{levels}"
    return _sampler(name, num_players, lengths, num_permutations=levels + 1, antithetic=False)


@lru_cache(maxsize=8)
def new_sampler(
    name: SamplerName, num_players: int, base: int | None = None, levels: int | None = None
) -> Sampler:
    """A sampler by its name; made once per process, as nothing changes it.

    Raises:
        UserError: for an unknown name, or numbers out of range.
    """
    if name == "multilevel":
        assert base is not None, "a pilot chooses what is left open"
        assert levels is not None, "a pilot chooses what is left open"
        return multilevel(num_players, base=base, levels=levels)
    if name not in ("permutation", "antithetic"):
        raise UserError(f"sampler must be multilevel, permutation or antithetic, got {name!r}")
    return permutation(num_players, antithetic=name == "antithetic")


def randomness(seed: int, chain: int, component: int, number: int) -> np.random.SeedSequence:
    """The seed of round `number` of a component in a chain; a function of these four alone."""
    return np.random.SeedSequence(seed, spawn_key=(chain, component, number))


def _sampler(
    name: str, num_players: int, lengths: Sequence[int], *, num_permutations: int, antithetic: bool
) -> Sampler:
    if num_players < 1:
        raise UserError(f"num_players must be at least 1, got {num_players}")
    longer = np.zeros(num_players)  # orders longer than t
    for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
        longer[:length] += count
    positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    return Sampler(
        name=name,
        num_players=num_players,
        num_permutations=num_permutations,
        antithetic=antithetic,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        positions=positions,
        weights=1 / longer[positions],
    )
