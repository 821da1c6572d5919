"""How far a review has come: looked at, found wrong, and how many wrong labels may be left."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dcai_ray.review.decisions import Decision


@dataclass(frozen=True, slots=True)
class Expected:
    """P(wrong) by training image; None where the run knows none."""

    probability: Mapping[str, float] | None

    @classmethod
    def of(cls, values: pa.Table) -> "Expected":
        """From the table of values."""
        if "wrong_probability" not in values.column_names:
            return cls(None)
        chance = np.nan_to_num(values["wrong_probability"].to_numpy())
        return cls(dict(zip(values["id"].to_pylist(), chance.tolist(), strict=True)))


def looked_at(
    decided: Mapping[tuple[str, str], Decision],
    given: Mapping[str, str],
    wrong: Expected,
    unit: str,
) -> str:
    """The line of progress.

    Args:
        decided: the decision that counts for each image, by split and id.
        given: the label of each training image.
        wrong: their probabilities.
        unit: what they are called, in the plural.
    """
    here = {
        image: decision
        for (split, image), decision in decided.items()
        if split == "train" and given.get(image) == decision.given_label
    }
    found = sum(decision.decision in ("drop", "relabel") for decision in here.values())
    line = f"looked at {len(here):,} of {len(given):,} {unit}, {found:,} wrong"
    if wrong.probability is None:
        return line
    left = sum(p for image, p in wrong.probability.items() if image not in here)
    return f"{line}; about {left:,.0f} of the other {len(given) - len(here):,} are wrong"
