"""What every source of images gives: a `Listing`, checked on both sides before a file is opened.

Sources differ in where an image's split and label come from (`folders`, `lists`); what a run needs
of them does not: at least two classes, no class of validation images that train lacks, and
validation images left on both sides where val is halved. Images are ordered by split, class and id,
so the order does not depend on the file system; those in a container by split and place.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dcai_ray.errors import UserError
from dcai_ray.images.picture_files import Packed, PictureFile
from dcai_ray.storage.location import Location

SPLITS = ("train", "shapley_val", "val")
Found = Sequence[tuple[str, int]]
"""Files below a folder: path and size in bytes."""
Place = Callable[[str], str]
"""Names a split in messages: the folder it lies in, or the list it comes from."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image of a data folder."""

    split: str
    id: str
    """Path below the split's folder, POSIX."""
    label: str
    path: str
    """Path below the data's root; of a packed picture, its name there."""
    bytes: int
    packed: Packed | None = None
    """Where it lies in a container; None for a file of its own."""

    def file(self, root: Location) -> PictureFile:
        """Where its bytes are."""
        return PictureFile(root, self.path, self.packed)


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a data set, before any file is opened."""

    root: Location
    """The data's root, to which the paths of the images are relative."""
    images: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    """Messages for the user: skipped files, a split made by halving."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """How the images were found, if not by their folders alone: `list` and `splits`, as settings
    of the run."""

    unit: str = "images"
    """What they are, in the plural."""

    def split(self, name: str) -> tuple[ImageFile, ...]:
        """The images of one split, in order."""
        return tuple(image for image in self.images if image.split == name)

    @property
    def table(self) -> Location | None:
        """The table that lists the images, if there is one."""
        return Location(self.origin["list"]) if "list" in self.origin else None

    @property
    def summary(self) -> str:
        """What was understood: `3 classes, no splits, 920 images`."""
        counts = Counter(image.split for image in self.images)
        parts = [f"{name} {counts[name]}" for name in SPLITS if counts[name]]
        splits = f"splits {', '.join(parts)}" if len(parts) > 1 else "no splits"
        return f"{len(self.classes)} classes, {splits}, {len(self.images)} {self.unit}"


def split_listing(
    root: Location,
    listed: Mapping[str, Sequence[ImageFile]],
    notes: Sequence[str],
    place: Place,
    *,
    split_seed: int,
) -> Listing:
    """A listing with train, val and shapley_val, a half of val if the data has none.

    Args:
        root: what the paths are relative to.
        listed: images by split; train and val, perhaps shapley_val.
        notes: messages of the source.
        place: names a split in messages.
        split_seed: seed of the halving.
    Raises:
        UserError: a split is empty, or its classes do not match those of train.
    """
    classes, notes = _check_classes(listed, place), list(notes)
    images = [image for files in listed.values() for image in files]
    if "shapley_val" not in listed:
        images = halve_val(images, split_seed)
        notes += _notes_of_halving(images, place)
    notes += _missing_classes(images, classes, halved="shapley_val" not in listed)
    return Listing(root, _in_order(images), classes, tuple(notes))


def plain_listing(
    root: Location, images: Sequence[ImageFile], notes: Sequence[str], place: Place
) -> Listing:
    """A listing of train alone.

    Raises:
        UserError: there are fewer than two classes.
    """
    classes = _check_classes({"train": images}, place)
    return Listing(root, _in_order(images), classes, tuple(notes))


def halve_val(images: Iterable[ImageFile], seed: int) -> list[ImageFile]:
    """Move a stratified half of val to shapley_val; of an odd class, the larger half."""
    by_class: dict[str, list[ImageFile]] = defaultdict(list)
    halved = []
    for image in images:
        if image.split == "val":
            by_class[image.label].append(image)
        else:
            halved.append(image)
    for index, label in enumerate(sorted(by_class)):
        files = sorted(by_class[label], key=_order)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        chosen = set(rng.permutation(len(files))[: (len(files) + 1) // 2].tolist())
        halved += [
            replace(file, split="shapley_val") if i in chosen else file
            for i, file in enumerate(files)
        ]
    return halved


def duplicates(files: Sequence[ImageFile], sha256: Sequence[str]) -> tuple[list[str], list[str]]:
    """Groups of files with equal content: those across splits, and those within train.

    Returns:
        Two lists of lines, one per group: `train/a.png = val/b.png`.
    """
    groups: dict[str, list[ImageFile]] = defaultdict(list)
    for file, digest in zip(files, sha256, strict=True):
        groups[digest].append(file)
    across, inside = [], []
    for group in groups.values():
        line = " = ".join(file.path for file in group)
        splits = [file.split for file in group]
        if len(set(splits)) > 1:
            across.append(line)
        if splits.count("train") > 1:
            inside.append(" = ".join(file.path for file in group if file.split == "train"))
    return across, inside


def normalized(name: str) -> str:
    """A name as names are compared: macOS writes `ä` as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def check_ids_differ(images: Iterable[ImageFile], where: object) -> None:
    """Refuse two images of a split whose ids are equal once normalized.

    Raises:
        UserError: names both.
    """
    seen: dict[tuple[str, str], str] = {}
    for image in images:
        other = seen.setdefault((image.split, image.id), image.path)
        if other != image.path:
            raise UserError(
                f"{where}: {other!a} and {image.path!a} are the same name in two spellings of "
                "Unicode; rename one"
            )


def _check_classes(listed: Mapping[str, Sequence[ImageFile]], place: Place) -> tuple[str, ...]:
    classes = sorted({image.label for image in listed["train"]})
    where = place("train")
    if not classes:
        raise UserError(f"{where}: no classes; expected one folder per class with images in it")
    if len(classes) == 1:
        raise UserError(f"{where}: only one class ({classes[0]}); at least two are needed")
    for split, files in listed.items():
        if not files:
            raise UserError(f"{place(split)}: no images; expected one folder per class")
        unknown = sorted({image.label for image in files} - set(classes))
        if unknown:
            raise UserError(
                f"{place(split)}: class {', '.join(unknown)} does not occur in train "
                f"({', '.join(classes[:10])}); rename or remove it"
            )
    return tuple(classes)


def _notes_of_halving(images: Sequence[ImageFile], place: Place) -> list[str]:
    """What halving val gave.

    Raises:
        UserError: val keeps fewer than two classes, on which any accuracy would be 1.
    """
    halves = Counter(image.split for image in images)
    left = {image.label for image in images if image.split == "val"}
    before = left | {image.label for image in images if image.split == "shapley_val"}
    if not left or len(left) < 2 <= len(before):
        single = sorted(before - left)
        raise UserError(
            f"{place('val')}: too few images to halve; a class needs at least two, and there is "
            f"one of {', '.join(single)}; add images, or give a shapley_val of its own"
        )
    notes = [
        f"no shapley_val: a seeded half of val is used instead ({halves['shapley_val']} "
        f"images); the other half stays val ({halves['val']})"
    ]
    if single := sorted(before - left):
        notes.append(
            f"val had one image of class {', '.join(single)}, which went to shapley_val: accuracies"
            " on val do not cover that class"
        )
    return notes


def _missing_classes(
    images: Sequence[ImageFile], classes: Sequence[str], *, halved: bool
) -> list[str]:
    """Notes on classes of train that the validation images lack."""
    notes = []
    there = {image.label for image in images if image.split == "shapley_val"}
    if len(there) == 1:
        notes.append(
            f"shapley_val has images of one class only ({', '.join(there)}): it cannot tell which "
            "labels are wrong; add images of the other classes"
        )
    elif missing := sorted(set(classes) - there):
        notes.append(
            f"shapley_val has no image of class {', '.join(missing)}: the training images of that "
            "class cannot be judged by it and stay undecided"
        )
    tested = {image.label for image in images if image.split == "val"}
    missing = sorted(set(classes) - tested - (there if halved else set()))
    if missing:
        only = "; with one class there is no AUROC either" if len(tested) == 1 else ""
        notes.append(
            f"val has no image of class {', '.join(missing)}: accuracies on val do not cover it"
            + only
        )
    return notes


def _in_order(images: Iterable[ImageFile]) -> tuple[ImageFile, ...]:
    return tuple(sorted(images, key=_order))


def _order(image: ImageFile) -> tuple[int, str, int, str, str]:
    """Files by split, class and id; pictures in a container as they lie there, for fast reading."""
    file, start = (image.packed.file, image.packed.start) if image.packed else ("", 0)
    return SPLITS.index(image.split), file, start, image.label, image.id
