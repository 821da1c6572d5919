"""Joining a Ray cluster, or starting a local one; all options given to Ray in one place."""

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from dcai_ray.config import ResourcesConfig
from dcai_ray.errors import ClusterError, UserError
from dcai_ray.progress import say

logger = logging.getLogger(__name__)

_STORE_BYTES = 2 * 2**30  # object store of a local cluster, at most 30 % of the memory
_STORE_SHARE = 0.3
_REACH_S = 10.0


def connect(resources: ResourcesConfig) -> None:
    """Join the cluster at RAY_ADDRESS or that of the submitted job; otherwise start a local one.

    A second call does nothing. A cluster started here ends with this process.

    Raises:
        ClusterError: there is no cluster at RAY_ADDRESS.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    # This package's own messages come from the driver; output of workers would garble the bar.
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with warnings.catch_warnings(), _own_signals():
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
    cluster = f"Ray cluster at {address}" if address else "local Ray cluster"
    say(f"{cluster}: {_total('CPU'):g} CPUs, {_total('GPU'):g} GPUs")
    log_nodes()
    name = resources.worker_resource
    if name and not _total(name):
        say(f"no node of the cluster offers {name!r} yet: waiting for one")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's reaction to SIGTERM: Ray installs its own, which aborts the process."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and callable(before):
        signal.signal(signal.SIGTERM, before)


def num_cpus() -> int:
    """Number of cores that the cluster has now, at least 1."""
    return max(1, int(_total("CPU")))


def working_nodes() -> list[dict[str, Any]]:
    """Nodes that are up and that tasks may run on, as Ray describes them."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"] and node["Resources"].keys() & {"CPU", "GPU"}]


def log_nodes() -> None:
    """Write into the log which nodes there are now."""
    for node in working_nodes():
        cpus, gpus = (node["Resources"].get(name, 0) for name in ("CPU", "GPU"))
        logger.info("node %s: %g CPUs, %g GPUs", node["NodeManagerAddress"], cpus, gpus)


def num_workers(resources: ResourcesConfig) -> int:
    """Number of actors that sampling requests: as set, or as many as the cluster has cores now.

    With `worker_resource`, units of that resource count instead of cores.
    """
    return resources.num_workers or max(1, int(_total(resources.worker_resource or "CPU")))


def actor_options(resources: ResourcesConfig) -> dict[str, Any]:
    """Options of a chain's actor: one core, and no restarts, because the pool replaces it."""
    name = resources.worker_resource
    return {
        "num_cpus": 1,
        "resources": {name: 1} if name else None,
        "max_restarts": 0,
        "scheduling_strategy": "SPREAD",
    }


def task_options(resources: ResourcesConfig, num_cpus: int, num_gpus: float) -> dict[str, Any]:
    """Options of a task; one that needs no GPU keeps off the nodes that have them."""
    name = resources.worker_resource
    return {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "resources": {name: 1} if name and not num_gpus else None,
        "scheduling_strategy": "SPREAD",
    }


def num_gpus(requested: float | None, default: float) -> float:
    """GPUs per task: as requested, or if None, the default where the cluster has any GPU."""
    if requested is not None:
        return requested
    return default if _total("GPU") else 0


def check_gpus(requested: float | None) -> None:
    """Refuse GPUs that can never be had; print that tasks wait for GPUs or run on CPUs instead.

    Args:
        requested: GPUs per task; None: the default where the cluster has any GPU.
    Raises:
        UserError: a local cluster, which no node can join, has no GPU.
    """
    if requested == 0 or _total("GPU"):
        return
    if requested is None:
        say("no GPU in the cluster: running on CPUs")
    elif os.environ.get("RAY_ADDRESS"):
        say(f"each task requests {requested:g} GPUs; the cluster has none yet: waiting for one")
    else:
        raise UserError(
            f"each task requests {requested:g} GPUs, but this local cluster has none; omit "
            "--gpus-per-training and --gpus-per-extraction, or join a cluster that has GPUs"
        )


def _offered(resources: ResourcesConfig) -> dict[str, float] | None:
    """A local node runs everything, so that the settings of a cluster work here as well."""
    name = resources.worker_resource
    return {name: resources.num_cpus or os.cpu_count() or 1} if name else None


def _reach(address: str) -> None:
    """Fail at once if nothing listens at host:port; Ray would keep trying for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()


def _total(resource: str) -> float:
    return float(ray.cluster_resources().get(resource, 0))  # type: ignore[no-untyped-call]


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
