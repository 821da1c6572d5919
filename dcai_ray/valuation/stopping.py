"""Stopping rules: when sampling has gone far enough.

    Settled()                                     95 % of the points are decided
    StandardError(tolerance=1e-4)                 no standard error is larger than this
    RankStability(correlation=0.99)               two halves of the chains rank the points alike
    MaxRounds(rounds=2000)                        this many rounds, summed over chains
    AnyOf(rules=(Settled(), MaxRounds(rounds=5000)))
    AllOf(rules=(...,))

A rule sees rounds and moments only, never a clock, and is judged on complete waves of blocks, so it
stops at the same point on every machine. Anything with `met` and `describe` is a rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError

DEFAULT_INDIFFERENCE = 0.1
"""Divided by n, the half width below which an interval no longer matters: a mean value is 1 / n."""

MIN_ROUNDS = 32
"""The spread of fewer rounds is not reliable: two that happen to agree have none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The state of a sampling after a complete wave of blocks, for the main semivalue."""

    rounds: int  # merged, summed over chains
    waves: int  # complete waves of blocks merged
    settled: float  # share of points whose interval excludes zero or is below the indifference
    max_stderr: float  # over points; inf while unknown
    rank_correlation: float  # Spearman's, of even and odd chains; NaN for a single chain
    r_hat: float  # Gelman-Rubin, the largest over points; NaN while unknown; decides nothing
    num_players: int  # n


class StopRule(Protocol):
    """The members that a stopping rule must have."""

    def met(self, progress: Progress) -> bool:
        """Whether sampling may stop here."""
        ...

    def describe(self) -> str:
        """The rule in words, for displays and reports."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """Enough points are settled: their interval excludes the threshold or is narrow enough."""

    share: float = 0.95
    """Share of the points, in (0, 1]."""
    indifference: float | None = None
    """Half width below which a point counts as settled near zero; None: 0.1 / n."""
    min_rounds: int = MIN_ROUNDS
    """Never before so many rounds, summed over chains."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"share must be in (0, 1], got {self.share}")
        if self.indifference is not None and not self.indifference >= 0:
            raise UserError(f"indifference must be at least 0, got {self.indifference}")

    def met(self, progress: Progress) -> bool:
        """Whether the share is reached; judged at the aggregator's indifference."""
        return progress.rounds >= self.min_rounds and progress.settled >= self.share

    def describe(self) -> str:
        """The rule in words."""
        width = "0.1 / n" if self.indifference is None else f"{self.indifference:g}"
        return f"{100 * self.share:g} % of the points settled (indifference {width})"


@dataclass(frozen=True, kw_only=True, slots=True)
class StandardError:
    """Every standard error is small enough."""

    tolerance: float
    """Largest standard error of a value, in units of the utility."""
    min_rounds: int = MIN_ROUNDS
    """Never before so many rounds, summed over chains."""

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise UserError(f"tolerance must be above 0, got {self.tolerance}")

    def met(self, progress: Progress) -> bool:
        """Whether no standard error is above the tolerance."""
        enough = progress.rounds >= self.min_rounds
        return enough and progress.max_stderr <= self.tolerance

    def describe(self) -> str:
        """The rule in words."""
        return f"every standard error at most {self.tolerance:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RankStability:
    """Two independent halves of the chains rank the points alike; needs at least two chains."""

    correlation: float = 0.99
    """Spearman's, between the means of even and of odd chains, in (0, 1)."""
    min_rounds: int = MIN_ROUNDS
    """Never before so many rounds, summed over chains."""

    def __post_init__(self) -> None:
        if not 0 < self.correlation < 1:
            raise UserError(f"correlation must be in (0, 1), got {self.correlation}")

    def met(self, progress: Progress) -> bool:
        """Whether the correlation is reached; not while it is unknown."""
        enough = progress.rounds >= self.min_rounds
        return enough and progress.rank_correlation >= self.correlation

    def describe(self) -> str:
        """The rule in words."""
        return f"rank correlation of two halves of the chains at least {self.correlation:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxRounds:
    """A fixed number of rounds."""

    rounds: int
    """Rounds, summed over chains; waves are complete, so it may become a few more."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError(f"rounds must be at least 1, got {self.rounds}")

    def met(self, progress: Progress) -> bool:
        """Whether so many rounds are merged."""
        return progress.rounds >= self.rounds

    def describe(self) -> str:
        """The rule in words."""
        return f"{self.rounds} rounds"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnyOf:
    """Stop as soon as one of several rules is met."""

    rules: Sequence[StopRule]
    """At least one."""

    def __post_init__(self) -> None:
        _check_rules(self.rules)

    def met(self, progress: Progress) -> bool:
        """Whether one of the rules is met."""
        return any(rule.met(progress) for rule in self.rules)

    def describe(self) -> str:
        """The rules in words."""
        return " or ".join(_in_brackets(rule) for rule in self.rules)


@dataclass(frozen=True, kw_only=True, slots=True)
class AllOf:
    """Stop when all of several rules are met at once."""

    rules: Sequence[StopRule]
    """At least one."""

    def __post_init__(self) -> None:
        _check_rules(self.rules)

    def met(self, progress: Progress) -> bool:
        """Whether all of the rules are met."""
        return all(rule.met(progress) for rule in self.rules)

    def describe(self) -> str:
        """The rules in words."""
        return " and ".join(_in_brackets(rule) for rule in self.rules)


def indifference_of(rule: StopRule) -> float | None:
    """The indifference that a rule asks for, at any depth; None if it leaves this open.

    Raises:
        UserError: if parts of the rule ask for different ones.
    """
    if isinstance(rule, Settled):
        return rule.indifference
    if not isinstance(rule, AnyOf | AllOf):
        return None
    asked = {width for part in rule.rules if (width := indifference_of(part)) is not None}
    if len(asked) > 1:
        raise UserError(f"indifference must be the same in all rules, got {sorted(asked)}")
    return asked.pop() if asked else None


def estimate_rounds(
    progress: Progress, rule: StopRule, shortfall: NDArray[np.float64] | None = None
) -> float | None:
    """Estimated rounds still needed, as if errors fell with the square root; None while unknown.

    Args:
        progress: the latest look.
        rule: the one to be met.
        shortfall: (n,) half width of a point's interval over the width that settles it, its
            distance from zero or the indifference; without it `Settled` is unknown.
    """
    if rule.met(progress):
        return 0.0
    if isinstance(rule, AnyOf | AllOf):
        parts = [estimate_rounds(progress, part, shortfall) for part in rule.rules]
        known = [rounds for rounds in parts if rounds is not None]
        if isinstance(rule, AnyOf):
            return min(known, default=None)
        return max(known) if len(known) == len(parts) else None
    if isinstance(rule, MaxRounds):
        return float(rule.rounds - progress.rounds)
    if not isinstance(rule, Settled | StandardError | RankStability):
        return None
    growth = _growth(progress, rule, shortfall)
    if growth is None or not np.isfinite(growth):
        return None
    return float(max(progress.rounds * growth, rule.min_rounds) - progress.rounds)


def _growth(
    progress: Progress,
    rule: Settled | StandardError | RankStability,
    shortfall: NDArray[np.float64] | None,
) -> float | None:
    """The factor by which the rounds have to grow, at least 1; None while unknown."""
    if isinstance(rule, StandardError):
        return max(1.0, (progress.max_stderr / rule.tolerance) ** 2)
    if isinstance(rule, Settled):
        if shortfall is None:
            return None
        needed = int(np.ceil(rule.share * len(shortfall))) - 1
        return max(1.0, float(np.sort(shortfall)[needed]) ** 2)
    # Spearman-Brown: correlation / (1 - correlation) of two halves grows in step with the rounds.
    if not 0 < progress.rank_correlation < 1:
        return None
    now = progress.rank_correlation / (1 - progress.rank_correlation)
    return max(1.0, rule.correlation / (1 - rule.correlation) / now)


def _check_rules(rules: Sequence[StopRule]) -> None:
    if len(rules) == 0:
        raise UserError("rules must hold at least one rule, got none")


def _in_brackets(rule: StopRule) -> str:
    return f"({rule.describe()})" if isinstance(rule, AnyOf | AllOf) else rule.describe()
