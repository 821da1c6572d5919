"""A sampling on a cluster of two nodes of which one is lost on the way; writes what came out.

In a process of its own, as a process can be in one cluster at a time.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import ray
from ray.cluster_utils import Cluster

from dcai_ray.cluster.chains import stream_chains
from dcai_ray.config import ResourcesConfig
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.plan import new_plan
from dcai_ray.valuation.stopping import MaxRounds
from dcai_ray.valuation.utilities.knn import Knn

NUM_CHAINS, ROUNDS = 4, 2000


def clusters():
    """A plan and its utility."""
    rng = np.random.default_rng(0)
    x, x_val = rng.standard_normal((400, 4)), rng.standard_normal((80, 4))
    y, y_val = rng.integers(0, 3, 400), rng.integers(0, 3, 80)
    utility = Knn(x, y, x_val, y_val, k=5)
    return new_plan(utility, rounds_per_block=8), utility


def new_aggregator():
    return Aggregator(400, NUM_CHAINS, stop=MaxRounds(rounds=ROUNDS))


def digest(aggregator):
    content = aggregator.value.tobytes() + aggregator.stderr.tobytes()
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sizes = {"object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **sizes})
    node = cluster.add_node(num_cpus=2, **sizes)
    ray.init(address=cluster.address, log_to_driver=False)
    aggregator = new_aggregator()
    most = 0

    def after(pool):
        global node, most
        most = max(most, pool.num_up)
        if node is not None and pool.num_up == 3 and aggregator.next_index >= 5:
            cluster.remove_node(node, allow_graceful=False)
            node = None
        return False

    deaths = stream_chains(*clusters(), aggregator, ResourcesConfig(num_workers=3), after)
    found = {"digest": digest(aggregator), "workers_lost": deaths, "most": most}
    Path(sys.argv[1]).write_text(json.dumps(found))  # Ray has a word on stdout too
    ray.shutdown()
    cluster.shutdown()
