"""Step 2a: features as Ray tasks, one Parquet shard each; only missing shards are computed."""

import json
import time
from collections.abc import Mapping

from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config
from dcai_ray.images.folders import SPLITS
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.reading import ImageSet, contents
from dcai_ray.storage import parquet
from dcai_ray.storage.features import shard_name, write_manifest
from dcai_ray.storage.parquet import new_fingerprint


def extract_features(run: RunDirectory, images: ImageSet, config: Config) -> None:
    """Features of every split that has images; `features/<split>/`."""
    splits = {split: jobs for split in SPLITS if (jobs := _shards(run, images, split, config))}
    missing = [
        job
        for jobs in splits.values()
        for job in jobs
        if not parquet.is_up_to_date(job.target, job.fingerprint)
    ]
    start = time.monotonic()
    for _ in run_tasks(
        tasks.extract_shard,
        missing,
        Step(
            name="extracting features",
            unit="images",
            sizes=[len(job.ids) for job in missing],
            task_names=[f"extract {_place(job)}" for job in missing],
            num_gpus=config.resources.gpus_per_extraction,
            default_num_gpus=0.25,
            run=run.location,
            data=images.data,
        ),
        config.resources,
    ):
        pass  # a task writes its shard itself
    for split, jobs in splits.items():
        complete = new_fingerprint([job.fingerprint for job in jobs])
        write_manifest(run.features / split, complete, [job.target.name for job in jobs])
    if missing:
        fingerprint = new_fingerprint([job.fingerprint for jobs in splits.values() for job in jobs])
        seconds = time.monotonic() - start
        run.record_step("features", fingerprint, seconds, shards_computed=len(missing))


def _place(job: tasks.ExtractJob) -> str:
    """Of a shard: train/part-00003."""
    return "/".join(str(job.target).split("?")[0].removesuffix(".parquet").split("/")[-2:])


def _shards(
    run: RunDirectory, images: ImageSet, split: str, config: Config
) -> list[tasks.ExtractJob]:
    """The shards of one split; a shard's fingerprint holds all that decides its content."""
    from dcai_ray.networks.backbones import image_size, weights_sha256

    settings = config.extract
    rows = images.split(split)
    size_px = image_size(settings.backbone, settings.size_px)
    weights = weights_sha256(settings.backbone, settings.weights)
    how = new_fingerprint("features", settings.backbone, weights, size_px, settings.batch_size)
    notes: Mapping[str, str] = {
        "backbone": settings.backbone,
        "weights_sha256": weights,
        "transform": f"resize short side to {size_px} px, centre crop, ImageNet normalization",
        "classes": json.dumps(images.classes),
    }
    jobs: list[tasks.ExtractJob] = []
    for start in range(0, len(rows), settings.shard_size):
        part = rows[start : start + settings.shard_size]
        jobs.append(
            tasks.ExtractJob(
                data=images.data,
                target=run.features / split / shard_name(len(jobs)),
                fingerprint=new_fingerprint(how, images.classes, contents(part)),
                ids=[row["id"] for row in part],
                labels=[row["label"] for row in part],
                paths=[row["path"] for row in part],
                settings=settings,
                notes=notes,
                read_threads=config.resources.read_threads,
                decode_threads=config.resources.decode_threads,
            )
        )
    return jobs
