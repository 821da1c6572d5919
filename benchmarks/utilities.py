"""How well the values of each utility clean a set, compared with those of the closed form.

    python benchmarks/utilities.py --study FOLDER --run RUN      # ten minutes on two cores

FOLDER holds the study's feature_dump_*.pkl; RUN is a finished run on data with a truth.csv. For
each utility, the benchmark prints the accuracy of a probe trained on the images that the rule
`validated` keeps of the study's set, and the AUC with which low values find the wrong labels of the
run. The scikit-learn classifier, which is refitted on every prefix, values only 300 points of each
set; the closed form on the same points is printed for comparison.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from marginals import study
from numpy.typing import NDArray
from results import Result, print_results
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from validated_share import validated

from dcai_ray import shapley_values
from dcai_ray.api import read_features
from dcai_ray.cleaning.probes import probe_scores
from dcai_ray.report.findings import read_findings
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.location import Location
from dcai_ray.valuation import knn_shapley
from dcai_ray.valuation.stopping import AnyOf, MaxRounds, Settled
from dcai_ray.valuation.utilities.knn_accuracy import KnnAccuracy
from dcai_ray.valuation.utilities.least_squares import LeastSquares
from dcai_ray.valuation.utilities.logistic import Logistic
from dcai_ray.valuation.utilities.refit import Refit

Points = tuple[NDArray[Any], NDArray[Any]]
Valuer = Callable[[Points, Points], tuple[NDArray[np.float64], str]]
_FEW = 300


def exact(train: Points, clean: Points) -> tuple[NDArray[np.float64], str]:
    start = time.perf_counter()
    value = knn_shapley(*train, *clean, k=10)
    return value, f"{time.perf_counter() - start:.2f} s"


def sampled(make: Callable[..., Any], rounds: int) -> Valuer:
    """Values once 95 % of the points are settled, or after `rounds` rounds."""

    def work(train: Points, clean: Points) -> tuple[NDArray[np.float64], str]:
        start = time.perf_counter()
        stop = AnyOf(rules=(Settled(), MaxRounds(rounds=rounds)))
        values = shapley_values(make(*train, *clean), stop=stop, ray=True)
        settled = values.trace[-1].settled
        took = time.perf_counter() - start
        return values.value, f"{took:.0f} s, {values.rounds:,} rounds, {settled:.0%} settled"

    return work


def refit(*points: Any) -> Refit:
    return Refit(LogisticRegression(C=0.01, max_iter=200), *points)


def probe_accuracy(
    value: NDArray[np.float64], train: Points, clean: Points, val: Points
) -> tuple[float, float]:
    """Accuracy of the logistic probe trained on what the rule keeps, and the share dropped."""
    choice = validated(value, train, clean)
    kept = choice.kept
    scores = probe_scores("logistic", train[0][kept], train[1][kept], *val, len(np.unique(val[1])))
    assert choice.share is not None
    return scores["accuracy"], choice.share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Location, required=True)
    parser.add_argument("--run", type=Location, required=True)
    args = parser.parse_args()
    x, y, x_clean, y_clean = study(args.study)
    x_val, y_val = study(args.study, "val")[:2]
    run = RunDirectory(args.run)
    found = read_findings(run)
    assert found.truth is not None, "the run's data needs a truth.csv"
    classes = sorted(set(read_features(str(run.features / "train")).labels))
    sets = []
    for split in ("train", "shapley_val"):
        features = read_features(str(run.features / split))
        sets.append((features.x, np.array([classes.index(label) for label in features.labels])))
    photos, photos_clean = sets
    rng = np.random.default_rng(0)
    everything: dict[str, tuple[Valuer, int | None]] = {
        "closed form (knn)": (exact, None),
        "knn-accuracy": (sampled(KnnAccuracy, 6000), None),
        "least-squares": (sampled(LeastSquares, 3000), None),
        "logistic": (sampled(Logistic, 64), None),
        f"closed form (knn), {_FEW} points": (exact, _FEW),
        f"sklearn LogisticRegression, {_FEW} points": (sampled(refit, 64), _FEW),
    }
    results = []
    few = [np.sort(rng.permutation(len(s[1]))[:_FEW]) for s in ((x, y), photos)]
    for name, (valuer, count) in everything.items():
        here, there = few if count else [np.arange(len(y)), np.arange(len(photos[1]))]
        train, their = (x[here], y[here]), (photos[0][there], photos[1][there])
        value, how = valuer(train, (x_clean, y_clean))
        accuracy, share = probe_accuracy(value, train, (x_clean, y_clean), (x_val, y_val))
        theirs, their_how = valuer(their, photos_clean)
        auc = roc_auc_score(found.truth.wrong[there], -theirs)
        results.append(
            Result(
                name,
                f"probe {accuracy:.3f} (drops {share:.0%}; {how})",
                f"AUC {auc:.3f} ({their_how})",
            )
        )
    head = ("utility", "study: probe on val after cleaning", "photos: wrong labels by low values")
    print_results("How well the values of each utility clean a set", results, head)


if __name__ == "__main__":
    main()
