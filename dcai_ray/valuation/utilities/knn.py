"""The K-nearest-neighbour utility with soft labels.

Take one validation point with label y, and let N(S) be the min(K, |S|) points of the coalition S
nearest to it; equally near ones rank by training index. Then

    v(S) = (1/K) * (points of N(S) with label y),        v(empty) = 0

and the utility of a validation set is the mean over its points or, with balanced class weights,

    (1/C) * (sum over its C classes of the mean over the points of the class)

How marginals are computed: `neighbour_table`.

Source: Jia et al. 2019, PVLDB 12(11).
"""

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.valuation.neighbours import ClassWeights, Metric
from dcai_ray.valuation.utilities import Orders
from dcai_ray.valuation.utilities.neighbour_table import neighbour_table


class Knn:
    """The share of the K votes that go to the right label; `knn_shapley` has its exact values.

    Args:
        x_train: (n, d) features; centred here by their mean.
        y_train: (n,) labels: whole numbers, booleans or text.
        x_val: (m, d) features of the validation points.
        y_val: (m,) their labels; one that no training point has never matches.
        k: the number of neighbours K; may exceed n.
        metric: distance between centred features.
        class_weights: balanced: each class of validation points weighs alike; none: each point.
        num_components: components the validation points are split into, at least; at most m.
        max_component_bytes: bound on the tables of one component, which makes for more of them; a
            component has at least one validation point.
    Raises:
        UserError: for k < 1, num_components < 1, sizes that do not fit, or features or labels that
            cannot be used.
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
        num_components: int = 4,
        max_component_bytes: int = 256 * 2**20,
    ) -> None:
        points = (x_train, y_train, x_val, y_val)
        self._table = neighbour_table(
            *points, k, metric, class_weights, num_components, max_component_bytes
        )

    def __repr__(self) -> str:
        return f"Knn({self._table.describe()})"

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
        return float(self._table.mean(self._table.val_weights.sum(), self._table.k))

    @property
    def position_costs(self) -> NDArray[np.float64]:
        """(n,) cost of a marginal by coalition size, in nominal microseconds."""
        return self._table.position_costs

    def score(self, coalition: NDArray[np.intp]) -> float:
        """v(S) by its definition, from the ranks of the coalition."""
        votes = self._table.votes(coalition)  # (m, min(K, |S|))
        right = np.count_nonzero(votes == self._table.y_val[:, np.newaxis], axis=1)
        return float(self._table.mean(self._table.val_weights @ right, self._table.k))

    def marginals(self, orders: Orders) -> NDArray[np.float64]:
        """(t,) marginals, in the order of `orders.players`."""
        changes = self._table.changes(orders, majority=False, quorum=1)
        return self._table.mean(changes, self._table.k)
