"""The features of a run as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.features import (
    check_same_features,
    class_numbers,
    has_features,
    read_split,
)
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint


@dataclass(frozen=True, slots=True)
class Split:
    """Features with class numbers."""

    x: NDArray[np.float32]  # (k, d)
    y: NDArray[np.int64]  # (k,)


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The features of a run as arrays."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    train: Split
    clean: Split
    """Of shapley_val; no points where there is none."""
    fingerprint: str
    run: Location
    """The run's folder."""


def read_points(run: RunDirectory) -> FeatureSet:
    """Features of train, and of shapley_val where there are any.

    Raises:
        UserError: they are missing, damaged, or do not fit together.
    """
    train = read_split(run.features / "train")
    classes = tuple(sorted(set(train.labels)))
    if len(classes) < 2:
        raise UserError(f"{run.features / 'train'}: only one class ({classes[0]}); two are needed")
    points = Split(train.x, class_numbers(train.labels, classes, run.features / "train"))
    folder = run.features / "shapley_val"
    clean = Split(train.x[:0], points.y[:0])
    fingerprint = [train.fingerprint]
    if has_features(folder):
        found = read_split(folder)
        check_same_features(train, found, ("train", "shapley_val"))
        clean = Split(found.x, class_numbers(found.labels, classes, folder))
        fingerprint.append(found.fingerprint)
    made = new_fingerprint(fingerprint)
    return FeatureSet(train.ids, train.labels, classes, points, clean, made, run.location)


def check_clean(run: RunDirectory, points: FeatureSet) -> None:
    """Refuse to value by a shapley_val that is not there."""
    if not len(points.clean.y):
        raise UserError(
            f"{run.features}: no features of shapley_val to value with; use --validation self"
        )
