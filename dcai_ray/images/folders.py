"""List the images of a folder, or of an archive of folders, by class.

    <data>/{train,shapley_val,val}/<class>/<image>       the three splits of a run
    <data>/<class>/<image>                               a plain folder: all of it is `train`

Subfolders of a class belong to it. Which folders are splits, `split_folders` says; which files are
pictures, `kinds`. A folder in which a run keeps its results is no data.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dcai_ray.errors import UserError
from dcai_ray.images import kinds, split_folders
from dcai_ray.images.archives import Archive, is_archive, read_archive
from dcai_ray.images.listing import (
    SPLITS,
    Found,
    ImageFile,
    Listing,
    check_ids_differ,
    normalized,
    plain_listing,
    split_listing,
)
from dcai_ray.images.picture_files import Packed
from dcai_ray.images.split_folders import Splits
from dcai_ray.storage.location import Location

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # newlines, escape sequences of terminals
MARKER = "_export_incomplete"
"""Lies in a remote export until its last object is written."""
_OF_A_RUN = ("run.json", "run.log")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a data folder, without those of runs that lie in it."""

    root: Location
    found: tuple[tuple[str, int], ...]
    """Path below the root, and size."""
    runs: tuple[str, ...]
    """Folders of runs, which were skipped."""
    archive: Archive | None = None
    """The archive that all of it lies in, if it is one."""

    def below(self, folder: str) -> list[tuple[str, int]]:
        """The files of one folder ("" for all), with their paths below it."""
        start = f"{folder}/" if folder else ""
        return [(path[len(start) :], size) for path, size in self.found if path.startswith(start)]

    def folders(self, folder: str) -> list[str]:
        """Names of the subfolders of one folder ("" for the top)."""
        if self.archive is None:
            return (self.root / folder if folder else self.root).folders()
        return sorted({path.split("/")[0] for path, _ in self.below(folder) if "/" in path})

    def is_image(self, folder: str, path: str) -> bool:
        """Whether a file below a folder is a picture; in an archive by its ending alone."""
        if self.archive is None:
            return kinds.is_image(self.root / folder if folder else self.root, path)
        return kinds.has_ending_of_image(path)

    def packed(self, path: str) -> Packed | None:
        """Where a file lies in the archive."""
        return self.archive.members[path] if self.archive else None

    def shapes(self) -> dict[str, split_folders.Shape]:
        """What lies in each folder at the top that is not hidden."""
        return split_folders.shapes(path for path, _ in self.found if not kinds.is_hidden(path))


def list_splits(
    data: Location,
    *,
    split_seed: int = 0,
    splits: Splits | None = None,
    found: Found | None = None,
) -> Listing:
    """The images of `<data>/{train,shapley_val,val}/<class>/<image>`.

    Without a shapley_val, a seeded, stratified half of val is used instead.

    Args:
        data: a folder, or a tar or zip file.
        split_seed: seed of the halving.
        splits: the folder of each split; by default by their names.
        found: what lies in the folder, if it has been walked.
    Raises:
        UserError: the folder or a split is missing, or classes are missing or do not match.
    """
    files = _files(data, found)
    named = splits
    if splits is None:
        tops = files.shapes()
        empty = {name: split_folders.Shape(False, frozenset()) for name in files.folders("")}
        splits = split_folders.splits_of_run(data, {**empty, **tops})
    if "val" not in splits:
        raise UserError("--splits: val=FOLDER is missing; an audit needs train alone")
    listed, notes = {}, _notes_of(files, splits)
    for split in SPLITS:
        if split in splits:
            listed[split], skipped = _list_split(files, splits[split], split)
            notes += skipped

    def place(split: str) -> str:
        return str(data / splits[split])

    listing = split_listing(data, listed, notes, place, split_seed=split_seed)
    return _with_origin(listing, named)


def list_folder(
    data: Location, *, splits: Splits | None = None, found: Found | None = None
) -> Listing:
    """The images of a plain folder of class folders, or of the train split of a folder of splits.

    Args:
        data: a folder, or a tar or zip file.
        splits: the folder of train; none (an empty mapping) says that the top holds the classes;
            by default by what lies there.
        found: what lies in the folder, if it has been walked.
    Raises:
        UserError: the folder is missing, has fewer than two classes, or a class is empty; or it is
            not clear whether its folders are splits or classes.
    """
    files = _files(data, found)
    if splits is None:
        train = split_folders.train_of_audit(data, files.shapes())
    else:
        train = splits.get("train", "")
    images, notes = _list_split(files, train, "train")
    if train:
        others = sorted(files.shapes().keys() - {train})
        if others:
            notes.append(f"only {train} is valued, as train; not {', '.join(others)}")
    where = str(data / train if train else data)
    listing = plain_listing(data, images, _runs(files) + notes, lambda _: where)
    return _with_origin(listing, splits)


def _files(data: Location, found: Found | None) -> Files:
    if is_archive(data):
        archive = read_archive(data)
        sizes = sorted((path, packed.bytes) for path, packed in archive.members.items())
        return Files(data, tuple(sizes), (), archive)
    if not data.is_folder():
        raise UserError(f"{data}: no such folder")
    found = list(data.walk()) if found is None else found
    names = {path for path, _ in found}
    runs = sorted(
        folder
        for folder in {path.rpartition("/")[0] for path in names}
        if folder and any(f"{folder}/{name}" in names for name in _OF_A_RUN)
    )
    if runs:
        start = tuple(f"{folder}/" for folder in runs)
        found = [(path, size) for path, size in found if not path.startswith(start)]
    return Files(data, tuple(found), tuple(runs))


def _with_origin(listing: Listing, splits: Splits | None) -> Listing:
    if splits is None:
        return listing
    origin = {"splits": dict(splits)}
    return Listing(listing.root, listing.images, listing.classes, listing.notes, origin)


def _notes_of(files: Files, splits: Splits) -> list[str]:
    """Which folders serve as splits, where their names are other ones, and which do not."""
    notes = _runs(files)
    if any(split != folder for split, folder in splits.items()):
        notes.append("splits: " + ", ".join(f"{s} is {folder}" for s, folder in splits.items()))
    others = sorted(files.shapes().keys() - {folder.split("/")[0] for folder in splits.values()})
    if others:
        notes.append(f"folders that are no split are skipped: {', '.join(others)}")
    return notes


def _runs(files: Files) -> list[str]:
    notes = [f"{folder}: skipped, as it is the folder of a run" for folder in files.runs]
    return notes + list(files.archive.notes if files.archive else ())


def _list_split(files: Files, folder: str, split: str) -> tuple[list[ImageFile], list[str]]:
    """The images of one split (folder "" for a plain set), and notes on what was skipped."""
    root = files.root / folder if folder else files.root
    if folder and (not root.is_folder() if files.archive is None else not files.below(folder)):
        raise UserError(f"{root}: no such folder")
    images, skipped = [], Counter[str]()
    for path, size in files.below(folder):
        if _CONTROL.search(path):
            raise UserError(f"{root}: the name {path!r} has control characters; rename it")
        if kinds.is_hidden(path):
            skipped["hidden, or made by the system"] += 1
        elif "/" not in path:
            # A plain folder may hold truth.csv and the like beside its classes.
            if folder or files.is_image(folder, path):
                skipped["outside class folders"] += 1
        elif not files.is_image(folder, path):
            skipped["not an image"] += 1
        else:
            full, name = f"{folder}/{path}" if folder else path, normalized(path)
            images.append(
                ImageFile(split, name, name.split("/")[0], full, size, files.packed(full))
            )
    check_ids_differ(images, root)
    _check_no_class_is_empty(root, images, files, folder)
    name = folder or files.root.name
    return images, [
        f"{name}: {n} {'file' if n == 1 else 'files'} skipped ({why})"
        for why, n in sorted(skipped.items())
    ]


def _check_no_class_is_empty(
    root: Location, images: Sequence[ImageFile], files: Files, folder: str
) -> None:
    of_runs = set(_tops(files.runs, folder)) - set(_tops((p for p, _ in files.found), folder))
    folders = {normalized(name) for name in files.folders(folder) if not kinds.is_hidden(name)}
    empty = sorted(folders - {image.label for image in images} - of_runs)
    if empty:
        raise UserError(
            f"{root}: no image in class {', '.join(empty)}; add images or remove the folder"
        )


def _tops(paths: Iterable[str], folder: str) -> list[str]:
    """The first part of each path below the folder."""
    start = f"{folder}/" if folder else ""
    return [path[len(start) :].split("/")[0] for path in paths if path.startswith(start)]
