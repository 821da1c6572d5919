"""Rules that decide which training images to drop, with everything about each rule.

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

A class with the members of `Rule` (in `rule`) is a rule, in `value_rules` or `evidence_rules`; an
entry in `RULES` makes it available in the settings. Its fields are the settings of the same names.
The settings import these modules, so they import only NumPy.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.evidence_rules import SHARES, Doubted, Validated, Wrong
from dcai_ray.cleaning.rule import Rule
from dcai_ray.cleaning.value_rules import Certain, Chance, Share, Zero
from dcai_ray.errors import UserError

__all__ = [
    "RULES",
    "SHARES",
    "Certain",
    "Chance",
    "Doubted",
    "Rule",
    "RuleName",
    "Share",
    "Validated",
    "Wrong",
    "Zero",
    "check_needs",
    "describe",
    "explain",
    "new_rule",
    "rule_named",
]

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
