"""Three tiers of suspects: how much a person may rely on a flag before looking at the image.

With P(wrong), learnt from planted errors:

    likely    P(wrong) is at least .8, and as high as it takes for such a list to be more often
              wrong than right: s R / (s R + (1 - s) F) >= 1/2, with R the share of the planted
              errors that the list catches, F the share of right labels that it flags, and s the
              share of wrong labels, each at the unfavourable end of its 95 % interval
    possible  P(wrong) is at least .5
    look      the rule drops the image, or a copy has another label

So with few clean images, or few wrong labels, nothing is likely: planted errors do not support it.

Without P(wrong), from the value over its validation error and the vote of the leave-one-out probe:

    likely    the value lies below 0 by more than its error, and the vote for another class is
              at least .8
    possible  it lies below 0 by more than its error, and the vote is for another class
    look      as above

Here no share of wrong labels stands behind a word: nothing was planted in images known to be right.
The vote decides, not the number of errors: on digits with 30 % of wrong labels, 50 of the 50 that
are likely were wrong, and 45 of the 55 that are possible; of those more than two errors below 0,
but without such a vote, 17 of 24.
"""

import numpy as np
from numpy.typing import NDArray

from dcai_ray.cleaning.planted import Judged
from dcai_ray.cleaning.recall import detection

TIERS = ("likely", "possible", "look")
"""The names, the most suspicious first; an image that is no suspect has none."""
MEANINGS = {
    "likely": "the label is probably wrong",
    "possible": "the label may be wrong",
    "look": "flagged on weak or mixed evidence",
}
_LIKELY, _POSSIBLE = 0.8, 0.5  # P(wrong)
_MIN_PRECISION = 0.5  # of the list of the likely ones, at the unfavourable ends
_CUTS = (*np.linspace(_LIKELY, 0.99, 20), 0.995, 0.999)
_LIKELY_VOTE = 0.8


def likely_above(judged: Judged, labels: NDArray[np.integer]) -> float:
    """The P(wrong) from which a label is likely to be wrong; inf where none is high enough.

    Args:
        judged: what planted errors say.
        labels: (r,) true class numbers of the reference images.
    """
    share = judged.share.low if np.isfinite(judged.share.low) else judged.share.value
    for cut in _CUTS:
        found = detection(judged.reference_probability >= cut, labels, judged.weights)
        caught = share * found.recall.low
        flagged = caught + (1 - share) * found.false_alarms.high
        if flagged > 0 and caught / flagged >= _MIN_PRECISION:
            return float(cut)
    return np.inf


def tiers(
    *,
    value: NDArray[np.float64],
    error: NDArray[np.float64],
    vote_against: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    wrong_probability: NDArray[np.float64] | None,
    likely_above: float = np.inf,
) -> NDArray[np.str_]:
    """The tier of each training image.

    Args:
        value: (n,) in units of the utility.
        error: (n,) how much the value would move with other validation images; NaN if unknown.
        vote_against: (n,) probability of the suggested label; 0 where that is the given one.
        flagged: (n,) whether the rule drops the image, or a copy has another label.
        wrong_probability: (n,) NaN where nothing is known; None without planted errors.
        likely_above: P(wrong) from which a label is likely to be wrong.
    Returns:
        (n,) names of `TIERS`; empty for an image that is no suspect.
    """
    if wrong_probability is None:
        possible = (value < -error) & (vote_against > 0)  # not for an error of NaN
        likely = possible & (vote_against >= _LIKELY_VOTE)
    else:  # comparisons with NaN are false
        likely = wrong_probability >= likely_above
        possible = wrong_probability >= _POSSIBLE
    return np.select([likely, possible, flagged], TIERS, default="")
