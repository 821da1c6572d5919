"""Networks by their name: `--backbone NAME` for features and for fine-tuning.

    resnet18, efficientnet_lite2, ...    a name of the list              `listed`
    torchvision:convnext_tiny            a classifier of torchvision     `from_torchvision`
    timm:vit_small_patch14_dinov2.lvd142m                                `from_timm`
    hf:facebook/dinov2-base, hf:FOLDER   an image network, transformers  `from_transformers`
    package.module:function              the user's own                  `from_function`

A network's *head* is its last layer, from features to class scores. For fine-tuning, the head is
replaced by a new one for the classes at hand; for feature extraction it is removed, so that the
network outputs the head's input. A network without a head outputs features, and for fine-tuning
gets a linear one (`heads`). What a network expects of its input comes from its own configuration.
Names of the list are looked up and checked without torch.
"""

from typing import TYPE_CHECKING, Protocol

from dcai_ray.errors import UserError
from dcai_ray.networks.listed import BACKBONES
from dcai_ray.networks.pixels import Pixels
from dcai_ray.networks.weight_files import PUBLISHED, RANDOM

if TYPE_CHECKING:
    from torch import nn


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

    def build(self, weights: str, pixels: Pixels) -> "nn.Module":
        """The network with these weights; random ones from PyTorch's global generator."""

    def head_of(self, network: "nn.Module") -> str:
        """Dotted name of the last layer of what it has built; empty if that outputs features."""

    def sha256(self, weights: str) -> str:
        """The SHA-256 of all that decides its outputs beside the name: its weights."""


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
    from dcai_ray.networks.heads import try_on_black

    try_on_black(name, weights, pixels, training=training)


def weights_sha256(name: str, weights: str) -> str:
    """The entry for the weights in fingerprints: a SHA-256, or "none" for random ones.

    A network of the user's own has what its function gives it, never random weights of ours.
    """
    return "none" if weights == RANDOM and not is_own(name) else find(name).sha256(weights)


def is_own(name: str) -> bool:
    """Whether it is package.module:function."""
    return ":" in name and name.partition(":")[0] not in ("torchvision", "timm", "hf")
