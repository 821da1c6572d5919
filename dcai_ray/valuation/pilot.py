"""The pilot: how many levels of orders pay, from a few rounds of a utility's own marginals.

Many levels visit the positions near the start of an order often, where marginals are large, and
cost little there; few levels estimate the far positions better. The pilot measures how marginals
shrink along an order, takes their cost by position from the utility, and picks the layout with the
least variance x cost. It never looks at a clock, so the choice is a function of data and seed.

It also finds after how many rounds an asymptotic interval is reliable (`Pilot.min_rounds`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.valuation.samplers import Sampler, multilevel, randomness
from dcai_ray.valuation.stopping import MIN_ROUNDS
from dcai_ray.valuation.utilities import Utility

BASES = (2, 4)
"""Factors between the levels that are tried."""

_MIN_VISITS = 50  # of the positions that matter
_NOTABLE = 0.25  # share of the variance that matters: without it, intervals are 13 % too short
_WIDTHS = 3.0  # standard errors in half an interval, for predictions
_PILOT_ROUNDS = 2  # the least from which a player's mean can be told from noise
_PILOT_COMPONENTS = 4
PILOT_CHAIN = 2**32 - 1
"""The chain number of the pilot's randomness; no chain of a run has it."""


@dataclass(frozen=True, slots=True)
class Pilot:
    """Marginals by position from a few rounds, averaged over players and components.

    Positions are binned 0, 1, 2-3, 4-7, ...
    """

    square: NDArray[np.float64]  # (bins,) mean square of a marginal
    signal: NDArray[np.float64]  # (bins, bins) mean product of two independent ones of a player
    costs: NDArray[np.float64]  # (n,) `position_costs` of the utility
    num_components: int

    def variance(self, sampler: Sampler) -> float:
        """Variance of one round's estimate, averaged over players.

        Levels are independent; on each it is E[w^2 x^2] - E[w x]^2 over the position, which is
        uniform among those of the level.
        """
        n, num_bins = sampler.num_players, len(self.square)
        bins = _bins(sampler.positions)
        variance = 0.0
        for level in range(sampler.num_permutations):
            places = slice(level * n, (level + 1) * n)
            first = np.bincount(bins[places], sampler.weights[places], num_bins) / n
            second = np.bincount(bins[places], sampler.weights[places] ** 2, num_bins) / n
            variance += float(second @ self.square - first @ self.signal @ first)
        return max(variance, 0.0) / self.num_components

    def cost(self, sampler: Sampler) -> float:
        """Cost of one round, in nominal microseconds."""
        return float(self.costs[sampler.positions].sum())

    def min_rounds(self, sampler: Sampler) -> int:
        """Rounds before which the observed spread is not reliable.

        Much of a value may come from the few positions near the start, which a player seldom
        visits. Until it has been there some dozens of times its spread looks small, and every
        interval made of it is too short. What counts are the first positions that together hold a
        notable share of the variance.
        """
        bins, num_bins = _bins(sampler.positions), len(self.square)
        share = np.cumsum(np.bincount(bins, sampler.weights**2, num_bins) * self.square)
        if not share[-1] > 0:
            return MIN_ROUNDS
        start = int(np.argmax(share >= _NOTABLE * share[-1]))
        visits = self.num_components * np.count_nonzero(bins <= start) / sampler.num_players
        return max(MIN_ROUNDS, int(np.ceil(_MIN_VISITS / visits)))


@dataclass(frozen=True, slots=True)
class Choice:
    """The multilevel layout that a pilot chose."""

    base: int
    levels: int
    gain: float
    """Predicted work with plain permutations, divided by that with the choice."""


def run_pilot(utility: Utility, seed: int) -> Pilot:
    """Compute a few rounds of the deepest levels on some of the components."""
    n, components = utility.num_players, utility.components
    sampler = multilevel(n, base=2, levels=_max_levels(n, 2))
    tried = components[:: max(1, len(components) // _PILOT_COMPONENTS)][:_PILOT_COMPONENTS]
    found = [_by_position(component, index, sampler, seed) for index, component in enumerate(tried)]
    return Pilot(
        square=np.mean([square for square, _ in found], axis=0),
        signal=np.mean([signal for _, signal in found], axis=0),
        costs=position_costs(utility),
        num_components=len(components),
    )


def choose_multilevel(pilot: Pilot, half_width: float) -> Choice:
    """The base and number of levels that need the least work for intervals of a given width.

    Work is variance x cost, with at least the rounds that make an interval reliable.

    Args:
        pilot: of the utility.
        half_width: of the intervals, in units of the utility.
    """
    n = len(pilot.costs)

    def work(sampler: Sampler) -> float:
        needed = pilot.variance(sampler) * (_WIDTHS / half_width) ** 2
        return pilot.cost(sampler) * max(needed, pilot.min_rounds(sampler))

    tried = [
        (work(multilevel(n, base=base, levels=levels)), base, levels)
        for base in BASES
        for levels in range(_max_levels(n, base) + 1)
    ]
    best, base, levels = min(tried)
    return Choice(base, levels, gain=tried[0][0] / best)


def position_costs(utility: Utility) -> NDArray[np.float64]:
    """(n,) cost of a marginal by coalition size, in nominal microseconds."""
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
    component: Utility, index: int, sampler: Sampler, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of one component, (bins,) mean squares of the marginals and (bins, bins) mean products of two
    marginals of one player."""
    n, bins = sampler.num_players, _bins(sampler.positions)
    num_bins = int(_bins(np.array([n - 1], dtype=np.int32))[0]) + 1
    count, total, squares = (np.zeros((num_bins, n)) for _ in range(3))
    for number in range(_PILOT_ROUNDS):
        orders = sampler.draw(randomness(seed, PILOT_CHAIN, index, number))
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
