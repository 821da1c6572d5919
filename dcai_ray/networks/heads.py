"""Networks with a new head for fine-tuning, or without their head for feature extraction."""

import torch
from torch import nn

from dcai_ray.errors import UserError
from dcai_ray.networks.backbones import find, is_own
from dcai_ray.networks.pixels import Pixels


class _Headed(nn.Module):
    """A network that outputs features, and a new head on them."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


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


def head_parameters(network: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters of the head and of the auxiliary head, if there is one."""
    if isinstance(network, _Headed):
        return list(network.head.parameters())
    backbone = find(name)
    heads = [backbone.head_of(network)] + [backbone.auxiliary_head] * bool(backbone.auxiliary_head)
    return [p for head in heads for p in network.get_submodule(head).parameters()]


def try_on_black(name: str, weights: str, pixels: Pixels, *, training: bool) -> None:
    """Build a network and give it a black picture.

    Raises:
        UserError: the weights cannot be obtained, or it does not take such images.
    """
    side = pixels.size_px
    network = feature_extractor(name, weights, side)
    black = torch.zeros(1, 3, side, side)
    _checked_width(network, name, pixels, black)
    if training:
        _checked_width(network.train(), name, pixels, black.repeat(2, 1, 1, 1))


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
        if is_own(name):
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
