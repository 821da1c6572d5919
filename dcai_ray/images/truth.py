"""The true labels, where somebody knows them: `<data>/truth.csv`.

Columns `path` (from the data's root, `train/cat/0001.jpg`), `label` (as given) and `true_label`;
others are ignored. Images it does not list count as unknown.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of the training labels."""

    known: NDArray[np.bool_]  # (n,)
    wrong: NDArray[np.bool_]  # (n,): known to be wrong
    true_labels: tuple[str, ...]  # "" where unknown


def read_truth(data: Location, paths: Sequence[str], labels: Sequence[str]) -> Truth | None:
    """The truth of the training images; None where the data has no truth.csv.

    Args:
        data: the data's root.
        paths: (n,) from the root.
        labels: (n,) as given.
    Raises:
        UserError: the file lacks a column, lists an image twice, or gives one another label than
            its folder.
    """
    file = data / "truth.csv"
    if not file.exists():
        return None
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
    true_labels = []
    for path, label in zip(paths, labels, strict=True):
        row = listed.get(path)
        if row is not None and row["label"] != label:
            raise UserError(f"{file}: {path} has label {row['label']} there, {label} in its folder")
        true_labels.append((row["true_label"] or "") if row else "")
    known = np.array([bool(true) for true in true_labels])
    wrong = known & np.array([t != g for t, g in zip(true_labels, labels, strict=True)])
    return Truth(known, wrong, tuple(true_labels))
