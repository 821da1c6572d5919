"""The input and the output of a dropping rule: a valued set and a choice.

Both hold plain arrays, so a rule knows nothing of files or clusters. The settings import this
module through the rules, so it imports only NumPy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sampled:
    """What sampling yields for each image besides its value."""

    low: NDArray[np.float64]  # (n,) lower bounds of the intervals, in units of the utility
    decision: NDArray[np.str_]  # (n,) keep, drop or undecided: the intervals against the threshold
    log_e: NDArray[np.float64]  # (n,) log e-values, evidence that a value is below the threshold


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Valued:
    """A valued training set: everything that a rule may use."""

    value: NDArray[np.float64]  # (n,) in units of the utility
    y: NDArray[np.integer]  # (n,) class numbers
    losses: Callable[[Sequence[float]], Mapping[str, Sequence[NDArray[np.float64] | None]]]
    """By ordering, the losses of probes trained without each of the given shares of its lowest
    images: (m,) log loss of each clean image in nats; None where a share cannot be dropped. May
    be costly."""
    orderings: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Scores (n,) that images may be ordered by, the lowest to be dropped first, by their names in
    `ORDERINGS`; `value` is one of them anyway. What is never to be dropped has an infinite one."""
    wrong_probability: NDArray[np.float64] | None = None  # (n,) NaN where nothing is known
    doubted: NDArray[np.bool_] | None = None
    """(n,) whether all evidence from the other training images speaks against the label."""
    sampled: Sampled | None = None
    """None if the values are exact. The threshold of its decisions is that of the rule."""

    def scores(self, ordering: str) -> NDArray[np.float64]:
        """(n,) scores of an ordering."""
        if ordering == "value":
            return self.orderings.get(ordering, self.value)
        return self.orderings[ordering]


ORDERINGS = {
    "value": "by value",
    "self": "by self-valuation",
    "both": "by value, clean and training images together",
    "probability": "by the probability that the label is right",
}
"""What images may be ordered by, in words."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choice:
    """What a rule decided, and how: by a threshold, by a share, or image by image."""

    rule: str
    """Its name in `rules.RULES`."""
    decision: NDArray[np.str_]  # (n,) keep, drop or undecided
    threshold: float | None = None
    """Values above it are kept, in units of the utility."""
    share: float | None = None
    """Share of the images that are dropped, lowest first."""
    ordering: str = "value"
    """What they are ordered by, see `ORDERINGS`."""
    per_class: bool = False
    """Whether that share is dropped within each class rather than overall."""
    log_loss: Mapping[float, float | None] | None = None
    """Log loss of each share tried, in nats; None where a share would empty a class."""
    orderings: Mapping[str, float] | None = None
    """Log loss of the choice that each ordering would have made."""
    probability: float | None = None
    """Images that are wrong with a higher probability are dropped."""
    reason: NDArray[np.str_] | None = None  # (n,) why, in words; empty where nothing is to say
    false_discovery: float | None = None
    """For sampled values: a bound on the expected share of the dropped images whose value is not
    below the threshold."""

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(n,) whether an image is kept; undecided images are."""
        return np.asarray(self.decision != "drop")

    def cut(self, value: NDArray[np.float64]) -> float | None:
        """The cut-off between the dropped and the kept, given the (n,) values.

        None if no single value does: nothing is dropped, each class has a cut-off of its own, or
        the images are not ordered by value.
        """
        if self.threshold is not None:
            return self.threshold
        if self.share is None or self.ordering != "value":
            return None
        dropped, kept = value[~self.kept], value[self.kept]
        if not len(dropped) or not len(kept) or dropped.max() > kept.min():
            return None
        return float((dropped.max() + kept.min()) / 2)

    def note(self) -> dict[str, Any]:
        """How the choice was made, ready for JSON; the decisions are stored in a column."""
        losses = self.log_loss
        entries = {
            "rule": self.rule,
            "threshold": self.threshold,
            "share": self.share,
            "ordering": None if self.ordering == "value" else self.ordering,
            "orderings": self.orderings,
            "probability": self.probability,
            "per_class": self.per_class or None,
            "log_loss": None if losses is None else {f"{s:g}": loss for s, loss in losses.items()},
            "false_discovery": self.false_discovery,
        }
        return {key: entry for key, entry in entries.items() if entry is not None}

    @classmethod
    def restore(cls, note: Mapping[str, Any], decision: NDArray[np.str_]) -> "Choice":
        """The choice of a `note`, with the (n,) decisions stored beside it."""
        losses = note.get("log_loss")
        return cls(
            rule=note.get("rule", ""),
            decision=decision,
            threshold=note.get("threshold"),
            share=note.get("share"),
            ordering=note.get("ordering", "value"),
            orderings=note.get("orderings"),
            probability=note.get("probability"),
            per_class=note.get("per_class", False),
            log_loss=None if losses is None else {float(s): loss for s, loss in losses.items()},
            false_discovery=note.get("false_discovery"),
        )


def keep_share(
    score: NDArray[np.float64],
    drop_share: float,
    y: NDArray[np.integer],
    *,
    per_class: bool = False,
) -> NDArray[np.bool_]:
    """Drop the lowest scores; of equal ones, the highest index is dropped first.

    Args:
        score: (n,) such as values; an infinite one is never dropped.
        drop_share: share to drop, in [0, 1).
        y: (n,) class numbers.
        per_class: drop that share within each class rather than overall.
    Returns:
        (n,) whether an image is kept.
    """
    kept = np.ones(len(score), dtype=bool)
    groups = [np.flatnonzero(y == c) for c in np.unique(y)] if per_class else [np.arange(len(y))]
    for group in groups:
        lowest = np.lexsort((-group, score[group]))
        kept[group[lowest[: round(drop_share * len(group))]]] = False
    return kept | np.isposinf(score)
