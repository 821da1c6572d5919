"""The rivals of detection.py that need no other package: how suspicious each label is to them.

Every score (n,) is higher for a label that is more likely wrong. Rivals with a clean set use it;
those without are the rivals of an audit.
"""

import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from detection_sets import Case
from label_noise import Labels
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from dcai_ray.cleaning.nearest import neighbours

Scores = NDArray[np.float64]
_FOLDS = 5
_CLEAN_WEIGHT = 3.0  # of a clean image in a probe's loss, relative to a training image
_NEAREST = 10
_TINY = 1e-6
_ALONE = ", alone"
LIMIT = "oracle probe"
"""No rival: it knows the true labels."""


def cross_fitted(
    x: NDArray[np.floating],
    y: Labels,
    x_clean: NDArray[np.floating],
    y_clean: Labels,
    *,
    penalty: float,
    seed: int,
) -> NDArray[np.float64]:
    """(n, C) probabilities of logistic probes that were fitted without the image's fold.

    Args:
        x: (n, d).
        y: (n,) class numbers.
        x_clean: (m, d), in the fit of every fold; m may be 0.
        y_clean: (m,).
        penalty: C of the logistic regression, on standardized features.
        seed: of the folds.
    """
    found = np.zeros((len(y), int(max(y.max(), y_clean.max(initial=0))) + 1))
    weights = np.r_[np.ones(len(y)), np.full(len(y_clean), _CLEAN_WEIGHT)]
    everything, labels = np.concatenate([x, x_clean]), np.concatenate([y, y_clean])
    clean = np.arange(len(y), len(labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes of fewer images than folds
        folds = list(StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(x, y))

    def fit(fold: Any) -> tuple[Labels, NDArray[np.float64]]:
        used = np.r_[fold[0], clean]
        return _probabilities(everything[used], labels[used], weights[used], x[fold[1]], penalty)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for (_, fold), (classes, p) in zip(folds, threads.map(fit, folds), strict=True):
            found[np.ix_(fold, classes)] = p
    return found


def scores(case: Case) -> dict[str, Scores]:
    """Scores (n,) by name, and the out-of-fold probabilities (n, C) that the peers take.

    Where the truth is known there is the limit too, a probe cross-fitted on the true labels.
    """
    x, y, clean = case.x, case.y, (case.x_clean, case.y_clean)
    none = (case.x_clean[:0], case.y_clean[:0])
    fits = {
        (with_clean, penalty): cross_fitted(
            x, y, *(clean if with_clean else none), penalty=penalty, seed=case.seed
        )
        for with_clean in (True, False)
        for penalty in (0.01, 0.001)
    }
    found = {"probabilities": fits[True, 0.01], f"probabilities{_ALONE}": fits[False, 0.01]}
    for (with_clean, penalty), p in fits.items():
        found[f"probe, C = {penalty}{'' if with_clean else _ALONE}"] = -_margin(p, y)
    classes, p = _probabilities(*clean, np.ones(len(clean[1])), x, 0.01)
    on_clean = np.zeros((len(y), len(case.classes)))
    on_clean[:, classes] = p
    found["probe on clean alone"] = -_margin(on_clean, y)
    found["10-NN vote"] = -vote(x, y, *clean)
    found[f"10-NN vote{_ALONE}"] = -vote(x, y, *none)
    rng = np.random.default_rng([case.seed, 2])
    found["random"] = rng.random(len(y))
    if case.truth is not None:
        limit = cross_fitted(x, case.truth, *clean, penalty=0.01, seed=case.seed)
        found[LIMIT] = -_margin(limit, y)
    return found


def vote(
    x: NDArray[np.floating], y: Labels, x_clean: NDArray[np.floating], y_clean: Labels
) -> Scores:
    """(n,) the share of the 10 nearest other images, of train and clean, with the given label."""
    everything, labels = np.concatenate([x, x_clean]), np.concatenate([y, y_clean])
    near = neighbours(x, everything, _NEAREST, "cosine", left_out=np.arange(len(y)))
    return (labels[near] == y[:, None]).mean(axis=1)


def _margin(p: NDArray[np.float64], y: Labels) -> Scores:
    """(n,) log probability of the given class minus that of the likeliest other."""
    log, rows = np.log(p + _TINY), np.arange(len(y))
    own = log[rows, y]
    log[rows, y] = -np.inf
    return own - log.max(axis=1)


def _probabilities(
    x: NDArray[np.floating],
    y: Labels,
    weights: NDArray[np.float64],
    x_to: NDArray[np.floating],
    penalty: float,
) -> tuple[Labels, NDArray[np.float64]]:
    """The classes of a fitted probe and their probabilities for `x_to`."""
    scale = StandardScaler().fit(x.astype(np.float64))
    probe = LogisticRegression(C=penalty, max_iter=2000)
    probe.fit(scale.transform(x.astype(np.float64)), y, sample_weight=weights)
    return probe.classes_, probe.predict_proba(scale.transform(x_to.astype(np.float64)))


def with_clean(found: Mapping[str, Scores]) -> dict[str, Scores]:
    """The scores that use the clean set."""
    return {name: s for name, s in found.items() if _is_score(s) and not name.endswith(_ALONE)}


def alone(found: Mapping[str, Scores]) -> dict[str, Scores]:
    """The scores that do without, under the names of those that use it; and the limit."""
    return {
        name.removesuffix(_ALONE): s
        for name, s in found.items()
        if _is_score(s) and (name.endswith(_ALONE) or name in ("random", LIMIT))
    }


def _is_score(array: NDArray[Any]) -> bool:
    return array.ndim == 1 and array.dtype.kind == "f"
