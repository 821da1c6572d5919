"""Where a picture's bytes are: a file of its own, or a part of a container.

A container (a tar or zip file) is listed once, by the driver. What travels to a worker is the byte
range of each picture, so a worker reads that range (one request to an object store) and never lists
the container again.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from dcai_ray.errors import UserError
from dcai_ray.images import tables
from dcai_ray.storage.location import Location

How = Literal["stored", "zip", "row"]

_ZIP_HEADER = struct.Struct("<4s5HIIIHH")  # the local header of a zip's member, APPNOTE.TXT 4.3.7
_DEFLATED = 8


@dataclass(frozen=True, slots=True)
class Packed:
    """The part of a container that is one picture."""

    file: str
    """The container, a path below the data's root; "" if the root itself is the container."""
    start: int
    """First byte of the range; the number of a table's row."""
    length: int
    """Bytes of the range, as packed; 0 for a row."""
    how: How
    """`stored`: the picture's bytes; `zip`: a header and the bytes, perhaps deflated; `row`."""
    bytes: int
    """Size of the unpacked picture; 0 for a row, of which it is not known before it is read."""
    column: str = ""
    """Of a table: the column with the picture."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """One picture, and what its deep greys show as white."""

    root: Location
    """The data's root."""
    path: str
    """The picture's name below the root; of a packed one, for messages only."""
    packed: Packed | None = None
    white: float = 0.0
    """The value that deep greys show as white; 0 for pictures of 8 bits."""

    def __str__(self) -> str:
        return str(self.root / self.path)

    def read_bytes(self) -> bytes:
        """The content of the picture's file.

        Raises:
            UserError: the container is damaged.
            OSError: the file cannot be read.
        """
        if self.packed is None:
            return (self.root / self.path).read_bytes()
        container = container_of(self.root, self.packed)
        if self.packed.how == "row":
            return tables.read_picture(container, self.packed.column, self.packed.start)
        part = container.read_range(self.packed.start, self.packed.length)
        content = _unzipped(part, self.packed.bytes) if self.packed.how == "zip" else part
        if content is None or len(content) != self.packed.bytes:
            raise UserError(f"damaged in {container}; pack it again")
        return content


def container_of(root: Location, packed: Packed) -> Location:
    """The file that a packed picture lies in."""
    return root / packed.file if packed.file else root


def _unzipped(member: bytes, size: int) -> bytes | None:
    """The content of a zip's member from its local header on; None if it is damaged."""
    if len(member) < _ZIP_HEADER.size:
        return None
    magic, _, _, method, *_, name, extra = _ZIP_HEADER.unpack_from(member)
    content = member[_ZIP_HEADER.size + name + extra :]
    if magic != b"PK\3\4":
        return None
    if method != _DEFLATED:
        return content[:size]
    try:  # never more than the archive's list announces
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
    except zlib.error:
        return None
