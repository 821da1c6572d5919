"""Sampling with its files: checkpoints, the trace, the record; whatever ends it, it goes on.

The aggregator's state goes to `checkpoint/` every few seconds and at the end; a rerun goes on from
the newest and ends with the bits of an undisturbed run. A tighter stop goes on from there too; a
looser one finds its work done.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
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
from dcai_ray.storage.parquet import new_fingerprint
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.blocks import run_block
from dcai_ray.valuation.plan import Plan
from dcai_ray.valuation.utilities import Utility

_ESTIMATED_ROUNDS = 64  # computed before an estimate is made


def sampled_from(config: Config, source: str) -> str:
    """A fingerprint of all that decides the blocks; when to stop is not among it.

    Args:
        config: its sections value and sample.
        source: fingerprint of the features.
    """
    sample, value = plain(config.sample), plain(config.value)
    for name in (*STOPPING, "check"):
        del sample[name]
    for name in ("rule", "drop_share", "per_class", "second_opinion_up_to", "self_weight"):
        del value[name]
    return new_fingerprint("sampled", value, sample, source)


class Session:
    """One sampling: the aggregator, the clock, the files; new, or gone on from a checkpoint.

    Args:
        run: the folder `<into>/` in it holds the checkpoint and the trace.
        config: its sections value, sample and resources.
        fingerprint: fingerprint of all that decides the blocks.
        threshold: the value that parts harm from good.
        into: folder below the run's.
    Raises:
        UserError: the checkpoint belongs to other settings.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: Config,
        fingerprint: str,
        *,
        threshold: float = 0.0,
        into: str = "values",
    ) -> None:
        self._run, self._config, self._made_from = run, config, fingerprint
        self._threshold = threshold
        self._into = into
        self._folder = run.location / into
        state, notes = read_checkpoint(self._folder / "checkpoint", fingerprint)
        self._plan = Plan.restore(notes["plan"]) if notes else None
        self._aggregator = None if self._plan is None else self._new_aggregator(state)
        self._before_s = float(notes.get("seconds", 0.0))
        self._lost_before, self._lost = int(notes.get("workers_lost", 0)), 0
        self._seconds_at = {int(wave): s for wave, s in notes.get("seconds_at", {}).items()}
        self._start = self._saved = time.monotonic()

    @property
    def aggregator(self) -> Aggregator:
        """What is known; after `sample`, or where the session is finished."""
        assert self._aggregator is not None, "nothing was sampled yet"
        return self._aggregator

    @property
    def finished(self) -> bool:
        """Whether the stop rule is met by what is there."""
        return self._aggregator is not None and (self._aggregator.done or self._is_time_up())

    def sample(self, utility: Utility, so_far: Callable[[Aggregator], None]) -> None:
        """Go on until the stop rule is met.

        Args:
            utility: that of the settings.
            so_far: called at each checkpoint, to write what is known of the values.
        Raises:
            UserError: the utility fails; what is complete is saved.
            ClusterError: workers die again and again; what is complete is saved.
        """
        if self._plan is None:
            self._plan = plan_of(utility, self._config)
        if self._aggregator is None:
            self._aggregator = self._new_aggregator(None)
            if self._plan.gain is not None:
                progress.say(f"pilot: {self._plan.name} {_gain(self._plan)}")
        else:
            progress.say(f"sampling goes on after {self._aggregator.rounds:,} rounds")
        aggregator, seen = self._aggregator, self._aggregator.next_index
        try:
            with (
                progress.live(f"sampling {self._config.value.utility}") as show,
                metrics.sampling(
                    self._run.location, self._config.value.utility, aggregator
                ) as measure,
            ):

                def after(pool: Pool) -> bool:
                    nonlocal seen
                    self._lost = pool.lost
                    if aggregator.next_index > seen:  # a late block can complete several waves
                        now = round(self._seconds, 2)
                        for wave in range(seen + 1, aggregator.next_index + 1):
                            self._seconds_at[wave] = now
                        seen = aggregator.next_index
                        if time.monotonic() - self._saved > self._config.resources.checkpoint_s:
                            self._save(so_far, workers=pool.num_up)
                    show(self._line(pool))
                    measure(pool)
                    return self._is_time_up()

                stream_chains(self._plan, utility, aggregator, self._config.resources, after)
        finally:
            # Ctrl-C, a failing utility or a lost cluster lose nothing that is complete.
            if aggregator.next_index:
                self._save(so_far)

    def _new_aggregator(self, state: dict[str, Any] | None) -> Aggregator:
        assert self._plan is not None
        return aggregator_of(self._plan, self._config, threshold=self._threshold, state=state)

    @property
    def _seconds(self) -> float:
        return self._before_s + time.monotonic() - self._start

    def _is_time_up(self) -> bool:
        sample = self._config.sample
        complete = self.aggregator.next_index > 0
        return "seconds" in sample.stop and complete and self._seconds >= sample.seconds

    def _line(self, pool: Pool) -> str:
        aggregator = self.aggregator
        if not aggregator.next_index:
            return f"first blocks on {pool.num_up} workers (+{pool.num_starting} starting)"
        last, left = aggregator.trace[-1], self._seconds_left()
        return (
            f"{last.rounds:,} rounds, {100 * last.settled:.1f} % settled, largest stderr "
            f"{last.max_stderr:.2g}, {pool.num_up} workers"
            + (f" (+{pool.num_starting} starting)" if pool.num_starting else "")
            + (f", {pool.lost} died" if pool.lost else "")
            + (f", about {left:.0f} s left" if left is not None else "")
        )

    def _seconds_left(self) -> float | None:
        """As if it went on at the present pace; None while unknown."""
        left, done = self.aggregator.rounds_left, self.aggregator.rounds
        return left * self._seconds / done if left is not None and done else None

    def _save(self, so_far: Callable[[Aggregator], None], workers: int = 0) -> None:
        """Values so far, trace and record, and the checkpoint last."""
        self._saved = time.monotonic()
        aggregator, plan = self.aggregator, self._plan
        assert plan is not None
        last, left = aggregator.trace[-1], self._seconds_left()
        shown = {row.waves for row in aggregator.trace}
        self._seconds_at = {k: v for k, v in self._seconds_at.items() if k in shown}
        kept = {
            "seconds": round(self._seconds, 2),
            "workers_lost": self._lost_before + self._lost,
        }
        so_far(aggregator)
        fingerprint = new_fingerprint(self._made_from, aggregator.next_index)
        parquet.write_table(self._folder / "trace.parquet", self._trace(), fingerprint)
        self._run.record_section(
            "sampling" if self._into == "values" else f"sampling_{self._into}",
            utility=self._config.value.utility,
            sampler=plan.name,
            gain=plan.gain,
            stop=aggregator.stop.describe(),
            done=aggregator.done or self._is_time_up(),
            rounds=aggregator.rounds,
            chains=len(aggregator.chains),
            orders=aggregator.orders,
            insertions=aggregator.insertions,
            imputed=aggregator.imputed,
            compute_seconds=round(aggregator.seconds, 2),
            **kept,
            seconds_left=None if left is None else round(left, 1),
            settled=last.settled,
            max_stderr=last.max_stderr,
            r_hat=last.r_hat if last.r_hat == last.r_hat else None,
            workers=workers,
            rounds_per_block=plan.rounds_per_block,
            min_rounds=plan.min_rounds,
        )
        notes = {**kept, "seconds_at": self._seconds_at, "plan": asdict(plan)}
        state = aggregator.state()
        write_checkpoint(self._folder / "checkpoint", state, self._made_from, notes)

    def _trace(self) -> pa.Table:
        rows = [
            {**asdict(row), "seconds": self._seconds_at.get(row.waves)}
            for row in self.aggregator.trace
        ]
        columns = {name: [row[name] for row in rows] for name in schemas.TRACE.names}
        return pa.table(columns, schema=schemas.TRACE)


def estimate(utility: Utility, config: Config) -> list[str]:
    """What a sampling will take, from a few rounds computed here: lines for a person."""
    plan = plan_of(utility, config)
    aggregator = aggregator_of(plan, config)
    start = time.perf_counter()
    while not aggregator.done and aggregator.rounds < _ESTIMATED_ROUNDS:
        index = aggregator.next_index
        for chain in range(len(aggregator.chains)):
            aggregator.add(run_block(plan, utility, chain, index))
    per_round = (time.perf_counter() - start) / aggregator.rounds
    connection.connect(config.resources)
    workers = connection.num_workers(config.resources)
    left = aggregator.rounds_left
    lines = [
        f"{config.value.utility}: {plan.name} {_gain(plan)}",
        f"{len(aggregator.chains)} chains, {plan.rounds_per_block} rounds a block; a round takes "
        f"{1000 * per_round:.3g} ms on one core",
        f"until {aggregator.stop.describe()}: ",
        f"memory: {size_bytes(utility) / 2**20:,.0f} MB on each machine, shared by its workers",
    ]
    if left is None:
        lines[2] += "how many rounds that takes cannot be told"
    else:
        rounds = max(aggregator.rounds + left, plan.min_rounds)
        seconds = per_round * rounds / workers
        lines[2] += f"about {rounds:,.0f} rounds, {seconds:,.0f} s on {workers} cores"
    return lines


def _gain(plan: Plan) -> str:
    if plan.gain is None:
        return ""
    return f"(by a pilot; full orders would take {plan.gain:.1f} times the work)"
