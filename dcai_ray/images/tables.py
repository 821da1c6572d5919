"""Pictures in the rows of a table: Parquet, or the Arrow stream files of Hugging Face `datasets`.

A picture is bytes, or a struct of `bytes` and `path` as `datasets` writes it; where the bytes are
null, the path names a file beside the table. Reading a row costs reading its row group (Parquet) or
record batch (Arrow): the last few stay in memory, and as listings are in the order of rows, each is
read about once per process. A local Arrow file is mapped, so its rows cost what they hold.
"""

from functools import lru_cache
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location

_DAMAGE = (pa.ArrowInvalid, pa.ArrowNotImplementedError)
_GROUPS_KEPT = 4
_LOCK = Lock()  # threads that read ahead would each read the same row group


def is_arrow(file: Location) -> bool:
    """Whether this is an Arrow file rather than Parquet, by its name."""
    return file.name.lower().endswith(".arrow")


def schema_of(file: Location) -> pa.Schema:
    """Columns of a table, with their metadata.

    Raises:
        UserError: the file is damaged.
        OSError: it cannot be read.
    """
    return _opened(file).schema


def read_columns(file: Location, columns: list[str]) -> dict[str, list[Any]]:
    """Some columns as Python values; a nested one by its dotted name, `image.path`.

    Raises:
        UserError: the file is damaged.
    """
    found: dict[str, list[Any]] = {name: [] for name in columns}
    table = _opened(file)
    try:
        for group in range(table.num_groups):
            part = table.read(group, columns)
            for name in columns:
                top, _, rest = name.partition(".")
                column = part[top].combine_chunks()
                if rest:
                    column = pa.compute.struct_field(column, rest)
                found[name] += column.to_pylist()
    except _DAMAGE as error:
        raise _damaged(file, error) from None
    return found


def may_lack(file: Location, column: str) -> bool:
    """Whether some row may have a null in a column; False where the file's statistics say none."""
    return _opened(file).may_lack(column)


def read_picture(file: Location, column: str, row: int) -> bytes:
    """The bytes of one row's picture.

    Raises:
        UserError: the file is damaged, or has no picture there.
    """
    group, place = _opened(file).find(row)
    with _LOCK:
        cells = _cells(file, column, group)
    cell = cells[place].as_py() if place < len(cells) else None
    content = cell["bytes"] if isinstance(cell, dict) else cell
    if content is None:
        raise UserError(f"{file}: row {row} has no picture")
    return bytes(content)


@lru_cache(maxsize=_GROUPS_KEPT)
def _cells(file: Location, column: str, group: int) -> Any:
    try:
        return _opened(file).read(group, [column])[column]
    except _DAMAGE as error:
        raise _damaged(file, error) from None


class _Table:
    """An open table, read by groups of rows."""

    def __init__(self, file: Location) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._parquet: pq.ParquetFile | None = None
        if is_arrow(file):
            source = file.open_file() if file.remote else pa.memory_map(file.uri)
            reader = pa.ipc.open_stream(source)
            self.schema, self._batches = reader.schema, list(reader)
            sizes = [batch.num_rows for batch in self._batches]
        else:
            self._parquet = pq.ParquetFile(file.open_file())
            notes = self._parquet.metadata
            sizes = [notes.row_group(i).num_rows for i in range(notes.num_row_groups)]
            self.schema = self._parquet.schema_arrow
        self.num_groups = len(sizes)
        self._sizes = sizes

    def find(self, row: int) -> tuple[int, int]:
        """The group of a row, and its place there."""
        for group, size in enumerate(self._sizes):
            if row < size:
                return group, row
            row -= size
        return self.num_groups - 1, row

    def may_lack(self, column: str) -> bool:
        """Whether some row may have a null there."""
        top, _, rest = column.partition(".")
        if self._parquet is None:
            return any(pa.compute.struct_field(b[top], rest).null_count for b in self._batches)
        notes = self._parquet.metadata
        groups = [notes.row_group(i) for i in range(notes.num_row_groups)]
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        counts = [
            c.statistics and c.statistics.null_count for c in chunks if c.path_in_schema == column
        ]
        return any(count is None or count > 0 for count in counts)

    def read(self, group: int, columns: list[str]) -> pa.Table:
        """Some columns of one group; a nested one may come with its siblings."""
        if self._parquet is not None:
            return self._parquet.read_row_group(group, columns=columns)
        tops = list(dict.fromkeys(name.partition(".")[0] for name in columns))
        return pa.Table.from_batches([self._batches[group]]).select(tops)


@lru_cache(maxsize=16)
def _opened(file: Location) -> _Table:
    try:
        return _Table(file)
    except _DAMAGE as error:
        raise _damaged(file, error) from None


def _damaged(file: Location, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(f"{file}: a damaged table ({reason}); copy or write it again")
