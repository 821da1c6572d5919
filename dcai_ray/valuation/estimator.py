"""Exact KNN-Shapley values as a scikit-learn estimator, and as a filter of samples."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from dcai_ray.valuation.knn_shapley import knn_shapley
from dcai_ray.valuation.neighbours import ClassWeights, Metric


class DataShapley(BaseEstimator):  # type: ignore[misc]
    """The value of every sample for a K-nearest-neighbour classifier.

    `fit(X, y).values_` holds the values; `fit_resample(X, y)` also drops what is not above the
    threshold, as the samplers of imbalanced-learn do, and so takes part in its pipelines.

    Attributes:
        values_: (n,) exact Shapley values in units of accuracy.
        classes_: (C,) the labels.
        n_features_in_: d.
    """

    def __init__(
        self,
        *,
        k: int = 10,
        metric: Metric = "cosine",
        class_weights: ClassWeights = "balanced",
        threshold: float = 0.0,
    ) -> None:
        """Settings as in `knn_shapley`.

        Args:
            k: the number of neighbours K.
            metric: distance between centred features.
            class_weights: "balanced" for balanced accuracy, or "none".
            threshold: value above which `fit_resample` keeps a sample.
        """
        self.k = k
        self.metric = metric
        self.class_weights = class_weights
        self.threshold = threshold

    def __sklearn_tags__(self) -> Any:
        """Labels are needed."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> "DataShapley":
        """Value the samples by clean ones, or without these by each other.

        Args:
            X: (n, d).
            y: (n,) labels.
            X_val: (m, d) samples whose labels are checked.
            y_val: (m,).
        Raises:
            ValueError: what scikit-learn refuses, or `knn_shapley`.
        """
        x, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if X_val is not None:
            X_val = validate_data(self, X_val, dtype=np.float64, reset=False)
        labels = np.searchsorted(self.classes_, y)
        others = None
        if y_val is not None:
            number = {label: i for i, label in enumerate(self.classes_.tolist())}
            others = [number.get(label, -1) for label in np.asarray(y_val).tolist()]
        self.values_ = knn_shapley(
            x, labels, X_val, others, k=self.k, metric=self.metric,
            class_weights=self.class_weights,
        )  # fmt: skip
        return self

    def kept(self) -> NDArray[np.bool_]:
        """(n,) whether each sample's value is above the threshold."""
        return np.asarray(self.values_ > self.threshold)

    def fit_resample(self, X: ArrayLike, y: ArrayLike) -> tuple[Any, Any]:
        """Value the samples by each other, and return those that are kept, with their labels.

        The most valuable sample of a class stays in any case.
        """
        kept = self.fit(X, y).kept()
        labels = np.asarray(y)
        for label in self.classes_:
            own = np.flatnonzero(labels == label)
            kept[own[np.argmax(self.values_[own])]] = True
        self.sample_indices_ = np.flatnonzero(kept)
        return np.asarray(X)[kept], labels[kept]
