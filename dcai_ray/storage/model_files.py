"""Notes in the header of a safetensors file, read without its tensors.

The format is eight bytes with the header's length (little-endian), the header as JSON, and the
tensors. The safetensors library reads whole local files only; here a model may be in an object
store.
"""

import json

from dcai_ray.storage.location import Location

_HEADER_BYTES = 2**16  # read first; holds the header of most networks
_MAX_HEADER_BYTES = 100_000_000  # limit of the format; a file that claims more is damaged


def read_notes(model: Location) -> dict[str, str]:
    """The notes that a model was saved with; empty if the file is absent, damaged or has none.

    Raises:
        OSError: the file exists but cannot be read.
    """
    try:
        head = model.read_bytes(limit=_HEADER_BYTES)
        end = 8 + int.from_bytes(head[:8], "little")
        if len(head) < end <= _MAX_HEADER_BYTES:
            head = model.read_bytes(limit=end)
    except FileNotFoundError:
        return {}
    try:
        header = json.loads(head[8:end])
    except ValueError:
        return {}
    notes = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return notes if isinstance(notes, dict) else {}
