"""Steps 1 and 3: networks fine-tuned as Ray tasks, one per backbone, arm and seed."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray import progress
from dcai_ray.cleaning.arms import Arm, arms_of, new_labels
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config, plain
from dcai_ray.images.image_set import Image, ImageSet
from dcai_ray.images.picture_files import PictureFile
from dcai_ray.images.truth import Truth
from dcai_ray.review.applied import reviewed_labels
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.freshness import is_current
from dcai_ray.steps.reading import contents
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.storage.values import check_ids, kept_digest, kept_mask, suggestions

FORMAT = 1
"""Raise this when `networks.finetuning`, `networks.transforms` or a backbone trains another network
from the same images, weights, seed and recipe."""


def train_baseline(run: RunDirectory, images: ImageSet, config: Config) -> None:
    """Step 1: fine-tune on all training images; `baseline/metrics.parquet`."""
    arms = {"all": {seed: images.split("train") for seed in config.finetune.seeds}}
    train(run, images, config, "baseline", new_jobs(run, images, config, "baseline", arms))


def retrain_networks(
    run: RunDirectory, images: ImageSet, config: Config, truth: Truth | None
) -> None:
    """Step 3: every arm but `all`, which step 1 trained; `cleaned/metrics.parquet`.

    A network depends on the images that it learns from and their labels there, not on how they were
    chosen: it is trained again only where the choice has changed.

    Raises:
        UserError: there are no complete values, or they are of other images.
    """
    noisy = images.split("train")
    values = run.read_values()
    check_ids(run.values, values["id"].to_pylist(), [image.id for image in noisy])
    _, y = _examples(noisy, images)
    clean, kept = images.split("shapley_val"), kept_mask(values)
    suggested = suggestions(values, images.classes)
    above = config.retrain.relabel_above
    compared = arms_of(
        kept,
        y,
        None if truth is None else truth.wrong,
        has_clean=bool(clean),
        seeds=config.finetune.seeds,
        relabelled=None if suggested is None else new_labels(kept, y, *suggested, above),
        reviewed=reviewed_labels(run, [image.id for image in noisy], y, kept, images.classes),
    )
    arms = {
        name: {
            seed: _chosen(noisy, arm, images.classes) + list(clean if "clean" in name else ())
            for seed, arm in by_seed.items()
        }
        for name, by_seed in compared.items()
        if name != "all"
    }
    jobs = new_jobs(run, images, config, "cleaned", arms)
    train(run, images, config, "cleaned", jobs, kept_digest=kept_digest(values))


def _chosen(train: Sequence[Image], arm: Arm, classes: Sequence[str]) -> list[Image]:
    """The training images of an arm, with the labels that they have there."""
    pairs = [(train[i], classes[arm.labels[i]]) for i in np.flatnonzero(arm.chosen).tolist()]
    return [
        image if image.label == label else replace(image, label=label) for image, label in pairs
    ]


def train(
    run: RunDirectory,
    images: ImageSet,
    config: Config,
    step: str,
    jobs: Sequence[tasks.FinetuneJob],
    **found: str,
) -> None:
    """Train the networks that are missing; write the step's metrics once all are there.

    Args:
        run: the run folder.
        images: the images of the run.
        config: its sections finetune and resources are used.
        step: the folder of the networks.
        jobs: one per network.
        found: what is recorded of the step besides.
    """
    fingerprint = new_fingerprint("metrics", sorted(job.fingerprint for job in jobs))
    if is_current(run.metrics(step), fingerprint):
        return
    start = time.monotonic()
    histories = run_tasks(
        tasks.finetune_network,
        jobs,
        Step(
            name=f"fine-tuning {step}",
            unit=f"epochs ({progress.counted(len(jobs), 'trainings')})",
            sizes=[config.finetune.epochs] * len(jobs),
            task_names=[f"fine-tune {job.arm} {job.backbone} seed {job.seed}" for job in jobs],
            num_cpus=config.finetune.num_threads,
            num_gpus=config.resources.gpus_per_training,
            default_num_gpus=1,
            run=run.location,
            data=images.root,
            reports_progress=True,
        ),
        config.resources,
    )
    rows = [
        {"arm": job.arm, "backbone": job.backbone, "seed": job.seed, **row}
        for job, history in zip(jobs, histories, strict=True)
        for row in history
    ]
    parquet.write_table(run.metrics(step), pa.Table.from_pylist(rows, schemas.METRICS), fingerprint)
    run.record_step(
        step,
        fingerprint,
        time.monotonic() - start,
        trainings=len(jobs),
        images={job.arm: len(job.train[0]) for job in jobs},
        **found,
    )


def new_jobs(
    run: RunDirectory,
    images: ImageSet,
    config: Config,
    step: str,
    arms: Mapping[str, Mapping[int, Sequence[Image]]],
    val: Sequence[Image] | None = None,
) -> list[tasks.FinetuneJob]:
    """One training per backbone, arm and seed, with the fingerprint of all that decides it.

    Args:
        run: the run folder.
        images: the images of the run.
        config: its sections finetune and resources are used.
        step: the folder of the networks.
        arms: the images to learn from, by the name of the training set and the seed.
        val: the images to score on after each epoch; the split val by default.
    """
    from dcai_ray.networks.backbones import input_pixels, weights_sha256
    from dcai_ray.networks.listed import BACKBONES

    recipe = config.finetune
    shared = plain(recipe)
    for each in ("backbones", "seeds", "weights", "folds"):  # each training has one of them
        del shared[each]
    val = images.split("val") if val is None else val
    jobs = []
    for backbone in recipe.backbones:
        pixels = input_pixels(backbone, recipe.size_px, training=True)
        weights = weights_sha256(backbone, recipe.weights)
        # The input of a listed network depends on nothing that is not in the fingerprint already.
        prepared = () if backbone in BACKBONES else (pixels.describe(),)
        how = new_fingerprint(
            "network", FORMAT, shared, backbone, weights, images.classes, contents(val), *prepared
        )
        for arm, seeds in arms.items():
            for seed, train in seeds.items():
                fingerprint = new_fingerprint(how, seed, contents(train))
                jobs.append(
                    tasks.FinetuneJob(
                        target=run.model(step, arm, backbone, seed),
                        checkpoint=run.checkpoint(step, arm, backbone, seed, fingerprint),
                        fingerprint=fingerprint,
                        arm=arm,
                        backbone=backbone,
                        seed=seed,
                        recipe=recipe,
                        code=os.getcwd(),
                        classes=images.classes,
                        train=_examples(train, images),
                        val=_examples(val, images),
                        read_threads=config.resources.read_threads,
                        decode_threads=config.resources.decode_threads,
                    )
                )
    return jobs


def _examples(
    chosen: Sequence[Image], images: ImageSet
) -> tuple[list[PictureFile], NDArray[np.int64]]:
    """Pictures and class numbers."""
    number = {label: i for i, label in enumerate(images.classes)}
    targets = np.array([number[image.label] for image in chosen], dtype=np.int64)
    return [image.file(images.root) for image in chosen], targets
