"""How a K-nearest-neighbour classifier does while training points are removed in some order.

Values that mean something find points whose removal helps, and points whose removal hurts: removed
in ascending order the accuracy on other points rises or holds, in descending order it falls faster
than at random. Read from its end, the curve of a removal is that of adding points: the last tenth
that is left is the first tenth that is added in the reverse order.

Neighbours are ranked once; no classifier is fitted again. Among the K nearest points that are left
the commonest class wins, of several the first one, as in scikit-learn.

Source: Ghorbani & Zou 2019, ICML, 4.1 (removal and addition of points by their value).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from dcai_ray.valuation.neighbours import Metric, aligned, ranked

LOWEST, HIGHEST, RANDOM = "lowest value", "highest value", "random"
"""Names of orders, by what is removed first."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Removal:
    """Points with ranks, and when each training point is removed."""

    train: NDArray[np.float64]  # (n, d) as `val` and `offset`, of `aligned`
    val: NDArray[np.float64]  # (m, d)
    offset: NDArray[np.float64]  # (n,)
    far: NDArray[np.intp]
    y: NDArray[np.int64]  # (n,) class numbers
    y_val: NDArray[np.int64]  # (m,)
    position: NDArray[np.int32]  # (o, n) the place of each point in each order of removal
    removed: NDArray[np.int32]  # (s,) how many are removed
    k: int
    num_classes: int


def removal(
    train: tuple[NDArray[np.floating], NDArray[np.integer]],
    val: tuple[NDArray[np.floating], NDArray[np.integer]],
    orders: Sequence[NDArray[np.integer]],
    removed: Sequence[int],
    *,
    k: int,
    metric: Metric,
    num_classes: int,
) -> Removal:
    """Prepare points for `right`.

    Args:
        train: features (n, d) and class numbers (n,).
        val: features (m, d) and class numbers (m,) to score on.
        orders: permutations of the training points, the first to be removed first.
        removed: numbers of points, each less than n.
        k: the number of neighbours K; if fewer points are left, all of them.
        metric: as in `knn_shapley`.
        num_classes: C.
    """
    x, x_val, offset, far = aligned(train[0], val[0], metric)
    position = np.empty((len(orders), len(x)), dtype=np.int32)
    for row, order in zip(position, orders, strict=True):
        row[order] = np.arange(len(x))
    return Removal(
        train=x,
        val=x_val,
        offset=offset,
        far=far,
        y=np.asarray(train[1], dtype=np.int64),
        y_val=np.asarray(val[1], dtype=np.int64),
        position=position,
        removed=np.asarray(removed, dtype=np.int32),
        k=k,
        num_classes=num_classes,
    )


def right(rows: slice, game: Removal) -> NDArray[np.int64]:
    """(o, s) how many of some validation points are classified rightly, by order and removal."""
    nearest = ranked(game.train, game.val[rows], game.offset, far=game.far)
    found = np.zeros((len(game.position), len(game.removed)), dtype=np.int64)
    _count(
        nearest, game.y, game.y_val[rows], game.position, game.removed, game.k,
        np.empty(game.num_classes, dtype=np.int64), found,
    )  # fmt: skip
    return found


@numba.njit(cache=True, nogil=True)
def _count(nearest, y, y_val, position, removed, k, votes, found):  # type: ignore[no-untyped-def]
    """Add the validation points that are classified rightly to `found` (o, s)."""
    for q in range(nearest.shape[0]):
        for o in range(position.shape[0]):
            for s in range(removed.shape[0]):
                votes[:] = 0
                left = k
                for i in nearest[q]:
                    if position[o, i] >= removed[s]:
                        votes[y[i]] += 1
                        left -= 1
                        if left == 0:
                            break
                if np.argmax(votes) == y_val[q]:
                    found[o, s] += 1
