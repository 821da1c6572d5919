"""Pictures that occur twice under different labels: one of the two labels is certainly wrong.

Two files that decode to the same pixels show *the same* picture. Two pictures are *nearly* the same
if the cosine of their centred features is at least `SIMILAR`, and *alike* if it is at least
`ALIKE`, both only if they are nearer than different pictures come by chance: with distance
d = 1 - cosine, d_5 the distance of the fifth neighbour and D the dimension of the features,

    P(d_1 <= r d_5) = 1 - (1 - r^(D/2))^4 <= 4 r^(D/2)

for points that lie anywhere alike around a picture: a ball of radius sqrt(d) holds a share
d^(D/2) of its neighbours. So a pair is alike if d <= r d_5 with n 4 r^(D/2) = `CHANCE`: among n
training images, `CHANCE` pairs are expected where no picture occurs twice. D is that of the data
itself: by the same formula (d_2 / d_5)^(D/2) has the distribution Beta(2, 3), and so its median.
A burst of g + 1 pictures lies within each other's fifth neighbour. The first g neighbours are
alike, too, if d_g <= r d_{g+4}: by chance that is rarer, (d_g / d_{g+4})^(D/2) having the
distribution Beta(g, 4). g is bounded, as a whole class may be alike to a network.

Features of few dimensions, or those of a network for which all images of a class are alike,
therefore have no such pairs.

Source: Facco et al. 2017, Sci. Rep. 7, 12140 (dimension by ratios of neighbour distances), with the
second and fifth neighbour instead of the first and second: a copy may be the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import beta

from dcai_ray.cleaning.choices import Choice
from dcai_ray.cleaning.rules import rule_named
from dcai_ray.cleaning.safeguards import keep_every_class
from dcai_ray.valuation.neighbours import aligned

SIMILAR = 0.95
"""Smallest cosine of a near copy. Saved again as JPEG of quality 75, 93 % of photos of 160 pixels
keep it (EfficientNet-Lite0), and only 38 % keep .98. Of 13 million pairs of different pictures
(cats and dogs, CIFAR-10) none exceeds .86. Pixels of digits do: 88 pairs of 1.6 million exceed .95,
two of them .98, one .99; `CHANCE` leaves none."""
CHANCE = 0.1
"""Pairs of different pictures that are expected to be near, in a whole training set."""

ALIKE = 0.75
"""Smallest cosine of pictures that do not judge each other: frames of a burst, crops of a photo.
The gap to all other pictures tells them, so they need not be as near as two pictures of which one
label must be wrong: missing a judge or two costs little, a burst that vouches for itself much."""

_FIFTH = 5  # neighbours
_SAMPLE = 1000  # images that the dimension is estimated from
_LARGEST_RATIO = 0.5  # r: in hundreds of dimensions any two pictures are about equally far apart
_MOST_COPIES = 31
_LARGEST_GROUP = 1000  # of equal pictures whose pairs are listed: of more it is a placeholder
_ROUNDING = 2e-6  # of a cosine in float32
_TILE_BYTES = 64 * 2**20
_PAIRS_AT_ONCE = 4096

Pairs = NDArray[np.intp]  # (p, 2) a training image, and a picture like it: training image or n + j


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Features that tell which pictures are alike."""

    x: NDArray[np.float32]  # (n + m, d) training, then clean images; centred, of length 1
    num_train: int
    """n."""
    first: int
    """The first picture that training images are compared with: 0, or n for the clean ones only."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Conflicts:
    """Which training images occur under another label."""

    other: NDArray[np.intp]
    """(n,) the first such picture, clean ones before training images and the same before nearly the
    same: a training image, or n + j for the j-th clean one; -1 for none."""
    same: NDArray[np.bool_]  # (n,) whether that one has the same pixels
    refuted: NDArray[np.bool_]
    """(n,) whether clean copies have another label and none has that of the image."""
    pairs: Pairs  # of training images in conflict with each other

    @property
    def found(self) -> NDArray[np.bool_]:
        """(n,) whether an image is in conflict with any other."""
        return self.other >= 0


def pictures(
    x_train: NDArray[np.floating], x_clean: NDArray[np.floating], *, among_train: bool
) -> Pictures:
    """Prepare features for comparison.

    Args:
        x_train: (n, d); centred here by their mean.
        x_clean: (m, d); m may be 0.
        among_train: whether training images are also compared with each other.
    """
    train, clean, _, _ = aligned(x_train, x_clean, "cosine")
    x = np.concatenate([train, clean]).astype(np.float32)
    return Pictures(x, len(train), 0 if among_train else len(train))


def distance_ratio(points: Pictures) -> float:
    """r, the share of the distance of the fifth neighbour within which a picture is near.

    It is 0 where there are too few pictures to tell.
    """
    n = points.num_train
    if len(points.x) - points.first <= _FIFTH:
        return 0.0
    rows = np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.intp))
    second, fifth = [], []
    height = _height(points)
    for start in range(0, len(rows), height):
        distance = _distances(points, rows[start : start + height])
        nearest = np.partition(distance, (1, _FIFTH - 1), axis=1)
        second.append(nearest[:, 1])
        fifth.append(nearest[:, _FIFTH - 1])
    median = float(np.median(np.concatenate(second) / np.concatenate(fifth)))
    half_dimension = np.log(beta.ppf(0.5, 2, _FIFTH - 2)) / min(np.log(median), -1e-9)
    return float(min(_LARGEST_RATIO, (CHANCE / (4 * n)) ** (1 / half_dimension)))


def alike_pairs(points: Pictures, rows: slice, ratio: float, most_copies: int = 1) -> Pairs:
    """The pictures that are alike to some of the training images; `nearly_same` of them are copies.

    Args:
        points: what is compared.
        rows: training images.
        ratio: r, of `distance_ratio`.
        most_copies: g, the copies that a picture may have at most; of more, none is alike.
    """
    nearest = min(max(most_copies, 1) + _FIFTH - 1, len(points.x) - points.first - 1)
    found = [np.empty((0, 2), np.intp)]
    height = _height(points)
    for start in range(rows.start, rows.stop if ratio > 0 else rows.start, height):
        tile = np.arange(start, min(start + height, rows.stop))
        distance = _distances(points, tile)
        candidates = np.flatnonzero((distance <= 1 - ALIKE).any(axis=1))
        distance = distance[candidates]
        few = np.sort(np.partition(distance, nearest - 1, axis=1)[:, :nearest], axis=1)
        limit = ratio * few[:, _FIFTH - 1]
        for last, beyond in enumerate(range(_FIFTH - 1, nearest)):  # g = last + 1
            is_gap = few[:, last] <= ratio * few[:, beyond]
            limit = np.where(is_gap, np.maximum(limit, few[:, last]), limit)
        row, column = np.nonzero(distance <= np.minimum(limit, 1 - ALIKE)[:, np.newaxis])
        found.append(np.stack([tile[candidates[row]], points.first + column], axis=1))
    return np.concatenate(found)


def nearly_same(points: Pictures, alike: Pairs) -> NDArray[np.bool_]:
    """(p,) which of these pairs are so near that two labels contradict each other."""
    found = np.empty(len(alike), dtype=np.bool_)
    for start in range(0, len(alike), _PAIRS_AT_ONCE):
        one, other = alike[start : start + _PAIRS_AT_ONCE].T
        cosine = np.einsum("pd,pd->p", points.x[one], points.x[other])
        found[start : start + _PAIRS_AT_ONCE] = cosine >= np.float32(SIMILAR)
    return found


def no_judges(
    alike: Pairs, same: NDArray[np.bool_], labels: NDArray[np.integer], most_copies: int
) -> Pairs:
    """Pairs of pictures that should not judge each other's label.

    All copies; and all pictures of a group that is linked by what is alike, as the first and the
    last frame of a burst are by those between them. A group is passed over if it is larger than a
    burst may be, or makes up more than a quarter of a class: that is a rare class that a network
    tells well from the others.

    Args:
        alike: of `alike_pairs`.
        same: of `nearly_same`.
        labels: class numbers of all pictures.
        most_copies: as in `alike_pairs`.
    """
    size, found = np.bincount(labels), [alike[same]]
    for group in _groups(alike, len(labels)):
        label, count = np.unique(labels[group], return_counts=True)
        if len(group) <= most_copies + 1 and (4 * (count - 1) <= size[label]).all():
            found.append(np.array(list(permutations(group.tolist(), 2))))
    return np.unique(np.concatenate(found), axis=0)


def _height(points: Pictures) -> int:
    return max(1, _TILE_BYTES // (4 * (len(points.x) - points.first)))


def _distances(points: Pictures, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """(q, k) 1 - cosine, at least `_ROUNDING`; infinite for a picture and itself."""
    cosine = points.x[rows] @ points.x[points.first :].T
    distance = np.maximum(np.subtract(1, cosine, out=cosine), np.float32(_ROUNDING), out=cosine)
    if points.first == 0:
        distance[np.arange(len(rows)), rows] = np.inf
    return distance


def most_copies(num_train: int, num_classes: int) -> int:
    """How many copies of a picture are looked for: a part of a class, not all of it."""
    return max(1, min(_MOST_COPIES, num_train // (4 * num_classes)))


def copies_of_each(same: Sequence[str], alike: Pairs) -> Pairs:
    """Pairs of images that show the same or what is alike, whatever their labels, both ways.

    Args:
        same: hashes of all images; empty if they are unknown.
        alike: of `alike_pairs`.
    """
    groups: dict[str, list[int]] = {}
    for i, content in enumerate(same):
        groups.setdefault(content, []).append(i)
    found = [
        pair
        for group in groups.values()
        if len(group) <= _LARGEST_GROUP
        for pair in permutations(group, 2)
    ]
    return np.concatenate([alike, alike[:, ::-1], np.array(found, dtype=np.intp).reshape(-1, 2)])


def same_pairs(contents: Sequence[str], labels: NDArray[np.integer], num_train: int) -> Pairs:
    """Pictures with the same pixels as a training image; of each label the first one is enough.

    Args:
        contents: (n + m,) hashes of training images, then of clean ones.
        labels: (n + m,) class numbers.
        num_train: n.
    """
    groups: dict[str, list[int]] = {}
    for i, content in enumerate(contents):
        groups.setdefault(content, []).append(i)
    pairs = []
    for group in groups.values():
        if len(group) > 1 and group[0] < num_train:
            first = {(i >= num_train, int(labels[i])): i for i in reversed(group)}.values()
            pairs += [(i, j) for i in group if i < num_train for j in first if j != i]
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


def conflicts(same: Pairs, near: Pairs, labels: NDArray[np.integer], num_train: int) -> Conflicts:
    """Which of these copies have other labels.

    Where there are clean copies with the same pixels, clean ones that are only nearly the same
    refute nothing.

    Args:
        same: pairs with the same pixels.
        near: pairs that are nearly the same.
        labels: (n + m,) class numbers of training images, then of clean ones.
        num_train: n.
    """
    n = num_train
    pairs = np.concatenate([same, near, near[near[:, 1] < n][:, ::-1]])
    is_same = np.arange(len(pairs)) < len(same)
    is_clean = pairs[:, 1] >= n
    differs = labels[pairs[:, 0]] != labels[pairs[:, 1]]

    def any_of(chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.isin(np.arange(n), pairs[chosen, 0])

    decides = is_clean & (is_same | ~any_of(is_clean & is_same)[pairs[:, 0]])
    order = np.lexsort((pairs[:, 1], ~is_same, ~is_clean))
    order = order[differs[order]]
    image, place = np.unique(pairs[order, 0], return_index=True)
    other, by_bytes = np.full(n, -1), np.zeros(n, dtype=bool)
    other[image], by_bytes[image] = pairs[order[place], 1], is_same[order[place]]
    return Conflicts(
        other=other,
        same=by_bytes,
        refuted=any_of(decides & differs) & ~any_of(decides & ~differs),
        pairs=pairs[differs & ~is_clean],
    )


def described(found: Conflicts, labels: Sequence[str], names: Sequence[str]) -> NDArray[np.object_]:
    """(n,) the conflict of each training image in words; None where there is none.

    Args:
        found: the conflicts of n training images.
        labels: (n + m,) class names of training images, then of clean ones.
        names: (n + m,) what they are called.
    """
    words = np.full(len(found.other), None, dtype=object)
    for i in np.flatnonzero(found.found):
        how, j = "same" if found.same[i] else "nearly the same", found.other[i]
        words[i] = f"{how} picture as {names[j]}, labelled {labels[j]}"
    return words


def resolved(
    choice: Choice,
    found: Conflicts,
    y: NDArray[np.integer],
    classes: Sequence[str],
    labels: Sequence[str],
    words: NDArray[np.object_],
) -> Choice:
    """The choice with what copies say: they overrule a rule that judges labels.

    An image that clean copies refute is dropped. Training images in conflict with each other are
    left undecided, unless the rule keeps exactly one of their labels: the conflict alone says that
    one is wrong, but not which.

    Args:
        choice: the choice of a rule, with its reasons.
        found: the conflicts of the n images.
        y: (n,) class numbers as given.
        classes: the names of the C classes.
        labels: (n + m,) class names of training images, then of clean ones.
        words: (n,) of `described`.
    """
    if not rule_named(choice.rule).judges_labels or not found.found.any():
        return choice
    decision = choice.decision.astype(object)
    reason = np.full(len(y), "", object) if choice.reason is None else choice.reason.astype(object)
    for i in np.flatnonzero(found.refuted):
        decision[i], reason[i] = "drop", f"clean copy is labelled {labels[found.other[i]]}"
    for group in _groups(found.pairs, len(y)):
        if len(np.unique(y[group[decision[group] != "drop"]])) != 1:
            for i in group[~found.refuted[group]]:
                decision[i], reason[i] = "undecided", f"{words[i]}; one of the two is wrong"
    keep_every_class(decision, reason, y, classes)
    return replace(choice, decision=decision.astype(str), reason=reason.astype(str))


def _groups(pairs: Pairs, num_points: int) -> list[NDArray[np.intp]]:
    """Training images that are linked by conflicts, group by group."""
    links = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(num_points, num_points))
    number = connected_components(links, directed=False)[1]
    members = np.unique(pairs)
    members = members[np.argsort(number[members], kind="stable")]
    return np.split(members, np.flatnonzero(np.diff(number[members])) + 1) if len(members) else []
