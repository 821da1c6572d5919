"""Step 3, quick version: classifiers on the features of every arm; `cleaned/probes.parquet`,
`cleaned/removal.parquet`."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dcai_ray import progress
from dcai_ray.cleaning.arms import Arm, arms_of, new_labels
from dcai_ray.cleaning.label_fit import LabelledSet
from dcai_ray.cleaning.probes import PROBES
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config, plain
from dcai_ray.images.truth import Truth
from dcai_ray.review.applied import reviewed_labels
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.conflicts import near_in_val, tell_near_copies
from dcai_ray.steps.evidence import compare_labels
from dcai_ray.steps.feature_set import FeatureSet, read_points
from dcai_ray.steps.freshness import is_current
from dcai_ray.steps.removing import score_removals
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.storage.values import check_ids, kept_digest, kept_mask, suggestions

FORMAT = 3
"""Raise this when a probe, its constants, its scores, the arms (`cleaning.probes`,
`cleaning.arms`) or the removals change."""

Arms = Mapping[str, Mapping[int, Arm]]  # by name and seed


class Trial(NamedTuple):
    """One probe that is trained and scored."""

    probe: str
    arm: str
    seed: int


def score_probes(run: RunDirectory, config: Config, truth: Truth | None) -> None:
    """Train every probe on every arm and score it on val.

    Raises:
        UserError: features of val or complete values are missing, or they do not fit together.
    """
    points = read_points(run, with_val=True)
    values = run.read_values()
    ids = tuple(values["id"].to_pylist())
    check_ids(run.values, ids, points.ids)
    wrong = truth.wrong if truth is not None and truth.ids == ids else None
    kept, y = kept_mask(values), points.train.y
    reviewed = reviewed_labels(run, ids, y, kept, points.classes)
    fingerprint = new_fingerprint(
        "probes",
        FORMAT,
        PROBES,
        plain(config.retrain),
        points.fingerprint,
        parquet.read_note(values, "fingerprint"),
        [] if wrong is None else np.flatnonzero(wrong).tolist(),
        *([] if reviewed is None else [reviewed.tolist()]),
    )
    if is_current(run.probes, fingerprint):
        return
    start = time.monotonic()
    known = run.record().get("steps", {}).get("values", {}).get("label_doubts", ())
    seeds = range(config.retrain.probe_seeds)
    suggested = suggestions(values, points.classes)
    above = config.retrain.relabel_above
    arms = arms_of(
        kept,
        y,
        wrong,
        has_clean=points.has_clean,
        seeds=seeds,
        relabelled=None if suggested is None else new_labels(kept, y, *suggested, above),
        reviewed=reviewed,
    )
    scores = _scores(points, arms, _trials(arms, seeds), config)
    rows = _rows(scores, arms, seeds)
    parquet.write_table(run.removal, score_removals(points, values, config), fingerprint)
    # Last: it says that the step is done.
    parquet.write_table(run.probes, pa.Table.from_pylist(rows, schemas.PROBES), fingerprint)
    leaks = near_in_val(points, config)
    tell_near_copies(leaks, "val")
    val = LabelledSet("val", points.val.x, points.val.y)
    doubts = compare_labels(points, val, config)
    for line in doubts:
        if line not in known:
            progress.warn(line)
    seconds = time.monotonic() - start
    run.record_step(
        "probes",
        fingerprint,
        seconds,
        near_copies_across_splits=leaks,
        label_doubts=list(doubts),
        kept_digest=kept_digest(values),
    )


def _trials(arms: Arms, seeds: Sequence[int]) -> list[Trial]:
    """Every probe on every arm; once, but for the random arm, the only one that differs by seed."""
    return [
        Trial(probe, arm, seed)
        for probe in PROBES
        for arm in arms
        for seed in (seeds if arm == "random" else [0])
    ]


def _scores(
    points: FeatureSet, arms: Arms, trials: Sequence[Trial], config: Config
) -> dict[Trial, dict[str, float]]:
    """The scores of each trial, computed by tasks."""
    data = tasks.ProbeData(
        train=(points.train.x, points.train.y),
        clean=(points.clean.x, points.clean.y),
        val=(points.val.x, points.val.y),
        num_classes=len(points.classes),
    )
    results = run_tasks(
        partial(tasks.score_probe, data=data),
        [
            tasks.ProbeJob(
                trial.probe,
                *arms[trial.arm][trial.seed],
                "clean" in trial.arm,
                config.retrain.standardize,
            )
            for trial in trials
        ],
        Step(
            name="probes on features",
            unit="probes",
            task_names=[f"probe {trial.probe} {trial.arm} seed {trial.seed}" for trial in trials],
            run=points.run,
        ),
        config.resources,
    )
    return dict(zip(trials, results, strict=True))


def _rows(
    scores: Mapping[Trial, Mapping[str, float]], arms: Arms, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Rows of `schemas.PROBES`: one per probe, arm and seed, so that differences are paired."""
    return [
        {
            "probe": probe,
            "arm": arm,
            "seed": seed,
            **scores[Trial(probe, arm, seed if arm == "random" else 0)],
        }
        for probe in PROBES
        for arm in arms
        for seed in seeds
    ]
