"""What cleaning gained, and how well wrong labels were found.

A *probe* is a small classifier on frozen features; it takes a second where fine-tuning takes
minutes. *Arms* are the training sets compared; all arms use the same seeds, so that differences are
paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from dcai_ray.cleaning.arms import ARMS


@dataclass(frozen=True, slots=True)
class Detection:
    """How well low scores, such as values, find wrong labels."""

    auc: float
    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    wrong: int
    """Images whose label is wrong."""
    dropped: int
    dropped_wrong: int
    """Dropped images whose label is wrong."""

    @property
    def precision(self) -> float:
        """Share of the dropped images whose label is wrong; NaN if none is dropped."""
        return self.dropped_wrong / self.dropped if self.dropped else float("nan")

    @property
    def recall(self) -> float:
        """Share of the wrong labels that are dropped."""
        return self.dropped_wrong / self.wrong


def detection(
    score: NDArray[np.float64], kept: NDArray[np.bool_], wrong: NDArray[np.bool_]
) -> Detection | None:
    """Compare low scores, taken as a sign of wrong labels, with the truth.

    Args:
        score: (n,) such as values.
        kept: (n,) whether the rule keeps an image.
        wrong: (n,) whether its label is known to be wrong.
    Returns:
        None if all labels are right or all are wrong.
    """
    auc = detection_auc(score, wrong)
    if auc is None:
        return None
    false_rate, true_rate, _ = roc_curve(wrong, -score)
    return Detection(
        auc=auc,
        false_positive_rate=false_rate,
        true_positive_rate=true_rate,
        wrong=int(wrong.sum()),
        dropped=int((~kept).sum()),
        dropped_wrong=int((wrong & ~kept).sum()),
    )


def detection_auc(score: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve of low scores (n,) as a sign of wrong labels (n,).

    Returns:
        None if all labels are right or all are wrong.
    """
    if wrong.all() or not wrong.any():
        return None
    return float(roc_auc_score(wrong, -score))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the before/after table."""

    model: str
    arm: str
    images: float
    """Number of training images, averaged over seeds."""
    accuracy: float
    spread: float
    """Standard deviation of the accuracy over seeds; NaN with one seed."""
    auroc: float
    against_all: float
    """Accuracy minus that of `all`, averaged over seeds; NaN without paired seeds."""
    against_random: float
    """Likewise for `random`."""
    wins_over_random: int
    """Number of seeds in which the arm beats `random`."""
    seeds: int


def comparison(scores: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The before/after table: one row per model and arm, paired over seeds.

    Args:
        scores: one mapping per model, arm and seed with `model`, `arm`, `seed`, `images`,
            `accuracy` and `auroc`.
    """
    by_arm: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for score in scores:
        by_arm.setdefault((score["model"], score["arm"]), {})[score["seed"]] = score
    rows = []
    for (model, arm), seeds in by_arm.items():
        accuracy = np.array([s["accuracy"] for s in seeds.values()])
        to_all = _gains(seeds, by_arm.get((model, "all"), {}))
        to_random = _gains(seeds, by_arm.get((model, "random"), {}))
        rows.append(
            Row(
                model=model,
                arm=arm,
                images=float(np.mean([s["images"] for s in seeds.values()])),
                accuracy=float(accuracy.mean()),
                spread=float(accuracy.std(ddof=1)) if len(accuracy) > 1 else float("nan"),
                auroc=float(np.mean([s["auroc"] for s in seeds.values()])),
                against_all=float(to_all.mean()) if len(to_all) else float("nan"),
                against_random=float(to_random.mean()) if len(to_random) else float("nan"),
                wins_over_random=int((to_random > 0).sum()),
                seeds=len(seeds),
            )
        )
    models = list(dict.fromkeys(model for model, _ in by_arm))
    order = list(ARMS)
    return sorted(rows, key=lambda row: (models.index(row.model), order.index(row.arm)))


def _gains(
    scores: Mapping[int, Mapping[str, Any]], baseline: Mapping[int, Mapping[str, Any]]
) -> NDArray[np.float64]:
    """(seeds,) accuracy of an arm minus that of a baseline, for the seeds that both have."""
    return np.array(
        [
            score["accuracy"] - baseline[seed]["accuracy"]
            for seed, score in scores.items()
            if seed in baseline
        ]
    )
