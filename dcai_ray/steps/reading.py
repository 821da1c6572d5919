"""Before step 1: every image opened once, so that the broken are known before anything is computed.

What is found goes to `images.parquet`; a rerun trusts it as long as names and sizes are the same.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dcai_ray import progress
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config
from dcai_ray.errors import UserError
from dcai_ray.images.decoding import Inspected
from dcai_ray.images.folders import SPLITS, ImageFile, Listing, duplicates
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint

_IMAGES_A_TASK = 64
_LINES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The readable images of a run."""

    data: Location
    rows: tuple[dict[str, Any], ...]
    """As `tables.IMAGES`, in the order of the listing."""
    classes: tuple[str, ...]

    def split(self, name: str) -> list[dict[str, Any]]:
        """Rows of one split."""
        return [row for row in self.rows if row["split"] == name]


def contents(rows: Sequence[dict[str, Any]]) -> str:
    """A fingerprint of images: ids, labels and what is in the files."""
    return new_fingerprint([[row["id"], row["label"], row["sha256"]] for row in rows])


def read_images(run: RunDirectory, data: Location, listing: Listing, config: Config) -> ImageSet:
    """Open every image once; warn of duplicates.

    Raises:
        UserError: images are unreadable (all are named), the run belongs to other images, or
            leaving out the unreadable would empty a class.
    """
    for note in listing.notes:
        progress.say(note)
    if run.images.exists():
        _check_same_images(run, listing)
        return ImageSet(data, tuple(parquet.read_table(run.images).to_pylist()), listing.classes)
    start = time.monotonic()
    seen = _inspect(run, data, listing.images, config)
    pairs = list(zip(listing.images, seen, strict=True))
    bad = [(image, found) for image, found in pairs if found.reason]
    good = [(image, found) for image, found in pairs if not found.reason]
    if bad:
        _pass_over(run, data, listing, bad, good, config)
    across, inside = duplicates([image for image, _ in good], [found.sha256 for _, found in good])
    _warn(across, "in train and validation splits")
    _warn(inside, "inside train")
    rows = [_row(image, found) for image, found in good]
    fingerprint = _listing_fingerprint(listing)
    run.record_step(
        "images",
        fingerprint,
        time.monotonic() - start,
        images={split: sum(row["split"] == split for row in rows) for split in SPLITS},
        unreadable=len(bad),
        notes=list(listing.notes),
        duplicates_across_splits=across,
        duplicates_in_train=inside,
    )
    parquet.write_table(run.images, pa.Table.from_pylist(rows, schemas.IMAGES), fingerprint)
    return ImageSet(data, tuple(rows), listing.classes)


def _inspect(
    run: RunDirectory, data: Location, files: Sequence[ImageFile], config: Config
) -> list[Inspected]:
    starts = range(0, len(files), _IMAGES_A_TASK)
    jobs = [
        tasks.InspectJob(
            data,
            [image.path for image in files[i : i + _IMAGES_A_TASK]],
            config.resources.read_threads,
        )
        for i in starts
    ]
    parts = run_tasks(
        tasks.inspect_images,
        jobs,
        Step(
            name="reading images",
            unit="images",
            sizes=[len(job.paths) for job in jobs],
            task_names=[
                f"read images {i}-{i + len(job.paths) - 1}"
                for i, job in zip(starts, jobs, strict=True)
            ],
            run=run.location,
            data=data,
        ),
        config.resources,
    )
    return [found for part in parts for found in part]


def _pass_over(
    run: RunDirectory,
    data: Location,
    listing: Listing,
    bad: Sequence[tuple[ImageFile, Inspected]],
    good: Sequence[tuple[ImageFile, Inspected]],
    config: Config,
) -> None:
    """Refuse unreadable images, or list them in skipped.parquet, as the settings say."""
    if config.images.unreadable == "fail":
        lines = "".join(f"\n  {data / image.path}: {found.reason}" for image, found in bad)
        raise UserError(
            f"{len(bad)} unreadable images; repair or remove them, or leave them out with "
            f"--unreadable skip:{lines}"
        )
    left = {(image.split, image.label) for image, _ in good}
    emptied = sorted({(image.split, image.label) for image in listing.images} - left)
    if emptied:
        names = ", ".join("/".join(pair) for pair in emptied)
        raise UserError(f"no readable image is left in {names}; repair or remove that class")
    rows = [
        {"split": image.split, "id": image.id, "bytes": image.bytes, "reason": found.reason}
        for image, found in bad
    ]
    table = pa.Table.from_pylist(rows, schemas.SKIPPED)
    parquet.write_table(run.skipped, table, _listing_fingerprint(listing))
    progress.say(f"{len(bad)} unreadable images left out, listed in {run.skipped}", logging.WARNING)


def _row(image: ImageFile, found: Inspected) -> dict[str, Any]:
    return {
        "split": image.split,
        "id": image.id,
        "label": image.label,
        "path": image.path,
        "bytes": image.bytes,
        "width": found.width,
        "height": found.height,
        "sha256": found.sha256,
    }


def _warn(groups: Sequence[str], where: str) -> None:
    if groups:
        progress.warn(f"{len(groups)} pictures occur more than once {where}:")
        for line in groups[:_LINES_SHOWN]:
            progress.say(f"  {line}", logging.WARNING)
        if len(groups) > _LINES_SHOWN:
            progress.say(
                f"  and {len(groups) - _LINES_SHOWN} more, listed in run.json", logging.WARNING
            )


def _listing_fingerprint(listing: Listing) -> str:
    return new_fingerprint([[image.split, image.id, image.bytes] for image in listing.images])


def _check_same_images(run: RunDirectory, listing: Listing) -> None:
    if parquet.fingerprint_of(run.images) == _listing_fingerprint(listing):
        return
    rows = parquet.read_table(run.images).to_pylist()
    if run.skipped.exists():
        rows += parquet.read_table(run.skipped).to_pylist()
    there = {(row["split"], row["id"]): row["bytes"] for row in rows}
    now = {(image.split, image.id): image.bytes for image in listing.images}
    changed = sorted(key for key in there.keys() | now.keys() if there.get(key) != now.get(key))
    raise UserError(
        f"{run.location} was made from other images: {len(changed)} differ, the first "
        f"{'/'.join(changed[0])}; use another --run"
    )
