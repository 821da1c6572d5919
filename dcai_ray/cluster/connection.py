"""Joining a Ray cluster, or starting a local one; all options given to Ray in one place."""

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from dcai_ray.config import ResourcesConfig
from dcai_ray.errors import ClusterError, UserError
from dcai_ray.progress import say

logger = logging.getLogger(__name__)

_STORE_BYTES = 2 * 2**30  # object store of a local cluster, at most 30 % of the memory
_STORE_SHARE = 0.3
_REACH_S = 10.0
_RELEASES, _RELEASE_S = 10, 0.1  # Ray counts a core as taken for a moment after its task has ended


def connect(resources: ResourcesConfig) -> None:
    """Join the cluster at RAY_ADDRESS or that of the submitted job; otherwise start a local one.

    A second call does nothing. A cluster started here ends with this process.

    Raises:
        ClusterError: there is no cluster at RAY_ADDRESS.
        UserError: the folder for temporary files is no place for a local one.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    # This package's own messages come from the driver; output of workers would garble the bar.
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with warnings.catch_warnings(), _own_signals():
        warnings.simplefilter("ignore", FutureWarning)
        if address:
            _join(address, options)
        else:
            _start(resources, options)
    _log_rays_messages()
    cluster = f"Ray cluster at {address}" if address else "local Ray cluster"
    say(f"{cluster}: {_total('CPU'):g} CPUs, {_total('GPU'):g} GPUs")
    log_nodes()
    name = resources.worker_resource
    if name and not _total(name):
        say(f"no node of the cluster offers {name!r} yet: waiting for one")


def _join(address: str, options: dict[str, Any]) -> None:
    try:
        _reach(address)
        ray.init(**options)
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: no address at all
        reason = str(error).strip().splitlines()[0]
        raise ClusterError(
            f"no Ray cluster at RAY_ADDRESS={address} ({reason}); start it or unset it"
        ) from None


def _start(resources: ResourcesConfig, options: dict[str, Any]) -> None:
    _ensure_token()
    # Ray would report to its makers what the cluster of a laptop is like.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        with _own_process_groups():
            ray.init(
                address="local",
                num_cpus=resources.num_cpus,
                resources=_offered(resources),
                include_dashboard=False,
                object_store_memory=min(_STORE_BYTES, int(_STORE_SHARE * _memory_bytes())),
                **options,
            )
    except OSError as error:
        if "AF_UNIX" not in str(error):
            raise
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        raise UserError(
            f"{folder}: this folder for temporary files has too long a name for Ray's sockets; set "
            "RAY_TMPDIR to one of at most 38 characters, such as /tmp"
        ) from None
    except Exception as error:  # Ray's own class for it is Exception
        if "timed out during startup" not in str(error):
            raise
        raise ClusterError(
            "Ray did not start in time; is this machine busy, or short of memory? Run the same "
            "command again"
        ) from None


def _ensure_token() -> None:
    """Give a local cluster a token of its own where Ray cannot keep one in the home."""
    folder = Path(os.path.expanduser("~/.ray"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _log_rays_messages() -> None:
    """Log what Ray's processes report: it would print dozens of lines to stdout, where results go.

    There is no option for it (Ray 2.60): `log_to_driver` is about the output of workers alone.
    """

    def log(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
        logger.info("Ray: %s", "\n".join(data["lines"]))

    ray._private.worker.print_worker_logs = log


@contextmanager
def _own_process_groups() -> Iterator[None]:
    """Start Ray's processes outside the group of this one.

    A signal to the whole group, as batch systems send it, would otherwise end Ray while this
    process unwinds: its next call to Ray would end it with exit code 1. There is no option for it
    (Ray 2.60); this function is what Ray calls in each child to let it end with its parent.
    """
    utils = ray._private.utils
    end_with_parent = utils.set_kill_on_parent_death_linux

    def in_child() -> None:
        os.setpgrp()
        end_with_parent()  # type: ignore[no-untyped-call]

    utils.set_kill_on_parent_death_linux = in_child
    try:
        yield
    finally:
        utils.set_kill_on_parent_death_linux = end_with_parent


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


def is_free(num_cpus: float) -> bool:
    """Whether a task of so many cores could start at once; what has just ended is given time."""
    for _ in range(_RELEASES):
        if ray.available_resources().get("CPU", 0) >= num_cpus:  # type: ignore[no-untyped-call]
            return True
        time.sleep(_RELEASE_S)
    return False


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
