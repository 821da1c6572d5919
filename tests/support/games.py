"""Games with known values, as utilities; marginals are differences of `score`."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

_MAX_TABLE_PLAYERS = 14


@dataclass
class Game:
    """A utility from a function of a set of players."""

    num_players: int
    v: Callable[[frozenset[int]], float]
    calls: list[int] = field(default_factory=list)
    _scores: np.ndarray | None = field(default=None, repr=False)

    @property
    def components(self):
        return (self,)

    def score(self, coalition):
        if self.num_players > _MAX_TABLE_PLAYERS:
            return self.v(frozenset(np.asarray(coalition).tolist()))
        return self._table[(1 << np.asarray(coalition, dtype=np.int64)).sum()]

    def marginals(self, orders):
        self.calls.append(len(orders.players))
        if self.num_players > _MAX_TABLE_PLAYERS:
            return self._marginals_by_score(orders)
        player = 1 << orders.players.astype(np.int64)
        sums = np.concatenate([[0], np.cumsum(player)])
        before_order = np.repeat(sums[orders.offsets[:-1]], np.diff(orders.offsets))
        coalition = sums[1:] - before_order
        return self._table[coalition] - self._table[coalition - player]

    @property
    def _table(self):
        """(2^n,) v of every coalition, whose number has bit i set if player i is in it."""
        if self._scores is None:  # not a cached_property, whose lock no worker could be sent
            players = range(self.num_players)
            self._scores = np.array(
                [
                    self.v(frozenset(i for i in players if number >> i & 1))
                    for number in range(1 << self.num_players)
                ]
            )
        return self._scores

    def _marginals_by_score(self, orders):
        marginals = np.empty(len(orders.players))
        for start, end in zip(orders.offsets, orders.offsets[1:], strict=False):
            before = self.score([])
            for t in range(start, end):
                after = self.score(orders.players[start : t + 1])
                marginals[t] = after - before
                before = after
        return marginals


def additive(worth):
    """Each player brings its worth, whoever is there: that is its value under any semivalue."""
    return Game(len(worth), lambda s: float(sum(worth[i] for i in s)))


def unanimity(num_players, carrier):
    """1 if all of the carrier are there: its members share it equally (Shapley 1953)."""
    carrier = frozenset(carrier)
    return Game(num_players, lambda s: float(carrier <= s))


def majority(num_players):
    """1 if more than half are there: all are alike."""
    return Game(num_players, lambda s: float(2 * len(s) > num_players))


def airport(costs):
    """The longest runway that is needed: every stretch is shared by those who need it
    (Littlechild & Owen 1973)."""
    return Game(len(costs), lambda s: float(max((costs[i] for i in s), default=0)))


def airport_values(costs):
    order = np.argsort(costs)
    steps = np.diff(np.concatenate([[0], np.asarray(costs, dtype=float)[order]]))
    values = np.empty(len(costs))
    values[order] = np.cumsum(steps / np.arange(len(costs), 0, -1))
    return values


def glove(left, right):
    """Pairs of gloves: min of the left and right hands that are there."""

    def v(s):
        here = sum(i < left for i in s)
        return float(min(here, len(s) - here))

    return Game(left + right, v)
