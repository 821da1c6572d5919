"""Are the labels of the validation images right? A list of those to look at, if asked for.

Train, shapley_val and val are valued as one set by itself, leave-one-out, and the labels of the
chosen splits are judged by the evidence of an audit: by their neighbours, by a probe that leaves
each image out, and by likeness to wrong labels planted into the same images. How many labels are
wrong is estimated for each split by itself, as there are fewer than in train. Nothing else depends
on it: what is wrong is for a person to mend, and val stays unseen by every decision.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from dcai_ray import progress
from dcai_ray.cleaning.planted import likeliest_share, shifted
from dcai_ray.config import Config, plain
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import evidence
from dcai_ray.steps.evidence import gather
from dcai_ray.steps.feature_set import FeatureSet
from dcai_ray.steps.freshness import is_current
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.features import Features, check_same_features, has_features, read_split
from dcai_ray.storage.parquet import new_fingerprint

FORMAT = 1
"""Raise this when another set of images values the validation images, or they are doubted in
another way."""

SPLITS = ("shapley_val", "val")
_EVEN = 0.5  # share of wrong labels that the odds of doubts are for
_DOUBTED_ABOVE = 0.5  # probability
_SHOWN = 10


def value_trusted(run: RunDirectory, config: Config, splits: Sequence[str]) -> None:
    """Value the images of validation splits; `values/validation_values.parquet`.

    Raises:
        UserError: there are no features of a split, or too few images.
    """
    if not splits:
        return
    everything = [s for s in ("train", *SPLITS) if has_features(run.features / s)]
    for split in splits:
        if split not in everything:
            raise UserError(f"--value-splits {split}: no features in {run.features / split}")
    read = {split: read_split(run.features / split) for split in everything}
    settings = replace(
        config.value, method="exact", utility="knn", utility_options={}, validation="self",
        rule="doubted", evidence="features", probabilities="", second_opinion_up_to=2**31,
    )  # fmt: skip
    fingerprint = new_fingerprint(
        "trusted labels", (FORMAT, evidence.FORMAT), plain(settings), list(splits),
        [features.fingerprint for features in read.values()],
    )  # fmt: skip
    if not is_current(run.validation_values, fingerprint):
        start = time.monotonic()
        points = _one_set(run, read)
        table = _judged(points, replace(config, value=settings), read, splits)
        parquet.write_table(run.validation_values, table, fingerprint)
        run.record_step("validation_values", fingerprint, time.monotonic() - start)
    _tell(run, parquet.read_table(run.validation_values))


def _one_set(run: RunDirectory, read: dict[str, Features]) -> FeatureSet:
    """All images as one training set."""
    train = read["train"]
    for split, features in read.items():
        check_same_features(train, features, ("train", split))
    return FeatureSet.of(
        run.location,
        Features(
            ids=tuple(f"{split}/{name}" for split, each in read.items() for name in each.ids),
            labels=tuple(label for each in read.values() for label in each.labels),
            x=np.concatenate([each.x for each in read.values()]),
            backbone=train.backbone,
            fingerprint=train.fingerprint,
        ),
    )


def _judged(
    points: FeatureSet, config: Config, read: dict[str, Features], splits: Sequence[str]
) -> pa.Table:
    known = gather(points, config, validate=False)
    doubts, own, probe = known.doubts, known.own, known.evidence.probe
    assert doubts is not None
    assert own is not None
    of = np.concatenate([np.full(len(each.ids), split) for split, each in read.items()])
    wrong = np.full(len(of), np.nan)
    for split in splits:
        odds = doubts.odds[of == split]
        wrong[of == split] = shifted(odds, likeliest_share(odds, _EVEN), _EVEN)
    rows = np.flatnonzero(np.isin(of, splits))
    rows = rows[np.argsort(-doubts.odds[rows], kind="stable")]
    doubted = (wrong > _DOUBTED_ABOVE) & (probe.suggested != known.y)
    columns = {
        "split": of[rows],
        "id": [points.ids[i].partition("/")[2] for i in rows],
        "label": [points.labels[i] for i in rows],
        "value": own.column.value[0][rows],
        "stderr_validation": own.column.stderr[0][rows],
        "suggested_label": [points.classes[c] for c in probe.suggested[rows]],
        "suggested_probability": probe.suggested_probability[rows],
        "margin": probe.margins[rows, probe.best],
        "wrong_probability": wrong[rows],
        "doubted": doubted[rows],
    }
    return pa.table(columns, schema=schemas.VALIDATION_VALUES)


def _tell(run: RunDirectory, table: pa.Table) -> None:
    """The number of doubted labels per split, and the most suspicious of them."""
    for split in dict.fromkeys(table["split"].to_pylist()):
        rows = [row for row in table.to_pylist() if row["split"] == split]
        doubted = [row for row in rows if row["doubted"]]
        progress.say(
            f"{split}: {progress.counted(len(doubted), 'labels', of=len(rows))} look wrong; see "
            f"{run.validation_values}"
        )
        for row in doubted[:_SHOWN]:
            progress.say(f"  {split}/{row['id']}: {row['label']}, or {row['suggested_label']}?")
