"""How fast the closed form is, and how much memory it takes.

    python benchmarks/closed_form.py                      # half a minute on one core
    python benchmarks/closed_form.py --train 200000       # other sizes: --val, --features

The benchmark prints, each with its target:

1. The seconds that the values of 1500 x 238 x 512 points, the size of the published study, take
   (< 0.05).
2. On one core, in float64: the time of `game_values`, relative to the minimum
   that ranking needs, the matrix product and `np.argsort` of the same blocks. Each repeat times
   both in turn; the median of the ratios is printed (at most 1).
3. The peak of memory above the inputs, measured in a separate process (< 1 GB).
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dcai_ray.valuation.knn_shapley import game_values, knn_game, knn_shapley

_STUDY = (1500, 238, 512)


def points(n: int, m: int, d: int) -> tuple[NDArray[Any], ...]:
    """Training and validation points, float64, with labels of ten classes."""
    rng = np.random.default_rng(0)
    x, x_val = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    return x, rng.integers(0, 10, n), x_val, rng.integers(0, 10, m)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def against_ranking_alone(
    sizes: tuple[int, int, int], metric: Any, repeats: int
) -> NDArray[np.float64]:
    """(repeats, 2) seconds: `game_values`, and the matrix product with argsort."""
    game = knn_game(*points(*sizes), k=10, metric=metric)

    def ours() -> None:
        game_values(game)

    def ranking_alone() -> None:
        for block in game.val_blocks:
            np.argsort(game.val[block] @ game.train.T, axis=1)

    return np.array([[seconds(ours), seconds(ranking_alone)] for _ in range(repeats)])


def peak_above_inputs(sizes: tuple[int, int, int], metric: Any) -> int:
    """Peak of memory in bytes; needs a fresh process, as a peak never falls."""
    knn_shapley(*points(20, 5, 3))  # imports and compiled code do not count
    inputs = points(*sizes)
    before = _peak_bytes()
    knn_shapley(*inputs, metric=metric)
    return _peak_bytes() - before


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--val", type=int, default=1_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--metric", choices=("euclidean", "cosine"), default="euclidean")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    sizes, shape = (args.train, args.val, args.features), f"{args.train} x {args.val}"

    # This comes first, as a process inherits the peak of the one that starts it.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(peak_above_inputs, (sizes, args.metric))

    study = points(*_STUDY)
    knn_shapley(*study)  # compiles
    took = [seconds(lambda: knn_shapley(*study, metric=args.metric)) for _ in range(args.repeats)]
    print(f"1500 x 238 x 512: {np.median(took):.3f} s (target < 0.05)")

    with threadpool_limits(1):
        pairs = against_ranking_alone(sizes, args.metric, args.repeats)
    ours, ranking = np.median(pairs, axis=0) / args.val * 1e3
    print(f"{shape} x {args.features}, one core: {ours:.2f} ms per validation point, product and")
    print(f"argsort alone {ranking:.2f}; ratio {np.median(pairs[:, 0] / pairs[:, 1]):.2f}", end="")
    print(f" (all: {', '.join(f'{a / b:.2f}' for a, b in pairs)}; target <= 1)")
    print(f"peak of memory above the inputs: {peak / 1e9:.2f} GB (target < 1)")


if __name__ == "__main__":
    main()
