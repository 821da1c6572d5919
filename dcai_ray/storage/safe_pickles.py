"""Arrays from untrusted pickles, read by an unpickler that can make only arrays.

A pickle is a program: loading one the usual way runs its author's code. This unpickler makes only
NumPy arrays and plain containers and refuses anything else by name. It does not call NumPy's own
unpickling functions either, since they can be made to interpret bytes as pointers to objects.
"""

import codecs
import io
import pickle
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location

# What the unpickler and NumPy raise on malformed bytes.
_DAMAGE = (
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    MemoryError,
    SyntaxError,
)


class _Dtype:
    """A dtype of numbers, booleans or text, with its byte order."""

    def __init__(self, name: str, *_: bool) -> None:
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "biufcSU":
            raise pickle.UnpicklingError(f"wants an array of {name}")

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])

    @property
    def code_points(self) -> np.dtype[np.uint32]:
        return np.dtype(np.uint32).newbyteorder(self.dtype.byteorder)


class _Array:
    """A placeholder for an array while it is unpickled; `np.asarray` returns the array."""

    def __init__(self, *_: object) -> None:
        self.array: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, fortran, content = state
        self.array = _from_bytes(content, dtype, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.array


def _from_bytes(
    content: bytes,
    dtype: _Dtype,
    shape: tuple[int, ...],
    order: Literal["C", "F", "K"] = "C",
    axes: Sequence[int] | None = None,
) -> NDArray[Any]:
    if not isinstance(content, bytes | bytearray) or not isinstance(dtype, _Dtype):
        raise UserError("an array must be bytes of a plain type")
    flat = np.frombuffer(content, dtype.dtype)
    if flat.dtype.kind == "U" and (flat.view(dtype.code_points) > sys.maxunicode).any():
        raise UserError("text that is not valid Unicode")
    array = flat.reshape(shape, order="F" if order == "F" else "C")
    return array if axes is None else array.transpose(axes)


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return _from_bytes(content, dtype, ())[()]


_ALLOWED = {
    (f"numpy.{core}.{module}", name): maker
    for core in ("core", "_core")
    for module, name, maker in (
        ("multiarray", "_reconstruct", _Array),
        ("multiarray", "scalar", _scalar),
        ("numeric", "_frombuffer", _from_bytes),
    )
} | {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): codecs.encode,  # bytes in old protocols
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"wants {module}.{name}")
        return _ALLOWED[module, name]


def pickled_arrays(file: Location, content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a pickled dict of arrays.

    Args:
        file: what messages call it.
        content: its bytes.
    Raises:
        UserError: the pickle tries to import anything else, is damaged, or is not such a dict.
    """
    try:
        found = _ArrayUnpickler(io.BytesIO(content)).load()
        entries = found.items() if isinstance(found, dict) else ()
        arrays = {str(key): np.asarray(entry) for key, entry in entries}
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file}: refused, only NumPy arrays are read from a pickle ({_line(error)})"
        ) from None
    except _DAMAGE as error:
        raise UserError(f"{file}: not a readable pickle ({_line(error)})") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a dict of arrays, got {type(found).__name__}")
    return arrays


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
