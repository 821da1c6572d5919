"""Class probabilities of a user's own network, from a CSV or Parquet file.

One row per image: `id` as in the features (the path below the split's folder, `cat/0001.jpg`),
`split` (train or shapley_val; train where there is no such column), and one column per class with
the probability of that class. They must come from a network that was not trained on the image
(out of fold): a network agrees with the labels that it has learnt, wrong ones too.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location

_TOLERANCE = 1e-2  # of a row's sum, for files with few digits


def read_probabilities(
    file: Location, wanted: Mapping[str, Sequence[str]], classes: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Probabilities (k, C) by split, in the order of the ids.

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
    rows = {key: row for row, key in enumerate(zip(splits, ids, strict=True))}
    if len(rows) < len(ids):
        raise UserError(f"{file}: {len(ids) - len(rows)} rows have an id that occurs twice")
    numbers = _numbers(file, table, classes)
    found = {}
    for split, names in wanted.items():
        absent = [name for name in names if (split, name) not in rows]
        if absent:
            raise UserError(
                f"{file}: no row for {len(absent)} of {len(names)} images of {split}, the first "
                f"{absent[0]}; rows of shapley_val have that name in the column split"
            )
        found[split] = numbers[[rows[split, name] for name in names]]
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
