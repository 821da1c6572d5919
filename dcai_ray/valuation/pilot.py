"""The pilot."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.valuation.samplers import Sampler, multilevel, randomness
from dcai_ray.valuation.utilities import Utility

BASES = (2, 4)
"""Factors between the levels that are tried."""

_MIN_ROUNDS = 32
_MIN_VISITS = 50  # of the positions that matter
_NOTABLE = 0.25  # share of the variance that matters: without it, intervals are 13 % too short
_WIDTHS = 3.0  # standard errors in half an interval, for predictions
_PILOT_ROUNDS = 2  # the least from which a player's mean can be told from noise
_PILOT_COMPONENTS = 4
PILOT_CHAIN = 2**32 - 1
"""The chain number of the pilot's randomness; no chain of a run has it."""


@dataclass(frozen=True, slots=True)
class Pilot:
    """Marginals by position, in the mean over players and over components, from a few rounds.

    Positions are binned 0, 1, 2-3, 4-7, ...
    """

    square: NDArray[np.float64]  # (bins,) mean square of a marginal
    signal: NDArray[np.float64]  # (bins, bins) mean product of two independent ones of a player
    costs: NDArray[np.float64]  # (n,) `position_costs` of the utility
    num_components: int

    def variance(self, rounds: Sampler) -> float:
        """Of one round's estimate, in the mean over players.

        Levels are independent; on each it is E[w^2 x^2] - E[w x]^2 over the position, which is
        uniform among those of the level.
        """
        n, num_bins = rounds.num_players, len(self.square)
        bins = _bins(rounds.positions)
        variance = 0.0
        for level in range(rounds.num_permutations):
            places = slice(level * n, (level + 1) * n)
            first = np.bincount(bins[places], rounds.weights[places], num_bins) / n
            second = np.bincount(bins[places], rounds.weights[places] ** 2, num_bins) / n
            variance += float(second @ self.square - first @ self.signal @ first)
        return max(variance, 0.0) / self.num_components

    def cost(self, rounds: Sampler) -> float:
        """Of one round, in about microseconds."""
        return float(self.costs[rounds.positions].sum())

    def min_rounds(self, rounds: Sampler) -> int:
        """Rounds before which a spread must not be believed.

        Much of a value may come from the few positions near the start, where a player seldom is.
        Until it has been there some dozens of times its spread looks small, and any interval made
        of it is too short. What counts are the first positions that together hold a notable share
        of the variance.
        """
        bins, num_bins = _bins(rounds.positions), len(self.square)
        share = np.cumsum(np.bincount(bins, rounds.weights**2, num_bins) * self.square)
        if not share[-1] > 0:
            return _MIN_ROUNDS
        start = int(np.argmax(share >= _NOTABLE * share[-1]))
        visits = self.num_components * np.count_nonzero(bins <= start) / rounds.num_players
        return max(_MIN_ROUNDS, int(np.ceil(_MIN_VISITS / visits)))


@dataclass(frozen=True, slots=True)
class Choice:
    """The rounds that a pilot chose."""

    base: int
    levels: int
    gain: float
    """Predicted work with plain permutations over that with the choice."""


def run_pilot(utility: Utility, seed: int) -> Pilot:
    """Sweep a few rounds of the deepest levels on some of the components."""
    n, components = utility.num_players, utility.components
    rounds = multilevel(n, base=2, levels=_max_levels(n, 2))
    tried = components[:: max(1, len(components) // _PILOT_COMPONENTS)][:_PILOT_COMPONENTS]
    found = [_by_position(component, index, rounds, seed) for index, component in enumerate(tried)]
    return Pilot(
        square=np.mean([square for square, _ in found], axis=0),
        signal=np.mean([signal for _, signal in found], axis=0),
        costs=position_costs(utility),
        num_components=len(components),
    )


def choose_multilevel(pilot: Pilot, half_width: float) -> Choice:
    """The base and number of levels that need the least work for intervals of a wanted width.

    That is variance x cost, but for rounds that put a player too seldom where its value is made.
    Costs are the utility's own, never measured times: the choice is a function of data and seed.

    Args:
        pilot: of the utility.
        half_width: of the intervals, in units of the utility.
    """
    n = len(pilot.costs)

    def work(rounds: Sampler) -> float:
        needed = pilot.variance(rounds) * (_WIDTHS / half_width) ** 2
        return pilot.cost(rounds) * max(needed, pilot.min_rounds(rounds))

    tried = [
        (work(multilevel(n, base=base, levels=levels)), base, levels)
        for base in BASES
        for levels in range(_max_levels(n, base) + 1)
    ]
    best, base, levels = min(tried)
    return Choice(base, levels, gain=tried[0][0] / best)


def position_costs(utility: Utility) -> NDArray[np.float64]:
    """(n,) cost of a marginal by the size of the coalition, in about microseconds."""
    costs = getattr(utility, "position_costs", None)
    return np.ones(utility.num_players) if costs is None else np.asarray(costs, dtype=np.float64)


def _max_levels(num_players: int, base: int) -> int:
    """Levels that leave orders of at least two players."""
    levels = 0
    while base ** (levels + 1) * 2 <= num_players:
        levels += 1
    return levels


def _bins(positions: NDArray[np.int32]) -> NDArray[np.int64]:
    """Positions 0, 1, 2-3, 4-7, ... as 0, 1, 2, 3, ..."""
    return np.frexp(positions.astype(np.float64))[1].astype(np.int64)


def _by_position(
    component: Utility, index: int, rounds: Sampler, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of one component, (bins,) mean squares of the marginals and (bins, bins) mean products of two
    marginals of one player."""
    n, bins = rounds.num_players, _bins(rounds.positions)
    num_bins = int(_bins(np.array([n - 1], dtype=np.int32))[0]) + 1
    count, total, squares = (np.zeros((num_bins, n)) for _ in range(3))
    for number in range(_PILOT_ROUNDS):
        orders = rounds.draw(randomness(seed, PILOT_CHAIN, index, number))
        marginals = np.nan_to_num(component.marginals(orders))
        np.add.at(count, (bins, orders.players), 1)
        np.add.at(total, (bins, orders.players), marginals)
        np.add.at(squares, (bins, orders.players), marginals**2)
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    seen = (count > 0).astype(np.float64)
    signal = mean @ mean.T / np.maximum(seen @ seen.T, 1)
    # Within a bin only products of different marginals are free of noise.
    pairs = np.maximum((count * (count - 1)).sum(axis=1), 1)
    np.fill_diagonal(signal, (total**2 - squares).sum(axis=1) / pairs)
    return squares.sum(axis=1) / np.maximum(count.sum(axis=1), 1), signal
