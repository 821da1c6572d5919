"""Step 2a: features as Ray tasks, one Parquet shard each; only missing shards are computed."""

import json
import os
import time
from collections.abc import Mapping

from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config
from dcai_ray.images.image_set import ImageSet
from dcai_ray.images.listing import SPLITS
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.freshness import are_current
from dcai_ray.steps.reading import contents
from dcai_ray.storage.features import is_complete, open_split, shard_name, write_manifest
from dcai_ray.storage.parquet import new_fingerprint

FORMAT = 1
"""Raise this when `networks.transforms`, `networks.features` or a backbone gives other features for
the same pixels, weights and settings."""


def extract_features(run: RunDirectory, images: ImageSet, config: Config) -> None:
    """Features of every split that has images; `features/<split>/`.

    Raises:
        UserError: weights or an image cannot be read, or a feature is not finite.
    """
    notes = _notes(images, config)
    splits = {
        split: jobs for split in SPLITS if (jobs := _shards(run, images, split, config, notes))
    }
    wanted = {
        split: new_fingerprint([job.fingerprint for job in jobs]) for split, jobs in splits.items()
    }
    # A manifest vouches for a whole split; only where it does not, each shard is asked.
    incomplete = [split for split in splits if not is_complete(run.features / split, wanted[split])]
    jobs = [job for split in incomplete for job in splits[split]]
    current = are_current(
        run.features, [job.target for job in jobs], [job.fingerprint for job in jobs]
    )
    missing = [job for job, done in zip(jobs, current, strict=True) if not done]
    start = time.monotonic()
    for split in incomplete:
        open_split(run.features / split, wanted[split])
    for _ in run_tasks(
        tasks.extract_shard,
        missing,
        Step(
            name="extracting features",
            unit="images",
            sizes=[len(job.ids) for job in missing],
            task_names=[f"extract {job.name}" for job in missing],
            num_gpus=config.resources.gpus_per_extraction,
            default_num_gpus=0.25,
            run=run.location,
            data=images.root,
        ),
        config.resources,
    ):
        pass  # a task writes its shard itself
    for split in incomplete:
        names = [job.target.name for job in splits[split]]
        write_manifest(run.features / split, wanted[split], names)
    if missing:
        fingerprint = new_fingerprint(list(wanted.values()))
        seconds = time.monotonic() - start
        run.record_step("features", fingerprint, seconds, shards_computed=len(missing))


def _notes(images: ImageSet, config: Config) -> Mapping[str, str]:
    """What a shard says of how its features were made."""
    from dcai_ray.networks.backbones import input_pixels, weights_sha256

    settings = config.extract
    return {
        "backbone": settings.backbone,
        "weights_sha256": weights_sha256(settings.backbone, settings.weights),
        "transform": input_pixels(settings.backbone, settings.size_px).describe(),
        "classes": json.dumps(images.classes),
    }


def _shards(
    run: RunDirectory, images: ImageSet, split: str, config: Config, notes: Mapping[str, str]
) -> list[tasks.ExtractJob]:
    """The shards of one split; a shard's fingerprint holds all that decides its content."""
    from dcai_ray.networks.backbones import input_pixels

    settings = config.extract
    size_px = input_pixels(settings.backbone, settings.size_px).size_px
    how = new_fingerprint("features", FORMAT, notes, size_px, settings.batch_size)
    of_split = images.split(split)
    jobs: list[tasks.ExtractJob] = []
    for start in range(0, len(of_split), settings.shard_size):
        shard = of_split[start : start + settings.shard_size]
        file = shard_name(len(jobs))
        jobs.append(
            tasks.ExtractJob(
                name=f"{split}/{file.removesuffix('.parquet')}",
                target=run.features / split / file,
                fingerprint=new_fingerprint(how, contents(shard)),
                ids=[image.id for image in shard],
                labels=[image.label for image in shard],
                files=[image.file(images.root) for image in shard],
                settings=settings,
                code=os.getcwd(),
                notes=notes,
                read_threads=config.resources.read_threads,
                decode_threads=config.resources.decode_threads,
            )
        )
    return jobs
