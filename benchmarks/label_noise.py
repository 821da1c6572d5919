"""Wrong labels made on purpose, and class ratios.

Letters as in `dcai_ray.valuation`: n training images, d features, C classes. Every maker takes the
true class numbers (n,) and returns labels (n,), of which some are wrong.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from dcai_ray.cleaning.nearest import neighbours

Labels = NDArray[np.int64]
_NEAREST = 10
_CLUSTERS = 5  # a cluster then holds about 20 % of its class


def flipped(truth: Labels, share: float, rng: np.random.Generator) -> Labels:
    """That share of the labels becomes any other class, all alike."""
    classes = int(truth.max()) + 1
    chosen, given = _chosen(truth, share, rng), truth.copy()
    given[chosen] = (truth[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return given


def paired(truth: Labels, share: float, rng: np.random.Generator) -> Labels:
    """That share of the labels becomes the next class: c + 1, and after the last the first."""
    chosen, given = _chosen(truth, share, rng), truth.copy()
    given[chosen] = (truth[chosen] + 1) % (int(truth.max()) + 1)
    return given


def look_alike(
    x: NDArray[np.floating], truth: Labels, share: float, rng: np.random.Generator
) -> Labels:
    """That share becomes the class that most of the 10 nearest images of other classes have."""
    chosen, given = _chosen(truth, share, rng), truth.copy()
    for c in np.unique(truth[chosen]):
        own, others = chosen[truth[chosen] == c], np.flatnonzero(truth != c)
        near = neighbours(x[own], x[others], min(_NEAREST, len(others)), "cosine")
        votes = [np.bincount(truth[others[row]]).argmax() for row in near]
        given[own] = votes
    return given


def structured(x: NDArray[np.floating], truth: Labels, rng: np.random.Generator) -> Labels:
    """Of each class, the cluster of features nearest to a fifth of it becomes one other class."""
    classes, given = int(truth.max()) + 1, truth.copy()
    for c in range(classes):
        own = np.flatnonzero(truth == c)
        seed = int(rng.integers(2**31))
        cluster = KMeans(min(_CLUSTERS, len(own)), n_init=3, random_state=seed).fit_predict(x[own])
        sizes = np.bincount(cluster)
        chosen = np.abs(sizes - len(own) / _CLUSTERS).argmin()
        given[own[cluster == chosen]] = (c + rng.integers(1, classes)) % classes
    return given


def thinned(y: Labels, ratio: float, least: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Sorted indices without most images of every other class: 1 / ratio of it stays.

    Args:
        y: (n,) class numbers; the odd ones are thinned.
        ratio: of the images of a class before and after.
        least: so many images of a class stay, if it has them.
    """
    kept: list[Any] = []
    for c in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == c))
        kept.append(own[: max(least, round(len(own) / ratio))] if c % 2 else own)
    return np.sort(np.concatenate(kept))


def _chosen(truth: Labels, share: float, rng: np.random.Generator) -> NDArray[np.intp]:
    return np.sort(rng.permutation(len(truth))[: round(share * len(truth))])
