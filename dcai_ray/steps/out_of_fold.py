"""Out-of-fold predictions: what networks say of images that they were not trained on.

With `value.evidence finetune`, all labelled images but val, noisy and clean ones, are dealt into
folds; for each fold a network is fine-tuned on the others (`training`), and it predicts the classes
of the fold. Equal pictures are in the same fold, or a network would know the label of a copy. The
predictions of a user's own network are read from a file instead, or as well.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.evidence import log_odds
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config
from dcai_ray.errors import UserError
from dcai_ray.images.image_set import Image, ImageSet
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.feature_set import FeatureSet
from dcai_ray.steps.freshness import is_current
from dcai_ray.steps.probability_import import probabilities_among
from dcai_ray.steps.training import new_jobs, train
from dcai_ray.steps.user_files import read_arrays
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.storage.probabilities import Probabilities, select

FORMAT = 1
"""Raise this when images are dealt into folds in another way, or predicted in another way."""

_SPLITS = ("train", "shapley_val")


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """Log odds of each class, by networks that were not trained on the image."""

    name: str
    train: NDArray[np.float64]  # (n, C)
    clean: NDArray[np.float64] | None  # (m, C); None if there are no clean images, or not asked for


def predict_out_of_fold(run: RunDirectory, images: ImageSet, config: Config) -> None:
    """Fine-tune a network per fold and predict the fold, if asked for.

    Writes `crossfit/probabilities.parquet`, and the networks beside it. The first backbone and the
    first seed of the settings are used.

    Raises:
        UserError: weights or an image cannot be read, the training diverges, or there are fewer
            different images than folds.
    """
    if config.value.evidence != "finetune":
        return
    recipe = config.finetune
    recipe = replace(recipe, backbones=recipe.backbones[:1], seeds=recipe.seeds[:1])
    config = replace(config, finetune=recipe)
    labelled = [image for split in _SPLITS for image in images.split(split)]
    fold = _folds(labelled, recipe.folds, recipe.seeds[0])
    jobs = []
    for k in range(recipe.folds):
        inside = [image for image, f in zip(labelled, fold, strict=True) if f == k]
        outside = [image for image, f in zip(labelled, fold, strict=True) if f != k]
        arm = {f"fold-{k}": {recipe.seeds[0]: outside}}
        jobs += new_jobs(run, images, config, "crossfit", arm, inside)
    fingerprint = new_fingerprint("out of fold", FORMAT, [job.fingerprint for job in jobs])
    if is_current(run.out_of_fold, fingerprint):
        return
    start = time.monotonic()
    train(run, images, config, "crossfit", jobs)
    step = Step(
        name="predicting out of fold",
        unit="images",
        sizes=[len(job.val[0]) for job in jobs],
        task_names=[f"predict {job.arm}" for job in jobs],
        num_gpus=config.resources.gpus_per_extraction,
        default_num_gpus=0.25,
        run=run.location,
        data=images.root,
    )
    p = np.empty((len(labelled), len(images.classes)))
    for k, found in enumerate(run_tasks(tasks.predict_fold, jobs, step, config.resources)):
        p[fold == k] = found
    splits, ids = [im.split for im in labelled], [im.id for im in labelled]
    table = Probabilities(splits, ids, images.classes, p).table()
    parquet.write_table(run.out_of_fold, table, fingerprint)
    run.record_step("crossfit", fingerprint, time.monotonic() - start, folds=recipe.folds)


def _folds(images: Sequence[Image], num_folds: int, seed: int) -> NDArray[np.intp]:
    """The fold of each image: the classes are shuffled and dealt out in turn, copies together."""
    first: dict[str, int] = {}
    for i, image in enumerate(images):
        first.setdefault(image.shows, i)
    own = np.array([first[image.shows] for image in images])
    leaders = np.unique(own)
    if len(leaders) < num_folds:
        raise UserError(
            f"finetune.folds is {num_folds}, but there are only {len(leaders)} different images; "
            "use fewer folds"
        )
    rng = np.random.default_rng(seed)
    order = sorted(rng.permutation(leaders).tolist(), key=lambda i: images[i].label)
    fold = np.empty(len(images), dtype=np.intp)
    fold[order] = np.arange(len(order)) % num_folds
    return fold[own]


def fingerprint_of_predictions(run: Location, config: Config) -> list[str]:
    """What the predictions of the settings are read from."""
    file, own = config.value.probabilities, RunDirectory(run).out_of_fold
    return [
        hashlib.sha256(Location(file).read_bytes()).hexdigest() if file else "",
        parquet.fingerprint_of(own) if config.value.evidence == "finetune" else "",
    ]


def read_predictions(points: FeatureSet, config: Config, *, of_clean: bool) -> list[Predicted]:
    """The predictions that the settings ask for, of the images of the features.

    Args:
        points: the features.
        config: its section value is used.
        of_clean: whether predictions for shapley_val are needed; a user's file need not have them.
    Raises:
        UserError: an image has no prediction, or a file makes no sense.
    """
    found = []
    if config.value.probabilities:
        wanted = {"train": points.ids} | ({"shapley_val": points.clean_ids} if of_clean else {})
        file = Location(config.value.probabilities)
        p = probabilities_among(file, read_arrays(file)[0], wanted, points.classes)
        clean = log_odds(p["shapley_val"]) if of_clean else None
        found.append(Predicted("network", log_odds(p["train"]), clean))
    if config.value.evidence == "finetune":
        own = RunDirectory(points.run).out_of_fold
        if not own.exists():
            raise UserError(
                f"{own}: no such file; with value.evidence finetune, `dcai-ray run` or `dcai-ray "
                "audit` must have trained the networks in the same run folder"
            )
        there = Probabilities.of(parquet.read_table(own))
        wanted = {"train": points.ids, "shapley_val": points.clean_ids}
        p = select(own, there, wanted, points.classes)
        clean = log_odds(p["shapley_val"]) if len(points.clean_ids) else None
        found.append(Predicted("finetuned", log_odds(p["train"]), clean))
    return found
