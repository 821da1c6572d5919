"""Rules that ask what serves a classifier, or whether a label is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.choices import ORDERINGS, Choice, Valued
from dcai_ray.cleaning.rule import (
    Needs,
    among_lowest,
    by_rank,
    decided,
    lowest_in_order,
    lowest_share,
)
from dcai_ray.errors import UserError

SHARES = tuple(i / 20 for i in range(19))
"""The shares that `Validated` tries: 0 to 90 % in steps of 5 %."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Validated:
    """Drop what serves a probe on clean images, by cross-validated log loss, and no more.

    By each ordering, the smallest share is taken whose loss is within one standard error, over the
    clean images, of that ordering's best: dropping more is not known to help (Breiman et al. 1984,
    CART, choose the size of a tree so). Of these choices the one with the smallest loss is taken.
    """

    name: ClassVar[str] = "validated"
    needs: ClassVar[Needs] = Needs(clean_set=True)
    judges_labels: ClassVar[bool] = True
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
            by_rank(self.name, share, valued, ordering, per_class=self.per_class),
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
        return f"{choice.rule} ({lowest_share(choice)} {ORDERINGS[choice.ordering]})"

    @staticmethod
    def explain(choice: Choice) -> str:
        """The share, and why it was chosen."""
        if choice.share == 0:
            return (
                "none, as no share of the lowest images is known to help: without it a quick "
                "classifier does not do better on shapley_val (rule validated)."
            )
        return (
            f"{lowest_in_order(choice)}, the smallest share that is as good as the best for the "
            "log loss of a quick classifier on shapley_val (rule validated)."
        )

    @staticmethod
    def reason(choice: Choice) -> str:
        """The share and the ordering."""
        return among_lowest(choice)


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
    judges_labels: ClassVar[bool] = True
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
            decision=decided(~(valued.wrong_probability > self.wrong_above)),
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

    @staticmethod
    def reason(choice: Choice) -> str:
        """The bound."""
        return f"label is wrong with a probability above {choice.probability:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubted:
    """Drop the images whose labels all evidence from the other training images doubts."""

    name: ClassVar[str] = "doubted"
    needs: ClassVar[Needs] = Needs()
    judges_labels: ClassVar[bool] = True

    def threshold(self, y: NDArray[np.integer]) -> float:
        """Zero, as the rule has no threshold of its own."""
        return 0.0

    def choose(self, valued: Valued) -> Choice:
        """Drop what is doubted."""
        assert valued.doubted is not None, "step 2b asks the training images for this rule"
        return Choice(rule=self.name, decision=decided(~valued.doubted), ordering="self")

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

    @staticmethod
    def reason(choice: Choice) -> str:
        """The witnesses."""
        return "neighbours, probe and likeness to planted errors speak against the label"
