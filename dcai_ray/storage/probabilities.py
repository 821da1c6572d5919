"""Class probabilities by networks that were not trained on the images (out of fold).

Those of a user's own network come from a CSV or Parquet file. One row per image: `id` as in the
features (the path below the split's folder, `cat/0001.jpg`), `split` (train or shapley_val; train
where there is no such column), and one column per class with the probability of that class. A
network that was trained on an image agrees with its label, even a wrong one.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location

_CLASSES = b"dcai_ray.classes"
_TOLERANCE = 1e-2  # of a row's sum, for files with few digits


@dataclass(frozen=True, slots=True, eq=False)
class Probabilities:
    """Probabilities of k images."""

    splits: Sequence[str]
    ids: Sequence[str]
    classes: Sequence[str]
    p: NDArray[np.float64]  # (k, C)

    def table(self) -> pa.Table:
        """As the file of a run: split, id, and a list of one probability per class.

        The names of the classes are in its metadata, as any name may occur among them.
        """
        flat = pa.array(self.p.ravel())
        lists = pa.FixedSizeListArray.from_arrays(flat, self.p.shape[1])
        table = pa.table({"split": self.splits, "id": self.ids, "probability": lists})
        return table.replace_schema_metadata({_CLASSES: json.dumps(list(self.classes)).encode()})

    @classmethod
    def of(cls, table: pa.Table) -> "Probabilities":
        """What `table` gave."""
        lists = table["probability"].combine_chunks()
        p = lists.flatten().to_numpy().reshape(len(table), -1)
        classes = json.loads(table.schema.metadata[_CLASSES])
        return cls(table["split"].to_pylist(), table["id"].to_pylist(), classes, p)


def read_probabilities(
    file: Location, wanted: Mapping[str, Sequence[str]], classes: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Probabilities (k, C) of a user's network by split, in the order of the ids.

    Args:
        file: the table.
        wanted: ids by split; each must have a row.
        classes: the names of the C classes; each must have a column.
    Raises:
        UserError: the file is no table, or a column or a row is missing, occurs twice or makes no
            sense; the message names it.
        OSError: the file cannot be read.
    """
    table = _read(file)
    missing = [name for name in ("id", *classes) if name not in table.column_names]
    if missing:
        raise UserError(
            f"{file}: no column {missing[0]!r}; expected id, optionally split, and one column of "
            "probabilities per class"
        )
    ids = [str(entry) for entry in table["id"].to_pylist()]
    has_splits = "split" in table.column_names
    splits = table["split"].to_pylist() if has_splits else ["train"] * len(ids)
    return select(
        file, Probabilities(splits, ids, classes, _numbers(file, table, classes)), wanted, classes
    )


def select(
    file: Location,
    there: Probabilities,
    wanted: Mapping[str, Sequence[str]],
    classes: Sequence[str],
) -> dict[str, NDArray[np.float64]]:
    """The wanted rows of a file by split, with these classes.

    Raises:
        UserError: a class or a row is missing, or an id occurs twice.
    """
    missing = [name for name in classes if name not in there.classes]
    if missing:
        raise UserError(f"{file}: no probabilities of class {missing[0]!r}")
    columns = [list(there.classes).index(name) for name in classes]
    rows = {key: row for row, key in enumerate(zip(there.splits, there.ids, strict=True))}
    if len(rows) < len(there.ids):
        raise UserError(f"{file}: {len(there.ids) - len(rows)} rows have an id that occurs twice")
    found = {}
    for split, names in wanted.items():
        absent = [name for name in names if (split, name) not in rows]
        if absent:
            raise UserError(
                f"{file}: no row for {len(absent)} of {len(names)} images of {split}, the first "
                f"{absent[0]}; rows of shapley_val have that name in the column split"
            )
        found[split] = there.p[np.ix_([rows[split, name] for name in names], columns)]
    return found


def _read(file: Location) -> pa.Table:
    content = file.read_bytes()
    try:
        if content.startswith(b"PAR1"):
            return pa.parquet.read_table(io.BytesIO(content))
        return pa.csv.read_csv(io.BytesIO(content))
    except pa.ArrowInvalid as error:
        line = " ".join(str(error).split())
        raise UserError(f"{file}: neither a CSV nor a Parquet table ({line})") from None


def _numbers(file: Location, table: pa.Table, classes: Sequence[str]) -> NDArray[np.float64]:
    """(rows, C) the probabilities, checked."""
    columns = []
    for name in classes:
        try:
            column = pc.cast(table[name], pa.float64()).to_numpy(zero_copy_only=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(f"{file}: column {name!r} must hold numbers") from None
        columns.append(column)
    numbers = np.stack(columns, axis=1)
    bad = np.flatnonzero(
        ~(np.isfinite(numbers).all(axis=1) & (numbers >= 0).all(axis=1))
        | ~(abs(numbers.sum(axis=1) - 1) <= _TOLERANCE)
    )
    if len(bad):
        raise UserError(
            f"{file}: {len(bad)} rows are not probabilities that sum to 1, the first that of "
            f"{table['id'][int(bad[0])]}; give softmax outputs, not logits"
        )
    return numbers
