"""Step 2b: the value of every training image by the closed form, and what the rule keeps.

Validation points go to Ray in blocks; their sums are merged in order.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray import cleaning, tables
from dcai_ray.config import Config, ResourcesConfig, ValueConfig, plain
from dcai_ray.distributed import tasks
from dcai_ray.distributed.pool import run_tasks
from dcai_ray.run_directory import RunDirectory
from dcai_ray.tables import fingerprint
from dcai_ray.valuation.knn_shapley import Sums, knn_game, merge, standard_error

_SELF_WEIGHT = 0.4  # of a training point against a clean one, where both serve as validation


@dataclass(frozen=True, slots=True)
class Points:
    """Features with class numbers."""

    x: NDArray[np.float32]  # (k, d)
    y: NDArray[np.int64]  # (k,)


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The features of a run as arrays."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    train: Points
    clean: Points
    """Of shapley_val; no points where there is none."""
    fingerprint: str


def read_points(run: RunDirectory) -> FeatureSet:
    """Features of train, and of shapley_val where there are any.

    Raises:
        ValueError: they are missing, damaged, or do not fit together.
    """
    train = tables.read_features(run.features / "train")
    classes = tuple(sorted(set(train.labels)))
    if len(classes) < 2:
        raise ValueError(f"{run.features / 'train'}: only one class ({classes[0]}); two are needed")
    points = Points(train.x, tables.class_numbers(train.labels, classes, run.features / "train"))
    folder = run.features / "shapley_val"
    clean = Points(train.x[:0], points.y[:0])
    made_from = [train.fingerprint]
    if tables.has_features(folder):
        found = tables.read_features(folder)
        tables.check_same_features(train, found, ("train", "shapley_val"))
        clean = Points(found.x, tables.class_numbers(found.labels, classes, folder))
        made_from.append(found.fingerprint)
    return FeatureSet(train.ids, train.labels, classes, points, clean, fingerprint(made_from))


def compute_values(run: RunDirectory, config: Config) -> None:
    """Value every training image; `values/values.parquet` and `kept.parquet`.

    Raises:
        ValueError: features are missing or do not fit, or the rule would empty a class.
    """
    settings = config.value
    points = read_points(run)
    if settings.validation != "self" and not len(points.clean.y):
        raise ValueError(
            f"{run.features}: no features of shapley_val to value with; use --validation self"
        )
    made_from = fingerprint("values", plain(settings), points.fingerprint)
    if tables.is_made(run.values, made_from) and tables.is_made(run.kept, made_from):
        return
    start = time.monotonic()
    columns = _closed_form(points, config)
    kept, choice = _choose(columns["value"], points, config)
    cleaning.check_classes_kept(kept, points.train.y, points.classes, settings.chosen_rule)
    table = _value_table(points, columns, kept, settings)
    notes = {"choice": json.dumps(choice), "settings": json.dumps(plain(settings))}
    tables.write_table(run.values, table, made_from, **notes)
    if not tables.is_made(run.kept, made_from):
        tables.write_table(run.kept, tables.kept_table(table), made_from)
    run.note_step(
        "values", made_from, time.monotonic() - start, kept=int(kept.sum()), choice=choice
    )


def _closed_form(points: FeatureSet, config: Config) -> dict[str, NDArray[np.float64]]:
    """Columns value, stderr_validation and, where computed, value_self."""
    settings = config.value
    n, m = len(points.train.y), len(points.clean.y)
    found: dict[str, tuple[Sums, int]] = {}
    if settings.validation != "self":
        found["clean"] = _sums(points.train, points.clean, settings, config.resources), m
    if settings.validation != "clean" or 2 <= n <= settings.second_opinion_up_to:
        found["self"] = _sums(points.train, None, settings, config.resources), n
    if settings.validation == "both":
        weights = {"clean": m, "self": _SELF_WEIGHT * n}
    else:
        weights = {settings.validation: 1.0}
    value, variance = np.zeros(n), np.zeros(n)
    for name, weight in weights.items():
        sums, count = found[name]
        share = weight / sum(weights.values())
        value += share * (sums.total / count)
        variance += (share * standard_error(sums, count)) ** 2
    columns = {"value": value, "stderr_validation": np.sqrt(variance)}
    if "self" in found and settings.validation != "self":
        columns["value_self"] = found["self"][0].total / n
    return columns


def _sums(
    train: Points, clean: Points | None, settings: ValueConfig, resources: ResourcesConfig
) -> Sums:
    """Values summed over the clean points, or over the training points themselves."""
    game = knn_game(
        train.x,
        train.y,
        clean.x if clean else None,
        clean.y if clean else None,
        k=settings.k,
        metric=settings.metric,
        semivalue=settings.semivalue,
        beta=settings.beta,
    )
    return merge(
        run_tasks(
            "values by shapley_val" if clean else "values by train itself",
            tasks.value_block,
            game.blocks,
            resources,
            unit="validation images",
            sizes=[block.stop - block.start for block in game.blocks],
            shared=game,
        )
    )


def _choose(
    value: NDArray[np.float64], points: FeatureSet, config: Config
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """Which images the rule keeps, and how it came to that."""
    settings = config.value
    rule, y = settings.chosen_rule, points.train.y
    if rule in ("zero", "chance"):
        by_chance = cleaning.chance_threshold(len(points.classes), len(y))
        threshold = by_chance if rule == "chance" else 0.0
        return value > threshold, {"rule": rule, "threshold": threshold}
    choice: dict[str, Any] = {"rule": rule, "share": settings.drop_share}
    if rule == "validated":
        losses = _share_losses(value, points, config)
        choice["share"] = cleaning.best_share(losses)
        choice["log_loss"] = {f"{share:g}": loss for share, loss in losses.items()}
    kept = cleaning.keep_share(value, choice["share"], y, per_class=settings.per_class)
    return kept, choice


def _share_losses(
    value: NDArray[np.float64], points: FeatureSet, config: Config
) -> dict[float, float | None]:
    jobs = [tasks.ShareJob(value, share, config.value.per_class) for share in cleaning.SHARES]
    losses = run_tasks(
        "choosing what to keep",
        tasks.score_share,
        jobs,
        config.resources,
        unit="shares",
        shared=tasks.ProbeData(
            train=(points.train.x, points.train.y),
            clean=(points.clean.x, points.clean.y),
            val=(points.clean.x, points.clean.y),
            num_classes=len(points.classes),
        ),
    )
    return dict(zip(cleaning.SHARES, losses, strict=True))


def _value_table(
    points: FeatureSet,
    columns: dict[str, NDArray[np.float64]],
    kept: NDArray[np.bool_],
    settings: ValueConfig,
) -> pa.Table:
    """As `tables.VALUES`, with value_self where it was computed."""
    n = len(kept)
    suggested = cleaning.suggested_labels(
        points.train.x,
        points.train.y,
        kept,
        points.clean.x,
        points.clean.y,
        k=settings.k,
        metric=settings.metric,
    )
    exact = {  # the closed form leaves nothing to sampling
        "stderr": np.zeros(n),
        "low": columns["value"],
        "high": columns["value"],
        "rounds": np.zeros(n, dtype=np.int64),
        "evaluated": np.zeros(n, dtype=np.int64),
    }
    whole: dict[str, Sequence[Any] | NDArray[Any]] = {
        "id": points.ids,
        "label": points.labels,
        "decision": np.where(kept, "keep", "drop").tolist(),
        "suggested_label": [points.classes[i] for i in suggested],
        **exact,
        **columns,
    }
    table = pa.table([whole[name] for name in tables.VALUES.names], schema=tables.VALUES)
    if "value_self" in columns:
        table = table.append_column("value_self", pa.array(columns["value_self"]))
    return table
