"""The suspects of a run as a list for people: `suspects.csv`, most suspicious first.

The order is that of the report. Every image with a tier is listed (`cleaning.tiers`); where values
were written without tiers, every image that the rule drops.
"""

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from dcai_ray.cleaning.tiers import TIERS
from dcai_ray.errors import UserError
from dcai_ray.images.image_set import read_image_set
from dcai_ray.report.findings import Findings
from dcai_ray.review.formats import Task
from dcai_ray.storage.location import Location

COLUMNS = (
    *("rank", "path", "label", "suggested_label", "suggested_probability", "tier"),
    *("wrong_probability", "value", "decision", "reason"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """One training image whose label is in doubt."""

    rank: int
    """1 for the most suspicious; the place in the order of the report."""
    id: str
    path: str
    """Path below the data's root; the id if there are no images."""
    label: str
    suggested_label: str
    """The likeliest class by a classifier that has not seen the image; empty if unknown."""
    suggested_probability: float | None
    """Probability of that class."""
    tier: str
    """See `cleaning.tiers`."""
    wrong_probability: float | None
    """P(label is wrong); None where nothing was planted."""
    value: float
    decision: str
    reason: str


def suspects(findings: Findings) -> list[Suspect]:
    """All suspects, most suspicious first; none without values."""
    if findings.values is None or findings.ranking is None:
        return []
    rows = findings.values.take(findings.ranking.order).to_pylist()
    has_tiers = "tier" in findings.values.column_names
    listed = [row for row in rows if (row["tier"] if has_tiers else row["decision"] == "drop")]
    return [
        Suspect(
            rank=rank,
            id=row["id"],
            path=row.get("path") or row["id"],
            label=row["label"],
            suggested_label=row["suggested_label"] or "",
            suggested_probability=row.get("suggested_probability"),
            tier=row.get("tier") or "",
            wrong_probability=row.get("wrong_probability"),
            value=row["value"],
            decision=row["decision"],
            reason=_reason(row),
        )
        for rank, row in enumerate(listed, start=1)
    ]


def write_suspects(findings: Findings) -> Location | None:
    """Write the list to the run's folder, unless it is there; None without values."""
    if findings.values is None:
        return None
    content = io.StringIO()
    table = csv.writer(content, lineterminator="\n")
    table.writerow(COLUMNS)
    for suspect in suspects(findings):
        table.writerow(_cell(getattr(suspect, column)) for column in COLUMNS)
    target, written = findings.run.suspects, content.getvalue().encode(errors="surrogateescape")
    if not target.exists() or target.read_bytes() != written:
        target.write_bytes(written)
    return target


def tasks_of(findings: Findings) -> tuple[list[Task], list[str]]:
    """The suspects as tasks for another tool, and the classes.

    Raises:
        UserError: nothing is valued yet.
    """
    run, values = findings.run, findings.values
    if values is None:
        raise UserError(f"{run.location}: no values yet; value the images first")
    images = read_image_set(run)
    root = images.root if images is not None and images.root.remote else None
    tasks = [
        Task(
            id=suspect.id,
            split="train",
            path=suspect.path,
            uri="" if root is None else (root / suspect.path).uri,
            given_label=suspect.label,
            suggested_label=suspect.suggested_label,
            suggested_probability=suspect.suggested_probability,
            wrong_probability=suspect.wrong_probability,
        )
        for suspect in suspects(findings)
    ]
    suggested = {task.suggested_label for task in tasks} - {""}
    return tasks, sorted({*values["label"].to_pylist(), *suggested})


def count_by_tier(listed: list[Suspect]) -> dict[str, int]:
    """How many suspects each tier has, the most suspicious tier first."""
    count = Counter(suspect.tier for suspect in listed)
    return {tier: count[tier] for tier in TIERS if count[tier]}


def _reason(row: dict[str, Any]) -> str:
    """Why an image is on the list, in words."""
    given = [row.get("conflict"), row.get("reason")]
    probability, error = row.get("wrong_probability"), row["stderr_validation"]
    if probability is not None:
        given.append(f"P(wrong) {probability:.2f}" if probability < 0.995 else "P(wrong) >0.99")
    elif row["value"] < 0 and error and math.isfinite(error):
        given.append(f"value {-row['value'] / error:.1f} errors below 0")
    return "; ".join(text for text in given if text)


def _cell(entry: Any) -> Any:
    """Numbers to six digits; a number that is not known is an empty cell."""
    if entry is None or (isinstance(entry, float) and not math.isfinite(entry)):
        return ""
    return f"{entry:.6g}" if isinstance(entry, float) else entry
