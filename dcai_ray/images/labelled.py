"""Listings of sources that name each image's label and split themselves, rather than by folders.

The pictures of such a source may lie anywhere: in a table, in shards, in folders that say nothing.
A split is what the source calls it (`validation`, `test`): a column, or the name of a file or
folder (`train-00000-of-00004.parquet`).
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dcai_ray.errors import UserError
from dcai_ray.images.listing import SPLITS, ImageFile, Listing, plain_listing, split_listing
from dcai_ray.images.split_folders import Shape, Splits, is_name_of_split, splits_of_run
from dcai_ray.storage.location import Location

# The number of a shard: train-00000-of-00004, val_003, train-000000.
_NUMBER = re.compile(r"[-_.]?\d*(-of-\d+)?$")


def labelled_listing(
    source: Location,
    root: Location,
    images: Sequence[ImageFile],
    *,
    whole: bool,
    split_seed: int = 0,
    splits: Splits | None = None,
    notes: Sequence[str] = (),
    **origin: Any,
) -> Listing:
    """A listing of images whose `split` is what the source says.

    Args:
        source: names the source in messages.
        root: what the paths are relative to.
        images: with the source's own names of splits; "" for none.
        whole: with train, val and perhaps shapley_val; otherwise train alone.
        split_seed: seed of the halving of val.
        splits: what the source calls each split; by default by their names.
        notes: messages of the source.
        **origin: how the images were found, as settings of the run.
    Raises:
        UserError: splits or classes cannot be used.
    """
    names = _meanings(source, {image.split for image in images}, splits, whole=whole)
    listed: dict[str, list[ImageFile]] = defaultdict(list)
    for image in images:
        if image.split in names:
            listed[names[image.split]].append(replace(image, split=names[image.split]))
    notes, skipped = list(notes), len(images) - sum(map(len, listed.values()))
    if skipped:
        notes.append(f"{source.name}: {skipped} rows of other splits skipped")

    def place(split: str) -> str:
        return f"{source} (split {split})" if whole else str(source)

    if whole:
        ordered = {split: listed[split] for split in SPLITS if split in names.values()}
        listing = split_listing(root, ordered, notes, place, split_seed=split_seed)
    else:
        listing = plain_listing(root, listed["train"], notes, place)
    if splits is not None:
        origin["splits"] = dict(splits)
    return replace(listing, origin=origin)


def split_of_file(path: str) -> str:
    """The split that a file's name or one of its folders says; "" if its name is a number only.

    Args:
        path: POSIX, below the data's root.
    """
    *folders, name = path.split("/")
    stem = _NUMBER.sub("", name.rsplit(".", 1)[0])
    for each in (stem, *reversed(folders)):
        if is_name_of_split(each):
            return each
    return stem


def _meanings(
    source: Location, there: set[str], splits: Splits | None, *, whole: bool
) -> dict[str, str]:
    """The split that each name of the source means."""
    if splits:
        return {name: split for split, name in splits.items()}
    if not whole and (splits is not None or there == {""}):
        return dict.fromkeys(there, "train")
    if not whole:
        trains = [name for name in there if name.lower() in ("train", "training", "")]
        if len(there) == 1 and not any(map(is_name_of_split, there)):
            return dict.fromkeys(there, "train")
        if len(trains) != 1:
            raise UserError(
                f"{source}: which split is train, of {', '.join(sorted(there))}? Say it as "
                "--splits train=NAME, or --splits none to value all rows"
            )
        return {trains[0]: "train"}
    if "" in there:
        raise UserError(
            f"{source}: rows without a split; a run needs the splits train and val in the column "
            "split. To value all rows against each other, use dcai-ray audit"
        )
    named = splits_of_run(source, {name: Shape(False, frozenset()) for name in there})
    return {name: split for split, name in named.items()}
