"""Features without images: as arrays in, as the files of `extract` out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location


def write_features(folder: Path, splits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """Features (k, d) and class numbers (k,) of each split; ids in the order of the points."""
    for split, (x, y) in splits.items():
        labels = [f"class{c}" for c in y]
        ids = [f"{label}/{i:03d}" for i, label in enumerate(labels)]
        location = Location(str(folder)) / split
        write_split(location, ids, labels, np.float32(x), {"backbone": "made up"}, f"made {split}")
    return folder
