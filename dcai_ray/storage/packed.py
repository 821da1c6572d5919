"""Files inside archives and tables, read in place: a part is found once and then read by itself.

    tar       a range of bytes
    zip       a local header and what follows it, stored or deflated
    parquet   a row; its group of rows is read and kept a while
    arrow     a row of a stream, mapped into memory (local files only)

The list of an archive's parts is made once, by the driver; a worker reads a part by its address.
"""

import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a zip: signature ... lengths of name and extra
_SLACK = 512  # bytes read beyond a local header and its part, for the extra field
_ENCRYPTED = 1
_STORED, _DEFLATED = 0, 8
_GROUPS_KEPT = 4  # groups of rows per process
_one_at_a_time = threading.Lock()  # so that threads do not decode the same group side by side


@dataclass(frozen=True, slots=True)
class Packed:
    """The address of a part."""

    file: str
    """Of the archive or table, below the data's root; empty for the root itself."""
    start: int
    """Its first byte, of a zip that of its local header; of a table, its row."""
    length: int
    """Bytes that it takes in an archive; 0 in a table."""
    kind: str
    """tar, zip, parquet or arrow."""
    column: str = ""
    """Of a table, the column with the bytes, or with structs of bytes and path."""

    def read(self, root: Location) -> bytes:
        """The content.

        Raises:
            OSError: the file cannot be read.
            UserError: the file is not the one that was listed.
        """
        file = root / self.file if self.file else root
        if self.kind == "tar":
            return file.read_range(self.start, self.length)
        if self.kind == "zip":
            return _read_zipped(file, self.start, self.length)
        with _one_at_a_time:
            rows, first = _rows_around(file, self.start, self.column, self.kind)
        entry = rows[self.start - first].as_py()
        content = entry["bytes"] if isinstance(entry, dict) else entry
        if content is None:
            raise UserError(f"{file}: row {self.start} holds no image")
        return bytes(content)


@dataclass(frozen=True, slots=True)
class Part:
    """A file in an archive."""

    name: str
    size: int
    """Bytes of its content."""
    start: int
    length: int


def parts_of(archive: Location, kind: str) -> list[Part]:
    """The regular files in a tar or zip, in their order; links and folders are left out.

    Raises:
        UserError: the archive is damaged or encrypted, or a name leads out of it or occurs twice.
        OSError: it cannot be read.
    """
    try:
        with _opened(archive) as stream:
            parts = list(_tar_parts(stream) if kind == "tar" else _zip_parts(archive, stream))
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{archive}: damaged, or no {kind} file ({error})") from None
    seen: set[str] = set()
    for part in parts:
        if part.name.startswith("/") or ".." in part.name.split("/") or part.name in seen:
            why = "occurs twice" if part.name in seen else "leads out of it"
            raise UserError(f"{archive}: the name {part.name!r} {why}; make the archive anew")
        seen.add(part.name)
    return parts


def _tar_parts(stream: BinaryIO) -> Iterator[Part]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            if member.isreg() and not member.issparse():
                name = member.name.removeprefix("./")
                yield Part(name, member.size, member.offset_data, member.size)
            archive.members = []  # type: ignore[attr-defined]  # else it keeps them all


def _zip_parts(archive: Location, stream: BinaryIO) -> Iterator[Part]:
    with zipfile.ZipFile(stream) as opened:
        for entry in opened.infolist():
            if entry.is_dir():
                continue
            if entry.flag_bits & _ENCRYPTED:
                raise UserError(f"{archive}: encrypted; unpack it to a folder")
            if entry.compress_type not in (_STORED, _DEFLATED):
                raise UserError(
                    f"{archive}: {entry.filename} is neither stored nor deflated; unpack it"
                )
            name = entry.filename.removeprefix("./")
            yield Part(name, entry.file_size, entry.header_offset, entry.compress_size)


@contextmanager
def _opened(archive: Location) -> Iterator[BinaryIO]:
    if archive.remote:
        with archive.open_remote() as stream:
            yield stream
    else:
        with open(archive.uri, "rb") as stream:
            yield stream


def _read_zipped(file: Location, start: int, length: int) -> bytes:
    """A part of a zip, whose local header says how it is packed and where it begins."""
    content = file.read_range(start, _LOCAL_HEADER.size + _SLACK + length)
    header = _LOCAL_HEADER.unpack_from(content)
    if header[0] != b"PK\3\4":
        raise UserError(f"{file}: is another file than the one that was listed")
    begin = _LOCAL_HEADER.size + header[-2] + header[-1]
    if len(content) < begin + length:
        content = file.read_range(start, begin + length)
    packed = content[begin : begin + length]
    return (
        packed if header[3] == _STORED else zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed)
    )


def _rows_around(file: Location, row: int, column: str, kind: str) -> tuple[Any, int]:
    """The group of rows that holds a row, and the number of its first."""
    starts = _starts(file, kind)
    group = int(np.searchsorted(starts, row, side="right")) - 1
    return _group(file, group, column, kind), int(starts[group])


@lru_cache(maxsize=64)
def _starts(file: Location, kind: str) -> Any:
    if kind == "arrow":
        sizes = [batch.num_rows for batch in mapped(file)]
    else:
        with _opened(file) as stream:
            metadata = pq.read_metadata(stream)
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    return np.concatenate([[0], np.cumsum(sizes)])[:-1] if sizes else np.zeros(1, dtype=int)


@lru_cache(maxsize=_GROUPS_KEPT)
def _group(file: Location, group: int, column: str, kind: str) -> Any:
    if kind == "arrow":
        return mapped(file)[group].column(column)
    with _opened(file) as stream:
        return pq.ParquetFile(stream).read_row_group(group, columns=[column]).column(0)


def parquet_schema(file: Location) -> pa.Schema:
    """The columns of a Parquet file.

    Raises:
        UserError: it is damaged.
        OSError: it cannot be read.
    """
    with _opened(file) as stream:
        try:
            return pq.read_schema(stream)
        except pa.ArrowInvalid as error:
            raise UserError(f"{file}: no Parquet file ({str(error).splitlines()[0]})") from None


def parquet_table(file: Location, columns: list[str]) -> pa.Table:
    """Some columns of a Parquet file; the others are not read."""
    with _opened(file) as stream:
        return pq.ParquetFile(stream).read(columns=columns)


@lru_cache(maxsize=64)
def mapped(file: Location) -> list[pa.RecordBatch]:
    """The batches of a local stream of Arrow, mapped into memory.

    Raises:
        UserError: the file is remote, or no such stream.
    """
    if file.remote:
        raise UserError(f"{file}: files of save_to_disk are read from a local disk only; copy them")
    try:
        return list(pa.ipc.open_stream(pa.memory_map(file.uri)))
    except pa.ArrowInvalid as error:
        raise UserError(f"{file}: no stream of Arrow ({error})") from None
