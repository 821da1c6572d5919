"""The table of values: its columns, the images that it keeps, and the images that it belongs to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.storage.schemas import ESTIMATES, EVIDENCE, KEPT, VALUES


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Estimates:
    """The estimate of each image's value: the columns of `ESTIMATES`, n entries each."""

    id: Sequence[str]
    label: Sequence[str]
    """Class names."""
    value: NDArray[np.float64]  # (n,) in units of the utility, as are the next three
    stderr: NDArray[np.float64]  # (n,) over rounds
    low: NDArray[np.float64]  # (n,)
    high: NDArray[np.float64]  # (n,)
    rounds: NDArray[np.int64]  # (n,) observations of an image
    evaluated: NDArray[np.int64]  # (n,) marginals computed
    decision: NDArray[np.str_]  # (n,) keep, drop or undecided

    @classmethod
    def exact(
        cls,
        *,
        id: Sequence[str],
        label: Sequence[str],
        value: NDArray[np.float64],
        decision: NDArray[np.str_],
    ) -> "Estimates":
        """Exact values (n,) by a closed form, without any sampling error."""
        n = len(value)
        return cls(
            id=id,
            label=label,
            value=value,
            stderr=np.zeros(n),
            low=value,
            high=value,
            rounds=np.zeros(n, dtype=np.int64),
            evaluated=np.zeros(n, dtype=np.int64),
            decision=decision,
        )

    def table(self) -> pa.Table:
        """The table `ESTIMATES`."""
        return pa.table([getattr(self, name) for name in ESTIMATES.names], schema=ESTIMATES)


def values_table(
    estimates: Estimates,
    *,
    stderr_validation: NDArray[np.float64] | None = None,
    further: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
) -> pa.Table:
    """The table `VALUES`, with those of its `EVIDENCE` columns that are known.

    Args:
        estimates: the estimates of n images.
        stderr_validation: (n,) standard errors over validation points; None for sampled values.
        further: columns of n entries by their names in `EVIDENCE`; NaN for what is not known.
    """
    further = further or {}
    n = len(estimates.value)
    if stderr_validation is None:
        stderr_validation = np.full(n, np.nan)
    columns = {
        "suggested_label": further.get("suggested_label", [None] * n),
        "stderr_validation": stderr_validation,
        **{name: further[name] for name in EVIDENCE.names if name in further},
    }
    table = estimates.table()
    for name, column in columns.items():
        entry = (VALUES if name in VALUES.names else EVIDENCE).field(name)
        table = table.append_column(
            entry, pa.array(column, type=entry.type, from_pandas=name in EVIDENCE.names)
        )
    return table


def check_ids(path: Location, ids: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse values of other images.

    Raises:
        UserError: the ids or their order differ.
    """
    if list(ids) != list(wanted):
        raise UserError(
            f"{path}: ids do not match the training images ({len(ids)} there, {len(wanted)} now); "
            "value them again in another --run"
        )


def kept_mask(values: pa.Table) -> NDArray[np.bool_]:
    """(n,) whether the rule keeps an image; undecided images are kept."""
    return np.array([decision != "drop" for decision in values["decision"].to_pylist()])


def kept_digest(values: pa.Table) -> str:
    """A hash of which images are kept, that tells whether models were trained on these."""
    kept = [
        i for i, is_kept in zip(values["id"].to_pylist(), kept_mask(values), strict=True) if is_kept
    ]
    return new_fingerprint("kept", kept)


def suggestions(
    values: pa.Table, classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """(n,) suggested class numbers and (n,) their probabilities, NaN where unknown.

    None if the values suggest no label, or do not say how likely it is.

    Args:
        values: the table of n images.
        classes: class number i is classes[i].
    """
    if not {"suggested_label", "suggested_probability"} <= set(values.column_names):
        return None
    number = {label: i for i, label in enumerate(classes)}
    suggested = [number.get(label, -1) for label in values["suggested_label"].to_pylist()]
    probability = values["suggested_probability"].to_numpy(zero_copy_only=False)
    known = np.array(suggested, dtype=np.int64)
    return known, np.where(known >= 0, probability, np.nan)


def kept_table(values: pa.Table) -> pa.Table:
    """The rows of the values that the rule keeps, as `KEPT`."""
    columns = pa.table({name: values[name] for name in KEPT.names})
    return columns.filter(pa.array(kept_mask(values)))
