"""Where each picture of an export goes.

Of class folders, where it was, or into the folder of its new class; a name that is taken there gets
the old class behind it. Of all other sources, under its id in the folder of its split, with
the labels in the metadata.csv there: an imagefolder, which this tool and Hugging Face `datasets`
read. A README.md names the splits for `datasets`, which would otherwise take `shapley_val` for val.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dcai_ray.errors import UserError
from dcai_ray.images.image_set import Image, ImageSet
from dcai_ray.images.kinds import ending_of, ending_of_content
from dcai_ray.images.listing import SPLITS
from dcai_ray.storage.dataset_card import card_of_splits

CHANGES = "changes.csv"
"""The list of what an export leaves out or gives another label."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a picture that an export leaves out or gives another label."""

    label: str
    """The new label; empty for one that is left out."""
    by: str
    """Who said so: a person, or "rule"."""
    reason: str


class Layout:
    """The names of an export's files; those of an imagefolder are noted as they are given."""

    def __init__(
        self,
        images: Sequence[Image],
        *,
        as_imagefolder: bool,
        changes: Sequence[tuple[Image, Change]] = (),
    ) -> None:
        """Of the pictures to export, with their new labels.

        Args:
            images: the pictures.
            as_imagefolder: whether labels are listed in tables, not told by folders.
            changes: pictures with their old labels, and what becomes of them.
        """
        self.images = images
        self.changes = changes
        self.moved = {} if as_imagefolder else _moved(images)
        """New paths of pictures that go to the folder of another class, by their old ones."""
        self.as_imagefolder = as_imagefolder
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
        if not self.as_imagefolder:
            return self.moved.get(image.path, image.path)
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
        changes = {CHANGES: self._listed_changes()} if self.changes else {}
        if not self.as_imagefolder:
            card = {"README.md": _card(folders)} if "shapley_val" in folders else {}
            return {**card, **changes}
        tables = {
            f"{split}/metadata.csv": _table(("file_name", "label", "split"), rows)
            for split, rows in self._rows.items()
        }
        return {**tables, "README.md": _card(self._rows), **changes}

    def _listed_changes(self) -> bytes:
        """The table of what is left out or has another label."""
        rows = [
            (
                "relabel" if change.label else "drop",
                image.split,
                image.id,
                image.path,
                image.label,
                change.label,
                self.moved.get(image.path, "") if change.label else "",
                change.by,
                change.reason,
            )
            for image, change in self.changes
        ]
        head = ("change", "split", "id", "path", "label", "new_label", "new_path", "by", "reason")
        return _table(head, rows)


def _moved(images: Sequence[Image]) -> dict[str, str]:
    """New paths of the pictures of class folders that have another label than their folder."""
    taken = {image.path for image in images}
    moved: dict[str, str] = {}
    for image in images:
        given, _, rest = image.id.partition("/")
        if given == image.label:
            continue
        folder = image.path.removesuffix(image.id)
        stem, dot, ending = rest.rpartition(".")
        name = f"{folder}{image.label}/{rest}"
        number = 1
        while name in taken:
            behind = given if number == 1 else f"{given}-{number}"
            name = f"{folder}{image.label}/{stem or rest}_{behind}{dot}{ending if stem else ''}"
            number += 1
        taken.add(name)
        moved[image.path] = name
    return moved


def layout_of(
    images: ImageSet,
    chosen: Sequence[Image],
    changes: Mapping[tuple[str, str], Change] = MappingProxyType({}),
) -> Layout:
    """The layout for the chosen images of a set.

    Args:
        images: all images.
        chosen: those to export, with their new labels.
        changes: what is left out or has another label, by split and id.
    """
    of_folders = images.table is None and all(
        image.id.startswith(f"{image.label}/") and image.path.endswith(image.id)
        for image in images.images
    )
    listed = [
        (image, changes[image.split, image.id])
        for image in images.images
        if (image.split, image.id) in changes
    ]
    return Layout(chosen, as_imagefolder=not of_folders, changes=listed)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()


def _card(splits: Collection[str]) -> bytes:
    files = {split: f"{split}/**" for split in SPLITS if split in splits}
    return card_of_splits(files, "A cleaned set of images: a folder per split.")
