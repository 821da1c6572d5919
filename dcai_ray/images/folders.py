"""List the images of a folder by class, in a stable order.

    <data>/{train,shapley_val,val}/<class>/<image>       the three splits of a run
    <data>/<class>/<image>                               a plain folder: all of it is `train`

Subfolders of a class belong to it. Images are ordered by class, then by id (the path below the
split), so the order does not depend on the file system. Every file that Pillow reads is decoded to
8-bit RGB: EXIF orientation is applied, transparency is laid over a ground, 16 bits are scaled down,
and an animation is represented by its first frame.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dcai_ray.errors import UserError
from dcai_ray.images.decoding import extensions
from dcai_ray.storage.location import Location

SPLITS = ("train", "shapley_val", "val")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # newlines, escape sequences of terminals


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image of a data folder."""

    split: str
    id: str
    """Path below the split's folder, POSIX."""
    label: str
    path: str
    """Path below the data's root."""
    bytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The content of a data folder, before any file is opened."""

    root: Location
    """The data's root, to which the paths of the images are relative."""
    images: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    """Messages for the user: skipped files, a split made by halving."""

    def split(self, name: str) -> tuple[ImageFile, ...]:
        """The images of one split, in order."""
        return tuple(image for image in self.images if image.split == name)


def list_splits(data: Location, *, split_seed: int = 0) -> Listing:
    """The images of `<data>/{train,shapley_val,val}/<class>/<image>`.

    Without a shapley_val, a seeded, stratified half of val is used instead.

    Raises:
        UserError: the folder or a split is missing, or classes are missing or do not match.
    """
    _check_folder(data)
    folders = data.folders()
    for split in ("train", "val"):
        if split not in folders:
            raise UserError(
                f"{data}: no folder {split}; expected train, val and (optionally) shapley_val, "
                "each with one folder per class. For a plain folder of class folders, use dcai-ray "
                "audit"
            )
    listed, notes = {}, []
    for split in SPLITS:
        if split in folders:
            listed[split], skipped = _list_split(data, split)
            notes += skipped
    classes = _check_classes(data, listed)
    images = [image for files in listed.values() for image in files]
    if "shapley_val" not in listed:
        images = halve_val(images, split_seed)
        halves = Counter(image.split for image in images)
        if not halves["val"]:
            raise UserError(f"{data / 'val'}: too few images to halve; a class needs at least two")
        notes.append(
            f"no shapley_val: a seeded half of val is used instead ({halves['shapley_val']} "
            f"images); the other half stays val ({halves['val']})"
        )
    there = {image.label for image in images if image.split == "shapley_val"}
    if missing := sorted(set(classes) - there):
        notes.append(
            f"shapley_val has no image of class {', '.join(missing)}: the training images of that "
            "class cannot be judged by it and stay undecided"
        )
    return Listing(data, tuple(sorted(images, key=_order)), classes, tuple(notes))


def list_folder(data: Location) -> Listing:
    """The images of a plain folder of class folders (of `<data>/train` if it exists), as `train`.

    Raises:
        UserError: the folder is missing, has fewer than two classes, or a class is empty.
    """
    _check_folder(data)
    files, notes = _list_split(data, "train" if "train" in data.folders() else "")
    classes = _check_classes(data, {"train": files})
    return Listing(data, tuple(sorted(files, key=_order)), classes, tuple(notes))


def halve_val(images: Iterable[ImageFile], seed: int) -> list[ImageFile]:
    """Move a stratified half of val to shapley_val; of an odd class, the larger half."""
    by_class: dict[str, list[ImageFile]] = defaultdict(list)
    halved = []
    for image in images:
        if image.split == "val":
            by_class[image.label].append(image)
        else:
            halved.append(image)
    for place, label in enumerate(sorted(by_class)):
        files = sorted(by_class[label], key=_order)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(place,)))
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


def _check_folder(data: Location) -> None:
    if not data.is_folder():
        raise UserError(f"{data}: no such folder")


def _list_split(data: Location, split: str) -> tuple[list[ImageFile], list[str]]:
    """The images of one split ("" for a plain folder), and notes on the files that were skipped."""
    root = data / split if split else data
    images, skipped = [], Counter[str]()
    for path, size in root.walk():
        if _CONTROL.search(path):
            raise UserError(f"{root}: the name {path!r} has control characters; rename it")
        if _is_hidden(path):
            skipped["hidden"] += 1
        elif "/" not in path:
            # A plain folder may hold truth.csv and the like beside its classes.
            if split or _is_image(path):
                skipped["outside class folders"] += 1
        elif not _is_image(path):
            skipped["without an image extension"] += 1
        else:
            full = f"{split}/{path}" if split else path
            images.append(ImageFile(split or "train", path, path.split("/")[0], full, size))
    _check_no_class_is_empty(root, images)
    name = split or data.name
    return images, [
        f"{name}: {n} {'file' if n == 1 else 'files'} skipped ({why})"
        for why, n in sorted(skipped.items())
    ]


def _is_hidden(path: str) -> bool:
    return any(name.startswith(".") or name == "__MACOSX" for name in path.split("/"))


def _is_image(path: str) -> bool:
    return "." + path.rsplit(".", 1)[-1].lower() in extensions()


def _check_no_class_is_empty(root: Location, images: Sequence[ImageFile]) -> None:
    folders = {name for name in root.folders() if not name.startswith((".", "__MACOSX"))}
    empty = sorted(folders - {image.label for image in images})
    if empty:
        raise UserError(
            f"{root}: no image in class {', '.join(empty)}; add images or remove the folder"
        )


def _check_classes(data: Location, listed: dict[str, list[ImageFile]]) -> tuple[str, ...]:
    classes = sorted({image.label for image in listed["train"]})
    where = data / "train" if len(listed) > 1 else data
    if not classes:
        raise UserError(f"{where}: no classes; expected one folder per class with images in it")
    if len(classes) == 1:
        raise UserError(f"{where}: only one class ({classes[0]}); at least two are needed")
    for split, files in listed.items():
        if not files:
            raise UserError(f"{data / split}: no images; expected one folder per class")
        unknown = sorted({image.label for image in files} - set(classes))
        if unknown:
            raise UserError(
                f"{data / split}: class {', '.join(unknown)} does not occur in train "
                f"({', '.join(classes[:10])}); rename or remove it"
            )
    return tuple(classes)


def _order(image: ImageFile) -> tuple[int, str, str]:
    return SPLITS.index(image.split), image.label, image.id
