"""Rules that take the values literally: a threshold, a share, or certainty."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.choices import Choice, Valued
from dcai_ray.cleaning.rule import (
    Needs,
    among_lowest,
    by_rank,
    by_threshold,
    false_discovery,
    kept_above,
    lowest_in_order,
    lowest_share,
    not_above,
)
from dcai_ray.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Zero:
    """Keep the images whose value is above zero."""

    name: ClassVar[str] = "zero"
    needs: ClassVar[Needs] = Needs()
    judges_labels: ClassVar[bool] = False

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Drop values that are not above zero; of sampled values, those known not to be."""
        return by_threshold(self.name, self.threshold(valued.y), valued)

    @staticmethod
    def describe(choice: Choice) -> str:
        """The threshold."""
        return kept_above(choice)

    @staticmethod
    def explain(choice: Choice) -> str:
        """The threshold in words."""
        return "those estimated to lower the accuracy (rule zero: keep value > 0)."

    @staticmethod
    def reason(choice: Choice) -> str:
        """The threshold."""
        return not_above(choice)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """Keep the images whose value exceeds an equal share of the score of guessing.

    Without training images a classifier guesses and scores 1 / C, but the utility of the empty set
    is 0. The n images share the difference equally, so an image without effect has 1 / (C n).
    """

    name: ClassVar[str] = "chance"
    needs: ClassVar[Needs] = Needs(utility="knn")
    judges_labels: ClassVar[bool] = False

    def threshold(self, y: NDArray[np.integer]) -> float:
        """1 / (C n), in units of accuracy."""
        return 1 / (len(np.unique(y)) * len(y))

    def choose(self, valued: Valued) -> Choice:
        """Drop values not above the threshold; of sampled values, those known not to be."""
        return by_threshold(self.name, self.threshold(valued.y), valued)

    @staticmethod
    def describe(choice: Choice) -> str:
        """The threshold."""
        return kept_above(choice)

    @staticmethod
    def explain(choice: Choice) -> str:
        """The threshold in words."""
        threshold = f"{choice.threshold:.2g}".replace("-", "−")
        return (
            "those whose value is no better than chance (rule chance: keep value > "
            "1 / (classes x images) "
            f"= {threshold})."
        )

    @staticmethod
    def reason(choice: Choice) -> str:
        """The threshold."""
        return not_above(choice)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Drop a given share of the images, the lowest values first."""

    name: ClassVar[str] = "share"
    needs: ClassVar[Needs] = Needs()
    judges_labels: ClassVar[bool] = False
    drop_share: float = 0.2
    """Share of the images to drop, in (0, 1)."""
    per_class: bool = False
    """Drop it within every class rather than overall."""

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero, as the rule has no threshold of its own."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Decide by rank alone."""
        return by_rank(self.name, self.drop_share, valued, "value", per_class=self.per_class)

    @staticmethod
    def describe(choice: Choice) -> str:
        """The share."""
        return f"{choice.rule} ({lowest_share(choice)})"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The share, and that it was requested."""
        return f"{lowest_in_order(choice)}, as requested (rule share)."

    @staticmethod
    def reason(choice: Choice) -> str:
        """The share."""
        return among_lowest(choice)


@dataclass(frozen=True, kw_only=True, slots=True)
class Certain:
    """Drop the images whose value is below zero, with a bounded false-discovery rate (e-BH)."""

    name: ClassVar[str] = "certain"
    needs: ClassVar[Needs] = Needs(sampled_values=True)
    judges_labels: ClassVar[bool] = False
    confidence: float = 0.95
    """One minus the false-discovery rate, in (0, 1)."""

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Drop what e-BH rejects; of the others, keep those whose interval is above zero.

        Raises:
            UserError: the values are exact.
        """
        from dcai_ray.valuation.intervals import e_bh

        if valued.sampled is None:
            raise UserError("rule certain needs sampled values, got exact ones; use zero")
        threshold, alpha = self.threshold(valued.y), 1 - self.confidence
        dropped = e_bh(valued.sampled.log_e, alpha)
        others = np.where(valued.sampled.low > threshold, "keep", "undecided")
        return Choice(
            rule=self.name,
            decision=np.where(dropped, "drop", others),
            threshold=threshold,
            false_discovery=alpha,
        )

    @staticmethod
    def describe(choice: Choice) -> str:
        """The false-discovery rate."""
        return f"certain (false-discovery rate {false_discovery(choice)} %)"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The false-discovery rate, and what it bounds."""
        return (
            "those that are harmful with certainty (rule certain: false-discovery rate "
            f"{false_discovery(choice)}\u00a0%)."
        )

    @staticmethod
    def reason(choice: Choice) -> str:
        """The threshold."""
        return not_above(choice)
