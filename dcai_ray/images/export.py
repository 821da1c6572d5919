"""Export the cleaned set as a folder: what the rule keeps and people decided, with other labels.

People win over the rule, and their decisions about the other splits are applied as well. Of the
images that they gave another label to, `apply` says whether these are left out or go to that class.
changes.csv lists every image that is left out or has another label, and why.

Class folders keep their layout. Pictures whose labels come from elsewhere (`export_layout`) go into
a folder per split, with their labels in its metadata.csv.

An export is complete or absent. A picture that is not the one that the run has read ends it. A
local one is made in a hidden folder beside the target, and renamed at the end; what failed half way
is deleted. A remote one holds a marker until its last object is there, and is refused as data
before. Instead of an export, class folders may be changed in place (`in_place`).
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dcai_ray.errors import UserError
from dcai_ray.images import in_place
from dcai_ray.images.export_layout import Change, Layout, layout_of
from dcai_ray.images.folders import MARKER
from dcai_ray.images.image_set import Image, ImageSet, read_image_set
from dcai_ray.review.applied import decided
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

How = Literal["copy", "hardlink", "symlink", "in-place"]
Apply = Literal["drop", "relabel"]


@dataclass(frozen=True, slots=True)
class Exported:
    """How many images an export holds, and how it differs from the data."""

    images: int
    dropped: int
    relabelled: int


def export_cleaned(
    run: RunDirectory,
    target: Location,
    how: How,
    apply: Apply = "drop",
    *,
    reviewed_only: bool = False,
) -> Exported:
    """Write the cleaned set below `target`.

    Args:
        run: a run with values.
        target: a folder that does not exist or is empty, outside the data.
        how: whether to copy the files or to link to them (local folders only); in place, the data
            becomes the cleaned set, and `target` holds what is left out and the undo list.
        apply: what becomes of images that people gave another label to.
        reviewed_only: whether to keep every image that nobody decided, whatever the rule says.
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
    if MARKER in there:
        raise UserError(f"{target}: an incomplete export; delete it and export again")
    if there:
        raise UserError(f"{target}: not empty; export to a new folder")
    if how != "copy" and any(image.packed for image in images.images):
        raise UserError(f"--how {how}: the pictures lie in containers; only copy can export them")
    if how != "copy" and (data.remote or target.remote):
        raise UserError(f"--how {how} needs local folders; use copy for {data} to {target}")
    _check_outside(data, target)
    changes = _changes(run, images, apply, reviewed_only=reviewed_only)
    chosen = [
        replace(image, label=changes[image.split, image.id].label)
        if (image.split, image.id) in changes
        else image
        for image in images.images
    ]
    chosen = [image for image in chosen if image.label]
    _check_classes(chosen, images)
    layout = layout_of(images, chosen, changes)
    if how == "in-place":
        in_place.change(data, layout, Path(target.uri))
    elif target.remote:
        _write_objects(data, layout, target)
    else:
        _write_folder(data, layout, Path(target.uri), how)
    relabelled = sum(bool(change.label) for change in changes.values())
    return Exported(len(chosen), len(changes) - relabelled, relabelled)


def undo_in_place(run: RunDirectory, left_out: Location) -> int:
    """Put back what an export in place moved; how many images that were.

    Raises:
        UserError: there is nothing to undo, or some image cannot be put back.
    """
    images = read_image_set(run)
    if images is None or images.root.remote or left_out.remote:
        raise UserError(f"{left_out}: nothing to undo; only local folders are changed in place")
    return in_place.undo(images.root, Path(left_out.uri))


def _changes(
    run: RunDirectory, images: ImageSet, apply: Apply, *, reviewed_only: bool
) -> dict[tuple[str, str], Change]:
    """What becomes of each image that is left out or has another label, by split and id."""
    found = {} if reviewed_only else _by_rule(run, images)
    labels = {(image.split, image.id): image.label for image in images.images}
    for image, decision in decided(run, labels).items():
        found.pop(image, None)
        by, note = decision.by or "a person", decision.note
        if decision.decision == "drop":
            found[image] = Change("", by, note)
        elif decision.decision == "relabel":
            label = decision.label if apply == "relabel" else ""
            found[image] = Change(label, by, note or f"is {decision.label}")
    return found


def _by_rule(run: RunDirectory, images: ImageSet) -> dict[tuple[str, str], Change]:
    """The training images that the rule drops."""
    kept = set(parquet.read_table(run.kept)["id"].to_pylist())
    values = parquet.read_table(run.values) if run.values.exists() else None
    reasons = {}
    if values is not None and "reason" in values.column_names:
        reasons = dict(zip(values["id"].to_pylist(), values["reason"].to_pylist(), strict=True))
    return {
        ("train", image.id): Change("", "rule", reasons.get(image.id) or "")
        for image in images.split("train")
        if image.id not in kept
    }


def _check_classes(chosen: Sequence[Image], images: ImageSet) -> None:
    """Refuse to leave out a class of train altogether, which people's decisions may."""
    missing = set(images.classes) - {image.label for image in chosen if image.split == "train"}
    if missing:
        raise UserError(
            f"nothing of class {', '.join(sorted(missing))} would be left in train; keep some of "
            "its images (dcai-ray decide), or use --apply relabel"
        )


def _check_outside(data: Location, target: Location) -> None:
    """Refuse a target that a later listing of the data would take for a class."""
    if data.remote != target.remote:
        return
    inner, outer = target.uri.rstrip("/"), data.uri.rstrip("/")
    if not data.remote:
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    if f"{inner}/".startswith(f"{outer}/"):
        raise UserError(f"{target}: inside the data ({data}); export to a folder outside of it")


def _write_objects(data: Location, layout: Layout, target: Location) -> None:
    """Write all objects; the marker is gone only when they are complete."""
    marker, written = target / MARKER, []
    marker.write_bytes(b"")
    try:
        for image in layout.images:
            content = _content(data, image)
            copy = target / layout.name(image, content)
            written.append(copy)
            copy.write_bytes(content)
            _check_size(copy, len(content), len(copy.read_bytes()))
        for name, text in layout.texts().items():
            written.append(target / name)
            (target / name).write_bytes(text)
    except BaseException:
        for copy in written:
            copy.delete()
        marker.delete()
        raise
    marker.delete()


def _write_folder(data: Location, layout: Layout, target: Path, how: How) -> None:
    """Write all files to a folder beside the target, then rename it."""
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(20, "is a file, not a folder", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.parent / f".{uuid.uuid4().hex[:8]}"  # short, as any name of a target fits
    try:
        made.mkdir()
        for image in layout.images:
            _write(data, image, layout, made, how)
        for name, text in layout.texts().items():
            (made / name).write_bytes(text)
        os.replace(made, target)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _write(data: Location, image: Image, layout: Layout, folder: Path, how: How) -> None:
    content = _content(data, image) if how == "copy" else b""
    copy = folder / layout.name(image, content)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if how == "copy":
        copy.write_bytes(content)
    else:
        # A hard link to a symbolic link is that link, and a relative one leads nowhere from here.
        file = os.path.realpath((data / image.path).uri, strict=True)
        (os.link if how == "hardlink" else os.symlink)(file, copy)
        _check_size(data / image.path, image.bytes, os.stat(copy).st_size)


def _content(data: Location, image: Image) -> bytes:
    """The bytes of a picture, which must be those that the run has read."""
    file = image.file(data)
    content = file.read_bytes()
    if image.bytes:
        _check_size(file, image.bytes, len(content))
    elif hashlib.sha256(content).hexdigest() != image.sha256:  # a row, whose size is not listed
        raise UserError(f"{file}: is not what the run read; nothing was exported")
    return content


def _check_size(file: object, wanted: int, size: int) -> None:
    if size != wanted:
        raise UserError(
            f"{file}: has {size} bytes, {wanted} when the run read it; nothing was exported"
        )
