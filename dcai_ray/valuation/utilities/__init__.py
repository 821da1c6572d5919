"""Utilities: what a classifier trained on a coalition of training points is worth.

One file per kind. A utility v(S) has two methods: `score`, the definition, and `marginals`, which
gives the marginals of whole orders in one call and must equal differences of scores:

    marginals(orders)[t] = v(p_0, ..., p_j) - v(p_0, ..., p_{j-1})    for the player p_j of an order

Anything that has the members of `Utility` is one; nothing has to be inherited or registered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Orders:
    """The weighted orders of one round, laid end to end; each begins with the empty coalition."""

    players: NDArray[np.int32]  # (t,) training indices; none twice within an order
    offsets: NDArray[np.int64]  # (s + 1,): order j is players[offsets[j]:offsets[j + 1]]
    weights: NDArray[np.float64]  # (t,) what a marginal at this place counts in the round's value


class Utility(Protocol):
    """The members that a utility must have.

    It may also have `marginal_range`, a bound on |v(S + i) - v(S)|, which makes finite-sample
    intervals possible, and `position_costs` (n,), the relative cost of a marginal by coalition
    size, which guides the choice of a sampler. Without them marginals count as unbounded, and as
    equally expensive.
    """

    @property
    def num_players(self) -> int:
        """n, the training points."""
        ...

    @property
    def components(self) -> Sequence["Utility"]:
        """The utilities whose mean this one is; itself alone if it does not split.

        Each component draws orders of its own, which cuts the variance where the marginals of a
        component cost its share of the whole.
        """
        ...

    def score(self, coalition: NDArray[np.intp]) -> float:
        """v(S) of distinct training indices in any order; of none, v(empty)."""
        ...

    def marginals(self, orders: Orders) -> NDArray[np.float64]:
        """(t,) unweighted marginals, in the order of `orders.players`.

        NaN stands for a marginal that was not computed because its order was truncated.
        """
        ...
