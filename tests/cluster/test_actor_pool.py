"""The pool against the things that die: each block arrives once, whatever happens."""

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


class Squares:
    """Block i is i squared; told to, the first process to reach a block dies there."""

    def __init__(self, die_at=None, mark=None):
        self._die_at, self._mark = die_at, mark

    def run(self, block_id):
        if block_id == self._die_at and not Path(self._mark).exists():
            Path(self._mark).touch()
            os._exit(1)
        if block_id == "bad":
            raise ValueError("no such block")
        if block_id == "slow" and not Path(self._mark).exists():
            Path(self._mark).touch()
            time.sleep(60)
        time.sleep(0.002)
        return block_id, os.getpid()


class Broken:
    def __init__(self):
        raise ZeroDivisionError("no actor")

    def run(self, block_id):
        return block_id


def remote(actor):
    return ray.remote(num_cpus=1, max_restarts=0)(actor)


def blocks(ids, *, num_actors=2, start=None, **options):
    """(ids in order of arrival, actors that died)."""
    start = start or remote(Squares).remote
    with stream_blocks(start, iter(ids), num_actors=lambda: num_actors, **options) as pool:
        got = [block_id for block_id, _ in pool]
        return got, pool.lost


class Sleepy:
    def run(self, block_id):
        time.sleep(2.5)
        return block_id


def test_while_a_block_takes_long_there_is_a_turn_a_second(ray_cluster):
    with stream_blocks(remote(Sleepy).remote, iter("a"), num_actors=lambda: 1) as pool:
        turns = [(pool.num_up, [block_id for block_id, _ in blocks]) for blocks in pool.turns()]
    assert turns[-1] == (1, ["a"])
    assert turns.count((1, [])) >= 2


def idle_cpus():
    return ray.available_resources().get("CPU", 0)


def wait_for(condition, within_s=30.0):
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_every_block_arrives_once(ray_cluster):
    got, deaths = blocks(range(200))
    assert sorted(got) == list(range(200))
    assert deaths == 0


def test_more_actors_than_cores_do_not_block(ray_cluster):
    got, _ = blocks(range(50), num_actors=8)
    assert sorted(got) == list(range(50))


def test_a_dying_process_loses_nothing(ray_cluster, tmp_path):
    def start():
        return remote(Squares).remote(die_at=60, mark=str(tmp_path / "died"))

    got, deaths = blocks(range(200), start=start)
    assert sorted(got) == list(range(200))
    assert deaths == 1


def test_processes_killed_again_and_again_lose_nothing(ray_cluster):
    got, killed = [], set()
    with stream_blocks(remote(Squares).remote, iter(range(800)), num_actors=lambda: 2) as pool:
        for _, (number, pid) in pool:
            got.append(number)
            if len(got) % 150 == 149 and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        assert pool.lost >= len(killed) >= 3
    assert sorted(got) == list(range(800))


def test_a_block_owed_too_long_is_given_to_a_second_actor(ray_cluster, tmp_path):
    def start():
        return remote(Squares).remote(mark=str(tmp_path / "slow"))

    begin = time.monotonic()
    got, _ = blocks(["slow", *range(20)], start=start, hedge_s=1.0)
    assert sorted(map(str, got)) == sorted(map(str, ["slow", *range(20)]))
    assert time.monotonic() - begin < 30  # not the minute that the first actor sleeps


def test_ids_that_pause_are_asked_for_again(ray_cluster):
    pauses = itertools.chain([None, 1, None, None, 2], [None] * 3, [3])
    assert sorted(blocks(pauses)[0]) == [1, 2, 3]


def test_the_pool_grows_and_shrinks_with_what_is_wanted(ray_cluster):
    wanted, most, seen = 1, 0, set()
    with stream_blocks(
        remote(Squares).remote, itertools.count(), num_actors=lambda: wanted
    ) as pool:
        for count, (_, (_, pid)) in enumerate(pool):
            seen.add(pid)
            most = max(most, pool.num_up)
            if count == 50:
                assert pool.num_up == 1
                wanted = 2
            if len(seen) == 2:
                break
            assert count < 20_000
    assert most == 2


def test_leaving_the_loop_ends_the_actors(ray_cluster):
    with stream_blocks(remote(Squares).remote, itertools.count(), num_actors=lambda: 2) as pool:
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
        blocks(range(5), start=remote(Broken).remote)


class Mortal:
    def run(self, block_id):
        os._exit(1)


def test_too_many_deaths_are_an_error(ray_cluster):
    with pytest.raises(ray.exceptions.RayActorError):
        blocks(range(5), start=remote(Mortal).remote, max_lost=3)
