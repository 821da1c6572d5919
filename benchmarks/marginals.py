"""The cost of the marginals of an order, and the error of a round of orders.

    python benchmarks/marginals.py                     # a minute on one core, synthetic data
    python benchmarks/marginals.py --study FOLDER      # on the study's features
    python benchmarks/marginals.py --pydvl PYTHON      # also against pyDVL, in PYTHON's environment

The benchmark prints, each with its target:

1. knn-accuracy: the speed-up of one full order over refits of scikit-learn's
   KNeighborsClassifier(10) on every prefix, and over the same step of pyDVL; the scores are
   compared bit for bit (>= 10,000 times).
2. The mean squared error of multilevel rounds over that of plain permutations, at equal insertions
   (<= .1).
3. The growth of the time of a full order from 50,000 to 200,000 points, with 256 validation points
   (<= 3 times).
4. Least squares and logistic: the time of one full order.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from results import Result, print_results
from sklearn.neighbors import KNeighborsClassifier
from study import points as study_points
from threadpoolctl import threadpool_limits

from dcai_ray.storage.location import Location
from dcai_ray.valuation.knn_shapley import knn_shapley
from dcai_ray.valuation.samplers import multilevel, permutation, randomness
from dcai_ray.valuation.utilities import Orders, Utility
from dcai_ray.valuation.utilities.knn import Knn
from dcai_ray.valuation.utilities.knn_accuracy import KnnAccuracy
from dcai_ray.valuation.utilities.least_squares import LeastSquares
from dcai_ray.valuation.utilities.logistic import Logistic

Data = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
_REFITS = 300  # prefixes that are refitted; their time is extrapolated to all prefixes


def made(n: int, m: int, d: int, seed: int = 0) -> Data:
    """Synthetic data: two overlapping clouds, with a fifth of the training labels random."""
    rng = np.random.default_rng(seed)
    y, y_val = rng.integers(0, 2, n), rng.integers(0, 2, m)
    x = rng.standard_normal((n, d)) + 0.12 * y[:, np.newaxis]
    x_val = rng.standard_normal((m, d)) + 0.12 * y_val[:, np.newaxis]
    return x, np.where(rng.random(n) < 0.2, rng.integers(0, 2, n), y), x_val, y_val


def study(folder: Location, split: str = "train") -> Data:
    """A split of the study's features and its shapley_val, as float64: only then do scikit-learn's
    distances have the same ranks as ours."""
    x, y = study_points(folder / f"feature_dump_{split}.pkl")
    x_val, y_val = study_points(folder / "feature_dump_shapley_val.pkl")
    return x.astype(np.float64), y, x_val.astype(np.float64), y_val


def full_order(n: int, seed: int = 0) -> Orders:
    return permutation(n).draw(randomness(seed, 0, 0, 0))


def seconds_per_order(utility: Utility, repeats: int) -> float:
    """Seconds for the marginals of a full order, the median over orders."""
    n = utility.num_players
    utility.marginals(full_order(n))  # compiles
    taken = []
    for seed in range(repeats):
        order = full_order(n, seed)
        start = time.perf_counter()
        utility.marginals(order)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def refits(data: Data, order: NDArray[np.int32], sizes: NDArray[np.int64]) -> tuple[float, Any]:
    """Seconds that refits on prefixes of the given sizes take, and their scores."""
    x, y, x_val, y_val = data
    start = time.perf_counter()
    scores = []
    for size in sizes:
        chosen = np.sort(order[:size])
        model = KNeighborsClassifier(min(10, size), algorithm="brute")
        scores.append(model.fit(x[chosen], y[chosen]).score(x_val, y_val))
    return time.perf_counter() - start, np.array(scores)


def against_refits(data: Data, repeats: int) -> list[Result]:
    n, y_val = len(data[0]), data[3]
    utility = KnnAccuracy(*data, k=10, metric="euclidean")
    ours = seconds_per_order(utility, repeats)
    order = full_order(n)
    sizes = np.unique(np.linspace(1, n, _REFITS).astype(int))
    theirs, scores = refits(data, order.players, sizes)
    theirs *= n / len(sizes)
    mine = utility.score(np.array([], dtype=int)) + np.cumsum(utility.marginals(order))
    different = int((np.round(mine[sizes - 1] * len(y_val)) != np.round(scores * len(y_val))).sum())
    return [
        Result(
            "knn-accuracy: a full order vs scikit-learn refits on every prefix",
            ">= 10,000 times",
            f"{theirs / ours:,.0f} times ({1e3 * ours:.2f} ms vs {theirs:.1f} s; "
            f"{different} of {len(sizes)} scores differ)",
        )
    ]


def against_pydvl(data: Data, python: str, repeats: int) -> list[Result]:
    x, y, x_val, y_val = data
    order = full_order(len(x))
    script = Path(__file__).parent / "peers/pydvl_step.py"
    with tempfile.TemporaryDirectory() as folder:
        given, made_there = f"{folder}/given.npz", f"{folder}/made.npz"
        np.savez(given, x=x, y=y, x_val=x_val, y_val=y_val, order=order.players)
        subprocess.run([python, str(script), given, made_there], check=True)
        found = np.load(made_there)
        scores, theirs, version = found["scores"], float(found["seconds"]), str(found["version"])
    empty = 0.0  # pyDVL's score of the empty set, and of sets that scikit-learn refuses
    utility = KnnAccuracy(*data, k=10, metric="euclidean", few="default", empty=empty)
    ours = seconds_per_order(utility, repeats)
    mine = empty + np.cumsum(utility.marginals(order))
    different = int((np.round(mine * len(y_val)) != np.round(scores * len(y_val))).sum())
    return [
        Result(
            f"knn-accuracy: a full order vs a permutation of pyDVL {version}",
            ">= 10,000 times, equal scores",
            f"{theirs / ours:,.0f} times ({1e3 * ours:.2f} ms vs {theirs:.1f} s; "
            f"{different} of {len(scores)} scores differ)",
        )
    ]


def multilevel_against_plain(data: Data, num_orders: int, repeats: int) -> list[Result]:
    """Mean squared errors to the closed form at equal insertions, with a single component."""
    exact = knn_shapley(*data, k=10, metric="euclidean")
    utility = Knn(*data, k=10, metric="euclidean", num_components=1)
    n = utility.num_players
    errors = {}
    for name, rounds in (("plain", permutation(n)), ("levels", multilevel(n, base=2, levels=7))):
        count = num_orders // rounds.num_permutations
        squares = []
        for seed in range(repeats):
            total = np.zeros(n)
            for number in range(count):
                orders = rounds.draw(randomness(seed, 0, 0, number))
                total += np.bincount(orders.players, utility.marginals(orders) * rounds.weights, n)
            squares.append(((total / count - exact) ** 2).mean())
        errors[name] = float(np.mean(squares))
    return [
        Result(
            f"knn: MSE of multilevel rounds over that of permutations, {num_orders} orders each",
            "<= .1",
            f"{errors['levels'] / errors['plain']:.3f} "
            f"(RMSE {errors['levels'] ** 0.5:.1e} vs {errors['plain'] ** 0.5:.1e})",
        )
    ]


def growth(repeats: int) -> list[Result]:
    taken = {}
    for n in (50_000, 200_000):
        utility = Knn(*made(n, 256, 8), k=10, num_components=1)
        taken[n] = seconds_per_order(utility, repeats)
    small, large = taken[50_000], taken[200_000]
    return [
        Result(
            "knn: a full order of 200,000 points vs one of 50,000 (256 validation points)",
            "<= 3 times the time",
            f"{large / small:.2f} times ({1e3 * large:.1f} ms vs {1e3 * small:.1f} ms)",
        )
    ]


def models(data: Data) -> list[Result]:
    found = []
    for name, utility, repeats in (
        ("least-squares, 32 features", LeastSquares(*data), 5),
        ("logistic, 32 features", Logistic(*data), 1),
    ):
        taken = seconds_per_order(utility, repeats)
        what = f"{name}: a full order of {len(data[0])} points"
        found.append(Result(what, "", f"{1e3 * taken:.1f} ms"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Location, help="folder of the study's feature_dump_*.pkl")
    parser.add_argument("--pydvl", help="python of an environment with peers/requirements.txt")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    data = study(args.study) if args.study else made(1500, 238, 512)
    with threadpool_limits(1):
        results = against_refits(data, args.repeats)
        if args.pydvl:
            results += against_pydvl(data, args.pydvl, args.repeats)
        results += multilevel_against_plain(data, num_orders=96, repeats=6)
        results += models(data)
        results += growth(repeats=5)
    print_results(f"Marginals, {'the study' if args.study else 'synthetic'} data", results)


if __name__ == "__main__":
    main()
