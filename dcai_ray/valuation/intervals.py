"""Anytime-valid confidence intervals of a mean, and e-values for findings that are certain.

t observations have mean x and standard deviation s. The intervals x +- h_t are a *confidence
sequence* at level alpha if the probability that the truth is *ever* outside, at any t, is at most
alpha: they stay valid however often you look and whenever you stop. There are two.

**Asymptotic**: with r a tuning constant, narrowest near t of some multiples of 1 / r,

    h = s sqrt(2 (t r + 1) / (t^2 r) * log(sqrt(t r + 1) / alpha))

It is that of a Gaussian with s estimated: no range is needed, but the first few observations can
deceive it (two that happen to agree give a narrow interval). It is reliable from some 30 rounds on,
and where a mean rests on rare events, only once these have happened several times.

**Empirical Bernstein**: holds at every t, for observations in a range c. Let y_t be a guess at x_t
made before it is seen, within the range, and V = sum (x_t - y_t)^2 / c^2, at least 1. Then

    l = 1.4 log(log(2 V)) + log(zeta(1.4) / ((alpha / 2) log(2)^1.4))
    h = c (sqrt(k1^2 V l + k2^2 l^2) + k2 l) / t,  k1 = (2^.25 + 2^-.25) / sqrt(2),
                                                   k2 = (sqrt(2) + 1) / 2

The same mixture that gives the asymptotic interval gives *e-values*: numbers whose mean is at most
1 if the hypothesis is true, however one stops and whatever the dependence between points; large
ones are evidence against it, and e-BH turns them into findings with a false-discovery rate.

Source: Waudby-Smith et al. 2021, arXiv 2103.06476, Theorem 2.2 (asymptotic); Howard et al. 2021,
arXiv 1810.08240, Theorems 1 and 4 (Bernstein); Wang & Ramdas 2022, JRSS B 84(3) (e-BH).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr, zeta

from dcai_ray.valuation.moments import Moments

RHO2 = 1 / 50
"""Tuning constant r of the asymptotic sequence and its e-values."""

Direction = Literal["below", "above"]

_ETA, _POWER = 2.0, 1.4  # of the stitched boundary: growth of its epochs, decay of their shares
_K1 = (_ETA**0.25 + _ETA**-0.25) / np.sqrt(2)
_K2 = (np.sqrt(_ETA) + 1) / 2


def asymptotic_half_width(
    moments: Moments, alpha: float, rho2: float = RHO2
) -> NDArray[np.float64]:
    """(...,) half width of the asymptotic confidence sequence; inf for fewer than two observations.

    Args:
        moments: of t independent observations.
        alpha: probability in (0, 1) that the truth is ever outside.
        rho2: tuning constant r; no effect on validity.
    Source: arXiv 2103.06476, Theorem 2.2.
    """
    if moments.count < 2:
        return np.full(moments.mean.shape, np.inf)
    count = moments.count
    grown = count * rho2 + 1
    factor = np.sqrt(2 * grown / (count**2 * rho2) * np.log(np.sqrt(grown) / alpha))
    return np.sqrt(moments.variance) * factor


def stitched_boundary(
    variation: NDArray[np.float64], alpha: float, *, scale: float = 1.0, least: float = 1.0
) -> NDArray[np.float64]:
    """(...,) what a sum that is sub-gamma with that scale ever crosses with chance at most alpha.

    Args:
        variation: (...,) intrinsic time V, raised to `least` in all places.
        alpha: chance in (0, 1), of one side.
        scale: c of the sub-gamma process, in units of the sum.
        least: m, below which the boundary is flat.
    Source: arXiv 1810.08240, Theorem 1 with eta = 2, h(k) = (k + 1)^1.4 zeta(1.4) (eq. 10).
    """
    v = np.maximum(variation, least)
    # log h(log_eta(v / m)) + log(1 / alpha)
    log_epochs = _POWER * np.log(np.log(_ETA * v / least))
    log_share = log_epochs + np.log(zeta(_POWER) / (alpha * np.log(_ETA) ** _POWER))
    linear = _K2 * scale * log_share
    return np.sqrt(_K1**2 * v * log_share + linear**2) + linear


def bernstein_half_width(
    count: int,
    variation: NDArray[np.float64],
    range_: float | NDArray[np.float64],
    alpha: float,
) -> NDArray[np.float64]:
    """(...,) half width of the stitched empirical-Bernstein sequence; inf for no observation.

    Theorem 4 centres the interval at the mean of the observations and asks of a boundary that a
    sub-exponential process of scale c, with V the sum of squared misses of the guesses, crosses it
    with chance alpha / 2 on each side. Theorem 1's is for sub-gamma processes of scale c, and
    these include the former: -log(1 - x) - x = sum_{k >= 2} x^k / k <= x^2 / (2 (1 - x)). All is
    taken in units of c, so that the scale is 1.

    Args:
        count: t, the observations.
        variation: (...,) sum of (x_t - y_t)^2, in squared units of the observations.
        range_: width c of an interval that holds all x_t and y_t; broadcast against `variation`.
        alpha: probability in (0, 1) that the truth is ever outside.
    Source: arXiv 1810.08240, Theorem 4.
    """
    if count < 1:
        return np.full(np.shape(variation), np.inf)
    width = np.asarray(range_, dtype=np.float64)
    return width * stitched_boundary(variation / width**2, alpha / 2) / count


def e_values(
    moments: Moments, threshold: float, direction: Direction, rho2: float = RHO2
) -> NDArray[np.float64]:
    """(...,) *logarithms* of one-sided e-values; their exponentials would overflow.

    Evidence that the truth is `direction` the threshold, against the hypothesis that it is at the
    threshold or on its other side. For "below": exp(lambda S - lambda^2 s^2 t / 2) with
    S = t (x - threshold) is a supermartingale for each lambda <= 0 while the truth is at least the
    threshold, and so is its mean over lambda = -|N(0, r / s^2)|. The integral is

        e = 2 Phi(-z) exp(z^2 / 2) / sqrt(t r + 1),  z = t (x - threshold) sqrt(r / (t r + 1)) / s

    Averaged with that of "above" it is the e-value which the asymptotic interval inverts. Like that
    one it is exact for Gaussian observations of known s, asymptotic otherwise.

    Args:
        moments: of t independent observations.
        threshold: in units of the observations.
        direction: what the evidence is for.
        rho2: tuning constant r, as for the interval.
    Returns:
        log e; 0 (no evidence) for fewer than two observations.
    Raises:
        ValueError: for an unknown direction.
    Source: arXiv 1810.08240, section 3.2 (one-sided normal mixture).
    """
    if direction not in ("below", "above"):
        raise ValueError(f"direction must be below or above, got {direction!r}")
    if moments.count < 2:
        return np.zeros(moments.mean.shape)
    grown = moments.count * rho2 + 1
    distance = moments.mean - threshold if direction == "below" else threshold - moments.mean
    numerator = moments.count * distance * np.sqrt(rho2 / grown)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Observations that never varied, at the threshold itself, speak for neither side.
        z = np.where(distance == 0, 0.0, numerator / np.sqrt(moments.variance))
    # 2 Phi(-z) exp(z^2 / 2) = erfcx(z / sqrt 2), which overflows left of 0; right of 0 the other
    # form would cancel.
    left, right = np.minimum(z, 0.0), np.maximum(z, 0.0)
    with np.errstate(divide="ignore"):
        log_mixture = np.where(
            z < 0,
            np.log(2) + log_ndtr(-left) + left**2 / 2,
            np.log(erfcx(right / np.sqrt(2))),
        )
    return log_mixture - np.log(grown) / 2


def e_bh(log_e: NDArray[np.float64], alpha: float) -> NDArray[np.bool_]:
    """(n,) the hypotheses that e-BH rejects.

    Those of the k largest e-values, k the greatest for which the k-th is at least n / (k alpha).
    The expected share of false ones among them is at most alpha under any dependence.

    Args:
        log_e: (n,) logarithms of e-values.
        alpha: false-discovery rate in (0, 1).
    Source: Wang & Ramdas 2022, JRSS B 84(3), the base e-BH procedure.
    """
    order = np.argsort(-log_e, kind="stable")
    ranks = np.arange(1, len(log_e) + 1)
    enough = log_e[order] >= np.log(len(log_e)) - np.log(ranks) - np.log(alpha)
    rejected = np.zeros(len(log_e), dtype=bool)
    rejected[order[: ranks[enough].max(initial=0)]] = True
    return rejected


def false_discovery_bound(log_e: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """The false-discovery rate that can be claimed for a given set of rejections; 0 for none.

    The smallest alpha for which each of the k has e >= n / (k alpha): for a set of the largest, the
    alpha at which e-BH stops at it. The set may be chosen after seeing the data: before the cap,
    (share of false ones) / bound <= mean of the true hypotheses' e-values, whose mean is at most 1.

    Args:
        log_e: (n,) logarithms of e-values.
        mask: (n,) the rejected.
    Returns:
        n / (k min e), at most 1.
    Source: Wang & Ramdas 2022, JRSS B 84(3), self-consistent procedures.
    """
    rejected = np.count_nonzero(mask)
    if rejected == 0:
        return 0.0
    log_bound = np.log(len(log_e)) - np.log(rejected) - log_e[mask].min()
    return float(np.exp(min(log_bound, 0.0)))
