"""Step 2b by sampling: values of any utility with intervals, and what the rule keeps."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dcai_ray.config import Config, plain
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.dropping import choose, is_valued, note_values, threshold_of, write_values
from dcai_ray.steps.exact_values import self_opinion
from dcai_ray.steps.feature_set import FeatureSet, check_clean, read_points
from dcai_ray.steps.sampling_session import CROSS_CHECK, Session, block_fingerprint, estimate
from dcai_ray.steps.sampling_setup import new_utility, semivalues_of
from dcai_ray.storage import parquet
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.storage.values import estimate_table
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.intervals import e_bh, e_values, false_discovery_bound
from dcai_ray.valuation.utilities import Utility


def compute_sampled_values(run: RunDirectory, config: Config) -> None:
    """Sample until it is enough, then choose; the values so far are written on the way.

    Raises:
        UserError: features are missing or do not fit, the utility fails, or the rule would empty a
            class.
        ClusterError: workers die again and again.
    """
    points = read_points(run)
    check_clean(run, points)
    start, n = time.monotonic(), len(points.train.y)
    source = block_fingerprint(config, points.fingerprint)
    session = Session(run, config, source, threshold=threshold_of(points, config))

    def so_far(aggregator: Aggregator) -> None:
        fingerprint = new_fingerprint("so far", source, aggregator.next_index)
        columns = estimate_columns(aggregator, 0)
        kept = np.array(columns["decision"]) != "drop"
        choice = {"rule": "zero", "threshold": aggregator.threshold}
        write_values(run, points, config, columns, kept, choice, fingerprint, complete=False)

    if not session.finished:
        session.sample(_utility(points, config), so_far)
    aggregator = session.aggregator
    fingerprint = new_fingerprint("values", plain(config.value), source, aggregator.next_index)
    if is_valued(run, fingerprint):
        return
    columns = estimate_columns(aggregator, 0)
    kept, choice = _choose(columns, aggregator, points, config)
    if 2 <= n <= config.value.second_opinion_up_to:
        columns["value_self"] = self_opinion(points, config)
    for number, name in enumerate(semivalues_of(config)[1:], start=1):
        others = {"id": points.ids, "label": points.labels, **estimate_columns(aggregator, number)}
        parquet.write_table(run.other_values(name), estimate_table(others), fingerprint)
    write_values(run, points, config, columns, kept, choice, fingerprint)
    note_values(run, fingerprint, start, kept, choice)


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
        session.sample(_utility(points, config), lambda aggregator: None)
    fingerprint = new_fingerprint("check", source, session.aggregator.next_index)
    if not parquet.is_up_to_date(run.check, fingerprint):
        columns = {"id": points.ids, "label": points.labels}
        columns |= estimate_columns(session.aggregator, 0)
        parquet.write_table(run.check, estimate_table(columns), fingerprint)


def estimate_sampling(run: RunDirectory, config: Config) -> list[str]:
    """What sampling would take: lines for a person; nothing is written.

    Raises:
        UserError: the method is exact, or features are missing or do not fit.
    """
    if config.value.method != "sample":
        raise UserError("--dry-run is for --method sample; the closed form takes seconds")
    points = read_points(run)
    check_clean(run, points)
    return estimate(_utility(points, config), config)


def estimate_columns(aggregator: Aggregator, number: int) -> dict[str, Any]:
    """What is known of one semivalue, as the columns of `tables.ESTIMATES` behind the label."""
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


def _utility(points: FeatureSet, config: Config) -> Utility:
    train, clean = (points.train.x, points.train.y), (points.clean.x, points.clean.y)
    with threadpool_limits(1):  # the last bits of distances and axes depend on their number
        return new_utility(train, clean, config.value, config.sample)


def _choose(
    columns: dict[str, Any], aggregator: Aggregator, points: FeatureSet, config: Config
) -> tuple[NDArray[np.bool_], dict[str, Any]]:
    """What the rule keeps; fills in the decisions, and says how sure the dropped are.

    Rules with a threshold keep what is undecided; rules by rank decide every image.
    """
    rule, alpha = config.value.chosen_rule, 1 - config.sample.confidence
    log_e = e_values(aggregator.main, aggregator.threshold, "below")
    if rule == "certain":
        kept = ~e_bh(log_e, alpha)
        above = np.where(columns["low"] > aggregator.threshold, "keep", "undecided")
        columns["decision"] = np.where(kept, above, "drop").tolist()
        return kept, {"rule": rule, "threshold": 0.0, "false_discovery": alpha}
    kept, choice = choose(columns["value"], points, config)
    if rule in ("zero", "chance"):
        kept = np.array(columns["decision"]) != "drop"
    else:
        columns["decision"] = np.where(kept, "keep", "drop").tolist()
    return kept, {**choice, "false_discovery": false_discovery_bound(log_e, ~kept)}
