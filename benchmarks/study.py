"""What the published study's rule gains on its own features, compared with other rules.

    python benchmarks/study.py FOLDER

FOLDER holds the study's feature_dump_{train,shapley_val,val}.pkl and shapley_value.pkl. Probes are
trained on the training images that a rule keeps and scored on val: logistic regression (C = .01)
and 10-NN on the raw features, and logistic regression on standardized ones.
"""

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray
from validated_share import validated

from dcai_ray.cleaning.probes import probe_scores
from dcai_ray.steps.feature_import import read_feature_file
from dcai_ray.steps.user_files import read_arrays
from dcai_ray.storage.location import Location
from dcai_ray.valuation import knn_shapley

_PROBES = (("logistic", False), ("10-nn", False), ("logistic", True))
_HEAD = ("training set", "images", "logistic", "AUROC", "10-nn", "logistic, standardized")


def points(file: Location) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features (k, d) and class numbers (k,) of one split."""
    _, labels, x, _ = read_feature_file(file)
    return x, np.unique(labels, return_inverse=True)[1]


def row(name: str, x: Any, y: Any, x_val: Any, y_val: Any) -> tuple[str, ...]:
    """One line of the table."""
    scores = [
        probe_scores(probe, x, y, x_val, y_val, len(np.unique(y_val)), standardize=standardize)
        for probe, standardize in _PROBES
    ]
    raw, nearest, standardized = (f"{score['accuracy']:.3f}" for score in scores)
    return name, str(len(y)), raw, f"{scores[0]['auroc']:.3f}", nearest, standardized


def main() -> None:
    """Value the images, choose by each rule, score the probes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Location)
    folder = parser.parse_args().folder
    x, y = points(folder / "feature_dump_train.pkl")
    x_clean, y_clean = points(folder / "feature_dump_shapley_val.pkl")
    val = points(folder / "feature_dump_val.pkl")
    published = read_arrays(folder / "shapley_value.pkl")[0]["global_shapley_arr"]

    study = knn_shapley(x, y, x_clean, y_clean, k=10, metric="euclidean")
    print(f"study's values: largest difference to the published {abs(study - published).max():.1e}")
    print(f"{(study < 0).sum()} of {len(study)} are negative\n")

    cosine = knn_shapley(x, y, x_clean, y_clean, k=10, metric="cosine")
    choice = validated(cosine, (x, y), (x_clean, y_clean))
    default = choice.kept
    rows = [
        row("all", x, y, *val),
        row("kept by the study (value > 0)", x[study > 0], y[study > 0], *val),
        row(f"kept by value (validated: drop {choice.share:.0%})", x[default], y[default], *val),
        row("clean set alone", x_clean, y_clean, *val),
    ]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    for cells in (_HEAD, *rows):
        print("  ".join(cell.rjust(w) for cell, w in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    main()
