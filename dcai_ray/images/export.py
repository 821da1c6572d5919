"""Export the cleaned set as a folder: the kept training images, and the other splits unchanged.

A set of class folders keeps its layout. Of any other, the images lie in a folder per split, with
their labels in its `metadata.csv` (file_name, label), as this tool and Hugging Face's imagefolder
read them; README.md keeps the latter from taking shapley_val for a part of val.

An export is complete or absent. A local one is made in a hidden folder beside the target, every
file of it is checked, and it is renamed at the end; what failed half way is deleted.
"""

import csv
import io
import os
import re
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from dcai_ray.errors import UserError
from dcai_ray.images import decoding, kinds
from dcai_ray.images.decoding import extensions
from dcai_ray.images.image_set import Image, ImageSet, read_image_set
from dcai_ray.images.listing import SPLITS
from dcai_ray.images.picture_files import PictureFile
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

How = Literal["copy", "hardlink", "symlink"]

_INCOMPLETE = "_INCOMPLETE"
_UNUSABLE = r"[^\w./-]+|(?<![^/])\.+"  # in names: all but letters, digits, dots within, dashes
_README = """---
configs:
- config_name: default
  data_files:
{splits}---
A cleaned set of images, exported by dcai-ray: a folder per split.
"""


def export_kept(run: RunDirectory, target: Location, how: How) -> int:
    """Write the cleaned set below `target`; returns the number of images written.

    Args:
        run: a run with values.
        target: a folder that does not exist or is empty, outside the data.
        how: whether to copy the files or to link to them (local folders only).
    Raises:
        UserError: there is nothing to export, the target is not empty or lies inside the data, or a
            file is not what the run has read.
        OSError: a file cannot be written or linked.
    """
    settings = run.settings()
    if settings and "data" not in settings:
        raise UserError(f"{run.location}: valued from imported features; no images to export")
    images = read_image_set(run)
    if images is None or not run.kept.exists():
        raise UserError(f"{run.location}: nothing to export yet; value the images first")
    data = images.root
    there = [path for path, _ in target.walk()] if target.exists() else []
    if there and _INCOMPLETE not in there:
        raise UserError(f"{target}: not empty; export to a new folder")
    if how != "copy" and (data.remote or target.remote):
        raise UserError(f"--how {how} needs local folders; use copy for {data} to {target}")
    _check_outside(data, target)
    kept = set(parquet.read_table(run.kept)["id"].to_pylist())
    chosen = [image for image in images.images if image.split != "train" or image.id in kept]
    if how != "copy" and any(image.packed for image in chosen):
        raise UserError(f"--how {how}: the images lie in archives or tables; use copy")
    names, texts = _layout(images, chosen)
    if target.remote:
        _write_remote(images, names, texts, target)
    else:
        _write_folder(images, names, texts, Path(target.uri), how)
    return len(chosen)


def _layout(images: ImageSet, chosen: Sequence[Image]) -> tuple[dict[str, Image], dict[str, str]]:
    """The images by their paths in the export, and the text files beside them."""
    if all(_is_in_class_folder(image) for image in chosen):
        folders = {image.path.partition("/")[0] for image in chosen}
        texts = {"README.md": _readme(folders)} if "shapley_val" in folders else {}
        return {image.path: image for image in chosen}, texts
    names: dict[str, Image] = {}
    for image in chosen:
        plain = re.sub(_UNUSABLE, "-", image.id.removeprefix(f"{image.split}/")).strip("-/")
        if kinds.ending_of(plain) not in extensions():
            plain += _ending(images.files([image])[0])
        name = f"{image.split}/{plain}"
        while name in names:  # two ids that differ in what a name cannot hold
            stem, dot, ending = name.rpartition(".")
            name = f"{stem}-{dot}{ending}"
        names[name] = image
    splits = {image.split for image in chosen}
    texts = {f"{split}/metadata.csv": _metadata(names, split) for split in splits}
    return names, {**texts, "README.md": _readme(splits)}


def _readme(splits: Collection[str]) -> str:
    entries = (f"  - split: {split}\n    path: {split}/**\n" for split in SPLITS if split in splits)
    return _README.format(splits="".join(entries))


def _is_in_class_folder(image: Image) -> bool:
    return image.id.split("/")[0] == image.label and f"/{image.path}".endswith(f"/{image.id}")


def _metadata(names: Mapping[str, Image], split: str) -> str:
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(["file_name", "label"])
    for name, image in names.items():
        if image.split == split:
            table.writerow([name.removeprefix(f"{split}/"), image.label])
    return lines.getvalue()


def _ending(file: PictureFile) -> str:
    """The usual ending of a picture's format, by its first bytes."""
    return decoding.ending_of(file.read_bytes())


def _write_remote(
    images: ImageSet, names: Mapping[str, Image], texts: Mapping[str, str], target: Location
) -> None:
    """Write to a store, which knows no renaming; what is incomplete says so until the end."""
    (target / _INCOMPLETE).write_bytes(b"This export is not complete: export again.\n")
    for name, image in names.items():
        (target / name).write_bytes(images.files([image])[0].read_bytes())
    for name, text in texts.items():
        (target / name).write_bytes(text.encode())
    there = dict(target.walk())
    for name, image in names.items():
        _check_size(target / name, image, there.get(name, 0))
    (target / _INCOMPLETE).delete()


def _check_outside(data: Location, target: Location) -> None:
    """Refuse a target that a later listing of the data would take for a class."""
    if data.remote != target.remote:
        return
    inner, outer = target.uri.rstrip("/"), data.uri.rstrip("/")
    if not data.remote:
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    if f"{inner}/".startswith(f"{outer}/"):
        raise UserError(f"{target}: inside the data ({data}); export to a folder outside of it")


def _write_folder(
    images: ImageSet, names: Mapping[str, Image], texts: Mapping[str, str], target: Path, how: How
) -> None:
    """Write all files to a folder beside the target, then rename it."""
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(20, "is a file, not a folder", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.parent / f".{uuid.uuid4().hex[:8]}"  # short, as any name of a target fits
    try:
        made.mkdir()
        for name, image in names.items():
            _write(images.files([image])[0], made / name, how)
        for name, text in texts.items():
            (made / name).write_text(text)
        for name, image in names.items():
            _check_size(images.root / image.path, image, os.stat(made / name).st_size)
        os.replace(made, target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _write(source: PictureFile, copy: Path, how: How) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":
        copy.write_bytes(source.read_bytes())
        return
    # A hard link to a symbolic link is that link, and a relative one leads nowhere from here.
    file = os.path.realpath(str(source), strict=True)
    (os.link if how == "hardlink" else os.symlink)(file, copy)


def _check_size(file: Location, image: Image, size: int) -> None:
    if size != image.bytes and not (image.bytes == 0 and image.packed):  # a table tells no sizes
        raise UserError(
            f"{file}: has {size} bytes, {image.bytes} when the run read it; nothing was exported"
        )
