"""Are the images still those that a run has read? By their hashes, where time or place is new.

A picture replaced by one of the same name and size is found by the time of its change; a file that
changed after the run read it, or that lies in another folder, is hashed again.
"""

import hashlib
from collections.abc import Sequence

from dcai_ray.errors import StorageError, UserError
from dcai_ray.images.hugging_face import tables_of
from dcai_ray.images.image_set import Image, read_image_set
from dcai_ray.images.lists import is_list, read_rows
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.location import Location
from dcai_ray.storage.read_ahead import read_ahead

_READERS = 16
_MARGIN_S = 2.0  # the coarsest clock of a file system


def replaced(run: RunDirectory, root: Location, images: Sequence[Image]) -> list[str]:
    """Paths of images whose content is another than when the run read them."""
    since = run.location.changed_at([run.images.name])[0] - _MARGIN_S
    names = [image.path if image.packed is None else image.packed.file for image in images]
    distinct = list(dict.fromkeys(names))  # one time per container
    times = dict(zip(distinct, root.changed_at(distinct), strict=True))
    later = [image for image, name in zip(images, names, strict=True) if times[name] > since]
    return different(root, later)


def different(root: Location, images: Sequence[Image]) -> list[str]:
    """Paths of images below `root` whose content has another hash, or that are not there."""

    def is_same(image: Image) -> bool:
        try:
            content = image.file(root).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except StorageError:  # says nothing about the picture
            raise
        except UserError:  # damaged in its container
            return False
        return hashlib.sha256(content).hexdigest() == image.sha256

    same = read_ahead(is_same, images, _READERS)
    return [image.path for image, fits in zip(images, same, strict=True) if not fits]


def follow(run: RunDirectory, data: Location) -> None:
    """Bind a run to the new place of its data, a folder or a table of images.

    Raises:
        UserError: the run has no images, or those in the new place are others.
    """
    there = read_image_set(run)
    if there is None:
        raise UserError(f"{run.location}: has no images; --data is of no use here")
    table = data if is_list(data) and not tables_of(data, None) else None
    root = read_rows(data)[0] if table else data
    if (there.root, there.table) == (root, table):
        return
    others = different(root, there.images)
    if others:
        raise UserError(
            f"{data}: not the data of {run.location}: {len(others)} of {len(there.images)} images "
            f"are missing or differ, the first {others[0]}"
        )
    run.move_data(root, table)
