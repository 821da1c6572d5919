"""Features, labels and ids as people have them, checked before any work and turned into arrays.

Features may be nested lists, NumPy or pandas, torch tensors on any device, or SciPy sparse
matrices; labels may also be text or booleans. Nothing is guessed: what could be meant in two ways
(soft labels, fractions, missing entries) is refused in one line that says what to do.

No library is imported for this: a tensor is known by its `detach`, a sparse matrix by `toarray`.
"""

import operator
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.errors import UserError

_FLOATS = (np.float16, np.float32, np.float64)  # kept as they are; all else becomes float64
_EXACT = 2.0**53  # up to here a float holds every whole number


def feature_matrix(name: str, x: ArrayLike | Any) -> NDArray[np.floating]:
    """Features as a finite array (points, features); floats keep their precision.

    Args:
        name: what messages call it.
        x: a matrix of numbers or booleans; a sparse one becomes dense.
    Raises:
        UserError: it is not a non-empty matrix of finite numbers.
    """
    array = _array(name, x)
    if array.ndim != 2 or 0 in array.shape:
        hint = f"; use {name}.reshape(-1, 1) for a single feature" if array.ndim == 1 else ""
        raise UserError(
            f"{name} must be a non-empty (points, features) array, got shape {array.shape}{hint}"
        )
    if array.dtype.kind not in "biuf":
        array = _numbers(name, array)
    if array.dtype.type not in _FLOATS:
        array = array.astype(np.float64)
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        raise UserError(
            f"{name} must be finite, got {bad} NaN or infinite entries; leave out or fill in these "
            "points"
        )
    return array


def class_labels(name: str, y: ArrayLike | Any) -> NDArray[Any]:
    """Labels as a one-dimensional array of int64 or of text.

    Args:
        name: what messages call them.
        y: one whole number, boolean or text per point.
    Raises:
        UserError: they are soft, one-hot, fractions, missing or of several kinds.
    """
    if isinstance(y, list | tuple):
        y = _objects(name, y)  # np.asarray would make text of [1, "a"], and "nan" of NaN
    array = _array(name, y)
    if array.ndim != 1:
        raise UserError(
            f"{name} must hold one label per point, got shape {array.shape}; {_hint(array, name)}"
        )
    if array.dtype.kind == "O":
        array = _of_one_kind(name, array)
    if array.dtype.kind == "S":
        array = _decoded(name, array)
    if array.dtype.kind == "f":
        _check_whole(name, array)
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise UserError(f"{name} must fit into 64 bits with a sign, got {array.max()}")
    if array.dtype.kind in "biuf":
        return array.astype(np.int64)
    if array.dtype.kind != "U":
        raise UserError(f"{name} must be whole numbers, booleans or text, got {array.dtype}")
    return array


def numbered(
    y_train: NDArray[Any], y_val: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Labels of both sets as class numbers, and the C labels they stand for, increasing.

    Args:
        y_train: (n,) of `class_labels`.
        y_val: (m,) likewise.
    Raises:
        UserError: one set is labelled by numbers and the other by text.
    """
    if y_train.dtype.kind != y_val.dtype.kind:
        kinds = ["text" if y.dtype.kind == "U" else "numbers" for y in (y_train, y_val)]
        raise UserError(
            f"y_train and y_val must be labels of one kind, got {kinds[0]} and {kinds[1]}; "
            "name the classes alike in both"
        )
    labels, numbers = np.unique(np.concatenate([y_train, y_val]), return_inverse=True)
    numbers = numbers.astype(np.int64)
    return numbers[: len(y_train)], numbers[len(y_train) :], labels


def whole_number(name: str, value: Any, *, minimum: int = 1) -> int:
    """A setting that counts something.

    Raises:
        UserError: it is a boolean, a fraction or too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise UserError(f"{name} must be a whole number, got {value!r}")
    if number < minimum:
        raise UserError(f"{name} must be at least {minimum}, got {number}")
    return number


def texts(name: str, entries: Iterable[Any], count: int) -> list[str]:
    """One text for each of `count` points: names and labels of a table.

    Whole numbers and paths become text; so do booleans.

    Raises:
        UserError: there are more or fewer, or one is missing or of another kind.
    """
    if isinstance(entries, str | bytes):
        raise UserError(f"{name} must hold one entry per point, got a single text {entries!r:.40}")
    given = list(_array(name, entries) if hasattr(entries, "detach") else entries)
    if len(given) != count:
        raise UserError(f"{name} must hold one entry per point, got {len(given)} for {count}")
    return [_text(name, entry) for entry in given]


def _text(name: str, entry: Any) -> str:
    if isinstance(entry, os.PathLike):
        entry = os.fspath(entry)
    if isinstance(entry, bytes):
        return str(_decoded(name, np.array([entry]))[0])
    if isinstance(entry, str | int | bool | np.integer | np.bool_):
        return str(entry)
    if isinstance(entry, float | np.floating) and float(entry).is_integer():
        return str(int(entry))  # what pandas makes of whole numbers beside a missing one
    raise UserError(f"{name} must be text, whole numbers or paths, got {entry!r:.40}")


def _array(name: str, values: Any) -> NDArray[Any]:
    """Anything array-like as an array, without a change of its entries."""
    if hasattr(values, "detach"):  # a torch tensor, perhaps on a GPU or part of a graph
        values = values.detach().cpu().to_dense()
        if values.is_floating_point() and values.dtype.itemsize < 4:
            values = values.float()  # NumPy has no bfloat16
        return np.asarray(values.numpy())
    if hasattr(values, "toarray"):
        return np.asarray(values.toarray())
    if np.ma.is_masked(values):
        raise UserError(f"{name} has masked entries; leave out or fill in these points")
    try:
        return np.asarray(values)
    except (ValueError, TypeError):
        raise UserError(f"{name} must be an array, got rows of different lengths") from None


def _objects(name: str, values: Sequence[Any]) -> NDArray[Any]:
    """A list as an array of its own objects."""
    if values and hasattr(values[0], "detach"):
        return np.array([_array(name, value)[()] for value in values])
    try:
        array = np.array(values, dtype=object)
    except ValueError:
        raise UserError(
            f"{name} must hold one label per point, got rows of different lengths"
        ) from None
    return array


def _numbers(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    """Objects as numbers; missing ones become NaN."""
    if array.dtype.kind == "O":
        kinds = {type(entry).__name__ for entry in array.flat if isinstance(entry, str | bytes)}
        filled = np.array([np.nan if _is_missing(entry) else entry for entry in array.flat], object)
        if not kinds:
            try:
                return filled.reshape(array.shape).astype(np.float64)
            except (TypeError, ValueError):
                pass
    raise UserError(
        f"{name} must hold numbers only, got {array.dtype}; encode or drop such columns"
    )


def _is_missing(entry: Any) -> bool:
    """None, NaN, or the NA and NaT of pandas."""
    if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(entry, float | np.floating) and bool(np.isnan(entry))


def _of_one_kind(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Labels held as objects, in an array of their own kind."""
    missing = sum(_is_missing(entry) for entry in array)
    if missing:
        raise UserError(f"{name} has {missing} missing labels; leave out these points")
    kinds = {_kind(entry) for entry in array}
    if len(kinds) > 1:
        raise UserError(
            f"{name} must be labels of one kind, got {' and '.join(sorted(kinds))}; make all text"
        )
    try:
        return np.array(array.tolist()) if len(array) else array.astype(np.int64)
    except (ValueError, OverflowError):
        raise UserError(f"{name} must be whole numbers, booleans or text") from None


def _kind(entry: Any) -> str:
    if isinstance(entry, str):
        return "text"
    if isinstance(entry, bytes):
        return "bytes"
    if isinstance(entry, int | float | np.integer | np.floating | np.bool_):
        return "numbers"
    return type(entry).__name__


def _decoded(name: str, array: NDArray[np.bytes_]) -> NDArray[np.str_]:
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} must be UTF-8 text ({error})") from None


def _check_whole(name: str, array: NDArray[np.floating]) -> None:
    missing = np.count_nonzero(np.isnan(array))
    if missing:
        raise UserError(f"{name} has {missing} missing labels (NaN); leave out these points")
    whole = (np.floor(array) == array) & (np.abs(array) <= _EXACT)
    if not whole.all():
        raise UserError(
            f"{name} must be class labels (whole numbers, booleans or text), got "
            f"{array[~whole][0]:g}; map each class to a number or a name"
        )


def _hint(array: NDArray[Any], name: str) -> str:
    if array.ndim == 2 and array.shape[1] == 1:
        return f"use {name}.ravel()"
    if array.ndim == 2:
        return f"one-hot and soft labels become class numbers by {name}.argmax(axis=1)"
    return "give one label per point"
