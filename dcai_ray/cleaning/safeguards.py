"""What no rule may do: judge what cannot be judged, or empty a class.

Such images are left undecided, and are kept, with the reason told. A rule that orders images by
evidence also keeps those whose suggested label is the label that they have.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.choices import ORDERINGS, Choice
from dcai_ray.cleaning.rules import Doubted, Validated, Wrong

BY_EVIDENCE = (Validated.name, Wrong.name, Doubted.name)
"""Rules that keep an image whose suggested label is its own."""


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
    reason[decision == "drop"] = _why(choice)
    if choice.rule in BY_EVIDENCE:
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


def _why(choice: Choice) -> str:
    if choice.rule == Wrong.name:
        return f"label is wrong with a probability above {choice.probability:g}"
    if choice.rule == Doubted.name:
        return "neighbours, probe and likeness to planted errors speak against the label"
    if choice.threshold is not None:
        return f"value is not above {choice.threshold:.2g}"
    return f"among the lowest {100 * (choice.share or 0):.0f} % {ORDERINGS[choice.ordering]}"
