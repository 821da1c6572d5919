"""Whatever people hold their data in gives the same values, or one line that says what is wrong."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.linear_model import LogisticRegression

import dcai_ray
from dcai_ray.errors import UserError
from dcai_ray.valuation.arrays import class_labels, feature_matrix, texts, whole_number

RNG = np.random.default_rng(0)
X, X_VAL = RNG.integers(0, 9, (30, 4)).astype(float), RNG.integers(0, 9, (12, 4)).astype(float)
Y, Y_VAL = RNG.integers(0, 3, 30), RNG.integers(0, 3, 12)
NAMES = np.array(["a/b", "cat", "dög"])
EXACT = dcai_ray.knn_shapley(X, Y, X_VAL, Y_VAL, k=3)

KINDS = {
    "lists": (np.ndarray.tolist, np.ndarray.tolist),
    "tuples": (lambda x: tuple(map(tuple, x)), lambda y: tuple(y.tolist())),
    "pandas": (pd.DataFrame, pd.Series),
    "pandas, nullable": (
        lambda x: pd.DataFrame(x).astype("Int64"),
        lambda y: pd.Series(y, dtype="Int64"),
    ),
    "categories": (pd.DataFrame, lambda y: pd.Series(NAMES[y]).astype("category")),
    "an index that starts elsewhere": (
        lambda x: pd.DataFrame(x, index=range(900, 900 + len(x))),
        lambda y: pd.Series(y, index=range(900, 900 + len(y))),
    ),
    "tensors": (torch.tensor, torch.tensor),
    "tensors with a graph": (lambda x: torch.tensor(x, requires_grad=True) * 1, torch.tensor),
    "bfloat16": (lambda x: torch.tensor(x, dtype=torch.bfloat16), torch.tensor),
    "sparse tensors": (lambda x: torch.tensor(x).to_sparse(), torch.tensor),
    "a list of tensors": (lambda x: torch.tensor(x), lambda y: list(torch.tensor(y))),
    "SciPy sparse": (sparse.csr_array, np.asarray),
    "SciPy sparse matrix": (sparse.csc_matrix, np.asarray),
    "whole numbers": (lambda x: x.astype(np.int16), lambda y: y.astype(np.uint8)),
    "float32": (np.float32, np.float64),
    "text": (np.asarray, lambda y: NAMES[y]),
    "lists of text": (np.asarray, lambda y: NAMES[y].tolist()),
    "objects": (lambda x: x.astype(object), lambda y: NAMES[y].astype(object)),
    "bytes": (np.asarray, lambda y: np.char.encode(NAMES[y], "utf-8")),
    "negative numbers": (np.asarray, lambda y: y * 10**12 - 7),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_holds_the_points_the_values_are_the_same(kind):
    features, labels = KINDS[kind]
    points = (features(X), labels(Y), features(X_VAL), labels(Y_VAL))
    assert_array_equal(dcai_ray.knn_shapley(*points, k=3), EXACT)
    whole = np.arange(len(Y))
    for make in (dcai_ray.Knn, dcai_ray.KnnAccuracy, dcai_ray.LeastSquares, dcai_ray.Logistic):
        assert make(*points).score(whole) == make(X, Y, X_VAL, Y_VAL).score(whole)


def test_values_by_the_points_themselves_take_text_too():
    by_number = dcai_ray.knn_shapley(X, Y, k=3, class_weights="balanced")
    by_name = dcai_ray.knn_shapley(X.tolist(), NAMES[Y].tolist(), k=3, class_weights="balanced")
    assert_array_equal(by_name, by_number)


def test_booleans_are_two_classes():
    assert_array_equal(
        dcai_ray.knn_shapley(X, Y > 0, X_VAL, pd.Series(Y_VAL > 0), k=3),
        dcai_ray.knn_shapley(X, np.int64(Y > 0), X_VAL, np.int64(Y_VAL > 0), k=3),
    )


@pytest.mark.slow
def test_a_classifier_is_refitted_on_the_names_of_its_classes():
    model = LogisticRegression(max_iter=200)
    found = dcai_ray.Refit(model, pd.DataFrame(X), NAMES[Y].tolist(), X_VAL, list(NAMES[Y_VAL]))
    expected = model.fit(X, NAMES[Y]).score(X_VAL, NAMES[Y_VAL])
    assert found.score(np.arange(len(Y))) == pytest.approx(expected, abs=1e-12)


WRONG_LABELS = {
    "fractions": (Y * 0.3, r"class labels .* got 0\.[36]; map each class"),
    "NaN": (np.where(Y == 1, np.nan, Y), r"has \d+ missing labels \(NaN\); leave out"),
    "infinite": (np.where(Y == 1, np.inf, Y), "got inf"),
    "beyond what a float counts": (Y * 2.0**60, "got"),
    "None": ([None, *Y[1:].tolist()], "has 1 missing labels"),
    "NaN beside text": ([float("nan"), *NAMES[Y[1:]]], "has 1 missing labels"),
    "NA of pandas": (pd.Series([pd.NA, *Y[1:]], dtype="Int64"), "has 1 missing labels"),
    "one-hot": (np.eye(3)[Y], r"\(30, 3\); one-hot and soft labels .* y_train.argmax"),
    "soft": (torch.softmax(torch.randn(30, 3), 1), "one-hot and soft labels"),
    "a column": (Y[:, np.newaxis], r"\(30, 1\); use y_train.ravel"),
    "a data frame": (pd.DataFrame({"y": Y}), r"use y_train.ravel"),
    "numbers and text": (["cat", *Y[1:].tolist()], "one kind, got numbers and text; make all"),
    "one of another length": (Y[:-1], "must have one row per point, got 30 and 29"),
    "dates": (np.full(30, np.datetime64("2020-01-01")), "got datetime64"),
    "ragged": ([[1], [1, 2], *Y[2:].tolist()], "labels of one kind, got|rows of different lengths"),
    "complex": (Y * 1j, "got complex128"),
    "too large": (np.full(30, 2**63, dtype=np.uint64), "fit into 64 bits"),
    "one label": (1, r"one label per point, got shape \(\)"),
}


@pytest.mark.parametrize("kind", WRONG_LABELS)
def test_labels_that_mean_nothing_certain_are_refused(kind):
    labels, message = WRONG_LABELS[kind]
    for use in (dcai_ray.knn_shapley, dcai_ray.KnnAccuracy, dcai_ray.LeastSquares):
        with pytest.raises(UserError, match=message) as error:
            use(X, labels, X_VAL, Y_VAL)
        assert "\n" not in str(error.value)
        assert "y_train" in str(error.value)


def test_one_set_by_number_and_the_other_by_name_is_refused():
    with pytest.raises(UserError, match="one kind, got numbers and text; name the classes alike"):
        dcai_ray.knn_shapley(X, Y, X_VAL, NAMES[Y_VAL])


HOLES = X.copy()
HOLES[3, 1] = np.nan
WRONG_FEATURES = {
    "NaN": (HOLES, "must be finite, got 1 NaN"),
    "missing": ([[None, 1, 2, 3], *X[1:].tolist()], "must be finite, got 1 NaN"),
    "NA of pandas": (pd.DataFrame(HOLES).astype("Float64"), "must be finite, got 1 NaN"),
    "one feature": (X[:, 0], r"got shape \(30,\); use x_train.reshape\(-1, 1\)"),
    "empty": (X[:0], r"non-empty .* got shape \(0, 4\)"),
    "none": (X[:, :0], r"non-empty .* got shape \(30, 0\)"),
    "ragged": ([[1.0], [1.0, 2.0]], "rows of different lengths"),
    "text": (X.astype(str), "must hold numbers only"),
    "a column of text": (pd.DataFrame(X).assign(name="a"), "must hold numbers only"),
    "dates": (np.full((30, 4), np.datetime64("2020-01-01")), "must hold numbers only"),
    "complex": (X * 1j, "must hold numbers only"),
    "masked": (np.ma.masked_less(X, 2), "has masked entries"),
    "other widths": (X[:, :3], "same number of features, got 3 and 4"),
}


@pytest.mark.parametrize("kind", WRONG_FEATURES)
def test_features_that_are_none_are_refused(kind):
    features, message = WRONG_FEATURES[kind]
    for use in (dcai_ray.knn_shapley, dcai_ray.Knn, dcai_ray.Logistic):
        with pytest.raises(UserError, match=message):
            use(features, Y, X_VAL, Y_VAL)


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (2.5, "whole number, got 2.5"),
        (True, "got True"),
        ("3", "got '3'"),
        (0, "at least 1, got 0"),
    ],
)
def test_neighbours_are_counted_in_whole_numbers(k, message):
    for use in (dcai_ray.knn_shapley, dcai_ray.Knn, dcai_ray.KnnAccuracy):
        with pytest.raises(UserError, match=f"k must be .*{message}"):
            use(X, Y, X_VAL, Y_VAL, k=k)
    assert whole_number("k", np.int32(4)) == 4


def test_the_precision_of_floats_is_kept():
    assert feature_matrix("x", np.float32(X)).dtype == np.float32
    assert feature_matrix("x", X > 3).dtype == np.float64
    assert class_labels("y", np.array([2.0, 7.0])).tolist() == [2, 7]


def test_names_are_text_numbers_or_paths(tmp_path):
    given = ["a/b", tmp_path, np.int64(3), 4.0, b"c"]
    assert texts("ids", given, 5) == ["a/b", str(tmp_path), "3", "4", "c"]
    for wrong in (["a", None], ["a", float("nan")], ["a", 1.5], ["a", ("b",)]):
        with pytest.raises(UserError, match="ids must be text, whole numbers or paths, got"):
            texts("ids", wrong, 2)
    with pytest.raises(UserError, match="one entry per point, got a single text"):
        texts("ids", "ab", 2)


def test_a_utility_prints_its_sizes():
    assert repr(dcai_ray.KnnAccuracy(X, Y, X_VAL, Y_VAL, k=3)) == "KnnAccuracy(n=30, m=12, k=3)"
    assert repr(dcai_ray.Knn(X, Y, X_VAL, Y_VAL, k=3)) == "Knn(n=30, m=12, k=3)"
