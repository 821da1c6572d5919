"""Decode image files of any format to 8-bit RGB pixels."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.read_ahead import read_ahead

R = TypeVar("R")

# Formats that Pillow opens only with an external program, or that are not pictures.
_NOT_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_MAX_PIXELS = 178_956_970  # Pillow refuses more as a decompression bomb


@dataclass(frozen=True, slots=True)
class Inspected:
    """The result of opening a file: its size and content, or why it cannot be read."""

    width: int
    height: int
    sha256: str
    reason: str = ""
    """Why the file is unreadable; empty if it is readable."""


def inspect(content: bytes) -> Inspected:
    """Try to decode a file; returns its size in pixels and the SHA-256 of its bytes."""
    digest = hashlib.sha256(content).hexdigest()
    try:
        image = decode(content)
    except UserError as error:
        return Inspected(0, 0, digest, str(error))
    return Inspected(image.width, image.height, digest)


def decode(content: bytes) -> Image.Image:
    """An 8-bit RGB picture from the bytes of an image file.

    Raises:
        UserError: the file is empty, damaged, of an unknown format or too large to be a picture.
    """
    if not content:
        raise UserError("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UserError(f"{image.width} x {image.height} pixels: too large to decode")
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"more than {_MAX_PIXELS:,} pixels: too large to decode") from None
    except UnidentifiedImageError:
        raise UserError("not an image that Pillow can identify") from None
    except Exception as error:  # Pillow's readers raise errors of any kind on malformed bytes
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(f"damaged: {reason}") from None
    return _to_rgb(upright)


def read(file: Location) -> Image.Image:
    """The decoded picture of a file.

    Raises:
        UserError: the file cannot be decoded; the message names it.
        OSError: the file cannot be read.
    """
    return _decode_file(file, file.read_bytes())


def read_each(
    files: Sequence[Location],
    use: Callable[[int, Image.Image], R],
    *,
    readers: int,
    threads: int,
) -> Iterator[R]:
    """Yield use(i, picture) for the i-th file, in order.

    Args:
        files: image files.
        use: called with the index of a file and its picture.
        readers: threads that read files ahead.
        threads: threads that decode ahead and call `use`.
    Raises:
        UserError, OSError: as `read`.
    """
    contents = read_ahead(Location.read_bytes, files, readers)

    def used(entry: tuple[int, bytes]) -> R:
        place, content = entry
        return use(place, _decode_file(files[place], content))

    return read_ahead(used, enumerate(contents), threads)


def _decode_file(file: Location, content: bytes) -> Image.Image:
    try:
        return decode(content)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit, 32-bit and float grey
        grey = np.asarray(image, dtype=np.float64)
        if image.mode == "F":
            scale = 255.0 if np.nanmax(grey, initial=0) <= 1 else 1.0
        else:
            scale = 1 / 257 if grey.max(initial=0) > 255 or image.mode != "I" else 1.0
        pixels = np.clip(np.nan_to_num(grey) * scale, 0, 255).round().astype(np.uint8)
        return Image.fromarray(pixels).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:  # for example Lab
        raise UserError(f"cannot be converted to RGB: {error}") from None


@lru_cache(maxsize=1)
def extensions() -> frozenset[str]:
    """Extensions of files that may be images, with the dot."""
    known = Image.registered_extensions()
    return frozenset(ending for ending, kind in known.items() if kind in _formats())


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Formats tried on a file whatever its extension; none of them runs an external program."""
    Image.init()
    return tuple(kind for kind in Image.OPEN if kind not in _NOT_IMAGES)
