"""Preflight checks before a step: can every node of the cluster take part?

Results are bitwise identical on all nodes that have the same packages, so nodes with other packages
are refused: at the start, and those that join later when they are given their first work. What the
tasks read and write must be the same from every node: an object store or a shared file system.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dcai_ray.cluster import connection
from dcai_ray.errors import UserError
from dcai_ray.run_directory import package_versions
from dcai_ray.storage.location import Location

_TIMEOUT_S = 120.0  # a node that has just joined imports everything for the first time
_SHOWN = 5
_SHARE = "give a URI, or a path that every node sees"


@dataclass(frozen=True, slots=True)
class Folders:
    """What the tasks of a step read and write; it must be the same from every node."""

    data: Location
    """Root folder of the images."""
    run: Location
    """Folder of the run, which has its config.yaml already."""


_passed: set[tuple[str, Folders | None]] = set()
"""(driver's node id, folders) of the checks that passed; the ids of a new cluster are new."""


def check_nodes(folders: Folders | None) -> None:
    """Check every other node that tasks may run on; a local cluster has none.

    Each cluster is checked once; nodes that join it later are checked when they are given work.

    Args:
        folders: what the tasks read and write; None: they exchange everything through Ray.
    Raises:
        UserError: a node has other packages, cannot see a folder, cannot write to the run or does
            not answer; the message names the nodes, each with its reason.
    """
    here = ray.get_runtime_context().get_node_id()
    if (here, folders) in _passed:
        return
    nodes = [node for node in connection.working_nodes() if node["NodeID"] != here]
    problems = _problems(nodes, folders)
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UserError(
            f"{len(problems)} of {len(nodes)} other nodes cannot take part: "
            + "; ".join([*problems[:_SHOWN], *more])
        )
    _passed.add((here, folders))


def _problems(nodes: list[dict[str, Any]], folders: Folders | None) -> list[str]:
    """`address: reason` of each node that cannot take part."""
    if not nodes:
        return []
    settings = (folders.run / "config.yaml").read_bytes() if folders else b""
    answers = {
        _ask(node["NodeID"], installed(), folders, settings): node["NodeManagerAddress"]
        for node in nodes
    }
    ray.wait(list(answers), num_returns=len(answers), timeout=_TIMEOUT_S)
    return [f"{address}: {problem}" for ref, address in answers.items() if (problem := _get(ref))]


@lru_cache(maxsize=1)
def installed() -> dict[str, str]:
    """Versions on this node of all that decides the last bits; local suffixes (+cpu) are cut."""
    found = {name: text.partition("+")[0] for name, text in package_versions().items()}
    return {"python": platform.python_version(), **found}


def check_packages(required: Mapping[str, str]) -> None:
    """In a worker: refuse to work if the packages differ from those of the driver.

    Args:
        required: versions by name, as the driver's `installed`.
    Raises:
        UserError: names the node, the packages and both versions.
    """
    problem = _other_packages(required)
    if problem:
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        raise UserError(f"{address}: {problem}")


def _ask(
    node_id: str, packages: Mapping[str, str], folders: Folders | None, settings: bytes
) -> Any:
    """The future answer of `problem_here` on a node."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    return ray.remote(**options)(problem_here).remote(packages, folders, settings)


def problem_here(packages: Mapping[str, str], folders: Folders | None, settings: bytes) -> str:
    """On a node: the reason why it cannot take part, or an empty string.

    Args:
        packages: versions by name, as the driver's `installed`.
        folders: what the tasks read and write, if they do.
        settings: content of the run's config.yaml as the driver sees it.
    """
    problem = _other_packages(packages)
    if problem or folders is None:
        return problem
    try:
        if not folders.data.exists():  # a folder, or an archive
            return f"cannot see {folders.data}; {_SHARE}"
        seen = folders.run / "config.yaml"
        if not seen.exists() or seen.read_bytes() != settings:
            return f"cannot see the run in {folders.run}; {_SHARE}"
        probe = folders.run / f".probe-{ray.get_runtime_context().get_node_id()}"
        probe.write_bytes(b"")
        probe.delete()
    except (OSError, UserError) as error:
        return str(error).strip().splitlines()[0]
    return ""


def _other_packages(required: Mapping[str, str]) -> str:
    here = installed()
    others = [
        f"{name} {here.get(name, 'not installed')} (driver: {version})"
        for name, version in required.items()
        if here.get(name) != version
    ]
    if not others:
        return ""
    return f"has {', '.join(others)}; install the same packages on every node"


def _get(ref: Any) -> str:
    try:
        return str(ray.get(ref, timeout=0))
    except GetTimeoutError:
        return f"no answer within {_TIMEOUT_S:.0f} s"
    except RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"cannot run tasks of dcai_ray ({lines[-1].strip()}); install it there"
