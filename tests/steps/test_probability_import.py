"""Probabilities of the user's own network: read by id and split, bad ones refused by name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.testing import assert_array_equal
from safetensors.torch import save

from dcai_ray.errors import UserError
from dcai_ray.steps.probability_import import probabilities_among
from dcai_ray.steps.user_files import read_arrays
from dcai_ray.storage.location import Location

WANTED = {"train": ["cat/1.jpg", "dog/1.jpg"], "shapley_val": ["cat/1.jpg"]}
CLASSES = ["cat", "dog"]
ROWS = """dog,id,split,cat
.9,dog/1.jpg,train,.1
.25,cat/1.jpg,shapley_val,.75
.4,cat/1.jpg,train,.6
.5,other/9.jpg,val,.5
"""


def read_probabilities(file, wanted, classes):
    return probabilities_among(file, read_arrays(file)[0], wanted, classes)


def given(tmp_path, text):
    (tmp_path / "p.csv").write_text(text)
    return Location(str(tmp_path / "p.csv"))


def test_rows_are_found_by_id_and_split_and_columns_by_class(tmp_path):
    found = read_probabilities(given(tmp_path, ROWS), WANTED, CLASSES)
    assert_array_equal(found["train"], [[0.6, 0.4], [0.1, 0.9]])
    assert_array_equal(found["shapley_val"], [[0.75, 0.25]])


def test_parquet_without_splits_is_of_the_training_images(tmp_path):
    table = pa.table({"id": ["a", "b"], "cat": np.float32([1, 0.25]), "dog": np.float32([0, 0.75])})
    pq.write_table(table, tmp_path / "p.parquet")
    file = Location(str(tmp_path / "p.parquet"))
    assert_array_equal(
        read_probabilities(file, {"train": ["b", "a"]}, CLASSES)["train"], [[0.25, 0.75], [1, 0]]
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dog,id", "hund,id", "no column 'dog'; expected id"),
        (
            "dog/1.jpg,train",
            "dog/2.jpg,train",
            "no row for 1 of 2 images of train, the first dog/1",
        ),
        ("cat/1.jpg,shapley_val", "cat/1.jpg,train", "1 rows have an id that occurs twice"),
        (
            ".9,dog",
            "2.5,dog",
            "1 rows are not probabilities that sum to 1, the first that of dog/1",
        ),
        (".9,dog", "1.1,dog", "are not probabilities"),
        (".9,dog", "nan,dog", "are not probabilities"),
        (".9,dog", "much,dog", "column 'dog' must hold numbers"),
        (".9,dog/1.jpg,train,.1", "-.1,dog/1.jpg,train,1.1", "are not probabilities"),
        ("cat/1.jpg,train", "cat/1.jpg,", "no row for 1 of 2 images of train, the first cat/1"),
        (".4,cat", ".4,.4,cat", "neither a CSV nor a Parquet table"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, old, new, message):
    assert old in ROWS
    with pytest.raises(UserError, match=message):
        read_probabilities(given(tmp_path, ROWS.replace(old, new)), WANTED, CLASSES)


P = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]])  # cat/1, dog/1 of train, cat/1 of shapley_val


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "safetensors", "csv"])
def test_a_matrix_is_in_the_order_of_images_and_classes(tmp_path, kind):
    file = tmp_path / f"p.{kind}"
    match kind:
        case "npy":
            np.save(file, np.float32(P))
        case "npz":
            np.savez(file, pred_probs=P)
        case "pt":
            torch.save(torch.tensor(P), file)
        case "safetensors":
            file.write_bytes(save({"p": torch.tensor(P)}))
        case "csv":
            np.savetxt(file, P, delimiter=",", header="cat,dog", comments="")
    found = read_probabilities(Location(str(file)), WANTED, CLASSES)
    assert_array_equal(found["train"], P[:2])
    assert_array_equal(found["shapley_val"], P[2:])


def test_a_matrix_may_name_its_rows_and_columns(tmp_path):
    file = tmp_path / "p.npz"
    ids, split = ["cat/1.jpg", "cat/1.jpg", "dog/1.jpg"], ["shapley_val", "train", "train"]
    np.savez(file, p=P, ids=ids, split=split, classes=["dog", "cat"])
    found = read_probabilities(Location(str(file)), WANTED, CLASSES)
    assert_array_equal(found["train"], [[0.0, 1.0], [0.5, 0.5]])
    assert_array_equal(found["shapley_val"], [[0.75, 0.25]])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"p": P[:2]}, "2 rows without ids for 2 of train and 1 of shapley_val images; give a row"),
        ({"p": np.c_[P, P] / 2}, r"4 columns for 2 classes \(cat, dog\); give one column per"),
        ({"p": P, "q": P}, "2 matrices; expected one"),
        ({"p": P * 3}, "3 rows are not probabilities that sum to 1, the first that of cat/1"),
        ({"p": P, "ids": ["a", "b"]}, "ids must hold one entry per point, got 2 for 3"),
        ({"p": P, "classes": ["cat", "wolf"]}, "no probabilities of class 'dog'"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(UserError, match=rf"p\.npz: .*{message}"):
        read_probabilities(Location(str(tmp_path / "p.npz")), WANTED, CLASSES)
