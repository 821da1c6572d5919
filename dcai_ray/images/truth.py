"""The true labels, where they are known: `<data>/truth.csv`.

Its columns are `path` (below the data's root, `train/cat/0001.jpg`), `label` (as given) and
`true_label`; others are ignored. The true labels of images that it does not list are unknown. Paths
may be written with back slashes, in either spelling of Unicode, and from another folder than the
data's root (`/home/me/pets/train/cat/0001.jpg`, or, row by row, `cat/0001.jpg` below train).
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.images.archives import is_archive, read_archive
from dcai_ray.images.image_set import Image, ImageSet
from dcai_ray.images.listing import normalized
from dcai_ray.images.lists import read_rows
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

    Of a table of images, its column `true_label` takes the place of truth.csv.

    Raises:
        UserError: the file lacks a column, lists an image twice, has rows but none of a training
            image, or contradicts an image's folder about its given label.
    """
    if images.table is not None:
        return _truth_of_table(images, images.table)
    file = images.root / "truth.csv"
    content = _content(images.root)
    if content is None:
        return None
    train, rows = images.split("train"), _rows_by_path(file, content)
    prefix = _prefix(rows, images)
    if rows and prefix is None:
        raise UserError(
            f"{file}: none of its {len(rows)} paths is that of an image, the first is "
            f"{next(iter(rows))}; write them from the data's root, as {train[0].path}"
        )
    true_labels = []
    for image in train:
        row = _row_of(image, rows, prefix or "", file)
        if row is not None and normalized(row["label"] or "") != image.label:
            raise UserError(
                f"{file}: {image.path} has label {row['label']}, but its folder is {image.label}"
            )
        true_labels.append(normalized(row["true_label"] or "") if row else "")
    return _truth(train, true_labels)


def _truth_of_table(images: ImageSet, table: Location) -> Truth | None:
    """The column `true_label` of the table that lists the images."""
    known = {row.path: row.true_label for row in read_rows(table)[1] if row.true_label}
    train = images.split("train")
    return _truth(train, [known.get(image.path, "") for image in train]) if known else None


def _truth(train: Sequence[Image], true_labels: Sequence[str]) -> Truth:
    known = np.array([bool(true) for true in true_labels])
    differs = np.array([t != i.label for t, i in zip(true_labels, train, strict=True)])
    ids = tuple(image.id for image in train)
    return Truth(ids, known, known & differs, tuple(true_labels))


def _prefix(rows: Mapping[str, object], images: ImageSet) -> str | None:
    """What the rows write before the paths of images; "-" if they leave out the split's folder.

    None if no row fits any image.
    """
    paths = {normalized(image.path) for image in images.images}
    if rows.keys() & paths:
        return ""
    for path in rows:
        parts = path.split("/")
        for start in range(1, len(parts)):
            if "/".join(parts[start:]) in paths:
                return "/".join(parts[:start]) + "/"
    return "-" if rows.keys() & {image.id for image in images.split("train")} else None


def _row_of(
    image: Image, rows: Mapping[str, dict[str, str]], prefix: str, file: Location
) -> dict[str, str] | None:
    """The row of a training image, in the spelling of most rows or without the split's folder."""
    names = {_written(image, prefix), normalized(image.id)} & rows.keys()
    if len(names) > 1:
        raise UserError(f"{file}: {' and '.join(sorted(names))} are the same image; keep one row")
    return rows[names.pop()] if names else None


def _written(image: Image, prefix: str) -> str:
    return image.id if prefix == "-" else prefix + normalized(image.path)


def _content(root: Location) -> bytes | None:
    """The content of truth.csv in a folder or archive; None if there is none."""
    if is_archive(root):
        archive = read_archive(root)
        return archive.read("truth.csv") if "truth.csv" in archive.members else None
    file = root / "truth.csv"
    return file.read_bytes() if file.exists() else None


def _rows_by_path(file: Location, content: bytes) -> dict[str, dict[str, str]]:
    try:
        table = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
        rows = list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV file in UTF-8 ({error})") from None
    missing = {"path", "label", "true_label"} - set(table.fieldnames or ())
    if missing:
        raise UserError(f"{file}: column {', '.join(sorted(missing))} is missing")
    for row in rows:
        row["path"] = normalized(row["path"] or "").replace("\\", "/").removeprefix("./")
    listed = {row["path"]: row for row in rows}
    if len(listed) < len(rows):
        repeated = next(
            path for path, count in Counter(r["path"] for r in rows).items() if count > 1
        )
        raise UserError(f"{file}: {repeated} is listed more than once")
    return listed
