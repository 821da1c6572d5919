"""Rules that decide from the values which training images to drop, with everything about each rule.

    Validated()                    drop the share and by the ordering that serve a probe best on
                                   shapley_val, and no more than it takes
    Wrong(wrong_above=0.5)         drop labels that are wrong with a higher probability
    Doubted()                      drop labels that neighbours, probe and planted errors all doubt
    Zero()                         keep value > 0, as the published study does
    Chance()                       keep value > 1 / (C n), the value of an image without effect
    Share(drop_share=0.2)          drop the lowest values, as many as requested
    Certain(confidence=0.95)       drop sampled values that are below zero with certainty

A rule takes a `Valued` set and returns a `Choice`. Sampled values leave some images undecided: a
rule with a threshold keeps those, a rule by rank decides every image. What no rule may do, such as
emptying a class, is in `safeguards`.

A class with the members of `Rule` is a rule; an entry in `RULES` makes it available in the
settings. Its fields are the settings of the same names. The settings import this module, so it
imports only NumPy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.choices import ORDERINGS, Choice, Valued, keep_share
from dcai_ray.errors import UserError

SHARES = tuple(i / 20 for i in range(19))
"""The shares that `Validated` tries: 0 to 90 % in steps of 5 %."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated:
    """Drop what serves a probe on clean images, by cross-validated log loss, and no more.

    By each ordering, the smallest share is taken whose loss is within one standard error, over the
    clean images, of that ordering's best: dropping more is not known to help (Breiman et al. 1984,
    CART, choose the size of a tree so). Of these choices the one with the smallest loss is taken.
    """

    name: ClassVar[str] = "validated"
    needs: ClassVar[Needs] = Needs(clean_set=True)
    per_class: bool = False
    """Drop each share within every class rather than overall."""

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero, as the rule has no threshold of its own."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Try `SHARES` by each ordering; of equal losses, the first ordering wins."""
        tried = valued.losses(SHARES)
        found = {ordering: _smallest_share(losses) for ordering, losses in tried.items()}
        ordering = min(found, key=lambda name: found[name][1])
        share = found[ordering][0]
        return replace(
            _by_rank(self.name, share, valued, ordering, per_class=self.per_class),
            log_loss={
                tried_share: None if loss is None else float(loss.mean())
                for tried_share, loss in zip(SHARES, tried[ordering], strict=True)
            },
            orderings={name: loss for name, (_, loss) in found.items()},
        )

    @staticmethod
    def describe(choice: Choice) -> str:
        """The share and the ordering."""
        if choice.share == 0:
            return f"{choice.rule} (no share that was tried is better than keeping all)"
        return f"{choice.rule} ({_lowest(choice)} {ORDERINGS[choice.ordering]})"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The share, and why it was chosen."""
        if choice.share == 0:
            return (
                "none, as no share of the lowest images is known to help: without it a quick "
                "classifier does not do better on shapley_val (rule validated)."
            )
        return (
            f"{_lowest_in_order(choice)}, the smallest share that is as good as the best for the "
            "log loss of a quick classifier on shapley_val (rule validated)."
        )


def _smallest_share(losses: Sequence[NDArray[np.float64] | None]) -> tuple[float, float]:
    """The smallest share that is as good as the best, and its mean loss.

    Args:
        losses: (m,) losses of the clean images for each of `SHARES`; None where a share cannot be.
    """
    known = [(share, loss) for share, loss in zip(SHARES, losses, strict=True) if loss is not None]
    best = min((loss for _, loss in known), key=lambda loss: float(loss.mean()))
    for share, loss in known:
        more = loss - best
        error = more.std(ddof=1) / np.sqrt(len(more)) if len(more) > 1 else 0.0
        if more.mean() <= error:
            return share, float(loss.mean())
    raise AssertionError("the best is as good as itself")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """Drop the images whose labels are wrong with a high probability."""

    name: ClassVar[str] = "wrong"
    needs: ClassVar[Needs] = Needs(clean_set=True)
    wrong_above: float = 0.5
    """Probability above which an image is dropped, in (0, 1)."""

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero, as the rule has no threshold of values."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Decide by the probability alone.

        Raises:
            UserError: no probability is known.
        """
        if valued.wrong_probability is None:
            raise UserError(
                "rule wrong needs the probability that a label is wrong, which takes more clean "
                "images; use doubted"
            )
        return Choice(
            rule=self.name,
            decision=_decided(~(valued.wrong_probability > self.wrong_above)),
            probability=self.wrong_above,
            ordering="probability",
        )

    @staticmethod
    def describe(choice: Choice) -> str:
        """The bound."""
        return f"{choice.rule} (P(wrong) > {choice.probability:g})"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The bound in words."""
        return (
            f"those whose label is wrong with a probability above {choice.probability:g} "
            "(rule wrong)."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubted:
    """Drop the images whose labels all evidence from the other training images doubts."""

    name: ClassVar[str] = "doubted"
    needs: ClassVar[Needs] = Needs()

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero, as the rule has no threshold of its own."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Drop what is doubted.

        Raises:
            UserError: the evidence was not computed.
        """
        if valued.doubted is None:
            raise UserError(
                "rule doubted needs values by the training set itself; raise "
                "value.second_opinion_up_to"
            )
        return Choice(rule=self.name, decision=_decided(~valued.doubted), ordering="self")

    @staticmethod
    def describe(choice: Choice) -> str:
        """The witnesses."""
        return f"{choice.rule} (neighbours, probe and planted errors agree)"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The witnesses in words."""
        return (
            "those whose label all evidence from the other training images doubts: their "
            "neighbours, a quick classifier, and likeness to planted errors (rule doubted)."
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
        """Drop values that are not above zero; of sampled values, those known not to be."""
        return _by_threshold(self.name, self.threshold(valued.y), valued)

    @staticmethod
    def describe(choice: Choice) -> str:
        """The threshold."""
        return _kept_above(choice)

    @staticmethod
    def explain(choice: Choice) -> str:
        """The threshold in words."""
        return "those estimated to lower the accuracy (rule zero: keep value > 0)."


@dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """Keep the images whose value exceeds an equal share of the score of guessing.

    Without training images a classifier guesses and scores 1 / C, but the utility of the empty set
    is 0. The n images share the difference equally, so an image without effect has 1 / (C n).
    """

    name: ClassVar[str] = "chance"
    needs: ClassVar[Needs] = Needs(utility="knn")

    def threshold(self, y: NDArray[np.integer]) -> float:
        """1 / (C n), in units of accuracy."""
        return 1 / (len(np.unique(y)) * len(y))

    def choose(self, valued: Valued) -> Choice:
        """Drop values not above the threshold; of sampled values, those known not to be."""
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
            "those whose value is no better than chance (rule chance: keep value > "
            "1 / (classes x images) "
            f"= {threshold})."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Drop a given share of the images, the lowest values first."""

    name: ClassVar[str] = "share"
    needs: ClassVar[Needs] = Needs()
    drop_share: float = 0.2
    """Share of the images to drop, in (0, 1)."""
    per_class: bool = False
    """Drop it within every class rather than overall."""

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero, as the rule has no threshold of its own."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Decide by rank alone."""
        return _by_rank(self.name, self.drop_share, valued, "value", per_class=self.per_class)

    @staticmethod
    def describe(choice: Choice) -> str:
        """The share."""
        return f"{choice.rule} ({_lowest(choice)})"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The share, and that it was requested."""
        return f"{_lowest_in_order(choice)}, as requested (rule share)."


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
        return f"certain (false-discovery rate {_false_discovery(choice)} %)"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The false-discovery rate, and what it bounds."""
        return (
            "those that are harmful with certainty (rule certain: false-discovery rate "
            f"{_false_discovery(choice)}\u00a0%)."
        )


RULES: Mapping[str, type[Rule]] = {
    Validated.name: Validated,
    Wrong.name: Wrong,
    Doubted.name: Doubted,
    Zero.name: Zero,
    Chance.name: Chance,
    Share.name: Share,
    Certain.name: Certain,
}
"""Every rule by its name; the setting `value.rule` accepts these names."""

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
    """Refuse a rule that a valuation does not support.

    Args:
        name: name of the rule.
        clean_set: whether a clean shapley_val contributes to the values.
        sampled_values: whether the values are sampled.
        utility: name of the utility.
    Raises:
        UserError: there is no such rule, or it cannot be used; the message says why, and names
            the rules that can.
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
        decision = valued.sampled.decision  # at the same threshold; some are undecided
    bound = _false_discovery_bound(valued, decision)
    return Choice(rule=name, decision=decision, threshold=threshold, false_discovery=bound)


def _by_rank(name: str, share: float, valued: Valued, ordering: str, *, per_class: bool) -> Choice:
    score = valued.scores(ordering)
    decision = _decided(keep_share(score, share, valued.y, per_class=per_class))
    return Choice(
        rule=name,
        decision=decision,
        share=share,
        ordering=ordering,
        per_class=per_class,
        false_discovery=_false_discovery_bound(valued, decision),
    )


def _decided(kept: NDArray[np.bool_]) -> NDArray[np.str_]:
    return np.where(kept, "keep", "drop")


def _false_discovery_bound(valued: Valued, decision: NDArray[np.str_]) -> float | None:
    """The false-discovery bound of the dropped images; None if the values are exact."""
    if valued.sampled is None:
        return None
    from dcai_ray.valuation.intervals import false_discovery_bound

    return false_discovery_bound(valued.sampled.log_e, decision == "drop")


def _lowest(choice: Choice) -> str:
    assert choice.share is not None
    return f"the lowest {100 * choice.share:.0f} %"


def _lowest_in_order(choice: Choice) -> str:
    lowest = _lowest(choice).replace(" %", "\u00a0%")  # keeps number and sign on one line
    return f"{lowest}{' of each class' if choice.per_class else ''} {ORDERINGS[choice.ordering]}"


def _kept_above(choice: Choice) -> str:
    return f"{choice.rule} (keep value > {choice.threshold:.2g})"


def _false_discovery(choice: Choice) -> str:
    assert choice.false_discovery is not None
    return f"{100 * choice.false_discovery:.0f}"
