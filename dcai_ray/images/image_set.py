"""The readable images of a run as records; they are rows and columns only in `images.parquet`."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa

from dcai_ray.images.listing import ImageFile
from dcai_ray.images.picture_files import Packed, PictureFile
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.location import Location


@dataclass(frozen=True, kw_only=True, slots=True)
class Image(ImageFile):
    """One readable image: a row of `images.parquet`."""

    width: int
    """In pixels, like `height`."""
    height: int
    sha256: str
    """Hash of the file's content."""
    pixels: str = ""
    """Hash of the decoded picture; empty in runs that did not record it."""
    blank: bool = False
    """Whether the whole picture has one colour."""
    white: float = 0.0
    """The value that deep greys show as white; 0 for pictures of 8 bits."""

    def file(self, root: Location) -> PictureFile:
        """Where its bytes are, and what its deep greys show as white.

        Raises:
            UserError: the path leads out of the data, as somebody may have written it there.
        """
        for name in (self.path, self.packed.file if self.packed else ""):
            root.check_below(name)
        return PictureFile(root, self.path, self.packed, self.white)

    @property
    def shows(self) -> str:
        """A hash of what the picture shows."""
        return self.pixels or self.sha256


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The readable images of a run, in the order of the listing."""

    root: Location
    """The data's root."""
    images: tuple[Image, ...]
    classes: tuple[str, ...]
    table: Location | None = None
    """The table that lists them, if there is one; it may know true labels."""

    def split(self, name: str) -> tuple[Image, ...]:
        """The images of one split."""
        return tuple(image for image in self.images if image.split == name)


def image_table(images: Iterable[Image]) -> pa.Table:
    """Images as `schemas.IMAGES`; without the column `packed` if none is."""
    images = list(images)
    columns = [[getattr(image, name) for image in images] for name in schemas.IMAGES.names[:-1]]
    packed = [image.packed and asdict(image.packed) for image in images]
    table = pa.table([*columns, packed], schema=schemas.IMAGES)
    return table if any(packed) else table.remove_column(len(columns))


def images_of(table: pa.Table) -> tuple[Image, ...]:
    """The images of a table of `schemas.IMAGES`."""
    known = [name for name in schemas.IMAGES.names if name in table.column_names]
    rows = table.select(known).to_pylist()
    for row in rows:
        if packed := row.get("packed"):
            row["packed"] = Packed(**packed)
    return tuple(Image(**row) for row in rows)


def read_image_set(run: RunDirectory) -> ImageSet | None:
    """The images that a run was made from; None for one valued from imported features.

    Raises:
        UserError: `images.parquet` or `config.yaml` is damaged.
        OSError: a file cannot be read.
    """
    settings = run.settings()
    root, table = settings.get("data"), settings.get("list")
    if root is None or not run.images.exists():
        return None
    images = images_of(parquet.read_table(run.images))
    classes = sorted({image.label for image in images if image.split == "train"})
    return ImageSet(Location(root), images, tuple(classes), Location(table) if table else None)
