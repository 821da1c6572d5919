"""The table of values: which images are kept, which belong together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.schemas import ESTIMATES, KEPT


def check_ids(path: Location, ids: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse values of other images.

    Raises:
        UserError: the ids differ, or their order does.
    """
    if list(ids) != list(wanted):
        raise UserError(
            f"{path}: ids do not match the training images ({len(ids)} there, {len(wanted)} now); "
            "value them again in another --run"
        )


def kept_mask(values: pa.Table) -> NDArray[np.bool_]:
    """(n,) whether the rule keeps an image; the undecided are kept."""
    return np.array([decision != "drop" for decision in values["decision"].to_pylist()])


def kept_table(values: pa.Table) -> pa.Table:
    """The rows of the values that the rule keeps, as `KEPT`."""
    columns = pa.table({name: values[name] for name in KEPT.names})
    return columns.filter(pa.array(kept_mask(values)))


def estimate_table(columns: Mapping[str, Any]) -> pa.Table:
    """Sampled values as `ESTIMATES`, from columns by name."""
    return pa.table([columns[name] for name in ESTIMATES.names], schema=ESTIMATES)
