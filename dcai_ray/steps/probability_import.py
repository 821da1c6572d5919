"""Class probabilities of a user's own network, by no model that was trained on the image.

They come as a table, one row per image: `id` as in the features (the path
below the split's folder, `cat/0001.jpg`), `split` (train or shapley_val; train where there is no
such column), and one column per class with the probability of that class. Or as a matrix with one
column per class, in the order of their names. A network that was trained on an image agrees with
its label, even a wrong one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.probabilities import Probabilities, select
from dcai_ray.valuation.arrays import texts

_TOLERANCE = 1e-2  # of a row's sum, for files with few digits


def probabilities_among(
    file: Location,
    arrays: Mapping[str, NDArray[Any]],
    wanted: Mapping[str, Sequence[str]],
    classes: Sequence[str],
) -> dict[str, NDArray[np.float64]]:
    """Probabilities (k, C) of a user's network by split, in the order of the ids.

    Args:
        file: what messages call it.
        arrays: the columns of a table, or a matrix and perhaps `id` or `ids`, `split` and `classes`
            beside it. Without ids its rows are the wanted images, in their order, split by split.
        wanted: ids by split; each must have a row.
        classes: the names of the C classes; without `classes`, the columns of a matrix are these.
    Raises:
        UserError: a column, an array or a row is missing, occurs twice or makes no sense; the
            message names it.
    """
    ids = next((arrays[name] for name in ("id", "ids") if name in arrays), None)
    names, columns = _by_class(file, arrays, classes)
    if ids is None:
        count = sum(map(len, wanted.values()))
        if len(columns) != count:
            sizes = " and ".join(f"{len(rows)} of {split}" for split, rows in wanted.items())
            raise UserError(
                f"{file}: {len(columns)} rows without ids for {sizes} images; give a row per image "
                "in their order, or ids (the path below the split's folder)"
            )
        splits = [split for split, rows in wanted.items() for _ in rows]
        names_of_rows = [name for rows in wanted.values() for name in rows]
    else:
        names_of_rows = texts(f"{file}: ids", ids, len(columns))
        given = arrays.get("split", ["train"] * len(columns))
        splits = texts(f"{file}: split", given, len(columns))
    p = _checked(file, columns, names_of_rows)
    return select(file, Probabilities(splits, names_of_rows, names, p), wanted, classes)


def _by_class(
    file: Location, arrays: Mapping[str, NDArray[Any]], classes: Sequence[str]
) -> tuple[Sequence[str], NDArray[np.float64]]:
    """The names of the columns and the numbers (rows, C), from a matrix or a table."""
    matrices = [array for array in arrays.values() if array.ndim == 2]
    if len(matrices) > 1:
        raise UserError(f"{file}: {len(matrices)} matrices; expected one, of probabilities")
    if not matrices:
        missing = [name for name in classes if name not in arrays]
        if missing:
            raise UserError(
                f"{file}: no column {missing[0]!r}; expected id, optionally split, and one column "
                "of probabilities per class"
            )
        columns = [_column(file, name, arrays[name]) for name in classes]
        return classes, np.stack(columns, axis=1)
    width = matrices[0].shape[1]
    names = texts(f"{file}: classes", arrays["classes"], width) if "classes" in arrays else classes
    if len(names) != width:
        raise UserError(
            f"{file}: {width} columns for {len(names)} classes ({', '.join(names[:5])}"
            f"{', ...' if len(names) > 5 else ''}); give one column per class, in this order"
        )
    return names, _column(file, "probabilities", matrices[0])


def _column(file: Location, name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    try:
        return array.astype(np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{file}: column {name!r} must hold numbers") from None


def _checked(
    file: Location, numbers: NDArray[np.float64], ids: Sequence[str]
) -> NDArray[np.float64]:
    """(rows, C) the probabilities, if they are any."""
    bad = np.flatnonzero(
        ~(np.isfinite(numbers).all(axis=1) & (numbers >= 0).all(axis=1))
        | ~(abs(numbers.sum(axis=1) - 1) <= _TOLERANCE)
    )
    if len(bad):
        raise UserError(
            f"{file}: {len(bad)} rows are not probabilities that sum to 1, the first that of "
            f"{ids[bad[0]]}; give softmax outputs, not logits"
        )
    return numbers
