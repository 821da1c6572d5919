"""Step 2b by sampling: values of any utility with intervals, and what the rule keeps."""

import time
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from dcai_ray.cleaning.choices import Choice, Sampled
from dcai_ray.cleaning.rules import Zero
from dcai_ray.config import Config, plain
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import dropping, evidence, exact_values
from dcai_ray.steps.dropping import decide, rule_of, validates
from dcai_ray.steps.evidence import gather
from dcai_ray.steps.feature_set import FeatureSet, check_clean, read_points
from dcai_ray.steps.out_of_fold import fingerprint_of_predictions
from dcai_ray.steps.sampling_session import CROSS_CHECK, Session, block_fingerprint, estimate
from dcai_ray.steps.sampling_setup import new_utility, semivalues_of
from dcai_ray.steps.value_tables import is_valued, note_values, write_values
from dcai_ray.storage import parquet
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.storage.values import Estimates
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.intervals import e_values
from dcai_ray.valuation.utilities import Utility

FORMAT = 1
"""Raise this when what is made of a sampling (intervals, decisions) changes; `FORMAT` of
`sampling_session` stands for the sampling itself."""


def compute_sampled_values(run: RunDirectory, config: Config) -> None:
    """Sample until the stopping rule is met, then choose; interim values are written meanwhile.

    Raises:
        UserError: features are missing or do not fit, the utility fails, or the rule would empty a
            class.
        ClusterError: workers die again and again.
    """
    points = read_points(run)
    check_clean(run, points, "sample")
    start = time.monotonic()
    source = block_fingerprint(config, points.fingerprint)
    session = Session(run, config, source, threshold=rule_of(config).threshold(points.train.y))

    def save_interim(aggregator: Aggregator) -> None:
        fingerprint = new_fingerprint("interim", source, aggregator.next_index)
        estimates = estimates_of(aggregator, points)
        # Until the end the intervals decide, whatever the rule.
        interim = Choice(
            rule=Zero.name, decision=estimates.decision, threshold=aggregator.threshold
        )
        write_values(run, points, config, estimates, interim, fingerprint)

    if not session.finished:
        session.sample(utility_of(points, config), save_interim)
    aggregator = session.aggregator
    fingerprint = new_fingerprint(
        "values",
        # The closed form's, for the column value_self and the evidence.
        (FORMAT, exact_values.FORMAT, evidence.FORMAT, dropping.FORMAT),
        plain(config.value),
        fingerprint_of_predictions(run.location, config),
        source,
        aggregator.next_index,
    )
    if is_valued(run, fingerprint):
        return
    estimates = estimates_of(aggregator, points)
    log_e = e_values(aggregator.main, aggregator.threshold, "below")
    sampled = Sampled(low=estimates.low, decision=estimates.decision, log_e=log_e)
    known = gather(points, config, validate=validates(config))
    decided = decide(estimates.value, points, config, known, sampled)
    for number, name in enumerate(semivalues_of(config)[1:], start=1):
        others = estimates_of(aggregator, points, number)
        parquet.write_table(run.other_values(name), others.table(), fingerprint)
    final = replace(estimates, decision=decided.choice.decision)
    write_values(run, points, config, final, decided.choice, fingerprint, known=known)
    note_values(run, fingerprint, start, decided, points, known)


def check_values(run: RunDirectory, config: Config) -> None:
    """Sample the utility of `sample.check` beside the closed form; `check/values.parquet`."""
    points = read_points(run)
    if not len(points.clean.y):
        return
    config = replace(
        config,
        value=replace(config.value, method="sample", utility=config.sample.check, rule="zero"),
    )
    source = block_fingerprint(config, points.fingerprint)
    session = Session(run, config, source, target=CROSS_CHECK)
    if not session.finished:
        session.sample(utility_of(points, config), lambda aggregator: None)
    fingerprint = new_fingerprint("check", FORMAT, source, session.aggregator.next_index)
    if not parquet.is_up_to_date(run.check, fingerprint):
        estimates = estimates_of(session.aggregator, points)
        parquet.write_table(run.check, estimates.table(), fingerprint)


def estimate_sampling(run: RunDirectory, config: Config) -> list[str]:
    """The estimated cost of sampling, in lines for the terminal; nothing is written.

    Raises:
        UserError: the method is exact, or features are missing or do not fit.
    """
    if config.value.method != "sample":
        raise UserError("--dry-run is for --method sample; exact values are not estimated")
    points = read_points(run)
    check_clean(run, points, "sample")
    return estimate(utility_of(points, config), config)


def estimates_of(aggregator: Aggregator, points: FeatureSet, number: int = 0) -> Estimates:
    """The estimates of one semivalue; its intervals decide.

    Args:
        aggregator: the aggregator of the n training images.
        points: the features of those images.
        number: index of the semivalue, in the order of the settings.
    """
    low, high = aggregator.interval(number)
    return Estimates(
        id=points.ids,
        label=points.labels,
        value=aggregator.value[number],
        stderr=aggregator.stderr[number],
        low=low,
        high=high,
        rounds=np.full(len(low), aggregator.rounds),
        evaluated=aggregator.evaluated,
        decision=aggregator.decisions(number),
    )


def utility_of(points: FeatureSet, config: Config) -> Utility:
    """The utility of the settings on the training images and shapley_val."""
    train, clean = (points.train.x, points.train.y), (points.clean.x, points.clean.y)
    with threadpool_limits(1):  # the last bits of distances and axes depend on their number
        return new_utility(train, clean, config.value, config.sample)
