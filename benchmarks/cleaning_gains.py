"""What cleaning gains in detection.py: accuracy on val of probes trained on what a method keeps."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from detection_sets import Case
from numpy.typing import NDArray
from validated_share import validated

from dcai_ray.cleaning.arms import random_choice
from dcai_ray.cleaning.probes import probe_scores

Mask = NDArray[np.bool_]
ALONE = ", no clean set"
"""The end of the names of methods that use none."""


def kept_by_order(case: Case, score: NDArray[np.floating]) -> Mask:
    """(n,) what the rule `validated` keeps if the highest scores (n,) are dropped first."""
    value = -score.astype(np.float64)
    return validated(value, (case.x, case.y), (case.x_clean, case.y_clean)).kept


def arms(case: Case, kept: Mapping[str, Mask], first: str) -> dict[str, tuple[Mask, bool]]:
    """The training sets: by name, a mask of the training images and whether the clean set is added.

    Args:
        case: the case.
        kept: what each method keeps.
        first: the method whose number of dropped images the random arm takes.
    """
    everything = np.ones(len(case.y), dtype=bool)
    made = {"all": (everything, False), "all + clean": (everything, True)}
    made["clean"] = (~everything, True)
    if first in kept:
        made["random"] = (random_choice(kept[first], case.y, case.seed), False)
    for name, mask in kept.items():
        made[name] = (mask, False)
        if not name.endswith(ALONE):
            made[f"{name} + clean"] = (mask, True)
    if case.wrong is not None and case.wrong.any():
        made["truth"], made["truth + clean"] = (~case.wrong, False), (~case.wrong, True)
    return made


def accuracies(case: Case, training: Mapping[str, tuple[Mask, bool]]) -> dict[str, float]:
    """The accuracy on val of the standardized logistic probe (C = .01) of each training set."""

    def accuracy(chosen: tuple[Mask, bool]) -> float:
        mask, with_clean = chosen
        x, y = case.x[mask], case.y[mask]
        if with_clean:
            x, y = np.concatenate([x, case.x_clean]), np.concatenate([y, case.y_clean])
        scores = probe_scores("logistic", x, y, case.x_val, case.y_val, len(case.classes))
        return scores["accuracy"]

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(training, threads.map(accuracy, training.values()), strict=True))
