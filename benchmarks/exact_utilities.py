"""How long exact values of the vote's accuracy take, beside sampling it and beside the closed form.

    python benchmarks/exact_utilities.py                  # some minutes on one core, synthetic data
    python benchmarks/exact_utilities.py --study FOLDER   # on the study's features

The benchmark prints, each with its target:

1. The seconds that the exact values of knn-accuracy take on as many points as the study's, K = 10,
   one core (< 1).
2. The seconds of the same for ten classes, 3,000 x 500 points, on all cores (less than sampling
   takes until 95 % are settled, which is measured in the same run).
3. How many 95 % intervals of that sampling hold the exact value (>= 95 %).
4. The largest difference of a value when the quadrature has twice as many nodes (<= 1e-12).
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import cpu_count

import numpy as np
from marginals import Data, made, study
from numpy.typing import NDArray
from results import Result, print_results
from threadpoolctl import threadpool_limits

from dcai_ray.storage.location import Location
from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.count_values import count_block_sums, count_game, quadrature
from dcai_ray.valuation.knn_shapley import knn_game, merged
from dcai_ray.valuation.plan import new_plan
from dcai_ray.valuation.sampling import new_aggregator, sample
from dcai_ray.valuation.utilities.knn_accuracy import KnnAccuracy

_K = 10


def ten_classes(n: int, m: int, d: int = 32) -> Data:
    """Ten overlapping clouds; a fifth of the training labels are random."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, d)) * 0.5
    y, y_val = rng.integers(0, 10, n), rng.integers(0, 10, m)
    x = centres[y] + rng.standard_normal((n, d))
    x_val = centres[y_val] + rng.standard_normal((m, d))
    return x, np.where(rng.random(n) < 0.2, rng.integers(0, 10, n), y), x_val, y_val


def exact(data: Data, cores: int, size: int) -> tuple[NDArray[np.float64], float]:
    """Values, and the seconds that they take; with as many nodes as `size` points need."""
    points = knn_game(*data, k=_K, metric="euclidean")
    nodes, weights = quadrature("shapley", (1.0, 1.0), size, _K)
    counted = replace(count_game(points, "knn-accuracy", k=_K), nodes=nodes, weights=weights)
    start = time.perf_counter()
    # The kernels give up Python's lock.
    with ThreadPoolExecutor(cores) as pool:
        blocks = pool.map(lambda block: count_block_sums(counted, block), points.val_blocks)
        values = merged(points, blocks).value[0]
    return values, time.perf_counter() - start


def sampled(data: Data) -> tuple[Aggregator, float]:
    """The aggregator once 95 % are settled, and the seconds until then, on one core."""
    utility = KnnAccuracy(*data, k=_K, metric="euclidean")
    plan = new_plan(utility)
    aggregator = new_aggregator(plan)
    start = time.perf_counter()
    for _ in sample(plan, utility, aggregator):
        pass
    return aggregator, time.perf_counter() - start


def results(name: str, data: Data, cores: int, target: str) -> list[Result]:
    """Time and agreement on one set."""
    n = len(data[0])
    shape = f"{name}, {n:,} x {len(data[2]):,}, K = {_K}"
    found, took = exact(data, cores, n)
    finer, _ = exact(data, cores, 64 * n)
    aggregator, sampling = sampled(data)
    low, high = aggregator.interval()
    inside = float(((low <= found) & (found <= high)).mean())
    on = "one core" if cores == 1 else f"{cores} cores"
    return [
        Result(f"{shape}: exact, {on}", target, f"{took:.2f} s"),
        Result("the same by sampling until 95 % are settled, one core", "", f"{sampling:.1f} s"),
        Result("its intervals that hold the exact value", ">= 95 %", f"{inside:.1%}"),
        Result("twice the nodes change a value by", "<= 1e-12", f"{abs(found - finer).max():.1e}"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", help="folder of the study's feature_dump_*.pkl")
    parser.add_argument("--points", default="3000,500", help="of the set with ten classes")
    args = parser.parse_args()
    two = study(Location(args.study)) if args.study else made(1500, 238, 512)
    n, m = map(int, args.points.split(","))
    with threadpool_limits(1):
        for data in (ten_classes(60, 4), made(60, 4, 3)):
            exact(data, 1, 60)  # compiles
        table = results("two classes", two, 1, "< 1 s")
        table += results("ten classes", ten_classes(n, m), cpu_count() or 1, "less than sampling")
    print_results("Exact values of the vote's accuracy", table)


if __name__ == "__main__":
    main()
