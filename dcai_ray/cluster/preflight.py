"""Before a step: can every machine of the cluster do its share?

Results are equal to the last bit on every machine that has the same packages, so others are
refused, at the start and, of those that join later, when they get their first work. What the tasks
read and write has to be the same from everywhere: an object store, or a shared file system.
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

_ANSWER_S = 120.0  # a machine that has just joined imports everything for the first time
_SHOWN = 5
_SHARE = "give a URI, or a path that every machine sees"


@dataclass(frozen=True, slots=True)
class Folders:
    """What the tasks of a step read and write; every machine has to see the same."""

    data: Location
    run: Location
    """Has its config.yaml."""


def check_machines(folders: Folders | None) -> None:
    """Ask each machine that tasks may run on; nothing where that is this one alone.

    Asked once a cluster: those that join later are checked when they get work.

    Args:
        folders: that the tasks use; None: they get and give everything through Ray.
    Raises:
        UserError: a machine has other packages, cannot see a folder or write to the run, or does
            not answer; each is named with its reason.
    """
    _ask_others(ray.get_runtime_context().get_node_id(), folders)


@lru_cache(maxsize=16)
def _ask_others(here: str, folders: Folders | None) -> None:
    nodes = [node for node in connection.working_nodes() if node["NodeID"] != here]
    settings = (folders.run / "config.yaml").read_bytes() if folders and nodes else b""
    asked = {
        _look(node["NodeID"], installed(), folders, settings): node["NodeManagerAddress"]
        for node in nodes
    }
    if asked:
        ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    problems = [
        f"{address}: {problem}" for ref, address in asked.items() if (problem := _answer(ref))
    ]
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UserError(
            f"{len(problems)} of {len(asked)} other machines cannot take part: "
            + "; ".join([*problems[:_SHOWN], *more])
        )


@lru_cache(maxsize=1)
def installed() -> dict[str, str]:
    """Versions here of what decides the last bits; a build's own suffix (+cpu) does not count."""
    found = {name: text.partition("+")[0] for name, text in package_versions().items()}
    return {"python": platform.python_version(), **found}


def check_packages(wanted: Mapping[str, str]) -> None:
    """In a worker: refuse work where the packages are others than the driver's.

    Raises:
        UserError: with the machine, the packages and both versions.
    """
    problem = _other_packages(wanted)
    if problem:
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        raise UserError(f"{address}: {problem}")


def _look(node: str, packages: Mapping[str, str], folders: Folders | None, settings: bytes) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    return ray.remote(**options)(problem_here).remote(packages, folders, settings)


def problem_here(packages: Mapping[str, str], folders: Folders | None, settings: bytes) -> str:
    """On the machine: what keeps it from taking part; empty if nothing does."""
    problem = _other_packages(packages)
    if problem or folders is None:
        return problem
    try:
        if not folders.data.is_folder():
            return f"cannot see {folders.data}; {_SHARE}"
        known = folders.run / "config.yaml"
        if not known.exists() or known.read_bytes() != settings:
            return f"cannot see the run in {folders.run}; {_SHARE}"
        probe = folders.run / f".probe-{ray.get_runtime_context().get_node_id()}"
        probe.write_bytes(b"")
        probe.delete()
    except (OSError, UserError) as error:
        return str(error).strip().splitlines()[0]
    return ""


def _other_packages(wanted: Mapping[str, str]) -> str:
    here = installed()
    others = [
        f"{name} {here.get(name, 'not installed')} (the driver {version})"
        for name, version in wanted.items()
        if here.get(name) != version
    ]
    if not others:
        return ""
    return f"has {', '.join(others)}; install the same packages on every machine"


def _answer(ref: Any) -> str:
    try:
        return str(ray.get(ref, timeout=0))
    except GetTimeoutError:
        return f"no answer within {_ANSWER_S:.0f} s"
    except RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"cannot run tasks of dcai_ray ({lines[-1].strip()}); install it there"
