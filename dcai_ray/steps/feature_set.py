"""The features of a run as arrays, read once per step and only where they are used."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.features import (
    Features,
    Manifest,
    check_same_features,
    class_numbers,
    find_split,
    read_manifest,
    read_split,
)
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint


@dataclass(frozen=True, slots=True)
class Split:
    """Features with class numbers."""

    x: NDArray[np.float32]  # (k, d)
    y: NDArray[np.int64]  # (k,)


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """The features of a run.

    Its fingerprint comes from the manifests alone, so a step that is up to date reads no features.
    A split is read when it is first used, and then kept.

    Raises:
        UserError: on first use, where shards are damaged or do not fit together.
    """

    run: Location
    """The run's folder."""
    folder: Location
    """The folder of the features."""
    manifests: dict[str, Manifest]
    """The manifests of the existing splits."""

    @classmethod
    def of(cls, run: Location, train: Features) -> "FeatureSet":
        """Features that no file holds, as a training set without others."""
        found = cls(run=run, folder=run / "features", manifests={})
        found.__dict__["_train"] = train  # where the cached property keeps it
        return found

    @property
    def fingerprint(self) -> str:
        """The fingerprint of all splits."""
        return new_fingerprint([manifest.fingerprint for manifest in self.manifests.values()])

    @property
    def has_clean(self) -> bool:
        """Whether there is a shapley_val."""
        return "shapley_val" in self.manifests

    @property
    def ids(self) -> tuple[str, ...]:
        """(n,) of the training images."""
        return self._train.ids

    @property
    def labels(self) -> tuple[str, ...]:
        """(n,) of the training images."""
        return self._train.labels

    @property
    def clean_ids(self) -> tuple[str, ...]:
        """(m,) of the images of shapley_val; none where there is none."""
        return self._clean.ids if self.has_clean else ()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes of the training images, sorted: class number i is classes[i]."""
        classes = tuple(sorted(set(self.labels)))
        if len(classes) < 2:
            raise UserError(
                f"{self.folder / 'train'}: only one class ({classes[0]}); at least two are needed"
            )
        return classes

    @cached_property
    def train(self) -> Split:
        """The training images."""
        return self._numbered("train", self._train)

    @cached_property
    def clean(self) -> Split:
        """The images of shapley_val; no points where there is none."""
        if not self.has_clean:
            return Split(self.train.x[:0], self.train.y[:0])
        return self._numbered("shapley_val", self._clean)

    @cached_property
    def val(self) -> Split:
        """The images of val, for a set that was opened with it."""
        return self._numbered("val", self._val)

    @property
    def val_ids(self) -> tuple[str, ...]:
        """Of the images of val."""
        return self._val.ids

    @cached_property
    def _train(self) -> Features:
        return read_split(self.folder / "train", self.manifests["train"])

    @cached_property
    def _clean(self) -> Features:
        return self._beside_train("shapley_val")

    @cached_property
    def _val(self) -> Features:
        return self._beside_train("val")

    def _beside_train(self, split: str) -> Features:
        features = read_split(self.folder / split, self.manifests[split])
        check_same_features(self._train, features, ("train", split))
        return features

    def _numbered(self, split: str, features: Features) -> Split:
        numbers = class_numbers(features.labels, self.classes, self.folder / split)
        return Split(features.x, numbers)


def read_points(run: RunDirectory, *, with_val: bool = False) -> FeatureSet:
    """Features of train, of shapley_val where there are any, and of val where asked for.

    Raises:
        UserError: they are missing, or a manifest is damaged.
    """
    manifests = {"train": find_split(run.features / "train")}
    clean = read_manifest(run.features / "shapley_val")
    if clean is not None:
        manifests["shapley_val"] = clean
    if with_val:
        manifests["val"] = find_split(run.features / "val")
    return FeatureSet(run=run.location, folder=run.features, manifests=manifests)


_INSTEAD = {
    "exact": "use --validation self",
    "sample": "add some, or use --method exact --validation self",
}


def check_clean(run: RunDirectory, points: FeatureSet, method: str) -> None:
    """Refuse to value against a shapley_val that is not there.

    Args:
        run: the run folder.
        points: its features.
        method: how values are computed; only exact ones can do without.
    Raises:
        UserError: there is none; the message says what to use instead.
    """
    if not points.has_clean:
        raise UserError(
            f"{run.features}: no features of shapley_val to value against; {_INSTEAD[method]}"
        )
