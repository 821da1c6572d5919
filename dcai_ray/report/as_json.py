"""The results of a run for scripts: what `--json` prints, ready for JSON."""

import math
from dataclasses import asdict
from typing import Any

from dcai_ray.report import terminal
from dcai_ray.report.findings import Findings
from dcai_ray.report.suspect_list import count_by_tier, suspects


def results(findings: Findings) -> dict[str, Any]:
    """All that the terminal shows, and the whole table of accuracies; unknown numbers are None."""
    listed = suspects(findings)
    found: dict[str, Any] = {
        "run": findings.run.location.uri,
        "report": findings.run.report.uri,
        "verdict": terminal.verdict(findings),
        "warnings": terminal.warnings(findings),
        "accuracies": [asdict(row) for row in findings.table],
    }
    if findings.values is not None:
        found |= {
            "values": findings.run.values.uri,
            "suspects": findings.run.suspects.uri,
            "images": len(findings.values),
            "dropped": findings.num_dropped,
            "rule": None if findings.choice is None else findings.choice.note(),
            "tiers": count_by_tier(listed),
            "worst": [asdict(suspect) for suspect in listed[: terminal.NUM_WORST]],
            "detection": _detection(findings),
            "planted": findings.record.get("steps", {}).get("values", {}).get("planted"),
        }
    plain: dict[str, Any] = _known(found)
    return plain


def _detection(findings: Findings) -> dict[str, Any] | None:
    """How well wrong labels are found; None where the truth is unknown."""
    found = findings.detection
    if found is None:
        return None
    names = ("auc", "wrong", "dropped_wrong", "precision", "recall")
    return {name: getattr(found, name) for name in names}


def _known(entry: Any) -> Any:
    """The entry with None for numbers that JSON does not know."""
    if isinstance(entry, dict):
        return {key: _known(each) for key, each in entry.items()}
    if isinstance(entry, list | tuple):
        return [_known(each) for each in entry]
    if isinstance(entry, float):
        return entry if math.isfinite(entry) else None
    return entry
