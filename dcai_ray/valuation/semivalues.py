"""Semivalues: how a marginal counts by the size of the coalition it joins.

    value_i = sum over t of p(t) e_i(t),      e_i(t) the mean of v(S + i) - v(S) over |S| = t

with p(t) >= 0, in sum 1 over t = 0..n-1:

    Shapley         1 / n
    Beta(a, b)      C(n-1, t) B(t + b, n-1-t + a) / B(a, b)     Kwon & Zou 2022, their order of a, b
    Banzhaf         C(n-1, t) / 2^(n-1)                         Wang & Jia 2023
    leave-one-out   1 at t = n - 1
"""

from collections.abc import Sequence
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.utilities import Orders, Utility

Semivalue = Literal["shapley", "banzhaf", "beta", "leave-one-out"]


def size_weights(
    semivalue: str, num_players: int, beta: tuple[float, float] = (4.0, 1.0)
) -> NDArray[np.float64]:
    """p(0)..p(n-1): the probability that the coalition holds so many others.

    Args:
        semivalue: shapley, banzhaf, beta or leave-one-out.
        num_players: n.
        beta: (a, b) of Beta Shapley; larger a weighs small coalitions more.
    Returns:
        (n,) float64 that sums to 1.
    Raises:
        UserError: for an unknown semivalue.
    """
    others = np.arange(num_players)
    match semivalue:
        case "shapley":
            return np.full(num_players, 1 / num_players)
        case "banzhaf":
            from scipy.stats import binom  # here: .5 s that most workers never need

            return binom.pmf(others, num_players - 1, 0.5)
        case "beta":
            from scipy.stats import betabinom

            return betabinom.pmf(others, num_players - 1, beta[1], beta[0])
        case "leave-one-out":
            return (others == num_players - 1).astype(np.float64)
    raise UserError(f"semivalue must be shapley, banzhaf, beta or leave-one-out, got {semivalue!r}")


def by_enumeration(utility: Utility, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) values by the definition, over all 2^n coalitions: the truth of small games.

    Args:
        utility: its `score` is called 2^n times.
        weights: (n,) p(t), as `size_weights` gives them.
    """
    coalitions = slice(0, 1 << utility.num_players)
    return from_scores(scores_of(utility, coalitions), weights)


def scores_of(utility: Utility, numbers: slice) -> NDArray[np.float64]:
    """v of some coalitions by their numbers, in which bit i is set if player i is in it."""
    players = np.arange(utility.num_players)
    return np.array(
        [
            utility.score(players[number >> players & 1 == 1])
            for number in range(numbers.start, numbers.stop)
        ]
    )


def symmetric_chains(num_players: int) -> list[tuple[NDArray[np.int32], int]]:
    """As few orders as can visit all 2^n coalitions, each once: players, and where visits begin.

    Of (players, first), the visited coalitions are players[:first], players[:first + 1], ... to all
    of these players. There are C(n, n // 2): each visits one coalition of n // 2 players.

    Source: Greene and Kleitman 1976, J. Combin. Theory A 20: with players as brackets, absent ones
    opening and present ones closing, the unmatched ones join one after the other.
    """
    chains = []
    for number in range(1 << num_players):
        present, waiting = [], []
        for player in range(num_players):
            if not number >> player & 1:
                waiting.append(player)
            elif waiting:
                waiting.pop()
                present.append(player)
            else:
                break  # it is unmatched: the chain began below
        else:
            chains.append((np.array([*present, *waiting], np.int32), len(present)))
    return chains


def scores_along(
    utility: Utility, chains: Sequence[tuple[NDArray[np.int32], int]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The coalitions that orders visit, by their numbers, and the scores of these.

    Args:
        utility: its `marginals` are asked once.
        chains: as `symmetric_chains` gives them.
    """
    players = np.concatenate([order for order, _ in chains])
    offsets = np.cumsum([0, *(len(order) for order, _ in chains)])
    marginals = utility.marginals(Orders(players, offsets, np.ones(len(players))))
    empty = utility.score(np.empty(0, np.intp))
    numbers, scores = [], []
    for (order, first), start in zip(chains, offsets, strict=False):
        joined = np.concatenate([[0], np.cumsum(1 << order.astype(np.int64))])
        reached = np.concatenate([[0.0], np.cumsum(marginals[start : start + len(order)])])
        numbers.append(joined[first:])
        scores.append(empty + reached[first:])
    return np.concatenate(numbers), np.concatenate(scores)


def from_scores(scores: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) values from the scores (2^n,) of all coalitions, by their numbers.

    Args:
        scores: as `scores_of` gives them.
        weights: (n,) p(t), as `size_weights` gives them.
    """
    n = len(weights)
    number = np.arange(1 << n)
    size = ((number[:, np.newaxis] >> np.arange(n)) & 1).sum(axis=1)
    of_size = weights / [comb(n - 1, t) for t in range(n)]
    values = np.empty(n)
    for i in range(n):
        without = number[number >> i & 1 == 0]
        values[i] = of_size[size[without]] @ (scores[without | 1 << i] - scores[without])
    return values
