"""Has the cluster ended under the run?

Where the driver's own node has died, as by somebody's `ray stop`, Ray leaves actors pending for
ever; where the head has gone, its calls block without a word, and after a minute it ends the
process. So both are tried with a plain connection, every few seconds while something is waited for.
A head may come back (KubeRay restarts it), a node does not.
"""

import logging
import os
import socket
import time
from collections.abc import Callable

import ray

from dcai_ray import progress
from dcai_ray.errors import ClusterError

_EVERY_S = 2.0
_TIMEOUT_S = 5.0
NODE_ENDED = (
    "the Ray cluster has ended under this command (`ray stop`, or Ray's processes were killed); "
    "run the same command again to resume"
)

Address = tuple[str, int]


class ClusterEnded(ClusterError):
    """The driver's node has gone: Ray would not answer any call."""


def answers(address: Address) -> bool:
    """Whether something listens there; a machine that is only slow counts as listening."""
    try:
        socket.create_connection(address, timeout=_TIMEOUT_S).close()
    except TimeoutError:
        return True
    except OSError:
        return False
    return True


class Watch:
    """Looks after the driver's node and the head; None for either: it is not looked at."""

    def __init__(
        self,
        node: Address | None,
        head: Address | None,
        *,
        answers: Callable[[Address], bool] = answers,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._head, self._answers, self._now = node, head, answers, now
        self._looked = now()
        self._head_is_there = True

    def look(self) -> None:
        """Look, if it is time to.

        Raises:
            ClusterEnded: the driver's node has ended.
        """
        now = self._now()
        if now - self._looked < _EVERY_S:
            return
        self._looked = now
        if self._node and not self._answers(self._node):
            raise ClusterEnded(NODE_ENDED)
        before, self._head_is_there = (
            self._head_is_there,
            not self._head or self._answers(self._head),
        )
        if before and not self._head_is_there:
            progress.say(
                "the head of the Ray cluster is gone; if it does not come back within a minute, "
                "Ray ends this command: start it, then run the same command again to resume",
                logging.WARNING,
            )


def watch() -> Watch:
    """A watch over the cluster that this process has joined."""
    if "://" in os.environ.get("RAY_ADDRESS", ""):  # a client is no part of the cluster
        return Watch(None, None)
    context = ray.get_runtime_context()
    own = context.get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    found = [(n["NodeManagerAddress"], n["NodeManagerPort"]) for n in nodes if n["NodeID"] == own]
    host, _, port = context.gcs_address.rpartition(":")
    return Watch(found[0] if found else None, (host.strip("[]"), int(port)))
