"""Numba kernels of `logistic`: damped Newton steps with a Cholesky factor kept from fit to fit."""

import numba
import numpy as np

_TOLERANCE = 1e-10  # of |grad F|
_ROUNDING = 4e-15  # of a sum, relative to the sum of the absolute values of its terms
_KEEP_FACTOR = 0.05  # a step that leaves more of the gradient calls for a new Hessian
_MIN_STEP = 2.0**-60
_MAX_STEPS = 1000  # far more than any fit takes: a dozen from 0, two to four along an order


@numba.njit(cache=True, nogil=True)
def fit(rows, columns, targets, size, penalty, weights, factor):  # type: ignore[no-untyped-def]
    """Bring `weights` (R, p) to the minimum, in place, and keep `factor` up with it.

    Args:
        rows: (t, p) an order.
        columns: (p, t) the same, transposed.
        targets: (t,) class numbers in 0..K-1; R = 1 for K = 2, else K.
        size: k, the coalition is the first of the order.
        penalty: 1 / c.
        weights: (R, p) where to start.
        factor: (R p, R p) lower Cholesky factor of the Hessian somewhere near; all 0 for none.
    Returns:
        0, or the norm of the gradient that is left if it does not fall any more.
    """
    num_logits, width = weights.shape
    floor = 0.0
    for j in range(size):
        for a in range(width):
            floor += abs(rows[j, a])
    tolerance = _TOLERANCE + _ROUNDING * floor
    offs = np.empty((num_logits, size))
    gradient, trial = np.empty((num_logits, width)), np.empty((num_logits, width))
    fresh = factor[0, 0] == 0.0
    loss, norm = _gradient(rows, columns, targets, penalty, weights, fresh, offs, gradient)
    for _ in range(_MAX_STEPS):
        if norm <= tolerance:
            return 0.0
        if fresh:
            _factorise(rows, offs, targets, penalty, factor)
        direction = _solve(factor, gradient.ravel()).reshape(num_logits, width)
        slope = np.sum(direction * gradient)
        step = 1.0
        while True:
            for r in range(num_logits):
                for a in range(width):
                    trial[r, a] = weights[r, a] - step * direction[r, a]
            found, left = _gradient(rows, columns, targets, penalty, trial, fresh, offs, gradient)
            if not fresh or step < _MIN_STEP:
                break
            # Near the minimum F is flat but for rounding errors, and whole steps are right.
            if found <= loss * (1.0 + 1e-13) - 1e-4 * step * slope:
                break
            step /= 2.0
        if step < _MIN_STEP:
            break
        enough = left <= _KEEP_FACTOR * norm
        if fresh or left < norm:
            weights[:] = trial
            loss, norm = found, left
        if not fresh and not enough:  # the next step asks for F
            loss, norm = _gradient(rows, columns, targets, penalty, weights, True, offs, gradient)
        fresh = not enough
    # Where F falls no more its gradient is rounding errors, if larger ones than foreseen.
    return 0.0 if norm <= 100.0 * tolerance else norm


@numba.njit(cache=True, nogil=True)
def _gradient(  # type: ignore[no-untyped-def]
    rows, columns, targets, penalty, weights, with_loss, offs, gradient
):
    """Fill `gradient` (R, p) of F and `offs` (R, k), probabilities less targets; F and the norm.

    Without `with_loss` F is not to be used: the logarithms are left out.
    """
    num_logits, width = weights.shape
    _logits(weights, columns, offs)
    loss = 0.0
    for j in range(offs.shape[1]):
        # The one row of two classes is the second's; the first's logit is 0.
        row = targets[j] if num_logits > 1 else 0
        hit = 1.0 if num_logits > 1 else float(targets[j])
        loss -= hit * offs[row, j]
        most, total = _logits_to_probabilities(offs, j)
        if with_loss:
            loss += most + np.log(total)
        offs[row, j] -= hit
    intercepts = 0.0  # half their squared sum is added to F: 0 at the minimum, and no minimum twice
    if num_logits > 1:
        for r in range(num_logits):
            intercepts += weights[r, width - 1]
    loss += 0.5 * intercepts * intercepts
    square = 0.0
    for r in range(num_logits):
        for a in range(width - 1):
            gradient[r, a] = penalty * weights[r, a]
            loss += 0.5 * penalty * weights[r, a] * weights[r, a]
        gradient[r, width - 1] = intercepts
        for j in range(offs.shape[1]):
            off = offs[r, j]
            for a in range(width):
                gradient[r, a] += off * rows[j, a]
        for a in range(width):
            square += gradient[r, a] * gradient[r, a]
    return loss, np.sqrt(square)


@numba.njit(cache=True, nogil=True)
def _logits(weights, columns, found):  # type: ignore[no-untyped-def]
    """Fill `found` (R, k) with the logits of the first k points of `columns` (p, t)."""
    found[:] = 0.0
    for r in range(weights.shape[0]):
        for a in range(weights.shape[1]):
            weight = weights[r, a]
            for j in range(found.shape[1]):
                found[r, j] += weight * columns[a, j]


@numba.njit(cache=True, nogil=True)
def _logits_to_probabilities(found, j):  # type: ignore[no-untyped-def]
    """Turn column j of `found` (R, k) from logits into the probabilities of the classes, or for
    R = 1 of the second of two. Returns a, b: the sum of exponentials is b e^a."""
    if found.shape[0] == 1:
        logit = found[0, j]
        rest = np.exp(-abs(logit))
        found[0, j] = 1.0 / (1.0 + rest) if logit >= 0.0 else rest / (1.0 + rest)
        return max(logit, 0.0), 1.0 + rest
    most, total = found[0, j], 0.0
    for r in range(1, found.shape[0]):
        most = max(most, found[r, j])
    for r in range(found.shape[0]):
        found[r, j] = np.exp(found[r, j] - most)
        total += found[r, j]
    for r in range(found.shape[0]):
        found[r, j] /= total
    return most, total


@numba.njit(cache=True, nogil=True)
def probabilities(weights, columns):  # type: ignore[no-untyped-def]
    """(m, K) of points (p, m) under the model."""
    num_logits, num_points = weights.shape[0], columns.shape[1]
    found = np.zeros((max(num_logits, 2), num_points))
    # Two classes of one row: the first has the logit 0, which is the same model.
    _logits(weights, columns, found[found.shape[0] - num_logits :])
    for j in range(num_points):
        _logits_to_probabilities(found, j)
    return found.T.copy()


@numba.njit(cache=True, nogil=True)
def _factorise(rows, offs, targets, penalty, factor):  # type: ignore[no-untyped-def]
    """Fill the lower triangle of `factor` with the Cholesky factor of the Hessian of F.

    Args:
        rows: (t, p) an order, its first k the coalition.
        offs: (R, k) probabilities less targets.
        targets: (t,) class numbers.
        penalty: 1 / c.
        factor: (R p, R p).
    """
    (num_logits, num_points), width = offs.shape, rows.shape[1]
    factor[:] = 0.0
    chance = np.empty(num_logits)
    for j in range(num_points):
        for r in range(num_logits):
            chance[r] = offs[r, j]
            if num_logits == 1:
                chance[0] += targets[j]
            elif r == targets[j]:
                chance[r] += 1.0
        for r in range(num_logits):
            for s in range(r + 1):
                weight = chance[r] * ((1.0 if r == s else 0.0) - chance[s])
                for a in range(width):
                    part = weight * rows[j, a]
                    for b in range(a + 1 if r == s else width):
                        factor[r * width + a, s * width + b] += part * rows[j, b]
    for r in range(num_logits):
        for a in range(width - 1):
            factor[r * width + a, r * width + a] += penalty
        if num_logits > 1:  # of the sum of intercepts
            for s in range(r + 1):
                factor[(r + 1) * width - 1, (s + 1) * width - 1] += 1.0
    size = num_logits * width
    for i in range(size):
        for j in range(i):
            total = factor[i, j]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            factor[i, j] = total / factor[j, j]
        # A free intercept has next to no curvature where all probabilities are 0 or 1.
        total = factor[i, i]
        least = 1e-15 * total
        for k in range(i):
            total -= factor[i, k] * factor[i, k]
        factor[i, i] = np.sqrt(max(total, least, 1e-300))


@numba.njit(cache=True, nogil=True)
def _solve(factor, right):  # type: ignore[no-untyped-def]
    """(R p,) the solution of L L' x = `right`, L the lower triangle of `factor`."""
    x = right.copy()
    for i in range(len(x)):
        for j in range(i):
            x[i] -= factor[i, j] * x[j]
        x[i] /= factor[i, i]
    for i in range(len(x) - 1, -1, -1):
        x[i] /= factor[i, i]
        for j in range(i):  # along a row of L, that is a column of L'
            x[j] -= factor[i, j] * x[i]
    return x
