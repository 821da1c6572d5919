"""Decode image files of any format to 8-bit RGB pixels.

Greys of more than 8 bits are scaled by their `depth`: by the bit depth that the file declares or,
where it declares none, by one range for the whole data set, so that a single hot pixel does not
turn its picture black.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dcai_ray.errors import UserError
from dcai_ray.images.depth import Depth, depth_of, suggested_white, to_8_bits
from dcai_ray.images.picture_files import PictureFile
from dcai_ray.storage.location import Location
from dcai_ray.storage.read_ahead import read_ahead

R = TypeVar("R")

# Formats that Pillow opens only with an external program, or that are not pictures.
_NOT_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_HEIC = (b"heic", b"heix", b"heif", b"hevc", b"mif1", b"msf1")
NO_HEIC = "a HEIC picture, which needs: pip install 'dcai_ray[heic]'; or convert it to JPEG or PNG"
_MAX_PIXELS = 178_956_970  # Pillow refuses more as a decompression bomb
_NEARLY_WHITE = 224  # a picture of which no value is darker hardly shows on white


@dataclass(frozen=True, slots=True)
class Inspected:
    """The result of opening a file: its size and content, or why it cannot be read."""

    width: int
    height: int
    sha256: str
    reason: str = ""
    """Why the file is unreadable; empty if it is readable."""
    pixels: str = ""
    """Hash of the decoded, upright picture: alike for files of other formats that show the same."""
    blank: bool = False
    """Whether the whole picture has one colour."""
    depth: Depth | None = None
    """Of a grey picture of more than 8 bits."""


Source = Location | PictureFile


def inspect(content: bytes) -> Inspected:
    """Try to decode a file; returns its size in pixels, hashes of its bytes and of its pixels."""
    digest = hashlib.sha256(content).hexdigest()
    try:
        upright, depth = _opened(content)
        if depth is None:
            upright = _to_rgb(upright)
    except UserError as error:
        return Inspected(0, 0, digest, str(error))
    # Deep greys as float64, whatever the kind and byte order of their file.
    pixels = np.ascontiguousarray(upright, dtype=None if depth is None else np.float64)
    shown = hashlib.sha256(f"{pixels.dtype.kind} {pixels.shape}".encode())
    shown.update(pixels.data)
    blank = bool((pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all())
    return Inspected(
        upright.width, upright.height, digest, pixels=shown.hexdigest(), blank=blank, depth=depth
    )


def decode(content: bytes, white: float = 0.0) -> Image.Image:
    """An 8-bit RGB picture from the bytes of an image file.

    Args:
        content: the bytes.
        white: the value that deep greys show as white; 0: as the file declares, or else the range
            that its own values suggest.
    Raises:
        UserError: the file is empty, damaged, of an unknown format or too large to be a picture.
    """
    upright, depth = _opened(content)
    if depth is None:
        return _to_rgb(upright)
    return to_8_bits(upright, white or depth.declared or suggested_white([depth]))


def _opened(content: bytes) -> tuple[Image.Image, Depth | None]:
    """The upright picture as Pillow decodes it, and its depth."""
    if not content:
        raise UserError("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UserError(f"{image.width} x {image.height} pixels: too large to decode")
            image.load()
            return ImageOps.exif_transpose(image), depth_of(image)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"more than {_MAX_PIXELS:,} pixels: too large to decode") from None
    except UnidentifiedImageError:
        if is_heic(content):
            raise UserError(NO_HEIC) from None
        raise UserError("not an image that Pillow can identify") from None
    except MemoryError:
        raise UserError("not enough memory to decode it; make it smaller") from None
    except Exception as error:  # Pillow's readers raise errors of any kind on malformed bytes
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(f"damaged: {reason}") from None


def read(file: Source) -> Image.Image:
    """The decoded picture of a file.

    Raises:
        UserError: the file cannot be decoded; the message names it.
        OSError: the file cannot be read.
    """
    return _decode_file(file, file.read_bytes())


def read_each(
    files: Sequence[Source],
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
    contents = read_ahead(_read_bytes, files, readers)

    def used(entry: tuple[int, bytes]) -> R:
        place, content = entry
        return use(place, _decode_file(files[place], content))

    return read_ahead(used, enumerate(contents), threads)


def _read_bytes(file: Source) -> bytes:
    return file.read_bytes()


def _decode_file(file: Source, content: bytes) -> Image.Image:
    try:
        return decode(content, file.white if isinstance(file, PictureFile) else 0.0)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_ground(image.convert("RGBA"))
    try:
        return image.convert("RGB")
    except ValueError as error:  # for example Lab
        raise UserError(f"cannot be converted to RGB: {error}") from None


def _on_ground(image: Image.Image) -> Image.Image:
    """A transparent picture on white or, if it would hardly show there, on black."""
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    least, most = np.asarray(image.getchannel("A").getextrema())
    if least < 255 and most > 0 and np.min(white.getextrema()) >= _NEARLY_WHITE:
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return white


def is_heic(head: bytes) -> bool:
    """Whether a file that begins so is a HEIC picture."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC


@lru_cache(maxsize=1)
def extensions() -> frozenset[str]:
    """Extensions of files that may be images, with the dot."""
    kinds = _formats()
    known = Image.registered_extensions()
    return frozenset(ending for ending, kind in known.items() if kind in kinds)


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Formats tried on a file whatever its extension; none of them runs an external program."""
    Image.init()
    if find_spec("pillow_heif"):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(kind for kind in Image.OPEN if kind not in _NOT_IMAGES)
