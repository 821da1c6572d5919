"""The order in which a person should look at the images: most suspicious first.

Images that have a copy under another label come before all others: one of the two labels is wrong.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ranking:
    """The best score that a run has for its images."""

    name: str
    """P(wrong), suspicion or value."""
    sign: str
    """What speaks against a label, in words: "high P(wrong)"."""
    score: NDArray[np.float64]  # (n,) the lower, the more suspicious
    order: NDArray[np.intp]  # (n,) indices of the images, the most suspicious first


def ranking(values: pa.Table) -> Ranking:
    """By P(wrong) where it is known, else by suspicion, else by value.

    Images of a class without P(wrong) come last, as nothing is known against them; images with
    equal scores are ordered by value.

    Args:
        values: the table of values.
    """
    value, alone = values["value"].to_numpy(), np.ones(len(values), dtype=bool)
    if "conflict" in values.column_names:
        alone = np.array([not conflict for conflict in values["conflict"].to_pylist()])
    for column, name in (("wrong_probability", "P(wrong)"), ("suspicion", "suspicion")):
        if column in values.column_names:
            known = values[column].to_numpy()
            score = -np.where(np.isnan(known), 0.0, known)
            order = np.lexsort((value, score, np.isnan(known), alone))
            return Ranking(name=name, sign=f"high {name}", score=score, order=order)
    order = np.lexsort((value, alone))
    return Ranking(name="value", sign="low value", score=value, order=order)
