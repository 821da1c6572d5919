"""List the images of a table: one row per image, as CSV, JSONL or Parquet.

Columns: `path` (or `file_name`), relative to the table, absolute or a URI; `label`, any text;
optionally `split` (train, val and perhaps shapley_val; without it, all rows are train) and
`true_label`. The id of an image is its path, whatever its label.
"""

import csv
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dcai_ray.errors import UserError
from dcai_ray.images.listing import SPLITS, ImageFile, Listing, plain_listing, split_listing
from dcai_ray.images.split_folders import Shape, Splits, splits_of_run
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
    names = _names(file, rows, splits, whole=whole)
    sizes = root.sizes([row.path for row in rows])
    absent = [row.path for row, size in zip(rows, sizes, strict=True) if size is None]
    if absent:
        raise UserError(f"{file}: {len(absent)} of its images do not exist, the first {absent[0]}")
    listed: dict[str, list[ImageFile]] = defaultdict(list)
    for row, size in zip(rows, sizes, strict=True):
        if row.split in names:
            split = names[row.split]
            listed[split].append(ImageFile(split, row.path, row.label, row.path, size or 0))
    skipped = len(rows) - sum(map(len, listed.values()))
    notes = [f"{file.name}: {skipped} rows of other splits skipped"] if skipped else []

    def place(split: str) -> str:
        return f"{file} (split {split})" if whole else str(file)

    if whole:
        ordered = {split: listed[split] for split in SPLITS if split in names.values()}
        listing = split_listing(root, ordered, notes, place, split_seed=split_seed)
    else:
        listing = plain_listing(root, listed["train"], notes, place)
    origin: dict[str, Any] = {"list": file.uri}
    if splits is not None:
        origin["splits"] = dict(splits)
    return Listing(root, listing.images, listing.classes, listing.notes, origin)


def read_rows(file: Location) -> tuple[Location, list[Row]]:
    """The root of the images, and the rows with paths below it.

    Raises:
        UserError: the file is no such table, or lists an image twice.
        OSError: the file cannot be read.
    """
    content = _table(file)
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


def _table(file: Location) -> list[dict[str, Any]]:
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


def _names(
    file: Location, rows: Sequence[Row], splits: Splits | None, *, whole: bool
) -> dict[str, str]:
    """The split that each entry of the column `split` means."""
    there = {row.split for row in rows}
    if splits:
        return {name: split for split, name in splits.items()}
    if not whole and (splits is not None or there == {""}):
        return dict.fromkeys(there, "train")
    if not whole:
        trains = [name for name in there if name.lower() in ("train", "training", "")]
        if len(trains) != 1:
            raise UserError(
                f"{file}: which split is train, of {', '.join(sorted(there))}? Say it as "
                "--splits train=NAME, or --splits none to value all rows"
            )
        return {trains[0]: "train"}
    if "" in there:
        raise UserError(
            f"{file}: rows without a split; a run needs the splits train and val in the column "
            "split. To value all rows against each other, use dcai-ray audit"
        )
    named = splits_of_run(file, {name: Shape(False, frozenset()) for name in there})
    return {name: split for split, name in named.items()}
