"""Archives as data: a tar or zip, or a folder of nothing but these.

    set.zip: train/cat/1.png, ...             folders, as in `folders`; one around all is taken off
    train.tar, val.tar: cat/1.png, ...        each archive is a folder of its name
    train-000000.tar, ...: 17.jpg + 17.cls    shards of WebDataset: the label is a file beside the
                                              image, or the entry `label` of one in JSON

Nothing is unpacked: an image is read from its place in the archive.
"""

import json
import re
from collections.abc import Mapping, Sequence

from dcai_ray.errors import UserError
from dcai_ray.images import kinds
from dcai_ray.images.folders import Files
from dcai_ray.images.lists import Row
from dcai_ray.images.picture_files import PictureFile
from dcai_ray.storage.location import Location
from dcai_ray.storage.packed import Packed, Part, parts_of

_KINDS = {".tar": "tar", ".zip": "zip"}
_COMPRESSED = re.compile(r"\.(tgz|tbz2?|txz|(tar|t)\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_LABELS = (".cls", ".json")
_SHARD = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$")


def archives_of(data: Location, paths: Sequence[str]) -> Mapping[str, str]:
    """Kinds of the archives that are the data, by path below it; empty if it is something else.

    Args:
        data: a file or a folder.
        paths: of the files below it; of a file, "".
    Raises:
        UserError: it is a compressed tar.
    """
    found = {path: path or data.name for path in paths if not kinds.is_hidden(path)}
    if not found or any("/" in path for path in found):
        return {}
    compressed = [name for name in found.values() if _COMPRESSED.search(name)]
    if compressed:
        raise UserError(
            f"{data}: {compressed[0]} is compressed, so that no image in it can be read by itself; "
            "unpack it, or pack it anew as a plain .tar"
        )
    endings = {path: _KINDS.get(kinds.ending_of(name), "") for path, name in found.items()}
    return endings if all(endings.values()) else {}


def contents(data: Location, archives: Mapping[str, str]) -> dict[str, list[Part]]:
    """The files in each archive.

    Raises:
        UserError: as `packed.parts_of`.
    """
    return {file: parts_of(data / file if file else data, kind) for file, kind in archives.items()}


def as_folders(
    data: Location, archives: Mapping[str, str], parts: Mapping[str, Sequence[Part]]
) -> Files:
    """The files as if the archives were unpacked, each into a folder of its name."""
    packed: dict[str, Packed] = {}
    sizes: dict[str, int] = {}
    for file, there in parts.items():
        folder = f"{file.rpartition('.')[0]}/" if file else ""
        around = "" if file else _around([part.name for part in there])
        for part in there:
            name = folder + part.name.removeprefix(around)
            packed[name] = Packed(file, part.start, part.length, archives[file])
            sizes[name] = part.size
    return Files(data, tuple(sizes.items()), (), packed)


def _around(names: Sequence[str]) -> str:
    """The folder around all other folders, as packing a folder makes it; "" if there is none."""
    shown = [name for name in names if not kinds.is_hidden(name)]
    tops = {name.partition("/")[0] for name in shown}
    is_around = len(tops) == 1 and all(name.count("/") >= 2 for name in shown)
    return f"{tops.pop()}/" if is_around else ""


def samples(
    data: Location, archives: Mapping[str, str], parts: Mapping[str, Sequence[Part]]
) -> list[Row]:
    """The images of WebDataset's shards; none if these are no such shards.

    Raises:
        UserError: an image has no label, or one that cannot be read.
    """
    if not any(part.name.endswith(".cls") for there in parts.values() for part in there) and not (
        _have_json_beside(parts)
    ):
        return []
    rows = []
    for file, there in parts.items():
        split = _SHARD.sub("", (file or data.name).rpartition(".")[0])
        beside = {part.name: part for part in there if part.name.endswith(_LABELS)}
        for part in there:
            if part.name in beside or kinds.is_hidden(part.name):
                continue
            packed = Packed(file, part.start, part.length, archives[file])
            path = f"{file}/{part.name}" if file else part.name
            if kinds.is_image(PictureFile(data, path, packed)):
                label = _label(data, file, archives[file], _key(part.name), beside)
                rows.append(Row(path, label, split, bytes=part.size, packed=packed))
    return rows


def _have_json_beside(parts: Mapping[str, Sequence[Part]]) -> bool:
    """Whether the first image has a file in JSON beside it."""
    for there in parts.values():
        names = {part.name for part in there}
        images = (n for n in names if not n.endswith(_LABELS) and not kinds.is_hidden(n))
        return any(f"{_key(name)}.json" in names for name in images)
    return False


def _key(name: str) -> str:
    """What the files of one sample share: the name up to its first dot."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _label(data: Location, file: str, kind: str, key: str, beside: Mapping[str, Part]) -> str:
    where = f"{data / file if file else data}: {key}"
    for ending in _LABELS:
        part = beside.get(key + ending)
        if part is None:
            continue
        content = Packed(file, part.start, part.length, kind).read(data)
        try:
            text = content.decode()
            found = json.loads(text).get("label") if ending == ".json" else text.strip()
        except (UnicodeDecodeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}{ending}: no label can be read ({error})") from None
        if found not in (None, ""):
            return str(found)
    raise UserError(f"{where}: no label; expected {key}.cls, or the entry label in {key}.json")
