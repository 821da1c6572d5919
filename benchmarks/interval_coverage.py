"""Coverage of the intervals: sampled values compared with exact ones after every wave.

    python benchmarks/interval_coverage.py --seeds 200          # ten minutes on one core

The data are 300 points in three clusters, with a fifth of the labels random. For each sampler and
two utilities, the smooth `knn` and the stepped `knn-accuracy`, the benchmark prints the share of
points whose 95 % interval misses the exact value at any look until 95 % of the points are settled
(at most .05), the share whose settled sign is ever wrong (at most .01), the standard deviation of
the standardized errors (1), and the number of rounds.
"""

import argparse
from typing import Any

import numpy as np
from results import Result, print_results

from dcai_ray.valuation.aggregator import Aggregator
from dcai_ray.valuation.count_values import knn_values
from dcai_ray.valuation.knn_shapley import knn_shapley
from dcai_ray.valuation.plan import new_plan
from dcai_ray.valuation.sampling import sample
from dcai_ray.valuation.stopping import Settled
from dcai_ray.valuation.utilities.knn import Knn
from dcai_ray.valuation.utilities.knn_accuracy import KnnAccuracy

_N, _M = 300, 60


def clusters() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    centres = 1.2 * rng.standard_normal((3, 4))
    y, y_val = rng.integers(0, 3, _N), rng.integers(0, 3, _M)
    x = centres[y] + rng.standard_normal((_N, 4))
    x_val = centres[y_val] + rng.standard_normal((_M, 4))
    return x, np.where(rng.random(_N) < 0.2, rng.integers(0, 3, _N), y), x_val, y_val


def coverage(name: str, sampler: str, seeds: int) -> Result:
    """One utility and sampler over many seeds."""
    data = clusters()
    settings: dict[str, Any] = {"k": 10, "metric": "euclidean"}
    values, made = {"knn": (knn_shapley, Knn), "knn-accuracy": (knn_values, KnnAccuracy)}[name]
    exact, utility = values(*data, **settings), made(*data, **settings)
    missed, wrong, errors, rounds = [], [], [], []
    for seed in range(seeds):
        plan = new_plan(utility, sampler=sampler, seed=seed, rounds_per_block=4)
        aggregator = Aggregator(_N, 8, min_rounds=plan.min_rounds, stop=Settled())
        ever, signs = np.zeros(_N, dtype=bool), np.zeros(_N, dtype=bool)
        for _ in sample(plan, utility, aggregator):
            low, high = aggregator.interval()
            ever |= (low > exact) | (high < exact)
            signs |= ((low > 0) & (exact <= 0)) | ((high < 0) & (exact >= 0))
        missed.append(ever.mean())
        wrong.append(signs.mean())
        errors.append((aggregator.value[0] - exact) / aggregator.stderr[0])
        rounds.append(aggregator.rounds)
    return Result(
        f"{name}, {sampler}: ever missed / ever a wrong sign",
        "<= .05 / <= .01",
        f"{np.mean(missed):.4f} / {np.mean(wrong):.5f}; SD of errors {np.std(errors):.3f}; "
        f"{np.mean(rounds):,.0f} rounds",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    seeds = parser.parse_args().seeds
    samplers = ("multilevel", "permutation", "antithetic")
    few = max(1, seeds // 10)  # stepped marginals settle late
    print_results(
        f"Intervals over {seeds} seeds, of knn-accuracy over {few}",
        [
            coverage(name, sampler, count)
            for name, count in (("knn", seeds), ("knn-accuracy", few))
            for sampler in samplers
        ],
    )


if __name__ == "__main__":
    main()
