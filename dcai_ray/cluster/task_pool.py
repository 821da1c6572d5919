"""Many tasks on Ray: results in the order of the jobs, with a progress bar.

A task whose process or node is lost is run again by Ray; a task that raises ends the step with its
own error. Only a few tasks per core are submitted ahead, and a result that is early waits for those
before it, as `ledger.TaskLedger` decides.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from threadpoolctl import threadpool_limits

from dcai_ray import progress
from dcai_ray.cluster import connection, liveness, metrics
from dcai_ray.cluster.ledger import TaskLedger
from dcai_ray.cluster.preflight import Folders, check_nodes, check_packages, installed
from dcai_ray.config import ResourcesConfig
from dcai_ray.errors import ClusterError, can_be_mended
from dcai_ray.storage.location import Location

_POLL_S = 0.5
_PATIENCE_S = 10.0  # between two lines that say what is waited for
_CANCELLATIONS = 6  # of a task, half a second apart, until it has ended
_RETRIES = 5  # of a task whose process or node was lost
_AHEAD_PER_CORE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """How the tasks of one step are presented, and what each of them requires."""

    name: str
    """Shown beside the progress bar and in metrics."""
    unit: str
    """What the progress bar counts, such as "images"."""
    sizes: Sequence[int] | None = None
    """Units of each job; None: one per job."""
    task_names: Sequence[str] | None = None
    """Name of each job in Ray's dashboard; None: the step's name and a number."""
    num_cpus: int = 1
    """Cores per task."""
    num_gpus: float | None = 0
    """GPUs per task; None: `default_num_gpus` if the cluster has any GPU, otherwise none."""
    default_num_gpus: float = 0
    run: Location | None = None
    """Folder of the run that the step belongs to."""
    data: Location | None = None
    """Images that the tasks read in order to write results into `run`, if they do; every node is
    then checked for access to both."""
    reports_progress: bool = False
    """Whether a task is given a function to report how many of its units are done."""

    @classmethod
    def of_blocks(cls, name: str, unit: str, blocks: Sequence[slice], run: Location) -> "Step":
        """A step whose jobs are blocks of rows: rows are counted, tasks are named after them."""
        return cls(
            name=name,
            unit=unit,
            sizes=[block.stop - block.start for block in blocks],
            task_names=[f"{name} {block.start}-{block.stop - 1}" for block in blocks],
            run=run,
        )


def row_blocks(num_rows: int, height: int) -> list[slice]:
    """Consecutive blocks of so many rows; the last may have fewer."""
    return [slice(i, min(i + height, num_rows)) for i in range(0, num_rows, height)]


def run_tasks(
    function: Callable[..., Any], jobs: Sequence[Any], step: Step, resources: ResourcesConfig
) -> Iterator[Any]:
    """The result of `function(job)` for each job, in the order of the jobs.

    Args:
        function: a function at the top level of a module, or a `functools.partial` of one. It goes
            to the object store once, so arrays bound by the partial are shared by all tasks of a
            node, read-only. If `step.reports_progress`, it is called as `function(job, tick)`, and
            `tick(done)` reports how many units of the job are done.
        jobs: one small argument per task.
        step: how the tasks are presented and what they require.
        resources: the cluster to join or to start.
    Raises:
        Exception: whatever a task raised, after the other tasks were cancelled. An interrupted
            driver leaves that to Ray.
        ClusterError: the process of a task was lost again and again, or a node ran out of memory.
        UserError: a node of the cluster cannot take part, or the GPUs asked for do not exist.
    """
    if not jobs:
        return
    connection.connect(resources)
    check_nodes(Folders(step.data, step.run) if step.data and step.run else None)
    connection.check_gpus(step.num_gpus)
    num_gpus = connection.num_gpus(step.num_gpus, step.default_num_gpus)
    options = connection.task_options(resources, step.num_cpus, num_gpus)
    sizes = step.sizes or [1] * len(jobs)
    names = step.task_names or [f"{step.name} {number}" for number in range(len(jobs))]
    ledger, tasks = TaskLedger(sizes), _Tasks(function, options)
    begin = None if connection.is_free(step.num_cpus) else time.monotonic()
    watch = liveness.watch()
    ticks = new_ticks() if step.reports_progress else None
    try:
        with (
            progress.step(step.name, sum(sizes), step.unit) as report,
            metrics.step(step.run, step.name, step.unit, len(jobs), sum(sizes)) as measure,
        ):
            while not ledger.is_done:
                for number in ledger.submit(max(_AHEAD_PER_CORE * connection.num_cpus(), 1)):
                    tasks.submit(number, jobs[number], names[number], ticks)
                for number, result in tasks.arrived():
                    ledger.finish(number, result)
                    begin = None
                watch.look()
                if begin is not None and time.monotonic() - begin > _PATIENCE_S:
                    begin = time.monotonic()
                    progress.say(f"{step.name}: waiting for a core that others have taken")
                units = ray.get(ticks.total.remote()) if ticks else ledger.units_done
                report(units)
                measure(ledger.num_finished, units)
                yield from ledger.results()
    except (KeyboardInterrupt, SystemExit):
        tasks.abandon()
        raise
    except liveness.ClusterEnded:
        tasks.abandon()
        ticks = None
        raise
    finally:
        tasks.cancel()
        if ticks:
            ray.kill(ticks)


class Ticks:
    """Counts how many units the running tasks have done, for the progress bar only."""

    def __init__(self) -> None:
        self._done: dict[int, float] = {}

    def tick(self, number: int, done: float) -> None:
        """Record that task `number` has done this many units so far."""
        self._done[number] = done

    def total(self) -> float:
        """Units done by all tasks."""
        return sum(self._done.values())


def new_ticks() -> Any:
    """An actor on the driver's node; on another node it could be lost, and the step with it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}
    return ray.remote(**options)(Ticks).remote()


class _Tasks:
    """Tasks in flight."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._function = ray.put(function)
        self._remote = ray.remote(max_retries=_RETRIES, **options)(_call)
        self._in_flight: dict[ray.ObjectRef[Any], int] = {}
        self._words: dict[ray.ObjectRef[Any], str] = {}

    def submit(self, number: int, job: Any, name: str, ticks: Any) -> None:
        ref = self._remote.options(name=name).remote(
            self._function, job, ticks, number, installed()
        )
        self._in_flight[ref] = number
        self._words[ref] = described(job, name)

    def arrived(self) -> Iterator[tuple[int, Any]]:
        """(number, result) of the finished tasks; waits a moment for the first of them."""
        refs = list(self._in_flight)
        ready, _ = ray.wait(refs, num_returns=1, timeout=_POLL_S)
        if ready:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            yield self._in_flight.pop(ref), _result(ref, self._words.pop(ref))

    def abandon(self) -> None:
        """Leave the tasks in flight to Ray, which ends them with the driver.

        Cancelling a task at the moment of its end aborts the driver (Ray 2.60: "Tried to complete
        task that was not pending"), and who interrupts must find a resumable run, not an abort.
        """
        self._in_flight.clear()

    def cancel(self) -> None:
        """End the tasks in flight; one that is only just starting can miss the first attempt."""
        left = list(reversed(self._in_flight))  # those that wait first, or they would start
        for _ in range(_CANCELLATIONS):
            for ref in left:
                ray.cancel(ref, force=True)
            if left:
                _, left = ray.wait(left, num_returns=len(left), timeout=_POLL_S)


def described(job: Any, name: str) -> str:
    """A task in words: its name and, if the job can `describe` itself, what it holds."""
    return f"{name} ({job.describe()})" if hasattr(job, "describe") else name


def _result(ref: Any, words: str) -> Any:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        # A line is enough for what a user can mend; a bug keeps the worker's traceback.
        raise error.cause from None if can_be_mended(error.cause) else error
    except LocalRayletDiedError:
        raise liveness.ClusterEnded(liveness.NODE_ENDED) from None
    except OutOfMemoryError:
        raise ClusterError(
            f"a node ran out of memory and its tasks were ended, among them {words}; run fewer at "
            "a time (--num-cpus), end other programs or make the largest of its files smaller, "
            "then run the same command again to resume"
        ) from None
    except (WorkerCrashedError, NodeDiedError, ObjectLostError):
        raise ClusterError(
            f"the process or node of a task died {_RETRIES + 1} times: {words}; if it was for lack "
            "of memory, run fewer at a time (--num-cpus); otherwise see Ray's logs; then run the "
            "same command again to resume"
        ) from None


def _call(
    function: Callable[..., Any], job: Any, ticks: Any, number: int, packages: Mapping[str, str]
) -> Any:
    """In a worker: one thread for BLAS, because the number of threads decides the last bits."""
    check_packages(packages)
    with threadpool_limits(1):
        if ticks is None:
            return function(job)
        return function(job, lambda done: ticks.tick.remote(number, done))
