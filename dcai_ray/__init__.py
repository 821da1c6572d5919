"""Data-Shapley cleaning of image-classification training sets, distributed on Ray.

The package in the order in which data goes through it:

    config        settings of every step                        storage   files by path or URI
    images        a folder of images -> a list in stable order  tables    Parquet and its schemas
    transforms    pixels -> what a network sees                 run_directory   one run's files
    backbones     pretrained networks by name
    finetuning    step 1: one network trained                   distributed   the steps on Ray
    features      step 2a: one vector an image                  cli           the command line
    valuation     step 2b: one value an image                   report        what a person reads
    cleaning      values -> what to keep
    evaluation    step 3: what leaving the rest out bought

Importing this loads neither torch nor ray; public names are loaded when first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "knn_shapley": "dcai_ray.valuation",
    "read_features": "dcai_ray.run_directory",
    "read_values": "dcai_ray.run_directory",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
