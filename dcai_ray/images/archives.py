"""List the members of a tar or zip file, each with its byte range.

An archive is listed by its headers (tar) or its directory (zip); no picture is read. Names that
lead out of it, names that occur twice, encryption and damage are refused; links and sparse members,
which have no byte range, are skipped with a note.
"""

import io
import posixpath
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

from dcai_ray.errors import UserError
from dcai_ray.images.kinds import is_hidden
from dcai_ray.images.picture_files import Packed, PictureFile
from dcai_ray.storage.location import Location

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_BUFFER = 2**18  # bytes per request of a remote tar: headers of small members come along
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_LABELS = (".cls", ".json")
_MAX_LABEL = 2**16  # bytes


@dataclass(frozen=True, slots=True)
class Archive:
    """What lies in an archive, in its order."""

    file: Location
    members: dict[str, Packed]
    """By name, below the wrapping folder if there is one."""
    notes: tuple[str, ...]
    """What was skipped, and whether a wrapping folder was left out."""

    texts: dict[str, bytes]
    """Contents of the labels of WebDataset (.cls, .json), which are read with the headers."""

    def packed_in(self, folder_path: str, name: str) -> Packed:
        """A member, with the archive's path below the data's root."""
        return replace(self.members[name], file=folder_path)

    def read(self, name: str) -> bytes:
        """The content of a member."""
        return PictureFile(self.file, name, self.members[name]).read_bytes()


def is_archive(data: Location) -> bool:
    """Whether this is a tar or zip file.

    Raises:
        UserError: it is a compressed tar, of which no part can be read by itself.
    """
    name = data.name.lower()
    if not name.endswith((".tar", ".zip", *_COMPRESSED)) or not data.exists() or data.is_folder():
        return False
    if name.endswith(_COMPRESSED):
        raise UserError(
            f"{data}: a compressed tar, from which no picture can be read by itself; unpack it, or "
            "make a .tar of it (pictures are compressed already)"
        )
    return True


def read_archive(file: Location) -> Archive:
    """The members of an archive.

    Raises:
        UserError: it is damaged or encrypted, or a name leads out of it or occurs twice.
        OSError: it cannot be read.
    """
    return _read(file, file.changed_at([""])[0])


@lru_cache(maxsize=4)
def _read(file: Location, changed_at: float) -> Archive:
    """The archive as it was at that time; a change is noticed."""
    skipped: Counter[str] = Counter()
    read = _zip_members if file.name.lower().endswith(".zip") else _tar_members
    members: dict[str, Packed] = {}
    texts: dict[str, bytes] = {}
    try:
        with file.open_file() as stream:
            for given, packed, text in read(file, cast(io.RawIOBase, stream), skipped):
                name = _inside(file, given)
                if name in members:
                    raise UserError(f"{file}: {name} occurs twice in it; pack it again")
                members[name] = packed
                if text is not None:
                    texts[name] = text
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{file}: damaged ({error}); copy or pack it again") from None
    notes = [f"{file.name}: {n} members skipped ({why})" for why, n in sorted(skipped.items())]
    wrapper = _wrapper(members)
    if wrapper:
        notes.append(f"{file.name}: its content is that of its only folder, {wrapper}")
        start = len(wrapper) + 1
        members = {name[start:]: at for name, at in members.items() if name[start:]}
        texts = {name[start:]: text for name, text in texts.items()}
    return Archive(file, members, tuple(notes), texts)


def _tar_members(
    file: Location, stream: io.RawIOBase, skipped: Counter[str]
) -> Iterator[tuple[str, Packed, bytes | None]]:
    buffered: Any = io.BufferedReader(stream, _BUFFER) if file.remote else stream
    with tarfile.open(fileobj=buffered, mode="r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would keep millions
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                skipped["links, devices or sparse"] += 1
                continue
            at = Packed("", member.offset_data, member.size, "stored", member.size)
            text = None
            if member.name.endswith(_LABELS) and member.size <= _MAX_LABEL:
                buffered.seek(member.offset_data)
                text = buffered.read(member.size)
            yield member.name, at, text
        # tarfile takes a damaged header for the end.
        buffered.seek(archive.offset)
        end = buffered.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
        raise tarfile.ReadError(f"no readable header at byte {archive.offset}")


def _zip_members(
    file: Location, stream: io.RawIOBase, skipped: Counter[str]
) -> Iterator[tuple[str, Packed, bytes | None]]:
    with zipfile.ZipFile(cast(Any, stream)) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        starts = [member.header_offset for member in members]
        ends = [*starts[1:], archive.start_dir]
        for member, start, end in zip(members, starts, ends, strict=True):
            if member.is_dir():
                continue
            if member.flag_bits & _ENCRYPTED:
                raise UserError(f"{file}: encrypted; pack it without a password")
            if member.compress_type not in _METHODS:
                raise UserError(
                    f"{file}: {member.filename} is packed by another method than deflate; pack it "
                    "again with deflate, or uncompressed"
                )
            if (member.external_attr >> 16) & 0o170000 == 0o120000:
                skipped["links, devices or sparse"] += 1
                continue
            # Up to the next member: the length of the local header is known only there.
            yield member.filename, Packed("", start, end - start, "zip", member.file_size), None


def _inside(file: Location, given: str) -> str:
    name = posixpath.normpath(given.replace("\\", "/"))
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise UserError(f"{file}: the name {given!r} leads out of it; pack it again")
    return name


def _wrapper(members: dict[str, Packed]) -> str:
    """The only folder at the top, if it holds several folders; "" for none."""
    names = [name for name in members if not is_hidden(name)]
    tops = {name.split("/")[0] for name in names}
    below = {name.split("/")[1] for name in names if name.count("/") >= 2}
    return tops.pop() if len(tops) == 1 and len(below) > 1 else ""
