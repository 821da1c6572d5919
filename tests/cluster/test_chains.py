"""Chains on Ray give the bits of one process, for any number of actors and whatever is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
import ray
from numpy.testing import assert_array_equal

import dcai_ray
from dcai_ray.cluster import chains
from dcai_ray.cluster.chains import Chain, stream_chains
from dcai_ray.config import ResourcesConfig
from dcai_ray.errors import ModelError
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.plan import new_plan
from dcai_ray.valuation.sampling import sample
from dcai_ray.valuation.stopping import MaxRounds
from dcai_ray.valuation.utilities.knn import Knn
from tests.conftest import REPOSITORY
from tests.support import chains_on_nodes, games
from tests.support.chains_on_nodes import clusters, digest, new_aggregator

pytestmark = pytest.mark.ray
for module in (sys.modules[__name__], games):
    ray.cloudpickle.register_pickle_by_value(module)  # workers cannot import them


@pytest.fixture(scope="module")
def sampling():
    """A plan and its utility."""
    return clusters()


@pytest.fixture(scope="module")
def undisturbed(sampling):
    """The digest of a sampling in this process."""
    aggregator = new_aggregator()
    for _ in sample(*sampling, aggregator):
        pass
    return digest(aggregator)


def streamed(sampling, num_workers, after=lambda pool: False):
    aggregator = new_aggregator()
    lost = stream_chains(*sampling, aggregator, ResourcesConfig(num_workers=num_workers), after)
    return aggregator, lost


@pytest.mark.parametrize("num_workers", [1, 2, 4, 7])
def test_any_number_of_actors_gives_the_bits_of_one_process(
    ray_cluster, sampling, undisturbed, num_workers
):
    aggregator, lost = streamed(sampling, num_workers)
    assert digest(aggregator) == undisturbed
    assert lost == 0
    assert aggregator.buffered == 0


class Located(Chain):
    """Writes its process id to a file, so that it can be killed."""

    folder = ""

    def run(self, block_id):
        Path(self.folder, str(os.getpid())).touch()
        return super().run(block_id)


def test_twenty_kills_at_random_moments_change_no_bit(
    ray_cluster, sampling, undisturbed, tmp_path, monkeypatch
):
    located = type("LocatedHere", (Located,), {"folder": str(tmp_path)})
    monkeypatch.setattr(chains, "Chain", located)
    rng, killed = random.Random(0), set()

    def after(pool):
        alive = [int(f.name) for f in tmp_path.iterdir() if int(f.name) not in killed]
        if alive and len(killed) < 20 and rng.random() < 0.5:
            pid = rng.choice(alive)
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        return False

    lost = 0
    while len(killed) < 20:
        aggregator, lost_now = streamed(sampling, 2, after)
        lost += lost_now
        assert digest(aggregator) == undisturbed
    assert lost >= 15  # a sampling may end before the last loss is noticed


def test_a_lost_node_changes_no_bit(undisturbed, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", chains_on_nodes.__name__, str(tmp_path / "found")],
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found").read_text())
    assert found["digest"] == undisturbed
    assert found["most"] == 3
    assert found["workers_lost"] >= 2


def test_a_sampling_may_be_left_after_any_wave(ray_cluster, sampling):
    aggregator, _ = streamed(sampling, 2, after=lambda pool: pool.received > 20)
    assert 0 < aggregator.rounds < chains_on_nodes.ROUNDS


class Failing(games.Game):
    """Fails with `error` once an order is longer than `limit`."""

    limit = 1000
    error: Exception

    def marginals(self, orders):
        if np.diff(orders.offsets).max() > self.limit:
            raise self.error
        return np.zeros(len(orders.players))


def fail_on_ray(error):
    game = Failing(200, lambda s: 0.0)
    plan = new_plan(game)
    game.limit, game.error = 100, error
    aggregator = Aggregator(200, 4, stop=MaxRounds(rounds=100))
    stream_chains(plan, game, aggregator, ResourcesConfig(num_workers=2), lambda pool: False)


def test_a_failing_model_ends_the_sampling_with_its_own_line(ray_cluster):
    line = "SVC failed on a coalition of 101 points (3, 7, ...): no margin"
    with pytest.raises(ModelError) as failed:
        fail_on_ray(ModelError(line))
    assert str(failed.value) == line
    assert failed.value.__suppress_context__


@pytest.mark.parametrize("kind", [ValueError, KeyError, FloatingPointError])
def test_a_bug_in_the_code_of_a_utility_keeps_the_workers_traceback(ray_cluster, kind):
    with pytest.raises(RuntimeError, match=r"^the utility Failing failed in a worker") as failed:
        fail_on_ray(kind("shapes differ"))
    assert not isinstance(failed.value, ValueError)
    told = "".join(traceback.format_exception(failed.value))
    assert "in marginals" in told
    assert f"{kind.__name__}: " in told


def test_a_worker_with_other_packages_ends_the_sampling_and_names_its_node(
    ray_cluster, sampling, monkeypatch
):
    monkeypatch.setattr(chains, "installed", lambda: {"numpy": "1.0.0"})
    with pytest.raises(ValueError, match=r"^[\d.]+: has numpy .* \(driver: 1\.0\.0\); inst"):
        streamed(sampling, 1)


def test_the_public_function_gives_the_same_bits_with_ray_and_without(ray_cluster):
    rng = np.random.default_rng(1)
    points = (rng.standard_normal((60, 3)), rng.integers(0, 2, 60)) * 2
    utility = Knn(*points, k=3)
    here = dcai_ray.shapley_values(utility, stop=MaxRounds(rounds=200), seed=3)
    there = dcai_ray.shapley_values(
        utility, stop=MaxRounds(rounds=200), seed=3, ray=True, num_workers=2
    )
    for column in ("value", "stderr", "low", "high", "evaluated", "decision"):
        assert_array_equal(getattr(here, column), getattr(there, column))
    assert here.rounds == there.rounds
