"""Step 2b: the value of every training image, and what the rule keeps.

By the closed form validation points go to Ray in blocks, and their sums are merged in order; by
sampling, chains of rounds do, and the aggregator merges them (`sampling`, `chains`).
"""

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray import cleaning, tables
from dcai_ray.config import Config, ResourcesConfig, ValueConfig, plain
from dcai_ray.distributed import tasks
from dcai_ray.distributed.pool import run_tasks
from dcai_ray.distributed.sampling import describe_estimate, sample_values, sampled_from
from dcai_ray.run_directory import RunDirectory
from dcai_ray.sampling import Sampling, new_sampling
from dcai_ray.tables import fingerprint
from dcai_ray.valuation.convergence import Aggregator
from dcai_ray.valuation.intervals import e_bh, e_values, false_discovery_bound
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
        ValueError: features are missing or do not fit, the utility fails, or the rule would empty a
            class.
    """
    settings = config.value
    points = read_points(run)
    if settings.validation != "self" and not len(points.clean.y):
        raise ValueError(
            f"{run.features}: no features of shapley_val to value with; use --validation self"
        )
    if settings.method == "sample":
        _sample(run, points, config)
        return
    made_from = fingerprint("values", plain(settings), points.fingerprint)
    if tables.is_made(run.values, made_from) and tables.is_made(run.kept, made_from):
        return
    start = time.monotonic()
    columns = _closed_form(points, config)
    kept, choice = _choose(columns["value"], points, config)
    n = len(kept)
    exact = {  # the closed form leaves nothing to sampling
        "stderr": np.zeros(n),
        "low": columns["value"],
        "high": columns["value"],
        "rounds": np.zeros(n, dtype=np.int64),
        "evaluated": np.zeros(n, dtype=np.int64),
        "decision": np.where(kept, "keep", "drop").tolist(),
    }
    _write(run, points, config, {**exact, **columns}, kept, choice, made_from)
    _note(run, made_from, start, kept, choice)


def estimate_sampling(run: RunDirectory, config: Config) -> list[str]:
    """What sampling would take: lines for a person.

    Raises:
        ValueError: the method is exact, or as `compute_values`.
    """
    if config.value.method != "sample":
        raise ValueError("--dry-run is for --method sample; the closed form takes seconds")
    points = read_points(run)
    return describe_estimate(_new_sampling(points, config), config)


def _new_sampling(points: FeatureSet, config: Config) -> Sampling:
    if not len(points.clean.y):
        raise ValueError("no features of shapley_val to value with; sampling needs a clean set")
    train, clean = (points.train.x, points.train.y), (points.clean.x, points.clean.y)
    return new_sampling(train, clean, config, threshold=_threshold(points, config))


def _sample(run: RunDirectory, points: FeatureSet, config: Config) -> None:
    """Sample until it is enough, then choose; the values so far are written on the way."""
    source = sampled_from(config, points.fingerprint)
    start = time.monotonic()
    sampling = _new_sampling(points, config)

    def so_far(aggregator: Aggregator) -> None:
        if not aggregator.done:
            made_from = fingerprint("so far", source, aggregator.next_index)
            columns = _sampled_columns(aggregator, 0)
            kept = np.array(columns["decision"]) != "drop"
            _write(run, points, config, columns, kept, {"so_far": True}, made_from, complete=False)

    aggregator = sample_values(run, sampling, config, source, so_far=so_far)
    made_from = fingerprint("values", plain(config.value), source, aggregator.next_index)
    if tables.is_made(run.values, made_from) and tables.is_made(run.kept, made_from):
        return
    columns = _sampled_columns(aggregator, 0)
    kept, choice = _choose_sampled(columns, aggregator, points, config)
    n = len(kept)
    columns["stderr_validation"] = np.full(n, np.nan)  # a sampled round sees all points at once
    if 2 <= n <= config.value.second_opinion_up_to:
        opinion = _sums(points.train, None, config.value, config.resources)
        columns["value_self"] = opinion.total / n
    for number, name in enumerate(sampling.semivalues[1:], start=1):
        others = {"id": points.ids, "label": points.labels}
        others |= _sampled_columns(aggregator, number)
        tables.write_table(run.other_values(name), tables.estimate_table(others), made_from)
    _write(run, points, config, columns, kept, choice, made_from)
    _note(run, made_from, start, kept, choice)


def _sampled_columns(aggregator: Aggregator, number: int) -> dict[str, Any]:
    """What is known of one semivalue."""
    low, high = aggregator.interval(number)
    return {
        "value": aggregator.value[number],
        "stderr": aggregator.stderr[number],
        "low": low,
        "high": high,
        "rounds": np.full(len(low), aggregator.rounds),
        "evaluated": aggregator.evaluated,
        "decision": aggregator.decisions(number).tolist(),
    }


def _choose_sampled(
    columns: dict[str, Any], aggregator: Aggregator, points: FeatureSet, config: Config
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """As `_choose`; fills in the decisions, and says how sure the dropped set is.

    Rules with a threshold keep what is undecided; rules by rank decide every image.
    """
    rule, alpha = config.value.chosen_rule, 1 - config.sample.confidence
    threshold = _threshold(points, config)
    log_e = e_values(aggregator.main, threshold, "below")
    if rule == "certain":
        dropped = e_bh(log_e, alpha)
        kept, choice = ~dropped, {"rule": rule, "threshold": threshold, "false_discovery": alpha}
        columns["decision"] = np.where(
            dropped, "drop", np.where(columns["low"] > threshold, "keep", "undecided")
        ).tolist()
        return kept, choice
    kept, choice = _choose(columns["value"], points, config)
    if rule in ("zero", "chance"):
        kept = np.array(columns["decision"]) != "drop"
    else:
        columns["decision"] = np.where(kept, "keep", "drop").tolist()
    choice["false_discovery"] = false_discovery_bound(log_e, ~kept)
    return kept, choice


def _write(
    run: RunDirectory,
    points: FeatureSet,
    config: Config,
    columns: dict[str, Any],
    kept: NDArray[np.bool_],
    choice: dict[str, Any],
    made_from: str,
    *,
    complete: bool = True,
) -> None:
    """The table of values and, where sampling is complete, what the rule keeps."""
    settings = config.value
    if complete:
        cleaning.check_classes_kept(kept, points.train.y, points.classes, settings.chosen_rule)
        columns["suggested_label"] = _suggested(points, kept, settings)
    columns.setdefault("stderr_validation", np.full(len(kept), np.nan))
    columns.setdefault("suggested_label", [None] * len(kept))
    whole = {"id": points.ids, "label": points.labels, **columns}
    table = pa.table([whole[name] for name in tables.VALUES.names], schema=tables.VALUES)
    if "value_self" in columns:
        table = table.append_column("value_self", pa.array(columns["value_self"]))
    notes = {"choice": json.dumps(choice), "settings": json.dumps(plain(settings))}
    tables.write_table(run.values, table, made_from, **notes)
    if complete and not tables.is_made(run.kept, made_from):
        tables.write_table(run.kept, tables.kept_table(table), made_from)


def _note(
    run: RunDirectory,
    made_from: str,
    start: float,
    kept: NDArray[np.bool_],
    choice: dict[str, Any],
) -> None:
    seconds = time.monotonic() - start
    run.note_step("values", made_from, seconds, kept=int(kept.sum()), choice=choice)


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
        threshold = _threshold(points, config)
        return value > threshold, {"rule": rule, "threshold": threshold}
    choice: dict[str, Any] = {"rule": rule, "share": settings.drop_share}
    if rule == "validated":
        losses = _share_losses(value, points, config)
        choice["share"] = cleaning.best_share(losses)
        choice["log_loss"] = {f"{share:g}": loss for share, loss in losses.items()}
    kept = cleaning.keep_share(value, choice["share"], y, per_class=settings.per_class)
    return kept, choice


def _threshold(points: FeatureSet, config: Config) -> float:
    """The value that parts harm from good for the rules that have one; else zero."""
    if config.value.chosen_rule == "chance":
        return cleaning.chance_threshold(len(points.classes), len(points.train.y))
    return 0.0


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


def _suggested(points: FeatureSet, kept: NDArray[np.bool_], settings: ValueConfig) -> list[str]:
    """The label of the nearest kept and clean images, for people."""
    suggested = cleaning.suggested_labels(
        points.train.x,
        points.train.y,
        kept,
        points.clean.x,
        points.clean.y,
        k=settings.k,
        metric=settings.metric,
    )
    return [points.classes[i] for i in suggested]
