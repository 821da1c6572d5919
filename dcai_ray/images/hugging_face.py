"""List data sets as Hugging Face stores them.

    metadata.csv, .jsonl or .parquet     an imagefolder: `file_name` and `label`, in the top folder
                                         or in each split's
    data/train-00000-of-00001.parquet    pictures in the rows of Parquet; names of files are splits
    dataset_dict.json, state.json        `save_to_disk`: Arrow files

The columns with pictures and labels are found by their types and names; class numbers become the
names that the data set's own notes give them. `datasets` itself is not needed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from dcai_ray.errors import UserError
from dcai_ray.images import tables
from dcai_ray.images.kinds import is_hidden
from dcai_ray.images.labelled import labelled_listing, split_of_file
from dcai_ray.images.listing import Found, ImageFile, Listing, normalized
from dcai_ray.images.lists import ENDINGS, read_table
from dcai_ray.images.picture_files import Packed
from dcai_ray.images.split_folders import Splits, is_name_of_split
from dcai_ray.storage.location import Location

_IMAGES = ("image", "img", "picture", "pixels")
_LABELS = ("label", "labels", "fine_label", "class", "category", "target", "y")
_METADATA = tuple(f"metadata{ending}" for ending in ENDINGS)


def tables_of(data: Location, found: Found | None) -> list[str]:
    """Paths of the tables with pictures, "" for a single file; empty if there are none.

    Args:
        data: a folder or a file.
        found: what lies in the folder; None for a file.
    """
    if found is None:
        single = data.name.lower().endswith((".parquet", ".arrow")) and data.exists()
        return [""] if single and _image_columns(tables.schema_of(data)) else []
    names = [path for path, _ in found if not is_hidden(path)]
    if "dataset_dict.json" in names:
        splits = json.loads((data / "dataset_dict.json").read_bytes())["splits"]
        return [path for split in splits for path in _arrow_files(data, f"{split}/")]
    if "state.json" in names:
        return _arrow_files(data, "")
    shards = [
        path
        for path in names
        if path.lower().endswith(".parquet") and path.rsplit("/", 1)[-1] not in _METADATA
    ]
    return shards if shards and _image_columns(tables.schema_of(data / shards[0])) else []


def metadata_of(data: Location, found: Found | None) -> list[str]:
    """Paths of the metadata files of an imagefolder: in the top or in each split's folder.

    A file without `file_name` and `label` is one that happens to lie beside class folders.

    Args:
        data: a folder or a file.
        found: what lies in the folder; None for a file.
    """
    paths = [path for path, _ in found or () if path.rpartition("/")[2] in _METADATA]
    top = [path for path in paths if "/" not in path and _names_labels(data, path)]
    if top:
        return top[:1]
    return [path for path in paths if path.count("/") == 1 and _names_labels(data, path)]


def _names_labels(data: Location, path: str) -> bool:
    rows = read_table(data / path)
    return bool(rows) and {"file_name", "label"} <= rows[0].keys()


def list_tables(
    data: Location,
    paths: Sequence[str],
    *,
    whole: bool,
    split_seed: int = 0,
    splits: Splits | None = None,
) -> Listing:
    """The images in the rows of Parquet or Arrow files.

    Args:
        data: a file, or the folder of the files.
        paths: the files below the folder, "" for the file itself.
        whole: with train, val and perhaps shapley_val; otherwise train alone.
        split_seed: seed of the halving of val.
        splits: the names of the splits; by default as the names of files tell.
    Raises:
        UserError: a file is damaged, or it is not clear which columns are meant.
    """
    images: list[ImageFile] = []
    columns: dict[str, None] = {}
    for path in paths:
        image, label = _columns(data / path if path else data)
        columns[f"pictures are in column {image}, labels in {label}"] = None
        images += _rows(data, path, image, label)
    return labelled_listing(
        data, data, images, whole=whole, split_seed=split_seed, splits=splits, notes=list(columns)
    )


def list_imagefolder(
    data: Location,
    metadata: Sequence[str],
    *,
    whole: bool,
    split_seed: int = 0,
    splits: Splits | None = None,
) -> Listing:
    """The images that metadata files name, with paths relative to each.

    Raises:
        UserError: a file has no file_name or label, or an image is missing or listed twice.
    """
    rows = [row for path in metadata for row in _named_files(data, path)]
    sizes = data.sizes([path for path, _, _ in rows])
    images = []
    for (path, label, split), size in zip(rows, sizes, strict=True):
        if size is None:
            raise UserError(f"{data}: {path} does not exist, though its metadata lists it")
        images.append(ImageFile(split, normalized(path), label, path, size))
    if len({image.path for image in images}) < len(images):
        raise UserError(f"{data}: its metadata lists an image more than once")
    return labelled_listing(data, data, images, whole=whole, split_seed=split_seed, splits=splits)


def _named_files(data: Location, metadata: str) -> Iterable[tuple[str, str, str]]:
    """(path below the data, label, split) of each row."""
    folder = metadata.rpartition("/")[0]
    for place, row in enumerate(read_table(data / metadata)):
        name, label = row.get("file_name"), row.get("label")
        if name in (None, "") or label in (None, ""):
            raise UserError(
                f"{data / metadata}: row {place + 1} has no "
                f"{'file_name' if name in (None, '') else 'label'}; both are needed"
            )
        path = f"{folder}/{name}" if folder else str(name)
        top = path.split("/")[0] if "/" in path else ""
        yield path, normalized(str(label)), str(row.get("split") or _split(top))


def _split(top: str) -> str:
    return top if is_name_of_split(top) or top == "shapley_val" else ""


def _arrow_files(data: Location, folder: str) -> list[str]:
    """The files of one split of `save_to_disk`, in their order."""
    state = json.loads((data / f"{folder}state.json").read_bytes())
    if state.get("_indices_data_files"):
        raise UserError(
            f"{data}: saved with an order of its own; save it again after flatten_indices()"
        )
    return [folder + entry["filename"] for entry in state["_data_files"]]


def _columns(file: Location) -> tuple[str, str]:
    """The columns of a table with pictures and with labels."""
    schema = tables.schema_of(file)
    image = _only(file, _image_columns(schema), "images")
    return image, _only(file, _label_columns(schema), "labels")


def _rows(data: Location, path: str, image: str, label: str) -> list[ImageFile]:
    """The images of one table; `split` as its name says."""
    file = data / path if path else data
    schema = tables.schema_of(file)
    names = _features(schema).get(label, {}).get("names")
    wanted = [label] + (["id"] if "id" in schema.names else [])
    columns = tables.read_columns(file, wanted)
    ids = [str(entry) for entry in columns["id"]] if "id" in columns else []
    if len(set(ids)) < len(ids):
        raise UserError(f"{file}: the column id has a value twice; drop it or make it unique")
    start = f"{path}/" if path else ""
    beside = _beside(file, image) if pa.types.is_struct(schema.field(image).type) else {}
    split, found = split_of_file(path) if path else "", []
    for row, entry in enumerate(columns[label]):
        key = ids[row] if ids else f"{start}{row:07d}"
        if row in beside:
            name = f"{path.rpartition('/')[0]}/{beside[row]}".lstrip("/")
            found.append(ImageFile(split, key, _class_of(file, row, entry, names), name, 0))
            continue
        packed = Packed(path, row, 0, "row", 0, image)
        name = f"{start}{row:07d}"
        found.append(ImageFile(split, key, _class_of(file, row, entry, names), name, 0, packed))
    return found


def _beside(file: Location, image: str) -> dict[int, str]:
    """The paths of pictures whose bytes are null, by row."""
    if not tables.may_lack(file, f"{image}.bytes"):
        return {}
    cells = tables.read_columns(file, [image])[image]
    missing = {row: cell for row, cell in enumerate(cells) if not cell or cell["bytes"] is None}
    for row, cell in missing.items():
        if not cell or not cell.get("path"):
            raise UserError(f"{file}: row {row} has neither a picture nor a path")
        if cell["path"].startswith("/") or "://" in cell["path"]:
            raise UserError(
                f"{file}: row {row} names {cell['path']}, which does not lie beside the table; "
                "write the pictures into it (Dataset.to_parquet embeds them)"
            )
    return {row: cell["path"] for row, cell in missing.items()}


def _class_of(file: Location, row: int, entry: Any, names: Sequence[str] | None) -> str:
    if entry is None or entry == "" or (names and not 0 <= int(entry) < len(names)):
        raise UserError(f"{file}: row {row} has no label ({entry}); remove it or label it")
    return normalized(names[int(entry)] if names else str(entry))


def _image_columns(schema: pa.Schema) -> list[str]:
    """Columns that hold pictures; by the data set's notes, else by type and name."""
    features = _features(schema)
    noted = [name for name, note in features.items() if note.get("_type") == "Image"]
    if noted:
        return noted
    structs = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type)
        and {"bytes", "path"} <= {field.type.field(i).name for i in range(field.type.num_fields)}
    ]
    binary = [f.name for f in schema if pa.types.is_binary(f.type) and f.name in _IMAGES]
    return structs or binary


def _label_columns(schema: pa.Schema) -> list[str]:
    """Columns that may be labels: those with class names, else by name."""
    features = _features(schema)
    noted = [name for name, note in features.items() if note.get("_type") == "ClassLabel"]
    named = [name for name in _LABELS if name in schema.names]
    if "label" in (noted or named):
        return ["label"]
    return noted or named


def _only(file: Location, columns: Sequence[str], what: str) -> str:
    if len(columns) == 1:
        return columns[0]
    if columns:
        raise UserError(
            f"{file}: columns {', '.join(columns)} may all hold the {what}; keep one of them "
            "(Dataset.remove_columns), or call it " + ("label" if what == "labels" else "image")
        )
    raise UserError(f"{file}: no column of {what}; rename yours to {what.removesuffix('s')}")


def _features(schema: pa.Schema) -> Mapping[str, Mapping[str, Any]]:
    """What `datasets` notes of each column; empty without notes."""
    notes = (schema.metadata or {}).get(b"huggingface")
    if notes is None:
        return {}
    features: dict[str, Any] = json.loads(notes).get("info", {}).get("features", {})
    return {name: note for name, note in features.items() if isinstance(note, dict)}
