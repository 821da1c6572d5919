"""Values to a cleaned set: what to keep, and the arms it is compared with.

Rules: `zero` keeps value > 0 (the study's); `chance` keeps value > 1 / (C n), the zero of the game
in which an empty training set guesses; `share` drops a stated share, the lowest values first;
`validated` drops the share whose probe has the smallest log loss on the clean shapley_val.
No rule empties a class: that is refused, with the class named.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from dcai_ray.cleaning.probes import new_probe
from dcai_ray.errors import UserError

SHARES = tuple(i / 20 for i in range(19))
"""What `validated` tries: 0 to 90 % in steps of 5 %."""


def chance_threshold(num_classes: int, num_train: int) -> float:
    """The value an image has by chance: 1 / (C n), as its v(empty) should be 1/C and is 0."""
    return 1 / (num_classes * num_train)


def keep_share(
    value: NDArray[np.float64],
    drop_share: float,
    y: NDArray[np.integer],
    *,
    per_class: bool = False,
) -> NDArray[np.bool_]:
    """Drop the lowest values, ties from the highest index.

    Args:
        value: (n,).
        drop_share: part to drop, in [0, 1).
        y: (n,) class numbers.
        per_class: drop that share of each class rather than of the whole.
    Returns:
        (n,) whether an image is kept.
    """
    kept = np.ones(len(value), dtype=bool)
    groups = [np.flatnonzero(y == c) for c in np.unique(y)] if per_class else [np.arange(len(y))]
    for group in groups:
        lowest = np.lexsort((-group, value[group]))
        kept[group[lowest[: round(drop_share * len(group))]]] = False
    return kept


def share_loss(
    value: NDArray[np.float64],
    share: float,
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    x_val: NDArray[np.floating],
    y_val: NDArray[np.integer],
    *,
    per_class: bool = False,
) -> float | None:
    """Log loss in nats, on clean images, of a logistic probe trained without the lowest `share`.

    Args:
        value: (n,).
        share: part to drop.
        x_train: (n, d) features.
        y_train: (n,) class numbers.
        x_val: (m, d) features of the clean images.
        y_val: (m,).
        per_class: drop by class.
    Returns:
        None where dropping that share would empty a class.
    """
    classes = np.unique(y_train)
    kept = keep_share(value, share, y_train, per_class=per_class)
    if len(np.unique(y_train[kept])) < len(classes):
        return None
    probe = new_probe("logistic", num_train=int(kept.sum()))
    probe.fit(np.float64(x_train[kept]), y_train[kept])  # float32 would end in coarse losses
    return float(log_loss(y_val, probe.predict_proba(np.float64(x_val)), labels=classes))


def best_share(losses: Mapping[float, float | None]) -> float:
    """The share with the smallest log loss, the smaller of equals."""
    known = {share: loss for share, loss in losses.items() if loss is not None}
    return min(known, key=lambda share: (known[share], share))


def check_classes_kept(
    kept: NDArray[np.bool_], y: NDArray[np.integer], classes: Sequence[str], rule: str
) -> None:
    """Refuse a choice that leaves a class without images.

    Raises:
        UserError: the message names the classes.
    """
    left = np.bincount(y[kept], minlength=len(classes))
    if (left == 0).any():
        emptied = ", ".join(classes[i] for i in np.flatnonzero(left == 0).tolist())
        raise UserError(
            f"rule {rule} would drop every image of class {emptied}; choose the rule share with "
            "per_class, or look at that class first"
        )
