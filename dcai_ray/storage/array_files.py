"""Arrays by name from a user's file: .npy, .npz, CSV, Parquet or a pickle of plain arrays.

The kind is told by the content, not by the name. Nothing in a file is executed. A column of a table
is an array; lists of one length, as Parquet has them, are the rows of a matrix.
"""

import io
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.safe_pickles import pickled_arrays

KINDS = ".npy, .npz, .pt, .safetensors, CSV, Parquet or a pickle of NumPy arrays"
ONLY = "array"
"""The name of the array of a file that holds a single one."""

_TEXT = ("id", "ids", "label", "labels", "y", "split")  # columns of a CSV that are never numbers
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # near the start of files before torch 1.6
_ZIP = b"PK\x03\x04"
_PICKLES = (".pkl", ".pickle", ".p")


def holds_tensors(content: bytes) -> bool:
    """Whether a file is one of torch or safetensors, which `networks` reads."""
    if content.startswith(_ZIP):
        return any(name.endswith("/data.pkl") for name in _members(content))
    header = int.from_bytes(content[:8], "little")
    is_safetensors = content[8:9] == b"{" and header <= len(content) - 8
    return is_safetensors or _TORCH_MAGIC in content[:32]


def arrays_in(file: Location, content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a file, by name.

    Args:
        file: what messages call it; a pickle without a protocol number is known by its ending.
        content: its bytes; no file of tensors.
    Raises:
        UserError: the file is damaged, of an unknown kind, or holds Python objects.
    """
    try:
        if content.startswith(b"\x93NUMPY"):
            array = np.load(io.BytesIO(content), allow_pickle=False)
            return {name: array[name] for name in array.dtype.names or ()} or {ONLY: array}
        if content.startswith(_ZIP):
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        hint = "; save text as str and features as float32" if "pickle" in str(error) else ""
        raise UserError(f"{file}: not a readable NumPy file ({_line(error)}){hint}") from None
    if content.startswith(b"\x80") or str(file).endswith(_PICKLES):
        return pickled_arrays(file, content)
    return _columns(file, _table(file, content))


def _members(content: bytes) -> list[str]:
    try:
        return zipfile.ZipFile(io.BytesIO(content)).namelist()
    except zipfile.BadZipFile:
        return []


def _table(file: Location, content: bytes) -> pa.Table:
    try:
        if content.startswith(b"PAR1"):
            return pa.parquet.read_table(io.BytesIO(content))
        if b"\0" in content[:4096]:
            raise UserError(f"{file}: unknown kind of file; expected {KINDS}")
        texts = pa.csv.ConvertOptions(column_types=dict.fromkeys(_TEXT, pa.string()))
        return pa.csv.read_csv(io.BytesIO(content), convert_options=texts)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise UserError(f"{file}: neither a CSV nor a Parquet table ({_line(error)})") from None


def _columns(file: Location, table: pa.Table) -> dict[str, NDArray[Any]]:
    """The columns of a table, but for an index that pandas has written into a Parquet file."""
    names = [name for name in table.column_names if not name.startswith("__index_level_")]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{file}: column {twice!r} occurs more than once; rename one of them")
    return {name: _column(file, name, table[name].combine_chunks()) for name in names}


def _column(file: Location, name: str, column: Any) -> NDArray[Any]:
    if isinstance(column, pa.ChunkedArray):  # of no rows
        column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list and not pa.types.is_fixed_size_list(kind):
        return column.to_numpy(zero_copy_only=False)
    flat = column.flatten()
    width = len(flat) // max(len(column), 1)
    lengths = {len(row) if row is not None else None for row in column} if is_list else {width}
    if column.null_count or lengths > {width} or width * len(column) != len(flat):
        raise UserError(f"{file}: the lists in column {name!r} must be of one length, none empty")
    return flat.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
