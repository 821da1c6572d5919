"""Count, mean and sum of squared deviations: all that is kept of the rounds that have been seen.

With delta = mean_2 - mean_1, two sets of t_1 and t_2 observations make one of t = t_1 + t_2:

    mean = mean_1 + delta * t_2 / t
    M2   = M2_1 + M2_2 + delta^2 * t_1 * t_2 / t

The order of merging decides the last bits, so whoever merges does it in the order of ids.

Chains of independent rounds also tell how well they agree: Gelman and Rubin's R-hat for L rounds in
each of C chains, W the mean variance within and B / L the variance of the chains' means,

    R = sqrt(((L - 1) / L * W + B / L) / W)

Rounds are independent, so this depends on L and C, hardly on the values: to report, not to decide.

Source: Chan, Golub, LeVeque 1983, The American Statistician 37(3), equations 2.1; Gelman & Rubin
1992, Statistical Science 7(4), without the term for the chains' number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Moments:
    """First two moments of `count` observations, each an array of the same shape."""

    count: int
    mean: NDArray[np.float64]  # (...,)
    m2: NDArray[np.float64]  # (...,) squared deviations from the mean, summed over observations

    @classmethod
    def empty(cls, shape: int | tuple[int, ...]) -> "Moments":
        """Moments of no observation of that shape."""
        return cls(0, np.zeros(shape), np.zeros(shape))

    @property
    def variance(self) -> NDArray[np.float64]:
        """(...,) unbiased variance of one observation; inf (unknown) for fewer than two."""
        if self.count < 2:
            return np.full(self.mean.shape, np.inf)
        return self.m2 / (self.count - 1)

    @property
    def stderr(self) -> NDArray[np.float64]:
        """(...,) standard error of the mean; inf (unknown) for fewer than two observations."""
        return np.sqrt(self.variance / max(self.count, 1))


def moments_of(observations: NDArray[np.floating]) -> Moments:
    """Moments of observations (count, ...) over their first axis."""
    if len(observations) == 0:
        return Moments.empty(observations.shape[1:])
    # One layout in memory, so that the sum over the first axis has one order.
    rows = np.ascontiguousarray(observations, dtype=np.float64)
    mean = rows.mean(axis=0)
    return Moments(len(rows), np.asarray(mean), np.asarray(((rows - mean) ** 2).sum(axis=0)))


def merge(first: Moments, second: Moments) -> Moments:
    """Moments of the observations of both; neither is changed.

    Raises:
        ValueError: if the observations differ in shape.
    """
    if first.mean.shape != second.mean.shape:
        shapes = f"{first.mean.shape} and {second.mean.shape}"
        raise ValueError(f"moments must be of observations of one shape, got {shapes}")
    if first.count == 0:
        return second
    if second.count == 0:
        return first
    count = first.count + second.count
    delta = second.mean - first.mean
    mean = first.mean + delta * (second.count / count)
    m2 = first.m2 + second.m2 + delta**2 * (first.count * second.count / count)
    return Moments(count, mean, m2)


def gelman_rubin(chains: Sequence[Moments]) -> NDArray[np.float64]:
    """(...,) R-hat; NaN for one chain or fewer than two rounds in one.

    1 where no round differs from another. Chains of unequal length count as of their mean length.
    """
    if len(chains) < 2 or min(chain.count for chain in chains) < 2:
        return np.full(chains[0].mean.shape, np.nan)
    length = sum(chain.count for chain in chains) / len(chains)
    within = np.mean([chain.variance for chain in chains], axis=0)  # W
    between = np.var([chain.mean for chain in chains], axis=0, ddof=1)  # B / L
    spread = (length - 1) / length * within + between
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread == 0, 1.0, np.sqrt(spread / within))


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's of two (n,) arrays, ties sharing their mean rank; NaN if one is constant."""
    from scipy.stats import rankdata  # here: .4 s that most workers never need

    middle = (len(first) + 1) / 2
    x, y = rankdata(first) - middle, rankdata(second) - middle
    norm = np.sqrt((x**2).sum() * (y**2).sum())
    # Summed by NumPy, not by BLAS, whose order differs between machines.
    return float((x * y).sum() / norm) if norm > 0 else float("nan")
