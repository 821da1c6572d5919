"""Pretrained networks by name: architecture, weights, head, feature layer.

A network's *head* is its last layer, from features to class scores. For fine-tuning, the head is
replaced by a new one for the classes at hand; for feature extraction it is removed, so that the
network outputs the head's input.
"""

import io
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision.models as models
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from dcai_ray.errors import UserError
from dcai_ray.networks.pretrained import NO_DOWNLOAD, read_weights

# What the two loaders raise for a file that is damaged or has another format.
_DAMAGED = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
)
# torchvision's DenseNet files predate the present names of its layers.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


@dataclass(frozen=True, slots=True)
class Backbone:
    """An architecture: how to build it, and where its head is."""

    build: Callable[[int], nn.Module]
    """Builds a network with ImageNet's 1,000 classes, given the side of the images in pixels."""
    head: str
    """Dotted name of the last layer."""
    width: int
    """d, the number of features that the head takes."""
    auxiliary_head: str = ""
    """Dotted name of a second head that only training uses; empty if there is none."""


def _torchvision(name: str, **options: object) -> Callable[[int], nn.Module]:
    return lambda size_px: models.get_model(name, weights=None, **options)


def _efficientnet_lite0(size_px: int) -> nn.Module:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise UserError(f"{NO_DOWNLOAD} needs: pip install 'dcai_ray[demo]'") from None
    return EfficientNet.from_name("efficientnet-lite0", image_size=size_px)


BACKBONES = {
    "resnet18": Backbone(_torchvision("resnet18"), "fc", 512),
    "resnet101": Backbone(_torchvision("resnet101"), "fc", 2048),
    "alexnet": Backbone(_torchvision("alexnet"), "classifier.6", 4096),
    "vgg11_bn": Backbone(_torchvision("vgg11_bn"), "classifier.6", 4096),
    "squeezenet1_0": Backbone(_torchvision("squeezenet1_0"), "classifier.1", 512),
    "densenet121": Backbone(_torchvision("densenet121"), "classifier", 1024),
    "inception_v3": Backbone(
        _torchvision("inception_v3", transform_input=True, init_weights=True),
        "fc",
        2048,
        auxiliary_head="AuxLogits.fc",
    ),
    "efficientnet_lite0": Backbone(_efficientnet_lite0, "_fc", 1280),
}


def classifier(name: str, num_classes: int, weights: str, size_px: int, seed: int) -> nn.Module:
    """A network with a new head for `num_classes` classes.

    Args:
        name: a key of `BACKBONES`.
        num_classes: C, the number of classes.
        weights: `imagenet`, `none` or a file.
        size_px: side of the input images, in pixels.
        seed: random seed of the new layers' initial weights.
    Raises:
        UserError: the weights cannot be obtained or do not fit; the message says what to do.
    """
    backbone = BACKBONES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = backbone.build(size_px)
        if weights != "none":
            _load(network, name, weights)
        _new_head(network, backbone.head, num_classes)
        if backbone.auxiliary_head:
            _new_head(network, backbone.auxiliary_head, num_classes)
    return network


def feature_extractor(name: str, weights: str, size_px: int) -> nn.Module:
    """A frozen network in evaluation mode that outputs features of shape (b, width).

    Raises:
        UserError: the weights cannot be obtained or do not fit; the message says what to do.
    """
    backbone = BACKBONES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # with weights none, the random features are the same everywhere
        network = backbone.build(size_px)
    if weights != "none":
        _load(network, name, weights)
    head: nn.Module = nn.Identity()
    if isinstance(network.get_submodule(backbone.head), nn.Conv2d):  # head before pooling
        network.set_submodule(backbone.head.rpartition(".")[0], nn.AdaptiveAvgPool2d(1))
    else:
        network.set_submodule(backbone.head, head)
    return network.eval().requires_grad_(False)


def head_parameters(network: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters of the head and of the auxiliary head, if there is one."""
    backbone = BACKBONES[name]
    heads = [backbone.head] + [backbone.auxiliary_head] * bool(backbone.auxiliary_head)
    return [p for head in heads for p in network.get_submodule(head).parameters()]


def _new_head(network: nn.Module, place: str, num_classes: int) -> None:
    old = network.get_submodule(place)
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, num_classes, kernel_size=1)
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, num_classes)
    network.set_submodule(place, new)


def _load(network: nn.Module, name: str, weights: str) -> None:
    """Load a state dict of the whole network, or of all but its heads."""
    state = {
        _OLD_DENSENET.sub(r"\1\2", key): value
        for key, value in _state_dict(read_weights(name, weights), weights).items()
    }
    backbone = BACKBONES[name]
    heads = tuple(f"{h}." for h in (backbone.head, backbone.auxiliary_head) if h)
    own = network.state_dict()
    fitting = {
        key: value
        for key, value in state.items()
        if not (key.startswith(heads) and key in own and own[key].shape != value.shape)
    }
    # Files written before PyTorch 0.4.1 lack these counters.
    own_keys = {key for key in own if not key.endswith("num_batches_tracked")}
    missing = sorted(key for key in own_keys - fitting.keys() if not key.startswith(heads))
    surplus = sorted(fitting.keys() - own.keys())
    if missing or surplus:
        what, keys = ("lacks", missing) if missing else ("has unknown", surplus)
        raise UserError(f"weights {weights} do not fit {name}: {what} {', '.join(keys[:3])}")
    try:
        network.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"weights {weights} do not fit {name}: {reason}") from None


def _state_dict(content: bytes, weights: str) -> dict[str, torch.Tensor]:
    try:
        if content[:1] == b"{" or content[8:9] == b"{":  # safetensors: a length, then JSON
            return load_safetensors(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(
            f"weights {weights}: neither safetensors nor a state dict of torch.save ({reason})"
        ) from None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(f"weights {weights}: expected a state dict (names and tensors)")
    return state
