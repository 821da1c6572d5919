"""Which folders of a data set are splits: by their names and by what lies in them.

A folder is a split only if it holds class folders; a folder `train` with pictures in it is the
class of trains. Where both readings fit, neither is chosen: `--splits` says which is meant, as
`train=Training val=Test`, or `none` for class folders whatever their names.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dcai_ray.errors import UserError
from dcai_ray.images.listing import SPLITS
from dcai_ray.storage.location import Location

Splits = Mapping[str, str]
"""Folder of each split; an empty one says that there are no splits."""

_NAMES = {
    "train": ("train", "training", "trn"),
    "shapley_val": ("shapley_val",),
    "val": ("val", "valid", "validation", "test", "testing", "tst", "dev", "eval", "evaluation"),
}


def parse_splits(given: Sequence[str]) -> Splits | None:
    """The folders that `--splits` names; None if the flag was not given.

    Raises:
        UserError: an entry is not `split=folder`, or names a split twice.
    """
    if not given:
        return None
    if list(given) == ["none"]:
        return {}
    splits: dict[str, str] = {}
    for entry in given:
        split, sign, folder = entry.partition("=")
        if split not in SPLITS or not sign or not folder.strip("/"):
            raise UserError(
                f"--splits {entry}: expected train=FOLDER, val=FOLDER or shapley_val=FOLDER, or "
                "none for class folders without splits"
            )
        if split in splits:
            raise UserError(f"--splits: {split} is given twice")
        splits[split] = folder.strip("/")
    if "train" not in splits:
        raise UserError("--splits: train=FOLDER is missing")
    if len(set(splits.values())) < len(splits):
        raise UserError("--splits: each split needs a folder of its own")
    return splits


@dataclass(frozen=True, slots=True)
class Shape:
    """What lies in a folder at the top of the data."""

    pictures: bool
    """Whether files lie directly in it."""
    folders: frozenset[str]
    """Names of its subfolders that hold files."""


def shapes(paths: Iterable[str]) -> dict[str, Shape]:
    """The shape of each folder at the top, from the paths of the pictures below the root."""
    direct: set[str] = set()
    below: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        top, *rest = path.split("/")
        if len(rest) == 1:
            direct.add(top)
        elif rest:
            below[top].add(rest[0])
    tops = sorted(direct | below.keys())
    return {top: Shape(top in direct, frozenset(below[top])) for top in tops}


def splits_of_run(data: Location, tops: Mapping[str, Shape]) -> Splits:
    """The folders of train, val and perhaps shapley_val, for a run with splits.

    Raises:
        UserError: there is no folder for train or val, or there are several.
    """
    if "train" in tops and "val" in tops:
        return {split: split for split in SPLITS if split in tops}
    found = _by_name(tops)
    if len(found["train"]) == len(found["val"]) == 1:
        return {split: names[0] for split, names in found.items() if names}
    for split in ("train", "val"):
        if len(found[split]) > 1:
            raise UserError(
                f"{data}: {' and '.join(found[split])} might both be {split}; say which, as "
                f"--splits {_example(found)}"
            )
    missing = "val" if found["train"] else "train"
    raise UserError(
        f"{data}: no folder {missing}; expected train, val and (optionally) shapley_val, each with "
        "one folder per class. Folders of other names: --splits train=FOLDER val=FOLDER. For a "
        "plain folder of class folders, use dcai-ray audit"
    )


def train_of_audit(data: Location, tops: Mapping[str, Shape]) -> str:
    """The folder whose class folders an audit values; "" if they lie at the top.

    Raises:
        UserError: the folders may be splits or classes.
    """
    found = _by_name(tops)
    trains, tests = found["train"], found["shapley_val"] + found["val"]
    if not any(tops[name].folders for name in trains):
        return ""
    train = trains[0]
    classes = tops[train].folders
    others = [name for name in tops if name not in (*trains, *tests)]
    shared = any(tops[name].folders & classes for name in tests)
    if len(trains) == 1 and (shared or not (others or tests)):
        return train
    named = ", ".join(tops)
    raise UserError(
        f"{data}: the folders {named} may be splits, with {len(classes)} classes in {train}, or "
        f"{len(tops)} classes; say which: --splits {_example(found)}, or --splits none"
    )


def is_name_of_split(name: str) -> bool:
    """Whether a file or folder of this name is usually a split."""
    return any(name.lower() in names for names in _NAMES.values())


def _by_name(tops: Mapping[str, Shape]) -> dict[str, list[str]]:
    return {split: [top for top in tops if top.lower() in names] for split, names in _NAMES.items()}


def _example(found: Mapping[str, Sequence[str]]) -> str:
    return " ".join(f"{split}={names[0]}" for split, names in found.items() if names)
