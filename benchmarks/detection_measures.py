"""What detection.py measures of scores, probabilities and decisions. Arrays in, figures out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Flags = NDArray[np.bool_]
Figures = dict[tuple[str, str, str], float]
"""Figures by question, method and measure."""
BINS = 5


def ranking(score: NDArray[np.floating], wrong: Flags) -> tuple[float, float, float]:
    """How well high scores (n,) find wrong labels (n,).

    Returns:
        AUC, average precision, and the precision of as many images as there are wrong labels.
    """
    first = np.argsort(-score, kind="stable")[: int(wrong.sum())]
    return (
        float(roc_auc_score(wrong, score)),
        float(average_precision_score(wrong, score)),
        float(wrong[first].mean()),
    )


def reliability(probability: NDArray[np.floating], wrong: Flags) -> NDArray[np.float64]:
    """(5, 3) by bins of equal width: images, their sum of probabilities, wrong labels."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    columns = (np.ones(len(wrong)), probability, wrong)
    return np.stack([np.bincount(bins, c, minlength=BINS) for c in columns], axis=1)


def brier(probability: NDArray[np.floating], wrong: Flags) -> tuple[float, float]:
    """The Brier score of the probabilities (n,), and that of the true share for every image."""
    share = wrong.mean()
    return float(np.mean((probability - wrong) ** 2)), float(share * (1 - share))


def shares(chosen: Flags, among: Flags) -> float:
    """The share of `among` that is chosen; NaN if there are none."""
    return float(chosen[among].mean()) if among.any() else float("nan")


def mean_and_error(figures: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error over what is not NaN; the error of one figure is NaN."""
    known = np.array([f for f in figures if not np.isnan(f)])
    if not len(known):
        return float("nan"), float("nan")
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else float("nan")
    return float(known.mean()), float(error)
