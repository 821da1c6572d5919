"""From values to what is kept: the rule of the settings, and the tables that record its choice."""

import json
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.choices import Choice, Sampled, Valued, check_classes_kept
from dcai_ray.cleaning.rules import Rule, new_rule
from dcai_ray.cleaning.suggestions import suggested_labels
from dcai_ray.cluster.task_pool import Step, run_tasks
from dcai_ray.config import Config, ValueConfig, plain
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.feature_set import FeatureSet
from dcai_ray.steps.freshness import is_current
from dcai_ray.storage import parquet
from dcai_ray.storage.values import Estimates, kept_table, values_table

FORMAT = 1
"""Raise this when a rule, one of its constants or the suggested labels (`cleaning.rules`,
`cleaning.probes`, `cleaning.suggestions`) change: values are then written anew."""


def is_valued(run: RunDirectory, fingerprint: str) -> bool:
    """Whether the values and the table of kept images are up to date."""
    return is_current(run.kept, fingerprint) and parquet.is_up_to_date(run.values, fingerprint)


def rule_of(config: Config) -> Rule:
    """The rule of the settings."""
    settings = {**plain(config.value), "confidence": config.sample.confidence}
    return new_rule(config.value.chosen_rule, settings)


def choose(
    value: NDArray[np.float64], points: FeatureSet, config: Config, sampled: Sampled | None = None
) -> Choice:
    """The decisions of the rule of the settings; shares are tried by tasks.

    Args:
        value: (n,).
        points: the features of the n images.
        config: its sections value, sample and resources are used.
        sampled: what sampling yields besides the values; None if they are exact.
    """
    losses = partial(_share_losses, value, points, config)
    valued = Valued(value=value, y=points.train.y, losses=losses, sampled=sampled)
    return rule_of(config).choose(valued)


def _share_losses(
    value: NDArray[np.float64], points: FeatureSet, config: Config, shares: Sequence[float]
) -> list[float | None]:
    data = tasks.ProbeData(
        train=(points.train.x, points.train.y),
        clean=(points.clean.x, points.clean.y),
        val=(points.clean.x, points.clean.y),
        num_classes=len(points.classes),
    )
    step = Step(
        name="choosing how many to drop",
        unit="cut-offs",
        task_names=[f"try dropping {100 * share:g} %" for share in shares],
        run=points.run,
    )
    jobs = [tasks.ShareJob(value, share, config.value.per_class) for share in shares]
    return list(run_tasks(partial(tasks.score_share, data=data), jobs, step, config.resources))


def _suggested(points: FeatureSet, kept: NDArray[np.bool_], settings: ValueConfig) -> list[str]:
    """The most common label of the nearest kept and clean images, for review."""
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
    estimates: Estimates,
    choice: Choice,
    fingerprint: str,
    *,
    stderr_validation: NDArray[np.float64] | None = None,
    value_self: NDArray[np.float64] | None = None,
    complete: bool = True,
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
        value_self: (n,) self-valuation, if it was computed.
        complete: whether the values are final; interim values are for inspection only.
    Raises:
        UserError: the rule would empty a class.
    """
    suggested = None
    if complete:
        check_classes_kept(choice, points.train.y, points.classes)
        suggested = _suggested(points, choice.kept, config.value)
    table = values_table(
        estimates,
        suggested_label=suggested,
        stderr_validation=stderr_validation,
        value_self=value_self,
    )
    notes = {"choice": json.dumps(choice.note()), "settings": json.dumps(plain(config.value))}
    parquet.write_table(run.values, table, fingerprint, **notes)
    if complete and not parquet.is_up_to_date(run.kept, fingerprint):
        parquet.write_table(run.kept, kept_table(table), fingerprint)


def note_values(run: RunDirectory, fingerprint: str, start: float, choice: Choice) -> None:
    """Record in run.json what the rule made of the values.

    Args:
        run: the run folder.
        fingerprint: fingerprint of the values.
        start: start of the step, on the monotonic clock.
        choice: the choice of the rule.
    """
    seconds = time.monotonic() - start
    run.record_step(
        "values", fingerprint, seconds, kept=int(choice.kept.sum()), choice=choice.note()
    )
