"""Scores of a classifier's class scores or probabilities against the true classes.

Of m points, with classes numbered 0..C-1 and the larger score the more likely class:

    accuracy            share of the points whose predicted class is the true one
    balanced-accuracy   mean of the shares among the points of each class present
    auroc               mean over classes present of the probability that a point of the class has a
                        larger score for it than one of another class, ties half; 0.5 if only one
                        class is present
    neg-log-loss        mean log of the probability of the true class, clipped as scikit-learn does

All grow with the quality of the classifier. The predicted class is the one with the largest score,
of those that tie the smallest. The truth for every one of them is `sklearn.metrics`.
"""

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError

Score = Literal["accuracy", "balanced-accuracy", "auroc", "neg-log-loss"]

TIE = 1e-7
"""Scores nearer to each other than this tie: the rounding errors of a model do not pick a class."""


def score_of(name: Score, scores: NDArray[np.float64], y_val: NDArray[np.int64]) -> float:
    """The score of a classifier; see the module's docstring for the definitions.

    Args:
        name: which.
        scores: (m, C) class scores; for "neg-log-loss" probabilities.
        y_val: (m,) true classes in 0..C-1.
    Returns:
        Between 0 and 1, and at most 0 for "neg-log-loss" (at least log 2^-52, about -36).
    Raises:
        UserError: for an unknown name.
    """
    match name:
        case "accuracy":
            return float(np.count_nonzero(predicted_classes(scores) == y_val) / len(y_val))
        case "balanced-accuracy":
            right = predicted_classes(scores) == y_val
            return float(np.mean([right[y_val == c].mean() for c in np.unique(y_val)]))
        case "auroc":
            area = auroc(scores, y_val)
            return 0.5 if math.isnan(area) else area
        case "neg-log-loss":
            least = np.finfo(np.float64).eps
            likelihood = np.clip(scores[np.arange(len(y_val)), y_val], least, 1 - least)
            return float(np.log(likelihood).mean())
    raise UserError(f"score must be {', '.join(get_args(Score))}, got {name!r}")


def predicted_classes(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """(m,) classes with the largest of `scores` (m, C), the smallest of those that tie."""
    return np.argmax(scores >= scores.max(axis=1, keepdims=True) - TIE, axis=1)


def score_range(name: Score) -> float:
    """The most by which two scores differ; infinite for "neg-log-loss".

    Clipping bounds that one too, but by so much that no interval would profit.
    """
    return math.inf if name == "neg-log-loss" else 1.0


def empty_score(
    name: Score, y_val: NDArray[np.int64], num_classes: int, given: float | None
) -> float:
    """v(empty): as given, else the score of the validation set's class frequencies as constant
    prediction.

    This is the share of the largest class for "accuracy", 1 / classes present for
    "balanced-accuracy", 0.5 for "auroc" and minus the entropy of the classes for "neg-log-loss".

    Raises:
        UserError: for an unknown name, or a value that no classifier could have.
    """
    frequencies = np.bincount(y_val, minlength=num_classes) / len(y_val)
    constant = score_of(name, np.tile(frequencies, (len(y_val), 1)), y_val)
    if given is None:
        return constant
    low, high = (-math.inf, 0.0) if name == "neg-log-loss" else (0.0, 1.0)
    if not low <= given <= high or math.isinf(given):
        raise UserError(f"empty must be a value of {name} from {low:g} to {high:g}, got {given}")
    return float(given)


def differences(
    values: NDArray[np.float64], offsets: NDArray[np.int64], empty: float
) -> NDArray[np.float64]:
    """(t,) marginals from the scores of the prefixes of orders laid end to end.

    Args:
        values: (t,) score of each order's prefix up to and with that player.
        offsets: (s + 1,) where orders begin, as in `Orders`.
        empty: v(empty).
    """
    before = np.empty(len(values))
    before[1:] = values[:-1]
    starts = offsets[:-1]
    before[starts[starts < offsets[1:]]] = empty  # an order without players begins nowhere
    return values - before


def auroc(scores: NDArray[np.floating], y_val: NDArray[np.integer]) -> float:
    """Area under the ROC curve of each class against the rest, mean over the classes present.

    By ranks: the Mann-Whitney statistic over its largest value.

    Args:
        scores: (m, C) class scores or probabilities.
        y_val: (m,) true classes in 0..C-1.
    Returns:
        In [0, 1]; NaN where only one class is present.
    """
    from scipy.stats import rankdata  # here: .4 s that most workers never need

    present, counts = np.unique(y_val, return_counts=True)
    if len(present) < 2:
        return math.nan
    areas = []
    for c, count in zip(present, counts, strict=True):
        ranks = rankdata(scores[:, c])[y_val == c]
        wins = ranks.sum() - count * (count + 1) / 2
        areas.append(wins / (count * (len(y_val) - count)))
    return float(np.mean(areas))
