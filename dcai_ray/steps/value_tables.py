"""The files of step 2b: the table of values with its decisions, the evidence, what is kept."""

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray import progress
from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.recall import Detection, Interval
from dcai_ray.cleaning.tiers import likely_above, tiers
from dcai_ray.config import Config, plain
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.conflicts import tell_near_copies
from dcai_ray.steps.dropping import Decided
from dcai_ray.steps.evidence import Known
from dcai_ray.steps.feature_set import FeatureSet
from dcai_ray.steps.freshness import is_current
from dcai_ray.storage import parquet
from dcai_ray.storage.values import Estimates, kept_table, values_table


def is_valued(run: RunDirectory, fingerprint: str) -> bool:
    """Whether the values and the table of kept images are up to date."""
    return is_current(run.kept, fingerprint) and parquet.is_up_to_date(run.values, fingerprint)


def write_values(
    run: RunDirectory,
    points: FeatureSet,
    config: Config,
    estimates: Estimates,
    choice: Choice,
    fingerprint: str,
    *,
    stderr_validation: NDArray[np.float64] | None = None,
    known: Known | None = None,
) -> None:
    """Write the table of values and, where sampling is complete, what the rule keeps.

    Args:
        run: the run folder.
        points: the features that were valued.
        config: its section value is used.
        estimates: the estimates of the n images, with the decisions of the choice.
        choice: the choice of the rule.
        fingerprint: fingerprint of the values.
        stderr_validation: (n,) standard errors over validation points; None for sampled values.
        known: what is known about the labels; None for interim values, which are for inspection
            only.
    """
    further: dict[str, Sequence[Any] | NDArray[Any]] = {}
    if known is not None:
        # A sampled value is known as well as its interval says.
        error = estimates.high - estimates.value if stderr_validation is None else stderr_validation
        further = _columns(run, points, config, choice, known)
        further["tier"] = _tiers(
            estimates.value, error, choice, known, further.get("wrong_probability")
        )
    table = values_table(estimates, stderr_validation=stderr_validation, further=further)
    notes = {"choice": json.dumps(choice.note()), "settings": json.dumps(plain(config.value))}
    if known is not None:
        parquet.write_table(run.evidence, _evidence_table(points, known), fingerprint)
    parquet.write_table(run.values, table, fingerprint, **notes)
    if known is not None and not parquet.is_up_to_date(run.kept, fingerprint):
        parquet.write_table(run.kept, kept_table(table), fingerprint)


def _columns(
    run: RunDirectory, points: FeatureSet, config: Config, choice: Choice, known: Known
) -> dict[str, Sequence[Any] | NDArray[Any]]:
    """Columns of the table of values that come from the evidence."""
    probe, judged, doubts = known.evidence.probe, known.judged, known.doubts
    suggested, likely = known.copies.suggest(probe.suggested, probe.suggested_probability)
    columns: dict[str, Sequence[Any] | NDArray[Any]] = {
        "suggested_label": suggested,
        "suggested_probability": likely,
        "margin": probe.margins[:, probe.best],
        "conflict": known.copies.words,
    }
    if known.own is not None and config.value.validation != "self":
        columns["value_self"] = known.own.column.value[0]
    if judged is not None:
        # A class that the clean set lacks looks wrong to everything that learns from it.
        lacking = ~np.isin(points.train.y, points.clean.y)
        columns["wrong_probability"] = np.where(lacking, np.nan, judged.wrong_probability)
    if doubts is not None:
        columns["suspicion"] = doubts.suspicion
    if choice.reason is not None:
        columns["reason"] = choice.reason
    paths = _paths(run, points.ids)
    if paths is not None:
        columns["path"] = paths
    return columns


def _paths(run: RunDirectory, ids: Sequence[str]) -> list[str] | None:
    """(n,) paths of the training images below the data's root; None if they are unknown."""
    if not run.images.exists():
        return None
    table = parquet.read_table(run.images).select(["split", "id", "path"])
    path = {row["id"]: row["path"] for row in table.to_pylist() if row["split"] == "train"}
    return [path[id] for id in ids] if set(ids) <= set(path) else None


def _tiers(
    value: NDArray[np.float64],
    error: NDArray[np.float64],
    choice: Choice,
    known: Known,
    wrong_probability: Any,
) -> list[str | None]:
    """(n,) how suspicious each image is; None for no suspect."""
    judged, probe = known.judged, known.evidence.probe
    found = tiers(
        value=value,
        error=error,
        vote_against=np.where(probe.suggested != known.y, probe.suggested_probability, 0.0),
        flagged=~choice.kept | known.copies.conflicts.found,
        wrong_probability=wrong_probability,
        likely_above=np.inf if judged is None else likely_above(judged, known.evidence.labels),
    )
    return [tier or None for tier in found.tolist()]


def _evidence_table(points: FeatureSet, known: Known) -> pa.Table:
    """Every piece of evidence for the given labels."""
    columns = dict(zip(known.evidence.names, known.evidence.given.T, strict=True))
    return pa.table({"id": points.ids, "label": points.labels, **columns})


def note_values(
    run: RunDirectory,
    fingerprint: str,
    start: float,
    decided: Decided,
    points: FeatureSet,
    known: Known,
) -> None:
    """Record in run.json what the rule made of the values.

    Args:
        run: the run folder.
        fingerprint: fingerprint of the values.
        start: start of the step, on the monotonic clock.
        decided: the decisions.
        points: the features, for the names of the classes.
        known: what is known about the labels.
    """
    choice, separation = decided.choice, known.evidence.probe.separation
    tell_near_copies(known.copies.leaks, "shapley_val")
    for line in known.label_doubts:
        progress.warn(line)
    run.record_step(
        "values",
        fingerprint,
        time.monotonic() - start,
        kept=int(choice.kept.sum()),
        conflicts=known.copies.count,
        near_copies_across_splits=list(known.copies.leaks),
        choice=choice.note(),
        clean=known.num_clean,
        clean_errors=known.clean_errors,
        label_doubts=list(known.label_doubts),
        planted=_planted_note(decided, points, known),
        separation=None if np.isnan(separation) else separation,
        suspicious=None if known.doubts is None else known.doubts.share,
    )


def _planted_note(decided: Decided, points: FeatureSet, known: Known) -> dict[str, Any] | None:
    """What planted errors say, ready for JSON."""
    judged = known.judged
    if judged is None:
        return None
    classes = {}
    for c, (name, share) in enumerate(zip(points.classes, judged.class_shares, strict=True)):
        found = decided.planted_by_class[c] if decided.planted_by_class else None
        classes[name] = {**_flat("share", share), **_detection_note(found)}
    return {
        "images": len(known.evidence.labels),
        **_flat("share", judged.share),
        **_detection_note(decided.planted),
        "classes": classes,
    }


def _detection_note(found: Detection | None) -> dict[str, float | None]:
    if found is None:
        return {}
    return {**_flat("recall", found.recall), **_flat("false_alarms", found.false_alarms)}


def _flat(name: str, interval: Interval) -> dict[str, float | None]:
    """An interval as three entries; what is not known is None."""
    entries = {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {key: None if np.isnan(entry) else round(entry, 6) for key, entry in entries.items()}
