"""Greys of more than 8 bits: which value is shown as white.

Up to 16 bits a file declares its range: by its format (PNG), or by its bits per sample or largest
possible value (TIFF). A declared value that is no power of two less 1 is a statistic of the one
file, and is not used. 32-bit and float files declare nothing. Which of the usual ranges they have
is decided for all of a data set, by values below which nearly all pixels of nearly all files lie:
neither a hot pixel nor a stray file decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_RANGES = {"float": (1.0, 255.0, 65535.0), "integer": (255.0, 65535.0, 2.0**31 - 1, 2.0**32 - 1)}
_PIXELS, _FILES = 0.999, 0.95  # shares that must lie within the range
_SAMPLE = 2**18  # pixels that a file is judged by
_SCALED = ("PNG", "PPM", "JPEG2000")  # Pillow stretches their integers to 16 bits
_TIFF_BITS, _TIFF_MAX, _TIFF_SMAX = 258, 281, 341
_BAND = 2**22  # pixels that are scaled at a time


@dataclass(frozen=True, slots=True)
class Depth:
    """The grey values of a file."""

    kind: str
    """float or integer."""
    declared: float
    """The largest value that the file declares as possible; 0 for none."""
    high: float
    """The value below which nearly all of its pixels lie."""


def depth_of(image: Image.Image) -> Depth | None:
    """The depth of an opened picture; None if it has 8 bits per channel or fewer."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return None
    kind = "float" if image.mode == "F" else "integer"
    return Depth(kind, _declared(image), _high(np.asarray(image)))


def suggested_white(depths: Sequence[Depth]) -> float:
    """The smallest usual range of files of one kind that declare none.

    Args:
        depths: at least one, all of a kind.
    """
    high = float(np.quantile([depth.high for depth in depths], _FILES, method="inverted_cdf"))
    usual = [top for top in _RANGES[depths[0].kind] if high <= top]
    return usual[0] if usual else float(2.0 ** np.ceil(np.log2(high)))


def whites(depths: Sequence[Depth | None]) -> list[float]:
    """The value that each file of a data set shows as white; 0 for those of 8 bits."""
    open_ended = [depth for depth in depths if depth is not None and not depth.declared]
    chosen = {
        kind: suggested_white(same)
        for kind in _RANGES
        if (same := [depth for depth in open_ended if depth.kind == kind])
    }
    return [0.0 if depth is None else depth.declared or chosen[depth.kind] for depth in depths]


def to_8_bits(image: Image.Image, white: float) -> Image.Image:
    """An RGB picture of deep greys; what is not finite or out of range is black or white."""
    grey = np.asarray(image)
    pixels = np.empty(grey.shape, dtype=np.uint8)
    height = max(1, _BAND // max(image.width, 1))
    for top in range(0, len(grey), height):
        band = np.nan_to_num(grey[top : top + height].astype(np.float64), posinf=white)
        pixels[top : top + height] = (np.clip(band, 0, white) * (255.0 / white)).round()
    return Image.fromarray(pixels).convert("RGB")


def _declared(image: Image.Image) -> float:
    if image.format != "TIFF":
        is_scaled = image.format in _SCALED or image.mode.startswith("I;16")
        return 65535.0 if is_scaled and image.mode != "F" else 0.0
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = tags.get(_TIFF_BITS, (0,))[0]
    for tag in (_TIFF_SMAX, _TIFF_MAX):
        top = np.ravel(tags.get(tag, 0.0))
        if len(top) and _is_range(float(top[0]), image.mode == "F"):
            return float(top[0])
    return 2.0**bits - 1 if image.mode.startswith("I;") and 8 < bits <= 16 else 0.0


def _is_range(top: float, is_float: bool) -> bool:
    """Whether a declared largest value is that of a range rather than of the pixels."""
    if is_float and top == 1:
        return True
    return 255 <= top < 2.0**32 and float(np.log2(top + 1)).is_integer()


def _high(grey: NDArray[np.generic]) -> float:
    flat = grey.reshape(-1)[:: max(1, grey.size // _SAMPLE)].astype(np.float64)
    flat = flat[np.isfinite(flat)]
    return float(np.quantile(flat, _PIXELS, method="inverted_cdf")) if len(flat) else 0.0
