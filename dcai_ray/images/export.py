"""Export the cleaned set as a folder: the kept training images, and the other splits unchanged.

An export is complete or absent. A local one is made in a hidden folder beside the target, every
file of it is checked, and it is renamed at the end; what failed half way is deleted.
"""

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dcai_ray.errors import UserError
from dcai_ray.images.image_set import Image, read_image_set
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

How = Literal["copy", "hardlink", "symlink"]


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
    if target.exists() and next(target.walk(), None) is not None:
        raise UserError(f"{target}: not empty; export to a new folder")
    if how != "copy" and (data.remote or target.remote):
        raise UserError(f"--how {how} needs local folders; use copy for {data} to {target}")
    _check_outside(data, target)
    kept = set(parquet.read_table(run.kept)["id"].to_pylist())
    chosen = [image for image in images.images if image.split != "train" or image.id in kept]
    if target.remote:
        for image in chosen:
            (target / image.path).write_bytes((data / image.path).read_bytes())
            _check_size(target / image.path, image, len((target / image.path).read_bytes()))
    else:
        _write_folder(data, chosen, Path(target.uri), how)
    return len(chosen)


def _check_outside(data: Location, target: Location) -> None:
    """Refuse a target that a later listing of the data would take for a class."""
    if data.remote != target.remote:
        return
    inner, outer = target.uri.rstrip("/"), data.uri.rstrip("/")
    if not data.remote:
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    if f"{inner}/".startswith(f"{outer}/"):
        raise UserError(f"{target}: inside the data ({data}); export to a folder outside of it")


def _write_folder(data: Location, images: Sequence[Image], target: Path, how: How) -> None:
    """Write all files to a folder beside the target, then rename it."""
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(20, "is a file, not a folder", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.parent / f".{uuid.uuid4().hex[:8]}"  # short, as any name of a target fits
    try:
        made.mkdir()
        for image in images:
            _write(data / image.path, made / image.path, how)
        for image in images:
            _check_size(data / image.path, image, os.stat(made / image.path).st_size)
        os.replace(made, target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _write(source: Location, copy: Path, how: How) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":
        copy.write_bytes(source.read_bytes())
        return
    # A hard link to a symbolic link is that link, and a relative one leads nowhere from here.
    file = os.path.realpath(source.uri, strict=True)
    (os.link if how == "hardlink" else os.symlink)(file, copy)


def _check_size(file: Location, image: Image, size: int) -> None:
    if size != image.bytes:
        raise UserError(
            f"{file}: has {size} bytes, {image.bytes} when the run read it; nothing was exported"
        )
