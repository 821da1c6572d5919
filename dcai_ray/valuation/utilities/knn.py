"""The K-nearest-neighbour utility with soft labels, and the sweeps of all that rank neighbours.

Take one validation point with label y, and let N(S) be the min(K, |S|) points of the coalition S
nearest to it; equally near ones rank by training index. Then

    v(S) = (1/K) * (points of N(S) with label y),        v(empty) = 0

and the utility of a validation set is the mean over its points.

Ranks are computed once; no coalition needs a distance again. A sweep walks an order for each
validation point and keeps its K nearest so far, sorted. It does so in one of two ways, which give
the same bits:

    insertion   each player's rank is looked up: O(length)
    skyband     for long orders: once the K-th nearest has a rank of at most twice the arrivals,
                only players nearer than it can still get a vote. They are walked by rank, nearest
                first, with the K earliest arrivals among them kept: who comes later than all of
                these never gets a vote. The few that do are inserted. O(sqrt(K n))

Both count whole numbers and divide once, so that marginals carry no sum of rounding errors.

Source: Jia et al. 2019, PVLDB 12(11) (the game); Papadias et al. 2005, ACM TODS 30(1) (skybands).
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.knn_shapley import knn_game
from dcai_ray.valuation.neighbours import Metric, neighbour_order, tiles
from dcai_ray.valuation.utilities import Orders
from dcai_ray.valuation.utilities.inputs import labelled_points

SKYBAND_FROM = 200
"""Shortest orders, in units of K, for which the skyband is the quicker way, as measured. They must
also hold half of the players: the walk by rank passes all those that never arrive."""

# Microseconds of a marginal for one validation point, as measured: to look up a rank, and to admit
# the player, which in a random order happens with chance K / t. Fixed, for they decide plans.
_VISIT_US, _ADMISSION_US = 1.2e-3, 20e-3
_WALKED = 0.1  # of a visit, where the skyband passes most players by
_TILE_BYTES = 256 * 2**20  # working memory of construction and scores; does not affect results


class Knn:
    """The share of the K votes that go to the right label; `knn_shapley` has its exact values.

    Args:
        x_train: (n, d) features; centred here by their mean.
        y_train: (n,) integer labels, any numbers.
        x_val: (m, d) features of the validation points.
        y_val: (m,) their labels; one that no training point has never matches.
        k: the number of neighbours K; may exceed n.
        metric: distance between centred features.
        num_components: components the validation points are split into, at least; at most m.
        max_component_bytes: bound on the tables of one component, which makes for more of them; a
            component has at least one validation point.
    Raises:
        UserError: for k < 1, num_components < 1, sizes that do not fit, features that are not
            finite or labels that are not integers.
    """

    def __init__(
        self,
        x_train: NDArray[np.floating],
        y_train: NDArray[np.integer],
        x_val: NDArray[np.floating],
        y_val: NDArray[np.integer],
        *,
        k: int = 10,
        metric: Metric = "cosine",
        num_components: int = 4,
        max_component_bytes: int = 256 * 2**20,
    ) -> None:
        self._table = neighbour_table(
            x_train, y_train, x_val, y_val, k, metric, num_components, max_component_bytes
        )

    @property
    def num_players(self) -> int:
        """n, the training points."""
        return self._table.num_players

    @property
    def components(self) -> Sequence["Knn"]:
        """Groups of validation points, dealt out in turn; their tables are views of this one's."""
        components = [copy(self) for _ in range(self._table.num_components)]
        for component, table in zip(components, self._table.components, strict=True):
            component._table = table
        return components

    @property
    def marginal_range(self) -> float:
        """Bound on |v(S + i) - v(S)|: one vote of K changes for each validation point."""
        return float(self._table.mean(len(self._table.y_val), self._table.k))

    @property
    def position_costs(self) -> NDArray[np.float64]:
        """(n,) cost of a marginal by the size of the coalition, in about microseconds."""
        return self._table.position_costs

    def score(self, coalition: NDArray[np.intp]) -> float:
        """v(S) by its definition, from the ranks of the coalition."""
        votes = self._table.votes(coalition)  # (m, min(K, |S|))
        right = np.count_nonzero(votes == self._table.y_val[:, np.newaxis])
        return float(self._table.mean(right, self._table.k))

    def marginals(self, orders: Orders) -> NDArray[np.float64]:
        """(t,) marginals, in the order of `orders.players`."""
        changes = self._table.changes(orders, majority=False, quorum=1)
        return self._table.mean(changes, self._table.k)


@dataclass(frozen=True, slots=True)
class NeighbourTable:
    """The ranks of the training points for each validation point; all arrays are read-only."""

    ranks: NDArray[np.unsignedinteger]  # (m, n)
    by_rank: NDArray[np.unsignedinteger] | None  # (m, n) its inverse; None where never walked
    y_train: NDArray[np.int64]  # (n,) in 0..C-1
    y_val: NDArray[
        np.int64
    ]  # (m,) as the rows of ranks: component by component, not as they were given
    k: int
    num_components: int
    val_share: tuple[int, int]  # numerator and denominator of what one validation point counts

    @property
    def num_players(self) -> int:
        """n, the training points."""
        return self.ranks.shape[1]

    @property
    def components(self) -> list["NeighbourTable"]:
        """Views of neighbouring rows; the mean over all rows is the components' mean."""
        count, num_val = self.num_components, len(self.y_val)
        cuts = [num_val * component // count for component in range(count + 1)]
        return [
            replace(
                self,
                ranks=self.ranks[start:stop],
                by_rank=None if self.by_rank is None else self.by_rank[start:stop],
                y_val=self.y_val[start:stop],
                num_components=1,
                # Not 1 / rows: components may differ by a row, and their plain mean is the whole.
                val_share=(self.val_share[0] * count, self.val_share[1]),
            )
            for start, stop in pairwise(cuts)
        ]

    @property
    def position_costs(self) -> NDArray[np.float64]:
        """(n,) microseconds in a random order."""
        admitted = np.minimum(1.0, self.k / np.arange(1, self.num_players + 1))
        visits = np.full(self.num_players, _VISIT_US)
        if self.by_rank is not None:  # only orders that are walked by rank are so long
            visits[self.num_players // 4 :] *= _WALKED
        return len(self.y_val) * (visits + _ADMISSION_US * admitted)

    def mean(self, counts: ArrayLike, unit: int = 1) -> NDArray[np.float64]:
        """Sums over validation points as their mean: whole numbers until one last division."""
        numerator, denominator = self.val_share
        return np.asarray(counts) * numerator / (denominator * unit)

    def votes(self, coalition: NDArray[np.intp]) -> NDArray[np.int64]:
        """(m, min(K, |S|)) labels of the nearest of a coalition, in any order."""
        nearest = np.empty((len(self.y_val), min(self.k, len(coalition))), dtype=np.int64)
        if nearest.shape[1] > 0:
            for rows in tiles(slice(0, len(nearest)), len(coalition), _TILE_BYTES):
                ranks = self.ranks[rows, coalition]  # (rows, |S|)
                nearest_first = ranks.argpartition(nearest.shape[1] - 1, axis=1)
                nearest[rows] = nearest_first[:, : nearest.shape[1]]
        return self.y_train[np.asarray(coalition, dtype=np.intp)[nearest]]

    def changes(self, orders: Orders, *, majority: bool, quorum: int) -> NDArray[np.int64]:
        """(t,) change of the sum over validation points with each arrival, from 0 for no player.

        Args:
            orders: of distinct players.
            majority: count the points whose most-voted label is right, not the right votes.
            quorum: arrivals before which nothing counts.
        """
        changes = np.zeros(len(orders.players), dtype=np.int64)
        lengths = np.diff(orders.offsets)
        long = np.zeros(len(lengths), dtype=bool)
        if self.by_rank is not None:
            long = (lengths >= SKYBAND_FROM * self.k) & (2 * lengths >= self.num_players)
        held = min(self.k, self.num_players)
        many = max(self.y_train.max(), self.y_val.max()) >= held or None
        points = (self.ranks, self.y_train, self.y_val, held, majority, many, quorum)
        if not long.all():
            chosen = np.flatnonzero(~long)
            _insertion(*points, orders.players, orders.offsets, chosen, changes)
        if long.any():
            chosen = np.flatnonzero(long)
            _skyband(*points, self.by_rank, orders.players, orders.offsets, chosen, changes)
        return changes


def neighbour_table(
    x_train: NDArray[np.floating],
    y_train: NDArray[np.integer],
    x_val: NDArray[np.floating],
    y_val: NDArray[np.integer],
    k: int,
    metric: Metric,
    num_components: int,
    max_component_bytes: int,
) -> NeighbourTable:
    """Rank all points; arguments and what is raised as in `Knn`."""
    if num_components < 1:
        raise UserError(f"num_components must be at least 1, got {num_components}")
    points = labelled_points(x_train, y_train, x_val, y_val)
    num_val, num_players = len(points.y_val), len(points.y_train)
    kind = np.min_scalar_type(num_players)
    walked = num_players >= SKYBAND_FROM * k
    max_rows = max(1, max_component_bytes // (num_players * kind.itemsize * (2 if walked else 1)))
    num_components = max(min(num_components, num_val), -(-num_val // max_rows))
    # Dealt out in turn: a training point helps some classes and harms others, and the marginals of
    # a component that holds them all are the smaller for it. Files come class by class.
    dealt = np.concatenate(
        [np.arange(component, num_val, num_components) for component in range(num_components)]
    )
    own = points.y_val[dealt]
    game = knn_game(x_train, points.y_train, x_val[dealt], own, k=k, metric=metric)
    places = np.arange(num_players, dtype=kind)[np.newaxis]
    ranks = np.empty((num_val, num_players), dtype=kind)
    by_rank = np.empty_like(ranks) if walked else None
    for tile in tiles(slice(0, num_val), num_players, _TILE_BYTES):
        distance = game.val[tile] @ game.train.T
        np.subtract(game.offset, distance, out=distance)
        nearest_first = neighbour_order(distance)
        np.put_along_axis(ranks[tile], nearest_first, places, axis=1)
        if by_rank is not None:
            by_rank[tile] = nearest_first
    for array in (ranks, by_rank, points.y_train, own):
        if array is not None:
            # As it comes back from Ray's object store: one compiled kernel serves both.
            array.flags.writeable = False
    return NeighbourTable(ranks, by_rank, points.y_train, own, k, num_components, (1, num_val))


# A player within reach is a key: its rank above 32 bits of its label. Keys sort as ranks do.
_LABEL = 0xFFFFFFFF


@numba.njit(cache=True, nogil=True)
def _insertion(  # type: ignore[no-untyped-def]
    ranks, y_train, y_val, k, majority, many, quorum, players, offsets, chosen, changes
):
    """Add the changes of the chosen orders: each rank against that of the K-th nearest."""
    nearest, votes = _places(k, y_train, y_val, ranks.shape[1])
    nobody = nearest[0]
    for row in range(len(ranks)):
        own = ranks[row]
        for order in chosen:
            _clear(nearest, votes, nobody)
            standing, begin, farthest = 0, offsets[order], nobody
            for t in range(begin, offsets[order + 1]):
                player = np.uint32(players[t])  # unsigned: no look whether it counts from the end
                key = np.int64(own[player]) << 32
                if key < farthest:
                    _admit(nearest, votes, key | y_train[player])
                    farthest = nearest[k - 1]
                    if t - begin + 1 >= quorum:
                        before = standing
                        standing = _standing(nearest, votes, y_val[row], majority, many)
                        changes[t] += standing - before


@numba.njit(cache=True, nogil=True)
def _skyband(  # type: ignore[no-untyped-def]
    ranks, y_train, y_val, k, majority, many, quorum, by_rank, players, offsets, chosen, changes
):
    """The same by the K-skyband: after the first players only those with a vote are seen."""
    num_players = ranks.shape[1]
    nearest, votes = _places(k, y_train, y_val, num_players)
    nobody = nearest[0]
    arrivals, survivors = np.empty(num_players, np.int64), np.empty(num_players, np.int64)
    for order in chosen:
        begin, length = offsets[order], offsets[order + 1] - offsets[order]
        arrivals[:] = length  # never
        for t in range(length):
            arrivals[players[begin + t]] = t
        for row in range(len(ranks)):
            _clear(nearest, votes, nobody)
            standing, t = 0, 0
            while t < length and (t < k or nearest[k - 1] >> 32 > 2 * t):
                player = players[begin + t]
                key = np.int64(ranks[row, player]) << 32
                if key < nearest[k - 1]:
                    _admit(nearest, votes, key | y_train[player])
                    if t + 1 >= quorum:
                        before = standing
                        standing = _standing(nearest, votes, y_val[row], majority, many)
                        changes[begin + t] += standing - before
                t += 1
            # From here on K players are held and every vote counts, whatever the quorum.
            nearer = by_rank[row, : nearest[k - 1] >> 32]
            count = _survivors(nearer, arrivals, t, length, k, survivors)
            for i in range(count):
                t, rank = survivors[i] >> 32, survivors[i] & 0xFFFFFFFF
                _admit(nearest, votes, rank << 32 | y_train[players[begin + t]])
                before = standing
                standing = _standing(nearest, votes, y_val[row], majority, many)
                changes[begin + t] += standing - before


@numba.njit(cache=True, nogil=True)
def _survivors(by_rank, arrivals, arrived, length, k, survivors):  # type: ignore[no-untyped-def]
    """Fill `survivors` with (place << 32 | rank) of those that get a vote after the first `arrived`
    players, in order of arrival; how many there are.

    `by_rank` has the players nearer than the K-th nearest of those that have arrived.
    """
    earliest = np.full(k, length)  # arrivals among the nearer ones, sorted
    count = 0
    for rank in range(len(by_rank)):
        place = arrivals[by_rank[rank]]
        if place >= earliest[k - 1]:
            continue  # it never arrives, or K nearer ones are there before it
        if place >= arrived:
            survivors[count] = place << 32 | rank
            count += 1
        j = k - 1
        while j > 0 and earliest[j - 1] > place:
            earliest[j] = earliest[j - 1]
            j -= 1
        earliest[j] = place
    survivors[:count].sort()
    return count


@numba.njit(cache=True, nogil=True)
def _places(k, y_train, y_val, num_players):  # type: ignore[no-untyped-def]
    """Room for the keys of the K nearest, nearest first, and for the votes of the classes and of
    nobody: a key farther than any, with a label of its own."""
    nobody = max(y_train.max(), y_val.max()) + 1
    nearest = np.full(k, np.int64(num_players) << 32 | nobody)
    return nearest, np.zeros(nobody + 1, np.int64)


@numba.njit(cache=True, nogil=True)
def _clear(nearest, votes, nobody):  # type: ignore[no-untyped-def]
    """Let all players leave."""
    for j in range(len(nearest)):  # only theirs: there may be many more classes than neighbours
        votes[nearest[j] & _LABEL] = 0
        nearest[j] = nobody


@numba.njit(cache=True, nogil=True)
def _admit(nearest, votes, key):  # type: ignore[no-untyped-def]
    """Let in a player nearer than the K-th, who leaves.

    Each place takes the middle one of its own key, its neighbour's and the newcomer's. That does
    more than a search for the place, but without branches, which no processor foresees: it takes
    two thirds of the time, and half where orders are short.
    """
    last = len(nearest) - 1
    votes[nearest[last] & _LABEL] -= 1
    votes[key & _LABEL] += 1
    for j in range(last, 0, -1):
        nearest[j] = max(nearest[j - 1], min(key, nearest[j]))
    nearest[0] = min(key, nearest[0])


@numba.njit(cache=True, nogil=True)
def _standing(nearest, votes, own, majority, many):  # type: ignore[no-untyped-def]
    """The votes of the validation point's own label; with `majority`, whether they win.

    With more classes than neighbours, `many`, only those that have a vote are looked at. It is
    None or not: numba compiles one of the two, as a kernel with both takes half as long again.
    """
    most, nobody, beaten = votes[own], len(votes) - 1, 0
    if not majority:
        return most
    if many is None:
        for other in range(nobody):
            beaten |= (votes[other] > most) | ((votes[other] == most) & (other < own))
    else:
        for j in range(len(nearest)):
            other = nearest[j] & _LABEL
            more = (votes[other] > most) | ((votes[other] == most) & (other < own))
            beaten |= (other < nobody) & more
    return 1 if (most > 0) & (beaten == 0) else 0
