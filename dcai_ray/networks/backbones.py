"""Networks by their name: `--backbone NAME` for features and for fine-tuning.

    resnet18, efficientnet_lite2, ...    a name of the list              `listed`
    torchvision:convnext_tiny            a classifier of torchvision     `from_torchvision`
    timm:vit_small_patch14_dinov2.lvd142m                                `from_timm`
    hf:facebook/dinov2-base, hf:FOLDER   an image network, transformers  `from_transformers`
    package.module:function              the user's own                  `from_function`

A network's *head* is its last layer, from features to class scores. For fine-tuning, the head is
replaced by a new one for the classes at hand; for feature extraction it is removed, so that the
network outputs the head's input. A network without a head outputs features, and for fine-tuning
gets a linear one. What a network expects of its input comes from its own configuration.
"""

from typing import Protocol

import torch
from torch import nn

from dcai_ray.errors import UserError
from dcai_ray.networks.listed import BACKBONES
from dcai_ray.networks.transforms import Pixels
from dcai_ray.networks.weights import PUBLISHED, RANDOM


class Backbone(Protocol):
    """A network by its name."""

    @property
    def name(self) -> str:
        """The name that finds it."""

    @property
    def auxiliary_head(self) -> str:
        """Dotted name of a second head that only training uses; empty if there is none."""

    def pixels(self, size_px: int | None) -> Pixels:
        """What it expects of its input, of its usual size or of this one."""

    def build(self, weights: str, pixels: Pixels) -> nn.Module:
        """The network with these weights; random ones from PyTorch's global generator."""

    def head_of(self, network: nn.Module) -> str:
        """Dotted name of the last layer of what it has built; empty if that outputs features."""

    def sha256(self, weights: str) -> str:
        """The SHA-256 of all that decides its outputs beside the name: its weights."""


class _Headed(nn.Module):
    """A network that outputs features, and a new head on them."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def find(name: str) -> Backbone:
    """The backbone of a name.

    Raises:
        UsageError: there is none of this name; the message gives the nearest ones.
        UserError: its library is not installed, or its files cannot be obtained.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    origin, _, rest = name.partition(":")
    if origin == "torchvision":
        from dcai_ray.networks.from_torchvision import find_torchvision

        return find_torchvision(rest)
    if origin == "timm":
        from dcai_ray.networks.from_timm import find_timm

        return find_timm(rest)
    if origin == "hf":
        from dcai_ray.networks.from_transformers import find_transformers

        return find_transformers(rest)
    from dcai_ray.networks.from_function import find_function

    return find_function(name)


def input_pixels(name: str, size_px: int | None, *, training: bool = False) -> Pixels:
    """What a network expects of its input, of the requested size or of the one in pretraining.

    Raises:
        UserError: the requested images are too small for the network.
    """
    if name in BACKBONES and size_px is not None:
        listed = BACKBONES[name]
        minimum = listed.min_training_px if training else listed.min_px
        if size_px < minimum:
            use = "training " if training else ""
            raise UserError(f"size_px must be at least {minimum} for {use}{name}, got {size_px}")
    return find(name).pixels(size_px)


def classifier(name: str, num_classes: int, weights: str, size_px: int, seed: int) -> nn.Module:
    """A network with a new head for `num_classes` classes.

    Args:
        name: name of the backbone.
        num_classes: C, the number of classes.
        weights: `imagenet`, `none` or a file.
        size_px: side of the input images, in pixels.
        seed: random seed of the new layers' initial weights.
    Raises:
        UserError: the weights cannot be obtained or do not fit; the message says what to do.
    """
    backbone = find(name)
    pixels = backbone.pixels(size_px)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = backbone.build(weights, pixels)
        head = backbone.head_of(network)
        if not head:
            images = torch.zeros(1, 3, size_px, size_px)
            width = _checked_width(network.eval(), name, pixels, images)
            return _Headed(network.train(), nn.Linear(width, num_classes))
        _new_head(network, head, num_classes)
        if backbone.auxiliary_head:
            _new_head(network, backbone.auxiliary_head, num_classes)
    return network


def feature_extractor(name: str, weights: str, size_px: int) -> nn.Module:
    """A frozen network in evaluation mode that outputs features of shape (b, d).

    Raises:
        UserError: the weights cannot be obtained or do not fit; the message says what to do.
    """
    backbone = find(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # with weights none, the random features are the same everywhere
        network = backbone.build(weights, backbone.pixels(size_px))
    head = backbone.head_of(network)
    if head:
        _remove_head(network, head)
    return network.eval().requires_grad_(False)


def check(name: str, weights: str, size_px: int | None, *, training: bool = False) -> None:
    """Find out whatever can be wrong with a network before an image is read.

    Its weights are downloaded if they are not at hand. Networks that are not in the list are tried
    on a black picture.

    Raises:
        UserError: the weights cannot be obtained, or the images are too small; as `find`.
    """
    pixels = input_pixels(name, size_px, training=training)
    if name in BACKBONES:
        if weights == PUBLISHED:
            BACKBONES[name].fetch()
        elif weights != RANDOM:
            BACKBONES[name].build(weights, pixels)
        return
    side = pixels.size_px
    network = feature_extractor(name, weights, side)
    black = torch.zeros(1, 3, side, side)
    _checked_width(network, name, pixels, black)
    if training:
        _checked_width(network.train(), name, pixels, black.repeat(2, 1, 1, 1))


def head_parameters(network: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters of the head and of the auxiliary head, if there is one."""
    if isinstance(network, _Headed):
        return list(network.head.parameters())
    backbone = find(name)
    heads = [backbone.head_of(network)] + [backbone.auxiliary_head] * bool(backbone.auxiliary_head)
    return [p for head in heads for p in network.get_submodule(head).parameters()]


def weights_sha256(name: str, weights: str) -> str:
    """The entry for the weights in fingerprints: a SHA-256, or "none" for random ones.

    A network of the user's own has what its function gives it, never random weights of ours.
    """
    return "none" if weights == RANDOM and not _is_own(name) else find(name).sha256(weights)


def _checked_width(network: nn.Module, name: str, pixels: Pixels, images: torch.Tensor) -> int:
    """d, the number of features that a network gives to each image.

    Raises:
        UserError: it refuses images of this size, or gives no vectors; an error inside a network
            of the user's own keeps its traceback.
    """
    try:
        with torch.no_grad():  # what a network keeps in inference mode could not be trained on
            features = network(images)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if _is_own(name):
            raise
        side = pixels.size_px
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{name} does not take images of {side} x {side} pixels ({reason}); its usual size is "
            f"{find(name).pixels(None).size_px}"
        ) from None
    shape = tuple(features.shape) if torch.is_tensor(features) else type(features).__name__
    if not torch.is_tensor(features) or features.ndim != 2 or len(features) != len(images):
        raise UserError(
            f"{name}: expected a tensor of shape (b, d) for b = {len(images)} images, got {shape}"
        )
    return features.shape[1]


def _is_own(name: str) -> bool:
    """Whether it is package.module:function."""
    return ":" in name and name.partition(":")[0] not in ("torchvision", "timm", "hf")


def _remove_head(network: nn.Module, head: str) -> None:
    if isinstance(network.get_submodule(head), nn.Conv2d):  # head before pooling
        network.set_submodule(head.rpartition(".")[0], nn.AdaptiveAvgPool2d(1))
    else:
        network.set_submodule(head, nn.Identity())


def _new_head(network: nn.Module, place: str, num_classes: int) -> None:
    old = network.get_submodule(place)
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, num_classes, kernel_size=1)
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, num_classes)
    network.set_submodule(place, new)
