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

from dcai_ray.cleaning.evaluation import new_probe
from dcai_ray.valuation.knn_shapley import Metric, aligned, neighbour_order

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
        ValueError: the message names the classes.
    """
    left = np.bincount(y[kept], minlength=len(classes))
    if (left == 0).any():
        emptied = ", ".join(classes[i] for i in np.flatnonzero(left == 0).tolist())
        raise ValueError(
            f"rule {rule} would drop every image of class {emptied}; choose the rule share with "
            "per_class, or look at that class first"
        )


def random_choice(kept: NDArray[np.bool_], y: NDArray[np.integer], seed: int) -> NDArray[np.bool_]:
    """The control arm: as many dropped as `kept` drops, at random, no class emptied."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0x5EED,)))
    chosen = np.zeros(len(kept), dtype=bool)
    order = rng.permutation(len(kept))
    first = [order[np.argmax(y[order] == c)] for c in np.unique(y)]  # one of each class stays
    rest = order[~np.isin(order, first)]
    chosen[first] = True
    chosen[rest[: max(int(kept.sum()) - len(first), 0)]] = True
    return chosen


def arms(
    kept: NDArray[np.bool_],
    y: NDArray[np.integer],
    wrong: NDArray[np.bool_] | None,
    *,
    has_clean: bool,
    seeds: Sequence[int],
) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """The training sets that are compared: by arm and seed, (n,) which training images are in.

    Args:
        kept: (n,) what the rule keeps.
        y: (n,) class numbers.
        wrong: (n,) known wrong labels; None where nothing is known.
        has_clean: whether there is a clean shapley_val; the arms with `clean` in their name add it.
        seeds: one draw of the random arm each; the other arms are alike for all.
    """
    masks = {"all": np.ones_like(kept), "kept": kept, "random": kept}
    if has_clean:
        masks |= {"clean": np.zeros_like(kept), "kept+clean": kept}
    # Where all labels of a class are wrong, what is left of it cannot be trained on.
    if wrong is not None and wrong.any() and np.isin(y, y[~wrong]).all():
        masks["truth"] = ~wrong
    return {
        arm: {seed: random_choice(kept, y, seed) if arm == "random" else mask for seed in seeds}
        for arm, mask in masks.items()
    }


def neighbours(
    x_from: NDArray[np.floating],
    x_to: NDArray[np.floating],
    k: int,
    metric: Metric,
    left_out: NDArray[np.intp] | None = None,
    rows_at_a_time: int = 256,
) -> NDArray[np.int32]:
    """(q, k) indices of the k nearest of `x_to` for each of `x_from`, nearest first.

    Args:
        x_from: (q, d).
        x_to: (n, d); centred by its mean, with `x_from`.
        k: how many; at most n (n - 1 with `left_out`).
        metric: euclidean or cosine.
        left_out: (q,) an index of `x_to` that is not its own neighbour; -1 for none.
        rows_at_a_time: memory only.
    """
    train, val, offset = aligned(x_to, x_from, metric)
    found = []
    for start in range(0, len(val), rows_at_a_time):
        rows = slice(start, start + rows_at_a_time)
        own = None if left_out is None else left_out[rows]
        found.append(neighbour_order(offset - val[rows] @ train.T, own)[:, :k])
    return np.concatenate(found)


def suggested_labels(
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    kept: NDArray[np.bool_],
    x_val: NDArray[np.floating],
    y_val: NDArray[np.integer],
    *,
    k: int,
    metric: Metric,
) -> NDArray[np.int64]:
    """(n,) the class most common among the k nearest kept and clean images; for people to judge.

    Args:
        x_train: (n, d).
        y_train: (n,) class numbers as given.
        kept: (n,) whether an image is kept.
        x_val: (m, d) clean images; m may be 0.
        y_val: (m,).
        k: votes.
        metric: euclidean or cosine.
    """
    x = np.concatenate([x_train[kept], x_val])
    y = np.concatenate([y_train[kept], y_val])
    own = np.full(len(kept), -1)
    own[kept] = np.arange(int(kept.sum()))
    near = neighbours(x_train, x, min(k, len(y) - 1), metric, own)
    votes = np.zeros((len(kept), int(y.max()) + 1))
    for column in range(near.shape[1]):
        np.add.at(votes, (np.arange(len(kept)), y[near[:, column]]), 1)
    return votes.argmax(axis=1)
