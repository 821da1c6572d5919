"""The interface of a dropping rule, and the parts that several rules share.

The settings import the rules, so these modules import only NumPy.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.choices import ORDERINGS, Choice, Valued, keep_share


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a rule requires of a valuation."""

    clean_set: bool = False
    """Whether it needs values by a clean shapley_val."""
    sampled_values: bool = False
    """Whether it needs sampled values, which have intervals."""
    utility: str | None = None
    """The only utility that it supports; None for any."""

    def unmet(self, *, clean_set: bool, sampled_values: bool, utility: str) -> str:
        """The first need that such a valuation does not meet, in words; empty if all are met."""
        if self.clean_set and not clean_set:
            return "needs a clean shapley_val"
        if self.sampled_values and not sampled_values:
            return "needs value.method sample"
        if self.utility not in (None, utility):
            return f"needs the utility {self.utility}"
        return ""


class Rule(Protocol):
    """The interface of a rule."""

    name: ClassVar[str]
    """Its name in the settings, in messages and in the files of a run."""
    needs: ClassVar[Needs]
    """What it requires of the valuation."""
    judges_labels: ClassVar[bool]
    """Whether it weighs the evidence about labels, which copies under another label overrule;
    the others take the values literally."""

    def threshold(self, y: NDArray[np.integer]) -> float:
        """The threshold between harmful and useful images of classes y, (n,); 0 by rank."""
        ...

    def choose(self, valued: Valued) -> Choice:
        """Decide on every image."""
        ...

    @staticmethod
    def describe(choice: Choice) -> str:
        """The rule and the numbers of a choice, in words for the terminal."""
        ...

    @staticmethod
    def explain(choice: Choice) -> str:
        """What a choice drops and why, for the report."""
        ...

    @staticmethod
    def reason(choice: Choice) -> str:
        """Why an image is dropped, for the column of that name."""
        ...


def by_threshold(name: str, threshold: float, valued: Valued) -> Choice:
    """Keep values above a threshold; of sampled values, those not known to be below it."""
    decision = decided(valued.value > threshold)
    if valued.sampled is not None:
        decision = valued.sampled.decision  # at the same threshold; some are undecided
    bound = _false_discovery_bound(valued, decision)
    return Choice(rule=name, decision=decision, threshold=threshold, false_discovery=bound)


def by_rank(name: str, share: float, valued: Valued, ordering: str, *, per_class: bool) -> Choice:
    """Drop a share of the images, those with the lowest scores of an ordering."""
    score = valued.scores(ordering)
    decision = decided(keep_share(score, share, valued.y, per_class=per_class))
    return Choice(
        rule=name,
        decision=decision,
        share=share,
        ordering=ordering,
        per_class=per_class,
        false_discovery=_false_discovery_bound(valued, decision),
    )


def decided(kept: NDArray[np.bool_]) -> NDArray[np.str_]:
    """(n,) keep or drop."""
    return np.where(kept, "keep", "drop")


def _false_discovery_bound(valued: Valued, decision: NDArray[np.str_]) -> float | None:
    """The false-discovery bound of the dropped images; None if the values are exact."""
    if valued.sampled is None:
        return None
    from dcai_ray.valuation.intervals import false_discovery_bound

    return false_discovery_bound(valued.sampled.log_e, decision == "drop")


def lowest_share(choice: Choice) -> str:
    """The share of a choice, in words."""
    assert choice.share is not None
    return f"the lowest {100 * choice.share:.0f} %"


def lowest_in_order(choice: Choice) -> str:
    """The share of a choice and what it is ordered by, in words for the report."""
    lowest = lowest_share(choice).replace(" %", "\u00a0%")  # keeps number and sign on one line
    return f"{lowest}{' of each class' if choice.per_class else ''} {ORDERINGS[choice.ordering]}"


def among_lowest(choice: Choice) -> str:
    """That an image is within the share of a choice, in words."""
    of_each = " of each class" if choice.per_class else ""
    return f"among {lowest_share(choice)}{of_each} {ORDERINGS[choice.ordering]}"


def not_above(choice: Choice) -> str:
    """That an image is not above the threshold of a choice, in words."""
    return f"value is not above {choice.threshold:.2g}"


def kept_above(choice: Choice) -> str:
    """The threshold of a choice, in words."""
    return f"{choice.rule} (keep value > {choice.threshold:.2g})"


def false_discovery(choice: Choice) -> str:
    """The false-discovery rate of a choice in percent."""
    assert choice.false_discovery is not None
    return f"{100 * choice.false_discovery:.0f}"
