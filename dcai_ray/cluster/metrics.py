"""The progress of a step as Ray metrics, which Prometheus scrapes from every node of a cluster.

Only the driver sets them, at most once per second, and they decide nothing. Ray puts `ray_` before
each name and `_total` after the name of a counter, and exports the latest values every 10 s
(RAY_metrics_report_interval_ms) for as long as the driver lives.
"""

import math
import string
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ray.util.metrics import Counter, Gauge

from dcai_ray.storage.location import Location

if TYPE_CHECKING:
    from dcai_ray.cluster.actor_pool import Pool
    from dcai_ray.valuation.aggregator import Aggregator

PREFIX = "dcai_ray_"
TAGS = {"sampling": ("run", "utility"), "step": ("run", "step", "unit")}
"""Tags of the metrics whose names begin with the key."""
GAUGES = {
    "sampling_rounds": "Rounds merged, including those before a resume",
    "sampling_rounds_per_second": "Rounds merged per second, over the last 10 s",
    "sampling_rounds_left": "Estimated rounds until the stopping rule is met; absent while unknown",
    "sampling_settled_ratio": "Share of the points that are settled",
    "sampling_max_stderr": "Largest standard error of a value, in units of the utility",
    "sampling_workers_up": "Actors at work",
    "sampling_workers_starting": "Actors that wait for a core or are starting",
    "sampling_workers_lost": "Actors lost and replaced since the driver started",
    "sampling_blocks_waiting": "Blocks waiting in the aggregator for the rest of their wave",
    "sampling_blocks_repeated": "Blocks that arrived a second time and were dropped",
    "step_tasks": "Tasks of the step",
    "step_tasks_done": "Tasks done",
    "step_units": "Units of work of the step; the tag `unit` names the kind",
    "step_units_done": "Units done",
    "step_units_per_second": "Units done per second, over the last 10 s",
}
"""Description of each gauge; a gauge keeps the latest value."""
COUNTERS = {
    "sampling_received_bytes": "Bytes of the blocks received by the driver",
    "sampling_merged_bytes": "Bytes of the blocks merged into complete waves",
}
"""Description of each counter; counters only grow, from zero in each driver."""

_EVERY_S = 1.0
_WINDOW_S = 10.0


@contextmanager
def sampling(
    run: Location, utility: str, aggregator: "Aggregator"
) -> Iterator[Callable[["Pool"], None]]:
    """Metrics of one sampling.

    Yields a function to call with the pool, as often as is convenient. On leaving, the final state
    of the aggregator is published, with no workers.
    """
    metrics = _Metrics(run, utility=utility)
    pace = _Pace(aggregator.rounds)
    before, num_chains = aggregator.next_index, len(aggregator.chains)
    total = aggregator.total
    block_bytes = total.mean.nbytes + total.m2.nbytes + aggregator.evaluated.nbytes
    last: Pool | None = None

    def publish(pool: "Pool", rounds_per_second: float) -> None:
        metrics.set("sampling_rounds", aggregator.rounds)
        metrics.set("sampling_rounds_per_second", rounds_per_second)
        metrics.set("sampling_rounds_left", aggregator.rounds_left)
        if aggregator.next_index:
            check = aggregator.trace[-1]
            metrics.set("sampling_settled_ratio", check.settled)
            metrics.set("sampling_max_stderr", check.max_stderr)
        metrics.set("sampling_workers_up", pool.num_up)
        metrics.set("sampling_workers_starting", pool.num_starting)
        metrics.set("sampling_workers_lost", pool.lost)
        metrics.set("sampling_blocks_waiting", aggregator.buffered)
        metrics.set("sampling_blocks_repeated", pool.repeated)
        merged = num_chains * (aggregator.next_index - before)
        metrics.count("sampling_received_bytes", block_bytes * pool.received)
        metrics.count("sampling_merged_bytes", block_bytes * merged)

    def update(pool: "Pool") -> None:
        nonlocal last
        last = pool
        if metrics.are_due():
            publish(pool, pace.now(aggregator.rounds))

    try:
        yield update
    finally:
        if last is not None:
            publish(last, 0.0)
            metrics.set("sampling_workers_up", 0)
            metrics.set("sampling_workers_starting", 0)


@contextmanager
def step(
    run: Location | None, name: str, unit: str, num_tasks: int, num_units: float
) -> Iterator[Callable[[int, float], None]]:
    """Metrics of many tasks; yields a function to call with the tasks and the units done so far."""
    metrics = _Metrics(run, step=name, unit=unit)
    pace = _Pace(0.0)
    last = 0, 0.0

    def publish(tasks_done: int, units_done: float, units_per_second: float) -> None:
        metrics.set("step_tasks", num_tasks)
        metrics.set("step_tasks_done", tasks_done)
        metrics.set("step_units", num_units)
        metrics.set("step_units_done", units_done)
        metrics.set("step_units_per_second", units_per_second)

    def update(tasks_done: int, units_done: float) -> None:
        nonlocal last
        last = tasks_done, units_done
        if metrics.are_due():
            publish(tasks_done, units_done, pace.now(units_done))

    try:
        yield update
    finally:
        publish(*last, 0.0)


class _Metrics:
    """The metrics of one step, with its tags."""

    def __init__(self, run: Location | None, **tags: str) -> None:
        self._tags = {
            key: _ascii(tag) for key, tag in {"run": run.name if run else "", **tags}.items()
        }
        self._published = float("-inf")
        self._counted: dict[str, float] = {}

    def are_due(self) -> bool:
        """Whether a second has passed since this last returned True."""
        now = time.monotonic()
        if now - self._published < _EVERY_S:
            return False
        self._published = now
        return True

    def set(self, name: str, value: float | None) -> None:
        """Set a gauge; an unknown or infinite value leaves it as it was, since Ray exports none."""
        if value is not None and math.isfinite(value):
            _metric(name).set(value, self._tags)

    def count(self, name: str, total: float) -> None:
        """Raise a counter to its total so far."""
        more = total - self._counted.get(name, 0)
        if more > 0:
            self._counted[name] = total
            _metric(name).inc(more, self._tags)


class _Pace:
    """The recent growth of a number, per second."""

    def __init__(self, value: float) -> None:
        self._seen = deque([(time.monotonic(), value)])

    def now(self, value: float) -> float:
        """Growth per second over the last 10 s, up to `value` now."""
        now = time.monotonic()
        self._seen.append((now, value))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW_S:
            self._seen.popleft()
        then, earlier = self._seen[0]
        return (value - earlier) / max(now - then, 1e-3)


@lru_cache(maxsize=len(GAUGES) + len(COUNTERS))
def _metric(name: str) -> Any:
    kind: Any = Counter if name in COUNTERS else Gauge
    description = COUNTERS[name] if name in COUNTERS else GAUGES[name]
    return kind(PREFIX + name, description, tag_keys=TAGS[name.split("_")[0]])


def _ascii(tag: str) -> str:
    """The tag in ASCII, because Ray accepts no other."""
    return quote(tag, safe=string.printable)
