"""Step 2b by the closed form: values by the clean set, by the training set itself, or by both."""

import time

import numpy as np
from numpy.typing import NDArray

from dcai_ray.config import Config, plain
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import dropping, evidence
from dcai_ray.steps.dropping import decide, validates
from dcai_ray.steps.evidence import Known
from dcai_ray.steps.feature_set import check_clean, read_points
from dcai_ray.steps.known_labels import known_labels
from dcai_ray.steps.out_of_fold import fingerprint_of_predictions
from dcai_ray.steps.value_tables import is_valued, note_values, write_values
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.storage.values import Estimates

FORMAT = 3
"""Raise this when a formula or constant of the closed form (`valuation.knn_shapley`,
`valuation.neighbours`) changes."""


def compute_values(run: RunDirectory, config: Config) -> None:
    """Value every training image by the closed form; `values/values.parquet` and `kept.parquet`.

    Raises:
        UserError: features are missing or do not fit.
    """
    settings = config.value
    points = read_points(run)
    if settings.validation != "self":
        check_clean(run, points, "exact")
    predictions = fingerprint_of_predictions(run.location, config)
    fingerprint = new_fingerprint(
        "values",
        (FORMAT, evidence.FORMAT, dropping.FORMAT),
        plain(settings),
        points.fingerprint,
        predictions,
    )
    if is_valued(run, fingerprint):
        return
    start = time.monotonic()
    source = new_fingerprint(FORMAT, points.fingerprint, predictions)
    known = known_labels(run, points, config, source, validate=validates(config))
    value, stderr_validation = _values(known, config)
    decided = decide(value, points, config, known)
    estimates = Estimates.exact(
        id=points.ids, label=points.labels, value=value, decision=decided.choice.decision
    )
    write_values(
        run,
        points,
        config,
        estimates,
        decided.choice,
        fingerprint,
        stderr_validation=stderr_validation,
        known=known,
    )
    note_values(run, fingerprint, start, decided, points, known)


def _values(known: Known, config: Config) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) values, and their standard errors over validation points."""
    by_set, by_own = known.clean, known.own
    if config.value.validation == "clean":
        assert by_set is not None
        return by_set.column.value[0], by_set.column.stderr[0]
    assert by_own is not None
    if config.value.validation == "self":
        return by_own.column.value[0], by_own.column.stderr[0]
    assert by_set is not None
    value = known.both(by_set.column.value[0], by_own.column.value[0], config)
    weight = config.value.self_weight * len(known.y)
    shares = np.array([known.num_clean, weight]) / (known.num_clean + weight)
    errors = np.stack([by_set.column.stderr[0], by_own.column.stderr[0]])
    return value, np.sqrt(((shares[:, np.newaxis] * errors) ** 2).sum(axis=0))
