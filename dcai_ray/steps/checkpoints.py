"""Checkpoints of a sampling: the aggregator's state as a Parquet file, one row per training point.

A file appears whole and is named after the number of waves it holds; a sampling resumes from the
newest of its own that can be read. Those of other features or formulas are never resumed from; they
stay until the first checkpoint of the new sampling is there.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dcai_ray import progress
from dcai_ray.errors import StorageError, UserError
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

_KEPT = 2
_NUMBERS = ("imputed", "orders", "insertions", "next_index")


def write_checkpoint(
    folder: Location, state: Mapping[str, Any], fingerprint: str, notes: Mapping[str, Any]
) -> None:
    """Write the aggregator's state as one file; keep only the last two of this sampling."""
    num_chains, num_semivalues, _ = np.shape(state["mean"])
    columns: dict[str, Any] = {"evaluated": state["evaluated"]}
    for s in range(num_semivalues):
        columns[f"variation_{s}"] = state["variation"][s]
        columns[f"block_mean_sum_{s}"] = state["block_mean_sum"][s]
        for c in range(num_chains):
            columns[f"mean_{s}_{c}"] = state["mean"][c, s]
            columns[f"m2_{s}_{c}"] = state["m2"][c, s]
    numbers = {
        "count": [int(count) for count in state["count"]],
        "num_semivalues": num_semivalues,
        "seconds": state["seconds"],
        "trace": state["trace"],
        **{name: state[name] for name in _NUMBERS},
    }
    file = folder / f"wave-{state['next_index']:08d}.parquet"
    parquet.write_table(
        file, pa.table(columns), fingerprint, state=json.dumps(numbers), notes=json.dumps(notes)
    )
    names = _checkpoints(folder)
    found = parquet.fingerprints_of([folder / name for name in names])
    own = [name for name, made in zip(names, found, strict=True) if made == fingerprint]
    for name in set(names) - set(own[-_KEPT:]):
        (folder / name).delete()


def read_checkpoint(
    folder: Location, fingerprint: str
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The newest state of this sampling that can be read, with its notes; None where there is none.

    A damaged checkpoint is skipped with a warning. If all are of another sampling, one line is
    printed.

    Raises:
        OSError: a file cannot be read.
    """
    others = 0
    for name in reversed(_checkpoints(folder)):
        try:
            table = parquet.read_table(folder / name)
        except StorageError:  # says nothing about the file
            raise
        except UserError as error:
            progress.warn(f"{error}; using the previous checkpoint")
            continue
        if parquet.read_note(table, "fingerprint") == fingerprint:
            return _state(table), json.loads(parquet.read_note(table, "notes"))
        others += 1
    if others:
        progress.say(
            f"{folder}: the checkpoints are of other features or formulas; sampling starts anew"
        )
    return None, {}


def _state(table: pa.Table) -> dict[str, Any]:
    numbers = json.loads(parquet.read_note(table, "state"))
    num_semivalues, num_chains = numbers.pop("num_semivalues"), len(numbers["count"])
    column = {name: table[name].to_numpy() for name in table.column_names}

    def stacked(name: str) -> Any:
        return np.array(
            [[column[f"{name}_{s}_{c}"] for s in range(num_semivalues)] for c in range(num_chains)]
        )

    return {
        **numbers,
        "mean": stacked("mean"),
        "m2": stacked("m2"),
        "evaluated": column["evaluated"],
        "variation": np.array([column[f"variation_{s}"] for s in range(num_semivalues)]),
        "block_mean_sum": np.array([column[f"block_mean_sum_{s}"] for s in range(num_semivalues)]),
    }


def _checkpoints(folder: Location) -> Sequence[str]:
    """Names, oldest first."""
    if not folder.exists():
        return []
    return [name for name, _ in folder.walk() if name.endswith(".parquet")]
