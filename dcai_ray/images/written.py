"""Write a data set from memory as Parquet with pictures, which `--data FOLDER` reads.

    dcai_ray.write_images(dataset, "data/pets", split="train")

A picture may be a Pillow image, an array or a tensor, of shape (h, w) or with 1, 3 or 4 channels
(last in arrays, first in tensors); of floats, 0 is black and 1 white. Pictures are stored as PNG,
without loss. Class names, where the data set knows them, are noted as Hugging Face `datasets` notes
them. Files hold 1,000 pictures each; with `resume`, those that are complete are kept.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dcai_ray.errors import UserError
from dcai_ray.images.folders import MARKER
from dcai_ray.images.listing import SPLITS
from dcai_ray.storage.location import Location

_ROWS_PER_FILE = 1000
_ROWS_PER_GROUP = 100
_CHANNELS = (1, 3, 4)


def write_images(
    dataset: Any,
    folder: str,
    *,
    split: str = "train",
    classes: Sequence[str] | None = None,
    resume: bool = False,
) -> int:
    """Write one split of a data set; returns its number of images.

    Args:
        dataset: with `len` and indices, or any iterable, of (image, label); of mappings with image,
            label and perhaps id, as Hugging Face's; or a `ray.data.Dataset` with these columns.
        folder: where to write, a path or URI; other splits may lie there.
        split: train, shapley_val or val.
        classes: names of the class numbers; by default those that the data set knows.
        resume: keep the complete files of an interrupted call with the same data.
    Raises:
        UserError: the split is there already or unknown, or a picture or label cannot be used.
    """
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    target = Location(folder)
    there = {path for path, _ in target.walk()} if target.exists() else set()
    mine = {path for path in there if path.startswith(f"data/{split}-")}
    if mine and not resume:
        raise UserError(f"{target}: has a split {split} already; delete it or write elsewhere")
    if classes is None:
        classes = _classes_of(dataset)
    marker, count = target / MARKER, 0
    marker.write_bytes(b"")
    for place, rows in enumerate(_parts(_examples(dataset))):
        name = f"data/{split}-{place:05d}.parquet"
        count += len(rows)
        if name not in mine:
            (target / name).write_bytes(_parquet(rows, classes, count - len(rows)))
    if not count:
        raise UserError(f"{target}: the data set has no images in {split}")
    marker.delete()
    return count


def _classes_of(dataset: Any) -> Sequence[str] | None:
    """Names of classes that a torchvision-like or Hugging Face data set knows."""
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        return getattr(features.get("label"), "names", None)
    return getattr(dataset, "classes", None)


def _examples(dataset: Any) -> Iterator[tuple[Any, Any, str | None]]:
    """(image, label, id) of each example."""
    rows: Iterable[Any]
    if hasattr(dataset, "iter_rows"):  # ray.data
        rows = dataset.iter_rows()
    elif hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        rows = (dataset[i] for i in range(len(dataset)))  # iter() does not end for all of them
    else:
        rows = dataset
    for place, row in enumerate(rows):
        if isinstance(row, Mapping):
            if not {"image", "label"} <= row.keys():
                raise UserError(
                    f"example {place}: needs image and label, has {', '.join(map(str, row))}"
                )
            yield row["image"], row["label"], str(row["id"]) if "id" in row else None
        elif isinstance(row, Sequence) and not isinstance(row, str) and len(row) == 2:
            yield row[0], row[1], None
        else:
            raise UserError(f"example {place}: must be (image, label), got {type(row).__name__}")


def _parts(examples: Iterable[Any]) -> Iterator[list[Any]]:
    part = []
    for example in examples:
        part.append(example)
        if len(part) == _ROWS_PER_FILE:
            yield part
            part = []
    if part:
        yield part


def _parquet(rows: Sequence[Any], classes: Sequence[str] | None, start: int) -> bytes:
    """The file of some examples, the first of which has the number `start`."""
    pictures, labels = [], []
    for place, (image, label, _) in enumerate(rows, start):
        pictures.append({"bytes": _png(image, place), "path": None})
        labels.append(_label(label, classes, place))
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(pictures, image_type), "label": pa.array(labels)}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features["label"] = (
        {"names": [str(name) for name in classes], "_type": "ClassLabel"}
        if classes is not None
        else {"dtype": "string", "_type": "Value"}
    )
    if all(key is not None for _, _, key in rows):
        columns["id"] = pa.array([key for _, _, key in rows])
        features["id"] = {"dtype": "string", "_type": "Value"}
    notes = {"huggingface": json.dumps({"info": {"features": features}})}
    sink = pa.BufferOutputStream()
    table = pa.table(columns).replace_schema_metadata(notes)
    # PNG is compressed already.
    pq.write_table(table, sink, row_group_size=_ROWS_PER_GROUP, compression="none")
    return sink.getvalue().to_pybytes()


def _label(label: Any, classes: Sequence[str] | None, place: int) -> int | str:
    """A class number where the classes have names, else a text."""
    plain = label.item() if hasattr(label, "item") else label
    if isinstance(plain, bool) or not isinstance(plain, int | str):
        raise UserError(f"example {place}: the label must be a text or an integer, got {label!r}")
    if classes is None:
        return str(plain)
    names = [str(name) for name in classes]
    if isinstance(plain, str):
        if plain not in names:
            raise UserError(f"example {place}: label {plain} is none of {', '.join(names[:10])}")
        return names.index(plain)
    if not 0 <= plain < len(names):
        raise UserError(f"example {place}: label {plain} must lie in 0 to {len(names) - 1}")
    return plain


def _png(image: Any, place: int) -> bytes:
    picture = image if isinstance(image, Image.Image) else _picture(image, place)
    if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        picture = picture.convert("RGB")
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()


def _picture(image: Any, place: int) -> Image.Image:
    """A picture from an array of 8-bit numbers, or of floats from 0 to 1."""
    pixels, is_tensor = np.asarray(image), hasattr(image, "permute")
    channels_first = pixels.ndim == 3 and pixels.shape[0] in _CHANNELS
    # A (3, h, 4) tensor and a (3, w, 4) array have the same shape: tensors have channels first.
    if channels_first and (is_tensor or pixels.shape[-1] not in _CHANNELS):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in _CHANNELS):
        raise UserError(f"example {place}: a picture cannot have the shape {pixels.shape}")
    if pixels.dtype.kind == "f":
        if not (np.min(pixels) >= 0 and np.max(pixels) <= 1):
            raise UserError(
                f"example {place}: floats must lie in 0 to 1; leave out normalizing transforms"
            )
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise UserError(f"example {place}: pixels must be uint8 or floats, got {pixels.dtype}")
    return Image.fromarray(np.ascontiguousarray(pixels))
