"""Closed-form semivalues of the K-nearest-neighbour utility.

Take one validation point. Rank the n training points by distance from it, nearest first, and let
a_j be 1 if the j-th has the validation point's label, else 0. The utility of a coalition S is

    v(S) = (1/K) * (sum of a_j over the min(K, |S|) nearest points of S),        v(empty) = 0

and every semivalue of it follows from one walk from the farthest point to the nearest:

    s_n = a_n / K * g_n
    s_j = s_{j+1} + (a_j - a_{j+1}) / K * g_j

where g_j is the probability that a random coalition holds fewer than K of the j - 1 nearer points:
the probability that j gets a vote. The semivalue enters through the table g alone. The utility of a
validation set is the mean over its points, and so is the value.

Without a clean validation set the training set serves as its own (`y_val=None`): each training
point is a validation point for all the others, left out of its own ranking.

Sums are taken over `VAL_BLOCK` validation points at a time and merged in order, so a result is
bitwise the same however the blocks are spread over processes.

Source: Jia et al. 2019, PVLDB 12(11), Theorem 1 (Shapley, n >= K); the table, and n < K, by the
same argument.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.neighbours import Metric, aligned, ranked, tiles

VAL_BLOCK = 64
"""Validation points whose values are summed before they are merged with the rest."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Values summed over validation points, and their squares."""

    total: NDArray[np.float64]  # (n,)
    squares: NDArray[np.float64]  # (n,)


@dataclass(frozen=True, slots=True)
class KnnGame:
    """The aligned points and gains with which validation points are valued."""

    train: NDArray[np.float64]  # (n, d), aligned
    val: NDArray[np.float64]  # (m, d), aligned
    offset: NDArray[np.float64]  # (n,): offset - val @ train.T ranks as the metric does
    y_train: NDArray[np.int64]  # (n,)
    y_val: NDArray[np.int64]  # (m,)
    gains: NDArray[np.float64]  # g_j / K for each rank
    leave_one_out: bool

    @property
    def val_blocks(self) -> list[slice]:
        """The validation points in blocks, in the order in which their sums are merged."""
        count = len(self.val)
        return [slice(i, min(i + VAL_BLOCK, count)) for i in range(0, count, VAL_BLOCK)]


def knn_shapley(
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    x_val: NDArray[np.floating] | None = None,
    y_val: NDArray[np.integer] | None = None,
    *,
    k: int = 10,
    metric: Metric = "cosine",
    tile_bytes: int = 256 * 2**20,
) -> NDArray[np.float64]:
    """Exact Shapley value of every training point for the K-nearest-neighbour utility.

    Args:
        x_train: (n, d) features; centred here by their mean.
        y_train: (n,) integer labels.
        x_val: (m, d) features of the validation points; None: the training points serve, each
            left out of its own ranking.
        y_val: (m,) their labels; None together with x_val.
        k: the number of neighbours K; may exceed n.
        metric: distance between centred features.
        tile_bytes: working memory in bytes.
    Returns:
        (n,) values in units of accuracy; they sum to the utility of the whole training set.
    Raises:
        UserError: for k < 1, sizes that do not fit, or features that are not finite.
    """
    game = knn_game(x_train, y_train, x_val, y_val, k=k, metric=metric)
    sums = merge_sums(val_block_sums(game, block, tile_bytes) for block in game.val_blocks)
    return sums.total / len(game.val)


def knn_game(
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    x_val: NDArray[np.floating] | None,
    y_val: NDArray[np.integer] | None,
    *,
    k: int,
    metric: Metric,
    semivalue: str = "shapley",
    beta: tuple[float, float] = (4.0, 1.0),
) -> KnnGame:
    """Check and align the points; arguments as in `knn_shapley` and `vote_chances`.

    Raises:
        UserError: for k < 1, sizes that do not fit, or features that are not finite.
    """
    if (x_val is None) != (y_val is None):
        raise UserError("x_val and y_val must be given together, or neither")
    leave_one_out = x_val is None or y_val is None
    if x_val is None or y_val is None:
        x_val, y_val = x_train, y_train
    _check(x_train, y_train, x_val, y_val, k)
    if leave_one_out and len(x_train) < 2:
        raise UserError(f"x_train must hold at least 2 points to value itself, got {len(x_train)}")
    train, val, offset = aligned(x_train, None if leave_one_out else x_val, metric)
    players = len(x_train) - leave_one_out
    return KnnGame(
        train=train,
        val=val,
        offset=offset,
        y_train=np.asarray(y_train, dtype=np.int64),
        y_val=np.asarray(y_val, dtype=np.int64),
        gains=vote_chances(players, k, semivalue, beta) / k,
        leave_one_out=leave_one_out,
    )


def val_block_sums(game: KnnGame, block: slice, tile_bytes: int = 256 * 2**20) -> Sums:
    """Values summed over one block of validation points, in their order.

    Args:
        game: the points, aligned.
        block: validation points; one of `game.val_blocks`.
        tile_bytes: working memory in bytes; decides how many points are ranked at a time.
    """
    sums = Sums(np.zeros(len(game.train)), np.zeros(len(game.train)))
    for tile in tiles(block, len(game.train), tile_bytes):
        own = np.arange(tile.start, tile.stop) if game.leave_one_out else None
        order = ranked(game.train, game.val[tile], game.offset, own)
        add_values(order, game.y_train, game.y_val[tile], game.gains, sums.total, sums.squares)
    return sums


def merge_sums(blocks: Iterable[Sums]) -> Sums:
    """The sums of all blocks; the order of `blocks` decides the last bits."""
    merged: Sums | None = None
    for sums in blocks:
        if merged is None:
            merged = Sums(sums.total.copy(), sums.squares.copy())
        else:
            np.add(merged.total, sums.total, out=merged.total)
            np.add(merged.squares, sums.squares, out=merged.squares)
    assert merged is not None, "a game has at least one block"
    return merged


def standard_error(sums: Sums, count: int) -> NDArray[np.float64]:
    """(n,) standard error of the mean over validation points; NaN for a single one.

    How much a value would move with another validation set of `count` points from the same source.
    """
    if count < 2:
        return np.full(len(sums.total), np.nan)
    variance = (sums.squares - sums.total**2 / count) / (count - 1)
    return np.sqrt(np.maximum(variance, 0) / count)


def vote_chances(
    num_players: int, k: int, semivalue: str = "shapley", beta: tuple[float, float] = (4, 1)
) -> NDArray[np.float64]:
    """g_1..g_n of the module's formula: the probability that the j-th nearest point gets a vote.

    Args:
        num_players: n.
        k: the number of neighbours K.
        semivalue: "shapley", "banzhaf", "beta" or "leave-one-out".
        beta: (a, b) of Beta Shapley as in Kwon & Zou 2022; larger a weighs small coalitions more.
    Returns:
        (n,) float64 in [0, 1], not increasing.
    Raises:
        UserError: for an unknown semivalue.
    """
    from scipy.stats import betabinom, binom  # here: .4 s that most workers never need

    nearer = np.arange(num_players)  # (n,) how many points are nearer than the j-th
    match semivalue:
        case "shapley":
            return np.minimum(k / (nearer + 1), 1.0)
        case "banzhaf":
            return binom.cdf(k - 1, nearer, 0.5)
        case "beta":
            return betabinom.cdf(k - 1, nearer, beta[1], beta[0])
        case "leave-one-out":
            return (nearer < k).astype(np.float64)
    raise UserError(f"semivalue must be shapley, banzhaf, beta or leave-one-out, got {semivalue!r}")


@numba.njit(cache=True, nogil=True)
def add_values(order, y_train, y_val, gains, total, squares):  # type: ignore[no-untyped-def]
    """Add the values for each validation point of a tile, in the order of the rows.

    Args:
        order: (m, n) int32, training indices nearest first.
        y_train: (n,) labels.
        y_val: (m,) labels.
        gains: (n,) g_j / K.
        total: (n,) float64, the values are added to it in place.
        squares: (n,) float64, their squares are added to it in place.
    """
    num_players = order.shape[1]
    for row in range(order.shape[0]):
        value, farther = 0.0, 0.0  # s_{j+1} and a_{j+1}; beyond the farthest point both are 0
        for j in range(num_players - 1, -1, -1):
            player = order[row, j]
            match = 1.0 if y_train[player] == y_val[row] else 0.0
            value += (match - farther) * gains[j]
            total[player] += value
            squares[player] += value * value
            farther = match


def _check(
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    x_val: NDArray[np.floating],
    y_val: NDArray[np.integer],
    k: int,
) -> None:
    if k < 1:
        raise UserError(f"k must be at least 1, got {k}")
    for name, x, y in (("train", x_train, y_train), ("val", x_val, y_val)):
        if x.ndim != 2 or len(x) == 0:
            raise UserError(
                f"x_{name} must be a non-empty (points, features) array, got shape {x.shape}"
            )
        if len(x) != len(y):
            sizes = f"{len(x)} and {len(y)}"
            raise UserError(f"x_{name} and y_{name} must have one row per point, got {sizes}")
        if not np.isfinite(x).all():
            bad = np.count_nonzero(~np.isfinite(x))
            raise UserError(f"x_{name} must be finite, got {bad} NaN or infinite entries")
    if x_train.shape[1] != x_val.shape[1]:
        widths = f"{x_train.shape[1]} and {x_val.shape[1]}"
        raise UserError(f"x_train and x_val must have the same number of features, got {widths}")
