"""The pool against what only real processes show; its decisions are tested in test_ledger."""

import itertools
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import ray

from dcai_ray.cluster.actor_pool import stream_blocks

pytestmark = pytest.mark.ray
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
LONG_S = 60.0


class Worker:
    """A block is its own id, with the process that computed it."""

    def __init__(self, mark=None):
        self._mark = mark

    def run(self, block_id):
        if block_id == "bad":
            raise ValueError("no such block")
        if block_id == "slow" and not Path(self._mark).exists():
            Path(self._mark).touch()  # only the first actor is slow
            time.sleep(LONG_S)
        time.sleep(0.002)
        return block_id, os.getpid()


class Broken:
    def __init__(self):
        raise ZeroDivisionError("no actor")

    def run(self, block_id):
        return block_id


class Mortal:
    def run(self, block_id):
        os._exit(1)


class Sleepy:
    def run(self, block_id):
        time.sleep(1.5)
        return block_id


def remote(actor):
    return ray.remote(num_cpus=1, max_restarts=0)(actor).remote


def blocks(ids, *, num_actors=2, start=None, **options):
    """Ids in order of arrival."""
    start = start or remote(Worker)
    with stream_blocks(start, iter(ids), num_actors=lambda: num_actors, **options) as pool:
        return [block_id for block_id, _ in pool]


def idle_cpus():
    return ray.available_resources().get("CPU", 0)


def wait_for(condition, within_s=30.0):
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_while_a_block_takes_long_a_turn_ends_after_a_second_without_one(ray_cluster):
    with stream_blocks(remote(Sleepy), iter("a"), num_actors=lambda: 1) as pool:
        turns = [(pool.num_up, [block_id for block_id, _ in blocks]) for blocks in pool.turns()]
    assert turns[-2:] == [(1, []), (1, ["a"])]


def test_more_actors_than_cores_do_not_block_and_every_block_arrives_once(ray_cluster):
    assert sorted(blocks(range(50), num_actors=8)) == list(range(50))


def test_processes_killed_again_and_again_lose_nothing(ray_cluster):
    arrived, killed = [], set()
    with stream_blocks(remote(Worker), iter(range(400)), num_actors=lambda: 2) as pool:
        for _, (number, pid) in pool:
            arrived.append(number)
            if len(arrived) % 80 == 40 and pid not in killed:  # the last with blocks to come
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        assert pool.lost >= len(killed) >= 3
    assert sorted(arrived) == list(range(400))


def test_a_block_outstanding_for_too_long_is_given_to_a_second_actor(ray_cluster, tmp_path):
    start = remote(Worker)
    begin = time.monotonic()
    arrived = blocks(
        ["slow", *range(5)], start=lambda: start(mark=str(tmp_path / "slow")), hedge_s=0.3
    )
    assert sorted(map(str, arrived)) == ["0", "1", "2", "3", "4", "slow"]
    assert time.monotonic() - begin < LONG_S / 2  # nobody waited for the first actor


def test_actors_that_still_wait_for_a_core_are_ended_when_fewer_are_wanted(ray_cluster):
    wanted, seen = 4, set()
    with stream_blocks(remote(Worker), itertools.count(), num_actors=lambda: wanted) as pool:
        for count, _ in enumerate(pool):
            now = pool.num_up, pool.num_starting
            seen.add(now)
            if now == (2, 2):
                wanted = 2
            if now == (2, 0):
                break
            assert count < 20_000
        assert pool.lost == 0
    assert (2, 2) in seen


def test_leaving_the_loop_ends_the_actors(ray_cluster):
    with stream_blocks(remote(Worker), itertools.count(), num_actors=lambda: 2) as pool:
        for block_id, _ in pool:
            if block_id >= 30:
                break
    wait_for(lambda: idle_cpus() == 2)


def test_an_error_ends_the_actors_too(ray_cluster):
    with pytest.raises(ValueError, match="no such block"):
        blocks([1, 2, "bad", 3])
    wait_for(lambda: idle_cpus() == 2)


def test_an_actor_that_cannot_start_is_an_error(ray_cluster):
    with pytest.raises(ray.exceptions.ActorDiedError, match="ZeroDivisionError"):
        blocks(range(5), start=remote(Broken))


def test_too_many_lost_actors_are_an_error(ray_cluster):
    with pytest.raises(ray.exceptions.RayActorError):
        blocks(range(5), start=remote(Mortal), max_lost=1)
    wait_for(lambda: idle_cpus() == 2)
