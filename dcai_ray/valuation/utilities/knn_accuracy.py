"""The accuracy of K nearest neighbours: the utility of a majority vote.

Take one validation point with label y, and let N(S) be the min(K, |S|) points of the coalition S
nearest to it; equally near ones rank by training index. Then

    v(S) = 1 if y has the most votes in N(S), else 0

where of classes with equally many votes the smallest counts as having the most; v(empty) is a
constant. The utility of a validation set is the mean over its points: the accuracy of
scikit-learn's KNeighborsClassifier, bit for bit where no distances tie. With balanced class weights
it is the balanced accuracy:

    (1/C) * (sum over the C classes of the set of the mean over the points of the class)
"""

from collections.abc import Sequence
from copy import copy
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.neighbours import ClassWeights, Metric
from dcai_ray.valuation.utilities import Orders
from dcai_ray.valuation.utilities.neighbour_table import neighbour_table


class KnnAccuracy:
    """The accuracy of the majority vote of the K nearest.

    Args:
        few: what counts while |S| < K: the vote of those present, or v(empty) until there are K
            ("default", pyDVL's: scikit-learn raises, the scorer's default value is taken).
        empty: v(empty), an accuracy; None: of the class most common among the validation points,
            whose balanced accuracy is 1 / C.
    The other arguments and what is raised: as in `Knn`.
    """

    def __init__(
        self,
        x_train: ArrayLike,
        y_train: ArrayLike,
        x_val: ArrayLike,
        y_val: ArrayLike,
        *,
        k: int = 10,
        metric: Metric = "cosine",
        class_weights: ClassWeights = "none",
        few: Literal["vote", "default"] = "vote",
        empty: float | None = None,
        num_components: int = 4,
        max_component_bytes: int = 256 * 2**20,
    ) -> None:
        if few not in ("vote", "default"):
            raise UserError(f"few must be vote or default, got {few!r}")
        if empty is not None and not 0 <= empty <= 1:
            raise UserError(f"empty must be an accuracy between 0 and 1, got {empty}")
        points = (x_train, y_train, x_val, y_val)
        self._table = neighbour_table(
            *points, k, metric, class_weights, num_components, max_component_bytes
        )
        if empty is None:
            by_class = np.bincount(self._table.y_val, self._table.val_weights)
            empty = float(self._table.mean(by_class.max()))
        self._empty = float(empty)
        self._quorum = 1 if few == "vote" else k

    def __repr__(self) -> str:
        return f"KnnAccuracy({self._table.describe()})"

    @property
    def num_players(self) -> int:
        """n, the training points."""
        return self._table.num_players

    @property
    def components(self) -> Sequence["KnnAccuracy"]:
        """Groups of validation points, dealt out in turn; their tables are views of this one's."""
        components = [copy(self) for _ in range(self._table.num_components)]
        for component, table in zip(components, self._table.components, strict=True):
            component._table = table
        return components

    @property
    def marginal_range(self) -> float:
        """Bound on |v(S + i) - v(S)|: every validation point may change sides."""
        return float(self._table.mean(self._table.val_weights.sum()))

    @property
    def position_costs(self) -> NDArray[np.float64]:
        """(n,) cost of a marginal by coalition size, in nominal microseconds."""
        return self._table.position_costs

    def score(self, coalition: NDArray[np.intp]) -> float:
        """v(S) by its definition, from the ranks of the coalition."""
        if len(coalition) < self._quorum:
            return self._score_of_none
        votes = self._table.votes(coalition)  # (m, min(K, |S|))
        most_voted = np.zeros(len(votes), dtype=np.int64)  # of equally many votes, the smallest
        most = np.zeros(len(votes), dtype=np.int64)
        for label in np.unique(votes):
            count = np.count_nonzero(votes == label, axis=1)
            most_voted[count > most] = label
            np.maximum(most, count, out=most)
        right = most_voted == self._table.y_val
        return float(self._table.mean(self._table.val_weights @ right))

    def marginals(self, orders: Orders) -> NDArray[np.float64]:
        """(t,) marginals, in the order of `orders.players`."""
        changes = self._table.changes(orders, majority=True, quorum=self._quorum)
        marginals = self._table.mean(changes)
        # The walk starts from no point being right, the order from v(empty): it ends at the quorum.
        voted = np.diff(orders.offsets) >= self._quorum
        marginals[orders.offsets[:-1][voted] + self._quorum - 1] -= self._score_of_none
        return marginals

    @property
    def _score_of_none(self) -> float:
        """v(empty); the same for each validation point, so components have it as their mean."""
        return float(self._table.mean(self._table.val_weights.sum())) * self._empty
