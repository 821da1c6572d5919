"""Data sets as Hugging Face's `datasets` keeps them, without that package.

    metadata.csv (.jsonl, .parquet) beside the images or in each folder of a split (imagefolder)
    Parquet files with the images in a column: data/train-00000-of-00002.parquet, train/0000.parquet
    what `save_to_disk` writes: dataset_dict.json, train/data-00000-of-00001.arrow

The images' column holds structs of bytes and path, or bytes. Labels may be class numbers; their
names are then in the schema.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from dcai_ray.errors import UserError
from dcai_ray.images.lists import Row, rows_of_table, table_of
from dcai_ray.storage.location import Location
from dcai_ray.storage.packed import Packed, mapped, parquet_schema, parquet_table

_LABELS = ("label", "labels", "fine_label", "class", "category", "target", "y")
_IMAGES = ("image", "img", "picture", "jpg", "png", "webp", "bytes", "content")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_NEEDED = {"file_name", "label"}
_SAVED = ("dataset_dict.json", "state.json")
_NUMBERED = re.compile(r"[-_.]?\d{3,}([-_]of[-_]\d+)?([-_][0-9a-f]+)?$")

Files = Sequence[tuple[str, int]]
"""Path below the data, and size."""


def rows_of(data: Location, files: Files) -> list[Row]:
    """The images of such a set, with paths below the data; none if it is something else.

    Args:
        data: a folder or a file.
        files: what lies below it; of a file, itself with the path "".
    Raises:
        UserError: it is such a set, but damaged, without labels, or with several columns of them.
    """
    names = {path for path, _ in files}
    if names & set(_SAVED):
        return _saved(data, names)
    metadata = [p for p in sorted(names) if p.rpartition("/")[2] in _METADATA and p.count("/") <= 1]
    tables = {path: table_of(data / path) for path in metadata}
    # Others may lie beside class folders and be about something else.
    labels = {path: table for path, table in tables.items() if table and set(table[0]) >= _NEEDED}
    if labels:
        return [row for path, table in labels.items() for row in _of_metadata(data, path, table)]
    shards = sorted(path for path in names if (path or data.name).endswith(".parquet"))
    others = [p for p in names - set(shards) if not p.endswith((".md", ".json", ".txt"))]
    if not shards or any(not _is_hidden(path) for path in others):
        return []
    if _image_column(parquet_schema(_at(data, shards[0]))) is None:
        return []
    return [row for path in shards for row in _of_shard(data, path)]


def _of_metadata(data: Location, path: str, table: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The images of a table in the folder of a split, or at the top."""
    folder, file = path.rpartition("/")[0], data / path
    start = f"{folder}/" if folder else ""
    rows = rows_of_table(file, table)
    sizes = data.sizes([start + row.path for row in rows])
    found = []
    for row, size in zip(rows, sizes, strict=True):
        if size is None:
            raise UserError(f"{file}: {row.path} does not exist")
        split = row.split or folder or _top(row.path)
        found.append(Row(start + row.path, row.label, split, row.true_label, size))
    return found


def _top(path: str) -> str:
    """The folder that a path begins with; empty for none."""
    return path.partition("/")[0] if "/" in path else ""


def _of_shard(data: Location, path: str) -> list[Row]:
    """The images of a Parquet file."""
    file = _at(data, path)
    schema = parquet_schema(file)
    images, labels = _columns(file, schema)
    nested = pa.types.is_struct(schema.field(images).type)
    wanted = [labels, f"{images}.path"] if nested else [labels]
    table = parquet_table(file, wanted)
    names = table[images].to_pylist() if nested else []
    stem = (path or data.name).removesuffix(".parquet")
    folder, _, name = stem.rpartition("/")
    numbered = _NUMBERED.sub("", name)
    split = numbered if numbered and numbered != name else folder.rpartition("/")[2] or name
    paths = [(each or {}).get("path") for each in names]
    given = _named(table[labels], schema, labels)
    return _rows(path or data.name, path, images, "parquet", split, given, paths)


def _saved(data: Location, names: set[str]) -> list[Row]:
    """The images of a folder that save_to_disk has written."""
    if "dataset_dict.json" in names:
        splits = _json(data / "dataset_dict.json").get("splits", [])
    else:
        splits = [""]
    rows = []
    for split in splits:
        folder = f"{split}/" if split else ""
        state = _json(data / f"{folder}state.json")
        for entry in state.get("_data_files", []):
            path = folder + entry["filename"]
            batches = mapped(data / path)
            if batches:
                rows += _of_batches(data / path, path, split, batches)
    return rows


def _of_batches(
    file: Location, path: str, split: str, batches: Sequence[pa.RecordBatch]
) -> list[Row]:
    schema = batches[0].schema
    images, labels = _columns(file, schema)
    given = pa.chunked_array([batch.column(labels) for batch in batches])
    paths: list[str | None] = []
    for batch in batches:
        column = batch.column(images)
        nested = pa.types.is_struct(column.type)
        paths += column.field("path").to_pylist() if nested else [None] * len(column)
    return _rows(path, path, images, "arrow", split, _named(given, schema, labels), paths)


def _rows(
    shown: str,
    file: str,
    column: str,
    kind: str,
    split: str,
    labels: Sequence[str],
    paths: Sequence[str | None],
) -> list[Row]:
    """An image per row; it is called by its number and, where it has one, its own name."""
    found = []
    for number, label in enumerate(labels):
        own = paths[number] if number < len(paths) else None
        name = f"{number:07d}" + (f"-{own.rpartition('/')[2]}" if own else "")
        packed = Packed(file, number, 0, kind, column)
        found.append(Row(f"{shown}/{name}", label, split, packed=packed))
    return found


def _columns(file: Location, schema: pa.Schema) -> tuple[str, str]:
    """The columns of the images and of the labels.

    Raises:
        UserError: there is no such column, or more than one.
    """
    images = _image_column(schema)
    found = [name for name in _LABELS if name in schema.names]
    labels = "label" if "label" in found else (found[0] if len(found) == 1 else None)
    if images is None or labels is None:
        what = "images" if images is None else "labels"
        known = _IMAGES if images is None else _LABELS
        raise UserError(
            f"{file}: which column holds the {what}, of {', '.join(schema.names)}? Call it "
            f"{known[0]}"
        )
    return images, labels


def _image_column(schema: pa.Schema) -> str | None:
    """The column of the images; None if there is none, or several."""
    structs, binary = [], []
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            structs.append(field.name)
        elif pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            binary.append(field.name)
    for found in (structs, binary):
        if len(found) == 1:
            return found[0]
        named = [name for name in _IMAGES if name in found]
        if named:
            return named[0]
    return None


def _named(labels: pa.ChunkedArray, schema: pa.Schema, column: str) -> list[str]:
    """Labels as text: class numbers by the names that the schema knows.

    Raises:
        UserError: a label is missing, or a list.
    """
    notes = (schema.metadata or {}).get(b"huggingface")
    features: dict[str, Any] = json.loads(notes)["info"]["features"] if notes else {}
    names = features.get(column, {}).get("names")
    found = []
    for label in labels.to_pylist():
        if label is None or isinstance(label, list | dict | float):
            raise UserError(f"column {column}: each image needs one label, got {label!r}")
        found.append(str(names[label]) if names and isinstance(label, int) else str(label))
    return found


def _json(file: Location) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, FileNotFoundError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{file}: missing or damaged; save the data set again")
    return content


def _at(data: Location, path: str) -> Location:
    return data / path if path else data


def _is_hidden(path: str) -> bool:
    return any(name.startswith((".", "_")) for name in path.split("/"))
