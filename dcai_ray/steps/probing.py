"""Step 3 in a hurry: small classifiers on the features of every arm; `cleaned/probes.parquet`."""

import time

import numpy as np
import pyarrow as pa

from dcai_ray.cleaning.arms import arms_of
from dcai_ray.cleaning.probes import PROBES
from dcai_ray.cluster.task_pool import run_tasks
from dcai_ray.config import Config, plain
from dcai_ray.images.truth import Truth
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.feature_set import read_points
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.features import check_same_features, class_numbers, read_split
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.storage.values import check_ids, kept_mask


def score_probes(run: RunDirectory, config: Config, truth: Truth | None) -> None:
    """Train every probe on every arm, score it on val.

    Raises:
        UserError: features of val are missing, or features and values do not fit together.
    """
    settings, points = config.retrain, read_points(run)
    val = read_split(run.features / "val")
    train = read_split(run.features / "train")
    check_same_features(train, val, ("train", "val"))
    values = run.read_values()
    check_ids(run.values, values["id"].to_pylist(), points.ids)
    wrong = None if truth is None else truth.wrong
    known = [] if wrong is None else np.flatnonzero(wrong).tolist()
    sources = [points.fingerprint, val.fingerprint, parquet.fingerprint_of(run.values), known]
    fingerprint = new_fingerprint("probes", plain(settings), sources)
    if parquet.is_up_to_date(run.probes, fingerprint):
        return
    start = time.monotonic()
    seeds = range(settings.probe_seeds)
    has_clean = len(points.clean.y) > 0
    arms = arms_of(kept_mask(values), points.train.y, wrong, has_clean=has_clean, seeds=seeds)
    # Only the random arm differs by seed; the others are scored once.
    keys = [
        (probe, arm, seed)
        for probe in PROBES
        for arm in arms
        for seed in (seeds if arm == "random" else [0])
    ]
    results = run_tasks(
        "probes on features",
        tasks.score_probe,
        [
            tasks.ProbeJob(probe, arms[arm][seed], "clean" in arm, settings.standardize)
            for probe, arm, seed in keys
        ],
        config.resources,
        unit="probes",
        run=run.location,
        names=[f"probe {probe} {arm} seed {seed}" for probe, arm, seed in keys],
        shared=tasks.ProbeData(
            train=(points.train.x, points.train.y),
            clean=(points.clean.x, points.clean.y),
            val=(val.x, class_numbers(val.labels, points.classes, run.features / "val")),
            num_classes=len(points.classes),
        ),
    )
    scores = dict(zip(keys, results, strict=True))
    rows = [
        {
            "probe": probe,
            "arm": arm,
            "seed": seed,
            **scores[probe, arm, seed if arm == "random" else 0],
        }
        for probe in PROBES
        for arm in arms
        for seed in seeds
    ]
    parquet.write_table(run.probes, pa.Table.from_pylist(rows, schemas.PROBES), fingerprint)
    run.record_step("probes", fingerprint, time.monotonic() - start)
