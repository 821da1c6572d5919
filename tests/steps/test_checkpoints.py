"""Checkpoints of a sampling: what is written comes back, and a damaged one is skipped."""

import numpy as np
import pytest

from dcai_ray.errors import StorageError
from dcai_ray.steps.checkpoints import read_checkpoint, write_checkpoint
from dcai_ray.storage.location import Location
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.blocks import run_block
from dcai_ray.valuation.plan import new_plan
from dcai_ray.valuation.stopping import MaxRounds
from tests.support import games

GAME = games.airport([1, 2, 5, 5, 9])
NUM_CHAINS, NEVER = 3, MaxRounds(rounds=10**9)


@pytest.fixture
def folder(tmp_path):
    return Location(str(tmp_path / "checkpoint"))


@pytest.fixture(scope="module")
def plan():
    return new_plan(GAME, semivalues=("shapley", "banzhaf"), rounds_per_block=4)


def fed(plan, sets, aggregator=None):
    aggregator = aggregator or Aggregator(5, NUM_CHAINS, 2, stop=NEVER)
    for index in range(aggregator.next_index, sets):
        for chain in range(NUM_CHAINS):
            aggregator.add(run_block(plan, GAME, chain, index))
    return aggregator


def bits(aggregator):
    return {name: np.asarray(entry).tobytes() for name, entry in aggregator.state().items()
            if name != "trace"}  # fmt: skip


def test_a_state_comes_back_to_the_last_bit_with_its_notes(folder, plan):
    aggregator = fed(plan, 7)
    write_checkpoint(folder, aggregator.state(), "made", {"seconds": 1.5, "at": {"3": 0.5}})
    state, notes = read_checkpoint(folder, "made")
    again = Aggregator.restore(state, stop=NEVER)
    assert bits(again) == bits(aggregator)
    assert again.trace == aggregator.trace
    assert notes == {"seconds": 1.5, "at": {"3": 0.5}}


def test_resuming_from_a_checkpoint_gives_the_bits_of_an_undisturbed_run(folder, plan):
    write_checkpoint(folder, fed(plan, 4).state(), "made", {})
    state, _ = read_checkpoint(folder, "made")
    assert bits(fed(plan, 12, Aggregator.restore(state, stop=NEVER))) == bits(fed(plan, 12))


def test_two_are_kept_and_the_newest_is_read(folder, plan):
    for sets in (1, 2, 5):
        write_checkpoint(folder, fed(plan, sets).state(), "made", {})
    assert [name for name, _ in folder.walk()] == ["wave-00000002.parquet", "wave-00000005.parquet"]
    state, _ = read_checkpoint(folder, "made")
    assert state["next_index"] == 5


def test_a_damaged_one_is_skipped_and_that_is_said(folder, plan, capsys):
    for sets in (2, 5):
        write_checkpoint(folder, fed(plan, sets).state(), "made", {})
    (folder / "wave-00000005.parquet").write_bytes(b"PAR1 cut off")
    state, _ = read_checkpoint(folder, "made")
    assert state["next_index"] == 2
    assert "wave-00000005.parquet" in capsys.readouterr().err


def test_one_of_another_sampling_is_not_resumed_from_and_that_is_said(folder, plan, capsys):
    write_checkpoint(folder, fed(plan, 2).state(), "made", {})
    assert read_checkpoint(folder, "of other features") == (None, {})
    assert "of other features or formulas; sampling starts anew" in capsys.readouterr().err
    assert read_checkpoint(folder, "made")[0]["next_index"] == 2  # nothing is lost by asking


def test_the_first_checkpoint_of_a_new_sampling_replaces_a_longer_old_one(folder, plan):
    write_checkpoint(folder, fed(plan, 5).state(), "made", {})
    write_checkpoint(folder, fed(plan, 1).state(), "made anew", {})
    assert [name for name, _ in folder.walk()] == ["wave-00000001.parquet"]
    assert read_checkpoint(folder, "made anew")[0]["next_index"] == 1


def test_where_there_is_none_there_is_none(folder):
    assert read_checkpoint(folder, "made") == (None, {})


def test_a_store_that_does_not_answer_is_not_taken_for_a_damaged_file(folder, plan, monkeypatch):
    write_checkpoint(folder, fed(plan, 3).state(), "made", {})

    def refuse(location):
        raise StorageError(f"{location}: the store does not answer")

    monkeypatch.setattr(Location, "read_bytes", refuse)
    with pytest.raises(StorageError, match="does not answer"):
        read_checkpoint(folder, "made")
