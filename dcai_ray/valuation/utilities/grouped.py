"""Groups of points as players: sources, annotators, upload batches, classes, near copies.

    v'(groups) = v(all their points)

What a group is worth is not the sum of what its points are worth: points of one source often say
the same, and a group of them is hard or easy to do without as a whole.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.arrays import class_labels
from dcai_ray.valuation.utilities import Orders, Utility
from dcai_ray.valuation.utilities.knn import Knn
from dcai_ray.valuation.utilities.knn_accuracy import KnnAccuracy
from dcai_ray.valuation.utilities.least_squares import LeastSquares


class Grouped:
    """A utility whose players are groups of another's.

    Args:
        utility: of n points.
        groups: (n,) the group of each point: whole numbers or text. The players are the groups,
            sorted.
    Raises:
        UserError: not one group per point, or a point without a group.
    """

    def __init__(self, utility: Utility, groups: ArrayLike) -> None:
        named = class_labels("groups", groups)
        if len(named) != utility.num_players:
            raise UserError(
                f"groups must name one group per point, got {len(named)} for {utility.num_players}"
            )
        self.groups, number = np.unique(named, return_inverse=True)
        """(G,) the group of each player."""
        self._utility = utility
        starts = np.searchsorted(np.sort(number), np.arange(len(self.groups) + 1))
        members = np.argsort(number, kind="stable")
        self._members = [members[a:b] for a, b in pairwise(starts)]

    def __repr__(self) -> str:
        return f"Grouped({self._utility!r}, {self.num_players} groups)"

    @property
    def num_players(self) -> int:
        """G, the groups."""
        return len(self._members)

    @property
    def components(self) -> Sequence["Grouped"]:
        """Those of the points' utility, with the same groups."""
        parts = self._utility.components
        if len(parts) == 1:
            return (self,)
        return [self._with(part) for part in parts]

    @property
    def walks(self) -> bool:
        """Whether a group's marginal is the sum over its points, which join one after the other.

        So it is where a point costs next to nothing. Where it costs a refit, a group costs one.
        """
        return isinstance(self._utility, Knn | KnnAccuracy | LeastSquares)

    @property
    def marginal_range(self) -> float:
        """That of the points' utility for a whole group; infinite where it is not known."""
        largest = max(map(len, self._members))
        return largest * float(getattr(self._utility, "marginal_range", np.inf))

    def score(self, coalition: NDArray[np.integer]) -> float:
        """v(S) of all points of the groups."""
        return self._utility.score(self._points(coalition))

    def marginals(self, orders: Orders) -> NDArray[np.float64]:
        """(t,) marginals, in the order of `orders.players`."""
        if not self.walks:
            return self._marginals_by_score(orders)
        points = self._points(orders.players)
        sizes = np.array([len(self._members[player]) for player in orders.players])
        ends = np.concatenate([[0], np.cumsum(sizes)])
        of_points = Orders(
            players=points.astype(np.int32),
            offsets=ends[orders.offsets],
            weights=np.repeat(orders.weights, sizes),
        )
        return np.add.reduceat(self._utility.marginals(of_points), ends[:-1])

    def _marginals_by_score(self, orders: Orders) -> NDArray[np.float64]:
        marginals = np.empty(len(orders.players))
        for start, end in pairwise(orders.offsets.tolist()):
            before = self.score(orders.players[start:start])
            for t in range(start, end):
                after = self.score(orders.players[start : t + 1])
                marginals[t], before = after - before, after
        return marginals

    def _points(self, players: NDArray[np.integer]) -> NDArray[np.intp]:
        if not len(players):
            return np.empty(0, np.intp)
        return np.concatenate([self._members[player] for player in players])

    def _with(self, utility: Utility) -> "Grouped":
        made = object.__new__(Grouped)
        made.__dict__.update(self.__dict__, _utility=utility)
        return made
