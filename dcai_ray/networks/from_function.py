"""`package.module:function`: a network of the user's own.

The function takes no arguments and returns a `torch.nn.Module`, or the module and a dictionary that
describes its input:

    def my_network():
        network = MyNetwork()
        network.load_state_dict(torch.load("my_network.pth", weights_only=True))
        return network, {"input_size": (3, 224, 224), "head": "classifier"}

The module maps (b, 3, s, s) to (b, d): features, or with `head`, the dotted name of its last layer,
class scores; then features are what this layer takes. The other entries are those of timm's data
configuration, and may be left out: `input_size` (3, 224, 224), `mean` and `std` (ImageNet's),
`interpolation` (bilinear), `crop_pct` (1.0), `crop_mode` (center). A transform of torchvision's
weights may take the place of the dictionary.

The module is imported from sys.path or the working directory of the driver, in the driver and in
every worker. Its source is part of the fingerprint of features, as are the weights.
"""

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dcai_ray.errors import UsageError, UserError
from dcai_ray.networks import weight_files as files
from dcai_ray.networks.from_timm import pixels_of_data_config
from dcai_ray.networks.from_torchvision import pixels_of_preset
from dcai_ray.networks.pixels import IMAGENET_MEAN, IMAGENET_STD, Pixels
from dcai_ray.networks.weights import load_weights, sha256_of

_INPUT = {
    "input_size": (3, 224, 224),
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "center",
}


@dataclass(frozen=True, slots=True)
class _Function:
    """A network that a function makes."""

    name: str
    make: Callable[[], Any] = field(repr=False)
    usual: Pixels
    head: str
    auxiliary_head: str = ""

    def pixels(self, size_px: int | None) -> Pixels:
        return self.usual.resized(size_px)

    def head_of(self, network: nn.Module) -> str:
        return self.head

    def build(self, weights: str, pixels: Pixels) -> nn.Module:
        network, _ = _made(self.name, self.make)
        if weights not in (files.PUBLISHED, files.RANDOM):
            content = files.read_weights(weights)
            load_weights(network, content, self.name, weights, (self.head,))
        return network

    def sha256(self, weights: str) -> str:
        digest = hashlib.sha256(sha256_of(self.build(weights, self.usual)).encode())
        source = inspect.getsourcefile(self.make)
        if source is not None:
            with open(source, "rb") as file:
                digest.update(file.read())
        return digest.hexdigest()


def find_function(name: str) -> _Function:
    """The network of package.module:function.

    Raises:
        UsageError: it cannot be imported.
        UserError: it does not return what it should.
    """
    make = _imported(name)
    network, described = _made(name, make)
    if not isinstance(described, dict):
        return _Function(name, make, pixels_of_preset(described), "")
    wrong = sorted(described.keys() - _INPUT.keys() - {"head"})
    if wrong:
        known = ", ".join([*_INPUT, "head"])
        raise UserError(
            f"{name}: the description has unknown {', '.join(wrong)}; it may have {known}"
        )
    head = described.get("head", "")
    layers = dict(network.named_modules())
    if head and not isinstance(layers.get(head), nn.Linear | nn.Conv2d):
        raise UserError(f"{name}: head {head!r} names no linear or convolutional layer of it")
    return _Function(name, make, pixels_of_data_config({**_INPUT, **described}, name), head)


def make_importable(folder: str) -> None:
    """Let modules of a folder be imported from now on, after those of all other folders."""
    if folder not in sys.path:
        sys.path.append(folder)


def _imported(name: str) -> Callable[[], Any]:
    path, _, function = name.partition(":")
    make_importable(os.getcwd())
    try:
        make = getattr(importlib.import_module(path), function, None)
    except ImportError as error:
        raise UsageError(
            f"unknown backbone {name}: cannot be imported ({error}); its folder must be in "
            "PYTHONPATH or be the working directory, on every node"
        ) from None
    if not callable(make):
        raise UsageError(f"unknown backbone {name}: {path} has no function {function}")
    return make


def _made(name: str, make: Callable[[], Any]) -> tuple[nn.Module, Any]:
    """The module of a function, the same each time, and the description of its input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = make()
    network, described = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    is_preset = hasattr(described, "crop_size") and hasattr(described, "resize_size")
    if not isinstance(network, nn.Module) or not (isinstance(described, dict) or is_preset):
        raise UserError(
            f"{name} must return a torch.nn.Module, or one and a dictionary that describes its "
            f"input, got {type(made).__name__}"
        )
    return network, described
