"""Labelled points for the utilities: checked, classes numbered, optionally projected.

Classes are numbered 0..C-1 by their labels over training and validation points together, so a class
that only one of them has counts too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.arrays import class_labels, feature_matrix, numbered, whole_number


@dataclass(frozen=True, slots=True)
class LabelledPoints:
    """Training and validation points."""

    x_train: NDArray[np.floating]  # (n, d)
    y_train: NDArray[np.int64]  # (n,) in 0..C-1
    x_val: NDArray[np.floating]  # (m, d)
    y_val: NDArray[np.int64]  # (m,) in 0..C-1
    labels: NDArray[Any]  # (C,) the label of each class number, increasing: int64 or text


def labelled_points(
    x_train: ArrayLike, y_train: ArrayLike, x_val: ArrayLike, y_val: ArrayLike
) -> LabelledPoints:
    """The points as arrays, their classes numbered.

    Args:
        x_train: (n, d) features; arrays, lists, data frames, tensors or sparse matrices.
        y_train: (n,) labels: whole numbers, booleans or text.
        x_val: (m, d) features of the validation points.
        y_val: (m,) their labels.
    Raises:
        UserError: for sizes that do not fit, features that are not finite, or labels that are soft,
            missing, fractions or of several kinds.
    """
    train, val = feature_matrix("x_train", x_train), feature_matrix("x_val", x_val)
    given, wanted = class_labels("y_train", y_train), class_labels("y_val", y_val)
    check_sizes(train, given, val, wanted)
    numbers, others, labels = numbered(given, wanted)
    return LabelledPoints(train, numbers, val, others, labels)


def check_sizes(
    x_train: NDArray[Any], y_train: NDArray[Any], x_val: NDArray[Any], y_val: NDArray[Any]
) -> None:
    """Refuse points that do not fit together.

    Raises:
        UserError: not one label per point, or features of different widths.
    """
    for name, x, y in (("train", x_train, y_train), ("val", x_val, y_val)):
        if len(x) != len(y):
            sizes = f"{len(x)} and {len(y)}"
            raise UserError(f"x_{name} and y_{name} must have one row per point, got {sizes}")
    if x_train.shape[1] != x_val.shape[1]:
        widths = f"{x_train.shape[1]} and {x_val.shape[1]}"
        raise UserError(f"x_train and x_val must have the same number of features, got {widths}")


def projected(points: LabelledPoints, num_features: int | None) -> LabelledPoints:
    """The points in float64, centred on the training points and on their first principal axes.

    The axes come from all training points and no label: they are the same for every coalition. A
    full SVD finds them, without randomness; the largest entry of each axis is positive. The last
    bits depend on the LAPACK library, so for bitwise reproducible values on several nodes the
    utility is constructed once and sent to them.

    Args:
        points: n training points of d features.
        num_features: number of axes kept; None, or at least d: all features, centred but not
            rotated. With n < num_features points there are only n axes.
    Raises:
        UserError: for num_features < 1.
    """
    if num_features is not None:
        num_features = whole_number("num_features", num_features)
    centre = points.x_train.mean(axis=0, dtype=np.float64)
    train, val = points.x_train - centre, points.x_val - centre
    if num_features is not None and num_features < train.shape[1]:
        axes = np.linalg.svd(train, full_matrices=False)[2][:num_features]  # (num_features, d)
        largest = np.abs(axes).argmax(axis=1)
        axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, np.newaxis]
        train, val = train @ axes.T, val @ axes.T
    return LabelledPoints(train, points.y_train, val, points.y_val, points.labels)


def with_intercept(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, d + 1) float64, C-contiguous: the features and a column of ones."""
    return np.concatenate([x, np.ones((len(x), 1))], axis=1, dtype=np.float64)
