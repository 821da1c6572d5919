"""A sampling on a cluster that grows for it and shrinks again; writes what happened.

Joins the cluster of RAY_ADDRESS.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import ray

from dcai_ray.cluster.chains import stream_chains
from dcai_ray.cluster.task_pool import new_ticks
from dcai_ray.config import ResourcesConfig
from tests.support.chains_on_nodes import clusters, digest, new_aggregator

NUM_WORKERS = 4
_WAIT_S = 120.0
_PAUSE_S = 0.2


def workers():
    """Types of the nodes that are up, but for the head."""
    return sorted(
        "gpu" if "GPU" in node["Resources"] else "chains"
        for node in ray.nodes()
        if node["Alive"] and "CPU" in node["Resources"]
    )


def sampled(worker_resource):
    """(digest, [(seconds, nodes, actors up, actors joining), ...]) with a line a change."""
    aggregator = new_aggregator()
    start, timeline = time.monotonic(), []

    def after(pool):
        now = [workers(), pool.num_up, pool.num_starting]
        if not timeline or timeline[-1][1:] != now:
            timeline.append([round(time.monotonic() - start, 1), *now])
        if pool.num_up < NUM_WORKERS:
            time.sleep(_PAUSE_S)  # so that there is work left when the last node is up
        return False

    stream_chains(
        *clusters(),
        aggregator,
        ResourcesConfig(num_workers=NUM_WORKERS, worker_resource=worker_resource),
        after,
    )
    return digest(aggregator), timeline


def on_a_gpu():
    return len(ray.get_gpu_ids())


def is_here(actor):
    """Is the actor on the driver's node? Ends it."""
    where = actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id())
    found = ray.get(where, timeout=_WAIT_S) == ray.get_runtime_context().get_node_id()
    ray.kill(actor)
    return found


def seconds_until_idle():
    start = time.monotonic()
    while workers():
        assert time.monotonic() - start < _WAIT_S, workers()
        time.sleep(0.2)
    return round(time.monotonic() - start, 1)


if __name__ == "__main__":
    ray.init(log_to_driver=False)
    found: dict[str, Any] = {"at_first": workers()}
    found["digest"], found["timeline"] = sampled(sys.argv[1])
    asked = time.monotonic()
    on_gpu = ray.remote(num_gpus=1)(on_a_gpu).remote()
    found["ticks_here"] = [is_here(new_ticks()) for _ in range(4)]
    found["gpus"] = ray.get(on_gpu, timeout=_WAIT_S)
    found["gpu_s"], found["with_gpu"] = round(time.monotonic() - asked, 1), workers()
    found["idle_s"], found["at_last"] = seconds_until_idle(), workers()
    Path(sys.argv[2]).write_text(json.dumps(found))  # Ray has a word on stdout too
    ray.shutdown()
