"""Decisions to and from tools that know images by their files: FiftyOne, CVAT.

    fiftyone    labels.json of a FiftyOneImageClassificationDataset: class names, and a class number
                for the path of each image without its ending
    imagenet    CVAT's and Datumaro's ImageNet zip without pictures: synsets.txt with the classes,
                train.txt with a path and a class number per line. One with pictures, in a folder
                per class, is read, too

What goes out is the suggested label of each suspect, to be mended there. What comes back is taken
as the right labels: the given one keeps an image, another relabels it. A path may be that of the
data, end with it, or be its end, as long as only one image is meant.

Sources: the tools' documentation of these formats. FiftyOne's importer and Datumaro 1.13, which
CVAT uses, read what is written here, and what they write is read.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dcai_ray.errors import UserError
from dcai_ray.review.decisions import Decision
from dcai_ray.review.formats import Labels, Task, from_labels

Key = tuple[str, str]  # split, id
_SYNSETS = "synsets.txt"


class Files:
    """Which image a path of another tool means."""

    def __init__(self, paths: Mapping[str, Key], labels: Labels) -> None:
        """Of the images of a run, by their paths below the data's root, with their labels."""
        self._labels = labels
        self._whole: dict[str, set[Key]] = {}
        self._ends: dict[str, set[Key]] = {}
        for path, key in paths.items():
            for name in {path, _stem(path)}:
                self._whole.setdefault(name, set()).add(key)
                for end in _ends(name):
                    self._ends.setdefault(end, set()).add(key)

    def image(self, name: str) -> Key:
        """The image of a path, with its ending or without.

        Raises:
            UserError: it means none or several.
        """
        meant = self._ends.get(name) or next(
            (self._whole[end] for end in _ends(name) if end in self._whole), set()
        )
        if not meant:
            raise UserError(f"{name!r} is no image of the run")
        if len(meant) > 1:
            raise UserError(
                f"{name!r} may be {len(meant)} images of the run; export with folders and endings"
            )
        return next(iter(meant))

    def decisions(self, found: Iterable[tuple[str, str]], by: str, at: str) -> list[Decision]:
        """What a path and its right label come to, image by image.

        Raises:
            UserError: a path means no image, or several.
        """
        rows = []
        for path, label in found:
            split, name = self.image(path)
            rows.append({"split": split, "id": name, "label": label, "by": by})
        return from_labels(rows, at, self._labels)


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def _ends(path: str) -> Iterator[str]:
    """The path and all that is behind one of its slashes."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def fiftyone(tasks: Sequence[Task], classes: Sequence[str]) -> bytes:
    """labels.json with the suggested labels and how likely they are."""
    labels: dict[str, Any] = {}
    for task, label in zip(tasks, _suggested(tasks, classes), strict=True):
        attributes: dict[str, Any] = {"given_label": task.given_label}
        entry: dict[str, Any] = {"label": label, "attributes": attributes}
        if task.suggested_probability is not None:
            entry["confidence"] = round(task.suggested_probability, 6)
        if task.wrong_probability is not None:
            attributes["wrong_probability"] = round(task.wrong_probability, 6)
        labels[_stem(task.path)] = entry
    return json.dumps({"classes": list(classes), "labels": labels}, ensure_ascii=False).encode()


def imagenet(tasks: Sequence[Task], classes: Sequence[str]) -> bytes:
    """A zip of annotations alone, with the suggested labels.

    Raises:
        UserError: a name cannot be written in this format.
    """
    numbers = _suggested(tasks, classes)
    lines = [f"{_quoted(task.path)} {c}\n" for task, c in zip(tasks, numbers, strict=True)]
    for name in classes:
        if name != name.strip() or "\n" in name:
            raise UserError(f"the class {name!r} cannot be written as a line of {_SYNSETS}")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (
            (_SYNSETS, "".join(f"{name}\n" for name in classes)),
            ("train.txt", "".join(lines)),
        ):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return content.getvalue()


def _suggested(tasks: Sequence[Task], classes: Sequence[str]) -> list[int]:
    """The class number of each suggested label, or of the given one where none is suggested."""
    number = {name: i for i, name in enumerate(classes)}
    return [number[task.suggested_label or task.given_label] for task in tasks]


def _quoted(path: str) -> str:
    """A path as the format has it: if it has a space, without its ending in quotes."""
    if set(path) & set('"\n\r'):
        raise UserError(f"{path!r} cannot be written in this format; rename the file")
    if not set(path) & set(" \t"):
        return path
    stem = _stem(path)
    return f'"{stem}"{path[len(stem) :]}'


def from_fiftyone(content: Mapping[str, Any], at: str, files: Files) -> list[Decision]:
    """The decisions of a labels.json.

    Args:
        content: of the file.
        at: time of the file.
        files: of the run's images.
    Raises:
        UserError: it is something else, or names an image or class that the run lacks.
    """
    classes, labels = content.get("classes"), content.get("labels")
    if not isinstance(labels, dict):
        raise UserError('expected "labels", an object of paths, as FiftyOne exports it')

    def name_of(entry: Any) -> str:
        entry = entry.get("label") if isinstance(entry, dict) else entry
        if isinstance(entry, int) and isinstance(classes, list) and 0 <= entry < len(classes):
            return str(classes[entry])
        if isinstance(entry, str):
            return entry
        raise UserError(f"{entry!r} is no class of the file")

    found = ((path, name_of(entry)) for path, entry in labels.items() if entry is not None)
    return files.decisions(found, "fiftyone", at)


def from_imagenet(content: bytes, at: str, files: Files) -> list[Decision]:
    """The decisions of an ImageNet zip, with pictures or without.

    Args:
        content: of the file.
        at: time of the file.
        files: of the run's images.
    Raises:
        UserError: it is something else, or names an image or class that the run lacks.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if _SYNSETS in names:
                found = list(_listed(archive, [n for n in names if n.endswith(".txt")]))
            else:
                found = [_in_folder(name) for name in names]
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"no zip of ImageNet annotations ({error})") from None
    return files.decisions(found, "cvat", at)


def _listed(archive: zipfile.ZipFile, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    classes = archive.read(_SYNSETS).decode().splitlines()
    for name in names:
        if name == _SYNSETS:
            continue
        for place, line in enumerate(archive.read(name).decode().splitlines()):
            if not line.strip():
                continue
            path, _, number = line.rstrip().rpartition(" ")
            if not number.isdigit() or int(number) >= len(classes):
                raise UserError(f"{name}: line {place + 1} does not end with a class number")
            yield path.strip().replace('"', ""), classes[int(number)].strip()


def _in_folder(name: str) -> tuple[str, str]:
    """The image and the class of a picture: class/class_image.jpg or class/image.jpg."""
    label, _, rest = name.partition("/")
    if not rest:
        raise UserError(f"{name}: lies in no folder of a class")
    return rest.removeprefix(f"{label}_"), label
