"""P(label is wrong), learnt from planted errors.

The true labels of the clean images are known. With its own label such an image shows what evidence
of a right label looks like, with any other label what evidence of a wrong one looks like: half of
the wrong labels are drawn uniformly, half as the probe confuses classes. A logistic model learns
to tell the two apart. Nothing is drawn where all labels can be weighed instead, so there are no
seeds; every clean image joins the training images alone, so the noise among these stays as it is.

The share of wrong labels among the training images differs from that of the planted ones. It is
estimated by maximum likelihood, and the probabilities are shifted to it (Saerens, Latinne &
Decaestecker 2002, Neural Computation 14(1)).

What the planted errors say about a list of suspects is in `recall`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dcai_ray.cleaning.evidence import Evidence
from dcai_ray.cleaning.recall import Interval

MIN_CLEAN = 30
"""Clean images below which planted errors say too little: a share of them would be known to +-.18
at best."""
PLANTED_SHARE = 0.3
"""Share of wrong labels that the model is trained with."""
_CONFUSION = 8.0  # how steeply a probe's prediction counts among the confusions
_EVERY_LABEL = 12  # with more classes, wrong labels are drawn
_DRAWS = 10
_FOLDS = 5
_LEVELS = np.linspace(0.1, 0.9, 33)  # of planted errors, where their share is bounded
_RESAMPLES = 100
_DECIMALS = 6
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Judged:
    """What planted errors say about n training images."""

    wrong_probability: NDArray[np.float64]  # (n,)
    odds: NDArray[np.float64]
    """(n,) log odds of a wrong label at the planted share: they order images even where the
    estimated share is 0 and so is every probability."""
    share: Interval
    """Share of wrong labels among the training images of the classes that are judged."""
    class_shares: tuple[Interval, ...]
    """The same by given label; NaN for a class without training images or without clean ones."""
    weights: NDArray[np.float64]  # (r, C) of the reference images' labels, summing to r
    reference_probability: NDArray[np.float64]
    """(r, C) P(wrong) of each reference image with each label, by a model that has not seen it."""
    reference_odds: NDArray[np.float64]
    """(r, C) the same as log odds at the planted share."""
    reference_errors: float
    """Share of the reference images whose own labels are as suspicious as planted errors."""


def label_weights(
    labels: NDArray[np.integer],
    predictions: NDArray[np.floating],
    share: float = PLANTED_SHARE,
    uniform: float = 0.5,
) -> NDArray[np.float64]:
    """(r, C) how often each label is planted: rows sum to 1, of which `share` is wrong.

    Args:
        labels: (r,) true class numbers.
        predictions: (r, C) of a probe that has not seen these images.
        share: total weight of the wrong labels.
        uniform: share of these that is the same for every label; the others are as the probe
            confuses.
    """
    count, num_classes = predictions.shape
    rows = np.arange(count)
    confused = np.exp(_CONFUSION * (predictions - predictions.max(axis=1, keepdims=True)))
    confused[rows, labels] = 0.0
    confused /= confused.sum(axis=1, keepdims=True)
    wrong = (1 - uniform) * confused + uniform / (num_classes - 1)
    wrong[rows, labels] = 0.0
    if num_classes > _EVERY_LABEL:
        wrong = _drawn(wrong / wrong.sum(axis=1, keepdims=True))
    weights = share * wrong / wrong.sum(axis=1, keepdims=True)
    weights[rows, labels] = 1 - share
    return weights


def _drawn(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """A few draws from each row: with very many classes most labels hardly ever count."""
    rng = np.random.default_rng(0)
    return np.array([rng.multinomial(_DRAWS, row) for row in chances]) / _DRAWS


def judge(evidence: Evidence, y: NDArray[np.integer]) -> Judged:
    """Learn from the clean images, and judge the training images.

    Args:
        evidence: with the clean images as reference images, of at least two classes.
        y: (n,) class numbers as given.
    """
    weights = label_weights(evidence.labels, evidence.probe.reference_predictions)
    num_classes = weights.shape[1]
    odds = wrong_odds(evidence)
    # A class that the clean set lacks looks wrong to everything that learns from it.
    judged = np.flatnonzero(np.isin(y, evidence.labels))
    share = likeliest_share(odds[judged])
    left_out = left_out_odds(evidence, weights)
    shares, class_shares = _resampled(evidence, weights, y, judged)
    wrong = shifted(odds, share)
    groups = [wrong[judged[y[judged] == c]] for c in range(num_classes)]
    by_class = [float(group.mean()) if len(group) else np.nan for group in groups]
    return Judged(
        wrong_probability=wrong,
        odds=np.round(odds, _DECIMALS),
        share=_interval(share, shares),
        class_shares=tuple(map(_interval, by_class, class_shares.T)),
        weights=weights,
        reference_probability=shifted(left_out, share),
        reference_odds=np.round(left_out, _DECIMALS),
        reference_errors=_reference_errors(left_out, evidence.labels, weights),
    )


def _reference_errors(
    odds: NDArray[np.float64], labels: NDArray[np.integer], weights: NDArray[np.float64]
) -> float:
    """The share of wrong labels among the reference images themselves, from odds (r, C)."""
    rows = np.arange(len(labels))
    wrong = weights.copy()
    wrong[rows, labels] = 0.0
    return share_among(odds[rows, labels], odds.ravel(), wrong.ravel())


def share_among(
    given: NDArray[np.float64], planted: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    """The largest share of planted errors that fits among given labels.

    At no level may there be more planted errors beyond it than given labels are as suspicious.

    Args:
        given: (n,) suspicion of the given labels.
        planted: (p,) suspicion of the planted ones.
        weights: (p,) their weights.
    """
    order = np.argsort(planted, kind="stable")
    below = np.cumsum(weights[order]) / weights.sum()
    shares = []
    for level in _LEVELS:
        place = min(int(np.searchsorted(below, level)), len(order) - 1)
        beyond = float((given > planted[order[place]]).mean())
        shares.append(beyond / max(1 - below[place], 1e-9))
    return float(min(1.0, *shares))


def wrong_odds(evidence: Evidence) -> NDArray[np.float64]:
    """(n,) log odds of a wrong label, at the planted share; arguments as in `judge`."""
    weights = label_weights(evidence.labels, evidence.probe.reference_predictions)
    model = error_model(evidence, weights, np.arange(len(weights)))
    return model.decision_function(evidence.given)


def error_model(evidence: Evidence, weights: NDArray[np.float64], rows: NDArray[np.intp]) -> Any:
    """The logistic model that tells wrong labels from others, fitted to some reference images.

    Args:
        evidence: of the reference images.
        weights: (r, C) of their labels.
        rows: those that are used; one may occur several times.
    """
    num_classes = weights.shape[1]
    weight = weights[rows].ravel()
    used = weight > 0
    wrong = (np.arange(num_classes) != evidence.labels[rows, np.newaxis]).ravel()
    x = evidence.reference[rows].reshape(-1, len(evidence.names))[used]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return model.fit(
        x,
        wrong[used],
        standardscaler__sample_weight=weight[used],
        logisticregression__sample_weight=weight[used],
    )


def left_out_odds(evidence: Evidence, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r, C) log odds of reference images with each label, by models that have not seen them."""
    fold_of, found = _fold_of(evidence.labels), np.empty(weights.shape)
    for fold in np.unique(fold_of):
        test = fold_of == fold
        model = error_model(evidence, weights, np.flatnonzero(~test))
        cases = evidence.reference[test].reshape(-1, len(evidence.names))
        found[test] = model.decision_function(cases).reshape(-1, weights.shape[1])
    return found


def _fold_of(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """(r,) fold of each reference image; every class is dealt out in turn."""
    fold = np.empty(len(labels), dtype=np.intp)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % _FOLDS
    return fold


def shifted(
    odds: NDArray[np.float64], share: float, planted: float = PLANTED_SHARE
) -> NDArray[np.float64]:
    """Probabilities at another share of wrong labels than the planted one.

    Args:
        odds: log odds at the planted share.
        share: the share of wrong labels.
        planted: the planted share.
    """
    if share in (0.0, 1.0):
        return np.full(odds.shape, share)
    shift = np.log(share / (1 - share)) - np.log(planted / (1 - planted))
    return np.round(1 / (1 + np.exp(-np.clip(odds + shift, -500, 500))), _DECIMALS)


def likeliest_share(odds: NDArray[np.float64], planted: float = PLANTED_SHARE) -> float:
    """The likeliest share of wrong labels, which expectation maximization converges to.

    Args:
        odds: log odds at the planted share.
        planted: that share.
    """
    ratio = np.exp(np.clip(odds, -30, 30)) * (1 - planted) / planted

    def slope(share: float) -> float:  # of the mean log likelihood; it only falls
        return float(((ratio - 1) / (share * ratio + 1 - share)).mean())

    if slope(0.0) <= 0:
        return 0.0
    if slope(1.0) >= 0:
        return 1.0
    return float(brentq(slope, 0.0, 1.0))


def _resampled(
    evidence: Evidence,
    weights: NDArray[np.float64],
    y: NDArray[np.integer],
    judged: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of wrong labels, in all (b,) and by class (b, C), with resampled images.

    Both the reference and the judged training images are drawn anew.
    """
    rng = np.random.default_rng(0)
    num_classes = weights.shape[1]
    shares, by_class = np.empty(_RESAMPLES), np.full((_RESAMPLES, num_classes), np.nan)
    by_label = [np.flatnonzero(evidence.labels == c) for c in np.unique(evidence.labels)]
    for b in range(_RESAMPLES):
        rows = np.concatenate([rng.choice(group, len(group)) for group in by_label])
        odds = error_model(evidence, weights, rows).decision_function(evidence.given)
        drawn = judged[rng.integers(len(judged), size=len(judged))]
        shares[b] = likeliest_share(odds[drawn])
        wrong, labels = shifted(odds[drawn], shares[b]), y[drawn]
        counts = np.bincount(labels, minlength=num_classes)
        sums = np.bincount(labels, weights=wrong, minlength=num_classes)
        by_class[b] = np.divide(sums, counts, out=by_class[b], where=counts > 0)
    return shares, by_class


def _interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return Interval(value, np.nan, np.nan)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(value, float(min(low, value)), float(max(high, value)))
