"""`timm:NAME`: any image network of timm, with the input of its own configuration."""

import math
import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from torch import nn

from dcai_ray.errors import UsageError, UserError
from dcai_ray.networks import hub
from dcai_ray.networks import weight_files as files
from dcai_ray.networks.pixels import INTERPOLATIONS, Pixels
from dcai_ray.networks.weights import load_weights, sha256_of

_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class _Timm:
    """A network of timm, which outputs features: its head is left out."""

    model: str
    config: Any = field(repr=False)
    """timm's own configuration of it (`pretrained_cfg`)."""
    auxiliary_head: str = ""

    @property
    def name(self) -> str:
        return f"timm:{self.model}"

    def pixels(self, size_px: int | None) -> Pixels:
        from timm.data import resolve_data_config

        asked = {} if size_px is None else {"input_size": (3, size_px, size_px)}
        config = resolve_data_config(asked, pretrained_cfg=self.config.to_dict())
        return pixels_of_data_config(config, self.name)

    def head_of(self, network: nn.Module) -> str:
        return ""

    def build(self, weights: str, pixels: Pixels) -> nn.Module:
        import timm

        options: dict[str, Any] = {"num_classes": 0}
        if self.config.fixed_input_size and pixels.size_px != self.config.input_size[-1]:
            options["img_size"] = pixels.size_px  # positions are interpolated
        if weights == files.PUBLISHED:
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": self._file()}}
        try:
            network: nn.Module = timm.create_model(self.model, **options)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.name}: cannot be made for {pixels.size_px} px ({error}); its usual size is "
                f"{self.config.input_size[-1]}"
            ) from None
        if weights not in (files.PUBLISHED, files.RANDOM):
            heads = self.config.classifier or ()
            heads = (heads,) if isinstance(heads, str) else tuple(heads)
            load_weights(network, files.read_weights(weights), self.name, weights, heads)
        return network

    def sha256(self, weights: str) -> str:
        return sha256_of(self.build(weights, self.pixels(None)))

    def _file(self) -> str:
        """The file of the published weights on this machine."""
        if self.config.hf_hub_id:
            folder = hub.fetched_folder(self.config.hf_hub_id, [_FILES], self.name)
            return next(
                path for file in _FILES if os.path.exists(path := os.path.join(folder, file))
            )
        if self.config.url:
            return files.fetched_file(self.config.url, self.name)
        raise UserError(
            f"{self.name}: timm has no weights for it; give a file as weights, or choose one of "
            "timm.list_pretrained()"
        )


def find_timm(model: str) -> _Timm:
    """The network of this name, with or without the tag of its weights.

    Raises:
        UsageError: there is none; the message gives the nearest names.
        UserError: timm is not installed.
    """
    try:
        import timm
        from timm.models import get_pretrained_cfg
    except ImportError:
        raise UserError(f"timm:{model} needs: pip install 'dcai_ray[timm]'") from None
    try:
        config = get_pretrained_cfg(model) if timm.is_model(model) else None
    except RuntimeError:  # no such tag
        config = None
    if config is None:
        known = timm.list_models(pretrained=True)
        near = get_close_matches(model, known, n=3) or get_close_matches(
            model.partition(".")[0], timm.list_models(), n=3, cutoff=0.4
        )
        also = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise UsageError(f"unknown backbone timm:{model}; {also}")
    return _Timm(model, config)


def repository_of(model: str) -> str:
    """Where the hub has the weights of a network; empty if it has none."""
    return find_timm(model).config.hf_hub_id or ""


def pixels_of_data_config(config: dict[str, Any], name: str) -> Pixels:
    """The input that a data configuration of timm describes.

    Raises:
        UserError: it is not one square RGB picture, or its kind of crop is not known here.
    """
    channels, height, width = config["input_size"]
    crop = config.get("crop_mode") or "center"
    if channels != 3 or height != width or crop not in ("center", "squash"):
        raise UserError(
            f"{name}: takes {channels} x {height} x {width} by the crop {crop}; only square RGB "
            "pictures, cropped at the centre or squashed, are supported"
        )
    interpolation = config.get("interpolation", "bilinear")
    if interpolation not in INTERPOLATIONS:
        known = ", ".join(INTERPOLATIONS)
        raise UserError(f"{name}: interpolation {interpolation} is none of {known}")
    return Pixels(
        size_px=height,
        resize_px=math.floor(height / config.get("crop_pct", 1.0)),
        whole=crop == "squash",
        interpolation=interpolation,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
