"""Is it noticed that the cluster has ended?"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from dcai_ray.cluster.liveness import ClusterEnded, Watch, answers

NODE, HEAD = ("node", 1), ("head", 2)


class Machines:
    """Which addresses answer, and what time it is."""

    def __init__(self) -> None:
        self.up, self.now, self.asked = {NODE, HEAD}, 0.0, 0

    def answers(self, address) -> bool:
        self.asked += 1
        return address in self.up

    def watch(self) -> Watch:
        return Watch(NODE, HEAD, answers=self.answers, now=lambda: self.now)


@pytest.fixture
def machines():
    return Machines()


def test_a_node_that_has_ended_is_noticed_within_seconds(machines):
    watch = machines.watch()
    machines.up = {HEAD}
    machines.now = 3.0
    with pytest.raises(ClusterEnded, match="run the same command again"):
        watch.look()


def test_a_head_that_has_gone_is_told_once_and_again_after_it_came_back(machines, caplog):
    watch = machines.watch()
    for machines.up in ({NODE}, {NODE}, {NODE, HEAD}, {NODE}):
        machines.now += 3.0
        watch.look()
    assert caplog.text.count("the head of the Ray cluster is gone") == 2


def test_nobody_is_asked_more_often_than_every_two_seconds(machines):
    watch = machines.watch()
    for _ in range(100):
        machines.now += 0.1
        watch.look()
    assert 0 < machines.asked <= 2 * 5


def test_an_address_answers_while_something_listens_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert answers(address)
    assert not answers(address)


WAITING = """
import ray
from dcai_ray.cluster import connection, liveness
from dcai_ray.cluster.actor_pool import stream_blocks
from dcai_ray.config import ResourcesConfig

class Slow:
    def run(self, block):
        __import__("time").sleep(0.2)
        return block

connection.connect(ResourcesConfig(num_cpus=1))
start = lambda: ray.remote(num_cpus=1, max_restarts=0)(Slow).remote()
try:
    with stream_blocks(start, iter(range(10**6)), num_actors=lambda: 1) as pool:
        for number, _ in pool:
            print(number, flush=True)
except liveness.ClusterEnded as error:
    print(error, flush=True)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_sampling_ends_with_one_line_when_its_node_is_killed(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True, env=environment
    ) as driver:
        try:
            assert driver.stdout.readline() == "0\n"
            os.kill(_raylet_of(driver.pid), signal.SIGKILL)
            begin = time.monotonic()
            told = driver.stdout.read()
            assert "the Ray cluster has ended under this command" in told
            assert time.monotonic() - begin < 60
        finally:
            with contextlib.suppress(ProcessLookupError):
                driver.kill()


def _raylet_of(driver: int) -> int:
    rows = subprocess.run(
        ["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True, check=True
    )
    for row in rows.stdout.splitlines()[1:]:
        pid, parent, name = row.split(None, 2)
        if int(parent) == driver and name == "raylet":
            return int(pid)
    raise AssertionError("no raylet")
