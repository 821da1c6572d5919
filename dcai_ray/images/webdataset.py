"""List WebDataset shards: tar files in which a picture and its label share a name.

    train-000000.tar:  0001.jpg  0001.cls     a class as text or number
                       0002.jpg  0002.json    or an object with `label`

`--data` is one tar file or a folder of them; the names of files (or folders) tell the splits. The
key is the name up to the first dot of its last part.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from dcai_ray.errors import UserError
from dcai_ray.images.archives import Archive, is_archive, read_archive
from dcai_ray.images.kinds import has_ending_of_image, is_hidden
from dcai_ray.images.labelled import labelled_listing, split_of_file
from dcai_ray.images.listing import Found, ImageFile, Listing, normalized
from dcai_ray.images.split_folders import Splits
from dcai_ray.storage.location import Location


def shards_of(data: Location, found: Found | None) -> list[str]:
    """The paths of the shards of a WebDataset, "" for a single file; empty if it is none.

    Args:
        data: a folder or a file.
        found: what lies in the folder; None for a file.
    """
    if is_archive(data):
        is_shard = data.name.lower().endswith(".tar") and _has_labels(read_archive(data))
        return [""] if is_shard else []
    if found is None:
        return []
    names = [path for path, _ in found if not is_hidden(path)]
    shards = [path for path in names if path.lower().endswith(".tar")]
    if not shards or any(has_ending_of_image(path) for path in names):
        return []
    return shards if _has_labels(read_archive(data / shards[0])) else []


def list_shards(
    data: Location,
    shards: Sequence[str],
    *,
    whole: bool,
    split_seed: int = 0,
    splits: Splits | None = None,
) -> Listing:
    """The images of a WebDataset.

    Args:
        data: a tar file, or a folder of them.
        shards: paths below the folder, "" for the file itself.
        whole: with train, val and perhaps shapley_val; otherwise train alone.
        split_seed: seed of the halving of val.
        splits: the names of the splits; by default as the names of shards tell.
    Raises:
        UserError: a shard is damaged, or a picture has no label or shares its key with another.
    """
    images: list[ImageFile] = []
    notes: list[str] = []
    for shard in shards:
        archive = read_archive(data / shard if shard else data)
        images += _pictures(archive, shard)
        notes += archive.notes
    return labelled_listing(
        data, data, images, whole=whole, split_seed=split_seed, splits=splits, notes=notes
    )


def _pictures(archive: Archive, shard: str) -> list[ImageFile]:
    found = []
    for key, members in _samples(archive).items():
        pictures = [name for name in members if has_ending_of_image(name)]
        if len(pictures) > 1:
            raise UserError(
                f"{archive.file}: {' and '.join(pictures)} share a key; one picture per key"
            )
        if not pictures:
            continue
        name = pictures[0]
        label = _label(archive, key, members)
        path = f"{shard}/{name}" if shard else name
        packed = archive.packed_in(shard, name)
        split = split_of_file(shard) if shard else ""
        found.append(ImageFile(split, normalized(path), label, path, packed.bytes, packed))
    return found


def _label(archive: Archive, key: str, members: Sequence[str]) -> str:
    where = f"{archive.file}/{key}"
    if f"{key}.cls" in members:
        label = archive.texts.get(f"{key}.cls", b"").decode(errors="replace").strip()
    elif f"{key}.json" in members:
        label = _label_of_json(where, archive.texts.get(f"{key}.json", b""))
    else:
        raise UserError(f"{where}: no label; expected {key}.cls, or {key}.json with a label")
    if not label:
        raise UserError(f"{where}: its label is empty")
    return normalized(label)


def _label_of_json(where: str, text: bytes) -> str:
    try:
        entry = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where}.json: not JSON ({error})") from None
    label = entry.get("label") if isinstance(entry, dict) else None
    if not isinstance(label, str | int) or isinstance(label, bool):
        raise UserError(f"{where}.json: needs a label, a text or an integer")
    return str(label)


def _has_labels(archive: Archive) -> bool:
    """Whether pictures have their labels beside them; a tree of class folders may hold .json."""
    samples: Mapping[str, list[str]] = _samples(archive)
    with_picture = {key: m for key, m in samples.items() if any(map(has_ending_of_image, m))}
    if any(f"{key}.cls" in members for key, members in with_picture.items()):
        return True
    one_folder = len({key.rpartition("/")[0] for key in with_picture}) == 1
    return one_folder and any(f"{key}.json" in m for key, m in with_picture.items())


def _samples(archive: Archive) -> dict[str, list[str]]:
    """The members by key, in their order."""
    samples: dict[str, list[str]] = defaultdict(list)
    for name in archive.members:
        if not is_hidden(name):
            folder, slash, last = name.rpartition("/")
            samples[folder + slash + last.split(".")[0]].append(name)
    return dict(samples)
