"""Step 2b by sampling, with its files: checkpoints, the values so far, the trace.

The aggregator's state goes to values/checkpoint/ every few seconds and at the end; a rerun goes on
from the newest and ends with the bits of an undisturbed run. A tighter stop goes on from there too;
a looser one finds its work done.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from dcai_ray import progress, tables
from dcai_ray.config import STOPPING, Config, plain
from dcai_ray.distributed import cluster
from dcai_ray.distributed.chains import stream_chains
from dcai_ray.distributed.streaming import Pool
from dcai_ray.run_directory import RunDirectory
from dcai_ray.sampling import Sampling
from dcai_ray.storage import Location
from dcai_ray.tables import fingerprint
from dcai_ray.valuation.convergence import Aggregator

_KEPT_CHECKPOINTS = 2
_NUMBERS = ("imputed", "sweeps", "insertions", "next_index")


def sampled_from(config: Config, source: str) -> str:
    """A fingerprint of all that decides the blocks; when to stop is not among it."""
    sample = plain(config.sample)
    for name in STOPPING:
        del sample[name]
    value = plain(config.value)
    for name in ("rule", "drop_share", "per_class", "second_opinion_up_to"):
        del value[name]
    return fingerprint("sampled", value, sample, source)


def sample_values(
    run: RunDirectory,
    sampling: Sampling,
    config: Config,
    made_from: str,
    *,
    so_far: Callable[[Aggregator], None],
    into: str = "values",
) -> Aggregator:
    """Sample until the stop rule is met, from the newest checkpoint on.

    Args:
        run: its folder `<into>/` holds the checkpoint and the trace.
        sampling: what to sample.
        config: its sections sample and resources.
        made_from: fingerprint of all that decides the blocks.
        so_far: called at each checkpoint, to write what is known of the values.
        into: folder below the run's.
    Raises:
        ValueError: the utility fails, or the checkpoint belongs to other settings.
        ChildProcessError: workers die again and again.
    """
    session = _Session(run, sampling, config, made_from, so_far, into)
    if not session.finished:
        session.sample()
    return session.aggregator


class _Session:
    """A sampling that is going on: the aggregator, the clock, the files."""

    def __init__(
        self,
        run: RunDirectory,
        sampling: Sampling,
        config: Config,
        made_from: str,
        so_far: Callable[[Aggregator], None],
        into: str,
    ) -> None:
        self._run, self._sampling, self._config = run, sampling, config
        self._made_from, self._so_far, self._into = made_from, so_far, into
        self._folder = run.location / into / "checkpoint"
        state, notes = read_checkpoint(self._folder, made_from)
        self.aggregator = sampling.aggregator(state)
        self._before_s = float(notes.get("seconds", 0.0))
        self._deaths_before = int(notes.get("deaths", 0))
        self._deaths = 0
        self._seconds_at: dict[int, float] = {int(k): v for k, v in notes.get("at", {}).items()}
        self._start = time.monotonic()
        self._saved = time.monotonic()
        self._sets_seen = self.aggregator.next_index

    @property
    def finished(self) -> bool:
        return self.aggregator.done or self._is_time_up()

    @property
    def _seconds(self) -> float:
        return self._before_s + time.monotonic() - self._start

    def _is_time_up(self) -> bool:
        sample = self._config.sample
        complete = self.aggregator.next_index > 0
        return "seconds" in sample.stop and complete and self._seconds >= sample.seconds

    def sample(self) -> None:
        if self.aggregator.next_index:
            progress.say(f"sampling goes on after {self.aggregator.rounds} rounds")
        elif self._sampling.choice is not None:
            choice = self._sampling.choice
            progress.say(
                f"pilot: {self._sampling.plan.rounds.name}, {choice.gain:.1f} times less variance "
                "x cost than full orders"
            )
        try:
            with progress.live(f"sampling {self._config.value.utility}") as show:

                def after(pool: Pool) -> bool:
                    self._deaths = pool.deaths
                    show(self._line(pool))
                    self._keep_up(pool)
                    return self._is_time_up()

                stream_chains(self._sampling.plan, self.aggregator, self._config.resources, after)
        finally:
            # Ctrl-C, a failing utility or a lost cluster lose nothing that is complete.
            if self.aggregator.next_index:
                self._save()

    def _keep_up(self, pool: Pool) -> None:
        if self.aggregator.next_index > self._sets_seen:
            self._sets_seen = self.aggregator.next_index
            self._seconds_at[self._sets_seen] = round(self._seconds, 2)
        late = time.monotonic() - self._saved > self._config.resources.checkpoint_s
        if late and self.aggregator.next_index:
            self._save(pool)

    def _line(self, pool: Pool) -> str:
        if not self.aggregator.next_index:
            return f"first blocks on {pool.num_up} workers (+{pool.num_joining} starting)"
        last = self.aggregator.trace[-1]
        left = self._seconds_left()
        return (
            f"{last.rounds:,} rounds, {100 * last.settled:.1f} % settled, largest stderr "
            f"{last.largest_stderr:.2g}, {pool.num_up} workers"
            + (f" (+{pool.num_joining} starting)" if pool.num_joining else "")
            + (f", {pool.deaths} died" if pool.deaths else "")
            + (f", about {left:.0f} s left" if left is not None else "")
        )

    def _seconds_left(self) -> float | None:
        """As if it went on at the present pace; None while unknown."""
        rounds_left, done = self.aggregator.rounds_left, self.aggregator.rounds
        if rounds_left is None or not done or not self._seconds:
            return None
        return rounds_left * self._seconds / done

    def _save(self, pool: Pool | None = None) -> None:
        """Checkpoint, trace, values so far, record; the checkpoint last removes older ones."""
        self._saved = time.monotonic()
        aggregator, folder = self.aggregator, self._run.location / self._into
        deaths = self._deaths_before + self._deaths
        kept = {row.sets for row in aggregator.trace}
        self._seconds_at = {k: v for k, v in self._seconds_at.items() if k in kept}
        notes = {"seconds": round(self._seconds, 2), "deaths": deaths, "at": self._seconds_at}
        write_checkpoint(self._folder, aggregator.state(), self._made_from, notes)
        made_from = fingerprint(self._made_from, aggregator.next_index)
        tables.write_table(folder / "trace.parquet", self._trace(), made_from)
        self._so_far(aggregator)
        left = self._seconds_left()
        self._run.note(
            "sampling" if self._into == "values" else f"sampling_{self._into}",
            utility=self._config.value.utility,
            sampler=self._sampling.plan.rounds.name,
            stop=aggregator.stop.describe(),
            done=aggregator.done or self._is_time_up(),
            rounds=aggregator.rounds,
            sweeps=aggregator.sweeps,
            insertions=aggregator.insertions,
            imputed=aggregator.imputed,
            sweep_seconds=round(aggregator.seconds, 2),
            seconds=notes["seconds"],
            seconds_left=None if left is None else round(left, 1),
            settled=aggregator.trace[-1].settled,
            largest_stderr=aggregator.trace[-1].largest_stderr,
            workers=pool.num_up if pool else 0,
            deaths=deaths,
            rounds_per_block=self._sampling.plan.rounds_per_block,
            pilot=None if self._sampling.choice is None else asdict(self._sampling.choice),
        )

    def _trace(self) -> pa.Table:
        rows = [asdict(row) for row in self.aggregator.trace]
        for row in rows:
            row["seconds"] = self._seconds_at.get(row["sets"], float("nan"))
        columns = {name: [row[name] for row in rows] for name in tables.TRACE.names}
        return pa.table(columns, schema=tables.TRACE)


def write_checkpoint(
    folder: Location, state: Mapping[str, Any], made_from: str, notes: Mapping[str, Any]
) -> None:
    """Write the aggregator's state as one file named after its sets; keep the last two."""
    num_chains, num_semivalues, _ = np.shape(state["mean"])
    columns: dict[str, Any] = {"evaluated": state["evaluated"]}
    for s in range(num_semivalues):
        columns[f"variation_{s}"] = state["variation"][s]
        columns[f"block_mean_sum_{s}"] = state["block_mean_sum"][s]
        for c in range(num_chains):
            columns[f"mean_{s}_{c}"] = state["mean"][c, s]
            columns[f"m2_{s}_{c}"] = state["m2"][c, s]
    numbers = {
        "count": [int(count) for count in state["count"]],
        "num_semivalues": num_semivalues,
        "seconds": state["seconds"],
        "trace": state["trace"],
        **{name: state[name] for name in _NUMBERS},
    }
    file = folder / f"set-{state['next_index']:08d}.parquet"
    tables.write_table(
        file, pa.table(columns), made_from, state=json.dumps(numbers), notes=json.dumps(notes)
    )
    for older in _checkpoints(folder)[:-_KEPT_CHECKPOINTS]:
        (folder / older).delete()


def read_checkpoint(
    folder: Location, made_from: str
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The newest state that can be read, with its notes; None where there is none.

    Raises:
        ValueError: it belongs to other settings or features.
    """
    for name in reversed(_checkpoints(folder)):
        try:
            table = tables.read_table(folder / name)
        except ValueError as error:
            progress.say(f"warning: {error}; the one before it serves")
            continue
        if tables.made_from(folder / name) != made_from:
            raise ValueError(
                f"{folder / name}: sampled with other settings or features; use another --run, or "
                "delete that folder"
            )
        return _state(table), json.loads(tables.note(table, "notes"))
    return None, {}


def _state(table: pa.Table) -> dict[str, Any]:
    numbers = json.loads(tables.note(table, "state"))
    num_semivalues, num_chains = numbers.pop("num_semivalues"), len(numbers["count"])
    column = {name: table[name].to_numpy() for name in table.column_names}

    def stacked(name: str) -> Any:
        return np.array(
            [[column[f"{name}_{s}_{c}"] for s in range(num_semivalues)] for c in range(num_chains)]
        )

    return {
        **numbers,
        "mean": stacked("mean"),
        "m2": stacked("m2"),
        "evaluated": column["evaluated"],
        "variation": np.array([column[f"variation_{s}"] for s in range(num_semivalues)]),
        "block_mean_sum": np.array([column[f"block_mean_sum_{s}"] for s in range(num_semivalues)]),
    }


def _checkpoints(folder: Location) -> Sequence[str]:
    """Names, oldest first."""
    if not folder.exists():
        return []
    return [name for name, _ in folder.walk() if name.endswith(".parquet")]


def describe_estimate(sampling: Sampling, config: Config) -> list[str]:
    """What the sampling will take, from one set of blocks computed here: lines for a person."""
    from dcai_ray.valuation.sweeps import run_block

    aggregator = sampling.aggregator()
    start = time.perf_counter()
    while not aggregator.done and aggregator.rounds < 64:
        index = aggregator.next_index
        for chain in range(sampling.num_chains):
            aggregator.add(run_block(sampling.plan, chain, index))
    took = time.perf_counter() - start
    cluster.connect(config.resources)
    workers = config.resources.num_workers or cluster.num_cpus()
    per_round, left = took / aggregator.rounds, aggregator.rounds_left
    lines = [
        f"utility {config.value.utility}, {sampling.plan.rounds.name}, "
        f"{sampling.plan.rounds_per_block} rounds a block, {sampling.num_chains} chains",
        f"one round takes {1000 * per_round:.3g} ms on a core; stop: {aggregator.stop.describe()}",
    ]
    if sampling.choice is not None:
        lines.insert(
            1,
            f"pilot: {sampling.choice.gain:.1f} times less variance x cost than full orders",
        )
    if left is None:
        lines.append("how many rounds that takes cannot be told")
    else:
        rounds = aggregator.rounds + left
        lines.append(
            f"about {rounds:,.0f} rounds: {per_round * rounds / workers:,.0f} s on {workers} cores"
        )
    lines.append(
        f"memory: {sampling.shared_bytes / 2**20:,.0f} MB on each machine, shared by its workers"
    )
    return lines
