"""Logistic regression: every coalition fitted to convergence, from the solution before it.

With a column of ones added to the features (p = d + 1), the model of a coalition S is, as in
scikit-learn, that of the K classes S has. It minimises over one row of weights a class,

    F(W) = - sum over (x, t) in S of log softmax(W x)_t  +  1 / (2 c) |W without intercepts|^2

and for K = 2 the logistic loss of one row, for the second class against the first, with the same
penalty. Intercepts are free; for K > 2 their sum, which changes no probability, is held at 0.
Probabilities of classes that S lacks are 0; with one class, K = 1, its own is 1.

The minimum is found by Newton's method with steps halved until F falls, from W = 0 for `score`.
When one point joins in `marginals`, W and the Cholesky factor of the Hessian are those of the
coalition before; both change little. So steps are taken with the old factor, and the Hessian is
made anew only where one leaves more than a twentieth of |grad F|. A step then costs O(|S| K p)
rather than O(|S| K^2 p^2). When a class arrives the model is another one, and W starts from 0; so
it does where the old W leads nowhere.

Both end at |grad F| <= 1e-10 (more only by rounding errors of the sum), so a sweep's marginals are
those of converged refits: see `Logistic.sweep` for how nearly.

Source: Boyd & Vandenberghe 2004, Convex Optimization, 9.5-9.7 (damped Newton, factors kept).
"""

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from dcai_ray.errors import ModelError, UserError
from dcai_ray.valuation.utilities import Orders
from dcai_ray.valuation.utilities.inputs import labelled_points, projected, with_intercept
from dcai_ray.valuation.utilities.scores import (
    Score,
    differences,
    empty_score,
    score_of,
    score_range,
)

_TOLERANCE = 1e-10  # of |grad F|
_ROUNDING = 4e-15  # of a sum, relative to the sum of the absolute values of its terms
_KEEP_FACTOR = 0.05  # a step that leaves more of the gradient calls for a new Hessian
_LEAST_STEP = 2.0**-60
_MOST_STEPS = 1000  # far more than any fit takes: a dozen from 0, two to four along an order
# As measured, in microseconds; they decide costs that guide samplers, never a result.
_STEPS, _FLOP_US, _CALL_US = 4, 6e-4, 30.0


class Logistic:
    """A score of multinomial logistic regression with an L2 penalty.

    Args:
        x_train: (n, d) features; centred here by their mean.
        y_train: (n,) integer labels, any numbers.
        x_val: (m, d) features of the validation points.
        y_val: (m,) their labels.
        c: inverse strength of the penalty, as scikit-learn's C.
        num_features: principal axes of the training features that are kept; None or d and more:
            all features.
        score: of the probabilities; see `scores`.
        empty: v(empty); None: the score of the validation set's class frequencies as constant
            prediction.
    Raises:
        UserError: for sizes that do not fit, features that are not finite, labels that are not
            integers, c <= 0 or an `empty` that no score can have.
    """

    def __init__(
        self,
        x_train: NDArray[np.floating],
        y_train: NDArray[np.integer],
        x_val: NDArray[np.floating],
        y_val: NDArray[np.integer],
        *,
        c: float = 1.0,
        num_features: int | None = 32,
        score: Score = "accuracy",
        empty: float | None = None,
    ) -> None:
        if not 0 < c < np.inf:
            raise UserError(f"c must be positive and finite, got {c}")
        points = projected(labelled_points(x_train, y_train, x_val, y_val), num_features)
        self._rows = with_intercept(points.x_train)  # (n, p)
        self._val_columns = np.ascontiguousarray(with_intercept(points.x_val).T)  # (p, m)
        self._y_train, self._y_val = points.y_train, points.y_val
        self._num_classes = len(points.labels)
        self._c = float(c)
        self._score: Score = score
        self._empty = empty_score(score, self._y_val, self._num_classes, empty)

    @property
    def num_players(self) -> int:
        """n, the training points."""
        return len(self._rows)

    @property
    def components(self) -> Sequence["Logistic"]:
        """Itself: a sweep of fewer validation points would cost as much."""
        return (self,)

    @property
    def marginal_range(self) -> float:
        """Bound on |v(S + i) - v(S)|: 1, or infinite for "neg-log-loss"."""
        return score_range(self._score)

    @property
    def position_costs(self) -> NDArray[np.float64]:
        """(n,) cost of a marginal by the size of the coalition, in about microseconds."""
        width, num_val = self._val_columns.shape
        logits = 1 if self._num_classes == 2 else self._num_classes
        flops = 4 * logits * width * _STEPS * np.arange(1, self.num_players + 1)
        return _CALL_US + _FLOP_US * (flops + 2 * logits * width * num_val)

    def score(self, coalition: NDArray[np.intp]) -> float:
        """v(S) by its definition: fitted from zero weights to convergence.

        Raises:
            ModelError: if the fit does not converge, which takes an extreme c |x|^2.
        """
        if len(coalition) == 0:
            return self._empty
        members = np.sort(coalition)  # a set function, to the bit
        path = _Path(self, members)
        return path.value(len(members))

    def marginals(self, orders: Orders) -> NDArray[np.float64]:
        """(t,) marginals, in the order of `orders.players`; none is left out.

        They equal differences of `score` but for what is left at the end of both fits. Study's set,
        d = 32, an order of 300 players, |marginal - difference of scikit-learn's converged refits|:
        "accuracy" 0, "auroc" at most 3e-16, "neg-log-loss" at most 2e-11 and 1.3e-12 in the mean.
        It grows with c |x|^2: for "neg-log-loss" 1e-7 around 1e5, 1e-5 around 1e8.

        Raises:
            ModelError: if a fit does not converge, which takes an extreme c |x|^2.
        """
        values = np.empty(len(orders.players))
        for start, stop in zip(orders.offsets, orders.offsets[1:], strict=False):
            path = _Path(self, orders.players[start:stop])
            for size in range(1, stop - start + 1):
                values[start + size - 1] = path.value(size)
        return differences(values, orders.offsets, self._empty)


class _Path:
    """The model along one order: what the next fit starts from."""

    def __init__(self, utility: Logistic, players: NDArray[np.integer]) -> None:
        self._utility = utility
        self._rows = utility._rows[players]  # (t, p)
        self._columns = np.ascontiguousarray(self._rows.T)  # (p, t)
        self._y = utility._y_train[players]  # (t,)
        self._first = np.unique(self._y, return_index=True)  # classes and their arrivals
        self._present = np.empty(0, dtype=np.int64)  # (K,) classes of the model
        self._targets = np.empty(0, dtype=np.int64)  # (t,) their numbers in the model
        self._weights = np.empty((0, 0))  # (K or 1, p)
        self._factor = np.empty((0, 0))  # (K p, K p) or (p, p)

    def value(self, size: int) -> float:
        """The score of the model of the first `size` players."""
        classes, arrivals = self._first
        present = classes[arrivals < size]
        if len(present) != len(self._present):
            self._present = present
            self._targets = np.searchsorted(present, self._y)
            logits = 1 if len(present) == 2 else len(present)
            width = self._rows.shape[1]
            self._weights = np.zeros((logits, width))
            self._factor = np.zeros((logits * width, logits * width))  # 0: there is none yet
        utility = self._utility
        scores = np.zeros((len(utility._y_val), utility._num_classes))  # (m, C)
        if len(present) == 1:
            scores[:, present[0]] = 1.0
        else:
            self._fit(size)
            scores[:, present] = _probabilities(self._weights, utility._val_columns)
        return score_of(utility._score, scores, utility._y_val)

    def _fit(self, size: int) -> None:
        penalty = 1 / self._utility._c
        points = (self._rows, self._columns, self._targets, size, penalty)
        left = _fit(*points, self._weights, self._factor)
        if left > 0:
            # A newcomer far on the wrong side of a model that is sure of all others: there the
            # intercept has no curvature to step by. From 0 it has.
            self._weights[:] = 0.0
            self._factor[:] = 0.0
            left = _fit(*points, self._weights, self._factor)
        if left > 0:
            raise ModelError(
                f"logistic regression of a coalition of {size} points did not converge, "
                f"|grad F| = {left:.3g} is left; take a smaller c than {self._utility._c:g}, or "
                "divide the features"
            )


@numba.njit(cache=True, nogil=True)
def _fit(rows, columns, targets, size, penalty, weights, factor):  # type: ignore[no-untyped-def]
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
    for _ in range(_MOST_STEPS):
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
            if not fresh or step < _LEAST_STEP:
                break
            # Near the minimum F is flat but for rounding errors, and whole steps are right.
            if found <= loss * (1.0 + 1e-13) - 1e-4 * step * slope:
                break
            step /= 2.0
        if step < _LEAST_STEP:
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
def _probabilities(weights, columns):  # type: ignore[no-untyped-def]
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
