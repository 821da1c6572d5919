"""Which training images to drop: rules over the values, and all that belongs to each of them.

    Validated()                    the share whose probe has the smallest log loss on shapley_val
    Zero()                         keep value > 0, as the published study does
    Chance()                       keep value > 1 / (C n), the value of an image without effect
    Share(drop_share=0.2)          the lowest values, as many as requested
    Certain(confidence=0.95)       of sampled values, those that are harmful with certainty

A rule is given a `Valued` set and answers with a `Choice`; both are plain arrays, so a rule knows
nothing of files or clusters. Sampled values leave some images undecided: a rule with a threshold
keeps those, a rule by rank decides every image. No rule may empty a class: `check_classes_kept`.

A class with the members of `Rule` is a rule; a line in `RULES` offers it in the settings. Its
fields are the settings of the same names. The settings import this module, so it loads NumPy alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError

SHARES = tuple(i / 20 for i in range(19))
"""What `Validated` tries: 0 to 90 % in steps of 5 %."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sampled:
    """What sampling knows of each image besides its value."""

    low: NDArray[np.float64]  # (n,) lower bounds of the intervals, in units of the utility
    decision: NDArray[np.str_]  # (n,) keep, drop or undecided: the intervals against the threshold
    log_e: NDArray[np.float64]  # (n,) log e-values, evidence that a value is below the threshold


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Valued:
    """A valued training set: all that a rule may look at."""

    value: NDArray[np.float64]  # (n,) in units of the utility
    y: NDArray[np.integer]  # (n,) class numbers
    losses: Callable[[Sequence[float]], Sequence[float | None]]
    """Log losses in nats, on the clean images, of probes trained without each of the given shares
    of the lowest values; None where a share would empty a class. May be costly."""
    sampled: Sampled | None = None
    """None where the values are exact. Its threshold is that of the rule."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choice:
    """What a rule decided, and how it came to that: by a threshold or by a share."""

    rule: str
    """A name in `RULES`."""
    decision: NDArray[np.str_]  # (n,) keep, drop or undecided
    threshold: float | None = None
    """Values above it are kept, in units of the utility."""
    share: float | None = None
    """Part of the images that is dropped, the lowest values first."""
    per_class: bool = False
    """Whether that share is dropped from each class rather than from the whole."""
    log_loss: Mapping[float, float | None] | None = None
    """Of the shares that were tried, in nats; None where a share would empty a class."""
    false_discovery: float | None = None
    """Of sampled values: bound on the expected share of the dropped whose value is not below the
    threshold."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UserError(f"rule must be one of {', '.join(RULES)}, got {self.rule!r}")
        if (self.threshold is None) == (self.share is None):
            raise UserError(f"rule {self.rule} must have chosen by a threshold or by a share")

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(n,) whether an image is kept; the undecided are."""
        return np.asarray(self.decision != "drop")

    def describe(self) -> str:
        """The rule with its numbers, for the terminal."""
        return RULES[self.rule].describe(self)

    def explain(self) -> str:
        """What is dropped and why, the end of the report's sentence "... are dropped: "."""
        return RULES[self.rule].explain(self)

    def cut(self, value: NDArray[np.float64]) -> float | None:
        """The value (of (n,) in all) that separates the dropped from the kept.

        None where no single value does: nothing is dropped, or each class has a cut of its own.
        """
        if self.threshold is not None:
            return self.threshold
        dropped, kept = value[~self.kept], value[self.kept]
        if not len(dropped) or not len(kept) or dropped.max() > kept.min():
            return None
        return float((dropped.max() + kept.min()) / 2)

    def note(self) -> dict[str, Any]:
        """How the choice was made, as JSON holds it; the decisions are a column of their own."""
        losses = self.log_loss
        entries = {
            "rule": self.rule,
            "threshold": self.threshold,
            "share": self.share,
            "per_class": self.per_class or None,
            "log_loss": None if losses is None else {f"{s:g}": loss for s, loss in losses.items()},
            "false_discovery": self.false_discovery,
        }
        return {key: entry for key, entry in entries.items() if entry is not None}

    @classmethod
    def restore(cls, note: Mapping[str, Any], decision: NDArray[np.str_]) -> "Choice":
        """The choice of a `note`, with the (n,) decisions that were stored beside it.

        Raises:
            UserError: the note names no rule that is known.
        """
        losses = note.get("log_loss")
        return cls(
            rule=note.get("rule", ""),
            decision=decision,
            threshold=note.get("threshold"),
            share=note.get("share"),
            per_class=note.get("per_class", False),
            log_loss=None if losses is None else {float(s): loss for s, loss in losses.items()},
            false_discovery=note.get("false_discovery"),
        )


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


_ALL: tuple[type[Rule], ...] = (
    Validated,
    Zero,
    Chance,
    Share,
    Certain,
)
RULES: Mapping[str, type[Rule]] = {rule.name: rule for rule in _ALL}
"""Every rule by its name: the names that the setting `value.rule` accepts."""

if TYPE_CHECKING:
    RuleName = str
else:
    RuleName = Literal[tuple(RULES)]  # so that the command line lists them


def new_rule(name: str, settings: Mapping[str, Any]) -> Rule:
    """The rule of that name; each of its fields is the setting of the same name.

    Raises:
        UserError: there is no such rule.
    """
    if name not in RULES:
        raise UserError(f"rule must be one of {', '.join(RULES)}, got {name!r}")
    rule: Any = RULES[name]
    return rule(**{entry.name: settings[entry.name] for entry in fields(rule)})


def check_needs(name: str, *, clean_set: bool, sampled_values: bool, utility: str) -> None:
    """Refuse a rule that a valuation cannot serve.

    Args:
        name: of the rule.
        clean_set: whether a clean shapley_val has a part in the values.
        sampled_values: whether they are sampled.
        utility: name of the utility.
    Raises:
        UserError: it cannot; the message says why, and which rules can be used.
    """
    unmet = {
        rule: RULES[rule].needs.unmet(
            clean_set=clean_set, sampled_values=sampled_values, utility=utility
        )
        for rule in RULES
    }
    if unmet[name]:
        usable = " or ".join(rule for rule, reason in unmet.items() if not reason)
        raise UserError(f"value.rule {name} {unmet[name]}; use {usable}")


def keep_share(
    value: NDArray[np.float64],
    drop_share: float,
    y: NDArray[np.integer],
    *,
    per_class: bool = False,
) -> NDArray[np.bool_]:
    """Drop the lowest values; of equal values the highest index is dropped first.

    Args:
        value: (n,).
        drop_share: part to drop, in [0, 1).
        y: (n,) class numbers.
        per_class: drop that share of each class rather than of the whole.
    Returns:
        (n,) whether an image is kept.
    """
    kept = np.ones(len(value), dtype=bool)
    groups = [np.flatnonzero(y == c) for c in np.unique(y)] if per_class else [np.arange(len(y))]
    for group in groups:
        lowest = np.lexsort((-group, value[group]))
        kept[group[lowest[: round(drop_share * len(group))]]] = False
    return kept


def check_classes_kept(choice: Choice, y: NDArray[np.integer], classes: Sequence[str]) -> None:
    """Refuse a choice that leaves a class without images.

    Args:
        choice: of a rule.
        y: (n,) class numbers.
        classes: their C names.
    Raises:
        UserError: the message names the classes.
    """
    left = np.bincount(y[choice.kept], minlength=len(classes))
    if (left == 0).any():
        emptied = ", ".join(classes[i] for i in np.flatnonzero(left == 0).tolist())
        raise UserError(
            f"rule {choice.rule} would drop every image of class {emptied}; choose the rule share "
            "with per_class, or look at that class first"
        )


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
