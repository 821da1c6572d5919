"""Suggested labels: the most common label among an image's nearest neighbours, for review."""

import numpy as np
from numpy.typing import NDArray

from dcai_ray.valuation.neighbours import Metric, aligned, ranked


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
        k: number of neighbours; at most n (n - 1 with `left_out`).
        metric: euclidean or cosine.
        left_out: (q,) index in `x_to` that is excluded, as the query itself; -1 for none.
        rows_at_a_time: limits memory; does not affect the result.
    """
    train, val, offset = aligned(x_to, x_from, metric)
    found = []
    for start in range(0, len(val), rows_at_a_time):
        rows = slice(start, start + rows_at_a_time)
        own = None if left_out is None else left_out[rows]
        found.append(ranked(train, val[rows], offset, own)[:, :k])
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
    """(n,) the most common class among the k nearest kept and clean images, for review.

    Args:
        x_train: (n, d).
        y_train: (n,) class numbers as given.
        kept: (n,) whether an image is kept.
        x_val: (m, d) clean images; m may be 0.
        y_val: (m,).
        k: number of neighbours that vote.
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
