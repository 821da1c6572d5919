"""Export the cleaned set as a folder: the kept training images, and the other splits unchanged."""

import os
from typing import Literal

from dcai_ray.errors import UserError
from dcai_ray.images.image_set import read_image_set
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location


def export_kept(
    run: RunDirectory, target: Location, how: Literal["copy", "hardlink", "symlink"]
) -> int:
    """Write the cleaned set below `target`; returns the number of images written.

    Args:
        run: a run with values.
        target: a folder that does not exist or is empty.
        how: whether to copy the files or to link to them (local folders only).
    Raises:
        UserError: there is nothing to export, or the target is not empty.
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
    kept = set(parquet.read_table(run.kept)["id"].to_pylist())
    count = 0
    for image in images.images:
        if image.split == "train" and image.id not in kept:
            continue
        source, copy = data / image.path, target / image.path
        if how == "copy":
            copy.write_bytes(source.read_bytes())
        else:
            os.makedirs(os.path.dirname(copy.uri), exist_ok=True)
            (os.link if how == "hardlink" else os.symlink)(source.uri, copy.uri)
        count += 1
    return count
