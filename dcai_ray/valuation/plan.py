"""The plan of a sampling: every choice that decides its blocks, but for the utility itself.

A pilot makes the choices that the settings leave open. The record holds plain numbers and names and
is stored in checkpoints, so a sampling that resumes needs no pilot and draws the same orders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dcai_ray.errors import UserError
from dcai_ray.valuation.pilot import choose_multilevel, position_costs, run_pilot
from dcai_ray.valuation.samplers import Sampler, SamplerName, new_sampler
from dcai_ray.valuation.semivalues import size_weights
from dcai_ray.valuation.stopping import DEFAULT_INDIFFERENCE
from dcai_ray.valuation.utilities import Utility

_BLOCK_US = 3e5  # work of a block: much longer than sending it to the aggregator
_MAX_ROUNDS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All that decides the blocks of a sampling, but for the utility."""

    num_players: int
    sampler_name: SamplerName
    base: int | None
    """Of multilevel rounds; None for the other samplers."""
    levels: int | None
    gain: float | None
    """Predicted work with full permutations, divided by that with the layout a pilot chose; None
    where the settings left nothing to choose."""
    semivalues: tuple[str, ...]
    """Estimated from the same marginals; the first decides."""
    beta: tuple[float, float]
    seed: int
    rounds_per_block: int
    min_rounds: int
    """Rounds, over all chains, before which asymptotic intervals are not reliable."""
    observation_ranges: tuple[float, ...]
    """Per semivalue, the width of an interval that contains every possible observation of a round;
    infinite where the utility states no `marginal_range`."""

    @classmethod
    def restore(cls, kept: Mapping[str, Any]) -> "Plan":
        """A plan from its `asdict`, also from JSON, which has no tuples."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()
        }
        return cls(**values)

    @property
    def sampler(self) -> Sampler:
        """What draws the orders of a round."""
        return new_sampler(self.sampler_name, self.num_players, self.base, self.levels)

    @property
    def name(self) -> str:
        """The sampler in words."""
        return self.sampler.name


def new_plan(
    utility: Utility,
    *,
    sampler: SamplerName = "multilevel",
    base: int | None = None,
    levels: int | None = None,
    semivalues: Sequence[str] = ("shapley",),
    beta: tuple[float, float] = (4.0, 1.0),
    seed: int = 0,
    half_width: float | None = None,
    rounds_per_block: int | None = None,
) -> Plan:
    """A plan for a utility; a pilot chooses what is left open.

    Args:
        utility: whose marginals are sampled.
        sampler: multilevel, permutation or antithetic.
        base: of multilevel rounds; None, or None for `levels`: a pilot chooses both.
        levels: of multilevel rounds, besides the first.
        semivalues: estimated from the same marginals; the first decides when to stop.
        beta: (a, b) of Beta Shapley.
        seed: random seed.
        half_width: width of the intervals that the pilot plans for; by default 0.1 / n.
        rounds_per_block: rounds per block; None: as many as take about a third of a second. The
            stopping rule is judged after blocks, so this affects where sampling stops.
    Raises:
        UserError: for an unknown sampler or semivalue, or numbers out of range.
    """
    n, gain = utility.num_players, None
    if not semivalues:
        raise UserError("semivalues must name at least one")
    if rounds_per_block is not None and rounds_per_block < 1:
        raise UserError(f"rounds_per_block must be at least 1, got {rounds_per_block}")
    if sampler == "multilevel":
        if base is not None and levels is not None:
            new_sampler(sampler, n, base, levels)  # refused before the pilot
    else:
        base = levels = None
        new_sampler(sampler, n, None, None)
    pilot = run_pilot(utility, seed)
    if sampler == "multilevel" and (base is None or levels is None):
        choice = choose_multilevel(pilot, half_width or DEFAULT_INDIFFERENCE / n)
        base, levels, gain = choice.base, choice.levels, choice.gain
    layout = new_sampler(sampler, n, base, levels)
    cost = float(position_costs(utility)[layout.positions].sum())
    return Plan(
        num_players=n,
        sampler_name=sampler,
        base=base,
        levels=levels,
        gain=gain,
        semivalues=tuple(semivalues),
        beta=beta,
        seed=seed,
        rounds_per_block=rounds_per_block or _block_rounds(cost),
        min_rounds=pilot.min_rounds(layout),
        observation_ranges=_observation_ranges(utility, layout, semivalues, beta),
    )


def _block_rounds(cost: float) -> int:
    """Rounds that make a block of about a third of a second, each of so many microseconds."""
    return int(np.clip(_BLOCK_US / cost, 1, _MAX_ROUNDS))


def _observation_ranges(
    utility: Utility, sampler: Sampler, semivalues: Sequence[str], beta: tuple[float, float]
) -> tuple[float, ...]:
    """A player has one marginal per level (two in an antithetic round), each bounded by the
    utility's `marginal_range`."""
    n = sampler.num_players
    bounds = [
        float(getattr(component, "marginal_range", np.inf)) for component in utility.components
    ]
    found = []
    for name in semivalues:
        weights = sampler.weights * (n * size_weights(name, n, beta))[sampler.positions]
        highest = weights.reshape(-1, n).max(axis=1).sum()
        found.append(2 * float(np.mean(bounds)) * float(highest))
    return tuple(found)
