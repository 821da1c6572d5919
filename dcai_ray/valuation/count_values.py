"""Exact semivalues of any utility that depends on the labels of the K nearest alone.

Take one validation point. Rank the n training points, nearest first, and let x be how many members
of each class there are among the min(K, |S|) nearest points of a coalition S. The utility is V(x):
the accuracy of the majority vote, the share of the right label, its logarithm, its Brier score.

Let every other point join the coalition with probability q (Owen's multilinear extension), so that
a class with N members among the nearer ranks has Binomial(N, q) of them. A point j of class a makes
a difference in two ways: it keeps a farther rank r, of class b, out of the K nearest, or there are
fewer than K in all:

    D_{r,a}(q) = q * sum over |x| = K - 1 of P(x) * (V(x + e_a) - V(x + e_b))      ranks before r
    few_a(q)   =     sum over |x| < K     of P(x) * (V(x + e_a) - V(x))            all ranks

where P(x) is the product of the binomials, with one member of class a left out: j itself. Then

    value of j = integral of (sum over r > j of D_{r,a}(q) + few_a(q)) dq

a suffix sum for each class, so the cost is linear in n. The semivalue is in the measure of q: dq
for Shapley; q^(b-1) (1-q)^(a-1) dq, normalized, for Beta(a, b); q = 1/2 for Banzhaf; q = 1 for
leave-one-out. Gauss and Legendre's nodes in u, with q = u^3 as the mass lies near q = K / n, give
the integral to the rounding of a sum. Nodes are computed once, in decimal arithmetic (the density
of Beta in floating point), and all chances by products and sums: any worker gives the same bits.

A utility of (matches, others), the members with the validation point's label and all others, needs
two classes whatever their number. The majority vote needs them all: for each number of votes of the
own class, the product of the other classes' polynomials, cut where they would win.

Source: Owen 1972, Management Science 18(5) for the multilinear extension; the rest is derived here
and checked against enumeration (tests/valuation/test_count_values.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.arrays import whole_number
from dcai_ray.valuation.count_kernels import add_plurality, add_two_counts
from dcai_ray.valuation.knn_shapley import KnnGame, Sums, game_of, merged, without_copies
from dcai_ray.valuation.neighbours import (
    ClassWeights,
    Metric,
    distances,
    neighbour_order,
    tiles,
)

CountUtility = Literal["knn-accuracy", "knn-probability", "knn-log-likelihood", "knn-brier"]
Counts = Callable[[int, int], float]
"""V(matches, others) of at most K neighbours: the members with the validation point's label, and
all others."""
_DIGITS = 40
_MAX_GAINS = 1 << 28
"""Training points times classes, 8 bytes each, that a worker holds to value by a vote."""


@dataclass(frozen=True, slots=True, eq=False)
class CountGame:
    """A game on ranked points whose utility depends on the labels of the K nearest alone."""

    points: KnnGame
    """Points, validation points and their weights; its gains, of another utility, are not used."""
    k: int
    quorum: int  # members below which the utility is `empty`
    empty: float
    scores: NDArray[np.float64] | None
    """(C, K + 1, K + 1) V(matches, others) by the validation point's label; None: the vote."""
    nodes: NDArray[np.float64]  # (Q,) q, ascending
    weights: NDArray[np.float64]  # (Q,) their measure; sums to 1

    @property
    def val_blocks(self) -> list[slice]:
        """The validation points in blocks, in the order in which their sums are merged."""
        return self.points.val_blocks


def knn_values(
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_val: ArrayLike | None = None,
    y_val: ArrayLike | None = None,
    *,
    utility: CountUtility | Counts = "knn-accuracy",
    k: int = 10,
    metric: Metric = "cosine",
    class_weights: ClassWeights = "none",
    semivalue: str = "shapley",
    beta: tuple[float, float] = (4.0, 1.0),
    few: Literal["vote", "default"] = "vote",
    empty: float | None = None,
    tile_bytes: int = 256 * 2**20,
) -> NDArray[np.float64]:
    """Exact semivalue of every training point for a utility of the K nearest labels.

    Args:
        x_train: (n, d) features; arrays, lists, data frames, tensors or sparse matrices, centred
            here by their mean.
        y_train: (n,) labels: whole numbers, booleans or text.
        x_val: (m, d) features of the validation points; None: the training points serve, each
            left out of its own ranking.
        y_val: (m,) their labels; None together with x_val.
        utility: "knn-accuracy": whether the label has most votes (of equally many, the smallest
            class wins); "knn-probability": the share p of the neighbours that have the label;
            "knn-log-likelihood": log of (matches + 1) / (neighbours + C); "knn-brier":
            1 - (1 - p)^2. Or a function of (matches, others), two whole numbers with a sum of at
            most K, that gives a number.
        k: the number of neighbours K; may exceed n.
        metric: distance between centred features.
        class_weights: "none": each validation point weighs alike; "balanced": each class does.
        semivalue: "shapley", "banzhaf", "beta" or "leave-one-out".
        beta: (a, b) of Beta Shapley, both at least 1; larger a weighs small coalitions more.
        few: what counts with fewer than K neighbours: "vote", those that there are; "default",
            v(empty).
        empty: v(empty); None: for the accuracy that of the class most common among the validation
            points, as in `KnnAccuracy`, for others V(0, 0), where p is 1 / C.
        tile_bytes: working memory in bytes.
    Returns:
        (n,) values in units of the utility; Shapley values sum to v(all) - v(empty).
    Raises:
        UserError: for an unknown utility or semivalue, beta below 1, a utility that is not finite,
            a vote of too many points and classes for a worker's memory, and as `knn_shapley`.
    """
    game = game_of(x_train, y_train, x_val, y_val, k=k, metric=metric, class_weights=class_weights)
    counted = count_game(
        game, utility, k=k, semivalue=semivalue, beta=beta, few=few, empty=empty,
        balanced=class_weights == "balanced",
    )  # fmt: skip
    blocks = (count_block_sums(counted, block, tile_bytes) for block in game.val_blocks)
    return merged(game, blocks).value[0]


def count_game(
    points: KnnGame,
    utility: str | Counts,
    *,
    k: int,
    semivalue: str = "shapley",
    beta: tuple[float, float] = (4.0, 1.0),
    few: str = "vote",
    empty: float | None = None,
    balanced: bool = False,
) -> CountGame:
    """The game of a utility on ranked points; arguments and errors as in `knn_values`."""
    k = whole_number("k", k)
    if few not in ("vote", "default"):
        raise UserError(f"few must be vote or default, got {few!r}")
    num_classes = int(max(points.y_train.max(), points.y_val.max())) + 1
    if empty is None and utility == "knn-accuracy":
        by_class = np.bincount(points.y_val, minlength=num_classes)
        empty = 1 / np.count_nonzero(by_class) if balanced else by_class.max() / by_class.sum()
    scores = _scores(utility, k, num_classes)
    n = len(points.train)
    if scores is None and n * num_classes > _MAX_GAINS:
        raise UserError(
            f"exact knn-accuracy of {n:,} points in {num_classes:,} classes needs "
            f"{n * num_classes / 2**27:.0f} GB a worker; sample it, or take another utility"
        )
    if scores is not None:
        empty = float(scores[0, 0, 0]) if empty is None else empty
        matches, others = np.indices(scores.shape[1:])
        scores[:, matches + others < (1 if few == "vote" else k)] = empty
    assert empty is not None
    if not np.isfinite(empty) or (scores is not None and not np.isfinite(scores).all()):
        raise UserError("the utility must be finite for all numbers of matches and others up to K")
    nodes, weights = quadrature(semivalue, beta, n, k)
    quorum = 1 if few == "vote" else k
    return CountGame(points, k, quorum, float(empty), scores, nodes, weights)


def count_block_sums(game: CountGame, block: slice, tile_bytes: int = 256 * 2**20) -> Sums:
    """Values summed over one block of validation points, in their order.

    Args:
        game: the points and the utility.
        block: validation points; one of `game.val_blocks`.
        tile_bytes: working memory in bytes; decides how many points are ranked at a time.
    """
    points, measure = game.points, (game.nodes, game.weights)
    n = len(points.train)
    total, squares = np.zeros(n), np.zeros(n)
    for tile in tiles(block, n, tile_bytes):
        own, y_val = points.order[tile], points.y_val[tile]
        distance = distances(points.train, points.val[own], points.offset)
        order = neighbour_order(distance, own if points.leave_one_out else None, points.far)
        for rows, ranked in without_copies(points, own, order):
            labels = (points.y_train, y_val[rows])
            if game.scores is not None:
                add_two_counts(ranked, *labels, game.scores, *measure, total, squares)
            else:
                num_classes = int(max(points.y_train.max(), points.y_val.max())) + 1
                vote = (game.k, num_classes, game.quorum, game.empty)
                add_plurality(ranked, *labels, *vote, *measure, total, squares)
    none = np.zeros((1, 0))
    return Sums(total[np.newaxis], squares[np.newaxis], none, none, none)


def _scores(utility: str | Counts, k: int, num_classes: int) -> NDArray[np.float64] | None:
    """(C, K + 1, K + 1) V(matches, others) by label; None for the vote of more than two classes."""
    tables = np.zeros((num_classes, k + 1, k + 1))
    for label in range(num_classes):
        counts = _counts(utility, label, num_classes)
        if counts is None:
            return None
        for matches in range(k + 1):
            for others in range(k + 1 - matches):
                tables[label, matches, others] = counts(matches, others)
    return tables


def _counts(utility: str | Counts, label: int, num_classes: int) -> Counts | None:
    """V for validation points of a label."""
    if callable(utility):
        return utility

    def share(matches: int, others: int) -> float:
        return matches / (matches + others) if matches + others else 1 / num_classes

    match utility:
        case "knn-accuracy" if num_classes > 2:
            return None
        case "knn-accuracy":  # of equally many votes, the smaller class wins
            return lambda m, o: float(m > o or (m == o and label == 0))
        case "knn-probability":
            return share
        case "knn-log-likelihood":
            return lambda m, o: math.log((m + 1) / (m + o + num_classes))
        case "knn-brier":
            return lambda m, o: 1 - (1 - share(m, o)) ** 2
    known = "knn-accuracy, knn-probability, knn-log-likelihood, knn-brier"
    raise UserError(f"utility must be {known} or a function, got {utility!r}")


def quadrature(
    semivalue: str, beta: tuple[float, float], num_players: int, k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes q, ascending, and weights that integrate a semivalue's measure.

    How many there are was measured against twice as many: 1e-12 at most, for n = 100 to 200,000
    and K = 1 to 200 (tests/valuation/test_count_values.py).

    Args:
        semivalue: "shapley", "banzhaf", "beta" or "leave-one-out".
        beta: (a, b) of Beta Shapley.
        num_players: n.
        k: the number of neighbours K.
    Raises:
        UserError: for an unknown semivalue, or beta below 1.
    """
    if semivalue in ("banzhaf", "leave-one-out"):
        return np.array([0.5 if semivalue == "banzhaf" else 1.0]), np.array([1.0])
    if semivalue not in ("shapley", "beta"):
        names = "shapley, banzhaf, beta or leave-one-out"
        raise UserError(f"semivalue must be {names}, got {semivalue!r}")
    a, b = (1.0, 1.0) if semivalue == "shapley" else beta
    if min(a, b) < 1:
        raise UserError(f"beta must be at least 1 for exact values of this utility, got {beta}")
    count = 8 * math.ceil(14 * num_players ** (1 / 6) * min(k, num_players) ** (1 / 4) / 8)
    nodes, weights = _cubed_legendre(count)
    weights = weights * nodes ** (b - 1) * (1 - nodes) ** (a - 1)
    return nodes, weights / math.fsum(weights)


@lru_cache(maxsize=8)
def _cubed_legendre(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss and Legendre's nodes on (0, 1) in u, as q = u^3, with the weights of dq.

    Two of Newton's steps in decimal arithmetic, from NumPy's nodes: the last bits of those depend
    on the machine's LAPACK.
    """
    start, _ = np.polynomial.legendre.leggauss(count)
    nodes, weights = np.empty(count), np.empty(count)
    with localcontext(prec=_DIGITS):
        for place, x in enumerate(map(Decimal, start.tolist())):
            for _ in range(2):
                value, slope = _legendre(count, x)
                x -= value / slope
            _, slope = _legendre(count, x)
            u = (1 + x) / 2
            nodes[place] = float(u**3)
            weights[place] = float(3 * u**2 / ((1 - x * x) * slope * slope))
    return nodes, weights


def _legendre(degree: int, x: Decimal) -> tuple[Decimal, Decimal]:
    """Legendre's polynomial of a degree above 0, and its derivative."""
    before, value = Decimal(1), x
    for d in range(2, degree + 1):
        before, value = value, ((2 * d - 1) * x * value - (d - 1) * before) / d
    return value, degree * (x * value - before) / (x * x - 1)
