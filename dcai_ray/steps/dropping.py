"""From values to what is kept: the rule, and the tables that say so."""

import json
import time
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray.cleaning import rules
from dcai_ray.cleaning.suggestions import suggested_labels
from dcai_ray.cluster.task_pool import run_tasks
from dcai_ray.config import Config, ValueConfig, plain
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.feature_set import FeatureSet
from dcai_ray.steps.freshness import is_current
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.values import kept_table

FORMAT = 1
"""Raise this when a rule, one of its constants or the suggested labels (`cleaning.rules`,
`cleaning.probes`, `cleaning.suggestions`) change: values are then written anew."""


def is_valued(run: RunDirectory, fingerprint: str) -> bool:
    """Whether values and what is kept are there."""
    return is_current(run.kept, fingerprint) and parquet.is_up_to_date(run.values, fingerprint)


def choose(
    value: NDArray[np.float64], points: FeatureSet, config: Config
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Which images the rule keeps, and how it came to that."""
    settings = config.value
    rule, y = settings.chosen_rule, points.train.y
    if rule in ("zero", "chance"):
        threshold = threshold_of(points, config)
        return value > threshold, {"rule": rule, "threshold": threshold}
    choice: dict[str, Any] = {"rule": rule, "share": settings.drop_share}
    if rule == "validated":
        losses = _share_losses(value, points, config)
        choice["share"] = rules.best_share(losses)
        choice["log_loss"] = {f"{share:g}": loss for share, loss in losses.items()}
    kept = rules.keep_share(value, choice["share"], y, per_class=settings.per_class)
    return kept, choice


def threshold_of(points: FeatureSet, config: Config) -> float:
    """The value that parts harm from good for the rules that have one; else zero."""
    if config.value.chosen_rule == "chance":
        return rules.chance_threshold(len(points.classes), len(points.train.y))
    return 0.0


def _share_losses(
    value: NDArray[np.float64], points: FeatureSet, config: Config
) -> dict[float, float | None]:
    jobs = [tasks.ShareJob(value, share, config.value.per_class) for share in rules.SHARES]
    losses = run_tasks(
        "choosing what to keep",
        tasks.score_share,
        jobs,
        config.resources,
        unit="shares",
        run=points.run,
        names=[f"try dropping {100 * share:g} %" for share in rules.SHARES],
        shared=tasks.ProbeData(
            train=(points.train.x, points.train.y),
            clean=(points.clean.x, points.clean.y),
            val=(points.clean.x, points.clean.y),
            num_classes=len(points.classes),
        ),
    )
    return dict(zip(rules.SHARES, losses, strict=True))


def _suggested(points: FeatureSet, kept: NDArray[np.bool_], settings: ValueConfig) -> list[str]:
    """The label of the nearest kept and clean images, for people."""
    suggested = suggested_labels(
        points.train.x,
        points.train.y,
        kept,
        points.clean.x,
        points.clean.y,
        k=settings.k,
        metric=settings.metric,
    )
    return [points.classes[i] for i in suggested]


def write_values(
    run: RunDirectory,
    points: FeatureSet,
    config: Config,
    columns: dict[str, Any],
    kept: NDArray[np.bool_],
    choice: dict[str, Any],
    fingerprint: str,
    *,
    complete: bool = True,
) -> None:
    """The table of values and, where sampling is complete, what the rule keeps."""
    settings = config.value
    if complete:
        rules.check_classes_kept(kept, points.train.y, points.classes, settings.chosen_rule)
        columns["suggested_label"] = _suggested(points, kept, settings)
    columns.setdefault("stderr_validation", np.full(len(kept), np.nan))
    columns.setdefault("suggested_label", [None] * len(kept))
    whole = {"id": points.ids, "label": points.labels, **columns}
    table = pa.table([whole[name] for name in schemas.VALUES.names], schema=schemas.VALUES)
    if "value_self" in columns:
        table = table.append_column("value_self", pa.array(columns["value_self"]))
    notes = {"choice": json.dumps(choice), "settings": json.dumps(plain(settings))}
    parquet.write_table(run.values, table, fingerprint, **notes)
    if complete and not parquet.is_up_to_date(run.kept, fingerprint):
        parquet.write_table(run.kept, kept_table(table), fingerprint)


def note_values(
    run: RunDirectory,
    fingerprint: str,
    start: float,
    kept: NDArray[np.bool_],
    choice: dict[str, Any],
) -> None:
    """Write into run.json what the values came to."""
    seconds = time.monotonic() - start
    run.record_step("values", fingerprint, seconds, kept=int(kept.sum()), choice=choice)
