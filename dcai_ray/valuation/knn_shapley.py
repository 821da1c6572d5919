"""Closed-form semivalues of the K-nearest-neighbour utility.

Take one validation point. Rank the n training points by distance from it, nearest first, and let
a_j be 1 if the j-th has the validation point's label, else 0. The utility of a coalition S is

    v(S) = (1/K) * (sum of a_j over the min(K, |S|) nearest points of S),        v(empty) = 0

and every semivalue of it follows from one walk from the farthest point to the nearest:

    s_n = a_n / K * g_n
    s_j = s_{j+1} + (a_j - a_{j+1}) / K * g_j

where g_j is the probability that a random coalition holds fewer than K of the j - 1 nearer points:
the probability that j gets a vote. The semivalue and K enter through the table g alone, so one
ranking serves several of them.

The utility of a validation set is the mean over its points (class weights `none`) or the mean over
its classes of the mean over the points of a class (`balanced`: balanced accuracy), and so is the
value. Where one class is rare, the plain mean condemns its images, right or wrong: nearly all
validation points belong to other classes, so for them it is a mismatch.

Without a clean validation set the training set serves as its own (`y_val=None`): each training
point is a validation point for all the others, left out of its own ranking.

A *newcomer* is a point that joins the n training points alone; the walk gives its value too, for
every label that it might have, in the game of n + 1 players. Behind it all ranks move up by one:

    t_n = a_n / K * g_{n+1}
    t_j = t_{j+1} + (a_j - a_{j+1}) / K * g_{j+1}
    newcomer with p nearer points and match a:      t_{p+1} + (a - a_{p+1}) / K * g_{p+1}

A training point that is valued by the others, each left out of its own ranking, can have *near
copies* among them, such as the frames of a burst, which would vouch for each other's label. They
are left out of the ranking, too: for that validation point they change no coalition's utility, so
they have the value 0 there and the others have that of the game without them.

A training point that had another label would have, from a validation point for which it ranks j-th,
s_j + (a' - a_j) / K * g_j: the walk behind it does not change.

Sums are taken over `VAL_BLOCK` validation points at a time and merged in order, so a result is
bitwise the same however the blocks are spread over processes.

Source: Jia et al. 2019, PVLDB 12(11), Theorem 1 (Shapley, n >= K); the table, and n < K, by the
same argument.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice, pairwise

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.arrays import feature_matrix, whole_number
from dcai_ray.valuation.neighbours import (
    ClassWeights,
    Metric,
    aligned,
    distances,
    neighbour_order,
    newcomer_places,
    offsets,
    tiles,
)
from dcai_ray.valuation.utilities.inputs import check_sizes, labelled_points

VAL_BLOCK = 64
"""Validation points whose values are summed before they are merged with the rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Values for one block of validation points, summed; a row per table of gains."""

    total: NDArray[np.float64]  # (q, n)
    squares: NDArray[np.float64]  # (q, n) sums of the squared values
    match: NDArray[np.float64]  # (q, r) values of newcomers whose label matches
    mismatch: NDArray[np.float64]  # (q, r) and of those whose label does not
    gained: NDArray[np.float64]  # (q, s) g_j / K of the points that could have another label


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Values of the n training points and of r newcomers; a row per table of gains."""

    value: NDArray[np.float64]  # (q, n)
    stderr: NDArray[np.float64]
    """(q, n) standard errors over validation points: how much a value would move with another
    validation set of as many points from the same source. NaN if no class has two points."""
    newcomers: NDArray[np.float64]
    """(q, r, C) value that a newcomer would have with each of the C labels."""
    relabelled: NDArray[np.float64]
    """(q, s, C) value that some of the training points would have with each label, in the same
    game: the weights of the validation points stay."""

    def without_first(self) -> "Values":
        """All tables but the first."""
        return Values(self.value[1:], self.stderr[1:], self.newcomers[1:], self.relabelled[1:])


@dataclass(frozen=True, slots=True, eq=False)
class KnnGame:
    """The aligned points and gains with which validation points are valued."""

    train: NDArray[np.float64]  # (n, d), aligned
    val: NDArray[np.float64]  # (m, d), aligned; the same array as `train` for self-valuation
    order: NDArray[np.intp]  # (m,) the validation points, group by group, as all that follows
    offset: NDArray[np.float64]  # (n,): offset - val @ train.T ranks as the metric does
    y_train: NDArray[np.int64]  # (n,)
    y_val: NDArray[np.int64]  # (m,)
    gains: NDArray[np.float64]  # (q, n + 1) g_j / K by rank, one row per semivalue and K
    groups: tuple[slice, ...]  # validation points whose mean is taken; the groups weigh alike
    leave_one_out: bool  # whether a validation point is the training point of the same number
    newcomers: NDArray[np.float64]  # (r, d), aligned
    newcomer_offset: NDArray[np.float64]  # (r,), as `offset`
    unvalued: NDArray[np.intp]  # newcomers that a validation point does not value, point by point
    unvalued_starts: NDArray[np.intp]  # (m + 1,) where those of each point begin
    relabelled: NDArray[np.intp]  # (s,) training points that could have another label
    far: NDArray[np.intp]  # (f,) training points far from all others
    copies: NDArray[np.intp]  # near copies of each training point, point by point
    copy_starts: NDArray[np.intp]  # (n + 1,) where those of each point begin

    @property
    def val_blocks(self) -> list[slice]:
        """The validation points in blocks, in the order in which their sums are merged."""
        return [
            slice(i, min(i + VAL_BLOCK, group.stop))
            for group in self.groups
            for i in range(group.start, group.stop, VAL_BLOCK)
        ]


def knn_shapley(
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_val: ArrayLike | None = None,
    y_val: ArrayLike | None = None,
    *,
    k: int = 10,
    metric: Metric = "cosine",
    class_weights: ClassWeights = "none",
    tile_bytes: int = 256 * 2**20,
) -> NDArray[np.float64]:
    """Exact Shapley value of every training point for the K-nearest-neighbour utility.

    Args:
        x_train: (n, d) features; arrays, lists, data frames, tensors or sparse matrices, made dense
            and centred here by their mean.
        y_train: (n,) labels: whole numbers, booleans or text.
        x_val: (m, d) features of the validation points; None: the training points serve, each
            left out of its own ranking.
        y_val: (m,) their labels; None together with x_val.
        k: the number of neighbours K; may exceed n.
        metric: distance between centred features.
        class_weights: "none" for the published game, in which each validation point weighs alike;
            "balanced" for balanced accuracy, which is fair to rare classes.
        tile_bytes: working memory in bytes.
    Returns:
        (n,) values in units of accuracy; they sum to the utility of the whole training set.
    Raises:
        UserError: for a k that is no whole number above 0, sizes that do not fit, features that
            are not finite, or labels that are soft, missing, fractions or of several kinds.
    """
    game = game_of(x_train, y_train, x_val, y_val, k=k, metric=metric, class_weights=class_weights)
    return game_values(game, tile_bytes).value[0]


def game_of(
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_val: ArrayLike | None,
    y_val: ArrayLike | None,
    *,
    k: int,
    metric: Metric,
    class_weights: ClassWeights,
) -> KnnGame:
    """The game on what a user passes; arguments and errors as in `knn_shapley`."""
    k = whole_number("k", k)
    if class_weights not in ("balanced", "none"):
        raise UserError(f"class_weights must be balanced or none, got {class_weights!r}")
    if (x_val is None) != (y_val is None):
        raise UserError("x_val and y_val must be given together, or neither")
    x_train = feature_matrix("x_train", x_train)
    by_self = x_val is None or y_val is None
    pair = (x_train, y_train) if x_val is None or y_val is None else (x_val, y_val)
    points = labelled_points(x_train, y_train, *pair)
    others = (None, None) if by_self else (points.x_val, points.y_val)
    return knn_game(
        points.x_train, points.y_train, *others, k=k, metric=metric, class_weights=class_weights
    )


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
    class_weights: ClassWeights = "none",
    further_k: Sequence[int] = (),
    x_newcomers: NDArray[np.floating] | None = None,
    unvalued: NDArray[np.integer] | None = None,
    relabelled: NDArray[np.integer] | None = None,
    copies: NDArray[np.integer] | None = None,
) -> KnnGame:
    """Check and align the points; arguments as in `knn_shapley` and `vote_chances`.

    Args:
        further_k: numbers of neighbours whose Shapley values are computed beside.
        x_newcomers: (r, d) features of newcomers (class weights `balanced` only).
        unvalued: (p, 2) pairs of a validation point and a newcomer that it does not value, such as
            itself.
        relabelled: (s,) training points whose values with other labels are computed too (class
            weights `balanced` only).
        copies: (p, 2) pairs of training points that are near copies of each other, in either order;
            used where the training points serve as validation points.

    Raises:
        UserError: for k < 1, sizes that do not fit, or features that are not finite.
    """
    if (x_val is None) != (y_val is None):
        raise UserError("x_val and y_val must be given together, or neither")
    leave_one_out = x_val is None or y_val is None
    if x_val is None or y_val is None:
        x_val, y_val = x_train, y_train
    k = whole_number("k", k)
    for name, x in (("x_train", x_train), ("x_val", x_val)):
        feature_matrix(name, x)
    check_sizes(x_train, y_train, x_val, y_val)
    if leave_one_out and len(x_train) < 2:
        raise UserError(f"x_train must hold at least 2 points to value itself, got {len(x_train)}")
    assert (x_newcomers is None and relabelled is None) or class_weights == "balanced"
    order, groups = _grouped(np.asarray(y_val), class_weights)
    x_new = x_train[:0] if x_newcomers is None else x_newcomers
    x_others = x_new if leave_one_out else np.concatenate([x_val, x_new])
    train, others, offset, far = aligned(x_train, x_others, metric)
    val, newcomers = (train, others) if leave_one_out else np.split(others, [len(x_val)])
    chances = [vote_chances(len(x_train) + 1 - leave_one_out, k, semivalue, beta) / k]
    chances += [vote_chances(len(chances[0]), other) / other for other in further_k]
    pairs = np.empty((0, 2), np.intp) if copies is None or not leave_one_out else copies
    copy_starts, copies = _by_first(np.concatenate([pairs, pairs[:, ::-1]]), len(x_train))
    pairs = np.empty((0, 2), np.intp) if unvalued is None else unvalued
    unvalued_starts, unvalued = _by_first(pairs, len(x_val))
    return KnnGame(
        train=train,
        val=val,
        order=order,
        offset=offset,
        y_train=np.asarray(y_train, dtype=np.int64),
        y_val=np.asarray(y_val, dtype=np.int64)[order],
        gains=np.array(chances),
        groups=groups,
        leave_one_out=leave_one_out,
        newcomers=newcomers,
        newcomer_offset=offsets(newcomers, metric),
        unvalued=unvalued,
        unvalued_starts=unvalued_starts,
        relabelled=np.arange(0) if relabelled is None else np.asarray(relabelled, np.intp),
        far=far,
        copies=copies,
        copy_starts=copy_starts,
    )


def _by_first(pairs: NDArray[np.integer], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the partners of each of `count` points begin (count + 1,), and these, sorted."""
    pairs = np.unique(pairs, axis=0)
    starts = np.searchsorted(pairs[:, 0], np.arange(count + 1))
    return starts, np.ascontiguousarray(pairs[:, 1], np.intp)


def _grouped(
    y_val: NDArray[np.integer], class_weights: ClassWeights
) -> tuple[NDArray[np.intp], tuple[slice, ...]]:
    """The order of the validation points, and the groups whose means weigh alike."""
    if class_weights == "none":
        return np.arange(len(y_val)), (slice(0, len(y_val)),)
    ends = np.cumsum(np.unique(y_val, return_counts=True)[1]).tolist()
    groups = tuple(slice(start, stop) for start, stop in pairwise([0, *ends]))
    return np.argsort(y_val, kind="stable"), groups


def val_block_sums(game: KnnGame, block: slice, tile_bytes: int = 256 * 2**20) -> Sums:
    """Values summed over one block of validation points, in their order.

    Args:
        game: the points, aligned.
        block: validation points; one of `game.val_blocks`.
        tile_bytes: working memory in bytes; decides how many points are ranked at a time.
    """
    n, r, q = len(game.train), len(game.newcomers), len(game.gains)
    total, squares = np.zeros((n, q)), np.zeros((n, q))  # a point's values lie side by side
    match, mismatch = np.zeros((r, q)), np.zeros((r, q))
    gained = np.zeros((n if len(game.relabelled) else 0, q))
    gains = np.ascontiguousarray(game.gains.T)
    for tile in tiles(block, n + r, tile_bytes):
        own, y_val = game.order[tile], game.y_val[tile]
        val = game.val[own]
        distance = distances(game.train, val, game.offset)
        order = neighbour_order(distance, own if game.leave_one_out else None, game.far)
        further = distances(game.newcomers, val, game.newcomer_offset) if r else None
        for rows, ranked in without_copies(game, own, order):
            add_values(ranked, game.y_train, y_val[rows], gains, total, squares)
            if len(gained):
                add_gains(ranked, gains, gained)
            if further is not None:
                places = newcomer_places(distance[rows], ranked, further[rows], game.far)
                add_newcomers(
                    ranked, places, own[rows], game.unvalued, game.unvalued_starts, game.y_train,
                    y_val[rows], gains, match, mismatch,
                )  # fmt: skip
    chosen = gained[game.relabelled]
    return Sums(total.T, squares.T, match.T, mismatch.T, chosen.T)


def without_copies(
    game: KnnGame, own: NDArray[np.intp], order: NDArray[np.int32]
) -> Iterator[tuple[slice, NDArray[np.int32]]]:
    """The rows of a tile in their order: those without near copies together, others one by one.

    Args:
        game: the points.
        own: (m,) the training points that the rows belong to, in self-valuation.
        order: (m, n or n - 1) training indices nearest first.
    """
    start = 0
    ends = game.copy_starts
    has_copies = ends[own + 1] > ends[own] if game.leave_one_out else np.zeros(len(own), bool)
    for row in np.flatnonzero(has_copies).tolist():
        if start < row:
            yield slice(start, row), order[start:row]
        left_out = game.copies[ends[own[row]] : ends[own[row] + 1]]
        yield slice(row, row + 1), order[row : row + 1, ~np.isin(order[row], left_out)]
        start = row + 1
    if start < len(order):
        yield slice(start, len(order)), order[start:]


def game_values(game: KnnGame, tile_bytes: int = 256 * 2**20) -> Values:
    """The values of a game, in this process."""
    return merged(game, (val_block_sums(game, block, tile_bytes) for block in game.val_blocks))


def merged(game: KnnGame, blocks: Iterable[Sums]) -> Values:
    """The values from the sums of `game.val_blocks`, in their order, which decides the last bits.

    The variance of a class with a single point is taken to be the mean of the others'.
    """
    sums = iter(blocks)
    n, r, q = len(game.train), len(game.newcomers), len(game.gains)
    num_groups, known = len(game.groups), 0
    value, variance, spread = np.zeros((q, n)), np.zeros((q, n)), np.zeros((q, n))
    num_classes = int(max(game.y_train.max(), game.y_val.max())) + 1
    newcomers = np.zeros((q, r, num_classes))
    relabelled = np.zeros((q, len(game.relabelled), num_classes))
    base, seen_by = np.zeros((q, r)), np.zeros(r)  # classes that value a newcomer
    for group in game.groups:
        num_blocks = len(range(group.start, group.stop, VAL_BLOCK))
        found = _added(islice(sums, num_blocks))
        count = group.stop - group.start
        value += found.total / count / num_groups
        if count > 1:
            error = _standard_error(found, count)
            variance += (error / num_groups) ** 2
            spread += error**2 * count
            known += 1
        counts = count - _times_unvalued(game, game.order[group])
        seen_by += counts > 0
        counts = np.maximum(counts, 1)
        base += found.mismatch / counts
        newcomers[..., game.y_val[group.start]] += (found.match - found.mismatch) / counts
        relabelled[..., game.y_val[group.start]] += found.gained / count / num_groups
    left = next(sums, None)  # a generator of tasks reports its end only when it is asked for more
    assert left is None, "more sums than blocks"
    if known < num_groups:
        unknown = spread / known if known else np.full((q, n), np.nan)
        variance += (num_groups - known) * unknown / num_groups**2
    newcomers += base[..., np.newaxis]
    newcomers /= np.maximum(seen_by, 1)[:, np.newaxis]
    given = game.y_train[game.relabelled]
    relabelled -= np.take_along_axis(relabelled, given[np.newaxis, :, np.newaxis], axis=2)
    relabelled += value[:, game.relabelled, np.newaxis]
    return Values(value, np.sqrt(variance), newcomers, relabelled)


def _times_unvalued(game: KnnGame, points: NDArray[np.intp]) -> NDArray[np.intp]:
    """(r,) how many of some validation points do not value each newcomer."""
    starts = game.unvalued_starts
    pairs = [game.unvalued[starts[i] : starts[i + 1]] for i in points]
    return np.bincount(np.concatenate(pairs), minlength=len(game.newcomers))


def _added(blocks: Iterable[Sums]) -> Sums:
    """The sums of one group, block by block."""
    added: list[NDArray[np.float64]] = []
    for block in blocks:
        arrays = [getattr(block, entry.name) for entry in fields(Sums)]
        if added:
            for total, array in zip(added, arrays, strict=True):
                np.add(total, array, out=total)
        else:
            added = [array.copy() for array in arrays]
    return Sums(*added)


def _standard_error(sums: Sums, count: int) -> NDArray[np.float64]:
    """(q, n) standard error of the mean over `count` validation points; NaN for a single one."""
    if count < 2:
        return np.full(sums.total.shape, np.nan)
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
    nearer = np.arange(num_players)  # (n,) how many points are nearer than the j-th
    match semivalue:
        case "shapley":
            return np.minimum(k / (nearer + 1), 1.0)
        case "banzhaf":
            from scipy.stats import binom  # here: .5 s that most workers never need

            return binom.cdf(k - 1, nearer, 0.5)
        case "beta":
            from scipy.stats import betabinom

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
        gains: (n, q) g_j / K, a column per table.
        total: (n, q) float64, the values are added to it in place.
        squares: (n, q) float64, their squares are added to it in place.
    """
    num_tables = gains.shape[1]
    values = np.empty(num_tables)  # s_{j+1}
    for row in range(order.shape[0]):
        values[:] = 0.0  # beyond the farthest point s and a are 0
        farther = 0.0
        for j in range(order.shape[1] - 1, -1, -1):
            player = order[row, j]
            match = 1.0 if y_train[player] == y_val[row] else 0.0
            for table in range(num_tables):
                value = values[table] + (match - farther) * gains[j, table]
                values[table] = value
                total[player, table] += value
                squares[player, table] += value * value
            farther = match


@numba.njit(cache=True, nogil=True)
def add_gains(order, gains, gained):  # type: ignore[no-untyped-def]
    """Add the gain of each point's rank to `gained` (n, q); the rest as in `add_values`."""
    for row in range(order.shape[0]):
        for j in range(order.shape[1]):
            for table in range(gains.shape[1]):
                gained[order[row, j], table] += gains[j, table]


@numba.njit(cache=True, nogil=True)
def add_newcomers(  # type: ignore[no-untyped-def]
    order, places, points, unvalued, starts, y_train, y_val, gains, match, mismatch
):
    """Add the values of newcomers with the label of each validation point, and with another.

    Args:
        order: as in `add_values`, as are y_train, y_val and gains.
        places: (m, r) int32, how many ranked points are nearer than each newcomer.
        points: (m,) the validation points of the rows, as `starts` counts them.
        unvalued: the newcomers that each validation point does not value, sorted.
        starts: where those of each validation point begin.
        match: (r, q) float64, added to in place.
        mismatch: (r, q) float64, added to in place.
    """
    num_ranked, num_tables = order.shape[1], gains.shape[1]
    values = np.zeros((num_ranked + 1, num_tables))  # t by rank, counted from 0
    matches = np.zeros(num_ranked + 1)
    for row in range(order.shape[0]):
        for j in range(num_ranked - 1, -1, -1):
            matches[j] = 1.0 if y_train[order[row, j]] == y_val[row] else 0.0
            for table in range(num_tables):
                gain = (matches[j] - matches[j + 1]) * gains[j + 1, table]
                values[j, table] = values[j + 1, table] + gain
        skipped, end = starts[points[row]], starts[points[row] + 1]
        for newcomer in range(places.shape[1]):
            if skipped < end and unvalued[skipped] == newcomer:
                skipped += 1
                continue
            place = places[row, newcomer]
            for table in range(num_tables):
                behind = values[place, table] - matches[place] * gains[place, table]
                match[newcomer, table] += behind + gains[place, table]
                mismatch[newcomer, table] += behind
