"""The removal curves of a run, by tasks: does the order of the values mean anything on val?"""

from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray.cleaning.ranking import ranking
from dcai_ray.cluster.task_pool import Step, row_blocks, run_tasks
from dcai_ray.config import Config
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.feature_set import FeatureSet
from dcai_ray.storage import schemas
from dcai_ray.valuation.removal import HIGHEST, LOWEST, RANDOM, removal

_SEEDS = 5  # of the random order, whose mean is the control
_PERCENT = range(0, 100, 5)  # removed
_ROWS_PER_TASK = 64  # of val


def score_removals(points: FeatureSet, values: pa.Table, config: Config) -> pa.Table:
    """The accuracy on val of the K nearest neighbours, by order and share removed.

    Args:
        points: the features, with those of val.
        values: the table of values.
        config: its section resources is used; K and the metric are those of the run's values.
    Returns:
        Rows of `schemas.REMOVAL`.
    """
    train, val = points.train, points.val
    n, m = len(train.y), len(val.y)
    orders = _orders(values)
    rng = np.random.default_rng(0)
    draws = [rng.permutation(n) for _ in range(_SEEDS)]
    run = RunDirectory(points.run)
    valued = run.settings().get("value", {})
    removed = [percent * n // 100 for percent in _PERCENT]
    game = removal(
        (train.x, train.y),
        (val.x, val.y),
        [*orders.values(), *draws],
        removed,
        k=valued.get("k", config.value.k),
        metric=valued.get("metric", config.value.metric),
        num_classes=len(points.classes),
    )
    blocks = row_blocks(m, _ROWS_PER_TASK)
    step = Step.of_blocks("removing by value", f"validation {run.unit}", blocks, points.run)
    counts = sum(run_tasks(partial(tasks.count_right, game=game), blocks, step, config.resources))
    accuracy = np.asarray(counts, dtype=np.float64) / m
    curves = dict(zip(orders, accuracy, strict=False))
    curves[RANDOM] = accuracy[len(orders) :].mean(axis=0)
    rows = [
        {"order": order, "share": percent / 100, "images": n - cut, "accuracy": float(each)}
        for order, curve in curves.items()
        for percent, cut, each in zip(_PERCENT, removed, curve, strict=True)
    ]
    return pa.Table.from_pylist(rows, schemas.REMOVAL)


def _orders(values: pa.Table) -> dict[str, NDArray[np.intp]]:
    """What is removed first, by name."""
    value, ranked = values["value"].to_numpy(), ranking(values)
    found = {
        LOWEST: np.argsort(value, kind="stable"),
        HIGHEST: np.argsort(-value, kind="stable"),
    }
    if ranked.name != "value":
        found[f"highest {ranked.name}"] = ranked.order
    return found
