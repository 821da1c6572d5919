"""Files by local path or URI: the layer below everything that is read or written.

A `Location` is a string with methods. It pickles as that string, so it can be sent to workers; the
`pyarrow.fs` filesystem behind it is created where it is used. A write is all or nothing: the bytes
are ready before the file is opened; a local file is written under a temporary name and renamed, and
an object appears when its upload is complete. A name cannot lead out of the folder it is joined to.
"""

import os
import posixpath
import re
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from pyarrow import NativeFile, fs

from dcai_ray.errors import UserError
from dcai_ray.storage.object_store import check_no_secret, explained, open_store

# The store, the path in it and its options; names may contain "?", options are `?name=value...`.
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+://[^/?]*)/*(.*?)(\?[a-z_]+=[^?]*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Location:
    """A file or folder, local (`data/pets`, `file:///data/pets`) or remote (`s3://bucket/pets`).

    A remote URI may carry the store's options behind a `?`, as pyarrow reads them
    (`?endpoint_override=host:port&scheme=http`); they stay with every location made from it.

    Raises:
        UserError: the URI carries credentials, or is not valid as the name of a file.
    """

    uri: str

    def __post_init__(self) -> None:
        if "\0" in self.uri or not _is_utf8(self.uri):
            raise UserError(f"{self.uri!r}: the name is not UTF-8, or has a zero byte; rename it")
        if self.uri.startswith("file://"):
            object.__setattr__(self, "uri", unquote(urlsplit(self.uri).path))
        if not self.remote:
            path = os.path.abspath(os.path.expanduser(self.uri))
            object.__setattr__(self, "uri", path)
        else:
            check_no_secret(self.uri)

    @property
    def remote(self) -> bool:
        """Whether this is a URI of an object store rather than a local path."""
        return bool(_URI.fullmatch(self.uri))

    @property
    def name(self) -> str:
        """The last part of the path."""
        path = "/".join(self._parts[:2]) if self.remote else self.uri
        return path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> "Location":
        """The folder that this lies in."""
        if not self.remote:
            return Location(os.path.dirname(self.uri))
        store, path, options = self._parts
        return Location(f"{store}/{posixpath.dirname(path)}".rstrip("/") + options)

    def __truediv__(self, name: str) -> "Location":
        """The location of `name`, a POSIX path, below this folder.

        Raises:
            UserError: the path leads out of the folder.
        """
        self.check_below(name)
        if not self.remote:
            return Location(f"{self.uri}/{name}")
        store, path, options = self._parts
        return Location(f"{f'{store}/{path}'.rstrip('/')}/{name}{options}")

    def check_below(self, name: str) -> None:
        """Refuse a path that leads out of this folder.

        Raises:
            UserError: it does.
        """
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise UserError(f"{self}: the name {name!r} leads out of it; rename it")

    def __str__(self) -> str:
        return self.uri

    def exists(self) -> bool:
        """Whether the file or folder exists."""
        return self._info().type != fs.FileType.NotFound

    def is_folder(self) -> bool:
        """Whether this is an existing folder."""
        return self._info().type == fs.FileType.Directory

    def read_bytes(self, limit: int | None = None) -> bytes:
        """The whole content, or its first `limit` bytes.

        Raises:
            OSError: the file is absent or cannot be read.
        """
        if not self.remote:
            with open(self.uri, "rb") as file:
                return file.read(limit)
        store, path = self._filesystem, self._path
        with explained(self.uri), store.open_input_stream(path) as stream:
            return stream.read(limit)

    def read_range(self, start: int, length: int) -> bytes:
        """`length` bytes from `start` on, or fewer at the end; one request to an object store.

        Raises:
            OSError: the file is absent or cannot be read.
        """
        if not self.remote:
            with open(self.uri, "rb") as file:
                file.seek(start)
                return file.read(length)
        with self.open_file() as remote, explained(self.uri):
            return remote.read_at(length, start)

    def open_file(self) -> NativeFile:
        """The open file, for reading at any place.

        Raises:
            OSError: the file is absent or cannot be read.
        """
        store, path = self._filesystem, self._path
        with explained(self.uri):
            return store.open_input_file(path)

    def read_tail(self, count: int) -> bytes:
        """The last `count` bytes, or all of a shorter file; two requests to an object store.

        Raises:
            OSError: the file is absent or cannot be read.
        """
        if not self.remote:
            with open(self.uri, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - count, 0))
                return file.read()
        store, path = self._filesystem, self._path
        with explained(self.uri), store.open_input_file(path) as remote:
            start = max(remote.size() - count, 0)
            return remote.read_at(remote.size() - start, start)

    def write_bytes(self, content: bytes) -> None:
        """Write the whole file, replacing an existing one; missing folders are created."""
        if self.remote:
            store, path = self._filesystem, self._path

            def upload() -> None:
                with store.open_output_stream(path) as stream:
                    stream.write(content)

            # A stream closed by an exception completes its upload, leaving a truncated object.
            # Ctrl-C and SIGTERM raise in the main thread only, so another one uploads.
            with explained(self.uri), ThreadPoolExecutor(1) as writer:
                writer.submit(int).result()  # an interrupted start of a thread would not be joined
                writer.submit(upload).result()
            return
        folder, name = os.path.split(self.uri)
        os.makedirs(folder, exist_ok=True)
        # No longer than a name may be, whatever the length of this one.
        temporary = os.path.join(folder, f".{name[:40]}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as stream:
                stream.write(content)
            os.replace(temporary, self.uri)
        except BaseException as error:
            if os.path.exists(temporary):
                os.unlink(temporary)
            if isinstance(error, OSError):  # name the file; on a full disk none is named
                error.filename, error.filename2 = self.uri, None
            raise

    def delete(self) -> None:
        """Delete the file if it exists."""
        if self._info().type == fs.FileType.File:
            store, path = self._filesystem, self._path
            with explained(self.uri):
                store.delete_file(path)

    def walk(self) -> Iterator[tuple[str, int]]:
        """(path relative to this folder, size in bytes) of every file below it, sorted.

        Symbolic links are followed; a broken one counts as a file of 0 bytes.

        Raises:
            OSError: a folder cannot be read.
            UserError: a name is not UTF-8, or a key of a store is not a valid path.
        """
        if self.remote:
            start = len(self._path.rstrip("/")) + 1
            found = [
                (info.path[start:], info.size)
                for info in self._list(recursive=True)
                if info.type == fs.FileType.File
            ]
            for key, _ in found:
                if not {"", ".", ".."}.isdisjoint(key.split("/")):  # HTTP would normalize it
                    raise UserError(f"{self}: the key {key!r} is not a valid path; rename it")
        else:
            found = list(_walk_local(self.uri))
        yield from sorted(found)

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        """The size in bytes of each file below this folder; None for one that does not exist.

        Raises:
            UserError: a path leads out of the folder.
        """
        places = [(self / name)._path for name in names]
        with explained(self.uri):
            found = self._filesystem.get_file_info(places)
        return [info.size if info.type == fs.FileType.File else None for info in found]

    def changed_at(self, names: Sequence[str]) -> list[float]:
        """When each file below this folder was last changed, in seconds since 1970; 0 if absent.

        Of a local file, its renaming and copying count, as a copy may keep the older time.
        """
        places = [(self / name)._path for name in names]
        if not self.remote:
            return [_changed_at(place) for place in places]
        with explained(self.uri):
            found = self._filesystem.get_file_info(places)
        return [info.mtime_ns / 1e9 if info.mtime_ns else 0.0 for info in found]

    def folders(self) -> list[str]:
        """Names of the direct subfolders, sorted."""
        found = self._list(recursive=False)
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def _list(self, *, recursive: bool) -> list[fs.FileInfo]:
        store, selector = self._filesystem, fs.FileSelector(self._path, recursive=recursive)
        with explained(self.uri):
            return store.get_file_info(selector)

    def _info(self) -> fs.FileInfo:
        store, path = self._filesystem, self._path
        with explained(self.uri):
            return store.get_file_info(path)

    @property
    def _filesystem(self) -> fs.FileSystem:
        if not self.remote:
            return _local()
        store, _, options = self._parts
        return open_store(store + options)[0]

    @property
    def _path(self) -> str:
        """Its path in the filesystem, taken verbatim from the URI, so any character may occur."""
        if not self.remote:
            return self.uri
        store, path, options = self._parts
        return posixpath.join(open_store(store + options)[1], path).rstrip("/")

    @property
    def _parts(self) -> tuple[str, str, str]:
        """`s3://bucket`, `pets/cat.png` and `?scheme=http` of a URI."""
        found = _URI.fullmatch(self.uri)
        assert found
        return found[1], found[2], found[3] or ""


def _changed_at(path: str) -> float:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0.0
    return max(found.st_mtime, found.st_ctime)


def _walk_local(root: str) -> Iterator[tuple[str, int]]:
    def fail(error: OSError) -> None:
        raise error

    for folder, below, names in os.walk(root, onerror=fail, followlinks=True):
        here = os.path.realpath(folder) + os.sep
        below[:] = [  # a link to a folder that contains it would recurse for ever
            name
            for name in below
            if not here.startswith(os.path.realpath(os.path.join(folder, name)) + os.sep)
        ]
        for name in names:
            path = os.path.join(folder, name)
            if not _is_utf8(path):
                raise UserError(f"{os.fsencode(path)!r}: the name is not UTF-8; rename it")
            if os.path.isfile(path) or os.path.islink(path):
                size = os.path.getsize(path) if os.path.exists(path) else 0
                yield os.path.relpath(path, root).replace(os.sep, "/"), size


def _is_utf8(path: str) -> bool:
    """Whether it has no lone surrogates, which Python makes of bytes that are not UTF-8."""
    return path.isprintable() or not any("\ud800" <= letter <= "\udfff" for letter in path)


@lru_cache(maxsize=1)
def _local() -> fs.FileSystem:
    return fs.LocalFileSystem()
