"""The true labels, where they are known: `<data>/truth.csv`.

Its columns are `path` (below the data's root, `train/cat/0001.jpg`), `label` (as given) and
`true_label`; others are ignored. The true labels of images that it does not list are unknown.
"""

import csv
import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.images.image_set import ImageSet
from dcai_ray.storage.location import Location


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known about the training labels, in the order of the training images."""

    ids: tuple[str, ...]
    known: NDArray[np.bool_]  # (n,)
    wrong: NDArray[np.bool_]  # (n,): known to be wrong
    true_labels: tuple[str, ...]  # "" where unknown


def read_truth(images: ImageSet) -> Truth | None:
    """The true labels of the training images; None if the data has no truth.csv.

    Raises:
        UserError: the file lacks a column, lists an image twice, or contradicts an image's folder
            about its given label.
    """
    file = images.root / "truth.csv"
    if not file.exists():
        return None
    train, rows = images.split("train"), _rows_by_path(file)
    true_labels = []
    for image in train:
        row = rows.get(image.path)
        if row is not None and row["label"] != image.label:
            raise UserError(
                f"{file}: {image.path} has label {row['label']}, but its folder is {image.label}"
            )
        true_labels.append((row["true_label"] or "") if row else "")
    known = np.array([bool(true) for true in true_labels])
    differs = np.array([t != i.label for t, i in zip(true_labels, train, strict=True)])
    ids = tuple(image.id for image in train)
    return Truth(ids, known, known & differs, tuple(true_labels))


def _rows_by_path(file: Location) -> dict[str, dict[str, str]]:
    try:
        table = csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig")))
        rows = list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV file in UTF-8 ({error})") from None
    missing = {"path", "label", "true_label"} - set(table.fieldnames or ())
    if missing:
        raise UserError(f"{file}: column {', '.join(sorted(missing))} is missing")
    listed = {row["path"]: row for row in rows}
    if len(listed) < len(rows):
        repeated = next(
            path for path, count in Counter(r["path"] for r in rows).items() if count > 1
        )
        raise UserError(f"{file}: {repeated} is listed more than once")
    return listed
