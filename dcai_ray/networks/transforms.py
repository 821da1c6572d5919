"""From a decoded picture to the input of a network: a float32 tensor (3, size, size).

Training takes a random crop and mirrors half of the pictures; validation and feature extraction
resize the short side and take the centre crop. Each picture has its own random generator, so the
result does not depend on the order or the thread in which pictures are decoded.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_LONG = 8  # times as long as wide: only the middle is resized
_TRANSPOSE = Image.Transpose.TRANSPOSE
_RATIO = (3 / 4, 4 / 3)  # range of a random crop's width / height


def centre_crop(image: Image.Image, size_px: int) -> torch.Tensor:
    """Resize the short side to `size_px` and crop the centre: (3, size_px, size_px) uint8."""
    if max(image.size) > _LONG * min(image.size):
        return F.pil_to_tensor(_centre_of_strip(image, size_px))
    short = F.resize(image, size_px, InterpolationMode.BILINEAR)
    return F.pil_to_tensor(F.center_crop(short, size_px))


def _centre_of_strip(image: Image.Image, size_px: int) -> Image.Image:
    """The same for a very long picture, of which only the middle is resized.

    The whole would take memory in proportion to the length: 13.8 GB for one of 1 x 20,000 pixels.
    The part has a margin of what bilinear interpolation looks at beyond the crop.
    """
    if image.width < image.height:
        return _centre_of_strip(image.transpose(_TRANSPOSE), size_px).transpose(_TRANSPOSE)
    length = int(size_px * image.width / image.height)  # what the whole would be resized to
    scale = image.width / length  # pixels of the picture per pixel of the result
    margin = 2 + math.ceil(max(scale, 1) / scale)
    left = round((length - size_px) / 2)
    start, stop = max(0, left - margin), min(length, left + size_px + margin)
    box = (start * scale, 0, min(stop * scale, image.width), image.height)
    part = image.resize((stop - start, size_px), Image.Resampling.BILINEAR, box)
    return part.crop((left - start, 0, left - start + size_px, size_px))


def random_crop(
    image: Image.Image,
    size_px: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
) -> torch.Tensor:
    """A random crop, resized and mirrored at random: (3, size_px, size_px) uint8.

    The distribution is that of torchvision's RandomResizedCrop: an area share uniform in `scale`,
    an aspect ratio log-uniform in 3/4 to 4/3, and the centre after ten draws that do not fit.
    """
    top, left, height, width = _crop_box(image.width, image.height, rng, scale)
    size = [size_px, size_px]
    part = F.resized_crop(image, top, left, height, width, size, InterpolationMode.BILINEAR)
    if flip and rng.random() < 0.5:
        part = F.hflip(part)
    return F.pil_to_tensor(part)


def normalized(batch: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Pictures (3, s, s) uint8 as one float32 tensor (b, 3, s, s), channels last, on the device."""
    pixels = torch.stack(tuple(batch)).to(device, non_blocking=True)
    pixels = pixels.float().div_(255)
    mean = torch.tensor(_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(_STD, device=device).view(1, 3, 1, 1)
    return pixels.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def _crop_box(
    width: int, height: int, rng: np.random.Generator, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop."""
    area = width * height
    for _ in range(10):
        target = area * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(0, height - h + 1))
            left = int(rng.integers(0, width - w + 1))
            return top, left, h, w
    w, h = width, height
    if width / height < _RATIO[0]:
        h = round(width / _RATIO[0])
    elif width / height > _RATIO[1]:
        w = round(height * _RATIO[1])
    return (height - h) // 2, (width - w) // 2, h, w
