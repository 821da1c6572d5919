"""What no rule may do: judge what cannot be judged, or empty a class.

Such images are left undecided, and are kept, with the reason told. What is to be dropped because
its label seems wrong is also kept if its suggested label is the label that it has. That does not
hold for images that are ordered by their value alone: a right label may harm, too.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.rules import rule_named


def trusts_suggestions(choice: Choice) -> bool:
    """Whether an image is kept if its suggested label is the label that it has."""
    return rule_named(choice.rule).judges_labels and choice.ordering != "value"


def safeguarded(
    choice: Choice,
    y: NDArray[np.integer],
    classes: Sequence[str],
    *,
    lacking: NDArray[np.bool_],
    too_small: NDArray[np.bool_],
    suggested: NDArray[np.integer],
) -> Choice:
    """The choice of a rule without what it may not do, and with its reasons.

    Args:
        choice: the choice of a rule.
        y: (n,) class numbers as given.
        classes: the names of the C classes.
        lacking: (C,) classes of which the clean set, which decides, has no image.
        too_small: (C,) classes with too few images to judge them by each other.
        suggested: (n,) class numbers.
    """
    decision = choice.decision.astype(object)
    reason = np.full(len(y), "", dtype=object)
    reason[decision == "drop"] = rule_named(choice.rule).reason(choice)
    if trusts_suggestions(choice):
        right = (decision == "drop") & (suggested == y)
        decision[right], reason[right] = "keep", "the suggested label is the label that it has"
    for c in np.flatnonzero(lacking | too_small).tolist():
        own = y == c
        why = "shapley_val has no image of class" if lacking[c] else "too few images of class"
        decision[own], reason[own] = "undecided", f"{why} {classes[c]}"
    keep_every_class(decision, reason, y, classes)
    return replace(choice, decision=decision.astype(str), reason=reason.astype(str))


def keep_every_class(
    decision: NDArray[np.object_],
    reason: NDArray[np.object_],
    y: NDArray[np.integer],
    classes: Sequence[str],
) -> None:
    """Leave a class undecided that would lose all its images; in place.

    Args:
        decision: (n,) keep, drop or undecided.
        reason: (n,) in words.
        y: (n,) class numbers as given.
        classes: the names of the C classes.
    """
    for c in range(len(classes)):
        own = y == c
        if own.any() and (decision[own] == "drop").all():
            decision[own] = "undecided"
            reason[own] = f"dropping it would leave no image of class {classes[c]}"
