"""Joining a Ray cluster, or starting one on this machine: every Ray option in one place."""

import logging
import os
import socket
import warnings
from typing import Any

import ray

from dcai_ray.config import ResourcesConfig
from dcai_ray.errors import ClusterError, UserError
from dcai_ray.progress import say

logger = logging.getLogger(__name__)

_STORE_BYTES = 2 * 2**30  # of the object store of a local cluster, at most 30 % of the memory
_STORE_SHARE = 0.3
_REACH_S = 10.0


def connect(resources: ResourcesConfig) -> None:
    """Join the cluster of RAY_ADDRESS or of the submitted job; else start one here.

    A second call does nothing. A cluster started here ends with this process.

    Raises:
        ClusterError: there is no cluster at RAY_ADDRESS.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    # This package's own messages come from the driver; a worker's prints would garble the bar.
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if address:
            try:
                _reach(address)
                ray.init(**options)
            except (OSError, RuntimeError, ValueError) as error:  # ValueError: no address at all
                reason = str(error).strip().splitlines()[0]
                raise ClusterError(
                    f"no Ray cluster at RAY_ADDRESS={address} ({reason}); start it or unset it"
                ) from None
        else:
            ray.init(
                address="local",
                num_cpus=resources.num_cpus,
                resources=_offered(resources),
                include_dashboard=False,
                object_store_memory=min(_STORE_BYTES, int(_STORE_SHARE * _memory_bytes())),
                **options,
            )
    where = f"cluster at {address}" if address else "this machine"
    say(f"Ray on {where}: {_total('CPU'):g} CPUs, {_total('GPU'):g} GPUs")
    log_nodes()
    name = resources.worker_resource
    if name and not _total(name):
        say(f"no machine of the cluster offers {name!r} yet: waiting for one")


def num_cpus() -> int:
    """Cores of the cluster as it is now."""
    return max(1, int(_total("CPU")))


def working_nodes() -> list[dict[str, Any]]:
    """Machines that are up and that tasks may run on, as Ray describes them."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"] and node["Resources"].keys() & {"CPU", "GPU"}]


def log_nodes() -> None:
    """Write into the log which nodes there are now."""
    for node in working_nodes():
        cpus, gpus = (node["Resources"].get(name, 0) for name in ("CPU", "GPU"))
        logger.info("node %s: %g CPUs, %g GPUs", node["NodeManagerAddress"], cpus, gpus)


def num_workers(resources: ResourcesConfig) -> int:
    """Actors that sampling asks for: as many as set, or as the cluster has room for now."""
    return resources.num_workers or max(1, int(_total(resources.worker_resource or "CPU")))


def actor_options(resources: ResourcesConfig) -> dict[str, Any]:
    """What a chain's actor asks of Ray: one core, and to be replaced by us if it dies."""
    name = resources.worker_resource
    return {
        "num_cpus": 1,
        "resources": {name: 1} if name else None,
        "max_restarts": 0,
        "scheduling_strategy": "SPREAD",
    }


def task_options(resources: ResourcesConfig, num_cpus: int, num_gpus: float) -> dict[str, Any]:
    """What a task asks of Ray; one that needs no GPU keeps off the machines that have some."""
    name = resources.worker_resource
    return {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "resources": {name: 1} if name and not num_gpus else None,
        "scheduling_strategy": "SPREAD",
    }


def num_gpus(asked: float | None, usual: float) -> float:
    """GPUs that a task of a network asks for: as set, or the usual share where there are any.

    Raises:
        UserError: some are asked for on a machine without, which no other will join.
    """
    there = _total("GPU")
    if asked and not there:
        if not os.environ.get("RAY_ADDRESS"):
            raise UserError(
                f"each task asks for {asked:g} GPUs and this machine has none; leave "
                "--gpus-per-training and --gpus-per-extraction out, or join a cluster"
            )
        say(f"each task asks for {asked:g} GPUs and the cluster has none yet: waiting for one")
    if asked is not None:
        return asked
    if not there:
        say("no GPU in the cluster: on CPUs")
    return usual if there else 0


def _offered(resources: ResourcesConfig) -> dict[str, float] | None:
    """This machine runs everything, so that a cluster's settings serve here too."""
    name = resources.worker_resource
    return {name: resources.num_cpus or os.cpu_count() or 1} if name else None


def _reach(address: str) -> None:
    """Fail at once where nobody listens at host:port; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()


def _total(resource: str) -> float:
    return float(ray.cluster_resources().get(resource, 0))  # type: ignore[no-untyped-call]


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
