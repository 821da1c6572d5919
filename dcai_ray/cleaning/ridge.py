"""Leave-one-out predictions of a ridge probe: what all other images say about an image's label.

Least squares for targets Y (N, T) such as one-hot labels, with standardized features X (N, d), a
known intercept c, a weight w_i per point and a penalty l on the squared length of the coefficients.
With X centred by the weighted mean, Z = sqrt(w) X V for the eigenvectors V of X' w X, and their
eigenvalues e:

    fit         f_i = c + sum_k z_ik (Z' sqrt(w) (Y - c))_k / (e_k + l) / sqrt(w_i)
    leverage    h_i = sum_k z_ik^2 / (e_k + l)
    left out    f_-i = c + (f_i - c - h_i (Y_i - c)) / (1 - h_i)

exactly as if the model were fitted again without point i. One eigendecomposition serves every
penalty: O(N d^2), no folds, no randomness.

The intercept is known, as the weights fix the frequencies of the classes. If it were estimated, a
class would be a little rarer for its own images than for all others, each time that one is left
out: a mark of the label that an image has, right or wrong, which a model could learn to read.

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
    centre: NDArray[np.floating],
    penalties: Sequence[float],
) -> Iterator[NDArray[np.float64]]:
    """(N, T) prediction for every point by the model fitted to all others; one per penalty.

    Args:
        x: (N, d) features; standardized here.
        targets: (N, T).
        weights: (N,) positive; scaled here to mean 1.
        centre: (T,) c above.
        penalties: l above, in units of N; positive.
    """
    count = len(targets)
    w = weights / weights.mean()
    z = x - np.average(x, axis=0, weights=w)  # (N, d) float64
    spread = np.sqrt(np.einsum("nd,nd,n->d", z, z, w) / count)
    root = np.sqrt(w)[:, np.newaxis]
    constant = spread <= _CONSTANT * np.abs(x).max(axis=0)
    z /= np.where(constant, 1.0, spread)
    z *= root
    aside = targets - centre
    eigenvalues, vectors = np.linalg.eigh(z.T @ z)
    z = z @ vectors
    projected = z.T @ (root * aside)  # (d, T)
    for penalty in penalties:
        shrunk = 1 / (np.maximum(eigenvalues, 0) + penalty * count)
        leverage = np.einsum("nd,nd,d->n", z, z, shrunk)[:, np.newaxis]
        fit = (z @ (shrunk[:, np.newaxis] * projected)) / root
        yield np.round(centre + (fit - leverage * aside) / (1 - leverage), _DECIMALS)


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
