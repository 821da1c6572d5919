"""Step 2b by the closed form: Ray tasks value blocks of validation points; sums merge in order."""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config, plain
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import dropping, tasks
from dcai_ray.steps.dropping import choose, is_valued, note_values, write_values
from dcai_ray.steps.feature_set import FeatureSet, check_clean, read_points
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.storage.values import Estimates
from dcai_ray.valuation.knn_shapley import Sums, knn_game, merge_sums, standard_error

FORMAT = 1
"""Raise this when a formula or constant of the closed form (`valuation.knn_shapley`,
`valuation.neighbours`) changes."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClosedForm:
    """Values of the n training images."""

    value: NDArray[np.float64]  # (n,)
    stderr_validation: NDArray[np.float64]  # (n,) standard errors over validation points
    value_self: NDArray[np.float64] | None
    """(n,) self-valuation by the training images, unless `value` is just that."""


def compute_values(run: RunDirectory, config: Config) -> None:
    """Value every training image by the closed form; `values/values.parquet` and `kept.parquet`.

    Raises:
        UserError: features are missing or do not fit, or the rule would empty a class.
    """
    settings = config.value
    points = read_points(run)
    if settings.validation != "self":
        check_clean(run, points)
    fingerprint = new_fingerprint(
        "values", FORMAT, dropping.FORMAT, plain(settings), points.fingerprint
    )
    if is_valued(run, fingerprint):
        return
    start = time.monotonic()
    found = _closed_form(points, config)
    choice = choose(found.value, points, config)
    write_values(
        run,
        points,
        config,
        Estimates.exact(
            id=points.ids, label=points.labels, value=found.value, decision=choice.decision
        ),
        choice,
        fingerprint,
        stderr_validation=found.stderr_validation,
        value_self=found.value_self,
    )
    note_values(run, fingerprint, start, choice)


def self_values(points: FeatureSet, config: Config) -> NDArray[np.float64]:
    """(n,) self-valuation: values by the training images themselves (leave-one-out)."""
    return _sums(points, config, by_clean=False).total / len(points.train.y)


def _closed_form(points: FeatureSet, config: Config) -> ClosedForm:
    """Values by the clean set, by the training set itself, or by both as one validation set."""
    settings = config.value
    n, m = len(points.train.y), len(points.clean.y)
    found: dict[str, tuple[Sums, int]] = {}
    if settings.validation != "self":
        found["clean"] = _sums(points, config, by_clean=True), m
    if settings.validation != "clean" or 2 <= n <= settings.second_opinion_up_to:
        found["self"] = _sums(points, config, by_clean=False), n
    if settings.validation == "both":
        weights = {"clean": m, "self": settings.self_weight * n}
    else:
        weights = {settings.validation: 1.0}
    value, variance = np.zeros(n), np.zeros(n)
    for name, weight in weights.items():
        sums, count = found[name]
        share = weight / sum(weights.values())
        value += share * (sums.total / count)
        variance += (share * standard_error(sums, count)) ** 2
    by_self = "self" in found and settings.validation != "self"
    return ClosedForm(
        value=value,
        stderr_validation=np.sqrt(variance),
        value_self=found["self"][0].total / n if by_self else None,
    )


def _sums(points: FeatureSet, config: Config, *, by_clean: bool) -> Sums:
    """Values summed over the clean points, or over the training points themselves."""
    settings, train = config.value, points.train
    clean = points.clean if by_clean else None
    name = f"valuing by {'shapley_val' if by_clean else 'the training set (leave-one-out)'}"
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
    return merge_sums(
        run_tasks(
            partial(tasks.value_block, game=game),
            game.val_blocks,
            Step(
                name=name,
                unit="validation images",
                sizes=[block.stop - block.start for block in game.val_blocks],
                task_names=[f"{name} {block.start}-{block.stop - 1}" for block in game.val_blocks],
                run=points.run,
            ),
            config.resources,
        )
    )
