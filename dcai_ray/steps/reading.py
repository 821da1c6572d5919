"""Before step 1: open every image once, to find unreadable ones before anything is computed.

The result is written to `images.parquet`; a rerun relies on it as long as names and sizes are
unchanged.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pyarrow as pa

from dcai_ray import progress
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config
from dcai_ray.errors import UserError
from dcai_ray.images import depth
from dcai_ray.images.decoding import Inspected
from dcai_ray.images.image_set import Image, ImageSet, image_table, images_of
from dcai_ray.images.listing import SPLITS, ImageFile, Listing, duplicates
from dcai_ray.images.shown import FINDINGS, blanks, found_in, under_two_labels
from dcai_ray.images.unchanged import replaced
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.parquet import new_fingerprint

FORMAT = 2
"""Raise this when `images.decoding` turns some file into other pixels or refuses others: every step
that reads images is then computed again."""

_IMAGES_PER_TASK = 64
_LINES_SHOWN = 10


def contents(images: Sequence[Image]) -> str:
    """A fingerprint of images: their decoding, ids, labels, contents and scales."""
    return new_fingerprint(
        FORMAT, [[image.id, image.label, image.sha256, image.white] for image in images]
    )


def read_images(run: RunDirectory, listing: Listing, config: Config) -> ImageSet:
    """Open every image once; warn of duplicates.

    Raises:
        UserError: images are unreadable (all are named), the run belongs to other images, or
            leaving out the unreadable would empty a class.
    """
    for note in (f"{listing.root}: {listing.summary}", *listing.notes):
        progress.say(note)
    fingerprint = new_fingerprint("images", FORMAT, _names_and_sizes(listing))
    if parquet.is_up_to_date(run.images, fingerprint):
        images = _where_they_lie(run, listing, fingerprint)
        if others := replaced(run, listing.root, images):
            raise UserError(
                f"{run.location} was made from other images: {len(others)} were replaced since, "
                f"the first {others[0]}; use another --run"
            )
        return ImageSet(listing.root, images, listing.classes, listing.table)
    if run.images.exists():
        _check_same_images(run, listing)
        progress.say(f"{run.images}: the decoding of images has changed; reading them again")
    start = time.monotonic()
    pairs = list(zip(listing.images, _inspect(run, listing, config), strict=True))
    bad = [(image, found) for image, found in pairs if found.reason]
    good = [(image, found) for image, found in pairs if not found.reason]
    if bad:
        _skip(run, listing, bad, good, config, fingerprint)
    images = _records(good)
    across, inside = duplicates(images, [image.shows for image in images])
    findings = dict(
        zip(FINDINGS, (under_two_labels(images), across, inside, blanks(images)), strict=True)
    )
    for key, groups in findings.items():
        _warn(groups, FINDINGS[key])
    levels = [image.white for image in images if image.white]
    if levels:
        progress.say(
            f"{progress.counted(len(levels), 'images')} with more than 8 bits of grey: "
            f"{', '.join(f'{level:g}' for level in sorted(set(levels)))} is shown as white"
        )
    run.record_step(
        "images",
        fingerprint,
        time.monotonic() - start,
        images={split: sum(image.split == split for image in images) for split in SPLITS},
        unreadable=len(bad),
        notes=list(listing.notes),
        **findings,
        deep_greys_show_as_white=sorted(set(levels)),
    )
    parquet.write_table(run.images, image_table(images), fingerprint)
    return ImageSet(listing.root, images, listing.classes, listing.table)


def _where_they_lie(run: RunDirectory, listing: Listing, fingerprint: str) -> tuple[Image, ...]:
    """The images of the run; in a container that was packed anew, their new places."""
    images = images_of(parquet.read_table(run.images))
    places = {(image.split, image.id): image.packed for image in listing.images}
    moved = tuple(replace(image, packed=places[image.split, image.id]) for image in images)
    if moved != images:
        parquet.write_table(run.images, image_table(moved), fingerprint)
    return moved


def _inspect(run: RunDirectory, listing: Listing, config: Config) -> list[Inspected]:
    """The result of opening each image of the listing."""
    files = listing.images
    starts = range(0, len(files), _IMAGES_PER_TASK)
    jobs = [
        tasks.InspectJob(
            [image.file(listing.root) for image in files[i : i + _IMAGES_PER_TASK]],
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
            sizes=[len(job.files) for job in jobs],
            task_names=[
                f"read images {i}-{i + len(job.files) - 1}"
                for i, job in zip(starts, jobs, strict=True)
            ],
            run=run.location,
            data=listing.root,
        ),
        config.resources,
    )
    return [found for part in parts for found in part]


def _skip(
    run: RunDirectory,
    listing: Listing,
    bad: Sequence[tuple[ImageFile, Inspected]],
    good: Sequence[tuple[ImageFile, Inspected]],
    config: Config,
    fingerprint: str,
) -> None:
    """Refuse unreadable images, or list them in skipped.parquet, as the settings say."""
    if config.images.unreadable == "fail":
        lines = "".join(f"\n  {image.file(listing.root)}: {found.reason}" for image, found in bad)
        raise UserError(
            f"{progress.counted(len(bad), 'unreadable images')}; repair or remove them, or leave "
            f"them out with --unreadable skip:{lines}"
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
    parquet.write_table(run.skipped, table, fingerprint)
    skipped = progress.counted(len(bad), "unreadable images")
    progress.say(f"{skipped} skipped, listed in {run.skipped}", logging.WARNING)


def _records(good: Sequence[tuple[ImageFile, Inspected]]) -> tuple[Image, ...]:
    """The readable images, their deep greys scaled alike."""
    white = depth.whites([found.depth for _, found in good])
    return tuple(_record(*pair, level) for pair, level in zip(good, white, strict=True))


def _record(image: ImageFile, found: Inspected, white: float) -> Image:
    listed: dict[str, Any] = {each.name: getattr(image, each.name) for each in fields(image)}
    return Image(
        **listed,
        width=found.width,
        height=found.height,
        sha256=found.sha256,
        pixels=found.pixels,
        blank=found.blank,
        white=white,
    )


def _warn(groups: Sequence[str], finding: str) -> None:
    if groups:
        progress.warn(f"{found_in(len(groups), finding)}:")
        for line in groups[:_LINES_SHOWN]:
            progress.say(f"  {line}", logging.WARNING)
        if len(groups) > _LINES_SHOWN:
            progress.say(
                f"  and {len(groups) - _LINES_SHOWN} more, listed in run.json", logging.WARNING
            )


def _names_and_sizes(listing: Listing) -> list[tuple[str, str, int]]:
    return [(image.split, image.id, image.bytes) for image in listing.images]


def _check_same_images(run: RunDirectory, listing: Listing) -> None:
    """Refuse a run of other images.

    Raises:
        UserError: an image was added, is gone, or has another size.
    """
    rows = parquet.read_table(run.images).to_pylist()
    if run.skipped.exists():
        rows += parquet.read_table(run.skipped).to_pylist()
    there = {(row["split"], row["id"]): row["bytes"] for row in rows}
    now = {(split, name): size for split, name, size in _names_and_sizes(listing)}
    changed = sorted(key for key in there.keys() | now.keys() if there.get(key) != now.get(key))
    if changed:
        raise UserError(
            f"{run.location} was made from other images: {len(changed)} differ, the first "
            f"{'/'.join(changed[0])}; use another --run"
        )
