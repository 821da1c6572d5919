"""Rows of a table as examples: what a reader is shown of each, and columns of unlike scales.

A row without a picture is shown by its columns: as text if one column is named, or else as
`name = value, ...`. Distances add columns up, so one in thousands outweighs one in hundredths;
`Scaling` gives every column mean 0 and standard deviation 1, as scikit-learn's StandardScaler does,
with the means and deviations of train in every split.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.features import find_split
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint, read_note, read_table

MAX_SHOWN = 50
"""A table of more columns of numbers is an embedding, which says nothing to a reader."""
_UNLIKE = 100.0  # largest over smallest standard deviation that is worth a line

Arrays = Mapping[str, NDArray[Any]]


def take_shown(
    file: Location, arrays: Arrays, columns: Sequence[str], no_features: Sequence[str]
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays without the text that is only shown, and what is shown of each row.

    Args:
        file: what messages call it.
        arrays: the arrays of the file.
        columns: those to show; columns of numbers remain features.
        no_features: names of ids and labels, which are kept.
    Raises:
        UserError: a column is missing, or is not one entry per row.
    """
    count = len(next(iter(arrays.values()), ()))
    for name in columns:
        if name not in arrays:
            raise UserError(
                f"{file}: no column {name!r} to show; choose from {', '.join(arrays) or 'none'}"
            )
        if arrays[name].ndim != 1 or len(arrays[name]) != count:
            raise UserError(
                f"{file}: {name!r} must have one entry per row to be shown, got shape "
                f"{arrays[name].shape}; show another column"
            )
    shown = lines({name: arrays[name] for name in columns})
    text = [n for n in columns if arrays[n].dtype.kind not in "biuf" and n not in no_features]
    return {name: array for name, array in arrays.items() if name not in text}, shown


def row_columns(arrays: Arrays, no_features: Sequence[str]) -> list[str]:
    """The columns of numbers of a table of rows; none of an embedding or of a matrix.

    Args:
        arrays: the arrays of a file.
        no_features: names of ids and labels.
    """
    rest = {name: array for name, array in arrays.items() if name not in no_features}
    is_table = all(array.ndim == 1 and array.dtype.kind in "biuf" for array in rest.values())
    return list(rest) if is_table and 1 < len(rest) <= MAX_SHOWN else []


def unlike_scales(columns: Sequence[str], x: NDArray[np.float32]) -> str:
    """What to say of columns whose spreads differ by orders of magnitude; empty if none do.

    Args:
        columns: d names.
        x: (k, d) features.
    """
    spread = x.std(axis=0, dtype=np.float64)
    varying = np.flatnonzero(spread > 0)
    if len(varying) < 2:
        return ""
    widest, narrowest = (varying[at(spread[varying])] for at in (np.argmax, np.argmin))
    ratio = spread[widest] / spread[narrowest]
    if ratio < _UNLIKE:
        return ""
    return (
        f"column {columns[widest]!r} spreads {ratio:,.0f} times as wide as {columns[narrowest]!r} "
        "and decides which rows are near; --standardize gives all columns the same spread"
    )


def lines(columns: Arrays) -> list[str]:
    """One text per row: the entry of the only column, or each entry with its column's name."""
    entries = {name: _texts(array) for name, array in columns.items()}
    if len(entries) == 1:
        return next(iter(entries.values()))
    rows = zip(*entries.values(), strict=True)
    return [", ".join(f"{n} = {e}" for n, e in zip(entries, row, strict=True)) for row in rows]


@dataclass(frozen=True, slots=True)
class Scaling:
    """The mean and the standard deviation of every column of train."""

    mean: tuple[float, ...]  # (d,)
    std: tuple[float, ...]  # (d,); 1 for a constant column

    @classmethod
    def of(cls, x: NDArray[np.float32]) -> "Scaling":
        """That of training features (n, d)."""
        std = x.std(axis=0, dtype=np.float64)
        mean = x.mean(axis=0, dtype=np.float64)
        return cls(tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist()))

    @classmethod
    def of_train(cls, folder: Location) -> "Scaling":
        """That which a split of training features was imported with.

        Raises:
            UserError: it is not there, or was imported as it is.
        """
        if not folder.exists():
            raise UserError(f"{folder}: no features; import train first, its scales apply to all")
        text = read_note(read_table(find_split(folder).shards[0]), "scaling")
        if not text:
            raise UserError(
                f"{folder}: imported without --standardize; import train again with it, or this "
                "split without"
            )
        return cls(**{name: tuple(numbers) for name, numbers in json.loads(text).items()})

    def apply(self, file: Location, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (k, d) in these units.

        Raises:
            UserError: x has another number of columns.
        """
        if x.shape[1] != len(self.mean):
            raise UserError(
                f"{file}: {x.shape[1]} columns of features, those of train are {len(self.mean)}"
            )
        return ((x.astype(np.float64) - self.mean) / self.std).astype(np.float32)

    def as_note(self) -> str:
        """JSON for the metadata of a shard."""
        return json.dumps({"mean": self.mean, "std": self.std})

    @property
    def name(self) -> str:
        """What the features are called, so that no split in other units is taken for a match."""
        return f"standardized {new_fingerprint(self.mean, self.std)[:8]}"


def _texts(column: NDArray[Any]) -> list[str]:
    if column.dtype.kind == "f":
        return [f"{number:.6g}" for number in column.tolist()]
    if column.dtype.kind == "S":
        return [entry.decode(errors="replace") for entry in column.tolist()]
    found = ["" if entry is None else str(entry) for entry in column.tolist()]
    return [text.encode(errors="replace").decode() for text in found]  # no lone surrogates
