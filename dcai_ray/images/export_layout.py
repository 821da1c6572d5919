"""Where each picture of an export goes.

Of class folders, where it was. Of all other sources, under its id in the folder of its split, with
the labels in the metadata.csv there: an imagefolder, which this tool and Hugging Face `datasets`
read. A README.md names the splits for `datasets`, which would otherwise take `shapley_val` for val.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Collection, Sequence

from dcai_ray.errors import UserError
from dcai_ray.images.image_set import Image, ImageSet
from dcai_ray.images.kinds import ending_of, ending_of_content
from dcai_ray.images.listing import SPLITS
from dcai_ray.storage.dataset_card import card_of_splits


class Layout:
    """The names of an export's files; those of an imagefolder are noted as they are given."""

    def __init__(self, images: Sequence[Image], *, as_imagefolder: bool) -> None:
        self.images = images
        self._as_imagefolder = as_imagefolder
        self._rows: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
        self._names: set[str] = set()

    def name(self, image: Image, content: bytes) -> str:
        """The path below the target.

        Args:
            image: the picture.
            content: its bytes, to name it by if its id has no ending; empty if it is linked.
        Raises:
            UserError: its id leads out of the target, or two pictures would have the same name.
        """
        if not self._as_imagefolder:
            return image.path
        name = image.id if ending_of(image.id) else image.id + ending_of_content(content)
        full = f"{image.split}/{name}"
        if name.startswith("/") or ".." in name.split("/"):
            raise UserError(f"the id {image.id!r} leads out of the export; rename it")
        if full in self._names or name == "metadata.csv":
            raise UserError(f"two files of the export would be {full}; rename one of the images")
        self._names.add(full)
        self._rows[image.split].append((name, image.label, image.split))
        return full

    def texts(self) -> dict[str, bytes]:
        """What goes beside the pictures, by path; once all of them have their names."""
        folders = {image.path.partition("/")[0] for image in self.images}
        if not self._as_imagefolder:
            return {"README.md": _card(folders)} if "shapley_val" in folders else {}
        tables = {f"{split}/metadata.csv": _table(rows) for split, rows in self._rows.items()}
        return {**tables, "README.md": _card(self._rows)}


def layout_of(images: ImageSet, chosen: Sequence[Image]) -> Layout:
    """The layout for the chosen images of a set."""
    of_folders = images.table is None and all(
        image.id.startswith(f"{image.label}/") and image.path.endswith(image.id)
        for image in images.images
    )
    return Layout(chosen, as_imagefolder=not of_folders)


def _table(rows: Sequence[tuple[str, str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file_name", "label", "split"))
    writer.writerows(rows)
    return text.getvalue().encode()


def _card(splits: Collection[str]) -> bytes:
    files = {split: f"{split}/**" for split in SPLITS if split in splits}
    return card_of_splits(files, "A cleaned set of images: a folder per split.")
