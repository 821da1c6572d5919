"""How well chains on Ray use the cores, and how many of them one aggregator can serve.

    python benchmarks/chains.py                        # four minutes on two cores
    python benchmarks/chains.py --study FOLDER         # the study's features, not synthetic ones
    python benchmarks/chains.py --simulated-s 600      # simulates chains for longer

The benchmark prints, each with its target:

1. The time of knn-accuracy, on as many points as the study's, until 95 % of them are settled, by
   the command line with two actors, including the start of Ray (< 30 s).
2. The speed-up of two actors over one (>= 1.8 times).
3. Ray's share of the wall time with blocks of about half a second (< 5 %).
4. For 1,000 simulated chains that send one 24 KB block per second each: the blocks per second that
   the aggregator merges, its share of a core, and the growth of its memory.
"""

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from marginals import Data, made, study
from results import Result, print_results

from dcai_ray.cluster import connection
from dcai_ray.cluster.actor_pool import Pool, stream_blocks
from dcai_ray.cluster.chains import stream_chains
from dcai_ray.config import ResourcesConfig
from dcai_ray.storage import parquet
from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.blocks import Block, run_block
from dcai_ray.valuation.moments import Moments
from dcai_ray.valuation.plan import new_plan
from dcai_ray.valuation.sampling import block_ids
from dcai_ray.valuation.stopping import MaxRounds
from dcai_ray.valuation.utilities.knn_accuracy import KnnAccuracy

_PER_ACTOR = 100  # chains that one simulated actor stands for
_SIZE = 1500


def until_settled(data: Data) -> list[Result]:
    """The command line, as a user runs it."""
    x, y, x_val, y_val = data
    with tempfile.TemporaryDirectory() as folder:
        features = Location(folder) / "features"
        for split, xs, ys in (("train", x, y), ("shapley_val", x_val, y_val)):
            labels = [str(label) for label in ys]
            ids = [f"{label}/{i}" for i, label in enumerate(labels)]
            write_split(features / split, ids, labels, np.float32(xs), {}, "made")
        command = [
            *(sys.executable, "-m", "dcai_ray.cli", "value", "--features", str(features)),
            *("--run", f"{folder}/run", "--method", "sample", "--utility", "knn-accuracy"),
            *("--metric", "euclidean", "--rule", "zero", "--num-workers", "2"),
        ]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        took = time.perf_counter() - start
        assert done.returncode == 0, done.stderr
        record = parquet.read_table(Location(f"{folder}/run/values/trace.parquet")).to_pylist()[-1]
    return [
        Result(
            "knn-accuracy until 95 % are settled, whole process, two actors",
            "< 30 s",
            f"{took:.1f} s ({record['rounds']:,} rounds, {record['settled']:.1%} settled)",
        )
    ]


def speed_of_actors(data: Data) -> list[Result]:
    """Seconds for the same rounds with one and with two actors, and Ray's own share."""
    utility = KnnAccuracy(*data, k=10, metric="euclidean")
    plan = new_plan(utility)
    per_round = _seconds_of(lambda: run_block(plan, utility, 0, 0)) / plan.rounds_per_block
    plan = new_plan(utility, rounds_per_block=max(1, round(0.5 / per_round)))
    rounds = int(20 / per_round)
    taken, busy = {}, {}
    for workers in (1, 2, 1, 2):
        aggregator = Aggregator(len(data[0]), 8, stop=MaxRounds(rounds=rounds))
        came: list[tuple[float, int]] = []  # time, and number of blocks so far

        def after(pool: Pool, came: list[tuple[float, int]] = came) -> bool:
            if pool.received:  # actors have started by then
                came.append((time.perf_counter(), pool.received))
            return False

        stream_chains(plan, utility, aggregator, ResourcesConfig(num_workers=workers), after)
        (start, at_start), (end, at_end) = came[0], came[-1]
        taken.setdefault(workers, []).append((end - start) / (1 - at_start / at_end))
        busy.setdefault(workers, []).append(aggregator.seconds)
    one, two = min(taken[1]), min(taken[2])
    share = 1 - min(busy[1]) / one
    return [
        Result("two actors vs one", ">= 1.8 times", f"{one / two:.2f} times"),
        Result(
            "Ray's share of one actor's wall time, with blocks of half a second",
            "< 5 %",
            f"{share:.1%}",
        ),
    ]


class Sleeping:
    """Simulates a hundred chains: sleeps instead of computing marginals, block after block."""

    def __init__(self, num_players: int) -> None:
        self._num_players = num_players
        self._chains = asyncio.Semaphore(_PER_ACTOR)

    async def run(self, block_id: tuple[int, int]) -> Block:
        """A block of noise after about a second."""
        chain, index = block_id
        async with self._chains:
            await asyncio.sleep(1.0 + 0.2 * ((chain * 7919 + index) % 10 - 5) / 5)
        n = self._num_players
        mean = np.full((1, n), 1.0 + chain % 3)
        return Block(
            chain, index, Moments(8, mean, mean), np.ones(n, dtype=np.int64), 0, 8, 8 * n, 1.0
        )


@dataclass(frozen=True)
class Load:
    """The load that chains put on a driver."""

    blocks_per_s: float
    cores: float
    """Cores that the driver's process used."""
    grown_mb: float
    """Growth of its memory after the first ten seconds; NaN for a shorter time."""


def simulated(num_chains: int, for_s: float, num_players: int = _SIZE) -> Load:
    """The load of one aggregator that is fed by chains that need no core."""
    aggregator = Aggregator(num_players, num_chains, stop=MaxRounds(rounds=10**12))
    actor: Any = ray.remote(num_cpus=0, max_concurrency=2 * _PER_ACTOR + 5)(Sleeping)
    merged, start, cpu, memory = 0, 0.0, 0.0, []
    with stream_blocks(
        lambda: actor.remote(num_players),
        block_ids(aggregator, lambda: 4),
        num_actors=lambda: num_chains // _PER_ACTOR,
        blocks_per_actor=2 * _PER_ACTOR,
    ) as pool:
        for _, block in pool:
            aggregator.add(block)
            now = time.perf_counter()
            if not start and pool.num_starting == 0 and aggregator.next_index >= 2:
                start, cpu, merged = now, time.process_time(), 0
            merged += 1
            if start and len(memory) < (now - start) // 10:
                memory.append(_resident_bytes())
            if start and now - start > for_s:
                break
    wall = time.perf_counter() - start
    grown = (memory[-1] - memory[0]) / 2**20 if len(memory) > 1 else float("nan")
    return Load(merged / wall, (time.process_time() - cpu) / wall, grown)


def thousand_chains(for_s: float) -> list[Result]:
    """Whether one aggregator keeps up with 1,000 chains."""
    load = simulated(1000, for_s)
    return [
        Result(
            f"1,000 simulated chains, one 24 KB block per second each, for {for_s:.0f} s",
            ">= 1,000 blocks/s, memory flat",
            f"{load.blocks_per_s:,.0f} blocks/s at {load.cores:.2f} of a core; "
            f"memory {load.grown_mb:+.0f} MB after the first ten seconds",
        )
    ]


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _seconds_of(work: Any) -> float:
    work()  # compiles
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Location, help="folder of the study's feature_dump_*.pkl")
    parser.add_argument("--simulated-s", type=float, default=60)
    args = parser.parse_args()
    data = study(args.study) if args.study else made(1500, 238, 512)
    results = until_settled(data)
    connection.connect(ResourcesConfig(num_cpus=2))
    results += speed_of_actors(data)
    results += thousand_chains(args.simulated_s)
    print_results(f"Chains on Ray, {'the study' if args.study else 'synthetic'} data", results)


if __name__ == "__main__":
    main()
