"""Where one driver saturates: by the number of simulated chains, and by training points.

    python benchmarks/saturation.py                    # four minutes on two cores

The benchmark prints, for docs/scaling.md:

1. For 200 to 2,000 simulated chains that send one 24 KB block per second each (1,500 training
   points): the blocks per second that arrive, the driver's share of a core, and its memory.
2. The time that the aggregator takes to merge a block and update its decisions, and the size of a
   block, for 1,500 to 1,280,000 training points, in this process without Ray.
"""

import argparse
import time

import numpy as np
from chains import simulated
from results import Result, print_results

from dcai_ray.cluster import connection
from dcai_ray.config import ResourcesConfig
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.blocks import Block
from dcai_ray.valuation.moments import Moments
from dcai_ray.valuation.stopping import MaxRounds

_CHAINS = 8
_HEAD = ("load", "offered", "measured")


def by_chains(counts: tuple[int, ...], for_s: float) -> list[Result]:
    """Small blocks, many chains."""
    results = []
    for count in counts:
        load = simulated(count, for_s)
        took = f"{load.blocks_per_s:,.0f} blocks/s at {load.cores:.2f} of a core"
        results.append(
            Result(f"{count:,} chains", f"{count:,} blocks/s", f"{took}, {load.grown_mb:+.0f} MB")
        )
    return results


def by_players(sizes: tuple[int, ...], waves: int) -> list[Result]:
    """Few chains, large blocks."""
    results = []
    for n in sizes:
        rng = np.random.default_rng(0)
        moments = Moments(8, rng.random((1, n)), rng.random((1, n)))
        evaluated = np.ones(n, dtype=np.int64)
        aggregator = Aggregator(n, _CHAINS, stop=MaxRounds(rounds=10**12))
        start = time.perf_counter()
        for index in range(waves):
            for chain in range(_CHAINS):
                aggregator.add(Block(chain, index, moments, evaluated, 0, 8, 8 * n, 1.0))
        per_block = (time.perf_counter() - start) / (waves * _CHAINS)
        size_mb = 3 * 8 * n / 1e6
        results.append(
            Result(f"{n:,} training points", f"{size_mb:.3g} MB", f"{1000 * per_block:.3g} ms")
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulated-s", type=float, default=30)
    args = parser.parse_args()
    connection.connect(ResourcesConfig(num_cpus=2))
    load = by_chains((200, 500, 1000, 2000), args.simulated_s)
    print_results("Simulated chains that send one block per second", load, _HEAD)
    merging = by_players((1_500, 15_000, 150_000, 1_280_000), 4)
    head = ("load", "size of a block", "time to merge and decide")
    print_results(f"One block in the aggregator, {_CHAINS} chains", merging, head)


if __name__ == "__main__":
    main()
