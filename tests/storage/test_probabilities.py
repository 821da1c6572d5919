"""Probabilities of the user's own network: read by id and split, bad ones refused by name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from dcai_ray.errors import UserError
from dcai_ray.storage.location import Location
from dcai_ray.storage.probabilities import Probabilities, read_probabilities, select

WANTED = {"train": ["cat/1.jpg", "dog/1.jpg"], "shapley_val": ["cat/1.jpg"]}
CLASSES = ["cat", "dog"]
ROWS = """dog,id,split,cat
.9,dog/1.jpg,train,.1
.25,cat/1.jpg,shapley_val,.75
.4,cat/1.jpg,train,.6
.5,other/9.jpg,val,.5
"""


def given(tmp_path, text):
    (tmp_path / "p.csv").write_text(text)
    return Location(str(tmp_path / "p.csv"))


def test_rows_are_found_by_id_and_split_and_columns_by_class(tmp_path):
    found = read_probabilities(given(tmp_path, ROWS), WANTED, CLASSES)
    assert_array_equal(found["train"], [[0.6, 0.4], [0.1, 0.9]])
    assert_array_equal(found["shapley_val"], [[0.75, 0.25]])


def test_a_table_gives_back_what_it_was_made_of_whatever_classes_are_called(tmp_path):
    p = np.array([[0.25, 0.75], [1.0, 0.0]])
    made = Probabilities(["train", "shapley_val"], ["a/1", "a/1"], ["split", "id"], p)
    pq.write_table(made.table(), tmp_path / "p.parquet")
    found = Probabilities.of(pq.read_table(tmp_path / "p.parquet"))
    assert (found.splits, found.ids, found.classes) == (made.splits, made.ids, made.classes)
    assert_array_equal(found.p, p)
    wanted = {"shapley_val": ["a/1"]}
    file = Location(str(tmp_path / "p.parquet"))
    assert_array_equal(select(file, found, wanted, ["id", "split"])["shapley_val"], [[0.0, 1.0]])
    with pytest.raises(UserError, match="no probabilities of class 'other'"):
        select(file, found, wanted, ["id", "other"])


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
        (".4,cat", ".4,.4,cat", "neither a CSV nor a Parquet table"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, old, new, message):
    assert old in ROWS
    with pytest.raises(UserError, match=message):
        read_probabilities(given(tmp_path, ROWS.replace(old, new)), WANTED, CLASSES)
