"""The work of the tasks: plain functions of a job, for `task_pool.run_tasks`.

A job holds everything that a task needs, so a task that runs again, here or elsewhere, writes the
same bytes. What is heavy is imported by the task that needs it: a worker that reads images is at
work before scikit-learn would be loaded.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dcai_ray.config import ExtractConfig, FinetuneConfig
from dcai_ray.errors import StorageError, UserError
from dcai_ray.images import decoding
from dcai_ray.images.picture_files import PictureFile
from dcai_ray.storage import parquet
from dcai_ray.storage.features import feature_table
from dcai_ray.storage.location import Location
from dcai_ray.storage.model_files import read_notes
from dcai_ray.storage.read_ahead import read_ahead

if TYPE_CHECKING:
    from dcai_ray.cleaning.conflicts import Pairs, Pictures
    from dcai_ray.cleaning.evidence import Probe
    from dcai_ray.cleaning.label_fit import LabelledSet
    from dcai_ray.valuation.count_values import CountGame
    from dcai_ray.valuation.knn_shapley import KnnGame, Sums
    from dcai_ray.valuation.removal import Removal
    from dcai_ray.valuation.utilities.grouped import Grouped


@dataclass(frozen=True, slots=True)
class InspectJob:
    """Files to open."""

    files: Sequence[PictureFile]
    read_threads: int

    def describe(self) -> str:
        """What it holds, for a message."""
        return _span(self.files)


def inspect_images(job: InspectJob) -> list[decoding.Inspected]:
    """Decode every file once, to find unreadable files before anything is computed."""
    return [
        decoding.Inspected(0, 0, "", content)
        if isinstance(content, str)
        else decoding.inspect(content)
        for content in read_ahead(_content, job.files, job.read_threads)
    ]


def _content(file: PictureFile) -> bytes | str:
    """The bytes of a file, or the reason why it cannot be read."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, PermissionError) as error:  # for example a broken link
        return (error.strerror or "cannot be read").lower()
    except StorageError:  # a store that does not answer is no property of the picture
        raise
    except UserError as error:
        return str(error)


def _span(files: Sequence[PictureFile]) -> str:
    """Files by their number, the first and the last."""
    first, last = files[0].path, files[-1].path
    return f"{len(files)} images, {first} to {last}" if len(files) > 1 else first


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One shard of features."""

    name: str
    """Name of the shard in messages: train/part-00003."""
    target: Location
    fingerprint: str
    ids: Sequence[str]
    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class ExtractJob(ShardJob):
    """One shard of features of images."""

    files: Sequence[PictureFile]
    settings: ExtractConfig
    code: str
    """Working directory of the driver, where the module of a user's own network may lie."""
    notes: Mapping[str, str]
    read_threads: int
    decode_threads: int

    def describe(self) -> str:
        """What it holds, for a message."""
        return _span(self.files)


def extract_shard(job: ExtractJob, tick: Callable[[float], None]) -> int:
    """Write one shard of features; returns its number of images.

    Args:
        job: the shard.
        tick: called after each batch with the number of images done so far.
    """
    from dcai_ray.networks.features import extract

    device = _device(1)
    pixels = _pixels(job.settings.backbone, job.settings.size_px, job.code)
    x = extract(
        _feature_extractor(job.settings.backbone, job.settings.weights, pixels.size_px),
        job.files,
        pixels=pixels,
        batch_size=job.settings.batch_size,
        threads=job.decode_threads,
        readers=job.read_threads,
        device=device,
        tick=tick,
    )
    table = feature_table(job.ids, job.labels, x, job.notes)
    parquet.write_table(job.target, table, job.fingerprint)
    return len(x)


@dataclass(frozen=True, slots=True)
class EncodeJob(ShardJob):
    """One shard of features of texts."""

    texts: Sequence[str]
    encoder: str
    batch_size: int
    notes: Mapping[str, str]

    def describe(self) -> str:
        """What it holds, for a message."""
        return f"{len(self.texts)} texts, {self.ids[0]} to {self.ids[-1]}"


def encode_shard(job: EncodeJob, tick: Callable[[float], None]) -> int:
    """Write one shard of features of texts; returns their number.

    Args:
        job: the shard.
        tick: called after each batch with the number of texts done so far.
    """
    from dcai_ray.networks.text_encoders import encode

    x = encode(
        _text_encoder(job.encoder),
        job.texts,
        batch_size=job.batch_size,
        device=_device(1),
        tick=tick,
    )
    table = feature_table(job.ids, job.labels, x, job.notes, job.texts)
    parquet.write_table(job.target, table, job.fingerprint)
    return len(x)


@dataclass(frozen=True, slots=True)
class FinetuneJob:
    """One training."""

    target: Location
    checkpoint: Location
    """The file that keeps an unfinished training."""
    fingerprint: str
    arm: str
    backbone: str
    seed: int
    recipe: FinetuneConfig
    code: str
    """Working directory of the driver, where the module of a user's own network may lie."""
    classes: Sequence[str]
    train: tuple[Sequence[PictureFile], NDArray[np.int64]]
    """Pictures and class numbers."""
    val: tuple[Sequence[PictureFile], NDArray[np.int64]]
    read_threads: int
    decode_threads: int

    def describe(self) -> str:
        """What it holds, for a message."""
        return _span(self.train[0])


def finetune_network(job: FinetuneJob, tick: Callable[[float], None]) -> list[dict[str, Any]]:
    """Train a network, unless its file is there already; returns the rows of its history.

    An unfinished training resumes after its last complete epoch.
    """
    done = trained(job.target, job.fingerprint)
    if done is not None:
        tick(job.recipe.epochs)
        return done
    from safetensors.torch import save

    from dcai_ray.networks.finetuning import (
        Pictures,
        Training,
        finetune,
        history_rows,
        new_training,
    )
    from dcai_ray.networks.heads import classifier

    device = _device(job.recipe.num_threads)
    pixels = _pixels(job.backbone, job.recipe.size_px, job.code)
    network = classifier(
        job.backbone, len(job.classes), job.recipe.weights, pixels.size_px, seed=job.seed
    )
    training = new_training(network, job.backbone, job.recipe, device)
    if job.checkpoint.exists():
        training.restore(job.checkpoint.read_bytes(), device)

    def after_epoch(training: Training) -> None:
        if training.epoch < job.recipe.epochs:
            job.checkpoint.write_bytes(training.to_bytes())
        tick(training.epoch)

    train, val = Pictures(*job.train), Pictures(*job.val)
    finetune(
        training,
        train,
        val,
        job.recipe,
        seed=job.seed,
        pixels=pixels,
        device=device,
        threads=job.decode_threads,
        readers=job.read_threads,
        after_epoch=after_epoch,
    )
    rows = history_rows(training.history)
    state = {key: value.contiguous().cpu() for key, value in network.state_dict().items()}
    notes = {
        "fingerprint": job.fingerprint,
        "history": json.dumps(rows),
        "backbone": job.backbone,
        "classes": json.dumps(list(job.classes)),
        "size_px": str(pixels.size_px),
    }
    job.target.write_bytes(save(state, notes))
    job.checkpoint.delete()
    return rows


def predict_fold(job: FinetuneJob) -> NDArray[np.float64]:
    """Probabilities (k, C) that the trained network of a job gives to its validation images."""
    from safetensors.torch import load
    from scipy.special import softmax

    from dcai_ray.networks.features import extract
    from dcai_ray.networks.heads import classifier

    pixels = _pixels(job.backbone, job.recipe.size_px, job.code)
    network = classifier(job.backbone, len(job.classes), "none", pixels.size_px, seed=job.seed)
    network.load_state_dict(load(job.target.read_bytes()))
    logits = extract(
        network.eval(),
        job.val[0],
        pixels=pixels,
        batch_size=job.recipe.batch_size,
        threads=job.decode_threads,
        readers=job.read_threads,
        device=_device(job.recipe.num_threads),
    )
    return softmax(logits.astype(np.float64), axis=1)


def trained(model: Location, fingerprint: str) -> list[dict[str, Any]] | None:
    """The history in a model's file; None if there is no model with this fingerprint."""
    notes = read_notes(model)
    return json.loads(notes["history"]) if notes.get("fingerprint") == fingerprint else None


def value_block(block: slice, game: "KnnGame | CountGame") -> "Sums":
    """Values summed over one block of validation points."""
    from dcai_ray.valuation.count_values import CountGame, count_block_sums
    from dcai_ray.valuation.knn_shapley import val_block_sums

    if isinstance(game, CountGame):
        return count_block_sums(game, block)
    return val_block_sums(game, block)


def score_coalitions(
    block: slice, utility: "Grouped"
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Some coalitions by their numbers, and their scores: of a block of chains, or of numbers."""
    from threadpoolctl import threadpool_limits

    from dcai_ray.valuation.semivalues import scores_along, scores_of, symmetric_chains

    with threadpool_limits(1):  # the last bits of a model depend on it
        if utility.walks:
            return scores_along(utility, symmetric_chains(utility.num_players)[block])
        return np.arange(block.start, block.stop), scores_of(utility, block)


@dataclass(frozen=True, slots=True)
class ProbeData:
    """Features and class numbers of the three splits; `val` is what probes are scored on."""

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    clean: tuple[NDArray[np.float32], NDArray[np.int64]]
    val: tuple[NDArray[np.float32], NDArray[np.int64]]
    num_classes: int


def count_right(rows: slice, game: "Removal") -> NDArray[np.int64]:
    """How many images of one block of val are classified rightly, by order and removal."""
    from dcai_ray.valuation.removal import right

    return right(rows, game)


@dataclass(frozen=True, slots=True)
class RidgeData:
    """Features and class numbers, and which images the evidence is wanted of for every label."""

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    clean: tuple[NDArray[np.float32], NDArray[np.int64]]
    rows: NDArray[np.intp]
    """(r,) indices of clean images, or of training images."""
    rows_are_clean: bool
    num_classes: int
    copies: "Pairs"
    """Images and others that do not judge them; clean images come after the training ones."""


def fit_ridge(kept: NDArray[np.bool_], data: RidgeData) -> "Probe":
    """The ridge probe with some of the clean images; a mask (m,), or none for an empty one."""
    from dcai_ray.cleaning.evidence import run_probe

    x, y = data.clean[0][: len(kept)][kept], data.clean[1][: len(kept)][kept]
    n, rows = len(data.train[1]), data.rows
    number = np.concatenate([np.arange(n), np.where(kept, n + np.cumsum(kept) - 1, -1)])
    if data.rows_are_clean:
        rows = number[n + rows[kept[rows]]]
    copies = number[data.copies]
    copies = copies[(copies >= 0).all(axis=1)]
    return run_probe(*data.train, x, y, rows, data.num_classes, copies)


def compare_labels(
    sets: tuple["LabelledSet", "LabelledSet | None"], classes: Sequence[str]
) -> tuple[str, ...]:
    """What is wrong with the labels of one or two sets as a whole."""
    from dcai_ray.cleaning.label_fit import label_doubts

    return label_doubts(*sets, classes)


def compare_pictures(rows: slice, points: "Pictures", ratio: float, most_copies: int) -> "Pairs":
    """The pictures that are alike to one block of training images."""
    from dcai_ray.cleaning.conflicts import alike_pairs

    return alike_pairs(points, rows, ratio, most_copies)


@dataclass(frozen=True, slots=True)
class ShareJob:
    """One share that might be dropped."""

    score: NDArray[np.float64]
    """(n,) what images are ordered by, the lowest to be dropped first."""
    share: float
    per_class: bool
    balanced: bool
    """Whether the probe weighs each class alike."""
    test: NDArray[np.bool_]
    """(m,) clean images that the probe is scored on."""


def score_share(job: ShareJob, data: ProbeData) -> NDArray[np.float64] | None:
    """Log loss of each tested image after dropping; None if a class would be empty."""
    from dcai_ray.cleaning.probes import share_losses

    x, y = data.clean[0][job.test], data.clean[1][job.test]
    return share_losses(
        job.score, job.share, *data.train, x, y, per_class=job.per_class, balanced=job.balanced
    )


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """One probe, on some of the training images and perhaps the clean ones."""

    probe: str
    chosen: NDArray[np.bool_]
    """(n,) training images to learn from."""
    labels: NDArray[np.int64]
    """(n,) class numbers that they have there."""
    with_clean: bool
    standardize: bool


def score_probe(job: ProbeJob, data: ProbeData) -> dict[str, float]:
    """Fit one probe and score it."""
    from dcai_ray.cleaning.probes import probe_scores

    x, y = data.train[0][job.chosen], job.labels[job.chosen]
    if job.with_clean:
        x, y = np.concatenate([x, data.clean[0]]), np.concatenate([y, data.clean[1]])
    scores = probe_scores(job.probe, x, y, *data.val, data.num_classes, standardize=job.standardize)
    return {"images": len(y), **scores}


def _pixels(backbone: str, size_px: int | None, code: str) -> Any:
    """What a network expects of its input; its module may lie in the folder `code`."""
    from dcai_ray.networks.backbones import input_pixels
    from dcai_ray.networks.from_function import make_importable

    make_importable(code)
    return input_pixels(backbone, size_px)


@lru_cache(maxsize=1)
def _feature_extractor(backbone: str, weights: str, size_px: int) -> Any:
    """A worker reads the weights once, whatever the number of its shards."""
    from dcai_ray.networks.heads import feature_extractor

    return feature_extractor(backbone, weights, size_px)


@lru_cache(maxsize=1)
def _text_encoder(name: str) -> Any:
    from dcai_ray.networks.text_encoders import text_encoder

    return text_encoder(name)


def _device(num_threads: int) -> Any:
    import torch

    torch.set_num_threads(num_threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
