"""Any scikit-learn classifier, refitted on every coalition.

    v(S) = score of clone(model).fit(S) on the validation points

`marginals` makes the same fits as the definition, so it is exact unless fits are skipped by choice:

    every       only every j-th prefix of an order is fitted, and its j players share the difference
                equally. An approximation: it smooths marginals along the order and keeps their sum.
    truncation  an order is given up once |v(S) - v(N)| <= truncation |v(N)| for more than 5 fits
                in a row; the marginals after that are NaN, not computed. Values are then biased,
                badly so with noisy labels, where v(S) crosses v(N) long before it settles.

Classes that a coalition lacks have probability 0. With a single class nothing is fitted, and that
class is predicted. A model that fails is an error, never a score.

Source of the truncation: Ghorbani & Zou 2019, ICML, Algorithm 1, and its authors' DShap.py, which
counts to more than 5; there v(N) is the mean of bootstrapped validation sets, here the score.
"""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier

from dcai_ray.errors import ModelError, UserError
from dcai_ray.valuation.arrays import whole_number
from dcai_ray.valuation.utilities import Orders
from dcai_ray.valuation.utilities.inputs import labelled_points
from dcai_ray.valuation.utilities.scores import (
    Score,
    differences,
    empty_score,
    score_of,
    score_range,
)

_FITS_TO_TRUNCATE = 6  # "more than 5" in a row
_IDS_IN_MESSAGE = 5
_FIT_US, _POINT_US = 1000.0, 10.0  # a small linear model's; only a guide for samplers


class Refit:
    """A score of a scikit-learn classifier fitted on the coalition.

    Args:
        model: a classifier, cloned for every fit. With an integer as
            its `random_state` the utility is a function; with None its scores are random.
        x_train: (n, d) features, handed to the model as they are.
        y_train: (n,) labels: whole numbers, booleans or text, handed to the model,
            booleans as 0 and 1.
        x_val: (m, d) features of the validation points.
        y_val: (m,) their labels.
        score: of the probabilities ("accuracy" and "balanced-accuracy": of the predicted classes,
            which need no `predict_proba`); see `scores`.
        every: number of players of an order that share one fit; 1 is exact.
        truncation: share of v(N) within which an order is given up; None never truncates. v(N) is
            fitted in the constructor.
        empty: v(empty); None: the score of the validation set's class frequencies as constant
            prediction.
    Raises:
        UserError: for sizes that do not fit, features or labels that cannot be used, a model that
            is no classifier or lacks `predict_proba` where it is needed, every < 1, truncation < 0
            or an `empty` that no score can have.
        ModelError: with `truncation`, if the model fails on all points.
    """

    def __init__(
        self,
        model: Any,
        x_train: ArrayLike,
        y_train: ArrayLike,
        x_val: ArrayLike,
        y_val: ArrayLike,
        *,
        score: Score = "accuracy",
        every: int = 1,
        truncation: float | None = None,
        empty: float | None = None,
    ) -> None:
        every = whole_number("every", every)
        if truncation is not None and not truncation >= 0:
            raise UserError(f"truncation must be None or at least 0, got {truncation}")
        self._points = labelled_points(x_train, y_train, x_val, y_val)
        self._empty = empty_score(score, self._points.y_val, len(self._points.labels), empty)
        self._score: Score = score
        if not _is_classifier(model):
            raise UserError(f"model must be a scikit-learn classifier instance, got {model!r:.80}")
        self._by_class = score in ("accuracy", "balanced-accuracy")
        if not self._by_class and not hasattr(model, "predict_proba"):
            raise UserError(
                f"{type(model).__name__} has no predict_proba, which {score} needs; take accuracy"
            )
        self._model = clone(model)
        self._every = every
        self._warned: set[tuple[object, ...]] = set()
        self._truncation = truncation
        self._full = np.nan  # v(N), known only where it is needed
        if truncation is not None:
            with self._each_warning_once():
                self._full = self.score(np.arange(self.num_players))

    @property
    def num_players(self) -> int:
        """n, the training points."""
        return len(self._points.x_train)

    @property
    def components(self) -> Sequence["Refit"]:
        """Itself: a fit costs the same however few validation points there are."""
        return (self,)

    @property
    def marginal_range(self) -> float:
        """Bound on |v(S + i) - v(S)|: 1, or infinite for "neg-log-loss"."""
        return score_range(self._score)

    @property
    def position_costs(self) -> NDArray[np.float64]:
        """(n,) cost of a marginal by coalition size, in nominal microseconds.

        The nominal cost of a small linear model: a constant and a term per point. It is never
        measured, so that the choice of a sampler does not depend on a clock.
        """
        return (_FIT_US + _POINT_US * np.arange(1, self.num_players + 1)) / self._every

    def score(self, coalition: NDArray[np.intp]) -> float:
        """v(S): one fit, of the points by increasing index.

        Raises:
            ModelError: if the model fails or its probabilities are not finite.
        """
        if len(coalition) == 0:
            return self._empty
        members = np.sort(coalition)  # a model may depend on the order of its points
        y_val, labels = self._points.y_val, self._points.labels
        present = np.unique(self._points.y_train[members])
        if len(present) == 1:
            scores = np.zeros((len(y_val), len(labels)))
            scores[:, present[0]] = 1.0
        else:
            try:
                scores = self._fitted_scores(members)
            except Exception as error:  # not swallowed: it gets the coalition that caused it
                ids = ", ".join(map(str, members[:_IDS_IN_MESSAGE]))
                more = ", ..." if len(members) > _IDS_IN_MESSAGE else ""
                raise ModelError(
                    f"{type(self._model).__name__} failed on a coalition of {len(members)} points "
                    f"({ids}{more}): {_first_line(error)}"
                ) from error
        return score_of(self._score, scores, y_val)

    def marginals(self, orders: Orders) -> NDArray[np.float64]:
        """(t,) marginals, in the order of `orders.players`; NaN beyond a truncation.

        Each warning of the model is given once by each utility, not once a fit.

        Raises:
            ModelError: as `score` does.
        """
        marginals = np.full(len(orders.players), np.nan)
        with self._each_warning_once():
            for start, stop in zip(orders.offsets, orders.offsets[1:], strict=False):
                values = self._prefix_values(orders.players[start:stop])
                ends = np.array([0, len(values)])
                marginals[start : start + len(values)] = differences(values, ends, self._empty)
        return marginals

    def _prefix_values(self, order: NDArray[np.integer]) -> NDArray[np.float64]:
        """(at most t,) v of each prefix up to the last that is fitted; linear between fits."""
        sizes = [*range(self._every, len(order), self._every), len(order)] if len(order) else []
        values = np.empty(len(order))
        last_size, last, near = 0, self._empty, 0
        for size in sizes:
            value = self.score(order[:size].astype(np.intp))
            shares = np.arange(1, size - last_size + 1) / (size - last_size)
            values[last_size:size] = last + (value - last) * shares
            values[size - 1] = value  # to the bit
            last_size, last = size, value
            if self._truncation is not None:
                arrived = abs(value - self._full) <= self._truncation * abs(self._full)
                near = near + 1 if arrived else 0
                if near == _FITS_TO_TRUNCATE:
                    break
        return values[:last_size]

    def _fitted_scores(self, members: NDArray[np.intp]) -> NDArray[np.float64]:
        """(m, C) probabilities, or 1 for the predicted class, of a model fitted on `members`."""
        points = self._points
        labels = points.labels[points.y_train[members]]
        model = clone(self._model).fit(points.x_train[members], labels)
        scores = np.zeros((len(points.x_val), len(points.labels)))
        if self._by_class:
            predicted = np.asarray(model.predict(points.x_val))
            classes = np.searchsorted(points.labels, predicted)
            scores[np.arange(len(scores)), classes] = 1.0
            return scores
        probabilities = model.predict_proba(points.x_val)  # (m, classes of the coalition)
        bad = np.count_nonzero(~np.isfinite(probabilities))
        if bad:
            raise UserError(f"predict_proba gave {bad} NaN or infinite entries")
        scores[:, np.searchsorted(points.labels, model.classes_)] = probabilities
        return scores

    @contextmanager
    def _each_warning_once(self) -> Iterator[None]:
        """Whatever the filters let through, once: Python's own memory of what was shown is lost
        whenever a library changes the filters, as scikit-learn does in most fits."""
        caught: list[warnings.WarningMessage] = []
        try:
            with warnings.catch_warnings(record=True) as caught:
                yield
        finally:
            for warning in caught:
                place = (warning.category, warning.filename, warning.lineno)
                if place not in self._warned:
                    self._warned.add(place)
                    warnings.warn_explicit(
                        warning.message, warning.category, warning.filename, warning.lineno
                    )


def classifier(path: str, **parameters: Any) -> Any:
    """A scikit-learn classifier by its import path.

    Args:
        path: module and class, such as "sklearn.linear_model.LogisticRegression".
        parameters: keyword arguments of the class.
    Raises:
        UserError: for an unknown module, class or parameter, or what is no classifier.
    """
    module_path, _, name = path.rpartition(".")
    if not module_path.strip("."):
        raise UserError(f"classifier must be an import path such as package.Class, got {path!r}")
    try:
        module = importlib.import_module(module_path)
    except ImportError as error:
        raise UserError(f"classifier {path}: {_first_line(error)}") from None
    kind = getattr(module, name, None)
    if not isinstance(kind, type):
        raise UserError(f"classifier {path}: {module_path} has no class {name}")
    if not issubclass(kind, BaseEstimator):  # asked before it is made: making may do anything
        raise UserError(f"classifier {path}: not a scikit-learn classifier")
    try:
        model = kind(**parameters)
    except (TypeError, ValueError) as error:  # how a class refuses parameters
        raise UserError(f"classifier {path}: {_first_line(error)}") from None
    if not _is_classifier(model):
        raise UserError(f"classifier {path}: not a scikit-learn classifier")
    return model


def _first_line(error: Exception) -> str:
    """What a library says in several lines, advice among them, in one."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _is_classifier(model: Any) -> bool:
    # Of anything but an estimator, scikit-learn's function raises.
    return isinstance(model, BaseEstimator) and bool(is_classifier(model))
