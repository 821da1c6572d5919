"""Which training images to drop: rules over the values, and all that belongs to each of them.

    Validated()                    the share whose probe has the smallest log loss on shapley_val
    Zero()                         keep value > 0, as the published study does
    Chance()                       keep value > 1 / (C n), the value of an image without effect
    Share(drop_share=0.2)          the lowest values, as many as requested
    Certain(confidence=0.95)       of sampled values, those that are harmful with certainty

A rule is given a `Valued` set and answers with a `Choice`. Sampled values leave some images
undecided: a rule with a threshold keeps those, a rule by rank decides every image. No rule may
empty a class: `choices.check_classes_kept`.

A class with the members of `Rule` is a rule; a line in `RULES` offers it in the settings. Its
fields are the settings of the same names. The settings import this module, so it loads NumPy alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.choices import Choice, Valued, keep_share
from dcai_ray.errors import UserError

SHARES = tuple(i / 20 for i in range(19))
"""What `Validated` tries: 0 to 90 % in steps of 5 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What the settings of a valuation must offer to a rule."""

    clean_set: bool = False
    """Values by a clean shapley_val."""
    sampled_values: bool = False
    """Values with intervals."""
    utility: str | None = None
    """The one utility it is for; None for any."""

    def unmet(self, *, clean_set: bool, sampled_values: bool, utility: str) -> str:
        """The first need that such a valuation does not meet, in words; empty where all are met."""
        if self.clean_set and not clean_set:
            return "needs a clean shapley_val"
        if self.sampled_values and not sampled_values:
            return "is for value.method sample"
        if self.utility not in (None, utility):
            return f"is for the utility {self.utility}"
        return ""


class Rule(Protocol):
    """What a rule has to have."""

    name: ClassVar[str]
    """In the settings, in messages and in the files of a run."""
    needs: ClassVar[Needs]

    def threshold(self, y: NDArray[np.integer]) -> float:
        """The threshold between harmful and useful images of classes (n,); 0 for rules by rank."""
        ...

    def choose(self, valued: Valued) -> Choice:
        """Decide on every image."""
        ...

    @staticmethod
    def describe(choice: Choice) -> str:
        """The rule with the numbers of a choice, for the terminal."""
        ...

    @staticmethod
    def explain(choice: Choice) -> str:
        """What a choice drops and why, for the report."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated:
    """Drop the share of the lowest values without which a probe does best on clean images."""

    name: ClassVar[str] = "validated"
    needs: ClassVar[Needs] = Needs(clean_set=True)
    per_class: bool = False
    """Drop each share from every class rather than from the whole."""

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero: the rule has none of its own."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Try `SHARES`; of equal losses the smaller share wins."""
        losses = dict(zip(SHARES, valued.losses(SHARES), strict=True))
        known = {share: loss for share, loss in losses.items() if loss is not None}
        share = min(known, key=lambda share: (known[share], share))
        return _by_rank(self.name, share, valued, per_class=self.per_class, log_loss=losses)

    @staticmethod
    def describe(choice: Choice) -> str:
        """The share."""
        return f"{choice.rule} ({_lowest(choice)})"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The share and what it is best for."""
        return (
            f"{_lowest_by_value(choice)}, the share without which a quick classifier has the "
            "smallest log loss on shapley_val (rule validated)."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Zero:
    """Keep the images whose value is above zero."""

    name: ClassVar[str] = "zero"
    needs: ClassVar[Needs] = Needs()

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Drop what is not above zero; of sampled values, what is known not to be."""
        return _by_threshold(self.name, self.threshold(valued.y), valued)

    @staticmethod
    def describe(choice: Choice) -> str:
        """The threshold."""
        return _kept_above(choice)

    @staticmethod
    def explain(choice: Choice) -> str:
        """The threshold in words."""
        return "those that lower the accuracy (rule zero: keep value > 0)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """Keep the images worth more than their part of what guessing scores.

    Without training images a classifier guesses and scores 1 / C, but the utility gives that set a
    score of 0. The n images share the difference equally: an image of no effect has 1 / (C n).
    """

    name: ClassVar[str] = "chance"
    needs: ClassVar[Needs] = Needs(utility="knn")

    def threshold(self, y: NDArray[np.integer]) -> float:
        """1 / (C n), in units of accuracy."""
        return 1 / (len(np.unique(y)) * len(y))

    def choose(self, valued: Valued) -> Choice:
        """Drop what is not above the threshold; of sampled values, what is known not to be."""
        return _by_threshold(self.name, self.threshold(valued.y), valued)

    @staticmethod
    def describe(choice: Choice) -> str:
        """The threshold."""
        return _kept_above(choice)

    @staticmethod
    def explain(choice: Choice) -> str:
        """The threshold in words."""
        threshold = f"{choice.threshold:.2g}".replace("-", "−")
        return (
            "those worth no more than chance (rule chance: keep value > 1 / (classes x images) "
            f"= {threshold})."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Drop a given share of the images, the lowest values first."""

    name: ClassVar[str] = "share"
    needs: ClassVar[Needs] = Needs()
    drop_share: float = 0.2
    """Part of the images to drop, in (0, 1)."""
    per_class: bool = False
    """Drop it from every class rather than from the whole."""

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero: the rule has none of its own."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Decide by rank alone."""
        return _by_rank(self.name, self.drop_share, valued, per_class=self.per_class)

    @staticmethod
    def describe(choice: Choice) -> str:
        """The share."""
        return f"{choice.rule} ({_lowest(choice)})"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The share, and who chose it."""
        return f"{_lowest_by_value(choice)}, as requested (rule share)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Certain:
    """Drop the images whose value is below zero, with a bounded false-discovery rate (e-BH)."""

    name: ClassVar[str] = "certain"
    needs: ClassVar[Needs] = Needs(sampled_values=True)
    confidence: float = 0.95
    """One minus the false-discovery rate, in (0, 1)."""

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Drop what e-BH rejects; the interval says of the others whether they are useful.

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
        return f"certain (false-discovery rate {_false_discovery(choice)} %)"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The false-discovery rate, and of what."""
        return (
            "those that are harmful with certainty (rule certain: false-discovery rate "
            f"{_false_discovery(choice)}\u00a0%)."
        )


RULES: Mapping[str, type[Rule]] = {
    Validated.name: Validated,
    Zero.name: Zero,
    Chance.name: Chance,
    Share.name: Share,
    Certain.name: Certain,
}
"""Every rule by its name: the names that the setting `value.rule` accepts."""

if TYPE_CHECKING:
    RuleName = str
else:
    RuleName = Literal[tuple(RULES)]  # so that the command line lists them


def rule_named(name: str) -> type[Rule]:
    """The kind of rule that has this name.

    Raises:
        UserError: there is none.
    """
    if name not in RULES:
        raise UserError(f"rule must be one of {', '.join(RULES)}, got {name!r}")
    return RULES[name]


def describe(choice: Choice) -> str:
    """The rule of a choice with its numbers, for the terminal."""
    return rule_named(choice.rule).describe(choice)


def explain(choice: Choice) -> str:
    """What a choice drops and why, the end of the report's sentence "... are dropped: "."""
    return rule_named(choice.rule).explain(choice)


def new_rule(name: str, settings: Mapping[str, Any]) -> Rule:
    """The rule of that name; each of its fields is the setting of the same name.

    Raises:
        UserError: there is no such rule.
    """
    rule: Any = rule_named(name)
    return rule(**{entry.name: settings[entry.name] for entry in fields(rule)})


def check_needs(name: str, *, clean_set: bool, sampled_values: bool, utility: str) -> None:
    """Refuse a rule that a valuation cannot serve.

    Args:
        name: of the rule.
        clean_set: whether a clean shapley_val has a part in the values.
        sampled_values: whether they are sampled.
        utility: name of the utility.
    Raises:
        UserError: there is no such rule, or it cannot be used; the message says why, and which
            rules can be.
    """
    rule_named(name)
    unmet = {
        rule: RULES[rule].needs.unmet(
            clean_set=clean_set, sampled_values=sampled_values, utility=utility
        )
        for rule in RULES
    }
    if unmet[name]:
        usable = " or ".join(rule for rule, reason in unmet.items() if not reason)
        raise UserError(f"value.rule {name} {unmet[name]}; use {usable}")


def _by_threshold(name: str, threshold: float, valued: Valued) -> Choice:
    decision = _decided(valued.value > threshold)
    if valued.sampled is not None:
        decision = valued.sampled.decision  # judged at the same threshold; some are undecided
    bound = _false_discovery_bound(valued, decision)
    return Choice(rule=name, decision=decision, threshold=threshold, false_discovery=bound)


def _by_rank(
    name: str,
    share: float,
    valued: Valued,
    *,
    per_class: bool,
    log_loss: Mapping[float, float | None] | None = None,
) -> Choice:
    decision = _decided(keep_share(valued.value, share, valued.y, per_class=per_class))
    return Choice(
        rule=name,
        decision=decision,
        share=share,
        per_class=per_class,
        log_loss=log_loss,
        false_discovery=_false_discovery_bound(valued, decision),
    )


def _decided(kept: NDArray[np.bool_]) -> NDArray[np.str_]:
    return np.where(kept, "keep", "drop")


def _false_discovery_bound(valued: Valued, decision: NDArray[np.str_]) -> float | None:
    """What can be claimed of the dropped; None where the values are exact."""
    if valued.sampled is None:
        return None
    from dcai_ray.valuation.intervals import false_discovery_bound

    return false_discovery_bound(valued.sampled.log_e, decision == "drop")


def _lowest(choice: Choice) -> str:
    assert choice.share is not None
    return f"the lowest {100 * choice.share:.0f} %"


def _lowest_by_value(choice: Choice) -> str:
    lowest = _lowest(choice).replace(" %", "\u00a0%")  # on one line with its sign
    return f"{lowest}{' of each class' if choice.per_class else ''} by value"


def _kept_above(choice: Choice) -> str:
    return f"{choice.rule} (keep value > {choice.threshold:.2g})"


def _false_discovery(choice: Choice) -> str:
    assert choice.false_discovery is not None
    return f"{100 * choice.false_discovery:.0f}"
