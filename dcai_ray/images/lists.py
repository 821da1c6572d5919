"""List the images of a table: one row per image, as CSV, JSONL or Parquet.

Columns: `path` (or `file_name`), relative to the table, absolute or a URI; `label`, any text;
optionally `split` (train, val and perhaps shapley_val; without it, all rows are train) and
`true_label`. The id of an image is its path, whatever its label.
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dcai_ray.errors import UserError
from dcai_ray.images.labelled import labelled_listing
from dcai_ray.images.listing import ImageFile, Listing
from dcai_ray.images.split_folders import Splits
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

ENDINGS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a table."""

    path: str
    """Below the root of the images."""
    label: str
    split: str
    true_label: str
    """Empty if unknown."""


def is_list(data: Location) -> bool:
    """Whether this is a table of images rather than a folder."""
    return data.name.lower().endswith(ENDINGS) and data.exists() and not data.is_folder()


def list_rows(
    file: Location, *, whole: bool, split_seed: int = 0, splits: Splits | None = None
) -> Listing:
    """The images of a table.

    Args:
        file: the table.
        whole: with train, val and perhaps shapley_val; otherwise train alone.
        split_seed: seed of the halving of val.
        splits: what the column `split` says for each split; by default their names.
    Raises:
        UserError: the file is no such table, an image is missing or listed twice, or its splits or
            classes cannot be used.
    """
    root, rows = read_rows(file)
    sizes = root.sizes([row.path for row in rows])
    absent = [row.path for row, size in zip(rows, sizes, strict=True) if size is None]
    if absent:
        raise UserError(f"{file}: {len(absent)} of its images do not exist, the first {absent[0]}")
    images = [
        ImageFile(row.split, row.path, row.label, row.path, size or 0)
        for row, size in zip(rows, sizes, strict=True)
    ]
    return labelled_listing(
        file, root, images, whole=whole, split_seed=split_seed, splits=splits, list=file.uri
    )


def read_rows(file: Location) -> tuple[Location, list[Row]]:
    """The root of the images, and the rows with paths below it.

    Raises:
        UserError: the file is no such table, or lists an image twice.
        OSError: the file cannot be read.
    """
    content = read_table(file)
    column = "path" if content and "path" in content[0] else "file_name"
    for place, row in enumerate(content):
        missing = [name for name in (column, "label") if row.get(name) in (None, "")]
        if missing:
            raise UserError(
                f"{file}: row {place + 1} has no {'path' if missing[0] == column else 'label'}; "
                "expected columns path, label and optionally split and true_label"
            )
    root, paths = _below_root(file, [str(row[column]) for row in content])
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise UserError(f"{file}: {twice} is listed more than once")
    return root, [
        Row(path, str(r["label"]), str(r.get("split") or ""), str(r.get("true_label") or ""))
        for path, r in zip(paths, content, strict=True)
    ]


def read_table(file: Location) -> list[dict[str, Any]]:
    """The rows of a CSV, JSONL or Parquet file.

    Raises:
        UserError: the file is no such table.
    """
    if file.name.lower().endswith(".parquet"):
        return parquet.read_table(file).to_pylist()
    try:
        text = file.read_bytes().decode("utf-8-sig")
        if file.name.lower().endswith(".csv"):
            return list(csv.DictReader(io.StringIO(text, newline="")))
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise UserError(f"{file}: not a table in UTF-8 ({error})") from None
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{file}: each line must be an object with path and label")
    return rows


def _below_root(file: Location, paths: Sequence[str]) -> tuple[Location, list[str]]:
    """The folder that all paths lie in, and the paths below it."""
    full = [path for path in paths if path.startswith("/") or "://" in path]
    if not full:
        return file.parent, [path.removeprefix("./") for path in paths]
    if len(full) < len(paths):
        raise UserError(f"{file}: some paths are absolute and some relative; write all alike")
    places = [Location(path) for path in paths]
    if len({place.uri.split("://")[0] if place.remote else "" for place in places}) > 1:
        raise UserError(f"{file}: its images lie in more than one store; list one store's")
    root = os.path.commonpath([place.parent.uri for place in places]).rstrip("/")
    if places[0].remote:  # commonpath takes the two slashes of a scheme for one
        root = root.replace(":/", "://", 1)
    return Location(root or "/"), [place.uri[len(root) + 1 :] for place in places]
