"""Class probabilities by networks that were not trained on the images (out of fold)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location

_CLASSES = b"dcai_ray.classes"


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
