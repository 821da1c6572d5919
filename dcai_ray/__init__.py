"""Data-Shapley cleaning of image-classification training sets, distributed on Ray.

The package in the order in which data goes through it:

    images          a folder -> a list in stable order; a file -> pixels
    transforms      pixels -> what a network sees
    backbones       pretrained networks by name
    finetuning      step 1: one network trained
    features        step 2a: one vector an image
    valuation       step 2b: one value an image; sampling, estimates: of any utility, sampled
    cleaning        values -> what to keep
    evaluation      step 3: what leaving the rest out bought
    findings        a run read back, with certainty; report, verdicts, gallery, figures: what a
                    person sees of it

    storage         files by path or URI       distributed     the steps on Ray
    tables          Parquet and its schemas    cli, commands   the command line
    config, flags   settings                   run_directory   one run's files

Importing this loads neither torch nor ray; public names are loaded when first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Values": "dcai_ray.api",
    "knn_shapley": "dcai_ray.valuation",
    "read_features": "dcai_ray.api",
    "read_values": "dcai_ray.api",
    "shapley_values": "dcai_ray.api",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
