"""The nearest neighbours of images, which a reviewer sees beside the labels."""

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
    train, val, offset, far = aligned(x_to, x_from, metric)
    found = []
    for start in range(0, len(val), rows_at_a_time):
        rows = slice(start, start + rows_at_a_time)
        own = None if left_out is None else left_out[rows]
        found.append(ranked(train, val[rows], offset, own, far)[:, :k])
    return np.concatenate(found)
