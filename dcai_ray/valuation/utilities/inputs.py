"""Labelled points for the utilities: checked, classes numbered, optionally projected.

Classes are numbered 0..C-1 by their labels over training and validation points together, so a class
that only one of them has counts too.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError


@dataclass(frozen=True, slots=True)
class LabelledPoints:
    """Training and validation points."""

    x_train: NDArray[np.floating]  # (n, d)
    y_train: NDArray[np.int64]  # (n,) in 0..C-1
    x_val: NDArray[np.floating]  # (m, d)
    y_val: NDArray[np.int64]  # (m,) in 0..C-1
    labels: NDArray[np.integer]  # (C,) the label of each class number, increasing


def labelled_points(
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    x_val: NDArray[np.floating],
    y_val: NDArray[np.integer],
) -> LabelledPoints:
    """The points as given, their classes numbered.

    Args:
        x_train: (n, d) features.
        y_train: (n,) labels, any integers.
        x_val: (m, d) features of the validation points.
        y_val: (m,) their labels.
    Raises:
        UserError: for sizes that do not fit, features that are not finite or labels that are not
            integers.
    """
    for name, x, y in (("train", x_train, y_train), ("val", x_val, y_val)):
        if x.ndim != 2 or 0 in x.shape:
            raise UserError(
                f"x_{name} must be a non-empty (points, features) array, got shape {x.shape}"
            )
        if y.shape != (len(x),):
            raise UserError(
                f"y_{name} must hold one label for each of {len(x)} points, got shape {y.shape}"
            )
        if not np.issubdtype(y.dtype, np.integer):
            raise UserError(f"y_{name} must be integers, got {y.dtype}")
        bad = np.count_nonzero(~np.isfinite(x))
        if bad:
            raise UserError(f"x_{name} must be finite, got {bad} NaN or infinite entries")
    if x_train.shape[1] != x_val.shape[1]:
        widths = f"{x_train.shape[1]} and {x_val.shape[1]}"
        raise UserError(f"x_train and x_val must have the same number of features, got {widths}")
    labels, numbers = np.unique(np.concatenate([y_train, y_val]), return_inverse=True)
    numbers = numbers.astype(np.int64)
    n = len(x_train)
    return LabelledPoints(x_train, numbers[:n], x_val, numbers[n:], labels)


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
    if num_features is not None and num_features < 1:
        raise UserError(f"num_features must be at least 1 or None, got {num_features}")
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
