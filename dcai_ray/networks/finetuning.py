"""Steps 1 and 3: the training loop of one network.

Every random choice (the order of the images, their crops, dropout) depends on the seed and the
epoch alone, so a training resumed from a checkpoint ends with the weights of an uninterrupted one.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional as F

from dcai_ray.config import FinetuneConfig
from dcai_ray.errors import UserError
from dcai_ray.images import decoding
from dcai_ray.networks.heads import head_parameters
from dcai_ray.networks.pixels import Pixels
from dcai_ray.networks.transforms import centre_crop, normalized, random_crop
from dcai_ray.valuation.utilities.scores import auroc

_AUXILIARY_WEIGHT = 0.4  # weight of Inception's second head in the loss


@dataclass(frozen=True, slots=True)
class Pictures:
    """Image files and their classes."""

    files: Sequence[decoding.Source]
    targets: NDArray[np.int64]  # (k,) class numbers


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a network on one split in one epoch."""

    epoch: int
    split: str
    loss: float
    """Mean cross-entropy in nats."""
    accuracy: float
    auroc: float
    """One-vs-rest, averaged over classes; NaN if the split has a single class."""


@dataclass(slots=True)
class Training:
    """A training in progress: everything that resuming it requires."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    """Number of completed epochs."""
    history: list[Scores] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """The training as the content of a checkpoint."""
        content = io.BytesIO()
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "history": [(s.epoch, s.split, s.loss, s.accuracy, s.auroc) for s in self.history],
        }
        torch.save(state, content)
        return content.getvalue()

    def restore(self, checkpoint: bytes, device: torch.device) -> None:
        """Resume from a checkpoint of the same training."""
        state = torch.load(io.BytesIO(checkpoint), map_location=device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"]
        self.history = [Scores(*row) for row in state["history"]]


def new_training(
    network: nn.Module, backbone: str, recipe: FinetuneConfig, device: torch.device
) -> Training:
    """A training that has not begun: the network on its device, with the recipe's optimizer."""
    network = network.to(device).to(memory_format=torch.channels_last)
    parameters = list(network.parameters())
    if recipe.feature_extract:
        network.requires_grad_(False)
        parameters = head_parameters(network, backbone)
        for parameter in parameters:
            parameter.requires_grad_(True)
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            parameters,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
    else:
        optimizer = torch.optim.AdamW(
            parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
    return Training(network, optimizer)


def finetune(
    training: Training,
    train: Pictures,
    val: Pictures,
    recipe: FinetuneConfig,
    *,
    seed: int,
    pixels: Pixels,
    device: torch.device,
    threads: int = 2,
    readers: int = 16,
    after_epoch: Callable[[Training], None] = lambda training: None,
) -> None:
    """Train for the remaining epochs of the recipe; `training` holds the result.

    Args:
        training: new, or restored from a checkpoint.
        train: images to learn from.
        val: images to score on after each epoch.
        recipe: settings of the training.
        seed: seed of all random choices.
        pixels: what the network expects of its input.
        device: device of the network.
        threads: threads that decode images ahead of the network.
        readers: threads that read files ahead of the decoders.
        after_epoch: called with the training after each epoch, to save or to report it.
    Raises:
        UserError: an image is unreadable, or the loss is no longer finite.
    """
    precision = _Precision(device)
    steps = max(1, len(_batches(np.arange(len(train.files)), recipe.batch_size)))
    while training.epoch < recipe.epochs:
        epoch = training.epoch + 1
        scores = []
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(int(_seeds(seed, epoch, 0).generate_state(1)[0]))
            _train_mode(training.network, recipe)
            score = _Score()
            for step, (x, targets) in enumerate(
                _training_batches(train, recipe, seed, epoch, pixels, device, threads, readers)
            ):
                rate = _rate(recipe, (epoch - 1) * steps + step, recipe.epochs * steps)
                loss, scored = precision.step(training, x, targets, rate)
                score.add(loss, scored, targets)
            scores.append(score.result(epoch, "train"))
        if not math.isfinite(scores[0].loss):
            raise UserError(
                f"loss is {scores[0].loss} in epoch {epoch}; lower finetune.learning_rate "
                f"(now {recipe.learning_rate})"
            )
        scores.append(
            evaluate(
                training.network, val, epoch, recipe.batch_size, pixels, device, threads, readers
            )
        )
        training.history += scores
        training.epoch = epoch
        after_epoch(training)


def evaluate(
    network: nn.Module,
    val: Pictures,
    epoch: int,
    batch_size: int,
    pixels: Pixels,
    device: torch.device,
    threads: int,
    readers: int,
) -> Scores:
    """Scores of a network on centre crops."""
    network.eval()
    score = _Score()
    precision = _Precision(device)

    def picture(_: int, image: Image.Image) -> torch.Tensor:
        return centre_crop(image, pixels)

    with torch.inference_mode(), precision.autocast():
        for batch, pictures in _decoded(
            val.files, np.arange(len(val.files)), picture, batch_size, threads, readers
        ):
            targets = torch.as_tensor(val.targets[batch], device=device)
            logits = network(normalized(pictures, pixels, device)).float()
            score.add(F.cross_entropy(logits, targets), logits, targets)
    return score.result(epoch, "val")


class _Precision:
    """Mixed precision on CUDA, plain float32 elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        half = self._cuda and not torch.cuda.is_bf16_supported()
        self._dtype = torch.float16 if half else torch.bfloat16
        self._scaler = torch.amp.GradScaler("cuda", enabled=half)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cuda" if self._cuda else "cpu", self._dtype, enabled=self._cuda)

    def step(
        self, training: Training, x: torch.Tensor, targets: torch.Tensor, rate: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one optimizer step; returns the batch's loss and logits."""
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        training.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            output = training.network(x)
            logits = output if torch.is_tensor(output) else output.logits
            loss = F.cross_entropy(logits.float(), targets)
            objective = loss
            if not torch.is_tensor(output):
                auxiliary = F.cross_entropy(output.aux_logits.float(), targets)
                objective = loss + _AUXILIARY_WEIGHT * auxiliary
        self._scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(training.optimizer)
        self._scaler.update()
        return loss.detach(), logits.detach().float()


class _Score:
    """Accumulates loss, accuracy and AUROC of a split, on the device to avoid synchronization."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._probabilities: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []

    def add(self, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
        self._losses.append(loss * len(targets))
        self._probabilities.append(logits.softmax(dim=1))
        self._targets.append(targets)

    def result(self, epoch: int, split: str) -> Scores:
        """The scores of all batches so far."""
        probabilities = torch.cat(self._probabilities).cpu().numpy()
        targets = torch.cat(self._targets).cpu().numpy()
        loss = float(torch.stack(self._losses).sum()) / len(targets)
        accuracy = float((probabilities.argmax(axis=1) == targets).mean())
        area = auroc(probabilities, targets) if math.isfinite(loss) else math.nan
        return Scores(epoch, split, loss, accuracy, area)


def _training_batches(
    train: Pictures,
    recipe: FinetuneConfig,
    seed: int,
    epoch: int,
    pixels: Pixels,
    device: torch.device,
    threads: int,
    readers: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Shuffled, cropped and mirrored batches of one epoch, with their targets."""

    def picture(index: int, image: Image.Image) -> torch.Tensor:
        rng = np.random.default_rng(_seeds(seed, epoch, 2 + index))
        return random_crop(image, pixels, rng, scale=recipe.crop_scale, flip=recipe.flip)

    order = np.random.default_rng(_seeds(seed, epoch, 1)).permutation(len(train.files))
    for batch, pictures in _decoded(
        train.files, order, picture, recipe.batch_size, threads, readers
    ):
        yield (
            normalized(pictures, pixels, device),
            torch.as_tensor(train.targets[batch], device=device),
        )


def _decoded(
    files: Sequence[decoding.Source],
    order: NDArray[np.int64],
    picture: Callable[[int, Image.Image], torch.Tensor],
    batch_size: int,
    threads: int,
    readers: int,
) -> Iterator[tuple[NDArray[np.int64], list[torch.Tensor]]]:
    """Batches of indices into the files, with picture(index, image) of each."""
    batches = _batches(order, batch_size)
    pictures = decoding.read_each(
        [files[i] for i in order],
        lambda place, image: picture(int(order[place]), image),
        readers=readers,
        threads=threads,
    )
    for batch in batches:
        yield batch, [next(pictures) for _ in batch]


def _batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """The order in batches; a single leftover image joins the last one, as BatchNorm needs two."""
    ends = list(range(batch_size, len(order), batch_size))
    if ends and len(order) - ends[-1] == 1:
        ends.pop()
    return np.split(order, ends)


def _train_mode(network: nn.Module, recipe: FinetuneConfig) -> None:
    network.train()
    if recipe.freeze_batchnorm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _rate(recipe: FinetuneConfig, step: int, steps: int) -> float:
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))


def _seeds(seed: int, epoch: int, what: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(epoch, what))


def history_rows(history: Sequence[Scores]) -> list[dict[str, Any]]:
    """The history as plain rows."""
    return [
        {
            "epoch": s.epoch,
            "split": s.split,
            "loss": s.loss,
            "accuracy": s.accuracy,
            "auroc": s.auroc,
        }
        for s in history
    ]
