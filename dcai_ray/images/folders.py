"""An image folder, class by class: what is in it, in a stable order, and how a file becomes pixels.

    <data>/{train,shapley_val,val}/<class>/<image>       the three splits of a run
    <data>/<class>/<image>                               a plain folder: all of it is `train`

Folders below a class belong to it. Order is by class, then by id (the path below the split), so it
does not depend on the file system. Every file that Pillow reads is decoded to 8-bit RGB: EXIF
orientation applied, transparency laid on white, 16 bits scaled down, an animation's first frame.
"""

import hashlib
import io
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dcai_ray.storage.location import Location
from dcai_ray.storage.read_ahead import read_ahead

R = TypeVar("R")

SPLITS = ("train", "shapley_val", "val")

# Formats Pillow opens only with an outside program, or that are no pictures.
_NOT_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# What Pillow's readers raise over bytes that make no sense.
_DAMAGE = (
    OSError,
    SyntaxError,
    EOFError,
    LookupError,
    AttributeError,
    RuntimeError,
    struct.error,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a new line, an escape sequence of terminals
_MAX_PIXELS = 178_956_970  # where Pillow refuses: a decompression bomb


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image of the data."""

    split: str
    id: str
    """Path below the split's folder, POSIX."""
    label: str
    path: str
    """Path below the data's root."""
    bytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What a data folder holds, before any file is opened."""

    images: tuple[ImageFile, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    """What a person should know: files passed over, a split made by halving."""

    def split(self, name: str) -> tuple[ImageFile, ...]:
        """The images of one split, in order."""
        return tuple(image for image in self.images if image.split == name)


@dataclass(frozen=True, slots=True)
class Inspected:
    """What opening a file showed: its size and content, or why it cannot be read."""

    width: int
    height: int
    sha256: str
    reason: str = ""
    """Why it is unreadable; empty if it is not."""


def list_splits(data: Location, *, split_seed: int = 0) -> Listing:
    """The images of `<data>/{train,shapley_val,val}/<class>/<image>`.

    Without a shapley_val, a seeded stratified half of val serves as one.

    Raises:
        ValueError: no such folder, a split is missing, or classes are missing or do not fit.
    """
    _check_folder(data)
    folders = data.folders()
    for split in ("train", "val"):
        if split not in folders:
            raise ValueError(
                f"{data}: no folder {split}; expected train, val and (optionally) shapley_val with "
                "a folder a class in each. For a plain folder of class folders: dcai-ray audit"
            )
    notes: list[str] = []
    listed = {split: _classes_of(data, split, notes) for split in SPLITS if split in folders}
    classes = _check_classes(data, listed)
    images = [image for files in listed.values() for image in files]
    if "shapley_val" not in listed:
        images = halve_val(images, split_seed)
        halves = Counter(image.split for image in images)
        if not halves["val"]:
            raise ValueError(f"{data / 'val'}: too few images to halve; two of a class are needed")
        notes.append(
            f"no shapley_val: a seeded half of val serves ({halves['shapley_val']} images), "
            f"the other half stays val ({halves['val']})"
        )
    return Listing(tuple(sorted(images, key=_order)), classes, tuple(notes))


def list_folder(data: Location) -> Listing:
    """The images of a plain folder of class folders, all as `train`; of `<data>/train` if there.

    Raises:
        ValueError: no such folder, or fewer than two classes, or an empty one.
    """
    _check_folder(data)
    notes: list[str] = []
    files = _classes_of(data, "train" if "train" in data.folders() else "", notes)
    classes = _check_classes(data, {"train": files})
    return Listing(tuple(sorted(files, key=_order)), classes, tuple(notes))


def halve_val(images: Iterable[ImageFile], seed: int) -> list[ImageFile]:
    """Give a stratified half of val (the larger half of an odd class) to shapley_val."""
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


def inspect(content: bytes) -> Inspected:
    """Decode a file to see whether it can be; its size in pixels and the hash of its bytes."""
    digest = hashlib.sha256(content).hexdigest()
    try:
        image = decode(content)
    except ValueError as error:
        return Inspected(0, 0, digest, str(error))
    return Inspected(image.width, image.height, digest)


def decode(content: bytes) -> Image.Image:
    """An 8-bit RGB picture from the bytes of an image file.

    Raises:
        ValueError: the file is empty, of no known format, damaged, or too large to be a picture.
    """
    if not content:
        raise ValueError("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels: too large to decode")
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError:
        raise ValueError(f"more than {_MAX_PIXELS:,} pixels: too large to decode") from None
    except UnidentifiedImageError:
        raise ValueError("not an image that Pillow can identify") from None
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise ValueError(f"damaged: {reason}") from None


def read(file: Location) -> Image.Image:
    """The decoded picture of a file.

    Raises:
        ValueError: it cannot be decoded; the message names the file.
        OSError: it cannot be read.
    """
    return _decode_file(file, file.read_bytes())


def read_each(
    files: Sequence[Location],
    use: Callable[[int, Image.Image], R],
    *,
    readers: int,
    threads: int,
) -> Iterator[R]:
    """use(i, picture) for the i-th file, in order.

    Args:
        files: image files.
        use: of a number and a picture.
        readers: threads that read ahead.
        threads: threads that decode and use ahead.
    Raises:
        ValueError, OSError: as `read`.
    """
    contents = read_ahead(Location.read_bytes, files, readers)

    def used(entry: tuple[int, bytes]) -> R:
        place, content = entry
        return use(place, _decode_file(files[place], content))

    return read_ahead(used, enumerate(contents), threads)


def _decode_file(file: Location, content: bytes) -> Image.Image:
    try:
        return decode(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def duplicates(files: Sequence[ImageFile], sha256: Sequence[str]) -> tuple[list[str], list[str]]:
    """Groups of files with equal content: those across splits, and those inside train.

    Returns:
        Two lists of lines, a group a line: `train/a.png = val/b.png`.
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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit, 32-bit and float grey
        grey = np.asarray(image, dtype=np.float64)
        if image.mode == "F":
            scale = 255.0 if np.nanmax(grey, initial=0) <= 1 else 1.0
        else:
            scale = 1 / 257 if grey.max(initial=0) > 255 or image.mode != "I" else 1.0
        pixels = np.clip(np.nan_to_num(grey) * scale, 0, 255).round().astype(np.uint8)
        return Image.fromarray(pixels).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def _check_folder(data: Location) -> None:
    if not data.is_folder():
        raise ValueError(f"{data}: no such folder")


def _classes_of(data: Location, split: str, notes: list[str]) -> list[ImageFile]:
    """The images of one split; what is passed over goes to `notes`."""
    root = data / split if split else data
    images, hidden, other = [], 0, Counter[str]()
    for path, size in root.walk():
        if _CONTROL.search(path):
            raise ValueError(f"{root}: the name {path!r} has control characters; rename it")
        parts = path.split("/")
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            hidden += 1
            continue
        is_image = "." + path.rsplit(".", 1)[-1].lower() in _extensions()
        if len(parts) == 1:
            if split or is_image:  # beside the classes of a plain folder lie truth.csv and the like
                other["outside of class folders"] += 1
        elif not is_image:
            other["not images by their ending"] += 1
        else:
            full = f"{split}/{path}" if split else path
            images.append(ImageFile(split or "train", path, parts[0], full, size))
    for count, what in ((hidden, "hidden"), *((n, what) for what, n in sorted(other.items()))):
        if count:
            notes.append(f"{split or data.name}: {count} files passed over ({what})")
    empty = {name for name in root.folders() if not name.startswith((".", "__MACOSX"))}
    empty -= {image.label for image in images}
    if empty:
        raise ValueError(
            f"{root}: no image in class {', '.join(sorted(empty))}; remove the folder or fill it"
        )
    return images


def _check_classes(data: Location, listed: dict[str, list[ImageFile]]) -> tuple[str, ...]:
    classes = sorted({image.label for image in listed["train"]})
    where = data / "train" if len(listed) > 1 else data
    if not classes:
        raise ValueError(f"{where}: no classes; expected a folder a class with images in it")
    if len(classes) == 1:
        raise ValueError(f"{where}: only one class ({classes[0]}); at least two are needed")
    for split, files in listed.items():
        if not files:
            raise ValueError(f"{data / split}: no images; expected a folder a class")
        unknown = sorted({image.label for image in files} - set(classes))
        if unknown:
            raise ValueError(
                f"{data / split}: class {', '.join(unknown)} does not occur in train "
                f"({', '.join(classes[:10])}); rename or remove it"
            )
    return tuple(classes)


def _order(image: ImageFile) -> tuple[int, str, str]:
    return SPLITS.index(image.split), image.label, image.id


@lru_cache(maxsize=1)
def _extensions() -> frozenset[str]:
    known = Image.registered_extensions()
    return frozenset(ending for ending, kind in known.items() if kind in _formats())


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """What is tried on a file, whatever its ending: none that runs another program."""
    Image.init()
    return tuple(kind for kind in Image.OPEN if kind not in _NOT_IMAGES)
