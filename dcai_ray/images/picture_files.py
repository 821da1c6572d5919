"""Where the bytes of a picture are: in a file of its own, or in a part of an archive or table."""

from dataclasses import dataclass

from dcai_ray.storage.location import Location
from dcai_ray.storage.packed import Packed


@dataclass(frozen=True, slots=True)
class PictureFile:
    """The file of a picture, and how its values are scaled."""

    root: Location
    """The data's root."""
    path: str
    """Below the root; of a packed one, what messages call it."""
    packed: Packed | None = None
    white: float = 0.0
    """What deep greys show as white; 0: as the file declares."""

    def __str__(self) -> str:
        return str(self.root / self.path)

    def read_head(self, count: int) -> bytes:
        """The first bytes; raises as `read_bytes`."""
        if self.packed:
            return self.read_bytes()[:count]
        return (self.root / self.path).read_bytes(count)

    def read_bytes(self) -> bytes:
        """The content.

        Raises:
            OSError: it cannot be read.
        """
        return self.packed.read(self.root) if self.packed else (self.root / self.path).read_bytes()
