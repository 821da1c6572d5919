"""`torchvision:NAME`: any classifier of torchvision.models with its best weights and transform."""

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torchvision.models as models
from torch import nn

from dcai_ray.errors import UsageError
from dcai_ray.networks import weight_files as files
from dcai_ray.networks.pixels import Pixels
from dcai_ray.networks.weights import load_weights
from dcai_ray.storage.location import Location

_SAYS_HOW_TO_BEGIN = ("googlenet", "inception_v3")  # they warn where it is left to them
_AUXILIARY = ("AuxLogits", "aux1", "aux2")  # second heads, which only training uses


@dataclass(frozen=True, slots=True)
class _Torchvision:
    """A classifier of torchvision."""

    model: str
    auxiliary_head: str = ""  # those of Inception and GoogLeNet are left out

    @property
    def name(self) -> str:
        return f"torchvision:{self.model}"

    def head_of(self, network: nn.Module) -> str:
        """The last layer: in all of them it is the last one that is registered."""
        layers = network.named_modules()
        return [place for place, layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)][-1]

    def pixels(self, size_px: int | None) -> Pixels:
        return pixels_of_preset(self._weights().transforms()).resized(size_px)

    def build(self, weights: str, pixels: Pixels) -> nn.Module:
        if weights == files.PUBLISHED:
            self._fetch()
            return _without_auxiliary(models.get_model(self.model, weights=self._weights()))
        network = self._random()
        if weights != files.RANDOM:
            content = files.read_weights(weights)
            heads = (self.head_of(network), *_AUXILIARY)
            load_weights(network, content, self.name, weights, heads)
        return network

    def sha256(self, weights: str) -> str:
        if weights == files.PUBLISHED:
            content = Location(self._fetch()).read_bytes()
        else:
            content = files.read_weights(weights)
        return hashlib.sha256(content).hexdigest()

    def _random(self) -> nn.Module:
        said = {"init_weights": True} if self.model in _SAYS_HOW_TO_BEGIN else {}
        return _without_auxiliary(models.get_model(self.model, weights=None, **said))

    def _weights(self) -> Any:
        return models.get_model_weights(self.model).DEFAULT

    def _fetch(self) -> str:
        return files.fetched_file(self._weights().url, self.name)


def find_torchvision(model: str) -> _Torchvision:
    """The classifier of this name.

    Raises:
        UsageError: there is none; the message gives the nearest names.
    """
    known = models.list_models(module=models)
    if model not in known:
        near = get_close_matches(model, known, n=3) or known
        raise UsageError(
            f"unknown backbone torchvision:{model}; did you mean {' or '.join(near[:3])}?"
        )
    return _Torchvision(model)


def pixels_of_preset(preset: Any) -> Pixels:
    """The input that a transform of torchvision's weights makes (`ImageClassification`)."""
    return Pixels(
        size_px=preset.crop_size[0],
        resize_px=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _without_auxiliary(network: Any) -> nn.Module:
    """Without the second heads of Inception and GoogLeNet."""
    if getattr(network, "aux_logits", False):
        network.aux_logits = False
    for place in _AUXILIARY:
        if hasattr(network, place):
            setattr(network, place, None)
    return network
