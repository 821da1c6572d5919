"""A cluster that begins with no workers grows for chains that wait, and shrinks when idle.

Ray's own autoscaler, with a cloud whose nodes are processes; the node types are those of
cluster.yaml, made small.
"""

import json
import sys

import pytest
import yaml

from dcai_ray.config import read_config
from dcai_ray.valuation.sampling import sample
from tests.conftest import REPOSITORY
from tests.support import chains_autoscaled
from tests.support.chains_autoscaled import NUM_WORKERS
from tests.support.chains_on_nodes import clusters, digest, new_aggregator
from tests.support.hosts import lacking, network

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking()), reason=lacking()),
]
CORES, NODES = 2, 2
HEAD = "ray.head.default"  # the only name that the fake cloud knows
_LISTS = (
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
WAIT_S = 240.0


def fake_cloud(written):
    """cluster.yaml with nodes of two cores that are processes of the head's machine."""
    types = written["available_node_types"]
    return {
        **{key: written[key] for key in ("cluster_name", "max_workers", "upscaling_speed")},
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "fake_multinode",
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        **{name: [] for name in _LISTS},
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {**types["head"], "node_config": {}},
            **{name: small(node) for name, node in types.items() if name != "head"},
        },
    }


def small(node):
    share = CORES / node["resources"]["CPU"]
    resources = {name: max(1, int(share * n)) for name, n in node["resources"].items()}
    return {
        "resources": {**resources, "object_store_memory": 100_000_000},
        "node_config": {},
        "min_workers": node["min_workers"],
        "max_workers": NODES,
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What happened, as `chains_autoscaled` wrote it."""
    folder = tmp_path_factory.mktemp("autoscaling")
    written = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    (folder / "cloud.json").write_text(json.dumps(fake_cloud(written)))
    settings = read_config(str(REPOSITORY / "jobs/aws.yaml")).resources
    with network(folder) as net:
        head = net.host("head")  # a machine of its own: nodes outlive who started them
        head.start_ray(
            "--head", "--num-cpus=0", "--include-dashboard=false",
            f"--autoscaling-config={folder / 'cloud.json'}",
            RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1",
        )  # fmt: skip
        code, said = head.run(
            *("env", f"RAY_ADDRESS={head.address}:6379", f"PYTHONPATH={REPOSITORY}"),
            *(sys.executable, "-m", chains_autoscaled.__name__),
            *(settings.worker_resource, str(folder / "found.json")),
            within_s=WAIT_S,
        )
        assert code == 0, said
    return json.loads((folder / "found.json").read_text())


def test_chains_that_wait_for_a_core_make_nodes_join_and_those_that_are_up_work_meanwhile(found):
    assert found["at_first"] == []
    first = next(row for row in found["timeline"] if row[2] > 0)
    _, nodes, up, starting = first  # while others are still starting
    assert up < NUM_WORKERS
    assert up + starting == NUM_WORKERS
    assert len(nodes) <= NODES
    _, nodes, up, starting = found["timeline"][-1]
    assert (nodes, up, starting) == (["chains"] * NODES, NUM_WORKERS, 0)


def test_no_node_with_a_gpu_was_started_for_chains(found):
    assert not any("gpu" in nodes for _, nodes, _, _ in found["timeline"])


def test_the_result_has_the_bits_of_one_process(found):
    aggregator = new_aggregator()
    for _ in sample(*clusters(), aggregator):
        pass
    assert found["digest"] == digest(aggregator)


def test_a_task_for_a_gpu_brings_its_node(found):
    assert found["gpus"] == 1
    assert "gpu" in found["with_gpu"]


def test_progress_is_counted_on_the_node_that_stays(found):
    assert found["ticks_here"] == [True] * 4


def test_idle_nodes_go(found):
    assert found["at_last"] == []
