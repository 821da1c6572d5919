"""Step 2b: pictures that occur twice under different labels, found by tasks.

Equal files are known where the run has read the images; from features alone, only near copies are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dcai_ray import progress
from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.conflicts import (
    Conflicts,
    Pairs,
    Pictures,
    conflicts,
    copies_of_each,
    described,
    distance_ratio,
    most_copies,
    nearly_same,
    no_judges,
    pictures,
    resolved,
    same_pairs,
)
from dcai_ray.cluster.task_pool import Step, row_blocks, run_tasks
from dcai_ray.config import Config
from dcai_ray.images.image_set import Image, images_of
from dcai_ray.images.shown import NEAR_ACROSS, found_in
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.feature_set import FeatureSet, Split
from dcai_ray.storage import parquet

_ROWS_PER_TASK = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class Copies:
    """Which training images occur under another label, and how to say so."""

    conflicts: Conflicts
    words: NDArray[np.object_]  # (n,) None where there is no conflict
    labels: Sequence[str]  # (n + m,) of training, then of clean images
    classes: Sequence[str]
    y: NDArray[np.int64]  # (n,)
    among_train: Pairs
    """Training images that show the same or what is alike, whatever their labels."""
    of_clean: Pairs
    """Clean images, counted after the n training images, and training or clean images that show the
    same or what is alike."""
    leaks: Sequence[str]
    """Training images that are nearly, but not quite, the same as clean ones: `a.png = b.png`."""

    @property
    def count(self) -> int:
        """Training images in conflict."""
        return int(self.conflicts.found.sum())

    def resolve(self, choice: Choice) -> Choice:
        """What becomes of the choice of a rule."""
        return resolved(choice, self.conflicts, self.y, self.classes, self.labels, self.words)

    def suggest(
        self, suggested: NDArray[np.int64], probability: NDArray[np.float64]
    ) -> tuple[list[str], NDArray[np.float64]]:
        """Suggested labels and their probabilities, with the labels of clean copies for certain.

        Args:
            suggested: (n,) class numbers.
            probability: (n,).
        """
        labels = [self.classes[c] for c in suggested]
        refuted = self.conflicts.refuted
        for i in np.flatnonzero(refuted):
            labels[i] = self.labels[self.conflicts.other[i]]
        return labels, np.where(refuted, 1.0, probability)


def find_copies(points: FeatureSet, config: Config, *, among_train: bool) -> Copies:
    """Compare the training images with each other and with the clean ones.

    Args:
        points: the features.
        config: its sections value and resources are used.
        among_train: whether training images are also compared with each other by their features,
            which takes as long as valuing them by each other.
    """
    y, n = points.train.y, len(points.train.y)
    clean, clean_ids = points.clean, points.clean_ids
    if config.value.validation == "self":  # whatever there is does not count as clean
        clean, clean_ids = Split(clean.x[:0], clean.y[:0]), ()
    labels = np.concatenate([y, clean.y])
    files = _files(points, clean_ids)
    shown = [image.shows for image in files]
    same = same_pairs(shown, labels, n)
    compared = pictures(points.train.x, clean.x, among_train=among_train)
    pairs, is_near = _alike(compared, points, config)
    near, num_classes = pairs[is_near], len(points.classes)
    judged_apart = no_judges(pairs, is_near, labels, most_copies(n, num_classes))
    if len(clean.y):
        pairs, is_near = _alike(pictures(clean.x, clean.x[:0], among_train=True), points, config)
        most = most_copies(len(clean.y), num_classes)
        among_clean = no_judges(pairs, is_near, clean.y, most)
        judged_apart = np.concatenate([judged_apart, n + among_clean])
    alike = copies_of_each(shown, judged_apart)
    found = conflicts(same, near, labels, n)
    class_names = [points.classes[c] for c in labels]
    names = [image.path for image in files] or [
        f"{split}/{name}"
        for split, ids in (("train", points.ids), ("shapley_val", clean_ids))
        for name in ids
    ]
    return Copies(
        conflicts=found,
        words=described(found, class_names, names),
        labels=class_names,
        classes=points.classes,
        y=y,
        among_train=alike[(alike < n).all(axis=1)],
        of_clean=alike[alike[:, 0] >= n],
        leaks=[
            f"{names[i]} = {names[j]}"
            for i, j in near.tolist()
            if j >= n and not (shown and shown[i] == shown[j])
        ],
    )


def near_in_val(points: FeatureSet, config: Config) -> list[str]:
    """Training images that are nearly, but not quite, the same as images of val: `a.png = b.png`.

    Args:
        points: the features, with those of val.
        config: its section resources is used.
    """
    n = len(points.train.y)
    compared = pictures(points.train.x, points.val.x, among_train=False)
    pairs, is_near = _alike(compared, points, config)
    near = pairs[is_near]
    table = RunDirectory(points.run).images
    images = images_of(parquet.read_table(table)) if table.exists() else ()
    shown = {(image.split, image.id): image.shows for image in images}
    named = [(("train", points.ids[i]), ("val", points.val_ids[j - n])) for i, j in near.tolist()]
    return [
        f"{'/'.join(one)} = {'/'.join(other)}"
        for one, other in named
        if one not in shown or shown[one] != shown.get(other)
    ]


def tell_near_copies(lines: Sequence[str], split: str) -> None:
    """Warn of training images that are nearly the same as images of another split."""
    if lines:
        what = found_in(len(lines), NEAR_ACROSS).format(split=split)
        progress.warn(f"{what}, such as {lines[0]}")


def _alike(
    compared: Pictures, points: FeatureSet, config: Config
) -> tuple[Pairs, NDArray[np.bool_]]:
    """Pictures that are alike, and which of these pairs are nearly the same; by tasks."""
    with threadpool_limits(1):  # the last bits of distances depend on their number
        ratio = distance_ratio(compared)
    blocks = row_blocks(compared.num_train if ratio > 0 else 0, _ROWS_PER_TASK)
    unit = RunDirectory(points.run).unit
    step = Step.of_blocks("looking for near copies", unit, blocks, points.run)
    most = most_copies(compared.num_train, len(points.classes))
    function = partial(tasks.compare_pictures, points=compared, ratio=ratio, most_copies=most)
    parts = run_tasks(function, blocks, step, config.resources)
    pairs = np.concatenate([np.empty((0, 2), np.intp), *parts])
    return pairs, nearly_same(compared, pairs)


def _files(points: FeatureSet, clean_ids: Sequence[str]) -> list[Image]:
    """(n + m,) the files of training and clean images; empty if they are not known."""
    table = RunDirectory(points.run).images
    if not table.exists():
        return []
    images = images_of(parquet.read_table(table))
    train = [image for image in images if image.split == "train"]
    clean = [image for image in images if image.split == "shapley_val"] if clean_ids else []
    known = ([image.id for image in train], [image.id for image in clean])
    return train + clean if known == (list(points.ids), list(clean_ids)) else []
