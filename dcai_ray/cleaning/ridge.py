"""Leave-one-out predictions of a ridge probe: what all other images say about an image's label.

Least squares for targets Y (N, T) such as one-hot labels, with standardized features X (N, d), an
intercept that is not penalized, a weight w_i per point and a penalty l on the squared length of the
coefficients. With X centred by the weighted mean, W = sum of w, Z = sqrt(w) X V for the
eigenvectors V of X' w X, their eigenvalues e, and c the weighted mean of Y:

    fit         f_i = c + sum_k z_ik (Z' sqrt(w) (Y - c))_k / (e_k + l) / sqrt(w_i)
    leverage    h_i = w_i / W + sum_k z_ik^2 / (e_k + l)
    left out    f_-i = (f_i - h_i Y_i) / (1 - h_i) + w_i (Y_i - c) / (W - w_i)

exactly as if the model were fitted again without point i, to targets of the others that are moved
to the mean c of all. One eigendecomposition serves every penalty: O(N d^2), no folds, no
randomness.

Without that move a class would be a little rarer for its own images than for all others, each time
that one is left out: a mark of the label that an image has, right or wrong, which a model could
learn to read. An intercept that is held at c instead leaves the opposite mark, w_i / W times
h_i / (1 - h_i): where features outnumber points, leverages are near 1, and every label looks right.

A point may have copies, which would vouch for it. With it they are the group G that is left out, by
the same algebra for the block H_GG of leverages between its points:

    H_ij        sqrt(w_i w_j) / W + sum_k z_ik z_jk / (e_k + l)
    left out    f_-G = Y_G - s^-1 (I - H_GG)^-1 s (Y_G - f_G) + w_G' (Y_G - c) / (W - sum of w_G)

with s the diagonal matrix of sqrt(w_G).

Source: Allen 1974, Technometrics 16(1) (PRESS).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_DECIMALS = 9
"""Predictions are rounded to this, so that the BLAS at hand does not show in what follows."""
_CONSTANT = 1e-12  # spread of a feature, relative to its largest value, that is mere rounding


def left_out_predictions(
    x: NDArray[np.floating],
    targets: NDArray[np.floating],
    weights: NDArray[np.floating],
    penalties: Sequence[float],
    copies: NDArray[np.integer] | None = None,
) -> Iterator[NDArray[np.float64]]:
    """(N, T) prediction for every point by the model fitted to all others; one per penalty.

    Args:
        x: (N, d) features; standardized here.
        targets: (N, T).
        weights: (N,) positive; scaled here to mean 1.
        penalties: l above, in units of N; positive.
        copies: (p, 2) pairs of a point and another that is left out with it. A point with which all
            others would be left out is left out alone.
    """
    groups = _groups(copies, len(targets))
    count = len(targets)
    w = weights / weights.mean()
    z = x - np.average(x, axis=0, weights=w)  # (N, d) float64
    spread = np.sqrt(np.einsum("nd,nd,n->d", z, z, w) / count)
    root = np.sqrt(w)[:, np.newaxis]
    constant = spread <= _CONSTANT * np.abs(x).max(axis=0)
    z /= np.where(constant, 1.0, spread)
    z *= root
    centre = np.average(targets, axis=0, weights=w)
    aside = targets - centre
    moved = centre + (w / (count - w))[:, np.newaxis] * aside
    eigenvalues, vectors = np.linalg.eigh(z.T @ z)
    z = z @ vectors
    projected = z.T @ (root * aside)  # (d, T)
    for penalty in penalties:
        shrunk = 1 / (np.maximum(eigenvalues, 0) + penalty * count)
        leverage = (w / count + np.einsum("nd,nd,d->n", z, z, shrunk))[:, np.newaxis]
        fit = (z @ (shrunk[:, np.newaxis] * projected)) / root
        found = moved + (fit - leverage * aside) / (1 - leverage)
        for group, points in groups.items():
            together = np.array(group)
            place = np.searchsorted(together, points)
            scale, own = root[together], aside[together]
            block = scale @ scale.T / count + (z[together] * shrunk) @ z[together].T
            rest = np.eye(len(group)) - block
            residual = np.linalg.solve(rest, scale * (own - fit[together])) / scale
            gone = w[together]
            shift = gone @ own / (count - gone.sum())
            found[points] = (centre + own - residual + shift)[place]
        yield np.round(found, _DECIMALS)


def _groups(copies: NDArray[np.integer] | None, count: int) -> dict[tuple[int, ...], list[int]]:
    """The points of each group that is left out for them: itself and its copies, sorted."""
    if copies is None or not len(copies):
        return {}
    pairs = np.unique(copies, axis=0)
    points, starts = np.unique(pairs[:, 0], return_index=True)
    groups: dict[tuple[int, ...], list[int]] = {}
    for point, others in zip(points.tolist(), np.split(pairs[:, 1], starts[1:]), strict=True):
        group = tuple(sorted({point, *others.tolist()}))
        if 1 < len(group) < count:
            groups.setdefault(group, []).append(point)
    return groups


def margins(predictions: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """(...) prediction for the label less the largest of the others.

    Args:
        predictions: (..., C).
        labels: (...) class numbers.
    """
    own = np.take_along_axis(predictions, labels[..., np.newaxis], axis=-1)[..., 0]
    others = predictions.copy()
    np.put_along_axis(others, labels[..., np.newaxis], -np.inf, axis=-1)
    return own - others.max(axis=-1)
