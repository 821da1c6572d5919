"""From a decoded picture to the input of a network: a float32 tensor (3, size, size).

Training takes a random crop and mirrors half of the pictures; validation and feature extraction
resize the short side and take the centre crop, or resize the whole picture to a square, as the
network is used to (`Pixels`). Each picture has its own random generator, so the result does not
depend on the order or the thread in which pictures are decoded.

These are torchvision's transforms, bit for bit, in Pillow's words: importing torchvision takes as
long as torch itself, in every process that extracts features.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps

from dcai_ray.networks.pixels import Pixels

_LONG = 8  # times as long as wide: only the middle is resized
_SUPPORT = 3  # pixels that the widest kind of interpolation looks at to each side
_RATIO = (3 / 4, 4 / 3)  # range of a random crop's width / height


def centre_crop(image: Image.Image, pixels: Pixels) -> torch.Tensor:
    """Resize a picture and crop its centre: (3, size_px, size_px) uint8."""
    if not pixels.whole and max(image.size) > _LONG * min(image.size):
        return _tensor(_centre_of_strip(image, pixels))
    short = min(image.size)
    whole = (short, short) if pixels.whole else image.size
    width, height = (pixels.resize_px * side // short for side in whole)
    resized = image.resize((width, height), _kind(pixels))
    size = pixels.size_px
    left, top = round((width - size) / 2), round((height - size) / 2)
    return _tensor(resized.crop((left, top, left + size, top + size)))


def _centre_of_strip(image: Image.Image, pixels: Pixels) -> Image.Image:
    """The same for a very long picture, of which only the middle is resized.

    The whole would take memory in proportion to the length: 13.8 GB for one of 1 x 20,000 pixels.
    The part has a margin of what interpolation looks at beyond the crop.
    """
    wide = image.width > image.height
    around, across = (image.width, image.height) if wide else (image.height, image.width)
    short, side = pixels.resize_px, pixels.size_px
    length = short * around // across  # of the whole when it is resized
    scale = around / length  # pixels of the picture per pixel of the result
    reach = math.ceil(_SUPPORT * max(scale, 1)) + 1  # what interpolation looks at, in its pixels
    left, top = round((length - side) / 2), round((short - side) / 2)
    first = max(0, math.floor(left * scale) - reach)
    last = min(around, math.ceil((left + side) * scale) + reach)
    start, stop = left * scale - first, (left + side) * scale - first
    kind = _kind(pixels)
    # In two passes, rows first: so are whole pictures resized.
    if wide:
        part = image.crop((first, 0, last, across)).resize(
            (side, across), kind, (start, 0, stop, across)
        )
        return part.resize((side, short), kind).crop((0, top, side, top + side))
    part = image.crop((0, first, across, last)).resize((short, last - first), kind)
    return part.resize((short, side), kind, (0, start, short, stop)).crop(
        (top, 0, top + side, side)
    )


def random_crop(
    image: Image.Image,
    pixels: Pixels,
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
    part = image.crop((left, top, left + width, top + height))
    part = part.resize((pixels.size_px, pixels.size_px), _kind(pixels))
    if flip and rng.random() < 0.5:
        part = ImageOps.mirror(part)
    return _tensor(part)


def normalized(batch: Sequence[torch.Tensor], pixels: Pixels, device: torch.device) -> torch.Tensor:
    """Pictures (3, s, s) uint8 as one float32 tensor (b, 3, s, s), channels last, on the device."""
    x = torch.stack(tuple(batch)).to(device, non_blocking=True).float().div_(255)
    mean = torch.tensor(pixels.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(pixels.std, device=device).view(1, 3, 1, 1)
    return x.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def _kind(pixels: Pixels) -> Image.Resampling:
    return Image.Resampling[pixels.interpolation.removesuffix("-exact").upper()]


def _tensor(image: Image.Image) -> torch.Tensor:
    """A copy: an image's own memory is read-only."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


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
