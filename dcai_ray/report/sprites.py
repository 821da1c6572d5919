"""Small pictures as sheets of a hundred: one JPEG each, so that ten thousand fit into a page.

A JPEG of its own costs 600 bytes of tables before its first pixel. Cells are multiples of 16 px, as
are JPEG's blocks, so that no picture bleeds into the next one.
"""

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from dcai_ray.errors import UserError
from dcai_ray.images import decoding

COLUMNS = 10
"""Cells in a row of a sheet; a sheet has as many rows."""
_READERS = 8  # threads, as an object store answers slowly; the order is kept
_PAPER = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Sprites:
    """Pictures in the order of their files: the i-th is cell i % 100 of sheet i // 100."""

    side_px: int
    """Side of a cell; each picture lies in the upper left of its own."""
    sizes: list[tuple[int, int]]
    """Width and height of each picture; (0, 0) for a file that can no longer be read."""
    sheets: list[str]
    """JPEGs in base64."""


def sprites(files: Sequence[decoding.Source], side_px: int, quality: int = 75) -> Sprites:
    """Read pictures and lay them out on sheets.

    Args:
        files: of the pictures.
        side_px: the longer side of a picture, at most; a multiple of 16.
        quality: of the JPEGs, up to 95.
    """
    assert side_px % 16 == 0
    sizes: list[tuple[int, int]] = []
    sheets = []
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(files), COLUMNS**2):
            chunk = files[start : start + COLUMNS**2]
            pictures = list(pool.map(lambda file: _small(file, side_px), chunk))
            sizes += [picture.size if picture else (0, 0) for picture in pictures]
            sheets.append(_sheet(pictures, side_px, quality))
    return Sprites(side_px, sizes, sheets)


def _small(file: decoding.Source, side_px: int) -> Image.Image | None:
    try:
        picture = decoding.read(file)
    except (OSError, UserError):  # moved or deleted since: the report shows the gap
        return None
    picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return picture


def _sheet(pictures: Sequence[Image.Image | None], side_px: int, quality: int) -> str:
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (min(len(pictures), COLUMNS) * side_px, rows * side_px), _PAPER)
    for i, picture in enumerate(pictures):
        if picture is not None:
            sheet.paste(picture, (i % COLUMNS * side_px, i // COLUMNS * side_px))
    content = io.BytesIO()
    sheet.save(content, "jpeg", quality=quality, optimize=True)
    return base64.b64encode(content.getvalue()).decode()
