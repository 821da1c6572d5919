"""The ridge classifier: marginals of whole orders without a refit.

With a column of ones added to the features (p = d + 1; the intercept is shrunk like the rest), the
coalition S with rows X_S and one-hot classes T_S has the weights, class scores and utility

    W_S = (X_S' X_S + ridge I)^-1 X_S' T_S        f(x) = x W_S                    W_empty = 0
    accuracy    share of validation points whose true class has the largest f
    margin      - mean over validation points of sum over classes of (1[class is true] - f)^2

Of classes whose f tie the smallest wins; all C classes compete, those not in S with f = 0. For
two classes this is least squares on targets of -1 and 1.

Nothing is ever refitted. When (x, t) joins, with A the inverse above (Sherman & Morrison),

    g = A x / (1 + x' A x)       A <- A - g (A x)'       f(z) <- f(z) + (z' g) (t - f(x))

so a marginal costs O(p^2 + m (p + C)). The recursion loses about log10(|x|^2 / ridge) digits of
16: `ridge` has a minimum.

Source: Plackett 1950, Biometrika 37, recursive least squares; Sherman & Morrison 1950.
"""

from collections.abc import Sequence
from typing import Literal

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcai_ray.errors import UserError
from dcai_ray.valuation.utilities import Orders
from dcai_ray.valuation.utilities.inputs import labelled_points, projected, with_intercept
from dcai_ray.valuation.utilities.scores import TIE, differences, empty_score

_MIN_RIDGE = 1e-6  # of the largest squared row: f is then right to 1e-9, a hundredth of a tie
_FLOP_US = 1.3e-4  # as measured; decides costs that guide samplers, never a result


class LeastSquares:
    """The ridge classifier's accuracy, or its negative squared error.

    Args:
        x_train: (n, d) features; centred here by their mean.
        y_train: (n,) labels: whole numbers, booleans or text.
        x_val: (m, d) features of the validation points.
        y_val: (m,) their labels.
        ridge: penalty on squared weights, in units of squared features.
        num_features: principal axes of the training features that are kept; None or d and more:
            all features.
        score: "accuracy" or "margin"; see the module's docstring.
        empty: v(empty); None: the share of the largest class of the validation set, and for
            "margin" that of zero scores, -1.
    Raises:
        UserError: for sizes that do not fit, features or labels that cannot be used, a ridge too
            small for the recursion or an `empty` that no score can have.
    """

    def __init__(
        self,
        x_train: ArrayLike,
        y_train: ArrayLike,
        x_val: ArrayLike,
        y_val: ArrayLike,
        *,
        ridge: float = 10.0,
        num_features: int | None = 32,
        score: Literal["accuracy", "margin"] = "accuracy",
        empty: float | None = None,
    ) -> None:
        if score not in ("accuracy", "margin"):
            raise UserError(f"score must be accuracy or margin, got {score!r}")
        points = projected(labelled_points(x_train, y_train, x_val, y_val), num_features)
        self._rows = with_intercept(points.x_train)  # (n, p)
        self._val_columns = np.ascontiguousarray(with_intercept(points.x_val).T)  # (p, m)
        self._y_train, self._y_val = points.y_train, points.y_val
        self._num_classes = len(points.labels)
        least = _MIN_RIDGE * float(np.einsum("np,np->n", self._rows, self._rows).max())
        if not least <= ridge < np.inf:
            raise UserError(f"ridge must be finite and at least {least:.3g} here, got {ridge}")
        self._ridge = float(ridge)
        self._margin = score == "margin"
        if not self._margin:
            self._empty = empty_score("accuracy", self._y_val, self._num_classes, empty)
        elif empty is None or -np.inf < empty <= 0:
            self._empty = -1.0 if empty is None else float(empty)
        else:
            raise UserError(f"empty must be a value of margin, finite and <= 0, got {empty}")

    @property
    def num_players(self) -> int:
        """n, the training points."""
        return len(self._rows)

    @property
    def components(self) -> Sequence["LeastSquares"]:
        """Itself: marginals on fewer validation points would cost nearly as much."""
        return (self,)

    @property
    def marginal_range(self) -> float:
        """Bound on |v(S + i) - v(S)|: 1 for accuracy, infinite for the margin."""
        return np.inf if self._margin else 1.0

    @property
    def position_costs(self) -> NDArray[np.float64]:
        """(n,) cost of a marginal by coalition size, in nominal microseconds: constant."""
        p, m = self._val_columns.shape
        flops = 4 * p * p + 2 * m * p + 6 * m * self._num_classes
        return np.full(self.num_players, flops * _FLOP_US)

    def score(self, coalition: NDArray[np.intp]) -> float:
        """v(S) by its definition: the normal equations of the coalition, solved."""
        if len(coalition) == 0:
            return self._empty
        members = np.sort(coalition)  # a set function, to the bit
        rows = self._rows[members]
        targets = np.eye(self._num_classes)[self._y_train[members]]
        gram = rows.T @ rows + self._ridge * np.eye(rows.shape[1])
        scores = np.linalg.solve(gram, rows.T @ targets).T @ self._val_columns  # (C, m)
        return float(_value(scores, self._y_val, self._margin))

    def marginals(self, orders: Orders) -> NDArray[np.float64]:
        """(t,) marginals, in the order of `orders.players`; none is left out."""
        values = np.empty(len(orders.players))
        _sweep(
            self._rows,
            self._y_train,
            self._val_columns,
            self._y_val,
            self._num_classes,
            self._ridge,
            self._margin,
            orders.players,
            orders.offsets,
            values,
        )
        return differences(values, orders.offsets, self._empty)


@numba.njit(cache=True, nogil=True)
def _sweep(  # type: ignore[no-untyped-def]
    rows, y_train, val_columns, y_val, num_classes, ridge, margin, players, offsets, values
):
    """Fill `values` (t,) with the scores of all prefixes; the recursion of the module's docstring.

    Sums run over rows of the tables, element by element, so that they are vectorised without being
    reordered: the bits do not depend on the machine.
    """
    width, num_val = val_columns.shape
    inverse = np.empty((width, width))
    weights = np.empty((num_classes, width))
    scores = np.empty((num_classes, num_val))
    gain, moved = np.empty(width), np.empty(num_val)
    for order in range(len(offsets) - 1):
        inverse[:] = 0.0
        for a in range(width):
            inverse[a, a] = 1.0 / ridge
        weights[:] = 0.0
        scores[:] = 0.0
        for at in range(offsets[order], offsets[order + 1]):
            x = rows[players[at]]
            true = y_train[players[at]]
            gain[:] = 0.0  # first A x
            for a in range(width):
                for b in range(width):
                    gain[b] += inverse[a, b] * x[a]
            scale = 1.0
            for a in range(width):
                scale += x[a] * gain[a]
            for a in range(width):
                # Both triangles from the same products, so that A stays symmetric to the bit.
                part = gain[a] / scale
                for b in range(a + 1):
                    inverse[a, b] -= part * gain[b]
            for a in range(width):
                for b in range(a):
                    inverse[b, a] = inverse[a, b]
            moved[:] = 0.0  # z' A x of every validation point z
            for a in range(width):
                for q in range(num_val):
                    moved[q] += val_columns[a, q] * gain[a]
            for c in range(num_classes):
                error = 1.0 if c == true else 0.0
                for a in range(width):
                    error -= x[a] * weights[c, a]
                if error == 0.0:  # a class that has not arrived
                    continue
                error /= scale
                for a in range(width):
                    weights[c, a] += gain[a] * error
                for q in range(num_val):
                    scores[c, q] += moved[q] * error
            values[at] = _value(scores, y_val, margin)


@numba.njit(cache=True, nogil=True)
def _value(scores, y_val, margin):  # type: ignore[no-untyped-def]
    """The utility of class scores (C, m) against true classes (m,)."""
    num_classes, num_val = scores.shape
    if margin:
        error = 0.0
        for q in range(num_val):
            for c in range(num_classes):
                off = scores[c, q] - (1.0 if c == y_val[q] else 0.0)
                error += off * off
        return -error / num_val
    right = 0
    for q in range(num_val):
        best = scores[0, q]
        for c in range(1, num_classes):
            best = max(best, scores[c, q])
        first = 0
        while scores[first, q] < best - TIE:
            first += 1
        right += first == y_val[q]
    return right / num_val
