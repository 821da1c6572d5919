"""Feature vectors as shards of Parquet: one folder per split, and a manifest beside it.

A split's folder holds shards alone, as some readers of Parquet take every file in it for one.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.dataset_card import card_of_splits
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import read_note, read_table, write_table
from dcai_ray.storage.read_ahead import read_ahead

_ABOUT = "Features: a folder of Parquet files per split, each row with id, label and feature."
_SHARDS_AT_ONCE = 8  # read ahead of the shard being checked


@dataclass(frozen=True, slots=True)
class Features:
    """Feature vectors of one split, in the order of its images."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]  # class names
    x: NDArray[np.float32]  # (k, d)
    backbone: str
    fingerprint: str
    shown: tuple[str, ...] = ()  # the texts that they were made from; none for images


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record that the features of a split are complete."""

    fingerprint: str
    """Fingerprint of all shards."""
    shards: tuple[Location, ...]
    sizes: tuple[int, ...] | None = None
    """Sizes of the shards in bytes; None if they were not recorded."""


def feature_table(
    ids: Sequence[str],
    labels: Sequence[str],
    x: NDArray[np.float32],
    notes: Mapping[str, str],
    shown: Sequence[str] = (),
) -> pa.Table:
    """A table of id, label and feature; the schema's metadata says how the features were made.

    A column `shown` has what a person reads of each example, if there is such a text.
    """
    flat = pa.array(np.ascontiguousarray(x, dtype=np.float32).ravel())
    feature = pa.FixedSizeListArray.from_arrays(flat, x.shape[1])
    table = pa.table({"id": pa.array(ids, pa.string()), "label": pa.array(labels, pa.string())})
    if shown:
        table = table.append_column("shown", pa.array(shown, pa.string()))
    table = table.append_column("feature", feature)
    return table.replace_schema_metadata({f"dcai_ray.{k}": v for k, v in notes.items()})


def shard_name(index: int) -> str:
    """The file name of a split's shard."""
    return f"part-{index:05d}.parquet"


def write_manifest(folder: Location, fingerprint: str, shards: Sequence[str]) -> None:
    """Record that a split's shards are complete; written last, and only if it would change."""
    there = dict(folder.walk()) if folder.exists() else {}
    sizes = [there.get(name, 0) for name in shards]
    entries = {"fingerprint": fingerprint, "shards": list(shards), "bytes": sizes}
    text = json.dumps(entries, indent=1)
    manifest = _manifest_of(folder)
    if _read_if_there(manifest) != text.encode():
        manifest.write_bytes(text.encode())
    _write_readme(folder.parent)


def _write_readme(root: Location) -> None:
    there = [name for name in root.folders() if has_features(root / name)]
    content = card_of_splits({name: f"{name}/*.parquet" for name in there}, _ABOUT)
    file = root / "README.md"
    if _read_if_there(file) != content:
        file.write_bytes(content)


def is_complete(folder: Location, fingerprint: str) -> bool:
    """Whether a split has a manifest with this fingerprint, and all shards at their sizes.

    The manifest is read and the folder is listed, but no shard is opened.
    """
    try:
        manifest = read_manifest(folder)
    except UserError:  # damaged: it is written again
        return False
    if manifest is None or manifest.fingerprint != fingerprint or manifest.sizes is None:
        return False
    there = dict(folder.walk())
    shards = zip(manifest.shards, manifest.sizes, strict=True)
    return all(there.get(shard.name) == size for shard, size in shards)


def open_split(folder: Location, fingerprint: str) -> None:
    """Delete the manifest of other shards before these are written over them.

    A run that is killed meanwhile then leaves no manifest that vouches for a mixture.
    """
    try:
        manifest = read_manifest(folder)
        is_other = manifest is not None and manifest.fingerprint != fingerprint
    except UserError:
        is_other = True
    if is_other:
        _manifest_of(folder).delete()


def write_split(
    folder: Location,
    ids: Sequence[str],
    labels: Sequence[str],
    x: NDArray[np.float32],
    notes: Mapping[str, str],
    fingerprint: str,
    shown: Sequence[str] = (),
) -> None:
    """Write a whole split as one shard, unless it is there with this fingerprint.

    Args:
        folder: folder of the split.
        ids: k ids.
        labels: their class names.
        x: (k, d) features.
        notes: how the features were made: `backbone` and more.
        fingerprint: of all that decides the content.
        shown: what a person reads of each example, if anything.
    """
    if is_complete(folder, fingerprint):
        return
    open_split(folder, fingerprint)
    name = shard_name(0)
    write_table(folder / name, feature_table(ids, labels, x, notes, shown), fingerprint)
    write_manifest(folder, fingerprint, [name])


def has_features(folder: Location) -> bool:
    """Whether the folder holds a complete set of shards."""
    return _manifest_of(folder).exists()


def read_manifest(folder: Location) -> Manifest | None:
    """The manifest of a split; None if there is no complete set of shards.

    Raises:
        UserError: the manifest is damaged.
        OSError: the manifest exists but cannot be read.
    """
    content = _read_if_there(_manifest_of(folder))
    if content is None:
        return None
    try:
        entries = json.loads(content)
        shards = tuple(folder / name for name in entries["shards"])
        sizes = tuple(entries["bytes"]) if "bytes" in entries else None
        return Manifest(entries["fingerprint"], shards, sizes)
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{_manifest_of(folder)}: damaged; delete it and extract again") from None


def find_split(folder: Location) -> Manifest:
    """The manifest of a split that must exist.

    Raises:
        UserError: there is no complete set of shards; or as `read_manifest`.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"{folder}: no complete set of features (no {_manifest_of(folder).name}); extract first"
        )
    return manifest


def read_split(folder: Location, manifest: Manifest | None = None) -> Features:
    """All shards of a split, in order.

    Args:
        folder: the folder of the split.
        manifest: the manifest of the split, if it has been read already.
    Raises:
        UserError: the set is incomplete, its shards do not fit together, or features are not
            finite; the message names the file.
    """
    manifest = manifest or find_split(folder)
    if not manifest.shards:
        raise UserError(f"{folder}: no such shard; extract again")
    contents = read_ahead(_read_shard, manifest.shards, _SHARDS_AT_ONCE)
    tables = list(zip(manifest.shards, contents, strict=True))
    first = tables[0][1]
    for path, table in tables:
        _check_shard(path, table, first)
    width = first.schema.field("feature").type.list_size
    ids = tuple(name for _, table in tables for name in table["id"].to_pylist())
    if len(set(ids)) < len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise UserError(f"{folder}: id {twice} occurs more than once; extract again")
    x = [
        table["feature"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        for _, table in tables
    ]
    return Features(
        ids=ids,
        labels=tuple(i for _, table in tables for i in table["label"].to_pylist()),
        x=np.concatenate(x).reshape(-1, width),
        backbone=read_note(first, "backbone"),
        fingerprint=manifest.fingerprint,
        shown=_shown_in([table for _, table in tables]),
    )


def _shown_in(tables: Sequence[pa.Table]) -> tuple[str, ...]:
    """What is shown of each example; nothing if some shards do not say."""
    if not all("shown" in table.column_names for table in tables):
        return ()
    return tuple(text for table in tables for text in table["shown"].to_pylist())


def check_same_features(first: Features, second: Features, names: tuple[str, str]) -> None:
    """Refuse two splits that come from different backbones.

    Raises:
        UserError: their widths or backbones differ.
    """
    for what, one, two in (
        ("backbone", first.backbone, second.backbone),
        ("width", first.x.shape[1], second.x.shape[1]),
    ):
        if one != two:
            raise UserError(
                f"features of {names[0]} and {names[1]} must have the same {what}, "
                f"got {one} and {two}; extract both with one backbone"
            )


def class_numbers(
    labels: Sequence[str], classes: Sequence[str], where: Location
) -> NDArray[np.int64]:
    """Class numbers of labels.

    Raises:
        UserError: a label is not a class of train; the message names it.
    """
    number = {label: i for i, label in enumerate(classes)}
    unknown = sorted(set(labels) - number.keys())
    if unknown:
        raise UserError(f"{where}: class {', '.join(unknown)} does not occur in train")
    return np.array([number[label] for label in labels], dtype=np.int64)


def _manifest_of(folder: Location) -> Location:
    return folder.parent / f"_{folder.name}.json"


def _read_if_there(file: Location) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _read_shard(shard: Location) -> pa.Table:
    try:
        return read_table(shard)
    except FileNotFoundError:
        raise UserError(f"{shard}: no such shard; extract again") from None


def _check_shard(path: Location, table: pa.Table, first: pa.Table) -> None:
    missing = [name for name in ("id", "label", "feature") if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: column {missing[0]} is missing; extract again")
    kind = table.schema.field("feature").type
    if not (pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type)):
        raise UserError(f"{path}: feature must be fixed_size_list<float32>, got {kind}")
    if kind != first.schema.field("feature").type:
        want = first.schema.field("feature").type.list_size
        raise UserError(
            f"{path}: features have width {kind.list_size}, those of the other shards {want}; "
            "extract again"
        )
    if read_note(table, "backbone") != read_note(first, "backbone"):
        got, want = read_note(table, "backbone"), read_note(first, "backbone")
        raise UserError(
            f"{path}: features come from {got}, those of the other shards from {want}; "
            "extract again"
        )
    if any(table[name].null_count for name in ("id", "label", "feature")):
        raise UserError(f"{path}: empty cells; every image needs id, label and feature")
    values = table["feature"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(table), -1).all(axis=1))
    if len(bad):
        name = table["id"][int(bad[0])].as_py()
        raise UserError(
            f"{path}: {len(bad)} images with NaN or infinite features, the first {name}; "
            "extract again"
        )
