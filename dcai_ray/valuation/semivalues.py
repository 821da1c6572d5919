"""Semivalues: how a marginal counts by the size of the coalition it joins.

    value_i = sum over t of p(t) e_i(t),      e_i(t) the mean of v(S + i) - v(S) over |S| = t

with p(t) >= 0, in sum 1 over t = 0..n-1:

    Shapley         1 / n
    Beta(a, b)      C(n-1, t) B(t + b, n-1-t + a) / B(a, b)     Kwon & Zou 2022, their order of a, b
    Banzhaf         C(n-1, t) / 2^(n-1)                         Wang & Jia 2023
    leave-one-out   1 at t = n - 1
"""

from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.utilities import Utility

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
