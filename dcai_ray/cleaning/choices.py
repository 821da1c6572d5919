"""The input and the output of a dropping rule: a valued set and a choice.

Both hold plain arrays, so a rule knows nothing of files or clusters. The settings import this
module through the rules, so it imports only NumPy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError


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
    losses: Callable[[Sequence[float]], Sequence[float | None]]
    """Log losses in nats, on the clean images, of probes trained without each of the given shares
    of the lowest values; None where a share would empty a class. May be costly."""
    sampled: Sampled | None = None
    """None if the values are exact. The threshold of its decisions is that of the rule."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choice:
    """What a rule decided, and how: by a threshold or by a share."""

    rule: str
    """Its name in `rules.RULES`."""
    decision: NDArray[np.str_]  # (n,) keep, drop or undecided
    threshold: float | None = None
    """Values above it are kept, in units of the utility."""
    share: float | None = None
    """Share of the images that are dropped, lowest values first."""
    per_class: bool = False
    """Whether that share is dropped within each class rather than overall."""
    log_loss: Mapping[float, float | None] | None = None
    """Log loss of each share tried, in nats; None where a share would empty a class."""
    false_discovery: float | None = None
    """For sampled values: a bound on the expected share of the dropped images whose value is not
    below the threshold."""

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.share is None):
            raise UserError(f"rule {self.rule} must have chosen by a threshold or by a share")

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(n,) whether an image is kept; undecided images are."""
        return np.asarray(self.decision != "drop")

    def cut(self, value: NDArray[np.float64]) -> float | None:
        """The cut-off between the dropped and the kept, given the (n,) values.

        None if no single value does: nothing is dropped, or each class has a cut-off of its own.
        """
        if self.threshold is not None:
            return self.threshold
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
            "per_class": self.per_class or None,
            "log_loss": None if losses is None else {f"{s:g}": loss for s, loss in losses.items()},
            "false_discovery": self.false_discovery,
        }
        return {key: entry for key, entry in entries.items() if entry is not None}

    @classmethod
    def restore(cls, note: Mapping[str, Any], decision: NDArray[np.str_]) -> "Choice":
        """The choice of a `note`, with the (n,) decisions stored beside it.

        Raises:
            UserError: the note has neither a threshold nor a share, or both.
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


def keep_share(
    value: NDArray[np.float64],
    drop_share: float,
    y: NDArray[np.integer],
    *,
    per_class: bool = False,
) -> NDArray[np.bool_]:
    """Drop the lowest values; of equal values, the highest index is dropped first.

    Args:
        value: (n,).
        drop_share: share to drop, in [0, 1).
        y: (n,) class numbers.
        per_class: drop that share within each class rather than overall.
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
        choice: the choice of a rule.
        y: (n,) class numbers.
        classes: the names of the C classes.
    Raises:
        UserError: the message names the classes.
    """
    left = np.bincount(y[choice.kept], minlength=len(classes))
    if (left == 0).any():
        emptied = ", ".join(classes[i] for i in np.flatnonzero(left == 0).tolist())
        raise UserError(
            f"rule {choice.rule} would drop every image of class {emptied}; use the rule share "
            "with per_class, or check that class first"
        )
