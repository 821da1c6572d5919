"""Change class folders in place: what is left out goes to another folder, the rest to its class.

That folder holds the undo list, too: undo.csv, which is like an export's changes.csv, says of every
picture where it was, and is on disk before the first one moves. `undo` puts back whatever has
moved, also after a change or an undo that was killed half way.
"""

import csv
import os
from pathlib import Path

from dcai_ray.errors import UserError
from dcai_ray.images.export_layout import CHANGES, Layout
from dcai_ray.storage.durable import append
from dcai_ray.storage.location import Location

UNDO = "undo.csv"

Move = tuple[Path, Path]  # from, to


def change(data: Location, layout: Layout, left_out: Path) -> None:
    """Move every picture that has changed.

    Args:
        data: the root of the class folders.
        layout: the layout of their export.
        left_out: an empty or new folder on the same disk.
    Raises:
        UserError: the labels are not told by folders, nothing has changed, or a picture is not what
            the run has read or cannot be moved; then none has moved.
    """
    if layout.as_imagefolder:
        raise UserError(f"--how in-place: {data} is not made of class folders; export a copy")
    if not layout.changes:
        raise UserError(f"{data}: nothing to change; no image is dropped or has another label")
    sizes = {image.path: image.bytes for image, _ in layout.changes}
    moves = [_move(data, left_out, path, layout.moved.get(path, "")) for path in sizes]
    for (source, to), size in zip(moves, sizes.values(), strict=True):
        _check(source, to, size)
    parent = next(folder for folder in (left_out, *left_out.absolute().parents) if folder.exists())
    if os.stat(parent).st_dev != os.stat(data.uri).st_dev:
        raise UserError(f"{left_out}: not on the disk of {data}; files are moved, not copied")
    append(str(left_out / UNDO), layout.texts()[CHANGES])
    done: list[Move] = []
    try:
        for source, to in moves:
            to.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, to)
            done.append((source, to))
    except BaseException:
        _put_back(done, left_out)  # before the list goes
        _delete_list(left_out)
        raise


def undo(data: Location, left_out: Path) -> int:
    """Put back all that `change` moved; how many pictures that were.

    Raises:
        UserError: there is no undo list, or it leads elsewhere; then nothing moves. Or a picture is
            neither where it was nor where it went, or in both places; all others are back.
    """
    try:
        with open(left_out / UNDO, encoding="utf-8", newline="") as file:
            rows = [(row["path"], row["new_path"]) for row in csv.DictReader(file)]
    except (FileNotFoundError, NotADirectoryError, KeyError):
        raise UserError(
            f"{left_out}: holds no {UNDO} of an export in place; nothing to undo"
        ) from None
    moves = [_move(data, left_out, path, new_path) for path, new_path in rows]
    moved = [move for move in moves if os.path.lexists(move[1])]
    blocked = [source for source, _ in moved if os.path.lexists(source)]
    _put_back([move for move in moved if move[0] not in blocked], left_out)
    missing = [source for source, _ in moves if not os.path.lexists(source)]
    if blocked or missing:
        what = f"{blocked[0]}: another file is there" if blocked else f"{missing[0]}: is gone"
        raise UserError(f"{what}; {left_out / UNDO} is kept, all other images are back")
    _delete_list(left_out)
    return len(moved)


def _move(data: Location, left_out: Path, path: str, new_path: str) -> Move:
    to = data / new_path if new_path else Location(str(left_out)) / path
    return Path((data / path).uri), Path(to.uri)


def _check(source: Path, to: Path, size: int) -> None:
    """Refuse what cannot be moved, or is not what the run has read."""
    try:
        there = os.stat(source).st_size
    except FileNotFoundError:
        raise UserError(f"{source}: is gone; nothing was changed") from None
    if there != size:
        raise UserError(
            f"{source}: has {there} bytes, {size} when the run read it; nothing was changed"
        )
    if source.is_symlink() and not os.path.isabs(os.readlink(source)):
        raise UserError(f"{source}: a relative link would lead nowhere elsewhere; export a copy")
    if os.path.lexists(to):
        raise UserError(f"{to}: is there already; nothing was changed")


def _put_back(moves: list[Move], left_out: Path) -> None:
    for source, to in reversed(moves):
        source.parent.mkdir(parents=True, exist_ok=True)
        os.rename(to, source)
    for folder, _, _ in os.walk(left_out, topdown=False):
        if not os.listdir(folder):
            os.rmdir(folder)


def _delete_list(left_out: Path) -> None:
    (left_out / UNDO).unlink()
    if not os.listdir(left_out):
        left_out.rmdir()
