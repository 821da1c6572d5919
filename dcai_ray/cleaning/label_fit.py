"""Whether the labels of a set belong to its images at all, and mean the same as those of another.

A list in another order than the files leaves labels that fit their images as often as by chance. A
count from 1 instead of 0, or classes sorted otherwise, leaves two sets that are each consistent and
contradict each other. Both look like wrong labels, nearly all of them, to whatever judges labels
one by one.

Labels are predicted by the ridge probe (`cleaning.ridge`): those of a set by its other images, and
those of a second set by the first. If k of m predictions are the label, and predictions and labels
had nothing to do with each other, k would come from the binomial distribution with chance

    p = sum over classes of (share of the predictions) (share of the labels)

Labels fit by chance only if k is not significantly above p m, and significantly below what a weak
agreement would give (a chance-corrected one, Cohen's kappa, of `_WEAK`): few images tell nothing.
The classes of the two sets are matched by the assignment that agrees with most predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom

from dcai_ray.cleaning.ridge import left_out_predictions

_PENALTY = 1.0
_LEVEL = 0.01  # of both tests
_WEAK = 0.25
_SILENT = 1e-9  # weight of the images that are predicted only
_MOST = 2 / 3  # of the images of a class that are another one to the first set, for a renamed class
_FEWEST = 5  # images that tell whether a class is renamed
_SHOWN = 3  # classes named
_ORDER = "; are they in the order of the images?"
_FEATURES = " If they are, the features do not show these classes, and another network is needed"


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Images with their labels, and what to call them."""

    name: str
    x: NDArray[np.floating]  # (n, d)
    y: NDArray[np.int64]  # (n,) class numbers


def label_doubts(
    first: LabelledSet, second: LabelledSet | None, classes: Sequence[str]
) -> tuple[str, ...]:
    """What is wrong with the labels as a whole, as sentences without their full stops.

    Args:
        first: images of at least two classes.
        second: others, whose features are comparable; None, or of no image, without any.
        classes: the names of the C classes.
    """
    second = second if second is not None and len(second.y) else None
    own, across = _predictions(first, second, len(classes))
    judged = [(first, own)]
    if second is not None and len(np.unique(second.y)) > 1:
        judged.append((second, _predictions(second, None, len(classes))[0]))
    random = [(images, own) for images, own in judged if _is_chance(own, images.y)]
    if random or second is None:
        hint = _ORDER if len(random) < len(judged) else _ORDER + _FEATURES
        return tuple(_random_line(images, own) + hint for images, own in random)
    renamed = _renamed(across, second.y, len(classes))
    if renamed:
        pairs = [f"{classes[b]} of {first.name} is {classes[a]}" for a, b in renamed[:_SHOWN]]
        more = len(renamed) - len(pairs)
        listed = ", ".join(pairs) + (f" and so on for {more} more" if more else "")
        return (
            f"{first.name} and {second.name} name classes differently, each in itself "
            f"consistently: what looks like {listed} in {second.name}; are their labels counted "
            "or sorted differently?",
        )
    if _is_chance(across, second.y):
        return (
            f"the labels of {first.name} and {second.name} have nothing to do with each other: the "
            f"images of {first.name} suggest {_matches(across, second.y)}",
        )
    return ()


def _predictions(
    learnt: LabelledSet, others: LabelledSet | None, num_classes: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Labels of a set by its other images (n,), and of others by all of it (m,)."""
    n, m = len(learnt.y), 0 if others is None else len(others.y)
    weights = np.full(n + m, _SILENT)
    weights[:n] = 1 / np.bincount(learnt.y, minlength=num_classes)[learnt.y]
    targets = np.zeros((n + m, num_classes))
    targets[np.arange(n), learnt.y] = 1.0
    x = learnt.x if others is None else np.concatenate([learnt.x, others.x])
    (scores,) = left_out_predictions(x, targets, weights, [_PENALTY])
    predicted = scores.argmax(axis=1)
    return predicted[:n], predicted[n:]


def _expected(predicted: NDArray[np.intp], y: NDArray[np.integer]) -> float:
    """The share of predictions that would be right by chance."""
    size = int(max(predicted.max(), y.max())) + 1
    counts = [np.bincount(each, minlength=size) / len(y) for each in (predicted, y)]
    return float(counts[0] @ counts[1])


def _is_chance(predicted: NDArray[np.intp], y: NDArray[np.integer]) -> bool:
    """Whether predictions are right by chance only."""
    right, chance = int(np.count_nonzero(predicted == y)), _expected(predicted, y)
    better = binom.sf(right - 1, len(y), chance) <= _LEVEL
    worse = binom.cdf(right, len(y), chance + (1 - chance) * _WEAK) <= _LEVEL
    return bool(worse and not better)


def _matches(predicted: NDArray[np.intp], y: NDArray[np.integer]) -> str:
    right, chance = np.count_nonzero(predicted == y), len(y) * _expected(predicted, y)
    return f"{right:,} of its {len(y):,} labels, and would suggest {chance:,.0f} by chance"


def _random_line(images: LabelledSet, predicted: NDArray[np.intp]) -> str:
    return (
        f"the labels of {images.name} fit its images no better than by chance: the other images "
        f"suggest {_matches(predicted, images.y)}"
    )


def _renamed(
    predicted: NDArray[np.intp], y: NDArray[np.integer], num_classes: int
) -> list[tuple[int, int]]:
    """Classes of the second set and what they are called in the first, in closed rounds."""
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (y, predicted), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    name = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    total = counts.sum(axis=1)
    moved = {
        a for a, b in name.items() if a != b and total[a] >= _FEWEST
        and counts[a, b] > _MOST * total[a]
    }  # fmt: skip
    while left := {a for a in moved if name[a] not in moved}:
        moved -= left
    return [(a, name[a]) for a in sorted(moved)]
