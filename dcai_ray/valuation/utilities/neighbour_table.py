"""Ranks of the training points for every validation point: what all KNN utilities walk orders with.

Ranks are computed once; no coalition needs a distance again. For each validation point an order is
walked in one of two ways, with bitwise equal results, and the K nearest so far are kept sorted:

    insertion   each player's rank is looked up: O(length)
    skyband     for long orders: once the K-th nearest has a rank of at most twice the arrivals,
                only players nearer than it can still get a vote. They are walked by rank, nearest
                first, keeping the K earliest arrivals among them: a player that comes later than
                all of these never gets a vote. The few that do are inserted. O(sqrt(K n))

Both count whole numbers and divide once, so marginals carry no sum of rounding errors. Validation
point j counts w_j / D:

    none        1 / m
    balanced    1 / (C m_c), where m_c of the points are of its class, one of the C that occur

with w_j and D whole numbers. The balanced w_j are rounded, which changes a utility by at most
m / 2D: 5e-10 with a thousand points.

Source: Papadias et al. 2005, ACM TODS 30(1) (skybands).
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.arrays import whole_number
from dcai_ray.valuation.knn_shapley import knn_game
from dcai_ray.valuation.neighbours import ClassWeights, Metric, ranked, tiles
from dcai_ray.valuation.utilities import Orders
from dcai_ray.valuation.utilities.inputs import labelled_points
from dcai_ray.valuation.utilities.neighbour_kernels import insertion, skyband

SKYBAND_FROM = 200
"""Shortest orders, in units of K, for which the skyband is faster, as measured. They must also hold
half of the players, as the walk by rank passes all those that never arrive."""

# Microseconds of a marginal for one validation point, as measured: to look up a rank, and to admit
# the player, which in a random order has probability K / t. Constants, as they decide plans.
_VISIT_US, _ADMISSION_US = 1.2e-3, 20e-3
_WALKED = 0.1  # of a visit, where the skyband passes most players by
_TILE_BYTES = 256 * 2**20  # working memory of construction and scores; does not affect results

# D of balanced weights is the largest multiple of num_components up to this. They sum to less than
# 2^41, so int64 holds K < 2^22 votes of every point, however many points and components there are.
_MAX_DENOMINATOR = 2**40


@dataclass(frozen=True, slots=True)
class NeighbourTable:
    """The ranks of the training points for each validation point; all arrays are read-only."""

    ranks: NDArray[np.unsignedinteger]  # (m, n)
    by_rank: NDArray[np.unsignedinteger] | None  # (m, n) its inverse; None where never walked
    y_train: NDArray[np.int64]  # (n,) in 0..C-1
    y_val: NDArray[np.int64]  # (m,) in the order of the rows of ranks: component by component
    k: int
    val_weights: NDArray[np.int64]  # (m,) w_j
    denominator: int  # D, a multiple of num_components
    num_components: int

    def describe(self) -> str:
        """Its sizes."""
        return f"n={self.num_players}, m={len(self.y_val)}, k={self.k}"

    @property
    def num_players(self) -> int:
        """n, the training points."""
        return self.ranks.shape[1]

    @property
    def components(self) -> list["NeighbourTable"]:
        """Views of neighbouring rows; the mean over all rows is the components' mean."""
        return [
            replace(
                self,
                ranks=self.ranks[start:stop],
                by_rank=None if self.by_rank is None else self.by_rank[start:stop],
                y_val=self.y_val[start:stop],
                val_weights=self.val_weights[start:stop],
                # Not their sum: it may differ by component, and the plain mean is the whole.
                denominator=self.denominator // self.num_components,
                num_components=1,
            )
            for start, stop in pairwise(_cuts(len(self.y_val), self.num_components))
        ]

    @property
    def position_costs(self) -> NDArray[np.float64]:
        """(n,) microseconds in a random order."""
        admitted = np.minimum(1.0, self.k / np.arange(1, self.num_players + 1))
        visits = np.full(self.num_players, _VISIT_US)
        if self.by_rank is not None:  # only orders that are walked by rank are so long
            visits[self.num_players // 4 :] *= _WALKED
        return len(self.y_val) * (visits + _ADMISSION_US * admitted)

    def mean(self, sums: ArrayLike, unit: int = 1) -> NDArray[np.float64]:
        """Weighted sums over validation points as means: whole numbers until one last division."""
        return np.asarray(sums) / (self.denominator * unit)

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
        """(t,) change of the weighted sum over validation points with each arrival, from 0.

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
        table = (self.ranks, self.y_train, self.y_val, self.val_weights)
        rules = (held, majority, many, quorum)
        if not long.all():
            chosen = np.flatnonzero(~long)
            insertion(*table, *rules, orders.players, orders.offsets, chosen, changes)
        if long.any():
            chosen = np.flatnonzero(long)
            skyband(*table, *rules, self.by_rank, orders.players, orders.offsets, chosen, changes)
        return changes


def neighbour_table(
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_val: ArrayLike,
    y_val: ArrayLike,
    k: int,
    metric: Metric,
    class_weights: ClassWeights,
    num_components: int,
    max_component_bytes: int,
) -> NeighbourTable:
    """Rank all points; arguments and what is raised as in `Knn`."""
    num_components = whole_number("num_components", num_components)
    k = whole_number("k", k)
    if class_weights not in ("balanced", "none"):
        raise UserError(f"class_weights must be balanced or none, got {class_weights!r}")
    points = labelled_points(x_train, y_train, x_val, y_val)
    num_val, num_players = len(points.y_val), len(points.y_train)
    kind = np.min_scalar_type(num_players)
    walked = num_players >= SKYBAND_FROM * k
    max_rows = max(1, max_component_bytes // (num_players * kind.itemsize * (2 if walked else 1)))
    num_components = max(min(num_components, num_val), -(-num_val // max_rows))
    dealt = _dealt(points.y_val, class_weights, num_components)
    own = points.y_val[dealt]
    val_weights, denominator = _weights(own, class_weights, num_components)
    game = knn_game(points.x_train, points.y_train, points.x_val[dealt], own, k=k, metric=metric)
    places = np.arange(num_players, dtype=kind)[np.newaxis]
    ranks = np.empty((num_val, num_players), dtype=kind)
    by_rank = np.empty_like(ranks) if walked else None
    for tile in tiles(slice(0, num_val), num_players, _TILE_BYTES):
        nearest_first = ranked(game.train, game.val[tile], game.offset, far=game.far)
        np.put_along_axis(ranks[tile], nearest_first, places, axis=1)
        if by_rank is not None:
            by_rank[tile] = nearest_first
    for array in (ranks, by_rank, points.y_train, own, val_weights):
        if array is not None:
            # As it comes back from Ray's object store: one compiled kernel serves both.
            array.flags.writeable = False
    return NeighbourTable(
        ranks, by_rank, points.y_train, own, k, val_weights, denominator, num_components
    )


def _cuts(num_val: int, num_components: int) -> list[int]:
    """Where the rows of each component begin, and the last ones end."""
    return [num_val * component // num_components for component in range(num_components + 1)]


def _dealt(
    y_val: NDArray[np.int64], class_weights: ClassWeights, num_components: int
) -> NDArray[np.intp]:
    """(m,) validation points, component by component, dealt out in turn.

    A training point helps some classes and harms others, so a component that holds all classes has
    smaller marginals. Files come class by class; with balanced weights the points are sorted so.
    """
    points, turns = np.arange(len(y_val)), np.arange(num_components)
    if class_weights == "balanced":
        points = np.argsort(y_val, kind="stable")
        # The components that hold one point more come first: the last turn is theirs alone.
        turns = np.argsort(-np.diff(_cuts(len(y_val), num_components)), kind="stable")
    return points[np.argsort(np.resize(turns, len(y_val)), kind="stable")]


def _weights(
    y_val: NDArray[np.int64], class_weights: ClassWeights, num_components: int
) -> tuple[NDArray[np.int64], int]:
    """(m,) weights w_j and the denominator D, a multiple of `num_components`."""
    num_val = len(y_val)
    if class_weights == "none":
        return np.full(num_val, num_components, dtype=np.int64), num_val * num_components
    denominator = _MAX_DENOMINATOR // num_components * num_components
    class_sizes = np.bincount(y_val)
    num_classes = np.count_nonzero(class_sizes)
    weights = np.rint(denominator / (num_classes * class_sizes[y_val]))
    return weights.astype(np.int64), denominator
