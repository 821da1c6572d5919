"""Reading and writing Parquet files, each with a fingerprint of all that determines its content."""

import hashlib
import json
import logging
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.read_ahead import read_ahead

logger = logging.getLogger(__name__)

_FOOTER_BYTES = 4096  # read first; holds the footer of a shard of up to about 90 classes
_FOOTERS_AT_ONCE = 16  # an object store takes tens of milliseconds, but serves many at once
_FINGERPRINT = b"dcai_ray.fingerprint"
_DAMAGE = (
    OSError,
    pa.ArrowException,
    UnicodeDecodeError,
)  # what pyarrow raises on a damaged file


def new_fingerprint(*parts: Any) -> str:
    """A hash of JSON-serializable parts: 16 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_table(location: Location, table: pa.Table, fingerprint: str, **metadata: str) -> None:
    """Write a whole table, with its fingerprint and further metadata in the schema."""
    notes = {f"dcai_ray.{key}".encode(): value.encode() for key, value in metadata.items()}
    kept = table.schema.metadata or {}
    table = table.replace_schema_metadata({**kept, **notes, _FINGERPRINT: fingerprint.encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    location.write_bytes(sink.getvalue().to_pybytes())


def read_table(location: Location) -> pa.Table:
    """The table of a Parquet file.

    Raises:
        UserError: the file is not Parquet, or is damaged.
        OSError: the file is absent or cannot be read.
    """
    content = location.read_bytes()
    try:
        return pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except _DAMAGE as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{location}: not a readable Parquet file ({reason}); delete it") from None


def fingerprint_of(location: Location) -> str:
    """The fingerprint of a Parquet file; "" if the file is absent, damaged or has none.

    Only the footer is read, whatever the size of the file.

    Raises:
        OSError: the file exists but cannot be read.
    """
    try:
        tail = location.read_tail(_FOOTER_BYTES)
        length = int.from_bytes(tail[-8:-4], "little") + 8  # of the footer, its length and "PAR1"
        if length > len(tail) and tail.endswith(b"PAR1"):
            tail = location.read_tail(length)
    except FileNotFoundError:
        return ""
    try:
        schema = pq.read_schema(pa.BufferReader(tail))
        return (schema.metadata or {}).get(_FINGERPRINT, b"").decode()
    except _DAMAGE:
        return ""


def fingerprints_of(locations: Iterable[Location]) -> list[str]:
    """The fingerprint of each file, in order; many files are read at once."""
    return list(read_ahead(fingerprint_of, locations, _FOOTERS_AT_ONCE))


def is_up_to_date(location: Location, wanted: str) -> bool:
    """Whether the file exists and carries this fingerprint."""
    found = fingerprint_of(location)
    logger.debug("%s: fingerprint %s, wanted %s", location, found or "none", wanted)
    return found == wanted


def read_note(table: pa.Table, key: str) -> str:
    """One entry of a table's metadata; "" if it is missing."""
    return (table.schema.metadata or {}).get(f"dcai_ray.{key}".encode(), b"").decode()
