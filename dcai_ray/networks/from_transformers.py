"""`hf:NAME`: an image network of Hugging Face transformers, a hub id or a local folder.

Of a network of images and texts (CLIP, SigLIP) the image tower is taken. Its features are what the
library calls the pooled output; for ViT and DeiT it is the class token after the last layer, as
most of their checkpoints have no weights for the pooling layer. Code from a repository is not run.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dcai_ray.errors import UsageError, UserError
from dcai_ray.networks import hub
from dcai_ray.networks import weight_files as files
from dcai_ray.networks.pixels import Pixels
from dcai_ray.networks.weights import sha256_of

_BY_CLASS_TOKEN = ("deit", "vit")
_INTERPOLATION = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
    4: "box",
    5: "hamming",
}  # Pillow's numbers


class _Tower(nn.Module):
    """An image network that outputs its pooled features."""

    def __init__(self, model: nn.Module, *, by_class_token: bool, options: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self._by_class_token = by_class_token
        self._options = options

    def forward(self, x: torch.Tensor) -> Any:
        output = self.model(pixel_values=x, **self._options)
        if self._by_class_token:
            return output.last_hidden_state[:, 0]
        pooled = getattr(output, "pooler_output", None)
        return pooled.flatten(1) if torch.is_tensor(pooled) else output


@dataclass(frozen=True, slots=True)
class _Transformers:
    """A network of transformers, which outputs features."""

    source: str
    """Hub id or folder, as given."""
    folder: str
    """Where its files are on this machine."""
    auxiliary_head: str = ""

    @property
    def name(self) -> str:
        return f"hf:{self.source}"

    def pixels(self, size_px: int | None) -> Pixels:
        from transformers import AutoImageProcessor

        with _quietly(self.name):
            processor = AutoImageProcessor.from_pretrained(self.folder, local_files_only=True)
        return pixels_of_processor(processor.to_dict(), self.name).resized(size_px)

    def head_of(self, network: nn.Module) -> str:
        return ""

    def build(self, weights: str, pixels: Pixels) -> nn.Module:
        from transformers import AutoConfig, AutoModel

        if weights not in (files.PUBLISHED, files.RANDOM):
            raise UserError(
                f"weights {weights}: {self.name} has weights of its own; save others with "
                "transformers' save_pretrained, and give that folder as hf:FOLDER"
            )
        missing: list[str]
        with _quietly(self.name):
            config = AutoConfig.from_pretrained(self.folder, local_files_only=True)
            config = getattr(config, "vision_config", config)
            if weights == files.RANDOM:
                model, missing = AutoModel.from_config(config, dtype=torch.float32), []
            else:
                model, found = AutoModel.from_pretrained(
                    self.folder,
                    config=config,
                    local_files_only=True,
                    output_loading_info=True,
                    dtype=torch.float32,
                )
                missing = sorted(found["missing_keys"])
        by_class_token = config.model_type in _BY_CLASS_TOKEN
        lacks = [key for key in missing if not (by_class_token and key.startswith("pooler."))]
        if lacks:
            raise UserError(
                f"{self.name}: its weights lack {', '.join(lacks[:3])}, which would be random"
            )
        other_size = pixels.size_px != getattr(config, "image_size", pixels.size_px)
        options = {"interpolate_pos_encoding": True} if other_size else {}
        return _Tower(model, by_class_token=by_class_token, options=options)

    def sha256(self, weights: str) -> str:
        return sha256_of(self.build(weights, self.pixels(None)))


def find_transformers(source: str) -> _Transformers:
    """The network of a hub id or local folder; its files are downloaded if need be.

    Raises:
        UsageError: it is neither.
        UserError: transformers is not installed, or files are missing.
    """
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise UserError(f"hf:{source} needs: pip install 'dcai_ray[hf]'") from None
    if os.path.isdir(source):
        there = os.listdir(source)
        for group in hub.NEEDED:
            if not set(group) & set(there):
                raise UserError(
                    f"hf:{source}: the folder has no {group[0]}; save the model and its image "
                    "processor there with save_pretrained"
                )
        return _Transformers(source, os.path.abspath(source))
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:
        raise UsageError(f"unknown backbone hf:{source}: no such folder")
    return _Transformers(source, hub.fetched_folder(source, hub.NEEDED, f"hf:{source}"))


def pixels_of_processor(config: dict[str, Any], name: str) -> Pixels:
    """The input that an image processor of transformers makes, from its settings.

    Raises:
        UserError: it does what is not known here.
    """
    known = _resizing(config)
    scale = config.get("rescale_factor") or 1 / 255
    if known is None or config.get("do_rescale") is False or abs(scale * 255 - 1) > 1e-6:
        raise UserError(
            f"{name}: its image processor ({config.get('image_processor_type')}) prepares images "
            "in a way that is not supported; use a function of your own (package.module:function)"
        )
    size_px, resize_px, whole = known
    normalizes = config.get("do_normalize", True)
    return Pixels(
        size_px=size_px,
        resize_px=resize_px,
        whole=whole,
        interpolation=_INTERPOLATION[int(config.get("resample") or 2)],
        mean=tuple(config["image_mean"]) if normalizes else (0.0, 0.0, 0.0),
        std=tuple(config["image_std"]) if normalizes else (1.0, 1.0, 1.0),
    )


def _resizing(config: dict[str, Any]) -> tuple[int, int, bool] | None:
    """(size_px, resize_px, whole) of a processor; None if it is another kind."""
    size, crop = (_sides(config.get(key)) for key in ("size", "crop_size"))
    if not config.get("do_resize") or config.get("do_pad"):
        return None
    if "shortest_edge" in size:
        short = size["shortest_edge"]
        share = config.get("crop_pct")
        if share:  # ConvNeXt: a square is cropped from small pictures, large ones are squashed
            return (short, int(short / share), False) if short < 384 else (short, short, True)
        if config.get("do_center_crop") and crop.get("height") == crop.get("width") is not None:
            return crop["height"], short, False
        return None
    if size.get("height") is None or size["height"] != size.get("width"):
        return None
    if config.get("do_center_crop") and crop.get("height") == crop.get("width") is not None:
        return crop["height"], size["height"], True
    return size["height"], size["height"], True


def _sides(size: Any) -> dict[str, int]:
    """A size of a processor's settings without its empty entries."""
    return {key: value for key, value in dict(size or {}).items() if value is not None}


@contextmanager
def _quietly(name: str) -> Iterator[None]:
    """Without transformers' bars and notes; what it refuses, in one line."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(f"{name}: transformers cannot read it ({reason})") from None
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
