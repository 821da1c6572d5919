"""One sampling with its files: checkpoints, the trace, its section of run.json.

The aggregator's state is saved in `checkpoint/` every few seconds and at the end. Whatever ends a
sampling, running it again resumes from the newest checkpoint, with bitwise the same result as
without the interruption. A tighter stopping rule resumes as well; a looser one is met at once.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from dcai_ray import progress
from dcai_ray.cluster import connection, metrics
from dcai_ray.cluster.actor_pool import Pool
from dcai_ray.cluster.chains import stream_chains
from dcai_ray.config import STOPPING, Config, plain
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.checkpoints import read_checkpoint, write_checkpoint
from dcai_ray.steps.sampling_setup import aggregator_of, plan_of, size_bytes
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.location import Location
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.blocks import run_block
from dcai_ray.valuation.plan import Plan
from dcai_ray.valuation.utilities import Utility

FORMAT = 2
"""Raise this when a formula or constant of sampling changes (utilities, pilot, samplers,
aggregator): it then starts anew instead of resuming from older checkpoints."""

_ESTIMATE_ROUNDS = 64  # computed here before the cost of a sampling is estimated


@dataclass(frozen=True, slots=True)
class Target:
    """Where a sampling writes."""

    folder: str
    """Folder in the run folder for its trace and checkpoints."""
    section: str
    """Its section of run.json."""


VALUES = Target("values", "sampling")
CROSS_CHECK = Target("check", "sampling_check")
GROUPS = Target("groups", "sampling_groups")


_AFTER_SAMPLING = (  # settings of values that decide no block
    "rule",
    "wrong_above",
    "drop_share",
    "per_class",
    "second_opinion_up_to",
    "self_weight",
    "probabilities",
)


def block_fingerprint(config: Config, source: str) -> str:
    """A fingerprint of all that decides the blocks; stopping rules are not part of it.

    Args:
        config: its sections value and sample.
        source: fingerprint of the features.
    """
    sample, value = plain(config.sample), plain(config.value)
    for name in (*STOPPING, "check"):
        del sample[name]
    for name in _AFTER_SAMPLING:
        del value[name]
    return new_fingerprint("blocks", FORMAT, value, sample, source)


@dataclass(slots=True)
class _Clock:
    """Seconds of sampling, summed over resumed runs."""

    before_s: float = 0.0
    """Seconds of the runs before this one."""
    wave_s: dict[int, float] = field(default_factory=dict)
    """When each wave was complete."""
    _start: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.before_s + time.monotonic() - self._start

    def mark(self, waves: int) -> bool:
        """Record the time of all waves up to this one; returns whether any was new."""
        last = max(self.wave_s, default=0)
        now = round(self.seconds, 2)
        self.wave_s |= {wave: now for wave in range(last + 1, waves + 1)}  # late blocks: several
        return waves > last


class Session:
    """A sampling, new or resumed from its checkpoint.

    Args:
        run: the run's folder.
        config: its sections value, sample and resources.
        fingerprint: fingerprint of all that determines the blocks.
        threshold: the threshold between harmful and useful points.
        target: where in the run it writes.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: Config,
        fingerprint: str,
        *,
        threshold: float = 0.0,
        target: Target = VALUES,
    ) -> None:
        self._run, self._config, self._target = run, config, target
        self._fingerprint, self._threshold = fingerprint, threshold
        state, notes = read_checkpoint(self._folder / "checkpoint", fingerprint)
        self._plan = Plan.restore(notes["plan"]) if notes else None
        self._aggregator = self._new_aggregator(self._plan, state) if self._plan else None
        wave_s = {int(wave): seconds for wave, seconds in notes.get("wave_seconds", {}).items()}
        self._clock = _Clock(float(notes.get("seconds", 0.0)), wave_s)
        self._lost_before, self._lost = int(notes.get("workers_lost", 0)), 0
        self._saved = time.monotonic()

    @property
    def aggregator(self) -> Aggregator:
        """The state of the sampling; after `sample`, or where the session is finished."""
        assert self._aggregator is not None, "nothing has been sampled yet"
        return self._aggregator

    @property
    def finished(self) -> bool:
        """Whether the stopping rule is already met."""
        return self._aggregator is not None and (self._aggregator.done or self._is_time_up())

    def sample(self, utility: Utility, save_values: Callable[[Aggregator], None]) -> None:
        """Start or resume, and sample until the stopping rule is met.

        Args:
            utility: that of the settings.
            save_values: called at each checkpoint, to write the interim values.
        Raises:
            ModelError: the utility's model fails; complete waves are saved.
            ClusterError: workers die again and again; complete waves are saved.
        """
        name = self._config.value.utility
        if self._plan is None or self._aggregator is None:
            self._plan = plan_of(utility, self._config)
            self._aggregator = self._new_aggregator(self._plan, None)
            if self._plan.gain is not None:
                progress.say(f"pilot: {self._plan.name} {_gain(self._plan)}")
        else:
            progress.say(f"sampling resumes after {self._aggregator.rounds:,} rounds")
        aggregator = self._aggregator
        try:
            with (
                progress.live(f"sampling {name}") as show,
                metrics.sampling(self._run.location, name, aggregator) as measure,
            ):

                def after(pool: Pool) -> bool:
                    self._lost = pool.lost
                    is_due = time.monotonic() - self._saved > self._config.resources.checkpoint_s
                    if self._clock.mark(aggregator.next_index) and is_due:
                        self._save(save_values, workers=pool.num_up)
                    show(self._progress_line(pool))
                    measure(pool)
                    return self._is_time_up()

                stream_chains(self._plan, utility, aggregator, self._config.resources, after)
        finally:
            # Ctrl-C, a failing model or a lost cluster lose no complete wave.
            if aggregator.next_index:
                self._save(save_values)

    def _new_aggregator(self, plan: Plan, state: Mapping[str, Any] | None) -> Aggregator:
        return aggregator_of(plan, self._config, threshold=self._threshold, state=state)

    @property
    def _folder(self) -> Location:
        return self._run.location / self._target.folder

    def _is_time_up(self) -> bool:
        sample = self._config.sample
        complete = self.aggregator.next_index > 0
        return "seconds" in sample.stop and complete and self._clock.seconds >= sample.seconds

    def _seconds_left(self) -> float | None:
        """At the present pace; None while unknown."""
        left, done = self.aggregator.rounds_left, self.aggregator.rounds
        return left * self._clock.seconds / done if left is not None and done else None

    def _progress_line(self, pool: Pool) -> str:
        aggregator = self.aggregator
        if not aggregator.next_index:
            workers = progress.counted(pool.num_up, "workers")
            return f"first blocks on {workers} (+{pool.num_starting} starting)"
        last, left = aggregator.trace[-1], self._seconds_left()
        return (
            f"{last.rounds:,} rounds, {100 * last.settled:.1f} % settled, max stderr "
            f"{last.max_stderr:.2g}, {progress.counted(pool.num_up, 'workers')}"
            + (f" (+{pool.num_starting} starting)" if pool.num_starting else "")
            + (f", {pool.lost} lost" if pool.lost else "")
            + (f", about {left:.0f} s left" if left is not None else "")
        )

    def _save(self, save_values: Callable[[Aggregator], None], workers: int = 0) -> None:
        """Interim values, trace and record; the checkpoint last, as it vouches for them."""
        self._saved = time.monotonic()
        aggregator, plan = self.aggregator, self._plan
        assert plan is not None
        kept = {row.waves for row in aggregator.trace}
        wave_s = {wave: s for wave, s in self._clock.wave_s.items() if wave in kept}
        spent = {
            "seconds": round(self._clock.seconds, 2),
            "workers_lost": self._lost_before + self._lost,
        }
        save_values(aggregator)
        trace = _trace_table(aggregator, wave_s)
        made_of = new_fingerprint(self._fingerprint, aggregator.next_index)
        parquet.write_table(self._folder / "trace.parquet", trace, made_of)
        left = self._seconds_left()
        self._run.record_section(
            self._target.section,
            utility=self._config.value.utility,
            **_aggregator_record(aggregator),
            **_plan_record(plan),
            **spent,
            done=self.finished,
            seconds_left=None if left is None else round(left, 1),
            workers=workers,
        )
        notes = {**spent, "wave_seconds": wave_s, "plan": asdict(plan)}
        state = aggregator.state()
        write_checkpoint(self._folder / "checkpoint", state, self._fingerprint, notes)


def _aggregator_record(aggregator: Aggregator) -> dict[str, Any]:
    """What run.json says about the state of a sampling."""
    last = aggregator.trace[-1]
    return {
        "stop": aggregator.stop.describe(),
        "rounds": aggregator.rounds,
        "chains": len(aggregator.chains),
        "orders": aggregator.orders,
        "insertions": aggregator.insertions,
        "imputed": aggregator.imputed,
        "compute_seconds": round(aggregator.seconds, 2),
        "settled": last.settled,
        "max_stderr": last.max_stderr,
        "r_hat": last.r_hat if last.r_hat == last.r_hat else None,
    }


def _plan_record(plan: Plan) -> dict[str, Any]:
    """What run.json says about a plan."""
    return {
        "sampler": plan.name,
        "gain": plan.gain,
        "rounds_per_block": plan.rounds_per_block,
        "min_rounds": plan.min_rounds,
    }


def _trace_table(aggregator: Aggregator, wave_s: Mapping[int, float]) -> pa.Table:
    rows = [{**asdict(row), "seconds": wave_s.get(row.waves)} for row in aggregator.trace]
    columns = {name: [row[name] for row in rows] for name in schemas.TRACE.names}
    return pa.table(columns, schema=schemas.TRACE)


def estimate(utility: Utility, config: Config) -> list[str]:
    """The cost of a sampling, estimated from a few rounds computed here, in lines of text."""
    plan = plan_of(utility, config)
    aggregator = aggregator_of(plan, config)
    start = time.perf_counter()
    while not aggregator.done and aggregator.rounds < _ESTIMATE_ROUNDS:
        index = aggregator.next_index
        for chain in range(len(aggregator.chains)):
            aggregator.add(run_block(plan, utility, chain, index))
    round_s = (time.perf_counter() - start) / aggregator.rounds
    connection.connect(config.resources)
    workers = connection.num_workers(config.resources)
    left = aggregator.rounds_left
    if left is None:
        cost = "the number of rounds cannot be estimated yet"
    else:
        rounds = max(aggregator.rounds + left, plan.min_rounds)
        seconds = round_s * rounds / workers
        cost = f"about {rounds:,.0f} rounds, {seconds:,.0f} s on {workers} cores"
    return [
        f"{config.value.utility}: {plan.name} {_gain(plan)}",
        f"{len(aggregator.chains)} chains, {plan.rounds_per_block} rounds per block; one round "
        f"takes {1000 * round_s:.3g} ms on one core",
        f"until {aggregator.stop.describe()}: {cost}",
        f"memory: {size_bytes(utility) / 2**20:,.0f} MB on each node, shared by its workers",
    ]


def _gain(plan: Plan) -> str:
    if plan.gain is None:
        return ""
    return f"(chosen by a pilot; full permutations would take {plan.gain:.1f} times the work)"
