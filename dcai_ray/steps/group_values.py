"""Step 2b for groups of images: which source, annotator or batch helps, and which harms.

A file names the group of every training image. The groups are the players of the same utility as
the images': up to `MAX_ENUMERATED` of them are valued exactly, over all coalitions; more by
sampling, as images are. Where probabilities of wrong labels are known, each group's share is told
beside: what a group is worth is also its size and how much others say the same.
"""

import math
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dcai_ray import progress
from dcai_ray.cluster.task_pool import Step, row_blocks, run_tasks
from dcai_ray.config import EXACT_ONLY, RULE_SETTINGS, Config, plain
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps import tasks
from dcai_ray.steps.feature_set import FeatureSet, check_clean, read_points
from dcai_ray.steps.freshness import is_current
from dcai_ray.steps.sampled_values import utility_of
from dcai_ray.steps.sampling_session import GROUPS, Session, block_fingerprint
from dcai_ray.steps.user_files import read_arrays
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.valuation.arrays import texts
from dcai_ray.valuation.semivalues import from_scores, size_weights
from dcai_ray.valuation.utilities.grouped import Grouped

FORMAT = 1
"""Raise this when what is made of groups changes."""
MAX_ENUMERATED = 15
"""Groups that are valued over all 2^G coalitions."""
_BLOCK = 256  # coalitions of a task, or orders
_IDS = ("id", "path")  # columns that may name the images
_SHOWN = 5  # groups that the terminal names


@dataclass(frozen=True, slots=True)
class Players:
    """The groups of the training images."""

    groups: list[str]  # (n,)
    digest: str
    """SHA-256 of the file."""


def read_players(run: RunDirectory, config: Config, file: Location) -> Players:
    """The groups that a file names, before any work.

    Args:
        run: its features are there.
        config: its section value is used.
        file: a table with the columns id (or path) and group, a row for each training image.
    Raises:
        UserError: the file makes no sense, an image has no group, there is no shapley_val, or the
            utility is not defined for groups.
    """
    points = read_points(run)
    check_clean(run, points, "sample")
    if config.value.utility in EXACT_ONLY:
        raise UserError(
            f"--players: the utility {config.value.utility} is not defined for groups; use knn or "
            "knn-accuracy, or --method sample with another one"
        )
    arrays, digest = read_arrays(file)
    return Players(_groups(file, arrays, points.ids), digest)


def value_groups(run: RunDirectory, config: Config, players: Players) -> None:
    """Value the groups; `values/groups.parquet`.

    Args:
        run: its values are there.
        config: its sections value, sample and resources are used.
        players: the groups.
    """
    points, groups = read_points(run), players.groups
    made_of = new_fingerprint("groups", players.digest, points.fingerprint)
    source = block_fingerprint(config, made_of)
    told = {key: entry for key, entry in plain(config.value).items() if key not in RULE_SETTINGS}
    start = time.monotonic()
    if len(set(groups)) <= MAX_ENUMERATED:
        fingerprint = new_fingerprint(FORMAT, source, told)
        if not is_current(run.group_values, fingerprint):
            game = _game(points, config, groups)
            value = _enumerated(game, config, points.run)
            exact = {"stderr": np.zeros(len(value)), "low": value, "high": value}
            _write(run, game, groups, fingerprint, start, value=value, rounds=0, **exact)
    else:
        session = Session(run, config, source, target=GROUPS)
        game = _game(points, config, groups)
        if not session.finished:
            session.sample(game, lambda aggregator: None)
        found = session.aggregator
        fingerprint = new_fingerprint(FORMAT, source, told, found.next_index)
        if not is_current(run.group_values, fingerprint):
            low, high = found.interval()
            _write(
                run, game, groups, fingerprint, start,
                value=found.value[0], stderr=found.stderr[0], low=low, high=high,
                rounds=found.rounds,
            )  # fmt: skip
    _tell(run, parquet.read_table(run.group_values))


def _groups(
    file: Location, arrays: dict[str, NDArray[np.generic]], ids: tuple[str, ...]
) -> list[str]:
    """(n,) the group of each training image."""
    named = [name for name in _IDS if name in arrays]
    if not named or "group" not in arrays:
        raise UserError(f"{file}: needs the columns id and group, has {', '.join(arrays)}")
    length = len(arrays["group"])
    of = texts(f"{file}: {named[0]}", arrays[named[0]], length)
    groups = texts(f"{file}: group", arrays["group"], length)
    found = {name.removeprefix("train/"): group for name, group in zip(of, groups, strict=True)}
    if len(found) < length:
        raise UserError(f"{file}: {length - len(found)} images are named more than once")
    lacking = [name for name in ids if not found.get(name)]
    if lacking:
        images = progress.counted(len(lacking), "training images", of=len(ids))
        raise UserError(f"{file}: {images} have no group, the first {lacking[0]}")
    chosen = [found[name] for name in ids]
    if len(set(chosen)) < 2:
        raise UserError(f"{file}: all training images are of one group, {chosen[0]!r}")
    return chosen


def _game(points: FeatureSet, config: Config, groups: list[str]) -> Grouped:
    return Grouped(utility_of(points, config), groups)


def _enumerated(game: Grouped, config: Config, run: Location) -> NDArray[np.float64]:
    """(G,) values over all coalitions, whose scores are computed by tasks."""
    num_groups = game.num_players
    orders, coalitions = math.comb(num_groups, num_groups // 2), 1 << num_groups
    unit, count = ("orders", orders) if game.walks else ("coalitions", coalitions)
    blocks = row_blocks(count, _BLOCK)
    step = Step.of_blocks("valuing groups", unit, blocks, run)
    function = partial(tasks.score_coalitions, utility=game)
    scores = np.full(coalitions, np.nan)
    for numbers, found in run_tasks(function, blocks, step, config.resources):
        scores[numbers] = found
    settings = config.value
    weights = size_weights(settings.semivalue, game.num_players, settings.beta)
    return from_scores(scores, weights)


def _write(
    run: RunDirectory,
    game: Grouped,
    groups: list[str],
    fingerprint: str,
    start: float,
    **columns: NDArray[np.float64] | int,
) -> None:
    """The table, the lowest value first, with the share of wrong labels where it is known."""
    of = np.searchsorted(game.groups, groups)
    images = np.bincount(of)
    values = parquet.read_table(run.values)
    wrong = np.full(len(images), np.nan)
    if "wrong_probability" in values.column_names:
        chance = values["wrong_probability"].to_numpy()
        known = np.isfinite(chance)
        counts = np.bincount(of[known], minlength=len(images))
        sums = np.bincount(of[known], chance[known], minlength=len(images))
        wrong = np.divide(sums, counts, out=wrong, where=counts > 0)
    everything = {
        "group": game.groups,
        "images": images,
        "wrong_share": wrong,
        **{name: np.broadcast_to(column, len(images)) for name, column in columns.items()},
    }
    everything["value_per_image"] = everything["value"] / images
    table = pa.table({name: everything[name] for name in schemas.GROUP_VALUES.names})
    table = table.cast(schemas.GROUP_VALUES).sort_by("value")
    parquet.write_table(run.group_values, table, fingerprint)
    run.record_step("group_values", fingerprint, time.monotonic() - start)


def _tell(run: RunDirectory, table: pa.Table) -> None:
    """The groups of the lowest value."""
    progress.say(f"{progress.counted(len(table), 'groups')}, in {run.group_values}; lowest value:")
    for row in table.slice(0, _SHOWN).to_pylist():
        share = row["wrong_share"]
        beside = "" if share != share else f", about {100 * share:.0f} % of its labels wrong"
        images = progress.counted(row["images"], run.unit)
        name = " ".join(row["group"].split())  # a new line in it would break the line
        progress.say(f"  {name}: {row['value']:.3g} for {images}{beside}")
