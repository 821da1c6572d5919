"""Data-Shapley cleaning of image-classification training sets, distributed on Ray.

The package in the order in which data flows through it:

    cli          a command: its flags and settings, then the steps it runs
    steps        one file per step: read what earlier steps wrote, compute, write
    cluster      what needs Ray: connecting, tasks with ordered results, actors that come and go
    images       a folder -> a list in stable order; a file -> pixels
    networks     what needs torch: fine-tuning (steps 1 and 3), one feature vector per image (2a)
    valuation    one value per image (2b): the closed form; utilities, samplers, intervals
    cleaning     values -> what to keep (3); probes, control arms, the comparison
    report       a run read back from its files: verdicts, plots, thumbnails, one HTML page
    storage      files by path or URI, Parquet tables, fingerprints

    api, notebook   values, features, sampling; all steps in one call     config     settings
    run_directory   the files of one run     errors     what a user can fix     progress   messages

Public names are imported when first used: `import dcai_ray` loads neither torch nor ray.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "AllOf": "dcai_ray.valuation.stopping",
    "AnyOf": "dcai_ray.valuation.stopping",
    "DataShapley": "dcai_ray.valuation.estimator",
    "Grouped": "dcai_ray.valuation.utilities.grouped",
    "Knn": "dcai_ray.valuation.utilities.knn",
    "KnnAccuracy": "dcai_ray.valuation.utilities.knn_accuracy",
    "LeastSquares": "dcai_ray.valuation.utilities.least_squares",
    "Logistic": "dcai_ray.valuation.utilities.logistic",
    "MaxRounds": "dcai_ray.valuation.stopping",
    "Orders": "dcai_ray.valuation.utilities",
    "RankStability": "dcai_ray.valuation.stopping",
    "Refit": "dcai_ray.valuation.utilities.refit",
    "Settled": "dcai_ray.valuation.stopping",
    "StandardError": "dcai_ray.valuation.stopping",
    "UserError": "dcai_ray.errors",
    "Utility": "dcai_ray.valuation.utilities",
    "Values": "dcai_ray.api",
    "Cleaned": "dcai_ray.notebook",
    "clean": "dcai_ray.notebook",
    "knn_shapley": "dcai_ray.valuation",
    "knn_values": "dcai_ray.valuation.count_values",
    "read_features": "dcai_ray.api",
    "read_values": "dcai_ray.api",
    "shapley_values": "dcai_ray.api",
    "write_features": "dcai_ray.steps.feature_import",
    "write_images": "dcai_ray.images.written",
}
"""Each public name and the module that defines it."""
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
