"""Whether the values of annotators tell who is careless.

    python benchmarks/crowd.py                  # a minute on two cores
    python benchmarks/crowd.py --annotators 40  # so many are sampled

Scikit-learn's digits, labelled by simulated annotators: each gets as many images at random, and a
share of wrong labels between 0 and .6, spread evenly over the classes. 300 others have right
labels. The benchmark prints, each with its target:

1. The correlation of the annotators' values with their true shares of wrong labels, by Pearson and
   Spearman (<= -.9).
2. The same for the estimated shares of wrong labels, and their mean absolute error.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from results import Result, print_results
from scipy.stats import pearsonr, spearmanr
from sklearn.datasets import load_digits

import dcai_ray
from dcai_ray.cli import main as dcai
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location

_TRAIN, _CLEAN, _WORST = 1200, 300, 0.6


def label(folder: Path, annotators: int) -> dict[str, float]:
    """Write features and the annotator of each image; the share of wrong labels of each."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    x, y = x[order].astype(np.float32), y[order]
    who = rng.permutation(np.arange(_TRAIN) % annotators)
    wrong = rng.random(_TRAIN) < np.linspace(0, _WORST, annotators)[who]
    given = np.where(wrong, (y[:_TRAIN] + rng.integers(1, 10, _TRAIN)) % 10, y[:_TRAIN])
    clean = slice(_TRAIN, _TRAIN + _CLEAN)
    names = [f"{i:04d}" for i in range(_TRAIN)]
    features = str(folder / "features")
    for split, columns in (
        ("train", {"id": names, "features": x[:_TRAIN], "label": given}),
        (
            "shapley_val",
            {"id": names[:_CLEAN], "features": x[clean], "label": y[clean]},
        ),
    ):
        dcai_ray.write_features(columns, features, split=split)
    with (folder / "groups.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "group"])
        writer.writerows((name, f"a{of:02d}") for name, of in zip(names, who, strict=True))
    return {f"a{of:02d}": float(wrong[who == of].mean()) for of in range(annotators)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotators", type=int, default=12)
    args = parser.parse_args()
    results = []
    for utility in ("knn", "knn-accuracy"):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            truth = label(folder, args.annotators)
            run = folder / "run"
            code = dcai(
                [
                    *("value", "--features", str(folder / "features"), "--run", str(run)),
                    *("--utility", utility, "--players", str(folder / "groups.csv"), "--quiet"),
                ]
            )
            assert code == 0
            rows = parquet.read_table(Location(str(run / "values/groups.parquet"))).to_pylist()
        wrong = np.array([truth[row["group"]] for row in rows])
        value = np.array([row["value"] for row in rows])
        share = np.array([row["wrong_share"] for row in rows])
        results += [
            Result(
                f"{args.annotators} annotators, {utility}: values against true shares",
                "<= -.9",
                f"{pearsonr(value, wrong)[0]:.3f} / {spearmanr(value, wrong)[0]:.3f}",
            ),
            Result(
                "estimated shares of wrong labels against true ones",
                "",
                f"{pearsonr(share, wrong)[0]:.3f} / {spearmanr(share, wrong)[0]:.3f}, "
                f"off by {np.abs(share - wrong).mean():.3f}",
            ),
        ]
    print_results("Simulated annotators", results)


if __name__ == "__main__":
    main()
