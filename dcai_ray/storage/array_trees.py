"""Dataclasses of arrays in one file, so that a later command need not compute them again.

The file is a row of `.npy` arrays: first a JSON skeleton as bytes, then the arrays that it numbers.
Equal content gives equal bytes, and nothing in it is executed: only the classes that the reader
names are made, and arrays of Python objects are refused.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcai_ray.storage.location import Location

_KIND, _ARRAY, _TEXTS = "kind", "array", "texts"
_DAMAGE = (ValueError, EOFError, KeyError, TypeError, IndexError, OSError)


def write_tree(file: Location, tree: Any, fingerprint: str, max_bytes: int) -> bool:
    """Write dataclasses, dictionaries and sequences of arrays, strings and numbers.

    Args:
        file: where to; a file that is there is replaced.
        tree: sequences are read back as tuples.
        fingerprint: of all that determines the content.
        max_bytes: what takes more is not written.
    Returns:
        Whether it was written.
    """
    arrays: list[NDArray[Any]] = []
    skeleton = json.dumps({"fingerprint": fingerprint, "tree": _planned(tree, arrays)})
    if sum(array.nbytes for array in arrays) > max_bytes:
        return False
    stream = io.BytesIO()
    for array in (np.frombuffer(skeleton.encode(), np.uint8), *arrays):
        np.save(stream, array, allow_pickle=False)
    file.write_bytes(stream.getvalue())
    return True


def read_tree(file: Location, kinds: Sequence[type], wanted: Sequence[str]) -> Any:
    """What was written with one of these fingerprints; None where there is no such file.

    A damaged file counts as none: its content can be computed again.

    Args:
        file: the file.
        kinds: the dataclasses that may be made.
        wanted: fingerprints.
    Raises:
        OSError: the file is there, but cannot be read.
    """
    try:
        stream = io.BytesIO(file.read_bytes())
    except FileNotFoundError:
        return None
    try:
        skeleton = json.loads(np.load(stream, allow_pickle=False).tobytes())
        if skeleton["fingerprint"] not in wanted:
            return None
        arrays = []
        while stream.tell() < len(stream.getbuffer()):
            arrays.append(np.load(stream, allow_pickle=False))
        return _made(skeleton["tree"], arrays, {kind.__name__: kind for kind in kinds})
    except _DAMAGE:
        return None


def _planned(tree: Any, arrays: list[NDArray[Any]]) -> Any:
    """The skeleton of a tree; its arrays are appended to `arrays`."""
    if isinstance(tree, np.ndarray):
        if tree.dtype == object:  # texts, or None
            return {_TEXTS: tree.tolist()}
        arrays.append(tree)
        return {_ARRAY: len(arrays) - 1}
    if is_dataclass(tree):
        entries = {field.name: getattr(tree, field.name) for field in fields(tree)}
        return {_KIND: type(tree).__name__, "fields": _planned(entries, arrays)}
    if isinstance(tree, dict):
        return {key: _planned(entry, arrays) for key, entry in tree.items()}
    if isinstance(tree, list | tuple):
        return [_planned(entry, arrays) for entry in tree]
    return tree.item() if isinstance(tree, np.generic) else tree


def _made(plan: Any, arrays: Sequence[NDArray[Any]], kinds: dict[str, type]) -> Any:
    """The tree of a skeleton."""
    if isinstance(plan, list):
        return tuple(_made(entry, arrays, kinds) for entry in plan)
    if not isinstance(plan, dict):
        return plan
    if _ARRAY in plan:
        return arrays[plan[_ARRAY]]
    if _TEXTS in plan:
        return np.array(plan[_TEXTS], dtype=object)
    if _KIND in plan:
        return kinds[plan[_KIND]](**_made(plan["fields"], arrays, kinds))
    return {key: _made(entry, arrays, kinds) for key, entry in plan.items()}
