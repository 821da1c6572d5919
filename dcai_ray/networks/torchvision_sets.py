"""Data sets of torchvision by name and folder: `torchvision:CIFAR10:/path/root`.

Nothing is downloaded. A class says by its own signature how it is split: `train=True` and `False`,
or `split="train"` and one of "val", "valid", "validation", "test".
"""

import inspect
from collections.abc import Callable
from typing import Any

from dcai_ray.errors import UsageError, UserError

_VALIDATION = ("val", "valid", "validation", "test")


def parse(data: str) -> tuple[str, str]:
    """The name of the class and the folder with its files.

    Raises:
        UsageError: it is not `torchvision:NAME:FOLDER`, or torchvision has no such data set.
    """
    import torchvision.datasets

    name, _, root = data.removeprefix("torchvision:").partition(":")
    if not root:
        raise UsageError(f"{data}: expected torchvision:NAME:FOLDER, as torchvision:CIFAR10:/data")
    if name not in torchvision.datasets.__all__:
        raise UsageError(f"{data}: torchvision has no data set {name}")
    return name, root


def splits_of(name: str, root: str) -> dict[str, Any]:
    """The data sets of train and, where the class has one, val.

    Raises:
        UserError: the files are not there, or the class has no splits that are understood.
    """
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name)
    known = inspect.signature(kind).parameters
    if "train" in known:
        choices: dict[str, list[dict[str, Any]]] = {
            "train": [{"train": True}],
            "val": [{"train": False}],
        }
    elif "split" in known:
        choices = {"train": [{"split": "train"}], "val": [{"split": each} for each in _VALIDATION]}
    else:
        raise UserError(
            f"torchvision:{name}: has neither train= nor split=; write it yourself with "
            "dcai_ray.write_images"
        )
    if "download" in known:
        kind = _without_download(kind)
    found = {split: _first(name, kind, root, each) for split, each in choices.items()}
    return {split: dataset for split, dataset in found.items() if dataset is not None}


def _without_download(kind: Callable[..., Any]) -> Callable[..., Any]:
    return lambda root, **options: kind(root, download=False, **options)


def _first(name: str, kind: Callable[..., Any], root: str, choices: list[dict[str, Any]]) -> Any:
    """The first of the choices that the class knows; None if it knows none."""
    for choice in choices:
        try:
            return kind(root, **choice)
        except ValueError:  # an unknown split, by torchvision's own check
            continue
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"torchvision:{name}: {root} does not hold it ({reason})") from None
    return None
