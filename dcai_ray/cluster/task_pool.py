"""Many tasks on Ray, their results in order, with a progress bar.

A task whose process or machine dies is run again by Ray; one that raises ends the step with its own
error. Only a few tasks a core are submitted at a time, and results that come early wait for those
before them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from threadpoolctl import threadpool_limits

from dcai_ray import progress
from dcai_ray.cluster import connection, metrics
from dcai_ray.cluster.preflight import Folders, check_machines, check_packages, installed
from dcai_ray.config import ResourcesConfig
from dcai_ray.errors import ClusterError, can_be_mended
from dcai_ray.storage.location import Location

_POLL_S = 0.5
_CANCELLATIONS = 6  # of a task, half a second apart, until it has ended
_RETRIES = 5  # of a task whose process or machine died
_AHEAD = 4  # tasks a core that are submitted or done early


class Ticks:
    """Counts how far running tasks are, for the progress bar alone."""

    def __init__(self) -> None:
        self._done: dict[int, float] = {}

    def tick(self, number: int, done: float) -> None:
        """Task `number` has done so many units."""
        self._done[number] = done

    def total(self) -> float:
        """Units done by all tasks."""
        return sum(self._done.values())


def new_ticks() -> Any:
    """An actor on the driver's machine: on another one it could be lost, and the step with it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
    return ray.remote(**options)(Ticks).remote()


def run_tasks(
    name: str,
    function: Callable[..., Any],
    jobs: Sequence[Any],
    resources: ResourcesConfig,
    *,
    unit: str,
    sizes: Sequence[int] | None = None,
    shared: Any = None,
    num_cpus: int = 1,
    num_gpus: Callable[[], float] = lambda: 0,
    run: Location | None = None,
    data: Location | None = None,
    names: Sequence[str] | None = None,
    ticking: bool = False,
) -> Iterator[Any]:
    """The result of `function(job[, shared][, tick])` for each job, in the order of the jobs.

    Args:
        name: of the step, for the person who waits.
        function: a function at the top of a module.
        jobs: small arguments, one a task.
        resources: the cluster to join or to start.
        unit: what the progress counts.
        sizes: units of each job; 1 by default.
        shared: a big argument of all tasks; it goes to the object store once.
        num_cpus: cores a task.
        num_gpus: GPUs a task, asked once the cluster is joined.
        run: the folder of the run that the step belongs to.
        data: images that the tasks read, to write what they find into the run.
        names: of the tasks in Ray's dashboard; by default the step's and a number.
        ticking: give each task a function to say how many of its units are done.
    Raises:
        Exception: what a task raised; the others are cancelled.
        ClusterError: the process of a task died again and again, or for want of memory.
        UserError: a machine of the cluster cannot do its share.
    """
    if not jobs:
        return
    connection.connect(resources)
    check_machines(Folders(data, run) if data and run else None)
    sizes = sizes or [1] * len(jobs)
    names = names or [f"{name} {number}" for number in range(len(jobs))]
    tasks = _Tasks(function, shared, connection.task_options(resources, num_cpus, num_gpus()))
    ticks = new_ticks() if ticking else None
    waiting = iter(enumerate(jobs))
    early: dict[int, Any] = {}
    done = following = 0
    try:
        with (
            progress.step(name, sum(sizes), unit) as report,
            metrics.step(run, name, unit, len(jobs), sum(sizes)) as measure,
        ):
            while following < len(jobs):
                limit = max(_AHEAD * connection.num_cpus(), 1)
                while len(tasks.flying) + len(early) < limit and (entry := next(waiting, None)):
                    tasks.submit(*entry, names[entry[0]], ticks)
                for number, result in tasks.arrived():
                    early[number] = result
                    done += sizes[number]
                units = ray.get(ticks.total.remote()) if ticks else done
                report(units)
                measure(following + len(early), units)
                while following in early:
                    yield early.pop(following)
                    following += 1
    finally:
        tasks.cancel()
        if ticks:
            ray.kill(ticks)


class _Tasks:
    """Tasks in flight."""

    def __init__(
        self, function: Callable[..., Any], shared: Any, options: Mapping[str, Any]
    ) -> None:
        self._function = function
        self._shared = None if shared is None else ray.put(shared)
        self._remote = ray.remote(max_retries=_RETRIES, **options)(_call)
        self.flying: dict[ray.ObjectRef[Any], int] = {}

    def submit(self, number: int, job: Any, name: str, ticks: Any) -> None:
        ref = self._remote.options(name=name).remote(
            self._function, job, self._shared, ticks, number, installed()
        )
        self.flying[ref] = number

    def arrived(self) -> Iterator[tuple[int, Any]]:
        """(number, result) of what is ready; waits a moment for the first."""
        ready, _ = ray.wait(list(self.flying), num_returns=1, timeout=_POLL_S)
        if ready:
            ready, _ = ray.wait(list(self.flying), num_returns=len(self.flying), timeout=0)
        for ref in ready:
            number = self.flying.pop(ref)
            try:
                result = ray.get(ref)
            except RayTaskError as error:
                # Of what a user can mend the line is enough, a bug keeps the worker's traceback.
                raise error.cause from None if can_be_mended(error.cause) else error
            except OutOfMemoryError:
                raise ClusterError(
                    "a machine has too little memory for its tasks, and they were ended; use fewer "
                    "at a time (--num-cpus) or end other programs; the same command goes "
                    "on from here"
                ) from None
            except (WorkerCrashedError, NodeDiedError, ObjectLostError):
                raise ClusterError(
                    f"a task's process or machine died {_RETRIES + 1} times over; the logs of Ray "
                    "say why; "
                    "the same command goes on from here"
                ) from None
            yield number, result

    def cancel(self) -> None:
        """End what is at work; a task that is just being started can miss the first call."""
        left = list(self.flying)
        for _ in range(_CANCELLATIONS):
            for ref in left:
                ray.cancel(ref, force=True)
            if left:
                _, left = ray.wait(left, num_returns=len(left), timeout=_POLL_S)


def _call(
    function: Callable[..., Any],
    job: Any,
    shared: Any,
    ticks: Any,
    number: int,
    packages: Mapping[str, str],
) -> Any:
    """In a worker: one thread for BLAS, as the last bits depend on their number."""
    check_packages(packages)
    arguments = [] if shared is None else [shared]
    if ticks is not None:
        arguments.append(lambda done: ticks.tick.remote(number, done))
    with threadpool_limits(1):
        return function(job, *arguments)
