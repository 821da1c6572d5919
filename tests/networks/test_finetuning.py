"""The training loop against loops written out by hand, and against itself interrupted."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torchvision.models.inception import InceptionOutputs

from dcai_ray.config import FinetuneConfig
from dcai_ray.images import decoding
from dcai_ray.networks.finetuning import Pictures, finetune, new_training
from dcai_ray.networks.heads import classifier
from dcai_ray.networks.pixels import usual_pixels
from dcai_ray.networks.transforms import centre_crop, normalized
from dcai_ray.storage.location import Location

pytestmark = pytest.mark.slow  # networks of full size
CPU = torch.device("cpu")
PIXELS = usual_pixels(64)
RECIPE = FinetuneConfig(weights="none", epochs=2, batch_size=4, learning_rate=0.01)
WHOLE = {"crop_scale": (1.0, 1.0), "flip": False}  # nothing random is done to square pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """(train, val): dark and bright noise, two classes, square."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)

    def write(name, count):
        targets, files = np.arange(count) % 2, []
        for i, bright in enumerate(targets):
            pixels = rng.integers(0, 156, (40, 40, 3)) + 100 * bright
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}{i}.png")
            files.append(Location(str(folder / f"{name}{i}.png")))
        return Pictures(files, targets)

    return write("train", 10), write("val", 7)


def train(pictures, recipe, backbone="resnet18", *, seed=0, network=None, **options):
    """A training from the start, or with `checkpoint` from there."""
    network = network or classifier(backbone, 2, "none", 64, seed)
    training = new_training(network, backbone, recipe, CPU)
    if checkpoint := options.pop("checkpoint", None):
        training.restore(checkpoint, CPU)
    finetune(training, *pictures, recipe, seed=seed, pixels=PIXELS, device=CPU, **options)
    return training


def whole_batch(pictures):
    batch = [centre_crop(decoding.read(file), PIXELS) for file in pictures.files]
    return normalized(batch, PIXELS, CPU), torch.as_tensor(pictures.targets)


def equal(first, second):
    states = first.network.state_dict(), second.network.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("backbone", ["squeezenet1_0", "efficientnet_lite0", "timm:test_vit"])
def test_the_seed_alone_decides_the_weights(pictures, backbone):
    # Dropout in SqueezeNet, stochastic depth in EfficientNet; any number of decoding threads.
    first = train(pictures, RECIPE, backbone, threads=1)
    torch.rand(3)  # what others draw meanwhile does not matter
    before = torch.random.get_rng_state()
    again = train(pictures, RECIPE, backbone, threads=4)
    assert torch.equal(before, torch.random.get_rng_state())
    assert equal(first, again)
    assert first.history == again.history
    start = classifier(backbone, 2, "none", 64, seed=0)
    assert not equal(first, train(pictures, RECIPE, seed=1, network=start))


@pytest.mark.parametrize(
    ("optimizer", "backbone"), [("sgd", "efficientnet_lite0"), ("adamw", "squeezenet1_0")]
)
def test_a_resumed_training_ends_as_an_undisturbed_one(pictures, optimizer, backbone):
    recipe = replace(RECIPE, epochs=3, optimizer=optimizer, schedule="cosine")
    saved = []
    whole = train(pictures, recipe, backbone, after_epoch=lambda t: saved.append(t.to_bytes()))
    for checkpoint in saved:
        resumed = train(pictures, recipe, backbone, checkpoint=checkpoint)
        assert equal(whole, resumed)
        assert resumed.history == whole.history
    assert len(saved) == 3


def small_network():
    """No BatchNorm, which on few pictures magnifies rounding errors; no dropout."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 2)
    )


@pytest.mark.parametrize("settings", [{"momentum": 0.5}, {"optimizer": "adamw"}])
def test_steps_are_those_of_pytorchs_optimizer(pictures, settings):
    recipe = replace(RECIPE, **WHOLE, **settings, weight_decay=0.1, epochs=3, batch_size=10)
    ours = train(pictures, recipe, network=small_network())
    network = small_network()
    optimizer = torch.optim.AdamW if "optimizer" in settings else torch.optim.SGD
    options = {} if "optimizer" in settings else settings
    by_hand = optimizer(network.parameters(), lr=0.01, weight_decay=0.1, **options)
    pixels, targets = whole_batch(pictures[0])
    for _ in range(3):
        by_hand.zero_grad()
        loss = F.cross_entropy(network(pixels), targets)
        loss.backward()
        by_hand.step()
    for found, expected in zip(ours.network.parameters(), network.parameters(), strict=True):
        # The pictures come in another order, so float32 sums differ in their last digits.
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_feature_extract_trains_the_head_alone(pictures):
    heads = {"resnet18": "fc", "squeezenet1_0": "classifier.1", "timm:test_vit": "head"}
    for backbone, head in heads.items():
        start = dict(classifier(backbone, 2, "none", 64, seed=0).named_parameters())
        trained = train(pictures, replace(RECIPE, feature_extract=True), backbone).network
        moved = {k for k, p in trained.named_parameters() if not torch.equal(p, start[k])}
        assert moved == {k for k, p in trained.named_parameters() if p.requires_grad}
        assert moved == {f"{head}.{part}" for part in ("weight", "bias")}


def statistics(network):
    return torch.cat([b.flatten() for k, b in network.named_buffers() if "running" in k])


def test_frozen_batchnorm_keeps_its_statistics(pictures):
    start = classifier("resnet18", 2, "none", 64, seed=0)
    frozen = train(pictures, replace(RECIPE, freeze_batchnorm=True)).network
    assert torch.equal(statistics(frozen), statistics(start))
    assert not torch.equal(statistics(train(pictures, RECIPE).network), statistics(start))
    assert not torch.equal(frozen.conv1.weight, start.conv1.weight)  # it did train


class TwoHeads(nn.Module):
    """Two linear heads on mean colours; as Inception, the second in training alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        colours = x.mean(dim=(2, 3))
        if self.training:
            return InceptionOutputs(self.first(colours), self.second(colours))
        return self.first(colours)


def test_inceptions_second_head_counts_four_tenths(pictures):
    recipe = replace(RECIPE, **WHOLE, epochs=1, batch_size=10, learning_rate=0.5, momentum=0.0)
    trained = train(pictures, recipe, network=TwoHeads())
    pixels, targets = whole_batch(pictures[0])
    start = TwoHeads()
    output = start(pixels)
    losses = [F.cross_entropy(logits, targets) for logits in output]
    for head, loss, weight in (("first", losses[0], 1.0), ("second", losses[1], 0.4)):
        old = start.get_submodule(head).weight
        (gradient,) = torch.autograd.grad(loss, old, retain_graph=True)
        new = trained.network.get_submodule(head).weight
        torch.testing.assert_close(new, old - 0.5 * weight * gradient)
    assert trained.history[0].loss == pytest.approx(losses[0].item(), rel=1e-5)  # float32


def test_history_has_both_splits_of_every_epoch_as_sklearn_scores_them(pictures):
    networks = []
    mixed = Pictures(pictures[1].files, np.array([0, 0, 1, 1, 2, 2, 1]))  # three classes

    def keep(training):
        networks.append(deepcopy(training.network))

    network = classifier("squeezenet1_0", 3, "none", 64, seed=0)
    history = train((pictures[0], mixed), RECIPE, network=network, after_epoch=keep).history
    expected = [(1, "train"), (1, "val"), (2, "train"), (2, "val")]
    assert [(s.epoch, s.split) for s in history] == expected
    pixels, targets = whole_batch(mixed)
    for network, score in zip(networks, history[1::2], strict=True):
        with torch.inference_mode():
            probabilities = network.eval()(pixels).double().softmax(dim=1).numpy()
        # float32, and batches of four and three against one of seven
        assert score.loss == pytest.approx(log_loss(targets, probabilities), rel=1e-5)
        assert score.accuracy == accuracy_score(targets, probabilities.argmax(axis=1))
        area = roc_auc_score(targets, probabilities, multi_class="ovr")
        assert score.auroc == pytest.approx(area, rel=1e-12)


def test_the_rate_of_the_cosine_schedule_is_pytorchs(pictures):
    recipe = replace(RECIPE, epochs=3, schedule="cosine")  # three batches of 4, 4 and 2 an epoch
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.learning_rate)
    schedule = CosineAnnealingLR(optimizer, T_max=9)
    expected = []
    for _ in range(9):
        expected += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    found = []

    def note_rate(training):
        found.append(training.optimizer.param_groups[0]["lr"])

    train(pictures, recipe, network=small_network(), after_epoch=note_rate)
    assert found == pytest.approx(expected[2::3], rel=1e-9)  # PyTorch's is a recursion


def brightness_of_batches(train_on, val, recipe):
    """The mean brightness, which tells them apart, of each picture of each training batch."""
    network, batches = small_network(), []

    def record(module, inputs):
        if module.training:
            batches.append(inputs[0].mean(dim=(1, 2, 3)).tolist())

    network.register_forward_pre_hook(record)
    train((train_on, val), recipe, network=network)
    return batches


def test_every_epoch_takes_each_picture_once_and_leaves_no_batch_of_one(pictures):
    nine = Pictures(pictures[0].files[:9], pictures[0].targets[:9])
    batches = brightness_of_batches(nine, pictures[1], replace(RECIPE, **WHOLE))
    assert [len(batch) for batch in batches] == [4, 5, 4, 5]
    epochs = batches[0] + batches[1], batches[2] + batches[3]
    expected = sorted(whole_batch(nine)[0].mean(dim=(1, 2, 3)).tolist())
    for epoch in epochs:
        assert sorted(epoch) == pytest.approx(expected, abs=1e-5)  # float32
    assert epochs[0] != epochs[1]  # each has an order of its own


def test_every_picture_is_cropped_by_itself_in_every_epoch(pictures):
    same = Pictures(pictures[0].files[:1] * 4, pictures[0].targets[:4])
    first, second = brightness_of_batches(same, pictures[1], RECIPE)
    assert len({*first, *second}) == 8


def test_a_separable_set_is_learnt(pictures):
    """By the demo's network and optimizer; ten of ten seeds did it, with a loss below .02."""
    recipe = replace(RECIPE, epochs=8, optimizer="adamw", learning_rate=5e-4, freeze_batchnorm=True)
    network = classifier("efficientnet_lite0", 2, "imagenet", 64, seed=0)
    last = train(pictures, recipe, network=network).history[-1]
    assert (last.split, last.accuracy, last.auroc) == ("val", 1, 1)
    assert last.loss < np.log(2) / 2  # half that of guessing


def test_a_loss_that_is_not_finite_names_the_rate(pictures):
    with pytest.raises(ValueError, match=r"loss is \w+ in epoch [12]; lower finetune.learning"):
        train(pictures, replace(RECIPE, learning_rate=1e30), network=small_network())
