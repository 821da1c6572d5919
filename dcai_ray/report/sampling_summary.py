"""How certain sampled values are, read back from a run: its sampling and its cross-check."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dcai_ray import progress
from dcai_ray.cleaning.evaluation import detection_auc
from dcai_ray.images.truth import Truth
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet
from dcai_ray.storage.values import kept_mask
from dcai_ray.valuation.moments import rank_correlation


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampling so far."""

    record: dict[str, Any]
    """Its entry in run.json."""
    trace: list[dict[str, Any]]
    """Rows of its trace, as `schemas.TRACE`."""

    @property
    def imputed_share(self) -> float:
        """Share of the marginals that truncation set to zero; above 0, the values are biased."""
        return self.record["imputed"] / max(self.record["insertions"], 1)

    def lines(self) -> list[str]:
        """Its progress, in lines for the terminal."""
        record = self.record
        left = record.get("seconds_left")
        pace = record["rounds"] / record["seconds"] if record["seconds"] else 0.0
        state = "done" if record["done"] else "in progress"
        if not record["done"] and left is not None:
            state += f", about {left:.0f} s left"
        return [
            f"sampling  {state}: {record['utility']}, {record['sampler']}, until {record['stop']}",
            f"          {record['rounds']:,} rounds in {record['seconds']:,.0f} s ({pace:.1f}/s), "
            f"{100 * record['settled']:.1f} % settled, largest stderr "
            f"{record['max_stderr']:.2g}, {progress.counted(record['workers'], 'workers')}, "
            f"{record['workers_lost']} lost",
        ]


@dataclass(frozen=True, slots=True)
class Check:
    """A cross-check: the values by a second utility, compared with the run's own."""

    sampled: Sampled
    rank_correlation: float
    """With the run's own values; NaN if one of the two is constant."""
    below: int
    """Number of dropped images whose interval by the second utility lies below zero."""
    above: int
    """Number of dropped images whose interval by the second utility lies above zero."""
    auc: float | None
    """How well its low values find wrong labels; None if the truth is unknown."""


def read_sampled(run: RunDirectory) -> Sampled | None:
    """The sampling of the run's values; None if they are exact or missing."""
    record = run.record().get("sampling")
    if record is None or not run.trace.exists():
        return None
    return Sampled(record, parquet.read_table(run.trace).to_pylist())


def read_check(run: RunDirectory, values: pa.Table | None, truth: Truth | None) -> Check | None:
    """The cross-check; None if there is none, or if it values other images."""
    record = run.record().get("sampling_check")
    if values is None or record is None or not run.check.exists():
        return None
    other = parquet.read_table(run.check)
    if other["id"].to_pylist() != values["id"].to_pylist():
        return None
    dropped = ~kept_mask(values)
    value = other["value"].to_numpy()
    auc = None
    if truth is not None:
        auc = detection_auc(value[truth.known], truth.wrong[truth.known])
    return Check(
        sampled=Sampled(record, parquet.read_table(run.check_trace).to_pylist()),
        rank_correlation=rank_correlation(values["value"].to_numpy(), value),
        below=int((other["high"].to_numpy()[dropped] < 0).sum()),
        above=int((other["low"].to_numpy()[dropped] > 0).sum()),
        auc=auc,
    )
